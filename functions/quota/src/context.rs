//! The part of `turn_begin`'s document that the decision needs. The rest is passed on unread.

use astra_kernel::{Limits, NanoUsd, Price, SessionId, Tokens};
use astra_quota::{Size, Spent, words::ModelRef};
use serde::Deserialize;

/// Output tokens of a model whose agent does not say how many it may generate.
pub const DEFAULT_MAX_OUTPUT: Tokens = 4096;

/// Bounds of what a provider adds around a message and around a prompt, and of a rendered variable, in tokens or bytes. At least those of
/// `astra_models::prompt_upper_bound`; a prompt that turns out larger makes its turn grow the hold first.
const AROUND_MESSAGE: usize = 16;
const AROUND_PROMPT: usize = 160;
const VARIABLE: usize = 256;

/// What kind of answer it is.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// `ok`, or why not.
    pub outcome: String,
}

/// What a decision needs of an `ok` document.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Context {
    /// The workspace.
    pub workspace: Workspace,
    /// The agent.
    pub agent: Agent,
    /// The model that will be called.
    pub model: ModelRef,
    /// Its price.
    pub price: Price,
    /// The conversation.
    pub session_id: SessionId,
    /// Whether it begins with this turn.
    pub new_session: bool,
    /// What was said in it.
    #[serde(default)]
    history: Vec<Text>,
    /// What memory gave.
    #[serde(default)]
    memories: Vec<Text>,
    /// How many agents the workspace has.
    pub agent_count: i64,
    /// What the ledger says was spent, when it was asked.
    pub spent: Option<Spent>,
}

/// The workspace's limits.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    /// As they are now.
    #[serde(default)]
    pub limits: Limits,
}

/// The agent's limits and the sizes in its definition.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its monthly cost.
    pub max_cost_nano_usd_per_month: Option<NanoUsd>,
    /// Input and output of one turn.
    pub max_tokens_per_turn: Option<i64>,
    definition: Definition,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    #[serde(default)]
    system_prompt_template: String,
    #[serde(default)]
    model: Model,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    max_output_tokens: Option<Tokens>,
}

#[derive(Debug, Deserialize)]
struct Text {
    content: String,
}

impl Context {
    /// How many output tokens the agent would generate at most if there were no budget.
    pub fn wanted_output(&self) -> Tokens {
        self.agent.definition.model.max_output_tokens.unwrap_or(DEFAULT_MAX_OUTPUT).max(1)
    }

    /// Bounds of the prompt's size: a token is at least one byte.
    pub fn size(&self, message: &str) -> Size {
        let template = &self.agent.definition.system_prompt_template;
        let system = template.len() + template.matches("{{").count() * VARIABLE;
        // Memories may be in the system prompt and are counted beside it too.
        let memories: usize = self.memories.iter().map(|m| 2 * m.content.len() + AROUND_MESSAGE).sum();
        let least = AROUND_PROMPT + 2 * AROUND_MESSAGE + system + memories + message.len();
        let history: usize = self.history.iter().map(|m| m.content.len() + AROUND_MESSAGE).sum();
        Size { least: least as Tokens, full: (least + history) as Tokens }
    }
}
