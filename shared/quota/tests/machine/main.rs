//! The rules of holds and limits: under generated schedules ([`schedules`]), and case by case ([`cases`]).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod cases;
mod schedules;
mod world;

use astra_kernel::{AgentId, Price, Timestamp};
use astra_quota::{Period, Span, Spans};

pub(crate) const PRICE: Price = Price {
    version: 1,
    input_nano_per_mtok: 150_000_000,
    cached_input_nano_per_mtok: 75_000_000,
    output_nano_per_mtok: 600_000_000,
    holds_maximum: false,
};

/// 2026-11-24T00:00:00Z: a few days before a month ends.
pub(crate) const START: Timestamp = Timestamp(1_795_478_400_000);

pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) fn agent(n: u8) -> AgentId {
    format!("agent{n}").try_into().unwrap()
}

/// The windows of a moment, in UTC, as the database says them.
pub(crate) fn spans(at: Timestamp) -> Spans {
    let of = |period, length: i64| {
        let starts_at = Timestamp(at.0.div_euclid(length) * length);
        Span { period, starts_at, ends_at: starts_at.plus_millis(length) }
    };
    let month = at.month();
    Spans {
        hour: of(Period::Hour, HOUR),
        day: of(Period::Day, 24 * HOUR),
        month: Span { period: Period::Month, starts_at: month.starts_at(), ends_at: month.resets_at() },
    }
}
