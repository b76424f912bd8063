//! What is said to a workspace's counter and what it answers: binding, object name, asks and answers, in one place for both sides.

use crate::alert::Alert;
use crate::guest::{Guest, Visit};
use crate::hold::Hold;
use crate::view::QuotaView;
use crate::window::{Amount, Scope};
use astra_kernel::money::is_zero;
use astra_kernel::{AgentId, MoneyError, NanoUsd, Price, SessionId, Timestamp, Tokens, TurnId, Usage, UsageSource, WorkspaceId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The Durable Object namespace's binding name.
pub const BINDING: &str = "QUOTA";

/// The object of a workspace. Workspace ids are safe as they are.
pub fn object_name(workspace: &WorkspaceId) -> String {
    workspace.to_string()
}

/// One message to the counter of one workspace.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope<W, A> {
    /// Whose counter.
    pub workspace: W,
    /// What is asked.
    pub ask: A,
}

/// What can be asked. Every ask may be sent again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// Read a turn's context and hold its budget.
    Begin(Box<Begin>),
    /// Read once more what memory gives to a turn that has begun: by vectors of the workspace's own embedder, by what an index of words has named.
    Recall(Box<Recall>),
    /// The workspace's words are to be in an index from now on; or that index is lost, and is to be made again.
    Index {
        /// Whether it is lost.
        lost: bool,
    },
    /// A turn is alive and has produced so much; grow its hold if asked to.
    Extend(Extend),
    /// Save a turn that has ended and settle its hold.
    Finish(Box<Record>),
    /// Ask a running turn to stop.
    Stop(Stop),
    /// Ask all running turns of an agent to stop whose grant was revoked; none that was beginning begins.
    Withdraw(AgentId),
    /// Show the limits and what is used of them; learn of limits that were changed.
    Status,
    /// Compare what you know of the ledger with the ledger, and go by the ledger from now on.
    Reconcile,
    /// Forget everything: the workspace is deleted.
    Forget,
    /// Say that you are there.
    Ping,
}

impl Ask {
    /// Its name, for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "begin",
            Self::Recall(_) => "recall",
            Self::Index { .. } => "index",
            Self::Extend(_) => "extend",
            Self::Finish(_) => "finish",
            Self::Stop(_) => "stop",
            Self::Withdraw(_) => "withdraw",
            Self::Status => "status",
            Self::Reconcile => "reconcile",
            Self::Forget => "forget",
            Self::Ping => "ping",
        }
    }
}

/// A turn that wants to begin. Beside `lease_millis` the fields are those of the SQL function `turn_begin`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begin {
    /// The turn.
    pub turn_id: TurnId,
    /// The conversation to go on with.
    pub session_id: Option<SessionId>,
    /// The id of the conversation that begins when `session_id` is none.
    pub new_session_id: SessionId,
    /// The agent that is asked.
    pub agent_id: AgentId,
    /// Who asks: the token's subject.
    pub subject: String,
    /// The token's own id: its bearer must be a member who may invoke agents. None for the operator.
    pub token_id: Option<String>,
    /// The user's words.
    pub message: String,
    /// The caller's key, if any.
    pub idempotency_key: Option<String>,
    /// A hash of what the caller sent.
    pub request_hash: String,
    /// The caller's own data about the turn.
    pub metadata: Option<Box<RawValue>>,
    /// Providers for which the deployment has a key.
    pub host_providers: Vec<String>,
    /// The model for agents whose provider has no key.
    pub default_model: Option<ModelRef>,
    /// The message's embedding in pgvector's text form, for the memories.
    pub embedding: Option<String>,
    /// How many memories at most.
    pub top_k: u32,
    /// How many messages of the conversation at most.
    pub history_limit: u32,
    /// How long a hold lives without a sign of life, in milliseconds.
    pub lease_millis: i64,
    /// Whether to say if the workspace's words are in an index of another server's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub asks_index: bool,
    /// Another workspace's turn, which this one pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Visit>,
    /// It is no turn but this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_turn: Option<Use>,
}

/// What costs money and is no turn: one call to a provider, made by a job. It is held and settled like a turn, with these differences: its whole maximum is held at once or it is refused, it is not
/// counted among the turns of a minute, it has no message, and if nothing is heard of it any more it is charged what was presumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Use {
    /// What it is.
    pub kind: UseKind,
    /// The model that is called. None: the agent's.
    pub model: Option<ModelRef>,
    /// How much the provider may count as input at most.
    pub input_bound: Tokens,
    /// How much it will probably count.
    pub presumed_input: Tokens,
    /// How much it is told to generate at most.
    pub max_output: Tokens,
}

impl Use {
    /// What it is charged when nothing is heard of it: the provider was asked, as far as anybody knows.
    pub fn presumed(&self) -> Usage {
        Usage { input_tokens: self.presumed_input.min(self.input_bound), source: UsageSource::Estimated, ..Usage::NONE }
    }
}

/// What a use is: the kind of its ledger entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UseKind {
    /// Texts as vectors. It belongs to no conversation, and is counted as [`AgentId::embedding`]'s.
    Embedding,
    /// Memories out of a conversation.
    Extraction,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(is: &bool) -> bool {
    !is
}

impl Begin {
    /// The argument of the SQL function `turn_begin`.
    ///
    /// # Errors
    /// [`serde_json::Error`].
    pub fn argument(&self, now: Timestamp) -> Result<String, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Argument<'a> {
            #[serde(flatten)]
            begin: &'a Begin,
            now: Timestamp,
        }
        serde_json::to_string(&Argument { begin: self, now })
    }
}

/// What memory is asked for: the argument of the SQL function `turn_recall`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recall {
    /// Who asks.
    pub subject: String,
    /// Their words.
    pub message: String,
    /// The same as a vector, in pgvector's text form; none: only its words are looked for.
    pub embedding: Option<String>,
    /// By which of the workspace's embedders; none: the local one.
    pub generation: Option<i32>,
    /// What an index says has the message's words, best first; none: Postgres looks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Vec<Uuid>>,
    /// Those of them that have half of the words, as the index says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sure: Vec<Uuid>,
    /// How many memories at most.
    pub top_k: u32,
}

/// A model by provider and id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelRef {
    /// The provider.
    pub provider: String,
    /// The model's id at the provider.
    pub model_id: String,
}

/// A sign of life.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extend {
    /// The turn.
    pub turn_id: TurnId,
    /// Counts up with each extension of the turn: an older one that arrives late changes nothing.
    pub sequence: u32,
    /// What was used so far, as far as it can be known. Charged if the turn dies.
    pub progress: Usage,
    /// How much input the hold must cover, if that is more than it does. Only before the model is called.
    #[serde(default)]
    pub input_bound: u64,
    /// How much output it must cover, if that is more than it does.
    #[serde(default)]
    pub output: u64,
    /// The stream stands still until it does.
    #[serde(default)]
    pub is_urgent: bool,
}

/// A request to stop.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// The turn.
    pub turn_id: TurnId,
    /// Only if it is this member's turn; none for who may stop everybody's.
    pub subject: Option<String>,
    /// Only if it is a turn of this other workspace's, which this one pays; none: only if it is one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<WorkspaceId>,
}

/// How a turn ended, as the database says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnStatus {
    /// The model ended it, or a limit did.
    Completed,
    /// The model failed.
    Failed,
    /// It was stopped by name.
    Stopped,
    /// Nothing was heard of it any more; the counter ended it.
    Expired,
}

/// A turn that has ended: the argument of the SQL function `turn_finish`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The turn.
    pub turn_id: TurnId,
    /// What it is, when it is no turn: a use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<UseKind>,
    /// Its conversation. None: a use that belongs to none.
    pub session_id: Option<SessionId>,
    /// Whether the conversation began with it.
    pub new_session: bool,
    /// The agent.
    pub agent_id: AgentId,
    /// Who asked.
    pub subject: String,
    /// How it ended.
    pub status: TurnStatus,
    /// Why the answer ended, if there is one.
    pub finish_reason: Option<String>,
    /// The user's words.
    pub message: String,
    /// The answer's text, if any was delivered.
    pub content: Option<String>,
    /// The model's provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Which version of its price.
    pub price_version: i32,
    /// What was used.
    pub usage: Usage,
    /// What it costs.
    pub cost_nano_usd: NanoUsd,
    /// The mark-up that its price came with: the database charges by it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub markup_basis_points: i32,
    /// It was served, and is priced, as a batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batch: bool,
    /// The caller's key, if any.
    pub idempotency_key: Option<String>,
    /// A hash of what the caller sent.
    pub request_hash: String,
    /// The problem's code, if it failed.
    pub error_code: Option<String>,
    /// The JSON answer without its text, for who asks again. The counter adds `quota`.
    pub answer: Option<Box<RawValue>>,
    /// The caller's own data about the turn.
    pub metadata: Option<Box<RawValue>>,
    /// When it began: the counter's clock, which decides its month.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// What the counter adds: which marks of which limits were passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<Alert>,
    /// Another workspace's turn, which this one pays: what was said is entered there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
}

impl Record {
    /// What its turn is charged.
    pub fn charge(&self) -> Amount {
        Amount { cost: self.cost_nano_usd, tokens: i64::try_from(self.usage.total_tokens()).unwrap_or(i64::MAX) }
    }
}

/// What the counter answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The turn may run.
    Begun(Box<Begun>),
    /// A limit is reached. Nothing is held.
    Refused(Refusal),
    /// The database says why the turn may not run (or has run already): `turn_begin`'s document, whose `outcome` is not `ok`.
    Denied(Box<RawValue>),
    /// `turn_recall`'s document: memories, or null where the workspace's embedder is another by now.
    Recalled(Box<RawValue>),
    /// The workspace's words will be in an index.
    Indexing,
    /// A turn with the same idempotency key and body is running.
    Running(TurnId),
    /// The idempotency key is a running turn's with another body.
    KeyReused,
    /// The sign of life was taken.
    Extended(Extended),
    /// The turn is saved, or will be: either way it is not lost.
    Finished(Finished),
    /// The running turn was told to stop.
    Stopping,
    /// The agent's turns were told to stop.
    Withdrawn,
    /// No such turn is running.
    NotRunning,
    /// The limits and what is used of them; none for an unknown workspace.
    Status(Option<QuotaView>),
    /// What was known of each window, and what the ledger says.
    Reconciled(Vec<Compared>),
    /// Everything is forgotten.
    Forgotten,
    /// The counter is there.
    Pong,
    /// The database cannot be reached; nothing was done.
    Unavailable,
    /// The database refused the statement, or answered out of form: a fault of ours. For the log.
    Fault(String),
}

impl Answer {
    /// Its name, for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begun(_) => "begun",
            Self::Refused(_) => "refused",
            Self::Denied(_) => "denied",
            Self::Recalled(_) => "recalled",
            Self::Indexing => "indexing",
            Self::Running(_) => "running",
            Self::KeyReused => "key_reused",
            Self::Extended(_) => "extended",
            Self::Finished(_) => "finished",
            Self::Stopping => "stopping",
            Self::Withdrawn => "withdrawn",
            Self::NotRunning => "not_running",
            Self::Status(_) => "status",
            Self::Reconciled(_) => "reconciled",
            Self::Forgotten => "forgotten",
            Self::Pong => "pong",
            Self::Unavailable => "unavailable",
            Self::Fault(_) => "fault",
        }
    }
}

/// One window of one scope: what the counter knew to be spent, and what the ledger says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The window, as [`Span::id`](crate::Span::id) writes it.
    pub window: String,
    /// Whose.
    pub scope: Scope,
    /// What the counter knew.
    pub counter: Amount,
    /// What the ledger says.
    pub ledger: Amount,
}

/// A turn that may run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    /// `turn_begin`'s document: all that the turn needs.
    pub context: Box<RawValue>,
    /// When the turn began, by the counter's clock.
    pub started_at: Timestamp,
    /// How many prompt tokens are held.
    pub input_bound: u64,
    /// How many output tokens are held: no more may be delivered before the hold has grown.
    pub output: u64,
    /// The most that it can grow to: what the model is told to stop at.
    pub max_output: u64,
    /// Which limit ends the answer there: the model's own length limit, or a budget.
    pub bounded_by_budget: bool,
    /// What is used and left, with this turn's hold in it.
    pub quota: QuotaView,
}

impl Begun {
    /// The answer for a hold.
    pub fn new(context: Box<RawValue>, hold: &Hold, quota: QuotaView) -> Self {
        let Hold { started_at, input_bound, output, max_output, bounded_by_budget, .. } = *hold;
        Self { context, started_at, input_bound, output, max_output, bounded_by_budget, quota }
    }
}

/// The answer to a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extended {
    /// The turn is asked to stop.
    pub stop: bool,
    /// The hold covers all that was asked for.
    pub covered: bool,
    /// It does not yet, but others may give back what it lacks: ask again soon.
    pub wait: bool,
    /// How many output tokens are held now: growing for input may have taken some.
    pub output: u64,
    /// The most that it can grow to.
    pub max_output: u64,
}

/// The answer to a turn's end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// False while the database is away: the record is kept durably and delivered later.
    pub saved: bool,
    /// What is used and left.
    pub quota: QuotaView,
    /// What the turn's receipt says, as the database wrote it. None while it is not saved, and of another workspace's turn, whose receipt is this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
}

/// A limit that is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Which limit, by its name in the API.
    pub limit: String,
    /// `workspace` or `agent`.
    pub scope: String,
    /// The limit: nano-dollars, tokens, turns or agents.
    pub max: i64,
    /// Used of it.
    pub used: i64,
    /// Held by running turns.
    pub held: i64,
    /// What this turn needs at least.
    pub needs: i64,
    /// When it starts anew, if it does.
    pub resets_at: Option<Timestamp>,
    /// Seconds after which trying again may help.
    pub retry_after: Option<i64>,
}

/// What the counter keeps of a running turn, to end it if it dies: the record as it would be with nothing produced, and its price.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// The record so far.
    pub record: Record,
    /// The price that its hold was made with.
    pub price: Price,
}

impl Draft {
    /// The record of its turn when nothing was heard of it any more: it is charged what was last reported.
    ///
    /// # Errors
    /// [`MoneyError`] when the cost does not fit.
    pub fn expired(self, hold: &Hold, now: Timestamp) -> Result<Record, MoneyError> {
        let usage = hold.charge_if_dead();
        let cost_nano_usd = self.price.cost(&usage)?;
        Ok(Record { status: TurnStatus::Expired, usage, cost_nano_usd, ended_at: now, ..self.record })
    }
}
