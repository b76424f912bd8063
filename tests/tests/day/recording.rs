//! What a line of `fixtures/day.jsonl` says.

use serde::Deserialize;
use serde_json::Value;

/// One thing that happens. Of one workspace all is done in the order of the lines; different workspaces go on at once, until a restart.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Action {
    /// The workspace is made, with a plan of its own that has all agents of the day.
    Open { workspace: String, limits: Value },
    /// Its limits are changed.
    Limits { workspace: String, limits: Value },
    /// The agent `priced` gets a price for its model, in dollars per million tokens.
    Price { workspace: String, input: f64, cached: f64, output: f64 },
    /// A turn.
    Turn(Turn),
    /// Somebody looks at the quota.
    Quota { workspace: String },
    /// The workspace is deleted.
    Delete { workspace: String },
    /// Its lost turn is waited for: its hold ends, and it is charged.
    Settle { workspace: String },
    /// The functions die and are started again. Turns that are to be lost are the last of their workspaces before it.
    Restart {},
}

impl Action {
    /// Whose matter it is; none is everybody's.
    pub(crate) fn workspace(&self) -> Option<&str> {
        match self {
            Self::Open { workspace, .. }
            | Self::Limits { workspace, .. }
            | Self::Price { workspace, .. }
            | Self::Turn(Turn { workspace, .. })
            | Self::Quota { workspace }
            | Self::Delete { workspace }
            | Self::Settle { workspace } => Some(workspace),
            Self::Restart {} => None,
        }
    }
}

/// A turn, what its caller does, and what the model does when it is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Turn {
    pub(crate) workspace: String,
    pub(crate) say: String,
    #[serde(default = "assistant")]
    pub(crate) agent: String,
    /// The role of who asks.
    #[serde(default = "member")]
    pub(crate) role: String,
    /// A name for the conversation: a turn that names one that there is goes on with it.
    pub(crate) session: Option<String>,
    /// The idempotency key.
    pub(crate) key: Option<String>,
    /// By events.
    #[serde(default)]
    pub(crate) stream: bool,
    /// Past the gateway.
    #[serde(default)]
    pub(crate) direct: bool,
    /// The caller hangs up after so many of the answer's pieces; by JSON, as soon as the model is asked.
    pub(crate) leave: Option<usize>,
    /// What happens when all pieces are delivered and the model says nothing more.
    pub(crate) then: Option<Then>,
    /// The model's answers: to the first call, the second, …
    #[serde(default)]
    pub(crate) model: Vec<Script>,
}

fn assistant() -> String {
    "assistant".to_owned()
}

fn member() -> String {
    "member".to_owned()
}

/// What ends a turn that the model does not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Then {
    /// It is stopped by its name.
    Stop,
    /// The functions die: a restart has to follow, with nothing of this workspace in between.
    Die,
}

/// What the model does with one call.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Script {
    /// It refuses with this status.
    Status(u16),
    /// It refuses with 429 and asks for six seconds of patience.
    Busy,
    /// It answers with JSON where events were asked for.
    NoStream,
    /// As many words as it is let say, at most this many.
    Obedient(i64),
    /// This answer.
    Answer(Answer),
}

/// A model's answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    pub(crate) pieces: Vec<String>,
    /// What the provider counts; none is a provider that does not.
    pub(crate) count: Option<Count>,
    #[serde(default)]
    pub(crate) end: End,
}

/// A provider's count: all input with the cached part, all output with the reasoning.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    pub(crate) input: i64,
    #[serde(default)]
    pub(crate) cached: i64,
    pub(crate) output: i64,
    #[serde(default)]
    pub(crate) reasoning: i64,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum End {
    /// By itself.
    #[default]
    Stop,
    /// At the model's own limit.
    Length,
    /// The provider's filter or the model refuses.
    Refusal,
    /// The connection breaks.
    Broken,
    /// Something comes that is no event of the protocol.
    Garbage,
    /// An error comes in the stream.
    Overloaded,
    /// Nothing more comes until the other side goes.
    Silence,
}

/// The day, line by line.
pub(crate) fn read() -> Vec<Action> {
    let lines = include_str!("../../fixtures/day.jsonl").lines().enumerate();
    let parse = |(n, line)| serde_json::from_str(line).unwrap_or_else(|error| panic!("day.jsonl:{}: {error}: {line}", n + 1));
    lines.map(parse).collect()
}
