//! What a memory is, and whose.

use serde::{Deserialize, Serialize};

/// What a memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Something that is so: "Refunds take 30 days."
    Fact,
    /// What somebody wants things to be like: "I prefer short answers."
    Preference,
    /// What was settled: "We decided to ship on Fridays."
    Decision,
    /// What somebody wanted written down, without being any of the others.
    Note,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fact, Self::Preference, Self::Decision, Self::Note];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fact => "fact",
            Self::Preference => "preference",
            Self::Decision => "decision",
            Self::Note => "note",
        }
    }
}

/// Not the name of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a memory's kind is fact, preference, decision or note")]
pub struct UnknownKind;

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(UnknownKind)
    }
}

/// Whose a memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The one user's who said it.
    User,
    /// Everybody's in the workspace.
    Workspace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
        for name in ["", "Fact", "note ", "memory"] {
            assert_eq!(name.parse::<Kind>(), Err(UnknownKind), "{name}");
        }
    }
}
