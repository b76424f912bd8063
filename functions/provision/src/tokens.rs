//! Tokens for members: nobody issues more than they have.
//!
//! A token says who somebody is; what they may do is their role's, as the database says it when they ask. So what a new token could do now must be within
//! what its issuer may do, the issuer's own scope included.

use crate::fields::whole_number;
use crate::members::known_role;
use crate::workspaces::existing;
use astra_documents::config::{RoleName, Scope};
use astra_host::fields::{Text, WorkspacePath, present};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::token::AUDIENCE;
use astra_kernel::{Claims, Code, Permission, Problem, Role, Timestamp};
use astra_store::audit::IssuedToken;
use astra_store::roles::Standing;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};

/// A token to issue.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewToken)]
pub(crate) struct TokenBody {
    /// The user that the token is for.
    subject: Text,
    /// Their role. Who is no member becomes one with it; for a member with another role the token is narrowed to what this one allows.
    role: RoleName,
    /// Permissions to narrow the role to, such as `memory:read` or `agent:*`. All of the role's when absent.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    scope: Option<Scope>,
    /// How long it is good for, in seconds; 900 unless told.
    #[serde(default)]
    #[schema(required = false, default = 900)]
    expires_in_seconds: Lifetime,
}

whole_number! {
    /// Seconds.
    Lifetime, 1..=86400
}

impl Default for Lifetime {
    fn default() -> Self {
        Self(900)
    }
}

/// A token, shown once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = IssuedToken)]
pub(crate) struct TokenView {
    /// The token, for the Authorization header.
    token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// When it ends.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// Its own id.
    #[schema(format = "uuid")]
    jti: String,
}

/// Issues a token for a user of the workspace, who becomes a member if they are none.
///
/// Short-lived tokens for chat clients: `"scope": ["agent:invoke"]` makes one that can talk to agents and nothing else, which a browser may hold.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/tokens", tag = "members", operation_id = "issueToken",
    params(WorkspacePath), request_body = TokenBody,
    responses((status = 201, description = "The token", body = TokenView)),
)]
pub(crate) async fn issue<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::TokenIssue).await?;
    let TokenBody { subject, role, scope, expires_in_seconds } = request.json().await?;
    let refused = |needs, detail| call.refused(&allowed, needs, Problem::new(Code::Forbidden, detail));
    if role.as_str() == Role::Owner.as_str() && !allowed.is_over_owners() {
        return Err(refused(
            Permission::TokenIssue,
            "A token with the role owner is for the workspace's owners and the operator to issue.",
        ));
    }
    let wanted = known_role(&allowed.data, &role).await?;
    let scope = scope.map(|scope| scope.0);
    let (held, scope) = match allowed.data.standing(subject.as_str(), "").await? {
        Standing::Member(held) if held.role == role.as_str() => (held, scope),
        Standing::Member(held) => {
            let narrowed = wanted.permissions(scope.as_deref()).map(|permission| permission.as_str().to_owned()).collect();
            (held, Some(narrowed))
        }
        Standing::NoMember | Standing::TokenRevoked => {
            if !allowed.may(Permission::MemberWrite) {
                let detail = "They are no member of this workspace, and making them one needs the permission member:write.";
                return Err(refused(Permission::MemberWrite, detail));
            }
            (wanted, scope)
        }
    };
    allowed.gives_no_more(&held, scope.as_deref()).map_err(|problem| call.refused(&allowed, Permission::TokenIssue, problem))?;
    let now = call.host.now();
    let member = allowed.data.add_member(subject.as_str(), role.as_str(), now).await?;
    if member.ok_or_else(|| Problem::not_found("workspace"))?.role != held.role {
        return Err(Problem::new(Code::Conflict, "Their role was changed at this moment. Try again.").into());
    }
    let claims = Claims {
        sub: subject.into_string(),
        ws: Some(allowed.data.workspace().clone()),
        role: role.as_str().to_owned(),
        scope,
        jti: call.host.new_id().to_string(),
        iat: now.unix_seconds(),
        exp: now.unix_seconds() + expires_in_seconds.0,
        iss: AUDIENCE.to_owned(),
        aud: AUDIENCE.to_owned(),
    };
    let token = call.host.shared().token_keys()?.sign(&claims).map_err(|error| Failure::internal(error.to_string()))?;
    // Nobody has a token that the log does not know.
    let expires_at = Timestamp(claims.exp * 1000);
    let issued =
        IssuedToken { role: &claims.role, jti: &claims.jti, scope: claims.scope.as_ref().map(|scope| scope.join(" ")), expires_at };
    if !allowed.data.audit_token(&claims.sub, issued).await? {
        return Err(Problem::not_found("workspace").into());
    }
    let view = TokenView { token, token_type: "Bearer", expires_at, jti: claims.jti };
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

/// A token's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The token's own id, its `jti`.
    #[param(value_type = Text)]
    jti: String,
}

/// Revokes a token of the workspace, whoever signed it: it is refused from the next request on. One that is not known is revoked, too.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/tokens/{jti}", tag = "members", operation_id = "revokeToken", params(TokenPath),
    responses((status = 204, description = "Revoked")),
)]
pub(crate) async fn revoke<H: Host>(call: Call<H>, Params(path): Params<TokenPath>) -> Result<StatusCode, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::TokenIssue).await?;
    let jti = Text::of_path("jti", path.jti)?;
    existing(&data).await?;
    data.revoke_token(jti.as_str(), call.host.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_what_there_is() {
        let scope = |json: &str| serde_json::from_str::<Scope>(json).map(|s| s.0);
        assert_eq!(scope(r#"["memory:*","session:read-all","workspace:list"]"#).unwrap().len(), 3);
        for bad in ["[]", r#"["*"]"#, r#"["mem:*"]"#, r#"["memory:read "]"#, r#"["memory:cross"]"#, r#"[""]"#, "null", "\"a\""] {
            assert!(scope(bad).is_err(), "{bad}");
        }
    }
}
