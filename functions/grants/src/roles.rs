//! The roles of a workspace.

use crate::fields::{RolePath, WorkspacePath};
use astra_host::paging::PageBody;
use astra_host::routes::Params;
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::permission::{Rules, Source};
use astra_kernel::{Access, Permission, Problem};
use axum::Json;
use serde::Serialize;

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
