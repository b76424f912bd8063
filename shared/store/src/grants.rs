//! Grants: what a workspace lets others use of its agents, and what it may use of theirs.

use crate::{Database, Page, StoreError, Tenant, tenant_statement};
use astra_kernel::{AgentId, NanoUsd, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A grant to give.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewGrant<'a> {
    /// Its id, a `UUIDv7`.
    pub id: Uuid,
    /// Who may use the agent.
    pub receiving_workspace_id: &'a WorkspaceId,
    /// The agent, one of the granter's.
    pub agent_id: &'a AgentId,
    /// No sub-agents, no tools that write.
    pub readonly: bool,
    /// Whose budget pays: `receiver` or `granter`.
    pub payer: &'a str,
    /// What it may cost who pays in a month.
    pub max_cost_nano_usd_per_month: Option<NanoUsd>,
    /// Permissions that reach across: none by default.
    pub allow: &'a [String],
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Who gives it.
    pub created_by: &'a str,
    /// The host's clock.
    pub now: Timestamp,
}

/// A grant, as one of its two sides sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Its id.
    pub id: Uuid,
    /// Whose agent it is.
    pub granting_workspace_id: WorkspaceId,
    /// Who may use it.
    pub receiving_workspace_id: WorkspaceId,
    /// The agent, by its id at the granter's.
    pub agent_id: AgentId,
    /// No sub-agents, no tools that write.
    pub readonly: bool,
    /// Who pays: `receiver` or `granter`.
    pub payer: String,
    /// What it may cost in a month.
    pub max_cost_nano_usd_per_month: Option<NanoUsd>,
    /// Permissions that reach across.
    pub allow: Vec<String>,
    /// Who gave it; the granter's to see.
    pub created_by: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When the receiver has agreed that it may stand in for a template's agent; the receiver's to see.
    pub accepted_at: Option<Timestamp>,
}

/// Which grants of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Those that it has given.
    Given,
    /// Those that it has received.
    Received,
}

/// A grant that is in force no longer: whose turns have to be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revoked {
    /// Whose counter holds its turns.
    pub counted_by: WorkspaceId,
    /// The agent as it is called there: `GRANTER/AGENT` at the receiver's, `AGENT@RECEIVER` at the granter's.
    pub agent_id: AgentId,
}

#[derive(Deserialize)]
struct Answer {
    outcome: String,
    grant: Option<Grant>,
}

#[derive(Serialize)]
struct Named {
    id: Uuid,
    now: Timestamp,
}

impl<D: Database> Tenant<'_, D> {
    /// Gives a grant; `None` when the workspace has no such agent of its own or of its plan.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn give_grant(&self, grant: &NewGrant<'_>) -> Result<Option<Grant>, StoreError> {
        self.call(tenant_statement!("grant_give"), grant).await.map(|answer: Answer| answer.grant)
    }

    /// Grants in the order that they were given; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_grants(&self, direction: Direction, after: Option<Uuid>, limit: u32) -> Result<Option<Page<Grant>>, StoreError> {
        #[derive(Serialize)]
        struct Which {
            direction: Direction,
            after: Option<Uuid>,
            limit: u32,
        }
        self.call(tenant_statement!("grants_list"), &Which { direction, after, limit }).await.map(crate::Listed::found)
    }

    /// Agrees that a received grant may stand in for a template's agent of the same id; `None` when there is none in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accept_grant(&self, id: Uuid, now: Timestamp) -> Result<Option<Grant>, StoreError> {
        let answer: Answer = self.call(tenant_statement!("grant_accept"), &Named { id, now }).await?;
        Ok(answer.grant.filter(|_| answer.outcome == "ok"))
    }

    /// The workspaces that pay for some of this one's turns, by grants in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn payers(&self, now: Timestamp) -> Result<Vec<WorkspaceId>, StoreError> {
        #[derive(Serialize)]
        struct At {
            now: Timestamp,
        }
        #[derive(Deserialize)]
        struct Payers {
            data: Vec<WorkspaceId>,
        }
        self.call(tenant_statement!("payers"), &At { now }).await.map(|Payers { data }| data)
    }

    /// Revokes a grant that was given, or gives a received one back; `None` when there is none. Twice is once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_grant(&self, id: Uuid, now: Timestamp) -> Result<Option<Revoked>, StoreError> {
        const STATEMENT: &str = tenant_statement!("grant_revoke");
        let answer =
            self.call_text(STATEMENT, &serde_json::to_string(&Named { id, now }).map_err(|_| StoreError::Shape(STATEMENT))?).await?;
        let crate::Outcome { outcome } = crate::parse(STATEMENT, &answer)?;
        if outcome == "ok" { crate::parse(STATEMENT, &answer).map(Some) } else { Ok(None) }
    }
}
