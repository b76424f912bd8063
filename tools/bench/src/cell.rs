//! One cell of the table: one address at one number of clients, as `load` writes it and `table` reads it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was measured. Times in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cell {
    /// What was asked, as the table names it.
    pub(crate) name: String,
    /// Clients at the same time.
    pub(crate) clients: usize,
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// Right answers.
    pub(crate) answers: usize,
    /// Answers that were not right. They count in no other figure.
    pub(crate) errors: u64,
    /// How many of each kind of error.
    pub(crate) kinds: BTreeMap<String, u64>,
    /// Right answers a second.
    pub(crate) per_second: f64,
    /// Half of the answers were read to the end within this.
    pub(crate) p50_ms: f64,
    /// 99 of 100 answers were.
    pub(crate) p99_ms: f64,
    /// Half of the answers had begun within this.
    pub(crate) first_byte_p50_ms: f64,
    /// Bytes of body in an answer, on average.
    pub(crate) bytes: f64,
    /// CPU time for each right answer by process, where it was watched.
    pub(crate) cpu_ms: BTreeMap<String, f64>,
    /// Peak resident memory of each watched process since its start, in MiB, as it was at the end of the cell.
    #[serde(default)]
    pub(crate) peak_mib: BTreeMap<String, f64>,
    /// Time between the chunks of an answer, where it was measured.
    #[serde(default)]
    pub(crate) gaps: Option<Gaps>,
}

/// Time between two chunks that followed each other in one answer, over all answers. In milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Gaps {
    pub(crate) count: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}
