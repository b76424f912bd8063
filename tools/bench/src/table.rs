//! The lines of `load` as Markdown tables: how fast, and at what cost of CPU. Rounds of the same cell become one by their median.

use crate::Fault;
use crate::cell::{Cell, Gaps};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file that the lines of `load` were appended to.
    file: PathBuf,
    /// The name of the cells that the others are compared with.
    #[arg(long)]
    base: Option<String>,
}

/// Prints the tables.
pub(crate) fn print(arguments: &Arguments) -> Result<(), Fault> {
    let what = || arguments.file.display().to_string();
    let text = std::fs::read_to_string(&arguments.file).map_err(|cause| Fault::Io { what: format!("{} cannot be read", what()), cause })?;
    let cells: Vec<Cell> = text
        .lines()
        .enumerate()
        .map(|(at, line)| serde_json::from_str(line).map_err(|cause| Fault::Usage(format!("{}, line {}: {cause}", what(), at + 1))))
        .collect::<Result<_, _>>()?;
    print!("{}", render(&Rows::new(cells), arguments.base.as_deref()));
    Ok(())
}

/// What was measured by name, in the order of the file, and by number of clients.
struct Rows {
    names: Vec<String>,
    clients: BTreeSet<usize>,
    cells: BTreeMap<(String, usize), Cell>,
}

impl Rows {
    fn new(cells: Vec<Cell>) -> Self {
        let mut names: Vec<String> = Vec::new();
        let mut rounds: BTreeMap<(String, usize), Vec<Cell>> = BTreeMap::new();
        for cell in cells {
            if !names.contains(&cell.name) {
                names.push(cell.name.clone());
            }
            rounds.entry((cell.name.clone(), cell.clients)).or_default().push(cell);
        }
        let clients = rounds.keys().map(|(_, clients)| *clients).collect();
        let cells = rounds.into_iter().filter_map(|(key, rounds)| Some((key, merge(&rounds)?))).collect();
        Self { names, clients, cells }
    }

    fn get(&self, name: &str, clients: usize) -> Option<&Cell> {
        self.cells.get(&(name.to_owned(), clients))
    }
}

/// Rounds of one cell as one: the median of every figure, the sum of what is counted, the highest of what is a maximum.
fn merge(rounds: &[Cell]) -> Option<Cell> {
    let middle = |figure: fn(&Cell) -> f64| median(rounds.iter().map(figure).collect());
    let mut merged = rounds.first()?.clone();
    merged.per_second = middle(|cell| cell.per_second);
    merged.p50_ms = middle(|cell| cell.p50_ms);
    merged.p99_ms = middle(|cell| cell.p99_ms);
    merged.first_byte_p50_ms = middle(|cell| cell.first_byte_p50_ms);
    merged.bytes = middle(|cell| cell.bytes);
    for (process, used) in &mut merged.cpu_ms {
        *used = median(rounds.iter().filter_map(|cell| cell.cpu_ms.get(process)).copied().collect());
    }
    let gaps: Vec<&Gaps> = rounds.iter().filter_map(|cell| cell.gaps.as_ref()).collect();
    merged.gaps = (!gaps.is_empty()).then(|| Gaps {
        count: gaps.iter().map(|gaps| gaps.count).sum(),
        p50_ms: median(gaps.iter().map(|gaps| gaps.p50_ms).collect()),
        p99_ms: median(gaps.iter().map(|gaps| gaps.p99_ms).collect()),
        max_ms: gaps.iter().map(|gaps| gaps.max_ms).fold(0.0, f64::max),
    });
    for other in &rounds[1..] {
        for (process, peak) in &other.peak_mib {
            let highest = merged.peak_mib.entry(process.clone()).or_default();
            *highest = highest.max(*peak);
        }
        merged.seconds += other.seconds;
        merged.answers += other.answers;
        merged.errors += other.errors;
        for (kind, count) in &other.kinds {
            *merged.kinds.entry(kind.clone()).or_default() += count;
        }
    }
    Some(merged)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => 0.0,
        count if count % 2 == 0 => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}

fn render(rows: &Rows, base: Option<&str>) -> String {
    let mut head = ["", "clients", "requests/s", "p50 ms", "p99 ms", "first byte p50 ms"].map(str::to_owned).to_vec();
    if let Some(base) = base {
        head.extend([format!("p50 over {base} ms"), format!("of {base}'s requests/s")]);
    }
    head.extend(["answers", "errors"].map(str::to_owned));
    let mut speed = vec![head];
    for (clients, name) in rows.clients.iter().flat_map(|clients| rows.names.iter().map(move |name| (clients, name))) {
        let Some(cell) = rows.get(name, *clients) else { continue };
        let mut row = vec![name.clone(), clients.to_string(), format!("{:.0}", cell.per_second)];
        row.extend([cell.p50_ms, cell.p99_ms, cell.first_byte_p50_ms].map(|ms| format!("{ms:.2}")));
        match base.map(|base| rows.get(base, *clients).filter(|plain| plain.per_second > 0.0)) {
            None => {}
            Some(None) => row.extend(["-".into(), "-".into()]),
            Some(Some(plain)) => {
                row.extend([format!("{:+.2}", cell.p50_ms - plain.p50_ms), format!("{:.2}", cell.per_second / plain.per_second)]);
            }
        }
        row.extend([cell.answers.to_string(), errors(cell)]);
        speed.push(row);
    }
    let mut text = markdown(&speed);
    if let Some(gaps) = gaps(rows, base) {
        let _ = write!(text, "\nTime between two chunks of an answer, ms, as its client reads them:\n\n{}", markdown(&gaps));
    }
    if let Some(cpu) = cpu(rows) {
        let _ = write!(text, "\nCPU time for one answer, ms, by process:\n\n{}", markdown(&cpu));
    }
    if let Some(memory) = memory(rows) {
        let _ = write!(text, "\nPeak resident memory since a process's start, MiB:\n\n{}", markdown(&memory));
    }
    text
}

fn errors(cell: &Cell) -> String {
    if cell.kinds.is_empty() {
        return "0".into();
    }
    cell.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

/// The table of gaps, of the cells that have any.
fn gaps(rows: &Rows, base: Option<&str>) -> Option<Vec<Vec<String>>> {
    let mut head = ["", "clients", "p50", "p99", "max"].map(str::to_owned).to_vec();
    if let Some(base) = base {
        head.push(format!("p99 over {base}"));
    }
    head.push("gaps".into());
    let mut table = vec![head];
    let of = |name: &str, clients: usize| rows.get(name, clients).and_then(|cell| cell.gaps.as_ref());
    for (clients, name) in rows.clients.iter().flat_map(|clients| rows.names.iter().map(move |name| (clients, name))) {
        let Some(gaps) = of(name, *clients) else { continue };
        let mut row = vec![name.clone(), clients.to_string()];
        row.extend([gaps.p50_ms, gaps.p99_ms, gaps.max_ms].map(|ms| format!("{ms:.2}")));
        if let Some(base) = base {
            row.push(of(base, *clients).map_or("-".into(), |base| format!("{:+.2}", gaps.p99_ms - base.p99_ms)));
        }
        row.push(gaps.count.to_string());
        table.push(row);
    }
    (table.len() > 1).then_some(table)
}

/// The table of memory: one figure for each process, for its peak never sinks.
fn memory(rows: &Rows) -> Option<Vec<Vec<String>>> {
    let mut peaks: BTreeMap<&str, f64> = BTreeMap::new();
    for (process, peak) in rows.cells.values().flat_map(|cell| &cell.peak_mib) {
        let highest = peaks.entry(process).or_default();
        *highest = highest.max(*peak);
    }
    let head = vec![vec![String::new(), "MiB".into()]];
    let rows = peaks.iter().map(|(process, peak)| vec![(*process).to_owned(), format!("{peak:.0}")]);
    (!peaks.is_empty()).then(|| head.into_iter().chain(rows).collect())
}

/// The CPU table; processes that did nothing in any of the cells are left out.
fn cpu(rows: &Rows) -> Option<Vec<Vec<String>>> {
    let used = |cell: &Cell, process: &str| cell.cpu_ms.get(process).copied().unwrap_or(0.0);
    let mut processes: BTreeSet<&str> = rows.cells.values().flat_map(|cell| cell.cpu_ms.keys()).map(String::as_str).collect();
    processes.retain(|process| rows.cells.values().any(|cell| used(cell, process) >= 0.005));
    if processes.is_empty() {
        return None;
    }
    let head = ["", "clients"].into_iter().chain(processes.iter().copied()).chain(["all"]);
    let mut table = vec![head.map(str::to_owned).collect::<Vec<_>>()];
    for (clients, name) in rows.clients.iter().flat_map(|clients| rows.names.iter().map(move |name| (clients, name))) {
        let Some(cell) = rows.get(name, *clients).filter(|cell| !cell.cpu_ms.is_empty()) else { continue };
        let mut row = vec![name.clone(), clients.to_string()];
        row.extend(processes.iter().map(|process| format!("{:.2}", used(cell, process))));
        row.push(format!("{:.2}", cell.cpu_ms.values().sum::<f64>()));
        table.push(row);
    }
    Some(table)
}

/// Rows as a Markdown table whose columns line up in a terminal; the first row is its head, figures stand right.
pub(crate) fn markdown(rows: &[Vec<String>]) -> String {
    let Some(head) = rows.first() else { return String::new() };
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0).max(3);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).enumerate();
        let text = cells.map(|(at, (cell, width))| if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
        format!("| {} |\n", text.collect::<Vec<_>>().join(" | "))
    };
    let rule: Vec<String> =
        widths.iter().enumerate().map(|(at, n)| if at == 0 { "-".repeat(*n) } else { "-".repeat(n - 1) + ":" }).collect();
    rows[..1].iter().chain([&rule]).chain(&rows[1..]).map(|row| line(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(name: &str, clients: usize, per_second: f64, p50_ms: f64, kinds: &[(&str, u64)]) -> Cell {
        let kinds: BTreeMap<String, u64> = kinds.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        Cell {
            name: name.into(),
            clients,
            seconds: 5.0,
            answers: 10,
            errors: kinds.values().sum(),
            kinds,
            per_second,
            p50_ms,
            p99_ms: 2.0 * p50_ms,
            first_byte_p50_ms: p50_ms,
            bytes: 1.0,
            cpu_ms: BTreeMap::new(),
            peak_mib: BTreeMap::new(),
            gaps: None,
        }
    }

    fn row(text: &str, name: &str) -> Vec<String> {
        let line = text.lines().find(|line| line.contains(name)).unwrap();
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn a_row_is_compared_with_the_base_at_the_same_number_of_clients() {
        let plain = [cell("plain", 1, 1000.0, 1.0, &[]), cell("plain", 16, 1.0, 9.0, &[])];
        let rows = Rows::new([plain.as_slice(), &[cell("turn", 1, 250.0, 3.5, &[("status 500", 2)])]].concat());
        let text = render(&rows, Some("plain"));
        assert_eq!(row(&text, "turn")[1..11], ["turn", "1", "250", "3.50", "7.00", "3.50", "+2.50", "0.25", "10", "2 status 500"]);
    }

    #[test]
    fn rounds_become_their_median_and_their_errors_add_up() {
        let rounds =
            [(100.0, 1), (300.0, 2), (900.0, 4)].map(|(per_second, errors)| cell("a", 1, per_second, 1.0, &[("too slow", errors)]));
        let merged = merge(&rounds).unwrap();
        assert!((merged.per_second - 300.0).abs() < 1e-9);
        assert_eq!((merged.answers, merged.errors, merged.kinds["too slow"]), (30, 7, 7));
    }

    #[test]
    fn without_a_base_at_that_number_of_clients_nothing_is_compared() {
        let rows = Rows::new(vec![cell("plain", 1, 1.0, 1.0, &[]), cell("turn", 16, 1.0, 1.0, &[])]);
        assert_eq!(row(&render(&rows, Some("plain")), "turn")[7..9], ["-", "-"]);
    }

    #[test]
    fn gaps_are_compared_with_the_base_at_the_same_number_of_clients() {
        let with = |name, clients, p99_ms, max_ms| {
            let gaps = Gaps { count: 5, p50_ms: 20.0, p99_ms, max_ms };
            Cell { gaps: Some(gaps), ..cell(name, clients, 1.0, 1.0, &[]) }
        };
        let rounds = [with("mock", 64, 21.0, 22.0), with("turn", 64, 22.0, 40.0), with("turn", 64, 24.0, 90.0)];
        let text = render(&Rows::new([rounds.as_slice(), &[with("turn", 1, 21.0, 21.0)]].concat()), Some("mock"));
        let table = text.split("Time between").nth(1).unwrap();
        assert_eq!(row(table, " 1 |")[1..8], ["turn", "1", "20.00", "21.00", "21.00", "-", "5"]);
        assert_eq!(row(table, "90.00")[1..8], ["turn", "64", "20.00", "23.00", "90.00", "+2.00", "10"]);
    }

    #[test]
    fn a_processs_peak_is_that_of_all_cells() {
        let with = |clients, peak| Cell { peak_mib: BTreeMap::from([("astra-edge".into(), peak)]), ..cell("turn", clients, 1.0, 1.0, &[]) };
        let text = render(&Rows::new(vec![with(1, 40.0), with(16, 52.4), with(1, 52.6)]), None);
        assert_eq!(row(text.split("Peak").nth(1).unwrap(), "astra-edge")[1..3], ["astra-edge", "53"]);
    }

    #[test]
    fn cpu_time_is_shown_where_it_was_watched() {
        let mut watched = cell("turn", 1, 1.0, 1.0, &[]);
        watched.cpu_ms = BTreeMap::from([("workerd".into(), 1.25), ("postgres".into(), 0.5), ("portkey".into(), 0.0)]);
        let text = render(&Rows::new(vec![cell("plain", 1, 1.0, 1.0, &[]), watched]), None);
        assert_eq!(row(text.split("CPU time").nth(1).unwrap(), "turn")[1..6], ["turn", "1", "0.50", "1.25", "1.75"]);
    }
}
