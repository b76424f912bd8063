//! Scheduled jobs: one row each, leased, so that two runs at once do the work once, and with a cursor, so that one that was cut off is gone on with.

use crate::{Database, Nothing, Operator, Page, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A job that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLease<'a> {
    /// Which.
    pub name: &'a str,
    /// Who: any new id.
    pub lease: Uuid,
    /// For how long from a step on, in seconds.
    pub seconds: u32,
}

/// A run that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Where it goes on, if it was left in the middle.
    pub cursor: Option<String>,
}

/// What a step has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// How much worked.
    pub done: u32,
    /// And how much did not.
    pub failed: u32,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobEnd<'a> {
    /// When the next one is due.
    pub next_run: Timestamp,
    /// What went wrong.
    pub error: Option<&'a str>,
    /// It is not over: the next one goes on where this one is.
    pub is_paused: bool,
    /// What the last step has done, when that was not written down by itself.
    pub last: Done,
}

/// A job as the operator sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRow {
    /// Its name.
    pub name: String,
    /// When it is due.
    pub next_run: Timestamp,
    /// Until when somebody has it.
    pub leased_until: Option<Timestamp>,
    /// Where a run that is not over goes on.
    pub cursor: Option<String>,
    /// When that run began.
    pub began_at: Option<Timestamp>,
    /// How much that run, or the last one, has done.
    pub done: i64,
    /// And how much of it did not work.
    pub failed: i64,
    /// When a run last ended.
    pub last_run: Option<Timestamp>,
    /// When one last ended well.
    pub last_success: Option<Timestamp>,
    /// What went wrong in the last one.
    pub last_error: Option<String>,
    /// How many have ended.
    pub runs: i64,
    /// How many of them badly.
    pub failures: i64,
}

#[derive(Serialize)]
struct LeaseArg<'a> {
    name: &'a str,
    lease: Uuid,
    now: Timestamp,
    seconds: u32,
}

#[derive(Deserialize)]
struct Held {
    held: bool,
}

impl<D: Database> Operator<'_, D> {
    /// Takes a job that is due (or in any case) and that nobody has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_trigger(&self, lease: JobLease<'_>, even_if_not_due: bool, now: Timestamp) -> Result<Option<Begun>, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Arg<'a> {
            #[serde(flatten)]
            lease: LeaseArg<'a>,
            even_if_not_due: bool,
        }
        #[derive(Deserialize)]
        struct Answer {
            taken: bool,
            cursor: Option<String>,
        }
        let Answer { taken, cursor } =
            self.call(operator_statement!("op_job_take"), &Arg { lease: lease.at(now), even_if_not_due }).await?;
        Ok(taken.then_some(Begun { cursor }))
    }

    /// Writes down a step, and has the job for longer. False when somebody else has it now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn step_trigger(&self, lease: JobLease<'_>, cursor: Option<&str>, done: Done, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            #[serde(flatten)]
            lease: LeaseArg<'a>,
            cursor: Option<&'a str>,
            done: u32,
            failed: u32,
        }
        let arg = Arg { lease: lease.at(now), cursor, done: done.done, failed: done.failed };
        self.call(operator_statement!("op_job_step"), &arg).await.map(|Held { held }| held)
    }

    /// Ends a run. False when somebody else has the job now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_trigger(&self, lease: JobLease<'_>, end: JobEnd<'_>, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Arg<'a> {
            #[serde(flatten)]
            lease: LeaseArg<'a>,
            next_run: Timestamp,
            error: Option<&'a str>,
            is_paused: bool,
            done: u32,
            failed: u32,
        }
        let JobEnd { next_run, error, is_paused, last: Done { done, failed } } = end;
        let arg = Arg { lease: lease.at(now), next_run, error, is_paused, done, failed };
        self.call(operator_statement!("op_job_end"), &arg).await.map(|Held { held }| held)
    }

    /// Every job that has ever run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_triggers(&self) -> Result<Vec<JobRow>, StoreError> {
        let page: Page<JobRow> = self.call(operator_statement!("op_jobs_list"), &Nothing {}).await?;
        Ok(page.data)
    }
}

impl<'a> JobLease<'a> {
    fn at(self, now: Timestamp) -> LeaseArg<'a> {
        LeaseArg { name: self.name, lease: self.lease, now, seconds: self.seconds }
    }
}

/// When it is.
#[derive(Serialize)]
pub(crate) struct NowArg {
    pub(crate) now: Timestamp,
}

impl<D: Database> Tenant<'_, D> {
    /// Removes what is old: revoked tokens that have expired by themselves, grants that ended long ago, the log of old deliveries. How much.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clean_up(&self, now: Timestamp) -> Result<u32, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            removed: u32,
        }
        self.call(tenant_statement!("clean_up"), &NowArg { now }).await.map(|Answer { removed }| removed)
    }
}
