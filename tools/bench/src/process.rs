//! CPU time and memory of processes and their descendants, from Linux's `/proc`. On two cores CPU time, not waiting, is what bounds the
//! requests a second.
//!
//! Memory of several processes is the sum of theirs: what they share is counted once for each. That says nothing useful of Postgres.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

/// Linux's `USER_HZ`: what `/proc/PID/stat` counts in. It is 100 on every architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process to watch, `name=pid`.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    name: String,
    pid: u32,
}

impl Watched {
    /// This process.
    pub(crate) fn this(name: &str) -> Self {
        Self { name: name.to_owned(), pid: std::process::id() }
    }
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(name, pid)| Some(Self { name: name.to_owned(), pid: pid.parse().ok()? }));
        parsed.ok_or_else(|| format!("{text:?} is not name=pid"))
    }
}

/// CPU seconds used so far, by name. Empty where there is no `/proc`.
pub(crate) fn cpu(watched: &[Watched]) -> BTreeMap<String, f64> {
    let all = processes();
    #[expect(clippy::cast_precision_loss, reason = "ticks of a benchmark are far below 2^52")]
    let seconds =
        |pid: u32| tree(&all, pid).filter_map(|pid| all.get(&pid)).map(|(_, ticks)| *ticks).sum::<u64>() as f64 / TICKS_PER_SECOND;
    watched.iter().filter(|_| !all.is_empty()).map(|Watched { name, pid }| (name.clone(), seconds(*pid))).collect()
}

/// The most memory that was resident at once since each process's start, in MiB, by name.
pub(crate) fn peak_mib(watched: &[Watched]) -> BTreeMap<String, f64> {
    let all = processes();
    #[expect(clippy::cast_precision_loss, reason = "a machine has far less than 2^52 KiB")]
    let mib = |pid: u32| tree(&all, pid).filter_map(peak_kib).sum::<u64>() as f64 / 1024.0;
    watched.iter().filter(|_| !all.is_empty()).map(|Watched { name, pid }| (name.clone(), mib(*pid))).collect()
}

/// CPU seconds used between two readings, by name.
pub(crate) fn between(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    after.iter().map(|(name, seconds)| (name.clone(), (seconds - before.get(name).unwrap_or(&0.0)).max(0.0))).collect()
}

/// All processes: their parent, and their ticks.
fn processes() -> HashMap<u32, (u32, u64)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| Some((pid, stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// A process and its descendants.
fn tree(all: &HashMap<u32, (u32, u64)>, root: u32) -> impl Iterator<Item = u32> {
    all.keys().copied().filter(move |pid| descends(all, *pid, root))
}

fn descends(all: &HashMap<u32, (u32, u64)>, mut pid: u32, ancestor: u32) -> bool {
    while pid != ancestor {
        match all.get(&pid) {
            Some((parent, _)) if *parent != 0 => pid = *parent,
            _ => return false,
        }
    }
    true
}

/// The parent and the ticks (its own and those of children that it has reaped) from a line of `/proc/PID/stat`.
fn stat(line: &str) -> Option<(u32, u64)> {
    // The command's name stands in brackets and may hold spaces and brackets of its own.
    let fields: Vec<&str> = line.get(line.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some((fields.get(1)?.parse().ok()?, ticks))
}

fn peak_kib(pid: u32) -> Option<u64> {
    high_water(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The peak of the resident set in KiB from `/proc/PID/status`.
fn high_water(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_memory_is_read() {
        assert_eq!(high_water("Name:\ta\nVmHWM:\t   10240 kB\nVmRSS:\t 9000 kB\n"), Some(10240));
        assert_eq!(high_water("Name:\tkthreadd\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_a_peak() {
        assert!(peak_mib(&[Watched::this("this")])["this"] > 0.1);
    }

    #[test]
    fn a_stat_line_with_brackets_in_the_name() {
        let line = "42 (a (b) c) S 7 42 42 0 -1 4194304 100 0 0 0 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(stat(line), Some((7, 100)));
        assert_eq!(stat("garbage"), None);
    }

    #[test]
    fn descendants_are_counted_in() {
        let all = HashMap::from([(1, (0, 1)), (10, (1, 1)), (11, (10, 1)), (12, (1, 1))]);
        assert!(descends(&all, 11, 10));
        assert!(descends(&all, 10, 10));
        assert!(!descends(&all, 12, 10));
        assert!(!descends(&all, 99, 10));
    }

    #[test]
    fn a_watched_process_is_named() {
        assert!("workerd=12".parse::<Watched>().is_ok());
        assert!("workerd".parse::<Watched>().is_err());
    }
}
