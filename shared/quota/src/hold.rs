//! A turn that wants a budget, and the budget that it is given.

use crate::waits::Waits;
use crate::window::{Amount, Cap, Period, Span, Spans};
use crate::words::{Extend, Extended};
use astra_kernel::{AgentId, Allowance, Limits, NanoUsd, Price, Timestamp, Tokens, TurnId, Usage, UsageSource, WorkspaceId};
use serde::{Deserialize, Serialize};

/// How large a prompt is, in tokens, as an upper bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Without the conversation so far: the turn cannot do with less.
    pub least: Tokens,
    /// With all of it.
    pub full: Tokens,
}

/// A turn that wants to begin.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The turn.
    pub turn: TurnId,
    /// The agent.
    pub agent: AgentId,
    /// When it may run no longer, if it is granted until then.
    pub until: Option<Timestamp>,
    /// Who asks.
    pub subject: String,
    /// Whose turn it is, when it is another workspace's.
    pub guest: Option<WorkspaceId>,
    /// The idempotency key and the request's hash.
    pub key: Option<(String, String)>,
    /// When it begins: the moment that `spans` are of.
    pub now: Timestamp,
    /// The windows that it begins in.
    pub spans: &'a Spans,
    /// The workspace's limits as they are now.
    pub limits: &'a Limits,
    /// The agent's.
    pub allowance: &'a Allowance,
    /// How many agents the workspace has.
    pub agent_count: i64,
    /// The agent's limit of input and output tokens of one turn.
    pub max_tokens_per_turn: Option<i64>,
    /// The prompt.
    pub size: Size,
    /// How many output tokens the model would be allowed without any budget.
    pub wanted_output: Tokens,
    /// Of a use, which is no turn: what it is charged if nothing is heard of it.
    pub presumed: Option<Usage>,
    /// The model's price.
    pub price: Price,
    /// How long the hold lives without a sign of life, in milliseconds.
    pub lease_millis: i64,
}

/// Budget set aside for a running turn: for its prompt, and for a slice of output that is enlarged as the output comes. It ends by
/// [`Counter::finish`](crate::Counter::finish), or by [`Counter::expired`](crate::Counter::expired) when nothing is heard of the turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The agent.
    pub agent: AgentId,
    /// Who asked.
    pub subject: String,
    /// Whose turn it is, when it is another workspace's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<WorkspaceId>,
    /// The idempotency key and the request's hash.
    pub key: Option<(String, String)>,
    /// When the turn began.
    pub started_at: Timestamp,
    /// The windows that it began in, its month first, also those that it has no limit over. (Of a hold that was kept before that was so, some.)
    pub spans: Vec<Span>,
    /// The limits of the decision, to decide again when the hold grows.
    pub caps: Vec<Cap>,
    /// The limit of one turn, likewise.
    pub max_tokens_per_turn: Option<i64>,
    /// The limit of turns a minute, to show it.
    pub max_turns_per_minute: Option<i64>,
    /// Prompt tokens that are covered.
    pub input_bound: Tokens,
    /// Output tokens that are covered. No more may be delivered.
    pub output: Tokens,
    /// The most that `output` can become: what the model is told to stop at.
    pub max_output: Tokens,
    /// Whether a budget, not the model's own limit, ends the answer at `max_output`.
    pub bounded_by_budget: bool,
    /// Cost that is held.
    pub cost: NanoUsd,
    /// The price that the hold was made with, and the settlement will be.
    pub price: Price,
    /// How long it lives without a sign of life, in milliseconds.
    pub lease_millis: i64,
    /// When it expires.
    pub expires_at: Timestamp,
    /// The last extension.
    pub sequence: u32,
    /// What was reported so far.
    pub progress: Usage,
    /// The turn is asked to stop.
    pub stop: bool,
    /// When it is, by itself: its agent is granted until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The turn stands still until others give back what they hold of this limit.
    #[serde(default)]
    pub waits: Option<Waits>,
}

impl Hold {
    /// What is held.
    pub fn amount(&self) -> Amount {
        Amount { cost: self.cost, tokens: i64::try_from(self.input_bound.saturating_add(self.output)).unwrap_or(i64::MAX) }
    }

    /// Whether it is counted in a window: it began in it. Which windows were looked at then makes no difference.
    pub fn is_in(&self, window: &Span) -> bool {
        window.contains(self.started_at)
    }

    /// The window of a length that it began in.
    pub fn span(&self, period: Period) -> Option<Span> {
        self.spans.iter().find(|span| span.period == period).copied()
    }

    /// Takes the windows of the workspace's time zone as it is now: of those that it began in, the limits of now look at these.
    pub fn tell(&mut self, spans: &Spans) {
        for span in spans.all().into_iter().filter(|span| span.contains(self.started_at)) {
            match self.spans.iter_mut().find(|known| known.period == span.period) {
                Some(known) => *known = span,
                None => self.spans.push(span),
            }
        }
    }

    /// Whether it covers all that a sign of life asks for.
    pub fn covers(&self, extend: &Extend) -> bool {
        extend.input_bound <= self.input_bound && extend.output.min(self.max_output) <= self.output
    }

    /// The answer to a sign of life.
    pub fn extended(&self, extend: &Extend, wait: bool) -> Extended {
        Extended { stop: self.stop, covered: self.covers(extend), wait, output: self.output, max_output: self.max_output }
    }

    /// What the turn is charged when it dies: what was last reported, never more than it held.
    pub fn charge_if_dead(&self) -> Usage {
        let Usage { input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, source: _ } = self.progress;
        let input = input_tokens.min(self.input_bound);
        let output = output_tokens.min(self.output);
        Usage {
            input_tokens: input,
            cached_input_tokens: cached_input_tokens.min(input),
            output_tokens: output,
            reasoning_tokens: reasoning_tokens.min(output),
            source: UsageSource::Estimated,
        }
    }
}
