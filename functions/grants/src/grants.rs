//! Grants: a workspace lets another one use one of its agents.
//!
//! Giving and revoking is the granter's, and so is paying for it (`payer`); the receiver may give a grant back, and says whether a granted agent may stand in for its plan's agent of the same id. Whether the
//! other workspace exists is told to nobody. Revoking is done when the answer is there: turns that run with the agent have been told to stop, and none begins any more. If the
//! counter cannot be told (503), no new turn begins all the same; sent again, it tells those that run.

use astra_host::fields::WorkspacePath;
use astra_host::paging::PageBody;
use astra_host::routes::{Params, Unread, word};
use astra_host::{Allowed, Call, CounterUnreachable, Failure, Host};
use astra_kernel::money::UsdAmount;
use astra_kernel::{AgentId, NanoUsd, Permission, Problem, Timestamp, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use astra_store::grants::{Direction, Grant, NewGrant};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A grant to give.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewGrant)]
pub(crate) struct GrantBody {
    /// Who may use the agent.
    #[schema(value_type = String, min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    receiving_workspace_id: WorkspaceId,
    /// The agent: one of this workspace's own, or of its plan. What was granted to it cannot be passed on.
    #[schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
    agent_id: AgentId,
    /// No sub-agents and no tools that write; true unless told.
    #[serde(default = "yes")]
    #[schema(default = true)]
    readonly: bool,
    /// When it ends by itself.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Whose budget pays: the receiver's unless told. Where the granter's does, its counter holds and its ledger has the turn; the session and what is said are the receiver's all
    /// the same.
    #[serde(default, deserialize_with = "word")]
    #[schema(required = false)]
    payer: Payer,
    /// What it may cost who pays in a month, in dollars.
    #[serde(default)]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 9_007_199)]
    max_cost_usd_per_month: Option<UsdAmount>,
    /// What reaches across workspaces: `memory:cross-workspace-read` shows the agent's turns what this workspace remembers (nobody's own memories) and what its documents say.
    #[serde(default)]
    #[schema(max_items = 1)]
    allow: Vec<String>,
}

/// The one permission that reaches across workspaces.
const CROSS_READ: &str = "memory:cross-workspace-read";

fn yes() -> bool {
    true
}

/// Whose budget pays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Payer {
    /// The workspace that uses the agent.
    #[default]
    Receiver,
    /// The workspace whose agent it is.
    Granter,
}

impl Payer {
    fn as_str(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Granter => "granter",
        }
    }
}

/// A grant.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Grant)]
pub(crate) struct GrantView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// Whose agent it is.
    #[schema(value_type = String)]
    granting_workspace_id: WorkspaceId,
    /// Who may use it.
    #[schema(value_type = String)]
    receiving_workspace_id: WorkspaceId,
    /// The agent, by its id at the granter's. The receiver asks for it by this id or as `GRANTER/AGENT`.
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// No sub-agents and no tools that write.
    readonly: bool,
    /// Whose budget pays: `receiver` or `granter`.
    payer: String,
    /// What it may cost who pays in a month, in nano-dollars; null: as much as their own limits allow.
    #[schema(value_type = Option<i64>)]
    max_cost_nano_usd_per_month: Option<NanoUsd>,
    /// Permissions that reach across.
    allow: Vec<String>,
    /// Who gave it: told to the granter.
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    /// When it was given.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// When it was revoked, or given back.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// When the receiver has agreed that it stands in for its plan's agent of the same id: told to the receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    accepted_at: Option<Timestamp>,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> Self {
        let Grant {
            id,
            granting_workspace_id,
            receiving_workspace_id,
            agent_id,
            readonly,
            payer,
            max_cost_nano_usd_per_month,
            allow,
            created_by,
            created_at,
            expires_at,
            revoked_at,
            accepted_at,
        } = grant;
        Self {
            id,
            granting_workspace_id,
            receiving_workspace_id,
            agent_id,
            readonly,
            payer,
            max_cost_nano_usd_per_month,
            allow,
            created_by,
            created_at,
            expires_at,
            revoked_at,
            accepted_at,
        }
    }
}

/// A grant's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct GrantPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The grant.
    #[param(format = "uuid")]
    grant_id: String,
}

impl GrantPath {
    fn id(&self) -> Result<Uuid, Problem> {
        self.grant_id.parse().map_err(|_| unknown())
    }
}

fn unknown() -> Problem {
    Problem::not_found("grant in force")
}

/// Which page of which grants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[serde(default = "given")]
    direction: Direction,
    after: Option<Uuid>,
    limit: Option<u32>,
}

fn given() -> Direction {
    Direction::Given
}

/// Gives a grant: another workspace may talk to one of this one's agents from now on.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/grants", tag = "grants", operation_id = "giveGrant", params(WorkspacePath), request_body = GrantBody,
    responses((status = 201, description = "The grant", body = GrantView)),
)]
pub(crate) async fn give<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::GrantWrite).await?;
    let Allowed { claims, data, .. } = &allowed;
    let body: GrantBody = request.json().await?;
    let GrantBody { receiving_workspace_id, agent_id, readonly, expires_at, payer, max_cost_usd_per_month, allow } = body;
    let now = call.host.now();
    if receiving_workspace_id == *data.workspace() {
        return Err(Problem::field("/receivingWorkspaceId", "another workspace: its own agents need no grant").into());
    }
    if !agent_id.is_own() {
        return Err(Problem::field("/agentId", "an agent of this workspace or its plan: what was granted to it cannot be passed on").into());
    }
    if expires_at.is_some_and(|expires| expires <= now) {
        return Err(Problem::field("/expiresAt", "a time to come").into());
    }
    if max_cost_usd_per_month.as_ref().is_some_and(|UsdAmount(cost)| *cost < NanoUsd::ZERO) {
        return Err(Problem::field("/maxCostUsdPerMonth", "an amount here is not negative").into());
    }
    if allow.len() > 1 || allow.iter().any(|entry| entry != CROSS_READ) {
        return Err(Problem::field("/allow", format!("only {CROSS_READ} reaches across workspaces")).into());
    }
    // Nobody shows what they may not read.
    if !allow.is_empty() {
        call.require(&allowed, Permission::MemoryRead)?;
    }
    let grant = NewGrant {
        id: call.host.new_id(),
        receiving_workspace_id: &receiving_workspace_id,
        agent_id: &agent_id,
        readonly,
        payer: payer.as_str(),
        max_cost_nano_usd_per_month: max_cost_usd_per_month.map(|UsdAmount(cost)| cost),
        allow: &allow,
        expires_at,
        created_by: &claims.sub,
        now,
    };
    let grant = data.give_grant(&grant).await?.ok_or_else(|| Problem::not_found("agent of this workspace or its plan"))?;
    Ok((StatusCode::CREATED, Json(GrantView::from(grant))).into_response())
}

/// One page of the grants that this workspace has given, or has received; those that are in force no longer, too.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/grants", tag = "grants", operation_id = "listGrants",
    params(
        WorkspacePath,
        ("direction" = Option<String>, Query, description = "`given` (unless told) or `received`", pattern = "^(given|received)$"),
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", format = "uuid"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Grants in the order that they were given", body = PageBody<GrantView>)),
)]
pub(crate) async fn list<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<GrantView>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::GrantRead).await?;
    let ListQuery { direction, after, limit } = request.query()?;
    let limit = astra_host::paging::PageQuery { after: None, limit }.limit()?;
    let page = data.list_grants(direction, after, limit).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(page, GrantView::from)))
}

/// Revokes a grant that this workspace has given, or gives back one that it has received. A running answer ends at its next sign of life.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/grants/{grantId}", tag = "grants", operation_id = "revokeGrant", params(GrantPath),
    responses((status = 204, description = "It is in force no longer")),
)]
pub(crate) async fn revoke<H: Host>(call: Call<H>, Params(path): Params<GrantPath>) -> Result<StatusCode, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::GrantWrite).await?;
    let revoked = data.revoke_grant(path.id()?, call.host.now()).await?.ok_or_else(unknown)?;
    match call.host.ask(&revoked.counted_by, &Ask::Withdraw(revoked.agent_id)).await? {
        Answer::Withdrawn => Ok(StatusCode::NO_CONTENT),
        _ => Err(CounterUnreachable.into()),
    }
}

/// Agrees that a received grant stands in for the agent of the same id that this workspace's plan has. Without it the granted agent is asked for as `GRANTER/AGENT`.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/grants/{grantId}/accept", tag = "grants", operation_id = "acceptGrant", params(GrantPath),
    responses((status = 200, description = "The grant as it is now", body = GrantView)),
)]
pub(crate) async fn accept<H: Host>(call: Call<H>, Params(path): Params<GrantPath>) -> Result<Json<GrantView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::GrantWrite).await?;
    let grant = data.accept_grant(path.id()?, call.host.now()).await?.ok_or_else(unknown)?;
    Ok(Json(grant.into()))
}
