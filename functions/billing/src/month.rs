//! Which month is asked for, and paths as the documentation describes them.

use astra_kernel::{Month, Problem, Timestamp};
use serde::Deserialize;

/// A month's query: `?month=2026-11`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MonthQuery {
    month: Option<String>,
}

impl MonthQuery {
    /// The month, the current one unless told.
    pub(crate) fn month(self, now: Timestamp) -> Result<Month, Problem> {
        parse(self.month.as_deref(), now)
    }
}

pub(crate) fn parse(month: Option<&str>, now: Timestamp) -> Result<Month, Problem> {
    month.map_or_else(|| Ok(now.month()), |text| text.parse().map_err(|rule| Problem::field("month", rule)))
}
