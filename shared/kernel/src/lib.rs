//! What every room of the house speaks: money, ids, months, problems, claims, permissions, configuration.
//!
//! Nothing here does I/O, knows a host, reads a clock or makes randomness: both are handed in.

pub mod audit;
pub mod chain;
pub mod config;
mod hs256;
pub mod ids;
pub mod issuer;
pub mod json;
pub mod jwk;
pub mod jws;
pub mod key_cache;
pub mod ledger;
pub mod limits;
pub mod money;
pub mod permission;
pub mod problem;
pub mod proof;
pub mod receipt;
pub mod seal;
pub mod time;
pub mod token;
pub mod webhook;

pub use config::{ConfigError, Settings};
pub use ids::{AgentId, GrantId, IdError, SessionId, TurnId, WorkspaceId};
pub use issuer::{Issuer, Issuers};
pub use limits::{Allowance, Limits};
pub use money::{LongContext, MoneyError, NanoUsd, Price, Tokens, Usage, UsageSource};
pub use permission::{Access, Permission, Role};
pub use problem::{Code, FieldError, Problem};
pub use proof::TenantKeys;
pub use receipt::ReceiptKeys;
pub use seal::{SealError, Sealed, SecretsKey};
pub use time::{Day, Month, Timestamp};
pub use token::{Claims, TokenKeys};
