//! Jobs as the operator sees and starts them.

use super::{Job, RUN_MILLIS, Ran, run};
use astra_host::paging::PageBody;
use astra_host::routes::Params;
use astra_host::{Call, Failure, Host};
use astra_kernel::{Code, Permission, Problem, Timestamp};
use astra_store::Operator;
use astra_store::triggers::JobRow;
use axum::Json;
use serde::{Deserialize, Serialize};

/// A scheduled job.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BillingJob)]
pub(crate) struct JobView {
    /// Its name.
    name: &'static str,
    /// Whether this deployment has a use for it: `push-usage` has none without `STRIPE_API_KEY`.
    is_enabled: bool,
    /// How often it is due, in seconds.
    every_seconds: u32,
    /// When it is due next; null before its first run.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    next_run_at: Option<Timestamp>,
    /// Whether somebody is at it.
    is_running: bool,
    /// When a run that is not over began.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    began_at: Option<Timestamp>,
    /// Where it goes on.
    #[schema(required = true)]
    cursor: Option<String>,
    /// How much that run, or the last one, has done.
    done: i64,
    /// And how much of it did not work.
    failed: i64,
    /// When a run last ended, well or not.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_run_at: Option<Timestamp>,
    /// When one last ended well.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    last_success_at: Option<Timestamp>,
    /// What went wrong in the last one; null when nothing did.
    #[schema(required = true)]
    last_error: Option<String>,
    /// Runs that have ended.
    runs: i64,
    /// Those of them that ended badly.
    failures: i64,
}

/// A job's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct JobPath {
    /// The job's name.
    #[param(min_length = 1, max_length = 40, pattern = "^[a-z-]+$")]
    job_name: String,
}

fn view<H: Host>(host: &H, job: Job, row: Option<&JobRow>) -> JobView {
    let now = host.now();
    let (name, is_enabled, every_seconds) = (job.name(), job.is_enabled(host.shared()), job.every_seconds());
    let Some(row) = row else {
        return JobView {
            name,
            is_enabled,
            every_seconds,
            next_run_at: None,
            is_running: false,
            began_at: None,
            cursor: None,
            done: 0,
            failed: 0,
            last_run_at: None,
            last_success_at: None,
            last_error: None,
            runs: 0,
            failures: 0,
        };
    };
    let JobRow { name: _, next_run, leased_until, cursor, began_at, done, failed, last_run, last_success, last_error, runs, failures } =
        row.clone();
    JobView {
        name,
        is_enabled,
        every_seconds,
        next_run_at: Some(next_run),
        is_running: leased_until.is_some_and(|until| until > now),
        began_at,
        cursor,
        done,
        failed,
        last_run_at: last_run,
        last_success_at: last_success,
        last_error,
        runs,
        failures,
    }
}

/// Every scheduled job and how its last run went. All on one page.
#[utoipa::path(
    get, path = "/billing/jobs", tag = "billing", operation_id = "listBillingJobs",
    responses((status = 200, description = "All jobs", body = PageBody<JobView>)),
)]
pub(crate) async fn list<H: Host>(call: Call<H>) -> Result<Json<PageBody<JobView>>, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    let rows = operator.list_triggers().await?;
    let data = Job::ALL.map(|job| view(&call.host, job, rows.iter().find(|row| row.name == job.name())));
    Ok(Json(PageBody { data: data.into(), next_cursor: None }))
}

/// Runs a job now, whether or not it is due, and answers how that went. A run that takes too long goes on with the schedule.
#[utoipa::path(
    post, path = "/billing/jobs/{jobName}/run", tag = "billing", operation_id = "runBillingJob", params(JobPath),
    responses(
        (status = 200, description = "It has run", body = JobView), (status = 404, description = "There is no such job"),
        (status = 409, description = "It is running, or this deployment has no use for it"),
    ),
)]
pub(crate) async fn start<H: Host>(call: Call<H>, Params(path): Params<JobPath>) -> Result<Json<JobView>, Failure> {
    let operator: Operator<'_, H> = call.operator(Permission::WorkspaceList).await?;
    let job = Job::ALL.into_iter().find(|job| job.name() == path.job_name).ok_or_else(|| Problem::not_found("job"))?;
    if !job.is_enabled(call.host.shared()) {
        return Err(Problem::new(Code::Conflict, "This deployment has no use for that job: docs/triggers.md says what to set.").into());
    }
    let until = call.host.now().plus_millis(RUN_MILLIS);
    if run(&call.host, job, until, true).await? == Ran::NotMine {
        return Err(Problem::new(Code::Conflict, "The job is running. See GET /billing/jobs.").into());
    }
    let rows = operator.list_triggers().await?;
    Ok(Json(view(&call.host, job, rows.iter().find(|row| row.name == job.name()))))
}
