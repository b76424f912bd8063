//! The rules of holds and limits, and the words spoken with the counter. No I/O, no clock, no host.
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
mod counter;
mod hold;
mod spent;
pub mod view;
pub mod words;

pub use budget::AdmitError;
pub use counter::{Counter, Known, SaveOutcome};
pub use hold::{Hold, Request, Size};
pub use spent::{AgentSpent, Charge, Spent};
pub use view::{QuotaView, Window};
pub use words::{Answer, Ask, Refusal};
