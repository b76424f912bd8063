//! `turn_begin`'s document: all that a turn needs, from one snapshot.

use astra_host::embedder::Embedder;
use astra_host::provider::{Model, Secret};
use astra_kernel::{Access, AgentId, GrantId, Limits, Permission, Price, SessionId, WorkspaceId};
use astra_memory::Citation;
use astra_quota::words::ModelRef;
use astra_quota::{Prior, Visit};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// An `ok` document.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// The workspace.
    pub workspace: Workspace,
    /// The agent.
    pub agent: Agent,
    /// The model to call.
    pub model: Model,
    /// Its price.
    pub price: Price,
    /// The workspace's key for the model's provider, sealed.
    pub secret: Option<Secret>,
    /// The conversation.
    pub session_id: SessionId,
    /// Whether it begins with this turn.
    pub new_session: bool,
    /// What was said in it, oldest first.
    #[serde(default)]
    pub history: Vec<Said>,
    /// What memory gave, best first.
    #[serde(default)]
    pub memories: Vec<Memory>,
    /// The searches of it that were left out: `vector`, where the message could not be embedded as the memory is; `keyword`, where an index did not name what has its words.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// The embedder that its vectors are of, when it was not searched by them yet.
    #[serde(default)]
    pub embedder: Option<Embedder>,
    /// Whether the memory's words are in an index; none: nobody asked, there is no memory, or the index is being made.
    #[serde(default)]
    pub indexed: Option<bool>,
    /// What who asks is in their workspace; none: the operator.
    pub access: Option<Access>,
}

impl Context {
    /// Leaves out what the granter shows of its memory when who asks may not be told.
    pub fn keep_what_may_be_told(&mut self, scope: Option<&[String]>) {
        let may = self.access.as_ref().is_some_and(|access| access.allows(scope, Permission::MemoryCrossWorkspaceRead));
        self.memories.retain(|memory| may || !memory.shared);
    }
}

/// The workspace, as templates see it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// For people.
    pub display_name: String,
    /// Its plan.
    pub plan: String,
    /// Its owner.
    pub owner_id: String,
    /// Its limits.
    #[serde(default)]
    pub limits: Limits,
}

/// The agent.
#[derive(Debug, Deserialize)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its definition.
    pub definition: Definition,
}

/// The part of the definition that a prompt needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// The system prompt's template.
    #[serde(default)]
    pub system_prompt_template: String,
}

/// A message of the conversation.
#[derive(Deserialize)]
pub struct Said {
    /// `user` or `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A memory that was found.
#[derive(Deserialize)]
#[serde(from = "Found")]
pub struct Memory {
    /// The text.
    pub content: String,
    /// From 0 to 1: 1 is first by meaning and by words.
    pub score: f64,
    /// Where it stands, when it is of a document.
    pub citation: Option<Citation>,
    /// Whether it is another workspace's, which grants the agent and shows this.
    pub shared: bool,
}

/// The same as the document has it. (What serde flattens is read by way of a tree, and the code for that weighs 1.5 KB.)
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    content: String,
    score: f64,
    #[serde(default)]
    shared: bool,
    document_id: Option<Uuid>,
    #[serde(default)]
    slug: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    version: i32,
    #[serde(default)]
    position: i32,
    #[serde(default)]
    heading: String,
}

impl From<Found> for Memory {
    fn from(found: Found) -> Self {
        let Found { content, score, shared, document_id, slug, title, version, position, heading } = found;
        let citation = document_id.map(|document_id| Citation { document_id, slug, title, version, position, heading });
        Self { content, score, citation, shared }
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({} bytes)", self.role, self.content.len())
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {}", self.content.len(), self.score)
    }
}

/// A document whose outcome is `payer`: the agent is granted and its granter pays, so the granter's counter is to be asked. What the turn needs of its own workspace is here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referral {
    /// Whose counter.
    pub granter: WorkspaceId,
    /// By which grant.
    pub grant_id: GrantId,
    /// The agent as it is called here, `GRANTER/AGENT`.
    pub agent_id: AgentId,
    /// The agent as it is called there, `AGENT@RECEIVER`.
    pub counted_as: AgentId,
    /// What shows that this turn was asked for here.
    pub ticket: String,
    /// The conversation.
    pub session_id: SessionId,
    /// Whether it begins with this turn.
    pub new_session: bool,
    /// What was said in it, oldest first.
    #[serde(default)]
    pub history: Vec<Said>,
    /// What memory gave, best first.
    #[serde(default)]
    pub memories: Vec<Memory>,
    /// The searches of it that were left out: `vector`, where the message could not be embedded as the memory is; `keyword`, where an index did not name what has its words.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// The embedder that its vectors are of, when it was not searched by them yet.
    #[serde(default)]
    pub embedder: Option<Embedder>,
    /// Whether the memory's words are in an index; none: nobody asked, there is no memory, or the index is being made.
    #[serde(default)]
    pub indexed: Option<bool>,
    /// What who asks is in their workspace; none: the operator.
    pub access: Option<Access>,
}

impl Referral {
    /// What the granter's counter has to know of it.
    pub fn visit(&self, receiver: &WorkspaceId) -> Visit {
        let prior = Prior {
            messages: self.history.len(),
            message_bytes: self.history.iter().map(|said| said.content.len()).sum(),
            memories: self.memories.len(),
            memory_bytes: self.memories.iter().map(|memory| memory.content.len()).sum(),
        };
        Visit { workspace: receiver.clone(), grant_id: self.grant_id, ticket: self.ticket.clone(), new_session: self.new_session, prior }
    }

    /// The granter's document, with what is the receiver's.
    pub fn complete(self, context: Context) -> Context {
        let Self { agent_id, session_id, new_session, history, memories, left_out, embedder, indexed, access, .. } = self;
        let agent = Agent { id: agent_id, ..context.agent };
        Context { agent, session_id, new_session, history, memories, left_out, embedder, indexed, access, ..context }
    }
}

/// A document whose outcome is not `ok`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Denial {
    /// Why.
    pub outcome: String,
    /// For `model_unpriced`: which.
    pub model: Option<ModelRef>,
    /// For `replay`: the stored answer with its text.
    pub replay: Option<Box<RawValue>>,
    /// For `replay`: what its receipt says.
    #[serde(default)]
    pub receipt: Option<String>,
    /// For `replay`: how that turn ended.
    pub replay_turn: Option<ReplayTurn>,
}

/// The turn that holds the idempotency key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayTurn {
    /// How it ended.
    pub status: String,
    /// The problem's code, if it failed.
    pub error_code: Option<String>,
}
