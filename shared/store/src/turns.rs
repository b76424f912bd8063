//! A turn's two calls. Both are sent by the counter (see ARCHITECTURE.md, "A turn's way"), which reads only what it needs of them;
//! the JSON is otherwise passed on as it is.

use crate::{Database, StoreError, Tenant, tenant_statement};
use astra_kernel::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

/// The argument of a function that takes a moment.
#[derive(Serialize)]
struct At {
    now: Timestamp,
}

impl<D: Database> Tenant<'_, D> {
    /// All that a turn needs, in one round trip: `turn_begin`'s JSON.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_turn(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("turn_begin"), arg).await
    }

    /// What memory gives to a turn by vectors of the workspace's own embedder: `turn_recall`'s JSON, null where that is another by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recall_for_turn(&self, recall: &impl Serialize) -> Result<Box<RawValue>, StoreError> {
        self.call(tenant_statement!("turn_recall"), recall).await
    }

    /// Saves a turn with its messages and its ledger entry, in one transaction: `turn_finish`'s JSON. The same turn again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_turn(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("turn_finish"), arg).await
    }

    /// The limits of the workspace and of its agents, and the windows of now:
    /// `{outcome, limits, agents: [{id, allowance}], agentCount, spans}`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quota_status(&self, now: Timestamp) -> Result<String, StoreError> {
        let arg = serde_json::to_string(&At { now }).map_err(|_| StoreError::Shape("quota_status"))?;
        self.call_text(tenant_statement!("quota_status"), &arg).await
    }

    /// Writes down what is carried over into the month of a moment: `{outcome: carried | not_yet}`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quota_carry(&self, now: Timestamp) -> Result<String, StoreError> {
        let arg = serde_json::to_string(&At { now }).map_err(|_| StoreError::Shape("quota_carry"))?;
        self.call_text(tenant_statement!("quota_carry"), &arg).await
    }

    /// Writes down marks that were passed and belong to no turn's record: `{"alerts": [alert], "now"}`. Those that are there are left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quota_mark(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("quota_mark"), arg).await
    }

    /// What the ledger says was spent in windows: `{"windows": [span]}` to `{"data": [spent]}`, in the same order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quota_spent(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("quota_spent"), arg).await
    }
}
