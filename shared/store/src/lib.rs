//! The only door to Postgres.
//!
//! Each call is one statement, `SELECT astra.NAME($1, $2)`, with text parameters and one JSON answer: the form that a transaction-mode
//! pooler, Hyperdrive and a connection shared by many requests carry alike. What the statement does is in `migrations/`.
//!
//! A tenant's data is reached only through [`Tenant`], which carries its workspace; what spans workspaces only through [`Operator`].
//! Neither can be made from a request by itself: `astra_host` opens them after it has checked the token.
//!
//! When the database is away every call says [`StoreError::Unreachable`] and nothing was done, or nobody can tell whether it was done:
//! all writes here may be sent again.

use astra_kernel::{Code, ConfigError, Problem, WorkspaceId};
use serde::{Serialize, de::DeserializeOwned};
use std::future::Future;

pub mod agents;
pub mod audit;
pub mod billing;
pub mod documents;
pub mod extract;
pub mod grants;
mod grouped;
pub mod holds;
pub mod invoices;
pub mod jobs;
pub mod ledger;
pub mod members;
pub mod memory;
pub mod plans;
pub mod roles;
pub mod rollups;
pub mod secrets;
pub mod sessions;
pub mod stripe;
pub mod triggers;
pub mod turns;
pub mod webhooks;
pub mod words;
pub mod workspaces;

pub use grouped::{Grouped, Kind, Task};

/// Why a call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database or its pooler could not be reached, or the connection broke.
    #[error("the database cannot be reached")]
    Unreachable,
    /// The statement failed. The SQLSTATE only: a server's message may hold row values.
    #[error("the database refused the statement (SQLSTATE {0})")]
    Fault(String),
    /// `TENANT_KEYS` is not set, or malformed.
    #[error("{0}")]
    NoKeys(ConfigError),
    /// The answer was not of the agreed form.
    #[error("the database's answer to {0} is not of the agreed form")]
    Shape(&'static str),
}

impl StoreError {
    /// Whether the database is away or not taking work, so that the same call may do better later. SQLSTATE classes: 08 connection (a pooler says
    /// so when its server is away), 40 rolled back because of what others did at the same moment, 53 out of connections, memory or disk,
    /// 57 shutting down or cancelled.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable => true,
            Self::Fault(state) => ["08", "40", "53", "57"].iter().any(|class| state.starts_with(class)),
            Self::Shape(_) | Self::NoKeys(_) => false,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unreachable => {
                Self::new(Code::Unavailable, "The database cannot be reached. Nothing was changed; try again.").with_retry_after(1)
            }
            _ if error.is_passing() => {
                Self::new(Code::Unavailable, "The database is not taking work just now. Try again.").with_retry_after(1)
            }
            StoreError::NoKeys(error) => Self::new(Code::Unavailable, format!("This deployment is not configured: {error}.")),
            StoreError::Fault(_) | StoreError::Shape(_) => {
                Self::new(Code::Internal, "An internal error. The request id names it in the log.")
            }
        }
    }
}

/// What a host gives: one statement, text in, text out; and the proof of whom it is for.
pub trait Database: Send + Sync {
    /// The proof that a statement is for a workspace ([`astra_kernel::proof`]); `actor` is who asks, as JSON, or empty.
    ///
    /// # Errors
    /// [`StoreError::NoKeys`].
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError>;

    /// Runs one static statement with text parameters that returns one row of one text column.
    fn query(&self, statement: &'static str, params: &[&str]) -> impl Future<Output = Result<String, StoreError>> + Send;
}

/// The statement that calls a tenant's SQL function: first the proof, then the argument.
#[macro_export]
macro_rules! tenant_statement {
    ($name:literal) => {
        concat!("SELECT astra.", $name, "(astra.enter($1::text), $2::text)::text")
    };
}

/// The statement that calls an operator's SQL function.
#[macro_export]
macro_rules! operator_statement {
    ($name:literal) => {
        concat!("SELECT astra.", $name, "($1::text)::text")
    };
}

/// One workspace's data. Every call through it names that workspace to the database, which enforces it by row security.
#[derive(Debug, Clone)]
pub struct Tenant<'a, D> {
    database: &'a D,
    workspace: WorkspaceId,
    actor: String,
}

impl<'a, D: Database> Tenant<'a, D> {
    /// Opens a workspace's data. For `astra_host`, after the token was checked, and for the quota object, which is one workspace's.
    pub fn open(database: &'a D, workspace: WorkspaceId) -> Self {
        Self { database, workspace, actor: String::new() }
    }

    /// The same for somebody who asks, as JSON: the database writes down who did what.
    #[must_use]
    pub fn by(self, actor: String) -> Self {
        Self { actor, ..self }
    }

    /// The workspace.
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    pub(crate) async fn call<T: DeserializeOwned>(&self, statement: &'static str, arg: &impl Serialize) -> Result<T, StoreError> {
        let arg = serde_json::to_string(arg).map_err(|_| StoreError::Shape(statement))?;
        let answer = self.call_text(statement, &arg).await?;
        parse(statement, &answer)
    }

    pub(crate) async fn call_text(&self, statement: &'static str, arg: &str) -> Result<String, StoreError> {
        let proof = self.database.proof(&self.workspace, &self.actor)?;
        self.database.query(statement, &[&proof, arg]).await
    }
}

/// Reads an answer. As request bodies are read, so that the parser is in a function's wasm once.
fn parse<T: DeserializeOwned>(statement: &'static str, answer: &str) -> Result<T, StoreError> {
    astra_kernel::json::from_str(answer).map_err(|_| StoreError::Shape(statement))
}

/// What spans workspaces.
#[derive(Debug, Clone)]
pub struct Operator<'a, D> {
    database: &'a D,
}

impl<'a, D: Database> Operator<'a, D> {
    /// Opens it. For `astra_host`, after the token was checked to be an operator's.
    pub fn open(database: &'a D) -> Self {
        Self { database }
    }

    pub(crate) async fn call<T: DeserializeOwned>(&self, statement: &'static str, arg: &impl Serialize) -> Result<T, StoreError> {
        let answer = self.call_text(statement, arg).await?;
        parse(statement, &answer)
    }

    pub(crate) async fn call_text(&self, statement: &'static str, arg: &impl Serialize) -> Result<String, StoreError> {
        let arg = serde_json::to_string(arg).map_err(|_| StoreError::Shape(statement))?;
        self.database.query(statement, &[&arg]).await
    }
}

/// The argument of a function that takes none. (Arguments are structs: a `serde_json::Value` is a tree that is built to be written once, and the code for
/// it weighs some 10 KB in every function.)
#[derive(Serialize)]
pub(crate) struct Nothing {}

/// Which page of a list.
#[derive(Serialize)]
pub(crate) struct PageArg<'a> {
    pub(crate) after: Option<&'a str>,
    pub(crate) limit: u32,
}

/// What tells whether there is more to read in an answer.
#[derive(serde::Deserialize)]
pub(crate) struct Outcome {
    pub(crate) outcome: String,
}

/// A tenant's list as the database gives it: a workspace that does not exist has none.
#[derive(serde::Deserialize)]
pub(crate) struct Listed<T> {
    outcome: String,
    data: Vec<T>,
    #[serde(default)]
    next: Option<String>,
}

impl<T> Listed<T> {
    pub(crate) fn found(self) -> Option<Page<T>> {
        (self.outcome == "ok").then_some(Page { data: self.data, next: self.next })
    }
}

/// One page of a list and where the next begins.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub data: Vec<T>,
    /// What `after` is for the next page; `None` on the last.
    #[serde(default)]
    pub next: Option<String>,
}
