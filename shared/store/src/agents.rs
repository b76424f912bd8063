//! Agents of a workspace: its own, and those of its plan's template.

use crate::{Database, Listed, Page, StoreError, Tenant, tenant_statement};
use astra_kernel::{AgentId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An agent and where it comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// `own` or `template`.
    pub source: String,
    /// Its definition, unrendered.
    pub definition: Value,
}

/// What writing an agent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
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

impl<D: Database> Tenant<'_, D> {
    /// The agents that the workspace can use, by id; an own one hides the template's of the same id. All on one page; `None` when the workspace
    /// does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_agents(&self) -> Result<Option<Page<AgentRow>>, StoreError> {
        self.call(tenant_statement!("agents_list"), &json!({})).await.map(Listed::found)
    }

    /// Writes an agent of the workspace's own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_agent(&self, id: &AgentId, definition: &Value, now: Timestamp) -> Result<AgentOutcome, StoreError> {
        let arg = json!({ "id": id, "definition": definition, "now": now });
        self.call(tenant_statement!("agent_put"), &arg).await
    }

    /// Deletes an agent of the workspace's own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_agent(&self, id: &AgentId) -> Result<AgentOutcome, StoreError> {
        self.call(tenant_statement!("agent_delete"), &json!({ "id": id })).await
    }
}
