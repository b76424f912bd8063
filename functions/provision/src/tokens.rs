//! Tokens for members: nobody issues more than they have.
//!
//! The issuer's role bounds the new token's role, and the issuer's scope, if there is one, bounds each permission of the new token: a token that was
//! narrowed cannot issue a wider one.

use crate::fields::{Text, WorkspacePath, present, whole_number};
use crate::members::RoleName;
use crate::workspaces::existing;
use astra_host::routes::{Params, Unread, word};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::permission::defaults;
use astra_kernel::token::AUDIENCE;
use astra_kernel::{Claims, Code, Permission, Problem, Role, Timestamp};
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
    /// Their role with it: at most the issuer's own.
    #[serde(deserialize_with = "word")]
    role: RoleName,
    /// Permissions to narrow the role to, such as `memory:read` or `agent:*`. All of the role's when absent.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<ScopeEntry>>, nullable = false, min_items = 1, max_items = 50)]
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

/// 1 to 50 permissions or families of them.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<ScopeEntry>")]
struct Scope(Vec<String>);

impl TryFrom<Vec<ScopeEntry>> for Scope {
    type Error = &'static str;

    fn try_from(entries: Vec<ScopeEntry>) -> Result<Self, Self::Error> {
        if (1..=50).contains(&entries.len()) {
            Ok(Self(entries.into_iter().map(|entry| entry.0).collect()))
        } else {
            Err("a scope lists 1 to 50 permissions; leave it out for all of the role's")
        }
    }
}

/// A permission's name, or its family's wildcard.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct ScopeEntry(String);

impl TryFrom<String> for ScopeEntry {
    type Error = String;

    fn try_from(entry: String) -> Result<Self, Self::Error> {
        if permissions().any(|p| p.is_covered_by(&entry)) {
            Ok(Self(entry))
        } else {
            let known: Vec<_> = permissions().map(Permission::as_str).collect();
            Err(format!("not a permission; there are {} and families such as memory:*", known.join(", ")))
        }
    }
}

impl utoipa::PartialSchema for ScopeEntry {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let mut entries: Vec<String> = permissions().map(|p| p.as_str().to_owned()).collect();
        entries.extend(permissions().filter_map(|p| p.as_str().split_once(':').map(|(family, _)| format!("{family}:*"))));
        entries.sort_unstable();
        entries.dedup();
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
        text.enum_values(Some(entries)).description(Some("A permission, or a family of them")).into()
    }
}

impl utoipa::ToSchema for ScopeEntry {
    fn name() -> std::borrow::Cow<'static, str> {
        "ScopeEntry".into()
    }
}

/// Every permission that somebody has.
fn permissions() -> impl Iterator<Item = Permission> {
    let owners = defaults(Role::Owner);
    defaults(Role::Operator).iter().filter(move |p| !owners.contains(p)).chain(owners).copied()
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

/// Issues a token for a user of the workspace.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/tokens", tag = "members", operation_id = "issueToken",
    params(WorkspacePath), request_body = TokenBody,
    responses((status = 201, description = "The token", body = TokenView)),
)]
pub(crate) async fn issue<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let Allowed { claims: issuer, data } = call.tenant(&path.workspace_id, Permission::TokenIssue).await?;
    let TokenBody { subject, role, scope, expires_in_seconds } = request.json().await?;
    let scope = scope.map(|scope| scope.0);
    may_issue(&issuer, role.into(), scope.as_deref())?;
    // Otherwise whoever makes a workspace under this id later has strangers with tokens.
    existing(&data).await?;
    let issued_at = call.host.now().unix_seconds();
    let claims = Claims {
        sub: subject.into_string(),
        ws: Some(data.workspace().clone()),
        role: Role::from(role).as_str().to_owned(),
        scope,
        jti: call.host.new_id().to_string(),
        iat: issued_at,
        exp: issued_at + expires_in_seconds.0,
        iss: AUDIENCE.to_owned(),
        aud: AUDIENCE.to_owned(),
    };
    let token = call.host.shared().token_keys()?.sign(&claims).map_err(|error| Failure::internal(error.to_string()))?;
    let view = TokenView { token, token_type: "Bearer", expires_at: Timestamp(claims.exp * 1000), jti: claims.jti };
    Ok((StatusCode::CREATED, [(CACHE_CONTROL, "no-store")], Json(view)).into_response())
}

fn rank(role: Role) -> u8 {
    match role {
        Role::Operator => 4,
        Role::Owner => 3,
        Role::Admin => 2,
        Role::Member => 1,
        Role::Viewer => 0,
    }
}

/// Whether an issuer may issue such a token.
fn may_issue(issuer: &Claims, role: Role, scope: Option<&[String]>) -> Result<(), Problem> {
    if issuer.role().is_none_or(|own| rank(role) > rank(own)) {
        let detail = format!("A token with the role {} needs an issuer with that role or a higher one.", role.as_str());
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let Some(own) = &issuer.scope else { return Ok(()) };
    let granted = defaults(role).iter().filter(|p| scope.is_none_or(|scope| scope.iter().any(|entry| p.is_covered_by(entry))));
    match granted.into_iter().find(|p| !own.iter().any(|entry| p.is_covered_by(entry))) {
        Some(wider) => {
            let detail =
                format!("Your token is narrowed to a scope without {}, so it cannot issue one that has it. Name a scope.", wider.as_str());
            Err(Problem::new(Code::Forbidden, detail))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(role: &str, scope: Option<&[&str]>) -> Claims {
        Claims {
            sub: "u".into(),
            ws: (role != "operator").then(|| "acme".to_owned().try_into().unwrap()),
            role: role.into(),
            scope: scope.map(|s| s.iter().map(|e| (*e).to_owned()).collect()),
            jti: "j".into(),
            iat: 0,
            exp: 0,
            iss: AUDIENCE.into(),
            aud: AUDIENCE.into(),
        }
    }

    fn allowed(issuer: &Claims, role: Role, scope: Option<&[&str]>) -> bool {
        let scope: Option<Vec<String>> = scope.map(|s| s.iter().map(|e| (*e).to_owned()).collect());
        may_issue(issuer, role, scope.as_deref()).is_ok()
    }

    #[test]
    fn nobody_issues_above_themselves() {
        let roles = [
            ("operator", Role::Operator),
            ("owner", Role::Owner),
            ("admin", Role::Admin),
            ("member", Role::Member),
            ("viewer", Role::Viewer),
        ];
        for (above, (name, _)) in roles.iter().enumerate() {
            for (below, (_, role)) in roles.iter().enumerate() {
                assert_eq!(allowed(&issuer(name, None), *role, None), below >= above, "{name} issues {role:?}");
            }
        }
    }

    #[test]
    fn a_narrowed_token_issues_no_wider_one() {
        let narrow = issuer("admin", Some(&["token:issue", "agent:*"]));
        assert!(!allowed(&narrow, Role::Admin, None));
        assert!(!allowed(&narrow, Role::Viewer, None));
        assert!(!allowed(&narrow, Role::Member, Some(&["agent:invoke", "memory:read"])));
        assert!(allowed(&narrow, Role::Member, Some(&["agent:invoke"])));
        assert!(allowed(&narrow, Role::Admin, Some(&["agent:*", "token:issue"])));
        assert!(!allowed(&narrow, Role::Admin, Some(&["token:*", "member:*"])));
        // What the role does not have, the scope cannot give: it grants nothing, so it may stand there.
        assert!(allowed(&narrow, Role::Viewer, Some(&["agent:read", "workspace:delete"])));
    }

    #[test]
    fn a_scope_names_what_there_is() {
        let scope = |json: &str| serde_json::from_str::<Scope>(json).map(|s| s.0);
        assert_eq!(scope(r#"["memory:*","session:read-all","workspace:list"]"#).unwrap().len(), 3);
        for bad in
            ["[]", r#"["*"]"#, r#"["mem:*"]"#, r#"["memory:read "]"#, r#"["memory:cross-workspace-read"]"#, r#"[""]"#, "null", "\"a\""]
        {
            assert!(scope(bad).is_err(), "{bad}");
        }
    }
}
