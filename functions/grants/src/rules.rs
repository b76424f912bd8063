//! What a role may do, as it is sent: its rules alone, or the guide's workspace/grants config with this one role in it; in JSON or in YAML.

use astra_documents::config::{Entry, RoleName, WorkspaceConfig, rules};
use astra_documents::yaml;
use astra_host::Failure;
use astra_host::fields::present;
use astra_host::routes::Unread;
use astra_host::web::parse_json;
use astra_kernel::permission::Rules;
use astra_kernel::{Code, Problem};
use http::header::CONTENT_TYPE;
use serde::Deserialize;

/// The largest body in bytes: 200 entries with room for comments.
const MAX_BYTES: usize = 64 * 1024;

/// For the documentation: one or the other.
#[derive(utoipa::ToSchema)]
#[schema(as = RoleRulesBody)]
#[expect(dead_code, reason = "only described")]
pub(crate) enum BodyView {
    /// The rules.
    #[schema(title = "rules")]
    #[serde(untagged)]
    Rules(RulesView),
    /// The guide's config, which says what this role may do and no other.
    #[schema(title = "config")]
    #[serde(untagged)]
    Config(ConfigView),
}

/// A role's rules.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RulesOfRole)]
#[expect(dead_code, reason = "only described")]
pub(crate) struct RulesView {
    /// What it may do.
    #[schema(max_items = 100)]
    allow: Vec<Entry>,
    /// What it may not, whatever `allow` says.
    #[schema(max_items = 100, required = false)]
    deny: Vec<Entry>,
}

/// The guide's workspace/grants config.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GrantsConfig)]
#[expect(dead_code, reason = "only described")]
pub(crate) struct ConfigView {
    /// The workspace's config.
    workspace: WorkspaceConfig,
}

/// As it is read: what does not fit is named by its pointer, whichever of the two it was meant to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Body {
    #[serde(default, deserialize_with = "present")]
    allow: Option<Vec<Entry>>,
    #[serde(default, deserialize_with = "present")]
    deny: Option<Vec<Entry>>,
    #[serde(default, deserialize_with = "present")]
    workspace: Option<WorkspaceConfig>,
}

/// Reads what a role may do.
///
/// # Errors
/// `400`, `413`, `415`, or `422` with the pointer of what does not fit.
pub(crate) async fn read(request: Unread, role: &RoleName) -> Result<Rules, Failure> {
    const TYPES: [&str; 4] = ["application/json", yaml::MEDIA_TYPES[0], yaml::MEDIA_TYPES[1], yaml::MEDIA_TYPES[2]];
    let is_yaml = !request.header(&CONTENT_TYPE).trim().to_ascii_lowercase().starts_with("application/json");
    let bytes = request.bytes(&TYPES, MAX_BYTES).await?;
    let body = if is_yaml {
        let text = std::str::from_utf8(&bytes).map_err(|_| Problem::new(Code::BadRequest, "The body is not UTF-8."))?;
        parse_json(yaml::to_json(text, 4 * MAX_BYTES)?.as_bytes())?
    } else {
        parse_json(&bytes)?
    };
    Ok(of(body, role)?)
}

fn of(body: Body, role: &RoleName) -> Result<Rules, Problem> {
    match body {
        Body { allow: Some(allow), deny, workspace: None } => rules(role, allow, deny.unwrap_or_default(), ""),
        Body { allow: None, deny: None, workspace: Some(WorkspaceConfig { grants }) } => {
            let of_another = grants.iter().position(|entry| entry.role != *role);
            if let Some(position) = of_another {
                let detail = format!("this route says what {} may do, and no other role", role.as_str());
                return Err(Problem::field(format!("/workspace/grants/{position}/role"), detail));
            }
            let mut grants = grants.into_iter();
            match (grants.next(), grants.next()) {
                (Some(entry), None) => entry.check("/workspace/grants/0").map(|(_, rules)| rules),
                (None, _) => Err(Problem::field("/workspace/grants", format!("it does not say what {} may do", role.as_str()))),
                (Some(_), Some(_)) => {
                    Err(Problem::field("/workspace/grants/1/role", format!("what {} may do is said twice", role.as_str())))
                }
            }
        }
        Body { workspace: Some(_), .. } => Err(Problem::field("/workspace", "either this, or allow and deny")),
        Body { allow: None, workspace: None, .. } => Err(Problem::field("/allow", "missing: what the role may do")),
    }
}
