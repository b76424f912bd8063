//! Who may do what inside a workspace. Nothing is allowed that is not listed, and what is denied is denied whatever else allows it.
//!
//! A token says who somebody is; the database says which role they have now and, where the workspace or its plan says so, what that role may do ([`Access`]).
//! A token's scope only narrows.

use serde::{Deserialize, Serialize};

/// A role that every workspace has, or the operator of the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Deploys astra-edge; its tokens carry no workspace.
    Operator,
    /// All of a workspace, its deletion too.
    Owner,
    /// All of a workspace but its deletion and its owners.
    Admin,
    /// Chats and remembers.
    Member,
    /// Reads.
    Viewer,
}

impl Role {
    /// The role's name as in tokens and in the members table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Operator, Self::Owner, Self::Admin, Self::Member, Self::Viewer]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or("a role is owner, admin, member, viewer or one of the workspace's own")
    }
}

/// The longest name of a role.
const ROLE_LENGTH: usize = 32;

/// Whether a role can have this name: a lower-case letter, then lower-case letters, digits, `-` and `_`, 32 in all at most; not `operator`.
pub fn is_role_name(name: &str) -> bool {
    let well_formed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    name.len() <= ROLE_LENGTH
        && name.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && name.bytes().all(well_formed)
        && name != Role::Operator.as_str()
}

/// One thing that can be allowed. Strings on the wire are the guide's (`memory:read`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Start a turn, stop one's own.
    AgentInvoke,
    /// List agents.
    AgentRead,
    /// Write and delete the workspace's own agents.
    AgentWrite,
    /// Read memories.
    MemoryRead,
    /// Write memories.
    MemoryWrite,
    /// Read one's own sessions.
    SessionRead,
    /// Read every member's sessions.
    SessionReadAll,
    /// See the workspace's record, limits and quota.
    WorkspaceRead,
    /// Change the workspace's display name.
    WorkspaceWrite,
    /// Delete the workspace.
    WorkspaceDelete,
    /// Take all of the workspace's data along.
    WorkspaceExport,
    /// See members.
    MemberRead,
    /// Add, change and remove members.
    MemberWrite,
    /// Issue tokens for members.
    TokenIssue,
    /// See names of secrets, write and delete them.
    SecretWrite,
    /// See usage and cost.
    BillingRead,
    /// See roles and ask what they allow.
    RoleRead,
    /// Define roles.
    RoleWrite,
    /// See grants, given and received.
    GrantRead,
    /// Give and revoke grants.
    GrantWrite,
    /// Read the audit log.
    AuditRead,
    /// Read what a grant shows of another workspace's memory.
    MemoryCrossWorkspaceRead,
    /// Create and list workspaces, set plans, limits, prices: the operator's.
    WorkspaceList,
}

use Permission::{
    AgentInvoke, AgentRead, AgentWrite, AuditRead, BillingRead, GrantRead, GrantWrite, MemberRead, MemberWrite, MemoryCrossWorkspaceRead,
    MemoryRead, MemoryWrite, RoleRead, RoleWrite, SecretWrite, SessionRead, SessionReadAll, TokenIssue, WorkspaceDelete, WorkspaceExport,
    WorkspaceList, WorkspaceRead, WorkspaceWrite,
};

impl Permission {
    /// Every permission that there is.
    pub const ALL: [Self; 23] = [
        AgentInvoke,
        AgentRead,
        AgentWrite,
        MemoryRead,
        MemoryWrite,
        MemoryCrossWorkspaceRead,
        SessionRead,
        SessionReadAll,
        WorkspaceRead,
        WorkspaceWrite,
        WorkspaceDelete,
        WorkspaceExport,
        WorkspaceList,
        MemberRead,
        MemberWrite,
        TokenIssue,
        SecretWrite,
        BillingRead,
        RoleRead,
        RoleWrite,
        GrantRead,
        GrantWrite,
        AuditRead,
    ];

    /// The permission's name in roles, scopes and problems.
    pub fn as_str(self) -> &'static str {
        match self {
            AgentInvoke => "agent:invoke",
            AgentRead => "agent:read",
            AgentWrite => "agent:write",
            MemoryRead => "memory:read",
            MemoryWrite => "memory:write",
            SessionRead => "session:read",
            SessionReadAll => "session:read-all",
            WorkspaceRead => "workspace:read",
            WorkspaceWrite => "workspace:write",
            WorkspaceDelete => "workspace:delete",
            WorkspaceExport => "workspace:export",
            MemberRead => "member:read",
            MemberWrite => "member:write",
            TokenIssue => "token:issue",
            SecretWrite => "secret:write",
            BillingRead => "billing:read",
            RoleRead => "role:read",
            RoleWrite => "role:write",
            GrantRead => "grant:read",
            GrantWrite => "grant:write",
            AuditRead => "audit:read",
            MemoryCrossWorkspaceRead => "memory:cross-workspace-read",
            WorkspaceList => "workspace:list",
        }
    }

    /// Whether an entry of a role's or a token's list covers this permission: its name, or its family's wildcard (`memory:*`).
    pub fn is_covered_by(self, entry: &str) -> bool {
        let name = self.as_str();
        entry == name || entry.strip_suffix(":*").is_some_and(|family| name.split(':').next() == Some(family))
    }
}

impl std::str::FromStr for Permission {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == name).ok_or("no such permission")
    }
}

/// All names, for problems that list them. A constant and not made when it is needed: with all lengths known LLVM 22 does not come to an end with a `join` of them at
/// opt-level 3 (its constraint elimination).
pub const NAMES: &str = "agent:invoke, agent:read, agent:write, memory:read, memory:write, memory:cross-workspace-read, session:read, \
    session:read-all, workspace:read, workspace:write, workspace:delete, workspace:export, workspace:list, member:read, \
    member:write, token:issue, secret:write, billing:read, role:read, role:write, grant:read, grant:write, audit:read";

/// Whether an entry names a permission that there is, or a family of them (`memory:*`).
pub fn is_entry(entry: &str) -> bool {
    Permission::ALL.into_iter().any(|permission| permission.is_covered_by(entry))
}

const MEMBER: [Permission; 6] = [AgentInvoke, AgentRead, MemoryRead, MemoryWrite, SessionRead, WorkspaceRead];

const ADMIN: [Permission; 19] = [
    AgentInvoke,
    AgentRead,
    AgentWrite,
    MemoryRead,
    MemoryWrite,
    SessionRead,
    SessionReadAll,
    WorkspaceRead,
    WorkspaceWrite,
    MemberRead,
    MemberWrite,
    TokenIssue,
    SecretWrite,
    BillingRead,
    RoleRead,
    RoleWrite,
    GrantRead,
    GrantWrite,
    AuditRead,
];

/// What a role may do unless its workspace or its plan says otherwise; nothing for a role of the workspace's own.
pub fn defaults(role: &str) -> Vec<Permission> {
    match role.parse() {
        Ok(Role::Operator) => {
            let others = ADMIN.into_iter().filter(|permission| *permission != SessionReadAll);
            others.chain([WorkspaceList, WorkspaceDelete]).collect()
        }
        Ok(Role::Owner) => ADMIN.into_iter().chain([WorkspaceDelete, WorkspaceExport]).collect(),
        Ok(Role::Admin) => ADMIN.to_vec(),
        Ok(Role::Member) => MEMBER.to_vec(),
        Ok(Role::Viewer) => vec![AgentRead, MemoryRead, SessionRead, WorkspaceRead],
        Err(_) => Vec::new(),
    }
}

/// What a role may do, as a workspace or a plan says it: permissions or families of them. It takes the place of the role's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rules {
    /// What it may do.
    pub allow: Vec<String>,
    /// What it may not, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// Where a role's rules are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Those that every workspace has.
    Default,
    /// The template of the workspace's plan.
    Template,
    /// The workspace itself.
    Workspace,
}

/// What somebody is in a workspace, as the database says now.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Access {
    /// Their role.
    pub role: String,
    /// What it may do; none: its defaults.
    #[serde(default)]
    pub rules: Option<Rules>,
    /// Where that is said.
    #[serde(default = "default_source")]
    pub source: Source,
}

fn default_source() -> Source {
    Source::Default
}

/// Why something is allowed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is listed: by this entry.
    Allowed(String),
    /// It is denied: by this entry.
    Denied(String),
    /// It is not listed.
    Unlisted,
}

impl Access {
    /// A role with its defaults.
    pub fn default_of(role: &str) -> Self {
        Self { role: role.to_owned(), rules: None, source: Source::Default }
    }

    /// Why this is allowed or not. Deny beats allow; what is not listed is not allowed.
    pub fn judge(&self, permission: Permission) -> Verdict {
        let covering = |entries: &[String]| entries.iter().find(|entry| permission.is_covered_by(entry)).cloned();
        let Some(rules) = &self.rules else {
            let is_listed = defaults(&self.role).contains(&permission);
            return if is_listed { Verdict::Allowed(permission.as_str().to_owned()) } else { Verdict::Unlisted };
        };
        match (covering(&rules.deny), covering(&rules.allow)) {
            (Some(entry), _) => Verdict::Denied(entry),
            (None, Some(entry)) => Verdict::Allowed(entry),
            (None, None) => Verdict::Unlisted,
        }
    }

    /// Whether it is allowed, with a scope (if there is one) that lists it too.
    pub fn allows(&self, scope: Option<&[String]>, permission: Permission) -> bool {
        matches!(self.judge(permission), Verdict::Allowed(_)) && covers(scope, permission)
    }

    /// All that is allowed within a scope.
    pub fn permissions(&self, scope: Option<&[String]>) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.allows(scope, *permission))
    }
}

/// Whether a token's scope lists a permission; a token without one is not narrowed.
pub fn covers(scope: Option<&[String]>, permission: Permission) -> bool {
    scope.is_none_or(|entries| entries.iter().any(|entry| permission.is_covered_by(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn allows(role: &str, scope: Option<&[&str]>, permission: Permission) -> bool {
        Access::default_of(role).allows(scope.map(strings).as_deref(), permission)
    }

    #[test]
    fn the_names_are_all_names() {
        assert_eq!(NAMES, Permission::ALL.map(Permission::as_str).join(", "));
    }

    #[test]
    fn a_scope_only_narrows() {
        let scope = ["agent:*", "workspace:delete"];
        assert!(allows("member", Some(&scope), AgentInvoke));
        assert!(!allows("member", Some(&scope), MemoryRead));
        assert!(!allows("member", Some(&scope), WorkspaceDelete));
        assert!(!allows("owner", Some(&[]), AgentInvoke));
    }

    #[test]
    fn a_wildcard_is_of_one_family() {
        for entry in ["*", "mem:*", "", ":*", "memory:**", "memory:", "memory"] {
            assert!(!MemoryRead.is_covered_by(entry), "{entry}");
        }
        assert!(MemoryRead.is_covered_by("memory:*"));
    }

    #[test]
    fn only_the_operator_lists_workspaces() {
        for role in ["owner", "admin", "member", "viewer", "boss"] {
            assert!(!allows(role, None, WorkspaceList), "{role}");
        }
    }

    #[test]
    fn the_guides_member_does_what_it_says_and_no_more() {
        let rules = Rules {
            allow: strings(&["memory:read", "memory:write", "agent:invoke"]),
            deny: strings(&["memory:cross-workspace-read", "workspace:list"]),
        };
        let member = Access { role: "member".into(), rules: Some(rules), source: Source::Workspace };
        let allowed: Vec<_> = member.permissions(None).collect();
        assert_eq!(allowed, [AgentInvoke, MemoryRead, MemoryWrite], "rules take the place of the defaults");
        assert_eq!(member.judge(WorkspaceList), Verdict::Denied("workspace:list".into()));
        assert_eq!(member.judge(SessionRead), Verdict::Unlisted);
    }

    #[test]
    fn deny_beats_allow_whichever_is_the_wider() {
        let of = |allow: &[&str], deny: &[&str]| Access {
            role: "x".into(),
            rules: Some(Rules { allow: strings(allow), deny: strings(deny) }),
            source: Source::Template,
        };
        assert_eq!(of(&["memory:*"], &["memory:write"]).permissions(None).collect::<Vec<_>>(), [MemoryRead, MemoryCrossWorkspaceRead]);
        assert_eq!(of(&["memory:write"], &["memory:*"]).permissions(None).count(), 0);
        assert_eq!(of(&[], &[]).permissions(None).count(), 0);
    }

    #[test]
    fn names_are_the_spelled_ones() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(permission));
        }
        let all: std::collections::HashSet<_> = Permission::ALL.iter().map(|p| p.as_str()).collect();
        assert_eq!(all.len(), Permission::ALL.len());
        for name in ["owner", "support-2", "a_b"] {
            assert!(is_role_name(name), "{name}");
        }
        for name in ["operator", "", "Owner", "2nd", "a b", "é", &"a".repeat(33), "a/b", "a\n"] {
            assert!(!is_role_name(name), "{name}");
        }
        assert!(is_entry("agent:*") && is_entry("memory:cross-workspace-read"));
        assert!(!is_entry("*") && !is_entry("agent:fly") && !is_entry("agent") && !is_entry(""));
    }
}
