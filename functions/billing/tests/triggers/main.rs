//! Scheduled jobs on a real database: run twice, by two at once, killed at any point, under a clock that is set. (`scripts/test` runs them where nobody else runs jobs.)
//!
//! `TRIGGERS_KILLS`: how many points at which a run is killed, each chosen by chance; 12 unless set (`scripts/prove triggers`: 100).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod frame;
mod rig;
mod stripe;
mod webhooks;
