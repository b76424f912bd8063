//! The running stack: its parts can be killed and started, its logs read. Through `scripts/stack`, as a person would.

use crate::environment;
use tokio::process::Command;

async fn run(arguments: &[&str]) -> String {
    let output = Command::new(environment::stack())
        .args(arguments)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", environment::stack()));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "scripts/stack {arguments:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// Kills the functions, as a crash would, and starts them again.
pub async fn restart_functions() {
    run(&["restart", "functions"]).await;
}

/// Asks the functions to end, waits until they have, and starts them again. Where their host knows of no such thing they are killed.
pub async fn end_and_start_functions() {
    run(&["stop", "functions"]).await;
    run(&["start", "functions"]).await;
}

/// Stops Postgres and starts it again.
pub async fn restart_postgres() {
    run(&["restart", "postgres"]).await;
}

/// Starts what a test before this one may have left away.
pub async fn whole() {
    run(&["start", "postgres"]).await;
    run(&["start", "functions"]).await;
}

/// What the functions have logged.
pub async fn logs() -> String {
    run(&["logs", "functions"]).await
}

/// All that the stack has logged, the database and the pooler too.
pub async fn all_logs() -> String {
    let mut all = logs().await;
    for part in ["postgres", "pgbouncer"] {
        all.push_str(&run(&["logs", part]).await);
    }
    all
}

/// Postgres is away for as long as this lives: whatever becomes of the test, the next one finds it again.
#[derive(Debug)]
pub struct PostgresAway(());

impl PostgresAway {
    /// Takes it away.
    pub async fn now() -> Self {
        run(&["kill", "postgres"]).await;
        Self(())
    }

    /// Brings it back.
    pub fn over(self) {
        drop(self);
    }
}

impl Drop for PostgresAway {
    fn drop(&mut self) {
        let status =
            std::process::Command::new(environment::stack()).args(["start", "postgres"]).stdin(std::process::Stdio::null()).status();
        assert!(status.is_ok_and(|s| s.success()) || std::thread::panicking(), "scripts/stack start postgres failed");
    }
}
