//! Scheduled jobs: what nobody asks for. Each host calls [`run_due`] again and again (Workers: a cron trigger; Lambda: a schedule; the server: its own loop).
//!
//! 1. A job has one row (`billing_jobs`): when it is due, who has it, where it goes on. Whoever takes it has it for [`LEASE_SECONDS`] from each step on, so two runs at once do its work
//!    once, and one that was cut off is gone on with at its last step.
//! 2. A step is short, and doing it twice changes nothing: each writes through the tenant's own functions, what is sent has an id that stays.
//! 3. What fails in one workspace is counted and keeps no other from its turn; what fails as a whole (the database, Stripe's key) ends the run where it is, is told by
//!    `GET /billing/jobs`, and is tried again within [`RETRY_MILLIS`]. No job keeps another waiting: they run side by side.
//!
//! A new job is a variant of [`Job`] and an `async fn step`.

mod clean_up;
mod close_month;
mod deliver;
mod push_usage;
mod reconcile;
mod roll_up;
pub(crate) mod routes;

use astra_host::{Host, Shared};
use astra_kernel::{ConfigError, Timestamp};
use astra_store::triggers::{Begun, Done, JobEnd, JobLease};
use astra_store::{Operator, StoreError};
use futures_util::future::join_all;

/// How long a job is somebody's without a step, in seconds. No step takes as long.
const LEASE_SECONDS: u32 = 60;

/// How long a run goes on at most, in milliseconds: what is left is the next one's. Cron triggers and Lambda's schedules end what takes much longer.
pub const RUN_MILLIS: i64 = 25_000;

/// How soon a run that failed is tried again, in milliseconds, if its next one is not sooner.
const RETRY_MILLIS: i64 = 60_000;

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Sends what is in the webhooks' outbox.
    DeliverWebhooks,
    /// Tells Stripe's meters what was used.
    PushUsage,
    /// Compares the counters with the ledger and sets them right.
    Reconcile,
    /// Makes sums by day and month of the ledger's new entries.
    RollUp,
    /// Makes invoices of the months that are over.
    CloseMonth,
    /// Removes what is old.
    CleanUp,
}

/// What a step did, and where the next one begins: none when the run is over.
#[derive(Debug, Default)]
struct Step {
    next: Option<String>,
    done: u32,
    failed: u32,
    /// The first of the failures.
    error: Option<String>,
}

/// Why a run ends before it is over.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Other(String),
}

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// It is over, or as far as there was time; `GET /billing/jobs` tells how it went.
    Mine,
    /// It is not due, or somebody else has it.
    NotMine,
}

impl Job {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::DeliverWebhooks, Self::PushUsage, Self::Reconcile, Self::RollUp, Self::CloseMonth, Self::CleanUp];

    /// Its name in the API and in its row.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeliverWebhooks => "deliver-webhooks",
            Self::PushUsage => "push-usage",
            Self::Reconcile => "reconcile",
            Self::RollUp => "roll-up",
            Self::CloseMonth => "close-month",
            Self::CleanUp => "clean-up",
        }
    }

    /// How often it is due.
    pub(crate) fn every_seconds(self) -> u32 {
        match self {
            // Whenever the host asks.
            Self::DeliverWebhooks => 1,
            Self::RollUp => 60,
            Self::PushUsage | Self::Reconcile | Self::CloseMonth => 3600,
            Self::CleanUp => 24 * 3600,
        }
    }

    /// Whether this deployment has a use for it.
    pub(crate) fn is_enabled(self, shared: &Shared) -> bool {
        match self {
            Self::PushUsage => shared.setting("STRIPE_API_KEY").is_some(),
            Self::DeliverWebhooks | Self::Reconcile | Self::RollUp | Self::CloseMonth | Self::CleanUp => true,
        }
    }

    async fn step<H: Host>(self, host: &H, cursor: Option<&str>) -> Result<Step, JobError> {
        match self {
            Self::DeliverWebhooks => deliver::step(host).await,
            Self::PushUsage => push_usage::step(host, cursor).await,
            Self::Reconcile => reconcile::step(host, cursor).await,
            Self::RollUp => roll_up::step(host).await,
            Self::CloseMonth => close_month::step(host, cursor).await,
            Self::CleanUp => clean_up::step(host, cursor).await,
        }
    }
}

/// Does what is due of all jobs, until that time. What a job finds wrong is in its row; what keeps even that from being written is logged.
pub async fn run_due<H: Host>(host: &H, until: Timestamp) {
    let jobs = Job::ALL.into_iter().filter(|job| job.is_enabled(host.shared()));
    join_all(jobs.map(|job| async move {
        if let Err(error) = run(host, job, until, false).await {
            host.log(&format!(r#"{{"event":"job","job":"{}","error":"{error}"}}"#, job.name()));
        }
    }))
    .await;
}

/// Does one job, if it is due (or in any case) and nobody has it.
///
/// # Errors
/// [`StoreError`] when its row cannot be read or written: its lease is over by itself.
pub async fn run<H: Host>(host: &H, job: Job, until: Timestamp, even_if_not_due: bool) -> Result<Ran, StoreError> {
    let operator = Operator::open(host);
    let lease = JobLease { name: job.name(), lease: host.new_id(), seconds: LEASE_SECONDS };
    let Some(Begun { mut cursor }) = operator.take_trigger(lease, even_if_not_due, host.now()).await? else { return Ok(Ran::NotMine) };
    let mut first_error = None;
    loop {
        let Step { next, done, failed, error } = match job.step(host, cursor.as_deref()).await {
            Ok(step) => step,
            Err(error) => {
                end(host, lease, job, Some(&error.to_string()), true, Done::default()).await?;
                return Ok(Ran::Mine);
            }
        };
        first_error = first_error.or(error);
        let done = Done { done, failed };
        if next.is_none() {
            end(host, lease, job, first_error.as_deref(), false, done).await?;
            return Ok(Ran::Mine);
        }
        if !operator.step_trigger(lease, next.as_deref(), done, host.now()).await? {
            return Ok(Ran::NotMine);
        }
        if host.now() >= until {
            end(host, lease, job, first_error.as_deref(), true, Done::default()).await?;
            return Ok(Ran::Mine);
        }
        cursor = next;
    }
}

async fn end<H: Host>(host: &H, lease: JobLease<'_>, job: Job, error: Option<&str>, is_paused: bool, last: Done) -> Result<(), StoreError> {
    let every = i64::from(job.every_seconds()) * 1000;
    let now = host.now();
    let wait = match (error, is_paused) {
        (Some(_), _) => every.min(RETRY_MILLIS),
        // It goes on at once.
        (None, true) => 0,
        (None, false) => every,
    };
    if let Some(error) = error {
        let error = serde_json::to_string(error).unwrap_or_default();
        host.log(&format!(r#"{{"event":"job","job":"{}","error":{error}}}"#, job.name()));
    }
    let end = JobEnd { next_run: now.plus_millis(wait), error, is_paused, last };
    Operator::open(host).end_trigger(lease, end, now).await.map(drop)
}
