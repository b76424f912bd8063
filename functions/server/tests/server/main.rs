//! The server over real sockets on loopback, with counters that say what a test wants and no database.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bounds;
mod convert;
mod routes;
mod support;
mod turns;
