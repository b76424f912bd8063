//! Which month is asked for.

use astra_kernel::{Month, Problem, Timestamp};

/// `2026-11`; the current one unless told.
pub(crate) fn parse(month: Option<&str>, now: Timestamp) -> Result<Month, Problem> {
    month.map_or_else(|| Ok(now.month()), |text| text.parse().map_err(|rule| Problem::field("month", rule)))
}
