//! Members of a workspace and their roles. A workspace keeps at least one owner, and who is an owner is for owners (and the operator) to say.

use crate::workspaces::existing;
use astra_documents::config::RoleName;
use astra_host::fields::{Text, WorkspacePath};
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::{Access, Code, Permission, Problem, Role};
use astra_store::Tenant;
use astra_store::members::{Member, MemberOutcome};
use axum::Json;
use http::StatusCode;
use serde::Deserialize;

/// A member's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct MemberPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The user's id, as in the tokens' `sub`.
    #[param(value_type = Text)]
    user_id: String,
}

/// What to make of a user.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = MemberChange)]
pub(crate) struct MemberBody {
    /// Their role.
    role: RoleName,
}

/// One page of a workspace's members.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/members", tag = "members", operation_id = "listMembers",
    params(
        WorkspacePath,
        ("after" = Option<Text>, Query, description = "The `nextCursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Members by user id", body = PageBody<Member>)),
)]
pub(crate) async fn list<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<Member>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::MemberRead).await?;
    let page: PageQuery = request.query()?;
    let after = page.after.as_ref().map(|after| Text::of_path("after", after.clone())).transpose()?;
    let members = data.list_members(after.as_ref().map(Text::as_str), page.limit()?).await?;
    let members = members.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(members, |member| member)))
}

/// Adds a member or changes a member's role.
#[utoipa::path(
    put, path = "/workspaces/{workspaceId}/members/{userId}", tag = "members", operation_id = "putMember",
    params(MemberPath), request_body = MemberBody,
    responses(
        (status = 200, description = "The member as they are now", body = Member),
        (status = 409, description = "They are the workspace's last owner"),
    ),
)]
pub(crate) async fn put<H: Host>(call: Call<H>, Params(path): Params<MemberPath>, request: Unread) -> Result<Json<Member>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemberWrite).await?;
    let user = Text::of_path("userId", path.user_id)?;
    let MemberBody { role } = request.json().await?;
    let by_owner = allowed.is_over_owners();
    let refused = |problem| call.refused(&allowed, Permission::MemberWrite, problem);
    if role.as_str() == Role::Owner.as_str() && !by_owner {
        return Err(refused(owners_only()));
    }
    let given = known_role(&allowed.data, &role).await?;
    allowed.gives_no_more(&given, None).map_err(refused)?;
    match allowed.data.put_member(user.as_str(), role.as_str(), by_owner, call.host.now()).await? {
        MemberOutcome::Ok { member: Some(member) } => Ok(Json(member)),
        MemberOutcome::Ok { member: None } => Err(Failure::internal("member_put gave no member")),
        MemberOutcome::NotFound => Err(Problem::not_found("workspace").into()),
        MemberOutcome::LastOwner => Err(last_owner()),
        MemberOutcome::OwnersOnly => Err(call.refused(&allowed, Permission::MemberWrite, owners_only())),
    }
}

/// Removes a member. Their tokens are refused from now on.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/members/{userId}", tag = "members", operation_id = "deleteMember", params(MemberPath),
    responses((status = 204, description = "Removed"), (status = 409, description = "They are the workspace's last owner")),
)]
pub(crate) async fn delete<H: Host>(call: Call<H>, Params(path): Params<MemberPath>) -> Result<StatusCode, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemberWrite).await?;
    let user = Text::of_path("userId", path.user_id)?;
    match allowed.data.delete_member(user.as_str(), allowed.is_over_owners()).await? {
        MemberOutcome::Ok { .. } => Ok(StatusCode::NO_CONTENT),
        MemberOutcome::NotFound => Err(Problem::not_found("member").into()),
        MemberOutcome::LastOwner => Err(last_owner()),
        MemberOutcome::OwnersOnly => Err(call.refused(&allowed, Permission::MemberWrite, owners_only())),
    }
}

/// What a role may do that is to be given.
///
/// # Errors
/// `422` when there is no such role, `404` when there is no such workspace.
pub(crate) async fn known_role<H: Host>(data: &Tenant<'_, H>, role: &RoleName) -> Result<Access, Failure> {
    if let Some(access) = data.get_role(role.as_str()).await? {
        return Ok(access);
    }
    // Only the operator comes this far with a workspace that does not exist.
    existing(data).await?;
    Err(Problem::field("/role", format!("there is no role {} here: PUT /workspaces/{{id}}/roles/{{role}} defines it", role.as_str()))
        .into())
}

fn owners_only() -> Problem {
    Problem::new(Code::Forbidden, "Who is an owner is for the workspace's owners and the operator to change.")
}

fn last_owner() -> Failure {
    Problem::new(Code::Conflict, "They are the workspace's last owner. Make another member owner first.").into()
}
