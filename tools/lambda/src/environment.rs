//! Environments: a function's processes, each with one invocation at a time, stopped in between.

use crate::log;
use crate::runtime_api::{self, Api, Outcome};
use gateway::rules::Function;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// How long a process may take until it asks for its first invocation.
const START: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The process did not start, or ended.
    #[error("the function's process ended or did not start")]
    Ended,
    /// It took too long; its environment was ended.
    #[error("the invocation took too long")]
    TimedOut,
}

/// A process and its runtime API.
struct Environment {
    process: Child,
    pid: Pid,
    api: Arc<Api>,
}

impl Environment {
    fn signal(&self, signal: Signal) {
        // A process that has ended is found out by what it does not answer.
        let _ = kill_process(self.pid, signal);
    }
}

/// All environments of a function.
pub(crate) struct Fleet {
    function: Function,
    program: PathBuf,
    timeout: Duration,
    queue_url: String,
    room: Semaphore,
    idle: Mutex<Vec<Environment>>,
}

impl Fleet {
    pub(crate) fn new(function: Function, program: PathBuf, environments: usize, timeout: Duration, queue_url: String) -> Self {
        Self { function, program, timeout, queue_url, room: Semaphore::new(environments), idle: Mutex::default() }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Environment>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Invokes the function. What it answers may come while the invocation goes on, which it does whether or not anybody waits for it.
    pub(crate) async fn invoke(self: &Arc<Self>, event: String) -> Result<Outcome, NoAnswer> {
        let (tell, told) = oneshot::channel();
        let fleet = Arc::clone(self);
        tokio::spawn(async move { fleet.run(event, tell).await });
        told.await.unwrap_or(Err(NoAnswer::Ended))
    }

    async fn run(&self, event: String, tell: oneshot::Sender<Result<Outcome, NoAnswer>>) {
        let Ok(_room) = self.room.acquire().await else { return };
        let kept = self.idle().pop();
        let environment = match kept {
            Some(environment) => Some(environment),
            None => self.start().await,
        };
        let Some(environment) = environment else {
            let _ = tell.send(Err(NoAnswer::Ended));
            return;
        };
        environment.signal(Signal::CONT);
        // Done when it asks for the next one, not when it has answered.
        if timeout(self.timeout, environment.api.invoke(event, self.timeout, tell)).await == Ok(true) {
            environment.signal(Signal::STOP);
            self.idle().push(environment);
        } else {
            log(&serde_json::json!({ "event": "environment ended", "function": self.function.name() }));
            environment.api.give_up(NoAnswer::TimedOut);
            environment.signal(Signal::KILL);
        }
    }

    /// Starts a process and waits until it asks for its first invocation.
    async fn start(&self) -> Option<Environment> {
        let began = Instant::now();
        let (address, api) = runtime_api::open().await.ok()?;
        let mut command = Command::new(&self.program);
        command
            .env("AWS_LAMBDA_RUNTIME_API", address.to_string())
            .env("AWS_LAMBDA_FUNCTION_NAME", self.function.name())
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "local")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
            .env("AWS_REGION", "local")
            .env("AWS_ACCESS_KEY_ID", "local")
            .env("AWS_SECRET_ACCESS_KEY", "local")
            .env("AWS_ENDPOINT_URL", &self.queue_url)
            .env("EXPIRY_QUEUE_URL", &self.queue_url)
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        let mut process = command.spawn().ok()?;
        let pid = Pid::from_raw(i32::try_from(process.id()?).ok()?)?;
        tokio::select! {
            ready = timeout(START, api.ready()) => ready.ok()?,
            _ = process.wait() => return None,
        }
        let millis = began.elapsed().as_secs_f64() * 1000.0;
        log(
            &serde_json::json!({ "event": "init", "function": self.function.name(), "millis": (millis * 10.0).round() / 10.0, "residentKib": resident(pid) }),
        );
        Some(Environment { process, pid, api })
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        log(&serde_json::json!({ "event": "environment", "peakResidentKib": resident(self.pid) }));
        let _ = self.process.start_kill();
    }
}

/// A process's peak resident memory in KiB, where the system tells.
fn resident(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
