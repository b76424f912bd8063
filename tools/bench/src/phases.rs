//! Where the time went, from the functions' structured log lines: the mean of each phase by event, function and route.
//!
//! The clock of a Worker has whole milliseconds and stands still between I/O, so one line says little; the mean of thousands says much.

use crate::Fault;
use crate::table::markdown;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::BufRead;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Show only routes that hold this text.
    #[arg(long, default_value = "")]
    route: String,
}

/// A log line as far as it matters here; the functions write more.
#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    function: String,
    #[serde(default)]
    route: String,
    ms: Option<f64>,
    #[serde(default)]
    phases: BTreeMap<String, f64>,
    /// How often a turn called its counter.
    #[serde(rename = "counterCalls")]
    counter_calls: Option<f64>,
}

/// Sums of one kind of line.
#[derive(Default)]
struct Sums {
    lines: usize,
    ms: f64,
    phases: BTreeMap<String, f64>,
    counter_calls: f64,
}

/// Reads log lines from standard input and prints the table.
pub(crate) fn print(arguments: &Arguments) -> Result<(), Fault> {
    let mut kinds: BTreeMap<[String; 3], Sums> = BTreeMap::new();
    for line in std::io::stdin().lock().split(b'\n') {
        let line = line.map_err(|cause| Fault::Io { what: "standard input cannot be read".into(), cause })?;
        let Some(line) = parse(&line).filter(|line| line.route.contains(&arguments.route)) else { continue };
        kinds.entry([line.event.clone(), line.function.clone(), line.route.clone()]).or_default().add(&line);
    }
    if kinds.is_empty() {
        println!("No structured log lines were found.");
        return Ok(());
    }
    print!("{}", render(&kinds));
    Ok(())
}

/// The line's JSON, whatever a runtime wrote in front of it.
fn parse(line: &[u8]) -> Option<Line> {
    let from = line.iter().position(|byte| *byte == b'{')?;
    serde_json::from_slice(&line[from..]).ok()
}

impl Sums {
    fn add(&mut self, line: &Line) {
        self.lines += 1;
        self.ms += line.ms.unwrap_or(0.0);
        for (phase, ms) in &line.phases {
            *self.phases.entry(phase.clone()).or_default() += ms;
        }
        self.counter_calls += line.counter_calls.unwrap_or(0.0);
    }
}

fn render(kinds: &BTreeMap<[String; 3], Sums>) -> String {
    let mut table = vec![["event", "function", "route", "lines", "phase", "mean ms"].map(str::to_owned).to_vec()];
    for (key, sums) in kinds {
        #[expect(clippy::cast_precision_loss, reason = "counts of lines are far below 2^52")]
        let mean = |total: f64| format!("{:.2}", total / sums.lines as f64);
        if sums.ms > 0.0 {
            table.push([key.as_slice(), &[sums.lines.to_string(), "all".into(), mean(sums.ms)]].concat());
        }
        for (phase, total) in &sums.phases {
            table.push([key.as_slice(), &[sums.lines.to_string(), phase.clone(), mean(*total)]].concat());
        }
        if sums.counter_calls > 0.0 {
            table.push(
                [key.as_slice(), &[sums.lines.to_string(), "calls of the counter (how many)".into(), mean(sums.counter_calls)]].concat(),
            );
        }
    }
    markdown(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_averaged_over_all_lines_of_its_kind() {
        let mut sums = Sums::default();
        for line in
            [r#"log: {"event":"request","ms":4,"counterCalls":3,"phases":{"begin":3}}"#, r#"{"event":"request","ms":2,"phases":{}}"#]
        {
            sums.add(&parse(line.as_bytes()).unwrap());
        }
        let text = render(&BTreeMap::from([(["request".into(), "invoke-turn".into(), "/t".into()], sums)]));
        let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(cells[2][4..7], ["2", "all", "3.00"]);
        assert_eq!(cells[3][4..7], ["2", "begin", "1.50"]);
        assert_eq!(cells[4][4..7], ["2", "calls of the counter (how many)", "1.50"]);
    }

    #[test]
    fn other_lines_are_passed_over() {
        assert!(parse(b"listening").is_none());
        assert!(parse(br#"{"level":"info"}"#).is_none());
    }
}
