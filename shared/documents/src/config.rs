//! The guide's workspace/grants config: what a workspace's roles may do.
//!
//! ```yaml
//! workspace:
//!   grants:
//!     - role: member
//!       allow:
//!         - memory:read
//!       deny:
//!         - workspace:list
//! ```
//!
//! Read alone (`PUT /workspaces/{id}/roles/{role}`) and beside the agents of a plan's template. Both check it here: an entry that names nothing would be taken for
//! a rule by who wrote it, and an owner who cannot say what roles allow, or who is a member, would lock the workspace out of itself.

use astra_kernel::permission::{NAMES, Rules, Source, is_entry, is_role_name};
use astra_kernel::{Access, Permission, Problem, Role};
use serde::{Deserialize, Deserializer};

/// How many entries a list has at most.
const MAX_ENTRIES: usize = 100;

/// What an owner keeps, whatever is said of the role.
const KEPT_BY_OWNERS: [Permission; 2] = [Permission::RoleWrite, Permission::MemberWrite];

/// A workspace's config.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = WorkspaceConfig)]
pub struct WorkspaceConfig {
    /// What roles may do, each said once.
    #[schema(max_items = 100)]
    pub grants: Vec<RoleGrants>,
}

/// What one role may do.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = RoleGrants)]
pub struct RoleGrants {
    /// The role.
    pub role: RoleName,
    /// What it may do.
    #[schema(max_items = 100)]
    pub allow: Vec<Entry>,
    /// What it may not, whatever `allow` says.
    #[serde(default, deserialize_with = "present")]
    #[schema(max_items = 100, required = false)]
    pub deny: Vec<Entry>,
}

impl RoleGrants {
    /// The role's rules. `at` is the JSON pointer of what was read.
    ///
    /// # Errors
    /// `422`.
    pub fn check(self, at: &str) -> Result<(RoleName, Rules), Problem> {
        let Self { role, allow, deny } = self;
        let rules = rules(&role, allow, deny, at)?;
        Ok((role, rules))
    }
}

/// A role's rules, no entry twice. `at` is the JSON pointer of the object that the lists are in.
///
/// # Errors
/// `422` where a list is too long, or when owners would lock themselves out.
pub fn rules(role: &RoleName, allow: Vec<Entry>, deny: Vec<Entry>, at: &str) -> Result<Rules, Problem> {
    let rules = Rules { allow: list(allow, &format!("{at}/allow"))?, deny: list(deny, &format!("{at}/deny"))? };
    if role.as_str() == Role::Owner.as_str() {
        let owner = Access { role: role.as_str().to_owned(), rules: Some(rules), source: Source::Workspace };
        if let Some(lost) = KEPT_BY_OWNERS.into_iter().find(|permission| !owner.allows(None, *permission)) {
            let detail = format!("owners keep {}: without it the workspace would lock itself out", lost.as_str());
            return Err(Problem::field(format!("{at}/allow"), detail));
        }
        return Ok(owner.rules.unwrap_or_default());
    }
    Ok(rules)
}

fn list(entries: Vec<Entry>, at: &str) -> Result<Vec<String>, Problem> {
    if entries.len() > MAX_ENTRIES {
        return Err(Problem::field(at, format!("at most {MAX_ENTRIES} entries")));
    }
    let mut list: Vec<String> = Vec::with_capacity(entries.len());
    for Entry(entry) in entries {
        if !list.contains(&entry) {
            list.push(entry);
        }
    }
    Ok(list)
}

/// For lists that are absent or there: null is refused.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}

/// A permission, or a family of them (`memory:*`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Entry(pub String);

impl TryFrom<String> for Entry {
    type Error = String;

    fn try_from(entry: String) -> Result<Self, Self::Error> {
        if is_entry(&entry) {
            return Ok(Self(entry));
        }
        Err(format!("not a permission; there are {NAMES} and families such as memory:*"))
    }
}

impl utoipa::PartialSchema for Entry {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let mut entries: Vec<String> = Permission::ALL.into_iter().map(|p| p.as_str().to_owned()).collect();
        entries.extend(Permission::ALL.into_iter().filter_map(|p| p.as_str().split_once(':').map(|(family, _)| format!("{family}:*"))));
        entries.sort_unstable();
        entries.dedup();
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
        text.enum_values(Some(entries)).description(Some("A permission, or a family of them")).into()
    }
}

impl utoipa::ToSchema for Entry {
    fn name() -> std::borrow::Cow<'static, str> {
        "PermissionEntry".into()
    }
}

/// What a token is narrowed to: 1 to 50 permissions or families of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "Vec<Entry>")]
#[schema(value_type = Vec<Entry>, min_items = 1, max_items = 50)]
pub struct Scope(pub Vec<String>);

impl TryFrom<Vec<Entry>> for Scope {
    type Error = &'static str;

    fn try_from(entries: Vec<Entry>) -> Result<Self, Self::Error> {
        if (1..=50).contains(&entries.len()) {
            Ok(Self(entries.into_iter().map(|Entry(entry)| entry).collect()))
        } else {
            Err("a scope lists 1 to 50 permissions; leave it out for all of the role's")
        }
    }
}

/// The name of a role: one of the four that every workspace has (`owner`, `admin`, `member`, `viewer`), or one of the workspace's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct RoleName(String);

impl RoleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RoleName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if is_role_name(&name) {
            Ok(Self(name))
        } else {
            Err("a role's name: a-z, then a-z, 0-9, '-' and '_', 32 characters at most; not operator")
        }
    }
}

impl utoipa::PartialSchema for RoleName {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::Type::String);
        let text = text.pattern(Some("^[a-z][a-z0-9_-]*$")).max_length(Some(32));
        text.description(Some("owner, admin, member, viewer, or a role of the workspace's own")).into()
    }
}

impl utoipa::ToSchema for RoleName {
    fn name() -> std::borrow::Cow<'static, str> {
        "Role".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    /// As the guide prints it.
    const GUIDE: &str = include_str!("../../../tests/guide/grants.yml");

    #[derive(Deserialize)]
    struct Document {
        workspace: WorkspaceConfig,
    }

    fn read(yaml: &str) -> Result<(String, Rules), String> {
        let json = yaml::to_json(yaml, 10_000).map_err(|problem| problem.detail)?;
        let Document { workspace } = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        let grants = workspace.grants.into_iter().next().ok_or("none")?;
        grants.check("/g").map(|(role, rules)| (role.as_str().to_owned(), rules)).map_err(|problem| problem.detail)
    }

    fn strings(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn the_guides_config_says_what_it_says() {
        let rules = Rules {
            allow: strings(&["memory:read", "memory:write", "agent:invoke"]),
            deny: strings(&["memory:cross-workspace-read", "workspace:list"]),
        };
        assert_eq!(read(GUIDE).unwrap(), ("member".to_owned(), rules));
    }

    #[test]
    fn no_entry_is_kept_twice_and_none_is_free_text() {
        let of = |allow: &str| read(&format!("workspace: {{grants: [{{role: x, allow: {allow}}}]}}"));
        assert_eq!(of("['memory:*', 'memory:read', 'memory:*']").unwrap().1.allow, ["memory:*", "memory:read"]);
        assert_eq!(of("[]").unwrap().1, Rules::default());
        for refused in [
            "['*']",
            "['memory:fly']",
            "[memory]",
            "[1]",
            "[null]",
            "null",
            "'memory:read'",
            &format!("[{}]", "'memory:read',".repeat(101)),
        ] {
            assert!(of(refused).is_err(), "{refused}");
        }
        for refused in [
            "role: operator, allow: []",
            "role: X, allow: []",
            "role: x",
            "allow: []",
            "role: x, allow: [], deny: null",
            "role: x, allow: [], more: 1",
        ] {
            assert!(read(&format!("workspace: {{grants: [{{{refused}}}]}}")).is_err(), "{refused}");
        }
    }

    #[test]
    fn owners_do_not_lock_themselves_out() {
        let owner = |rest: &str| read(&format!("workspace: {{grants: [{{role: owner, {rest}}}]}}"));
        assert!(owner("allow: ['role:*', 'member:write']").is_ok());
        for lost in [
            "allow: []",
            "allow: ['role:*']",
            "allow: ['role:*', 'member:*'], deny: ['member:write']",
            "allow: ['role:write', 'member:write'], deny: ['role:*']",
        ] {
            assert!(owner(lost).unwrap_err().starts_with("/g/allow: owners keep"), "{lost}");
        }
    }
}
