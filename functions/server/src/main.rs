//! `astra-edge serve`: the functions as one process.

use astra_edge::admin::{self, Told};
use astra_edge::functions;
use astra_edge::listen::{self, Bounds, Ended};
use astra_edge::settings::ServerSettings;
use astra_host::native::{self, NativeHost, Process, Rows, SetupError};
use clap::{Args, Parser, Subcommand};
use gateway::rules::Function;
use std::net::SocketAddr;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

#[derive(Parser)]
#[command(name = "astra-edge", about = "Isolated AI agents with hard budgets for each customer", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the API until SIGTERM or SIGINT. It is configured by the environment; what is missing is named.
    Serve(Serve),
}

#[derive(Args)]
struct Serve {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:8787")]
    listen: SocketAddr,
    /// An address for `/metrics`, `/livez` and `/readyz`. Clients must not reach it. None unless set.
    #[arg(long)]
    admin_listen: Option<SocketAddr>,
    /// Connections of clients at once; further ones wait. File descriptors must suffice for them, and for as many calls of models.
    #[arg(long, default_value_t = 10_000)]
    max_connections: usize,
    /// How many seconds turns and other work may take to finish after SIGTERM; a second signal ends them at once. Whoever ends the process must wait a
    /// little longer before they kill it.
    #[arg(long, default_value_t = 25)]
    grace_seconds: u64,
}

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    #[error("{0} tasks were cut off: turns among them are charged what was last reported")]
    CutOff(usize),
}

/// How often turns that have died are looked for. Each workspace's own are also ended whenever it begins a turn.
const EXPIRY: Duration = Duration::from_secs(10);

/// How often jobs that were left behind are looked for. Each also begins right after the request that makes it.
const JOBS: Duration = Duration::from_secs(2);

/// How often it is looked whether a scheduled job is due.
const TRIGGERS: Duration = Duration::from_secs(5);

/// SIGTERM and SIGINT.
struct Signals(Signal, Signal);

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(Failure::Signals);
        Ok(Self(of(SignalKind::terminate())?, of(SignalKind::interrupt())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| Failure::Listen(address, error))
}

/// Ends turns that have died, in all workspaces, again and again.
async fn expire_stale(counters: Rows) {
    let mut tick = tokio::time::interval(EXPIRY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match counters.expire_stale().await {
            Ok(0) => {}
            Ok(ended) => native::log(&serde_json::json!({ "event": "expired", "turns": ended }).to_string()),
            Err(error) => native::log(&serde_json::json!({ "event": "expiry", "error": error.to_string() }).to_string()),
        }
    }
}

/// Does the memory's jobs that were left behind, in all workspaces, again and again.
async fn do_jobs(host: NativeHost<Rows>) {
    let mut tick = tokio::time::interval(JOBS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = memory::work::due(&host, None).await {
            native::log(&serde_json::json!({ "event": "jobs", "error": error.to_string() }).to_string());
        }
    }
}

/// Does what is due of the scheduled jobs, again and again.
async fn run_triggers(host: NativeHost<Rows>) {
    let mut tick = tokio::time::interval(TRIGGERS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        billing::jobs::run_due(&host, native::now().plus_millis(billing::jobs::RUN_MILLIS)).await;
    }
}

async fn serve(arguments: Serve) -> Result<(), Failure> {
    let shared = native::environment();
    let settings = ServerSettings::read(&shared)?;
    let tasks = TaskTracker::new();
    let counters = Rows::new(settings.quota.clone());
    let process = Process::new(shared, counters.clone(), tasks.clone())?;
    let app = functions::app(settings.allowed_origins.clone(), |function| NativeHost::new(Arc::clone(&process), settings.pool(function)));
    let mut signals = Signals::listen()?;
    let listener = bind(arguments.listen).await?;
    let address = listener.local_addr().map_err(|error| Failure::Listen(arguments.listen, error))?;
    let told = Arc::new(Told { stopping: AtomicBool::new(false), tasks: tasks.clone(), pools: settings.pools() });
    if let Some(address) = arguments.admin_listen {
        let listener = bind(address).await?;
        tokio::spawn(axum::serve(listener, admin::router(Arc::clone(&told))).into_future());
    }
    native::log(&serde_json::json!({ "event": "listening", "address": address.to_string() }).to_string());

    // Not one of `tasks`: an expiry that is cut off is done by the next one, here or elsewhere.
    tokio::spawn(expire_stale(counters));
    tokio::spawn(run_triggers(NativeHost::new(Arc::clone(&process), settings.pool(Function::Billing))));
    tokio::spawn(do_jobs(NativeHost::new(process, settings.pool(Function::Memory))));
    let (stop, stopped) = oneshot::channel::<()>();
    let bounds = Bounds { connections: arguments.max_connections, grace: Duration::from_secs(arguments.grace_seconds) };
    let stopping = async {
        let _ = stopped.await;
    };
    let mut serving = pin!(listen::serve(listener, Arc::new(app), tasks.clone(), stopping, bounds));
    let mut stop = Some(stop);
    let ended = loop {
        tokio::select! {
            ended = &mut serving => break ended,
            () = signals.next() => {
                if stop.take().is_none() {
                    break Ended::CutOff(tasks.len());
                }
                told.stopping.store(true, Ordering::Relaxed);
                native::log(r#"{"event":"stopping"}"#);
            }
        }
    };
    match ended {
        Ended::Whole => Ok(()),
        Ended::CutOff(tasks) => Err(Failure::CutOff(tasks)),
    }
}

fn main() -> ExitCode {
    // Asked by itself, and by nobody else.
    if std::env::args().nth(1).as_deref() == Some(native::CONVERT) {
        return convert::child::run();
    }
    start()
}

#[tokio::main]
async fn start() -> ExitCode {
    let Command::Serve(arguments) = Arguments::parse().command;
    match serve(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("astra-edge: {failure}");
            ExitCode::FAILURE
        }
    }
}
