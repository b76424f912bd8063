//! The desk against a database and rows that can fail: what is acknowledged is never lost, what was spent is never counted twice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod growth;
mod guests;
mod kept;
mod uses;
mod windows;
mod world;
