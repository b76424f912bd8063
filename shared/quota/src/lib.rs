//! The rules of holds and limits, and the words spoken with the counter. No I/O, no clock, no host.
//!
//! The rules are [`plan`]'s: from what is used and held to a hold or a refusal. The state is kept by one of two: the [`Counter`] here, in the memory of
//! the workspace's Durable Object, or rows in Postgres (`astra_quota_rows`).
//!
//! `spent + held <= limit` at every moment, because admitting a turn and holding its budget is one step ([`Counter::admit`]) on
//! state that nobody else can touch in between; whoever owns the [`Counter`] upholds that (the workspace's Durable Object runs one event at a time).
//!
//! 1. A hold is an upper bound of what the turn can cost: a token is at least one byte, and the model is told to stop at the output that is held.
//! 2. Settling replaces the hold by what was really used. A hold that is settled, expired or released is gone; a second settlement finds nothing.
//! 3. A turn belongs to the month in which it began, even when it ends in the next.
//! 4. What was spent is the ledger's to say. A counter that does not know it ([`Counter::needs_load`]) admits nothing until it was told; whatever
//!    leaves a doubt (a record that was there already, a correction) makes it forget and load again.

mod budget;
pub mod context;
mod counter;
mod hold;
pub mod plan;
mod spent;
pub mod view;
pub mod words;

pub use budget::AdmitError;
pub use counter::{Counter, Known, SaveOutcome};
pub use hold::{Hold, Request, Size};
pub use plan::{Recent, Standing};
pub use spent::{AgentSpent, Charge, Spent};
pub use view::{QuotaView, Window};
pub use words::{Answer, Ask, Refusal};
