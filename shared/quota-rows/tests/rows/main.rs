//! The counter on rows against a real Postgres. `scripts/test` runs them; by hand:
//! `eval "$(scripts/stack env)"; cargo nextest run -p astra-quota-rows --run-ignored only`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod changes;
mod crowd;
mod grouped;
mod guests;
mod load;
mod rules;
mod same;
mod uses;
mod world;
