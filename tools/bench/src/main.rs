//! What `./scripts/bench` is made of: a mock model server that streams, a load generator, and the table of what was measured.
//!
//! Everything talks to loopback only and every load ends by itself.

mod cell;
mod client;
mod load;
mod mock;
mod phases;
mod process;
mod table;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "astra-bench", about = "A mock model server, a load generator and a table of results", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves `OpenAI` chat completions that stream, piece by piece, until it is ended.
    Mock(mock::Arguments),
    /// Asks one address from N clients for S seconds and prints what was measured as one line of JSON.
    Load(Box<load::Arguments>),
    /// Prints the lines of `load` as one table.
    Table(table::Arguments),
    /// Prints where the time went by phase, from the functions' structured log lines on standard input.
    Phases(phases::Arguments),
}

/// What ends a command with a message: what, where, what to do.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Usage(String),
    #[error("{what}: {cause}")]
    Io { what: String, cause: std::io::Error },
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            eprintln!("astra-bench: no runtime could be started: {cause}");
            return ExitCode::FAILURE;
        }
    };
    // One thread for the load and one for the mock: on a small machine the rest belongs to what is measured.
    let outcome = runtime.block_on(async {
        match Arguments::parse().command {
            Command::Mock(arguments) => mock::serve(arguments).await,
            Command::Load(arguments) => load::run(*arguments).await,
            Command::Table(arguments) => table::print(&arguments),
            Command::Phases(arguments) => phases::print(&arguments),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("astra-bench: {fault}");
            ExitCode::FAILURE
        }
    }
}
