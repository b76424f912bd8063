//! Jobs: what is done without anybody waiting for it. At-least-once in, exactly-once in effect.

use crate::documents::Step;
use crate::{Database, Listed, Operator, Outcome, Page, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::{Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A job, and who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// The job.
    pub job_id: Uuid,
    /// Who has it: any new id.
    pub lease: Uuid,
}

/// What is to be done.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// What.
    #[serde(flatten)]
    pub work: Work,
    /// The how manieth try this is.
    pub attempts: u32,
}

/// What is to be done, and about what.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", content = "arg", rename_all = "camelCase")]
pub enum Work {
    /// A document is split, embedded and searched from then on.
    #[serde(rename_all = "camelCase")]
    Ingest {
        /// Which version.
        document_id: Uuid,
    },
    /// What was said in a conversation becomes memories.
    Extract {},
    /// The vectors of a table that has become large are indexed.
    Index {
        /// Which: `memories` or `chunks`.
        table: String,
    },
    /// All is embedded once more, by the embedder to come.
    Reembed {},
    /// What has changed is brought to the index of words.
    Words {},
}

/// How jobs are taken.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Taking {
    /// Who takes it: any new id.
    pub lease: Uuid,
    /// The host's clock.
    pub now: Timestamp,
    /// How long it is theirs unless they say that they go on.
    pub seconds: u32,
    /// After so many tries it is dead.
    pub attempts: u32,
}

/// A job as the operator sees it: no texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Its id.
    pub id: Uuid,
    /// What.
    pub kind: String,
    /// About what.
    pub about: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Why it failed last.
    pub error: Option<String>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// When it is tried next.
    pub run_at: Timestamp,
    /// Since when it is tried no more.
    pub dead_at: Option<Timestamp>,
}

/// Which jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not done yet.
    Waiting,
    /// Failed too often.
    #[default]
    Dead,
}

impl<D: Database> Operator<'_, D> {
    /// Workspaces that have something to do, the one that waits longest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs_due(&self, now: Timestamp, limit: u32) -> Result<Vec<WorkspaceId>, StoreError> {
        #[derive(Serialize)]
        struct Which {
            now: Timestamp,
            limit: u32,
        }
        #[derive(Deserialize)]
        struct Answer {
            workspaces: Vec<WorkspaceId>,
        }
        self.call(operator_statement!("op_jobs_due"), &Which { now, limit }).await.map(|Answer { workspaces }| workspaces)
    }
}

impl<D: Database> Tenant<'_, D> {
    /// Takes the next job that is due, if any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_job(&self, taking: Taking) -> Result<Option<Job>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            job: Option<Job>,
        }
        self.call(tenant_statement!("job_take"), &taking).await.map(|Answer { job }| job)
    }

    /// Has the vectors of a table indexed, and with that the job is done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn build_index(&self, lease: Lease, table: &str) -> Result<Step, StoreError> {
        #[derive(Serialize)]
        struct Which<'a> {
            #[serde(flatten)]
            lease: Lease,
            table: &'a str,
        }
        #[derive(Deserialize)]
        struct Answer {
            outcome: Step,
        }
        self.call(tenant_statement!("index_build"), &Which { lease, table }).await.map(|Answer { outcome }| outcome)
    }

    /// A try that failed: it is tried again at that time, or never. False when somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fail_job(&self, lease: Lease, error: &str, run_at: Option<Timestamp>, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Failed<'a> {
            id: Uuid,
            lease: Uuid,
            error: &'a str,
            run_at: Option<Timestamp>,
            now: Timestamp,
        }
        let failed = Failed { id: lease.job_id, lease: lease.lease, error, run_at, now };
        let Outcome { outcome } = self.call(tenant_statement!("job_fail"), &failed).await?;
        Ok(outcome == "ok")
    }

    /// A job that cannot be done for now, by no fault of its own: it waits until then, and the try is not counted. False when somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn wait_job(&self, lease: Lease, error: &str, run_at: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Waits<'a> {
            id: Uuid,
            lease: Uuid,
            error: &'a str,
            run_at: Timestamp,
        }
        let waits = Waits { id: lease.job_id, lease: lease.lease, error, run_at };
        let Outcome { outcome } = self.call(tenant_statement!("job_wait"), &waits).await?;
        Ok(outcome == "ok")
    }

    /// Jobs in the order that they were made; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_jobs(&self, state: State, after: Option<Uuid>, limit: u32) -> Result<Option<Page<JobView>>, StoreError> {
        #[derive(Serialize)]
        struct Which {
            state: State,
            after: Option<Uuid>,
            limit: u32,
        }
        self.call(tenant_statement!("job_list"), &Which { state, after, limit }).await.map(Listed::found)
    }

    /// Has a dead job tried again. False when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replay_job(&self, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        struct Which {
            id: Uuid,
            now: Timestamp,
        }
        let Outcome { outcome } = self.call(tenant_statement!("job_replay"), &Which { id, now }).await?;
        Ok(outcome == "ok")
    }
}
