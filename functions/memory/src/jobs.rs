//! How far the memory is, and the jobs that failed: what the operator looks at.

use crate::{words, work};
use astra_host::fields::WorkspacePath;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::stream::TurnHost;
use astra_host::{Allowed, Call, Failure};
use astra_kernel::{Permission, Problem, Timestamp};
use astra_store::jobs::{JobView, State};
use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a workspace's memory holds, and what is still to be done.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MemoryStatus {
    /// Memories, each member's own included.
    memories: i64,
    /// Documents, all versions of one counted once.
    documents: i64,
    /// Pieces of documents that are searched.
    chunks: i64,
    /// Versions of documents that are not searched yet.
    pending_documents: i64,
    /// Jobs.
    jobs: JobsStatus,
    /// The index of words; not there in a deployment without Typesense.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<IndexStatus>,
}

/// How far the index of words in Typesense is behind.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct IndexStatus {
    /// Whether it is searched; before that Postgres is. A workspace's index is made at its first search.
    ready: bool,
    /// Whether it is being made, or moved.
    moving: bool,
    /// Changes that are not there yet.
    waiting: i64,
    /// Of those, refused by Typesense and tried again.
    refused: i64,
    /// How long the oldest has waited, in seconds; null when all are there.
    lag_seconds: Option<i64>,
}

/// Jobs of a workspace's memory.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct JobsStatus {
    /// Not done yet.
    waiting: i64,
    /// Failed too often.
    dead: i64,
    /// How long the oldest that is not done has waited, in seconds; null when all are done.
    lag_seconds: Option<i64>,
}

/// A job: what is done without anybody waiting for it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Job)]
pub(crate) struct Shown {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// `ingest`, `extract`, `index`, `reembed` or `words`.
    kind: String,
    /// About what, such as `document handbook` or `index of chunks`.
    about: String,
    /// How often it was tried.
    attempts: u32,
    /// Why it failed last.
    error: Option<String>,
    /// Since when it is there.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it is tried next.
    #[schema(value_type = String, format = DateTime)]
    run_at: Timestamp,
    /// Since when it is tried no more.
    #[schema(value_type = Option<String>, format = DateTime)]
    dead_at: Option<Timestamp>,
}

impl From<JobView> for Shown {
    fn from(job: JobView) -> Self {
        let JobView { id, kind, about, attempts, error, created_at, run_at, dead_at } = job;
        Self { id, kind, about, attempts, error, created_at, run_at, dead_at }
    }
}

/// A job's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct JobPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The job.
    #[param(format = "uuid")]
    job_id: String,
}

/// Which page of which jobs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default)]
    state: State,
    after: Option<Uuid>,
    limit: Option<u32>,
}

/// What the memory holds, and how far behind it is.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/memory/status", tag = "memory", operation_id = "memoryStatus", params(WorkspacePath),
    responses((status = 200, description = "How it stands", body = MemoryStatus)),
)]
pub(crate) async fn status<H: TurnHost>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<MemoryStatus>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let status = allowed.data.memory_status().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    let now = call.host.now();
    let seconds_since = |since: Timestamp| (now.0 - since.0).max(0) / 1000;
    let index = if words::typesense(&call.host)?.is_some() {
        let behind = allowed.data.words_status().await?;
        Some(IndexStatus {
            ready: behind.ready.unwrap_or_default(),
            moving: behind.moving.unwrap_or_default(),
            waiting: behind.waiting,
            refused: behind.refused,
            lag_seconds: behind.oldest.map(seconds_since),
        })
    } else {
        None
    };
    Ok(Json(MemoryStatus {
        memories: status.memories,
        documents: status.documents,
        chunks: status.chunks,
        pending_documents: status.pending,
        jobs: JobsStatus { waiting: status.jobs.waiting, dead: status.jobs.dead, lag_seconds: status.jobs.oldest.map(seconds_since) },
        index,
    }))
}

/// A workspace for the operator: a role of the workspace's own may have any permission and is no operator.
pub(crate) async fn of_operator<'a, H: TurnHost>(call: &'a Call<H>, workspace: &str) -> Result<Allowed<'a, H>, Failure> {
    call.operator(Permission::WorkspaceList).await?;
    call.tenant(workspace, Permission::WorkspaceList).await
}

/// One page of a workspace's jobs: those that failed too often, or those that are not done yet. The operator's.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/memory/jobs", tag = "memory", operation_id = "listJobs",
    params(
        WorkspacePath,
        ("state" = Option<String>, Query, description = "`dead` (unless told) or `waiting`", pattern = "^(dead|waiting)$"),
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", format = "uuid"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Jobs in the order that they were made", body = PageBody<Shown>)),
)]
pub(crate) async fn list<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<Shown>>, Failure> {
    let allowed = of_operator(&call, &path.workspace_id).await?;
    let ListQuery { state, after, limit } = request.query()?;
    let limit = PageQuery { after: None, limit }.limit()?;
    let page = allowed.data.list_jobs(state, after, limit).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(page, Shown::from)))
}

/// Has a job that failed too often tried again. The operator's.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/memory/jobs/{jobId}/replay", tag = "memory", operation_id = "replayJob", params(JobPath),
    responses((status = 202, description = "It is tried again")),
)]
pub(crate) async fn replay<H: TurnHost>(call: Call<H>, Params(path): Params<JobPath>) -> Result<StatusCode, Failure> {
    let allowed = of_operator(&call, &path.workspace_id).await?;
    let unknown = || Problem::not_found("dead job");
    let id = path.job_id.parse().map_err(|_| unknown())?;
    if !allowed.data.replay_job(id, call.host.now()).await? {
        return Err(unknown().into());
    }
    work::soon(&call.host, allowed.data.workspace());
    Ok(StatusCode::ACCEPTED)
}
