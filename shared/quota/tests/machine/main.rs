//! The rules of holds and limits: under generated schedules ([`schedules`]) that are compared with a model of their own ([`model`]), and case by case
//! ([`cases`], [`edges`]). [`mutations`] keeps the list of changes to the rules that these tests must see (docs/quota-proof.md).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod begin;
mod cases;
mod check;
mod edges;
mod end;
mod extend;
mod model;
mod mutations;
mod schedules;
mod world;
mod zone;

use astra_kernel::{AgentId, Price, Timestamp, TurnId};
use std::sync::LazyLock;

pub(crate) const PRICE: Price = Price {
    version: 1,
    input_nano_per_mtok: 150_000_000,
    cached_input_nano_per_mtok: 75_000_000,
    output_nano_per_mtok: 600_000_000,
    holds_maximum: false,
    long_context: None,
    markup_basis_points: 0,
};

/// 2026-11-24T00:00:00Z: a few days before a month ends.
pub(crate) const START: Timestamp = Timestamp(1_795_478_400_000);

pub(crate) const HOUR: i64 = 3_600_000;

pub(crate) const DAY: i64 = 24 * HOUR;

pub(crate) fn agent(n: u8) -> AgentId {
    static AGENTS: LazyLock<[AgentId; 4]> = LazyLock::new(|| [0, 1, 2, 3].map(|n| format!("agent{n}").try_into().unwrap()));
    AGENTS[usize::from(n)].clone()
}

pub(crate) fn turn_id(n: u128) -> TurnId {
    TurnId(uuid::Uuid::from_u128(n))
}
