//! Explains a decision: may they do this, by which entry of which list, said where. It is decided by the same code as every request
//! ([`Access::judge`]); this only tells what that found.

use crate::roles::RoleSource;
use astra_documents::config::{RoleName, Scope};
use astra_host::fields::{Text, WorkspacePath, present};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::permission::{NAMES, Source, Verdict, covers};
use astra_kernel::{Access, Permission, Problem};
use astra_store::roles::Standing;
use axum::Json;
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = AuthorizeQuestion)]
pub(crate) struct Question {
    /// The permission.
    #[schema(value_type = PermissionName)]
    permission: Asked,
    /// Who would do it: a user's id. The caller unless told.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    subject: Option<Text>,
    /// In place of `subject`: what a member with this role may do.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    role: Option<RoleName>,
    /// What their token would be narrowed to. (The caller's own token's scope counts besides when they ask for themselves.)
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    scope: Option<Scope>,
}

/// A permission that is asked for.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Asked(Permission);

impl TryFrom<String> for Asked {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse().map(Self).map_err(|_| format!("not a permission; there are {NAMES}"))
    }
}

/// For the documentation: the permissions that there are.
pub(crate) struct PermissionName;

impl utoipa::PartialSchema for PermissionName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
        text.enum_values(Some(Permission::ALL.map(Permission::as_str))).description(Some("One thing that can be allowed")).into()
    }
}

impl utoipa::ToSchema for PermissionName {
    fn name() -> std::borrow::Cow<'static, str> {
        "Permission".into()
    }
}

/// A decision, and why.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = Decision)]
pub(crate) struct DecisionView {
    /// Whether they may.
    allowed: bool,
    /// What was asked for.
    permission: &'static str,
    /// Who was asked about; absent when it was a role.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    subject: Option<String>,
    /// The role that decided; null for who is no member.
    #[schema(required = true)]
    role: Option<String>,
    /// Why.
    decision: Decision,
    /// The entry of the role's lists that decided, if one did.
    #[schema(required = true)]
    rule: Option<String>,
    /// The list that the entry is in.
    #[schema(required = true)]
    list: Option<List>,
    /// Where the role's rules are said; null for who is no member.
    #[schema(value_type = Option<RoleSource>, required = true)]
    source: Option<Source>,
}

/// Why something is allowed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = DecisionReason)]
enum Decision {
    /// The role lists it.
    Allowed,
    /// The role denies it, whatever else it lists.
    Denied,
    /// The role does not list it.
    Unlisted,
    /// The role lists it, the token's scope does not.
    Scope,
    /// They are no member of the workspace.
    NoMember,
}

/// One of a role's two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RoleList)]
enum List {
    /// What it may do.
    Allow,
    /// What it may not.
    Deny,
}

/// Whether somebody may do something, and why. Everybody may ask about themselves; about others and about roles who has `role:read`.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/authorize", tag = "roles", operation_id = "authorize", params(WorkspacePath), request_body = Question,
    responses((status = 200, description = "The decision", body = DecisionView)),
)]
pub(crate) async fn decide<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<DecisionView>, Failure> {
    let allowed = call.member(&path.workspace_id).await?;
    let Question { permission: Asked(permission), subject, role, scope } = request.json().await?;
    let scopes = [scope.map(|scope| scope.0), None];
    let Allowed { claims, access, data } = &allowed;
    // Members' workspaces exist. An operator may name any.
    if claims.is_operator() && data.get_workspace().await?.is_none() {
        return Err(Problem::not_found("workspace").into());
    }
    let of_others = || call.require(&allowed, Permission::RoleRead);
    let decision = match (subject, role) {
        (Some(_), Some(_)) => return Err(Problem::field("/role", "either a subject or a role").into()),
        (None, Some(role)) => {
            of_others()?;
            let access = data.get_role(role.as_str()).await?;
            let access = access.ok_or_else(|| Problem::field("/role", format!("there is no role {} here", role.as_str())))?;
            judge(permission, None, &access, &scopes)
        }
        (Some(subject), None) if subject.as_str() != claims.sub => {
            of_others()?;
            let subject = subject.as_str();
            match data.standing(subject, "").await? {
                Standing::Member(access) => judge(permission, Some(subject), &access, &scopes),
                Standing::NoMember | Standing::TokenRevoked => no_member(permission, subject),
            }
        }
        (_, None) => {
            let [asked, _] = scopes;
            judge(permission, Some(&claims.sub), access, &[asked, claims.scope.clone()])
        }
    };
    Ok(Json(decision))
}

/// What a role's rules and these scopes say.
fn judge(permission: Permission, subject: Option<&str>, access: &Access, scopes: &[Option<Vec<String>>]) -> DecisionView {
    let is_in_scope = scopes.iter().all(|scope| covers(scope.as_deref(), permission));
    let (decision, rule, list) = match access.judge(permission) {
        Verdict::Denied(entry) => (Decision::Denied, Some(entry), Some(List::Deny)),
        Verdict::Unlisted => (Decision::Unlisted, None, None),
        Verdict::Allowed(_) if !is_in_scope => (Decision::Scope, None, None),
        Verdict::Allowed(entry) => (Decision::Allowed, Some(entry), Some(List::Allow)),
    };
    DecisionView {
        allowed: decision == Decision::Allowed,
        permission: permission.as_str(),
        subject: subject.map(str::to_owned),
        role: Some(access.role.clone()),
        decision,
        rule,
        list,
        source: Some(access.source),
    }
}

fn no_member(permission: Permission, subject: &str) -> DecisionView {
    DecisionView {
        allowed: false,
        permission: permission.as_str(),
        subject: Some(subject.to_owned()),
        role: None,
        decision: Decision::NoMember,
        rule: None,
        list: None,
        source: None,
    }
}
