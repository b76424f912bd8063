//! The roles of a workspace: what they allow, and who may say so.
//!
//! Nobody gives a role more than they have, else whoever may define roles could do everything. What a role may do when its workspace says nothing of it
//! any more is not known before it is so (its plan's template may say it): so that is for owners and the operator to bring about.

use crate::rules::{self, BodyView};
use astra_documents::config::RoleName;
use astra_host::fields::WorkspacePath;
use astra_host::paging::PageBody;
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::permission::{Rules, Source};
use astra_kernel::{Access, Code, Permission, Problem, Role};
use astra_store::roles::RoleRemoved;
use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// A role's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct RolePath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub(crate) workspace_id: String,
    /// The role's name.
    #[param(value_type = RoleName)]
    role: String,
}

impl RolePath {
    /// The role's name.
    ///
    /// # Errors
    /// `422` when no role can have it.
    pub(crate) fn role(&self) -> Result<RoleName, Problem> {
        RoleName::try_from(self.role.clone()).map_err(|rule| Problem::field("role", rule))
    }
}

/// A role and what it may do: what `allow` lists and `deny` does not. Nothing else.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = RoleRules)]
pub(crate) struct RoleView {
    /// The role's name.
    role: String,
    /// Permissions, or families of them (`memory:*`).
    allow: Vec<String>,
    /// Permissions or families of them that the role has not, whatever `allow` lists.
    deny: Vec<String>,
    /// Where that is said: `default` (as every workspace has it), `template` (the workspace's plan), `workspace`.
    #[schema(value_type = RoleSource)]
    source: Source,
}

/// Where a role's rules are said.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only described")]
pub(crate) enum RoleSource {
    /// Those that every workspace has.
    Default,
    /// The template of the workspace's plan.
    Template,
    /// The workspace itself.
    Workspace,
}

impl From<Access> for RoleView {
    fn from(access: Access) -> Self {
        let Access { role, rules, source } = access;
        let Rules { allow, deny } = rules.unwrap_or_else(|| {
            let allow = Access::default_of(&role).permissions(None).map(|permission| permission.as_str().to_owned()).collect();
            Rules { allow, deny: Vec::new() }
        });
        Self { role, allow, deny, source }
    }
}

/// The roles that members of this workspace can have. All on one page.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/roles", tag = "roles", operation_id = "listRoles", params(WorkspacePath),
    responses((status = 200, description = "Roles by name", body = PageBody<RoleView>)),
)]
pub(crate) async fn list<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<PageBody<RoleView>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::RoleRead).await?;
    let roles = data.list_roles().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody { data: roles.into_iter().map(RoleView::from).collect(), next_cursor: None }))
}

/// What a role may do.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/roles/{role}", tag = "roles", operation_id = "readRole", params(RolePath),
    responses((status = 200, description = "The role", body = RoleView)),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<RolePath>) -> Result<Json<RoleView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::RoleRead).await?;
    let role = path.role()?;
    let access = data.get_role(role.as_str()).await?.ok_or_else(|| Problem::not_found("role"))?;
    Ok(Json(access.into()))
}

/// How many roles a workspace has at most. (Those that come at the same moment are not counted.)
const MAX_ROLES: usize = 100;

/// Says what a role may do, in place of all that was said before. It holds from the next request on, for who has the role already.
#[utoipa::path(
    put, path = "/workspaces/{workspaceId}/roles/{role}", tag = "roles", operation_id = "putRole", params(RolePath),
    request_body(
        content(
            (BodyView = "application/json"), (BodyView = "application/yaml"), (BodyView = "text/yaml"), (BodyView = "application/x-yaml"),
        ),
        description = "At most 64 KiB",
    ),
    responses(
        (status = 200, description = "The role", body = RoleView),
        (status = 409, description = "The workspace has as many roles as it can have"),
    ),
)]
pub(crate) async fn put<H: Host>(call: Call<H>, Params(path): Params<RolePath>, request: Unread) -> Result<Json<RoleView>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::RoleWrite).await?;
    let role = path.role()?;
    let rules = rules::read(request, &role).await?;
    let refused = |problem| call.refused(&allowed, Permission::RoleWrite, problem);
    over_owners(&allowed, &role).map_err(refused)?;
    let wanted = Access { role: role.as_str().to_owned(), rules: Some(rules), source: Source::Workspace };
    allowed.gives_no_more(&wanted, None).map_err(refused)?;
    let known = allowed.data.list_roles().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    if known.len() >= MAX_ROLES && known.iter().all(|access| access.role != wanted.role) {
        return Err(Problem::new(Code::Conflict, format!("A workspace has {MAX_ROLES} roles at most. Delete one first.")).into());
    }
    let is_stored = match &wanted.rules {
        Some(rules) => allowed.data.put_role(role.as_str(), rules, call.host.now()).await?,
        None => false,
    };
    if is_stored { Ok(Json(wanted.into())) } else { Err(Problem::not_found("workspace").into()) }
}

/// Takes back what the workspace has said of a role: from now on it may do what the plan's template says, else what it may do in every workspace. A role that
/// only this workspace had is gone.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/roles/{role}", tag = "roles", operation_id = "deleteRole", params(RolePath),
    responses((status = 204, description = "Taken back"), (status = 409, description = "Members have it, and nothing else says what it may do")),
)]
pub(crate) async fn delete<H: Host>(call: Call<H>, Params(path): Params<RolePath>) -> Result<StatusCode, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::RoleWrite).await?;
    let role = path.role()?;
    let refused = |problem| call.refused(&allowed, Permission::RoleWrite, problem);
    if !allowed.is_over_owners() {
        let detail = "What is in its place may allow more than you may give: this is for the workspace's owners and the operator.";
        return Err(refused(Problem::new(Code::Forbidden, detail)));
    }
    allowed.gives_no_more(&Access::default_of(role.as_str()), None).map_err(refused)?;
    match allowed.data.delete_role(role.as_str()).await? {
        RoleRemoved::Done => Ok(StatusCode::NO_CONTENT),
        RoleRemoved::NotFound => Err(Problem::not_found("role of the workspace's own").into()),
        RoleRemoved::InUse => {
            let detail = "Members have this role, and nothing else says what it may do. Give them another one first.";
            Err(Problem::new(Code::Conflict, detail).into())
        }
    }
}

/// What owners may do is for them and the operator to say.
fn over_owners<H>(allowed: &Allowed<'_, H>, role: &RoleName) -> Result<(), Problem> {
    if role.as_str() == Role::Owner.as_str() && !allowed.is_over_owners() {
        return Err(Problem::new(Code::Forbidden, "What owners may do is for the workspace's owners and the operator to say."));
    }
    Ok(())
}
