//! AWS Lambda on one machine, as far as the functions can tell: for development, for the tests, and to measure starts and memory.
//!
//! In front it is what API Gateway and a function's address are: a path finds its function, a request becomes an event (payload 2.0), the answer is
//! streamed or whole. Behind, it starts as many environments of a function as there are requests at once, each with a runtime API of its own, and does what is
//! easily forgotten when a function is tried as a mere process:
//!
//! - an environment does one invocation at a time, and is **stopped** (SIGSTOP) from the moment that it asks for the next one until there is one;
//! - a client that hangs up ends nothing: the invocation goes on;
//! - an invocation that takes too long ends with its environment.
//!
//! A schedule's events come again and again, and what they put into the queue ([`queue`]) comes back as its messages.

mod environment;
mod event;
mod front;
mod queue;
mod quick;
mod runtime_api;

use clap::Parser;
use environment::Fleet;
use gateway::rules::Function;
use runtime_api::Outcome;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(name = "astra-lambda", about = "AWS Lambda on one machine, for tests", version)]
struct Arguments {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// The folder with the functions' programs.
    #[arg(long)]
    programs: PathBuf,
    /// Environments of one function at most; further requests wait.
    #[arg(long, default_value_t = 40)]
    environments: usize,
    /// How many seconds an invocation may take.
    #[arg(long, default_value_t = 60)]
    timeout_seconds: u64,
    /// How many seconds lie between two of the schedule's events.
    #[arg(long, default_value_t = 10)]
    schedule_seconds: u64,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
struct Failure {
    what: String,
    cause: std::io::Error,
}

async fn serve(arguments: Arguments) -> Result<(), Failure> {
    let failure = |what: String| move |cause| Failure { what, cause };
    let queue = TcpListener::bind("127.0.0.1:0").await.map_err(failure("cannot listen for the queue".into()))?;
    let queue_url = format!("http://{}/", queue.local_addr().map_err(failure("cannot listen for the queue".into()))?);
    let mut fleets = HashMap::new();
    for function in Function::ALL {
        let program = arguments.programs.join(function.name());
        std::fs::metadata(&program).map_err(failure(format!("{}", program.display())))?;
        let timeout = Duration::from_secs(arguments.timeout_seconds);
        fleets.insert(function, Arc::new(Fleet::new(function, program, arguments.environments, timeout, queue_url.clone())));
    }
    tokio::spawn(axum::serve(queue, queue::router(Arc::clone(&fleets[&Function::InvokeTurn]))).into_future());
    for (function, task) in [(Function::InvokeTurn, "expire-stale"), (Function::Billing, "run-jobs")] {
        tokio::spawn(schedule(Arc::clone(&fleets[&function]), task, Duration::from_secs(arguments.schedule_seconds)));
    }
    let listener = TcpListener::bind(arguments.listen).await.map_err(failure(format!("cannot listen on {}", arguments.listen)))?;
    log(&serde_json::json!({ "event": "listening", "address": arguments.listen.to_string() }));
    axum::serve(quick::Listener(listener), front::router(fleets)).await.map_err(failure("serving".into()))
}

/// What `EventBridge` does.
async fn schedule(fleet: Arc<Fleet>, task: &str, every: Duration) {
    let event = serde_json::json!({ "source": "astra.schedule", "task": task }).to_string();
    loop {
        tokio::time::sleep(every).await;
        let error = match fleet.invoke(event.clone()).await {
            Ok(Outcome::Whole(_)) => continue,
            Ok(Outcome::Stream(_)) => "a stream is no answer to it".to_owned(),
            Ok(Outcome::Error(document)) => String::from_utf8_lossy(&document).into_owned(),
            Err(error) => error.to_string(),
        };
        log(&serde_json::json!({ "event": "schedule", "error": error }));
    }
}

/// Writes a line to standard output, where the functions write theirs.
fn log(line: &serde_json::Value) {
    use std::io::Write as _;
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("astra-lambda: {failure}");
            ExitCode::FAILURE
        }
    }
}
