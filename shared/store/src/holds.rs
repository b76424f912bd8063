//! Holds as rows, for the counter of hosts without Durable Objects (`migrations/0011`, `0012`). Arguments and answers are the counter's to write and read.

use crate::{Database, Operator, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::{AgentId, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};

impl<D: Database> Tenant<'_, D> {
    /// All that a turn needs, and what is used and held.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_begin(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_begin"), arg).await
    }

    /// What is used and held, built if it has to be.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_standing(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_standing"), arg).await
    }

    /// Writes a hold down if it still fits. The same turn again keeps the hold that it has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_take(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_take"), arg).await
    }

    /// Takes a sign of life.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_extend(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_extend"), arg).await
    }

    /// Writes a larger hold down if it still fits.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_grow(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_grow"), arg).await
    }

    /// Asks whether a turn that lacks something may wait for others to give it back, and writes that down.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_wait(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_wait"), arg).await
    }

    /// Asks a running turn to stop.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_stop(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_stop"), arg).await
    }

    /// Asks all running turns of an agent to stop whose grant was revoked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holds_withdraw(&self, agent_id: &AgentId) -> Result<String, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Of<'a> {
            agent_id: &'a AgentId,
        }
        let arg = serde_json::to_string(&Of { agent_id }).map_err(|_| StoreError::Shape("holds_withdraw"))?;
        self.call_text(tenant_statement!("holds_withdraw"), &arg).await
    }

    /// Settles a hold and saves its turn, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_finish(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_finish"), arg).await
    }

    /// The limits and what is used of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_status(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_status"), arg).await
    }

    /// Turns of which nothing was heard in time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holds_expired(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("holds_expired"), arg).await
    }

    /// Compares the windows that are kept with the ledger.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_reconcile(&self) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("hold_reconcile"), "{}").await
    }

    /// Forgets all holds: the workspace is deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holds_forget(&self) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("holds_forget"), "{}").await
    }
}

/// Workspaces with holds that have expired.
#[derive(Debug, Clone, Deserialize)]
pub struct Expired {
    /// Which.
    pub data: Vec<WorkspaceId>,
    /// What `after` is to read on; none at the end.
    pub next: Option<WorkspaceId>,
}

impl<D: Database> Operator<'_, D> {
    /// Which workspaces have holds that have expired.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holds_expired(&self, now: Timestamp, after: Option<&WorkspaceId>) -> Result<Expired, StoreError> {
        #[derive(Serialize)]
        struct Argument<'a> {
            now: Timestamp,
            after: Option<&'a WorkspaceId>,
        }
        self.call(operator_statement!("op_holds_expired"), &Argument { now, after }).await
    }
}
