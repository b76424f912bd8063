//! What AWS Lambda adds to a plain process: events that are no request, secrets from AWS's stores, and an end of the invocation that waits for what
//! goes on after the response. The host itself is [`native`](crate::native)'s.
//!
//! One environment serves one invocation at a time and is frozen between two of them, so that work which was left over would stand still, and a hold
//! expire, until somebody calls again: [`whole`] says how that is kept from happening. An environment that is killed (its time is over, it takes too much
//! memory) leaves turns that died: their holds expire and are charged what was last reported.

pub mod aws;
pub mod event;
pub mod events;
pub mod expiry;
pub mod secrets;
pub mod whole;
