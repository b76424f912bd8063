//! The workspaces' counters as rows of the database, through a pool whose role is the counter's.

use super::{Counter, Pool, metrics, now};
use crate::CounterUnreachable;
use astra_kernel::WorkspaceId;
use astra_quota::words::{Answer, Ask};
use astra_quota_rows::{KINDS, RowsCounter, sweep};
use astra_store::holds::Expired;
use astra_store::{Grouped, Operator, StoreError};
use tokio::time::Instant;

/// Counters as rows.
#[derive(Debug, Clone)]
pub struct Rows(Grouped<Pool>);

impl Rows {
    /// Counters behind a pool that logs in as `astra_quota`, or as a role with its rights.
    pub fn new(pool: Pool) -> Self {
        Self(Grouped::new(pool, KINDS, |task| drop(tokio::spawn(task))))
    }

    /// Ends the turns of all workspaces of which nothing was heard in time; how many. Any number of processes may do it at once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire_stale(&self) -> Result<usize, StoreError> {
        sweep(&self.0, now()).await
    }

    /// Workspaces with turns of which nothing was heard in time, from one on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stale(&self, after: Option<&WorkspaceId>) -> Result<Expired, StoreError> {
        Operator::open(&self.0).holds_expired(now(), after).await
    }

    /// Ends a workspace's turns of which nothing was heard in time; how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire(&self, workspace: &WorkspaceId) -> Result<usize, StoreError> {
        RowsCounter::open(&self.0, workspace.clone()).expire(now()).await
    }
}

impl Counter for Rows {
    async fn ask(&self, workspace: &WorkspaceId, ask: &Ask) -> Result<Answer, CounterUnreachable> {
        let began = Instant::now();
        let answer = RowsCounter::open(&self.0, workspace.clone()).ask(ask, now()).await;
        metrics().ask(ask.name(), answer.name(), began);
        Ok(answer)
    }
}
