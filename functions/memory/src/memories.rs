//! Memories: written, listed, searched, taken away. One is the whole workspace's, or one member's own, and then nobody else sees it.

use crate::forms::Content;
use crate::search::{Hits, QUICK_MILLIS, SearchBody};
use crate::{words, work};
use astra_host::embedder::{self, embed};
use astra_host::fields::WorkspacePath;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread, word};
use astra_host::stream::TurnHost;
use astra_host::{Call, Failure};
use astra_kernel::{Code, Permission, Problem, Timestamp};
use astra_memory::Kind;
use astra_memory::hash::content_hash;
use astra_models::embed::{local_embedding, to_pgvector};
use astra_store::memory::{Memory, MemoryList, NewMemory, Put, Source, Superseded, Written};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A memory to write.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewMemory)]
pub(crate) struct MemoryBody {
    /// What it is.
    #[serde(deserialize_with = "word")]
    #[schema(value_type = String, pattern = "^(fact|preference|decision|note)$")]
    kind: Kind,
    /// What is remembered.
    content: Content,
    /// Whether it is only for who writes it; false: for the whole workspace.
    #[serde(default)]
    personal: bool,
    /// Whether it never fades.
    #[serde(default)]
    pinned: bool,
}

/// A memory.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Memory)]
pub(crate) struct MemoryView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// `fact`, `preference`, `decision` or `note`.
    kind: String,
    /// What is remembered.
    content: String,
    /// Whose own it is; null: the whole workspace's.
    user_id: Option<String>,
    /// Whether it never fades.
    pinned: bool,
    /// When it was written first.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was written last.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// What it has taken the place of, the latest first; only where one memory is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<Before>>,
}

/// What a memory said before.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SupersededMemory)]
struct Before {
    /// `fact`, `preference`, `decision` or `note`.
    kind: String,
    /// What it said.
    content: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    superseded_at: Timestamp,
}

impl From<Superseded> for Before {
    fn from(before: Superseded) -> Self {
        let Superseded { kind, content, created_at, superseded_at } = before;
        Self { kind, content, created_at, superseded_at }
    }
}

impl From<Memory> for MemoryView {
    fn from(memory: Memory) -> Self {
        let Memory { id, kind, content, user_id, pinned, created_at, updated_at } = memory;
        Self { id, kind, content, user_id, pinned, created_at, updated_at, history: None }
    }
}

/// A memory's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct MemoryPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The memory.
    #[param(format = "uuid")]
    memory_id: String,
}

impl MemoryPath {
    fn id(&self) -> Result<Uuid, Problem> {
        self.memory_id.parse().map_err(|_| Problem::not_found("memory"))
    }
}

/// Which page of which memories.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    kind: Option<Kind>,
    after: Option<Uuid>,
    limit: Option<u32>,
}

/// Writes a memory. The same content for the same people is one memory: written again it is as young as now.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/memories", tag = "memory", operation_id = "writeMemory", params(WorkspacePath), request_body = MemoryBody,
    responses((status = 201, description = "It is new", body = MemoryView), (status = 200, description = "It was known", body = MemoryView)),
)]
pub(crate) async fn write<H: TurnHost>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryWrite).await?;
    let MemoryBody { kind, content, personal, pinned } = request.json().await?;
    let user_id = personal.then_some(allowed.claims.sub.as_str());
    let keep = async |embedding: &str, generation: Option<i32>| {
        let memory = NewMemory {
            id: call.host.new_id(),
            kind: kind.as_str(),
            content: content.as_str(),
            embedding,
            generation,
            hash: &content_hash(content.as_str()),
            user_id,
            pinned,
            now: call.host.now(),
        };
        allowed.data.write_memory(&memory).await?.ok_or_else(|| Failure::from(Problem::not_found("workspace")))
    };
    let mut written = keep(&to_pgvector(&local_embedding(content.as_str())), None).await?;
    if let Written::Stale(embedder) = &written {
        let texts = [content.as_str()];
        let vectors = embed(&call.host, allowed.data.workspace(), embedder, &allowed.claims.sub, &texts, QUICK_MILLIS).await;
        let vectors = vectors.map_err(Problem::from)?;
        written = keep(vectors.first().map_or("", String::as_str), embedder::generation(embedder)).await?;
    }
    let (status, memory) = match written {
        Written::Kept(Put::Created(memory)) => (StatusCode::CREATED, memory),
        Written::Kept(Put::Known(memory)) => (StatusCode::OK, memory),
        Written::Stale(_) => {
            let detail = "The workspace's embedder was changed this very moment, so nothing was written. Try again.";
            return Err(Problem::new(Code::Unavailable, detail).with_retry_after(1).into());
        }
    };
    // What is new goes to the index of words, and may be what makes an index of vectors worth while.
    work::soon(&call.host, allowed.data.workspace());
    Ok((status, Json(MemoryView::from(memory))).into_response())
}

/// One page of the workspace's memories and of the caller's own.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/memories", tag = "memory", operation_id = "listMemories",
    params(
        WorkspacePath,
        ("kind" = Option<String>, Query, description = "Only these", pattern = "^(fact|preference|decision|note)$"),
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", format = "uuid"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Memories in the order that they were made", body = PageBody<MemoryView>)),
)]
pub(crate) async fn list<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<MemoryView>>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let ListQuery { kind, after, limit } = request.query()?;
    let limit = PageQuery { after: None, limit }.limit()?;
    let list = MemoryList { subject: &allowed.claims.sub, id: None, kind: kind.map(Kind::as_str), after, limit };
    let page = allowed.data.list_memories(&list).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(page, MemoryView::from)))
}

/// One memory: the workspace's, or the caller's own.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/memories/{memoryId}", tag = "memory", operation_id = "readMemory", params(MemoryPath),
    responses((status = 200, description = "The memory", body = MemoryView)),
)]
pub(crate) async fn read<H: TurnHost>(call: Call<H>, Params(path): Params<MemoryPath>) -> Result<Json<MemoryView>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let list = MemoryList { subject: &allowed.claims.sub, id: Some(path.id()?), limit: 1, ..MemoryList::default() };
    let page = allowed.data.list_memories(&list).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    let memory = page.data.into_iter().next().ok_or_else(|| Problem::not_found("memory"))?;
    let history = allowed.data.memory_history(memory.id, &allowed.claims.sub).await?.into_iter().map(Before::from).collect();
    Ok(Json(MemoryView { history: Some(history), ..memory.into() }))
}

/// Takes a memory away: the workspace's, or the caller's own.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/memories/{memoryId}", tag = "memory", operation_id = "deleteMemory", params(MemoryPath),
    responses((status = 204, description = "It is gone")),
)]
pub(crate) async fn delete<H: TurnHost>(call: Call<H>, Params(path): Params<MemoryPath>) -> Result<StatusCode, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryWrite).await?;
    if allowed.data.remove_memory(path.id()?, &allowed.claims.sub).await? {
        words::soon(&call.host, allowed.data.workspace());
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found("memory").into())
    }
}

/// Searches the workspace's memories and the caller's own, by meaning and by words.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/memories/search", tag = "memory", operation_id = "searchMemories", params(WorkspacePath),
    request_body = SearchBody,
    responses((status = 200, description = "What was found, the best first", body = Hits)),
)]
pub(crate) async fn search<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<Hits>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let body: SearchBody = request.json().await?;
    body.run(&call.host, &allowed, Source::Memories).await.map(Json)
}
