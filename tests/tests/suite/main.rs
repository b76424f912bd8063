//! The black-box suite: what the product promises, over HTTP, against a running stack. Each test in its own workspace.

#![expect(clippy::unwrap_used, reason = "all of this is tests, their helpers too")]

mod abuse;
mod agents;
mod audit;
mod bill;
mod description;
mod disconnects;
mod embedders;
mod extraction;
mod grants;
mod guards;
mod hangups;
mod idempotency;
mod interference;
mod invoices;
mod isolation;
mod issuers;
mod knowledge;
mod ledger;
mod limits;
mod logs;
mod memory;
mod meters;
mod mixed;
mod models;
mod onboarding;
mod our_budgets;
mod payer;
mod people;
mod prices;
mod protocol;
mod roles;
mod rollups;
mod rush;
mod searches;
mod spent;
mod store;
mod streams;
mod templates;
mod turns;
mod visible;
mod walls;
mod webhooks;
mod words;
mod workspaces;
