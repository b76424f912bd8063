//! Who may do what inside a workspace. Nothing is allowed that is not listed.

/// A role in a workspace, or the operator of the deployment.
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
            .ok_or("a role is owner, admin, member or viewer")
    }
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
    /// Create and list workspaces, set plans, limits, prices: the operator's.
    WorkspaceList,
}

use Permission::{
    AgentInvoke, AgentRead, AgentWrite, BillingRead, MemberRead, MemberWrite, MemoryRead, MemoryWrite, SecretWrite, SessionRead,
    SessionReadAll, TokenIssue, WorkspaceDelete, WorkspaceList, WorkspaceRead, WorkspaceWrite,
};

impl Permission {
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
            MemberRead => "member:read",
            MemberWrite => "member:write",
            TokenIssue => "token:issue",
            SecretWrite => "secret:write",
            BillingRead => "billing:read",
            WorkspaceList => "workspace:list",
        }
    }

    /// Whether an entry of a role's or a token's list covers this permission: its name, or its family's wildcard (`memory:*`).
    pub fn is_covered_by(self, entry: &str) -> bool {
        let name = self.as_str();
        entry == name || entry.strip_suffix(":*").is_some_and(|family| name.split(':').next() == Some(family))
    }
}

/// What a role may do by default.
pub fn defaults(role: Role) -> &'static [Permission] {
    match role {
        Role::Operator => &[
            WorkspaceList,
            WorkspaceRead,
            WorkspaceWrite,
            WorkspaceDelete,
            MemberRead,
            MemberWrite,
            TokenIssue,
            SecretWrite,
            BillingRead,
            AgentRead,
            AgentWrite,
            AgentInvoke,
            MemoryRead,
            MemoryWrite,
            SessionRead,
        ],
        Role::Owner => &[
            AgentInvoke,
            AgentRead,
            AgentWrite,
            MemoryRead,
            MemoryWrite,
            SessionRead,
            SessionReadAll,
            WorkspaceRead,
            WorkspaceWrite,
            WorkspaceDelete,
            MemberRead,
            MemberWrite,
            TokenIssue,
            SecretWrite,
            BillingRead,
        ],
        Role::Admin => &[
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
        ],
        Role::Member => &[AgentInvoke, AgentRead, MemoryRead, MemoryWrite, SessionRead, WorkspaceRead],
        Role::Viewer => &[AgentRead, MemoryRead, SessionRead, WorkspaceRead],
    }
}

/// Whether a role's defaults list the permission and, where a scope is given, the scope lists it too: a scope only narrows.
pub fn allows(role: Role, scope: Option<&[String]>, permission: Permission) -> bool {
    defaults(role).contains(&permission) && scope.is_none_or(|s| s.iter().any(|entry| permission.is_covered_by(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_only_narrows() {
        let scope = vec!["agent:*".to_owned(), "workspace:delete".to_owned()];
        assert!(allows(Role::Member, Some(&scope), AgentInvoke));
        assert!(!allows(Role::Member, Some(&scope), MemoryRead));
        assert!(!allows(Role::Member, Some(&scope), WorkspaceDelete));
        assert!(!allows(Role::Owner, Some(&[]), AgentInvoke));
    }

    #[test]
    fn a_wildcard_is_of_one_family() {
        assert!(!MemoryRead.is_covered_by("*"));
        assert!(!MemoryRead.is_covered_by("mem:*"));
        assert!(!MemoryRead.is_covered_by(""));
        assert!(!MemoryRead.is_covered_by(":*"));
        assert!(MemoryRead.is_covered_by("memory:*"));
    }

    #[test]
    fn only_the_operator_lists_workspaces() {
        for role in [Role::Owner, Role::Admin, Role::Member, Role::Viewer] {
            assert!(!allows(role, None, WorkspaceList));
        }
    }
}
