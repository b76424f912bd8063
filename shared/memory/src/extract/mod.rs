//! Turning a conversation into memories: by a model ([`prompt`], [`answer`]) or, where there is none, by rules ([`rules`]).
//!
//! What was said is data, whoever said it: the prompt says so, the conversation goes in as JSON, and what comes back is taken by
//! [`answer::parse`] only in the one form that was asked for. Still, a model can be talked into remembering nonsense: a memory never gives
//! anybody a right, and is shown to a model as data again.

pub mod answer;
pub mod prompt;
pub mod rules;

use crate::{Kind, Scope};

/// How many memories one extraction may yield.
pub const MAX_MEMORIES: usize = 20;

/// How many characters a memory may have; what it replaces too.
pub const MAX_CONTENT: usize = 2_000;

/// A memory that an extraction proposes. Its `Debug` shows sizes, no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Extracted {
    /// What it is.
    pub kind: Kind,
    /// The memory, 1 to [`MAX_CONTENT`] characters, without blanks around it and without NUL (which Postgres cannot store).
    pub content: String,
    /// Whose it is.
    pub scope: Scope,
    /// What it contradicts, in words; the known memory nearest to it is replaced ([`crate::near`]).
    pub replaces: Option<String>,
}

impl std::fmt::Debug for Extracted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, content, scope, replaces } = self;
        f.debug_struct("Extracted")
            .field("kind", kind)
            .field("content", &format_args!("{} bytes", content.len()))
            .field("scope", scope)
            .field("replaces", &replaces.is_some())
            .finish()
    }
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The person.
    User,
    /// The agent.
    Assistant,
}

/// One message of a conversation.
#[derive(Clone, Copy)]
pub struct Said<'a> {
    /// By whom.
    pub speaker: Speaker,
    /// What.
    pub text: &'a str,
}
