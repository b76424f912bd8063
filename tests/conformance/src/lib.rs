//! Shows from outside how a gateway keeps a budget: real HTTP through it to a model of this crate's own, whose journal says what was really spent.
//!
//! [`scenarios`] says what is done, [`target`] what an adapter has to know; `docs/quota-conformance.md` has the table and what it does not show.

#![expect(clippy::missing_panics_doc, reason = "where nothing can be measured there is nothing to go on with")]

pub mod astra;
pub mod litellm;
pub mod mock;
pub mod scenarios;
pub mod target;
