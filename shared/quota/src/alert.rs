//! Marks of a limit that were passed: for who wants to know before it is reached.

use crate::plan::Stand;
use crate::window::Cap;
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};

/// The marks, in percent of a limit.
pub const MARKS: [i64; 3] = [50, 80, 100];

/// One mark that was passed. It is told once for each window, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// The limit's name in the API.
    pub limit: String,
    /// Whose.
    pub scope: String,
    /// When its window began.
    pub starts_at: Timestamp,
    /// The mark, in percent.
    pub mark: i64,
    /// The limit.
    pub max: i64,
    /// Used of it.
    pub used: i64,
}

/// Which marks were passed between two moments.
pub fn passed(caps: &[Cap], before: &[Stand], after: &[Stand]) -> Vec<Alert> {
    let stands = caps.iter().zip(before.iter().zip(after));
    stands.flat_map(|(cap, (before, after))| marks(cap, cap.amount(before.used), cap.amount(after.used))).collect()
}

fn marks(cap: &Cap, before: i64, after: i64) -> impl Iterator<Item = Alert> {
    // A limit of nothing has no marks.
    let is_at = |used: i64, mark: i64| cap.max > 0 && i128::from(used) * 100 >= i128::from(cap.max) * i128::from(mark);
    MARKS.into_iter().filter(move |mark| is_at(after, *mark) && !is_at(before, *mark)).map(move |mark| Alert {
        limit: cap.limit.as_str().to_owned(),
        scope: cap.scope.as_str().to_owned(),
        starts_at: cap.window.starts_at,
        mark,
        max: cap.max,
        used: after,
    })
}
