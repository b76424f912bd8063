//! A turn that another workspace's member asks for and that this one pays: its agent is granted, and the grant says so (`payer: "granter"`).
//!
//! The receiver's counter reads what is the receiver's (the member's right, the conversation, what memory gives) and holds nothing. The granter's counter is then asked to
//! begin with a [`Visit`]: it holds, grows, settles and pays as for a turn of its own, under the name `AGENT@RECEIVER`, and what was said is entered at the receiver's in the same
//! transaction as the granter's ledger entry.
//!
//! The traps: * nothing of what is asked is believed: the database looks the grant up, and the ticket shows that the receiver's own counter has asked for this turn. Without both
//! nothing is entered at the receiver's. * A key is the receiver's: here it goes under a name that no key of this workspace's can have ([`Guest::key`]). * What is left of this
//! workspace's limits is not the receiver's to know: it is in no answer that is kept for them.

use astra_kernel::{GrantId, WorkspaceId};
use serde::{Deserialize, Serialize};

/// Whose turn it is, and by which grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// The receiver.
    pub workspace: WorkspaceId,
    /// The grant.
    pub grant_id: GrantId,
    /// What the receiver's database function made of the turn, with a key that nobody else can read.
    pub ticket: String,
}

impl Guest {
    /// A key of the receiver's as it is called here. No caller's key has a line feed.
    pub fn key(&self, key: &str) -> String {
        format!("{}\n{key}", self.workspace)
    }
}

/// What a granter's counter has to know of a guest's turn to begin it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Visit {
    /// The receiver.
    pub workspace: WorkspaceId,
    /// The grant.
    pub grant_id: GrantId,
    /// See [`Guest::ticket`].
    pub ticket: String,
    /// Whether the conversation begins with this turn.
    pub new_session: bool,
    /// How large is what the receiver gives to the prompt.
    pub prior: Prior,
}

impl Visit {
    /// Whose turn it is.
    pub fn guest(&self) -> Guest {
        let Self { workspace, grant_id, ticket, new_session: _, prior: _ } = self;
        Guest { workspace: workspace.clone(), grant_id: *grant_id, ticket: ticket.clone() }
    }
}

/// The sizes of what was said before and of what memory gave: the texts are none of the granter's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prior {
    /// Messages of the conversation.
    pub messages: usize,
    /// Their bytes.
    pub message_bytes: usize,
    /// Memories.
    pub memories: usize,
    /// Their bytes.
    pub memory_bytes: usize,
}
