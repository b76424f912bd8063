//! The rules of holds and limits, and the words spoken with the counter. No I/O, no clock, no host.
//!
//! The rules are [`plan`]'s: from what is used and held to a hold or a refusal. The state is kept by one of two: the [`Counter`] here, in the memory of
//! the workspace's Durable Object, or rows in Postgres (`astra_quota_rows`).
//!
//! `spent + held <= limit` at every moment, because admitting a turn (or letting it go on) and holding its budget is one step ([`Counter::admit`],
//! [`Counter::extend`]) on state that nobody else can touch in between; whoever owns the [`Counter`] upholds that (the workspace's Durable Object runs
//! one event at a time).
//!
//! 1. A hold covers an upper bound of the prompt (a token is at least one byte) and a slice of output. It grows as the output comes, before more is
//!    delivered than it covers; a model that bills what it does not stream has its whole maximum held.
//! 2. A turn whose hold cannot grow waits while others may give something back ([`Hold::waits`]), and ends with what was delivered when nobody can. Of those
//!    that wait, the last that began is the first to end, so they never wait for each other for ever; and no turn begins that would take from them.
//! 3. Settling replaces the hold by what was really used. A hold that is settled, expired or released is gone; a second settlement finds nothing.
//! 4. A turn belongs to the windows (hour, day, month) in which it began, even when it ends in the next.
//! 5. What was spent is the ledger's to say. A counter that does not know it ([`Counter::missing`]) decides nothing until it was told; whatever
//!    leaves a doubt (a record that was there already, a correction) makes it forget and load again.

pub mod alert;
mod budget;
pub mod context;
mod counter;
pub mod guest;
pub mod headers;
mod hold;
pub mod plan;
mod spent;
mod status;
pub mod view;
mod waits;
pub mod window;
pub mod words;

pub use alert::{Alert, MARKS};
pub use budget::AdmitError;
pub use counter::{Counter, Heard, Known, SaveOutcome};
pub use guest::{Guest, Prior, Visit};
pub use hold::{Hold, Request, Size};
pub use plan::{Recent, Stand};
pub use spent::Spent;
pub use status::Status;
pub use view::{QuotaView, Window};
pub use waits::Waits;
pub use window::{Amount, Cap, LimitName, Period, Scope, Span, Spans};
pub use words::{Answer, Ask, Refusal, Use, UseKind};
