//! `quota-conformance`: plays the scenarios to each target and prints one table. Exit status 1 when one
//! that must hold does not for astra-edge.

use clap::Parser;
use quota_conformance::astra::Astra;
use quota_conformance::litellm::LiteLlm;
use quota_conformance::mock::Mock;
use quota_conformance::scenarios::{self, Outcome, Scale};
use quota_conformance::target::{Target, World};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::time::Instant;

/// How a gateway keeps a budget, in a table. astra-edge is the stack of this environment (`scripts/stack env`).
#[derive(Debug, Parser)]
struct Arguments {
    /// Scenarios by name, with commas between them; all unless told.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A few callers instead of hundreds.
    #[arg(long)]
    short: bool,
    /// Leave astra-edge out.
    #[arg(long)]
    no_astra: bool,
    /// The program `litellm` of an installed `LiteLLM` proxy, to be tested too.
    #[arg(long)]
    litellm: Option<PathBuf>,
    /// A Redis for `LiteLLM`.
    #[arg(long, default_value = "redis-server")]
    redis_server: PathBuf,
    /// Where `LiteLLM`'s files go.
    #[arg(long, default_value = "conformance.litellm")]
    work: PathBuf,
    /// The first of four ports: the model, `LiteLLM` twice, Redis.
    #[arg(long, default_value_t = 9700)]
    port: u16,
}

type Column = (String, Vec<Option<Outcome>>);

async fn column<T: Target>(target: &T, model: &Mock, arguments: &Arguments) -> Column {
    let (world, scale) = (World::new(target, model), if arguments.short { Scale::SHORT } else { Scale::FULL });
    let mut cells = Vec::new();
    for (name, _) in chosen(arguments) {
        let began = Instant::now();
        let outcome = scenarios::play(name, &world, scale).await;
        let said = outcome.as_ref().map_or("-", |outcome| &outcome.said);
        eprintln!("{}, {name}: {said} ({:.1} s)", target.name(), began.elapsed().as_secs_f64());
        cells.push(outcome);
    }
    (target.name(), cells)
}

fn chosen(arguments: &Arguments) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    scenarios::ALL.iter().filter(|(name, _)| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name))
}

fn print(columns: &[Column], arguments: &Arguments) {
    let titles: Vec<_> = columns.iter().map(|(title, _)| title.as_str()).collect();
    println!("| | {} |", titles.join(" | "));
    println!("|---{}|", "|---".repeat(columns.len()));
    for (row, (name, about)) in chosen(arguments).enumerate() {
        let cell = |(_, cells): &Column| match &cells[row] {
            Some(Outcome { holds: true, said }) => said.clone(),
            Some(outcome) => format!("**{}**", outcome.said),
            None => "-".to_owned(),
        };
        println!("| {name}: {about} | {} |", columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Dropping what runs ends the processes that it started.
    let ran = tokio::select! {
        ran = run(&arguments) => ran,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool, String> {
    let model = Mock::start(arguments.port).await.map_err(|error| format!("the model's port {}: {error}", arguments.port))?;
    let mut columns = Vec::new();
    let mut holds = true;
    if !arguments.no_astra {
        let astra = Astra::from_environment(model.base())?;
        astra.prepare(&reqwest::Client::new()).await;
        let ours = column(&astra, &model, arguments).await;
        holds = ours.1.iter().all(|outcome| outcome.as_ref().is_none_or(|outcome| outcome.holds));
        columns.push(ours);
        columns.push(column(&astra.holding_maximum(), &model, arguments).await);
    }
    if let Some(program) = &arguments.litellm {
        let work = std::path::absolute(&arguments.work).map_err(|error| error.to_string())?;
        let litellm = LiteLlm::start(program, &arguments.redis_server, &work, arguments.port + 1, &model.base()).await?;
        columns.push(column(&litellm, &model, arguments).await);
    }
    print(&columns, arguments);
    Ok(holds)
}
