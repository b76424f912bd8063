//! The quota object: one per workspace, the only place where its budget is decided.
//!
//! [`desk`] answers what is asked: the rules are `astra_quota`'s, the two database calls of a turn are made from here because this is where
//! a connection can be kept. What must outlive the object's memory are rows ([`desk::Rows`]): a running turn (to end it if it dies) and a record that
//! the database has not taken yet. Everything else is rebuilt from the ledger: an object that starts empty loads what was spent before it admits anything.
//!
//! When the database is away: no turn begins (503); a turn that ends is kept here and delivered by the alarm. When the object is away, no turn begins.

pub mod desk;
mod gate;

#[cfg(target_arch = "wasm32")]
mod object;
#[cfg(feature = "testing")]
pub mod testing;
