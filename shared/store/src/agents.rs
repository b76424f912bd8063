//! Agents of a workspace: its own, and those of its plan's template.

use crate::{Database, Listed, Nothing, Page, StoreError, Tenant, tenant_statement};
use astra_kernel::{AgentId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An agent and where it comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// `own` or `template`.
    pub source: String,
    /// Its definition, unrendered.
    pub definition: Box<RawValue>,
}

/// What writing an agent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentOutcome {
    /// Done.
    Ok,
    /// No such agent (or workspace).
    NotFound,
    /// Refused: the workspace has as many agents as `maxAgents` allows.
    Limit {
        /// How many agents it has in effect.
        used: i64,
    },
}

#[derive(Deserialize)]
struct Answer {
    outcome: String,
    used: Option<i64>,
}

impl Answer {
    fn read(self, statement: &'static str) -> Result<AgentOutcome, StoreError> {
        match (self.outcome.as_str(), self.used) {
            ("ok", _) => Ok(AgentOutcome::Ok),
            ("not_found", _) => Ok(AgentOutcome::NotFound),
            ("limit", Some(used)) => Ok(AgentOutcome::Limit { used }),
            _ => Err(StoreError::Shape(statement)),
        }
    }
}

impl<D: Database> Tenant<'_, D> {
    /// The agents that the workspace can use, by id; an own one hides the template's of the same id. All on one page; `None` when the workspace
    /// does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_agents(&self) -> Result<Option<Page<AgentRow>>, StoreError> {
        self.call(tenant_statement!("agents_list"), &Nothing {}).await.map(Listed::found)
    }

    /// Writes an agent of the workspace's own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_agent(&self, id: &AgentId, definition: &impl Serialize, now: Timestamp) -> Result<AgentOutcome, StoreError> {
        const STATEMENT: &str = tenant_statement!("agent_put");
        #[derive(Serialize)]
        struct Put<'a, T> {
            id: &'a AgentId,
            definition: &'a T,
            now: Timestamp,
        }
        self.call::<Answer>(STATEMENT, &Put { id, definition, now }).await?.read(STATEMENT)
    }

    /// Deletes an agent of the workspace's own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_agent(&self, id: &AgentId) -> Result<AgentOutcome, StoreError> {
        const STATEMENT: &str = tenant_statement!("agent_delete");
        #[derive(Serialize)]
        struct Delete<'a> {
            id: &'a AgentId,
        }
        self.call::<Answer>(STATEMENT, &Delete { id }).await?.read(STATEMENT)
    }
}
