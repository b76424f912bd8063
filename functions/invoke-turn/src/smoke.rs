//! `POST /workspaces/{workspaceId}/smoke-test`: the last step of onboarding. A real turn, priced and saved like any other, and a memory that is
//! written, found and taken away again.

use crate::turns::{TurnRequest, answer};
use astra_host::routes::{Params, Unread};
use astra_host::stream::TurnHost;
use astra_host::{Call, Failure};
use astra_kernel::{AgentId, Permission};
use astra_models::embed;
use astra_turn::{Begun, TurnAnswer};
use axum::Json;
use serde::{Deserialize, Serialize};

/// What to test with.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct SmokeRequest {
    /// The agent to talk to.
    #[schema(value_type = String, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub agent_id: AgentId,
}

/// What the test found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SmokeReport {
    /// Whether every step went well.
    pub ok: bool,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// The turn.
    pub turn: TurnAnswer,
}

/// One step.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Step {
    /// `turn`, `memory.write` or `memory.delete`.
    pub name: &'static str,
    /// Whether it went well.
    pub ok: bool,
}

/// Sends a test message and checks the answer and a memory write.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/smoke-test", tag = "turns", operation_id = "smokeTest",
    params(("workspaceId" = String, Path, description = "The workspace")),
    request_body = SmokeRequest,
    responses((status = 200, description = "What was found", body = SmokeReport))
)]
pub async fn test<H: TurnHost>(call: Call<H>, Params(workspace): Params<String>, request: Unread) -> Result<Json<SmokeReport>, Failure> {
    let allowed = call.tenant(&workspace, Permission::AgentInvoke).await?;
    call.require(&allowed, Permission::MemoryWrite)?;
    let SmokeRequest { agent_id } = request.json().await?;
    let id = allowed.data.workspace().clone();
    let message = "This is a smoke test. Answer with one short sentence.".to_owned();
    let metadata = serde_json::Map::from_iter([("smokeTest".to_owned(), true.into())]);
    let ask = TurnRequest { agent_id, message, session_id: None, stream: false, metadata: Some(metadata) };
    let turn = match astra_turn::begin(&call, &id, ask.into_ask(&allowed.claims, None)?).await? {
        Begun::Running(running) => answer(&call.host, *running).await?,
        Begun::Replay(answer) => *answer,
    };
    let note = "A smoke test wrote this note.";
    let memory = call.host.new_id();
    let written = allowed.data.put_memory(memory, "note", note, &embed::to_pgvector(&embed::local_embedding(note))).await.is_ok();
    let deleted = allowed.data.delete_memory(memory).await.unwrap_or(false);
    let answered = turn.content.as_deref().is_some_and(|text| !text.is_empty());
    let steps =
        vec![Step { name: "turn", ok: answered }, Step { name: "memory.write", ok: written }, Step { name: "memory.delete", ok: deleted }];
    Ok(Json(SmokeReport { ok: steps.iter().all(|s| s.ok), steps, turn }))
}
