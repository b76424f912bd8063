//! Workspaces: made once, changed with care, deleted whole.

use crate::fields::{BasisPoints, Change};
use crate::limits::{LimitsBody, LimitsPatch, LimitsView};
use crate::restrictions::RestrictionsBody;
use astra_host::fields::{Text, WorkspacePath, present};
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, CounterUnreachable, Failure, Host};
use astra_kernel::{Claims, Code, Limits, Permission, Problem, Timestamp, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use astra_store::workspaces::{Created, Erased, Kept, NewWorkspace, Patched, Removed, Workspace, WorkspacePatch};
use astra_store::{StoreError, Tenant};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION};
use serde::{Deserialize, Serialize};

/// A workspace.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Workspace)]
pub(crate) struct WorkspaceView {
    /// Its id.
    #[schema(value_type = String)]
    id: WorkspaceId,
    /// Its name for people.
    display_name: String,
    /// Its plan, which names its agent template.
    plan: String,
    /// The user who owns it.
    owner_id: String,
    /// Its limits.
    limits: LimitsView,
    /// Which models it may use.
    restrictions: RestrictionsBody,
    /// Its time zone, an IANA name: days and months of its limits are this zone's.
    time_zone: String,
    /// `active`, `provisioning` or `deleting`.
    status: String,
    /// What it is charged more than what it costs, in hundredths of a percent, in place of what its plan says. The operator is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = BasisPoints)]
    markup_basis_points: Option<i64>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last changed.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Workspace> for WorkspaceView {
    fn from(workspace: Workspace) -> Self {
        let Workspace {
            id,
            display_name,
            plan,
            owner_id,
            limits,
            restrictions,
            time_zone,
            status,
            markup_basis_points,
            created_at,
            updated_at,
        } = workspace;
        let (limits, restrictions) = (limits.into(), restrictions.into());
        Self { id, display_name, plan, owner_id, limits, restrictions, time_zone, status, markup_basis_points, created_at, updated_at }
    }
}

impl WorkspaceView {
    /// As somebody is told: what the operator earns is the operator's to know.
    fn told_to(workspace: Workspace, who: &Claims) -> Self {
        let all = Self::from(workspace);
        if who.is_operator() { all } else { Self { markup_basis_points: None, ..all } }
    }
}

/// A workspace to make.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewWorkspace)]
pub(crate) struct CreateBody {
    /// Its id.
    #[schema(value_type = String, min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    id: WorkspaceId,
    /// Its name for people.
    display_name: Text,
    /// Its plan. The plan's template may come later.
    plan: Text,
    /// The user who becomes its first owner.
    owner_id: Text,
    /// Its limits.
    #[serde(default)]
    #[schema(required = false)]
    limits: LimitsBody,
    /// Its time zone, an IANA name such as `Europe/Berlin`; UTC unless told.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    time_zone: Option<Text>,
}

/// One page of workspaces.
#[utoipa::path(
    get, path = "/workspaces", tag = "workspaces", operation_id = "listWorkspaces",
    params(
        (
            "after" = Option<String>, Query,
            description = "The `nextCursor` of the page before",
            min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        ),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Workspaces by id", body = PageBody<WorkspaceView>)),
)]
pub(crate) async fn list<H: Host>(call: Call<H>, request: Unread) -> Result<Json<PageBody<WorkspaceView>>, Failure> {
    let operator = call.operator(Permission::WorkspaceList).await?;
    let page: PageQuery = request.query()?;
    let after = page.after.as_ref().map(|after| WorkspaceId::try_from(after.clone())).transpose();
    let after = after.map_err(|rule| Problem::field("after", format!("not a cursor of this list: {rule}")))?;
    let workspaces = operator.list_workspaces(after.as_ref().map(WorkspaceId::as_str), page.limit()?).await?;
    Ok(Json(PageBody::from_page(workspaces, WorkspaceView::from)))
}

/// What a body means, whatever its order of keys and however its numbers are written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CanonicalBody<'a> {
    id: &'a WorkspaceId,
    display_name: &'a str,
    plan: &'a str,
    owner_id: &'a str,
    limits: Limits,
    /// Not there when it was not said: a body from before there were time zones is the same body still.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'a str>,
}

/// Makes a workspace with its memory, its first owner and its quota. The same body again gives the same workspace.
#[utoipa::path(
    post, path = "/workspaces", tag = "workspaces", operation_id = "createWorkspace", request_body = CreateBody,
    responses(
        (status = 201, description = "Made", body = WorkspaceView, headers(("Location" = String, description = "The workspace's path"))),
        (status = 200, description = "Made before, by the same body", body = WorkspaceView),
        (status = 409, description = "Made before, by another body"),
    ),
)]
pub(crate) async fn create<H: Host>(call: Call<H>, request: Unread) -> Result<Response, Failure> {
    let claims = call.operator_claims(Permission::WorkspaceList).await?;
    let CreateBody { id, display_name, plan, owner_id, limits, time_zone } = request.json().await?;
    call.trace.workspace(&id);
    let limits = Limits::from(limits);
    let (display_name, plan, owner_id) = (display_name.as_str(), plan.as_str(), owner_id.as_str());
    let time_zone = time_zone.as_ref().map(Text::as_str);
    let body = serde_json::to_string(&CanonicalBody { id: &id, display_name, plan, owner_id, limits, time_zone })
        .map_err(|error| Failure::internal(format!("a workspace's body: {error}")))?;
    let new = NewWorkspace { display_name, plan, owner_id, limits, time_zone, body: &body, now: call.host.now() };
    match Tenant::open(&call.host, id).by(call.actor(&claims)?).create_workspace(&new).await? {
        Created::New(workspace) => {
            let location = format!("/workspaces/{}", workspace.id);
            Ok((StatusCode::CREATED, [(LOCATION, location)], Json(WorkspaceView::from(workspace))).into_response())
        }
        Created::Same(workspace) => Ok(Json(WorkspaceView::from(workspace)).into_response()),
        Created::TimeZoneUnknown => Err(time_zone_unknown().into()),
        Created::Conflict => {
            let detail =
                "A workspace with this id was made by another body. PATCH /workspaces/{workspaceId} changes it; nothing was changed now.";
            Err(Problem::new(Code::Conflict, detail).into())
        }
    }
}

/// A workspace.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}", tag = "workspaces", operation_id = "readWorkspace", params(WorkspacePath),
    responses((status = 200, description = "The workspace", body = WorkspaceView)),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<WorkspaceView>, Failure> {
    let Allowed { claims, data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceRead).await?;
    Ok(Json(WorkspaceView::told_to(existing(&data).await?, &claims)))
}

/// What to change about a workspace. At least one.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = WorkspaceChange, min_properties = 1)]
pub(crate) struct PatchBody {
    /// Its name for people.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    display_name: Option<Text>,
    /// Its plan. The operator's to change.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    plan: Option<Text>,
    /// Its time zone, an IANA name. The operator's to change: it moves the days and months of its limits.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    time_zone: Option<Text>,
    /// Its limits. The operator's to change. What is used already stays used.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    limits: Option<LimitsPatch>,
    /// Which models it may use, in place of what was said before. The operator's to change.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    restrictions: Option<RestrictionsBody>,
    /// What it is charged more than what it costs, in hundredths of a percent, in place of what its plan says; null: as its plan says. The operator's to change.
    #[serde(default)]
    #[schema(value_type = Option<BasisPoints>)]
    markup_basis_points: Change<BasisPoints>,
}

/// Changes a workspace. Owners and admins change its name; plan and limits are the operator's.
#[utoipa::path(
    patch, path = "/workspaces/{workspaceId}", tag = "workspaces", operation_id = "changeWorkspace",
    params(WorkspacePath), request_body = PatchBody,
    responses((status = 200, description = "The workspace as it is now", body = WorkspaceView)),
)]
pub(crate) async fn change<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<WorkspaceView>, Failure> {
    let Allowed { claims, data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceWrite).await?;
    let PatchBody { display_name, plan, time_zone, limits, restrictions, markup_basis_points } = request.json().await?;
    let markup_basis_points = markup_basis_points.into_stored(|BasisPoints(points)| points);
    let is_operators = plan.is_some() || limits.is_some() || time_zone.is_some() || restrictions.is_some() || markup_basis_points.is_some();
    if is_operators && !claims.is_operator() {
        return Err(Problem::new(
            Code::Forbidden,
            "Plan, limits, restrictions, timeZone and markupBasisPoints are the operator's to change; displayName is yours.",
        )
        .into());
    }
    if display_name.is_none() && !is_operators {
        let detail = "nothing to change: name displayName, plan, timeZone, limits, restrictions or markupBasisPoints";
        return Err(Problem::field("/", detail).into());
    }
    let changes = WorkspacePatch {
        display_name: display_name.map(Text::into_string),
        plan: plan.map(Text::into_string),
        time_zone: time_zone.map(Text::into_string),
        limits: limits.map(LimitsPatch::into_stored),
        restrictions: restrictions.map(Into::into),
        markup_basis_points,
    };
    let changes_limits = changes.limits.is_some() || changes.time_zone.is_some() || changes.plan.is_some();
    let workspace = match data.patch_workspace(&changes, call.host.now()).await? {
        Patched::Ok(workspace) => workspace,
        Patched::NotFound => return Err(Problem::not_found("workspace").into()),
        Patched::TimeZoneUnknown => return Err(time_zone_unknown().into()),
    };
    if changes_limits {
        tell_counter(&call.host, data.workspace()).await;
    }
    Ok(Json(WorkspaceView::told_to(*workspace, &claims)))
}

/// The limits of a workspace, or of its agents, are others: running turns keep to them from now on. Should the counter not hear of it, it reads them within ten seconds of turns that run.
pub(crate) async fn tell_counter<H: Host>(host: &H, workspace: &WorkspaceId) {
    let _ = host.ask(workspace, &Ask::Status).await;
}

fn time_zone_unknown() -> Problem {
    Problem::field("/timeZone", "not a time zone's name in the IANA database, such as Europe/Berlin or UTC")
}

/// What was removed with a workspace, and what stays.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ErasedWorkspace)]
pub(crate) struct ErasedView {
    /// The workspace.
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    /// How many of each were removed.
    removed: Removed,
    /// What stays.
    kept: Kept,
}

/// Deletes a workspace with everything it owns, and says what that was. Its ledger stays, as the bill's record, without who asked.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}", tag = "workspaces", operation_id = "deleteWorkspace", params(WorkspacePath),
    responses((status = 200, description = "Deleted", body = ErasedView)),
)]
pub(crate) async fn delete<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<ErasedView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceDelete).await?;
    let erased = data.delete_workspace().await?;
    // Also when it was gone already: an earlier try may have ended here.
    match call.host.ask(data.workspace(), &Ask::Forget).await? {
        Answer::Forgotten => {
            let Erased { removed, kept } = erased.ok_or_else(|| Problem::not_found("workspace"))?;
            Ok(Json(ErasedView { workspace_id: data.workspace().clone(), removed, kept }))
        }
        _ => Err(CounterUnreachable.into()),
    }
}

/// Where the next page of an export begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportQuery {
    after: Option<String>,
    limit: Option<u32>,
}

/// One page of all that the workspace has, as JSON lines `{type, ..}`: the workspace, members, roles, agents, names of secrets, conversations, turns, the ledger,
/// grants, memories, documents, and the parts of their texts (`documentPart`: `document_id`, part from 0, body; of a PDF base64), what memories have replaced, memory's settings, webhooks
/// without their secrets. A page also ends where it has two megabytes. The header `Next-Cursor` says where the next page begins; the last page has none.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/export", tag = "workspaces", operation_id = "exportWorkspace",
    params(
        WorkspacePath,
        ("after" = Option<String>, Query, description = "The `Next-Cursor` of the page before", pattern = "^([0-9a-f]{2})+$"),
        ("limit" = Option<u32>, Query, description = "How many lines at most; 1000 unless told", minimum = 1, maximum = 1000),
    ),
    responses((status = 200, description = "Lines", body = String, content_type = "application/x-ndjson")),
)]
pub(crate) async fn export<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceExport).await?;
    let ExportQuery { after, limit } = request.query()?;
    let limit = limit.unwrap_or(1000);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::field("limit", "a whole number from 1 to 1000").into());
    }
    let no_cursor = || Problem::field("after", "a Next-Cursor of this export");
    let after =
        after.map(|after| hex::decode(after).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(no_cursor)).transpose()?;
    let page = match data.export(after.as_deref(), limit).await {
        // A data exception: what stands in the cursor is no key. Nothing else that is sent gets there.
        Err(StoreError::Fault(state)) if state.starts_with("22") => return Err(no_cursor().into()),
        page => page?.ok_or_else(|| Problem::not_found("workspace"))?,
    };
    let mut response = ([(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")], page.lines).into_response();
    if let Some(next) = page.next {
        response
            .headers_mut()
            .insert("next-cursor", HeaderValue::try_from(hex::encode(next)).map_err(|error| Failure::internal(error.to_string()))?);
    }
    Ok(response)
}

/// The workspace, for what needs it to exist.
pub(crate) async fn existing<H: Host>(data: &Tenant<'_, H>) -> Result<Workspace, Failure> {
    Ok(data.get_workspace().await?.ok_or_else(|| Problem::not_found("workspace"))?)
}
