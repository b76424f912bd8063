//! Conversations. A member sees their own; who has `session:read-all` sees everybody's.

use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::stream::TurnHost;
use astra_host::{Allowed, Call, Failure};
use astra_kernel::{Permission, Problem, SessionId};
use astra_store::sessions::{Session, StoredMessage};
use axum::Json;

/// A page of sessions, newest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPage {
    /// The sessions.
    pub data: Vec<Session>,
    /// What `after` is for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// A page of messages, oldest first.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessagePage {
    /// The messages.
    pub data: Vec<StoredMessage>,
    /// What `after` is for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Opens the workspace's conversations, with the owner filter that the caller's rights ask for.
async fn open<'a, H: TurnHost>(call: &'a Call<H>, workspace: &str) -> Result<(Allowed<'a, H>, Option<String>), Failure> {
    let allowed = call.tenant(workspace, Permission::SessionRead).await?;
    let owner = (!allowed.may(Permission::SessionReadAll)).then(|| allowed.claims.sub.clone());
    Ok((allowed, owner))
}

fn session_id(text: &str) -> Result<SessionId, Problem> {
    text.parse().map_err(|_| unknown())
}

fn unknown() -> Problem {
    Problem::not_found("session of yours")
}

/// Lists conversations, newest first.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/sessions", tag = "sessions", operation_id = "listSessions",
    params(
        ("workspaceId" = String, Path, description = "The workspace"),
        ("after" = Option<String>, Query, format = "uuid", description = "The `nextCursor` of the page before"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "How many; 50 unless told"),
    ),
    responses((status = 200, description = "A page", body = SessionPage))
)]
pub async fn list<H: TurnHost>(
    call: Call<H>,
    Params(workspace): Params<String>,
    request: Unread,
) -> Result<Json<PageBody<Session>>, Failure> {
    let (allowed, owner) = open(&call, &workspace).await?;
    let page: PageQuery = request.query()?;
    let after = page
        .after
        .as_deref()
        .map(|a| a.parse::<SessionId>().map_err(|_| Problem::field("after", "a nextCursor of this list")))
        .transpose()?;
    let after = after.map(|a| a.to_string());
    let page = allowed.data.list_sessions(owner.as_deref(), after.as_deref(), page.limit()?).await?;
    Ok(Json(PageBody::from_page(page, |session| session)))
}

/// Shows a conversation.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/sessions/{sessionId}", tag = "sessions", operation_id = "readSession",
    params(("workspaceId" = String, Path, description = "The workspace"), ("sessionId" = String, Path, format = "uuid", description = "The session")),
    responses((status = 200, description = "The session", body = Session))
)]
pub async fn read<H: TurnHost>(call: Call<H>, Params((workspace, session)): Params<(String, String)>) -> Result<Json<Session>, Failure> {
    let (allowed, owner) = open(&call, &workspace).await?;
    let session = allowed.data.get_session(session_id(&session)?, owner.as_deref()).await?;
    Ok(Json(session.ok_or_else(unknown)?))
}

/// Deletes a conversation with its messages. Its turns stay in the bill, without text.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/sessions/{sessionId}", tag = "sessions", operation_id = "deleteSession",
    params(("workspaceId" = String, Path, description = "The workspace"), ("sessionId" = String, Path, format = "uuid", description = "The session")),
    responses((status = 204, description = "It is deleted"))
)]
pub async fn delete<H: TurnHost>(
    call: Call<H>,
    Params((workspace, session)): Params<(String, String)>,
) -> Result<http::StatusCode, Failure> {
    // Whoever may start a conversation may delete it.
    let allowed = call.tenant(&workspace, Permission::AgentInvoke).await?;
    let (_, owner) = open(&call, &workspace).await?;
    if allowed.data.delete_session(session_id(&session)?, owner.as_deref()).await? {
        Ok(http::StatusCode::NO_CONTENT)
    } else {
        Err(unknown().into())
    }
}

/// Lists a conversation's messages, oldest first.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/sessions/{sessionId}/messages", tag = "sessions", operation_id = "listMessages",
    params(
        ("workspaceId" = String, Path, description = "The workspace"),
        ("sessionId" = String, Path, format = "uuid", description = "The session"),
        ("after" = Option<String>, Query, pattern = "^[0-9]{1,18}$", description = "The `nextCursor` of the page before"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 200, description = "How many; 50 unless told"),
    ),
    responses((status = 200, description = "A page", body = MessagePage))
)]
pub async fn messages<H: TurnHost>(
    call: Call<H>,
    Params((workspace, session)): Params<(String, String)>,
    request: Unread,
) -> Result<Json<PageBody<StoredMessage>>, Failure> {
    let (allowed, owner) = open(&call, &workspace).await?;
    let page: PageQuery = request.query()?;
    let cursor = |a: &str| a.parse::<i64>().ok().filter(|seq| (0..1_000_000_000_000_000_000).contains(seq));
    let after = page.after.as_deref().map(|a| cursor(a).ok_or_else(|| Problem::field("after", "a nextCursor of this list"))).transpose()?;
    let page = allowed.data.list_messages(session_id(&session)?, owner.as_deref(), after, page.limit()?).await?;
    Ok(Json(PageBody::from_page(page.ok_or_else(unknown)?, |message| message)))
}
