//! Names of things. Parsed once at the edge; inside, a value of these types is valid.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A name that does not fit its rule. The text says the rule, never the input (it may be anything).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a workspace id.
    #[error("a workspace id is 1 to 48 characters of a-z, 0-9 and '-', beginning and ending with a letter or digit")]
    Workspace,
    /// Not an agent id.
    #[error("an agent id is 1 to 64 characters of a-z, A-Z, 0-9, '.', '_' and '-', beginning with a letter or digit")]
    Agent,
    /// Not a UUID.
    #[error("an id here is a UUID")]
    Uuid,
}

/// The tenant. 1 to 48 characters of `a-z0-9-`: also safe as part of a schema's, a collection's and an object's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspaceId(String);

impl WorkspaceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for WorkspaceId {
    type Error = IdError;

    fn try_from(id: String) -> Result<Self, IdError> {
        let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = id.as_bytes();
        let fits = (1..=48).contains(&bytes.len())
            && bytes.iter().all(|b| alnum(b) || *b == b'-')
            && bytes.first().is_some_and(alnum)
            && bytes.last().is_some_and(alnum);
        if fits { Ok(Self(id)) } else { Err(IdError::Workspace) }
    }
}

impl From<WorkspaceId> for String {
    fn from(id: WorkspaceId) -> Self {
        id.0
    }
}

impl std::fmt::Display for WorkspaceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// An agent within a workspace or a template; as `WORKSPACE/AGENT`, one that another workspace has granted; as `AGENT@WORKSPACE`, one of this workspace's as far as
/// another one uses it at this one's cost: what the granter's counter and bill call it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(String);

/// What calls to an embedder are counted as, which belong to no agent. No agent can be called so.
const EMBEDDING: &str = "(embedding)";

impl AgentId {
    /// Who calls to an embedder are counted as: nobody can ask for it.
    pub fn embedding() -> Self {
        Self(EMBEDDING.to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can name an agent of a workspace's own or of a template.
    pub fn is_own(&self) -> bool {
        !self.0.contains(['/', '@']) && self.0 != EMBEDDING
    }

    /// Whether it is what a granter's counter calls an agent that another workspace uses: nobody asks for it by that.
    pub fn is_a_guests(&self) -> bool {
        self.0.contains('@')
    }
}

impl TryFrom<String> for AgentId {
    type Error = IdError;

    fn try_from(id: String) -> Result<Self, IdError> {
        let (other, own) = match (id.split_once('/'), id.split_once('@')) {
            (Some((granter, own)), _) => (Some(granter), own),
            (None, Some((own, receiver))) => (Some(receiver), own),
            (None, None) => (None, id.as_str()),
        };
        let bytes = own.as_bytes();
        let fits = other.is_none_or(|workspace| WorkspaceId::try_from(workspace.to_owned()).is_ok())
            && (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric);
        if fits || id == EMBEDDING { Ok(Self(id)) } else { Err(IdError::Agent) }
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.0
    }
}

impl std::fmt::Display for AgentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self).map_err(|_| IdError::Uuid)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id! {
    /// One user message and all that the agent does about it. `UUIDv7`, made by the function that serves it.
    TurnId
}
uuid_id! {
    /// A conversation. `UUIDv7`.
    SessionId
}
uuid_id! {
    /// One workspace's leave for another to use one of its agents. `UUIDv7`.
    GrantId
}

/// A `UUIDv7` from the host's clock (milliseconds since 1970) and ten bytes of its randomness (RFC 9562 section 5.7).
pub fn uuid_v7(unix_millis: u64, random: [u8; 10]) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(unix_millis, &random).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_ids_are_checked() {
        for good in ["a", "customer-acme", "0", &"a".repeat(48)] {
            assert!(WorkspaceId::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a b", "ä", "а", "a\0", &"a".repeat(49), &"a".repeat(10_000)] {
            assert_eq!(WorkspaceId::try_from(bad.to_owned()), Err(IdError::Workspace), "{bad}");
        }
    }

    #[test]
    fn agent_ids_are_checked() {
        assert!(AgentId::try_from("assistant_v1.2-x".to_owned()).unwrap().is_own());
        assert!(!AgentId::try_from("customer-acme/assistant".to_owned()).unwrap().is_own());
        let guests = AgentId::try_from("assistant_v1.2-x@customer-acme".to_owned()).unwrap();
        assert!(guests.is_a_guests() && !guests.is_own());
        for bad in [
            "",
            ".a",
            "A/b",
            "a/b/c",
            "/b",
            "a/",
            "a//b",
            "../b",
            "a b",
            "ä",
            &"a".repeat(65),
            "a@",
            "@a",
            "a@B",
            "a@b@c",
            "a/b@c",
            "a@b/c",
            "embedding)",
            "(embedding) ",
            "b/(embedding)",
        ] {
            assert_eq!(AgentId::try_from(bad.to_owned()), Err(IdError::Agent), "{bad}");
        }
    }

    #[test]
    fn uuid_v7_sorts_by_time() {
        let early = uuid_v7(1_000, [255; 10]);
        let late = uuid_v7(1_001, [0; 10]);
        assert!(early < late);
        assert_eq!(early.get_version_num(), 7);
    }
}
