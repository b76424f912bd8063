//! A workspace's limits and what is used of them, as its counter sees it at this moment.

use crate::month::WorkspacePath;
use astra_host::routes::Params;
use astra_host::{Allowed, Call, CounterUnreachable, Failure, Host};
use astra_kernel::{Permission, Problem};
use astra_quota::QuotaView;
use astra_quota::words::{Answer, Ask};
use axum::Json;

/// A workspace's limits: used, held by running turns, left.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/quota", tag = "billing", operation_id = "readQuota", params(WorkspacePath),
    responses((status = 200, description = "One window for each limit that is set", body = QuotaView)),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<QuotaView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceRead)?;
    match call.host.ask(data.workspace(), &Ask::Status).await? {
        Answer::Status(Some(quota)) => Ok(Json(quota)),
        Answer::Status(None) => Err(Problem::not_found("workspace").into()),
        // The counter is there, its database is not.
        Answer::Unavailable => Err(CounterUnreachable.into()),
        other => Err(Failure::internal(format!("the counter's answer to Status: {}", name_of(&other)))),
    }
}

/// An answer's name: its content may be a turn's.
fn name_of(answer: &Answer) -> &'static str {
    match answer {
        Answer::Fault(_) => "a database fault",
        _ => "another ask's answer",
    }
}
