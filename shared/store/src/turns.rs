//! A turn's two calls. Both are sent by the counter (see ARCHITECTURE.md, "A turn's way"), which reads only what it needs of them;
//! the JSON is otherwise passed on as it is.

use crate::{Database, StoreError, Tenant, tenant_statement};
use astra_kernel::Month;
use serde::Serialize;

impl<D: Database> Tenant<'_, D> {
    /// All that a turn needs, in one round trip: `turn_begin`'s JSON.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_turn(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("turn_begin"), arg).await
    }

    /// Saves a turn with its messages and its ledger entry, in one transaction: `turn_finish`'s JSON. The same turn again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish_turn(&self, arg: &str) -> Result<String, StoreError> {
        self.call_text(tenant_statement!("turn_finish"), arg).await
    }

    /// The limits of the workspace and of its agents, and what was spent in a month when it is asked:
    /// `{outcome, limits, agents: [{id, maxCostNanoUsdPerMonth}], agentCount, spent}`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quota_status(&self, month: Month, need_spent: bool) -> Result<String, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Argument {
            month: Month,
            need_spent: bool,
        }
        let arg = serde_json::to_string(&Argument { month, need_spent }).map_err(|_| StoreError::Shape("quota_status"))?;
        self.call_text(tenant_statement!("quota_status"), &arg).await
    }
}
