//! The part of `turn_begin`'s document that the decision needs. The rest is passed on unread.

use crate::guest::{Prior, Visit};
use crate::window::Spans;
use crate::words::{Begin, Draft, ModelRef, Record, TurnStatus, Use};
use crate::{Request, Size};
use astra_kernel::{Access, AgentId, Allowance, Limits, NanoUsd, Permission, Price, SessionId, Timestamp, Tokens, Usage, UsageSource};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Output tokens of a model whose agent does not say how many it may generate.
pub const DEFAULT_MAX_OUTPUT: Tokens = 4096;

/// Bounds of what a provider adds around a message and around a prompt, in tokens: those of `astra_models::around`.
const AROUND_MESSAGE: usize = 16;
const AROUND_PROMPT: usize = 64;

/// The heading over memories in a system prompt, and the marks around each, in bytes.
const HEADING: usize = 64;
const MARKS: usize = 3;

/// What kind of answer it is.
#[derive(Debug, Deserialize)]
pub struct Outcome {
    /// `ok`, or why not.
    pub outcome: String,
    /// What the caller is in the workspace, where that was asked for: not for the operator.
    #[serde(default)]
    access: Option<Access>,
}

impl Outcome {
    /// The document that says so, when the caller's role does not let them invoke agents.
    pub fn denial(&self) -> Option<Box<RawValue>> {
        let denied = self.access.as_ref().is_some_and(|access| !access.allows(None, Permission::AgentInvoke));
        denied.then(|| RawValue::from_string(r#"{"outcome":"role_denied"}"#.to_owned()).ok()).flatten()
    }
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
    /// The conversation. None: a use that belongs to none.
    pub session_id: Option<SessionId>,
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
    /// When it was read, by the counter's clock.
    pub now: Timestamp,
    /// The windows of that moment.
    pub spans: Spans,
    /// The workspace's limits in this month: with what was carried into it.
    pub limits: Limits,
    /// What was carried into it is still to be written down.
    #[serde(default)]
    pub carry_due: bool,
}

/// What of the workspace a template may name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    owner_id: String,
}

/// The agent's limits and the sizes in its definition.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its id: a granted one is `GRANTER/AGENT`, however it was asked for. None: as it was asked for.
    id: Option<AgentId>,
    /// When its grant ends.
    until: Option<Timestamp>,
    /// Its limits of tokens and cost.
    #[serde(default)]
    pub allowance: Allowance,
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
    /// The turn as the decision sees it.
    pub fn request(&self, begin: &Begin) -> Request<'_> {
        Request {
            turn: begin.turn_id,
            agent: self.agent.id.as_ref().unwrap_or(&begin.agent_id).clone(),
            until: self.agent.until,
            subject: begin.subject.clone(),
            guest: begin.guest.as_ref().map(|visit| visit.workspace.clone()),
            key: begin.idempotency_key.clone().map(|key| (key, begin.request_hash.clone())),
            now: self.now,
            spans: &self.spans,
            limits: &self.limits,
            allowance: &self.agent.allowance,
            agent_count: self.agent_count,
            max_tokens_per_turn: self.agent.max_tokens_per_turn,
            size: self.size_of(begin),
            wanted_output: begin.no_turn.as_ref().map_or_else(|| self.wanted_output(), |it| it.max_output),
            presumed: begin.no_turn.as_ref().map(Use::presumed),
            price: self.price,
            lease_millis: begin.lease_millis,
        }
    }

    /// What is kept of the turn to end it if it dies: the record as it would be if that happened at once.
    pub fn draft(&self, begin: Begin, started_at: Timestamp) -> Draft {
        let Begin { turn_id, agent_id, subject, message, idempotency_key, request_hash, metadata, guest, no_turn, .. } = begin;
        let record = Record {
            turn_id,
            kind: no_turn.map(|it| it.kind),
            session_id: self.session_id,
            new_session: self.new_session,
            agent_id: self.agent.id.clone().unwrap_or(agent_id),
            subject,
            status: TurnStatus::Expired,
            finish_reason: None,
            message,
            content: None,
            provider: self.model.provider.clone(),
            model: self.model.model_id.clone(),
            price_version: self.price.version,
            usage: Usage { source: UsageSource::Estimated, ..Usage::NONE },
            cost_nano_usd: NanoUsd::ZERO,
            markup_basis_points: self.price.markup_basis_points,
            batch: false,
            idempotency_key,
            request_hash,
            error_code: Some("expired".into()),
            answer: None,
            metadata,
            started_at,
            ended_at: started_at,
            alerts: Vec::new(),
            guest: guest.as_ref().map(Visit::guest),
        };
        Draft { record, price: self.price }
    }

    fn size_of(&self, begin: &Begin) -> Size {
        match &begin.no_turn {
            Some(Use { input_bound, .. }) => Size { least: *input_bound, full: *input_bound },
            None => self.size(&begin.subject, &begin.message, begin.guest.as_ref().map(|visit| visit.prior).unwrap_or_default()),
        }
    }

    /// How many output tokens the agent would generate at most if there were no budget.
    pub fn wanted_output(&self) -> Tokens {
        self.agent.definition.model.max_output_tokens.unwrap_or(DEFAULT_MAX_OUTPUT).max(1)
    }

    /// Bounds of the prompt's size: a token is at least one byte. Templates are not rendered here; a prompt that turns out larger than this makes
    /// its turn grow the hold before the model is called. `prior` is what another workspace gives to it.
    pub fn size(&self, subject: &str, message: &str, prior: Prior) -> Size {
        let (around_message, around_prompt) = if self.model.provider == "local" { (0, 0) } else { (AROUND_MESSAGE, AROUND_PROMPT) };
        let template = &self.agent.definition.system_prompt_template;
        // Ids, plans and numbers have at most 64 bytes.
        let variable = 64.max(self.workspace.display_name.len()).max(self.workspace.owner_id.len()).max(subject.len());
        let rendered: usize =
            template.split("{{").skip(1).map(|after| variable.saturating_sub(after.find("}}").map_or(0, |end| end + 4))).sum();
        let memories = self.memories.iter().map(|m| m.content.len() + MARKS).sum::<usize>() + prior.memory_bytes + prior.memories * MARKS;
        let system = template.len() + rendered + if memories > 0 { HEADING + memories } else { 0 };
        let least = system + message.len() + 2 * around_message + around_prompt;
        let said = self.history.iter().map(|m| m.content.len() + around_message).sum::<usize>();
        let history = said + prior.message_bytes + prior.messages * around_message;
        Size { least: least as Tokens, full: (least + history) as Tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn size(provider: &str, template: &str, memories: &serde_json::Value) -> Size {
        let span = |period| json!({ "period": period, "startsAt": "2026-11-01T00:00:00.000Z", "endsAt": "2026-12-01T00:00:00.000Z" });
        let context: Context = serde_json::from_value(json!({
            "workspace": { "displayName": "ACME Corp", "ownerId": "o" }, "limits": {}, "agent": { "definition": { "systemPromptTemplate": template } },
            "model": { "provider": provider, "modelId": "m" },
            "price": { "version": 1, "inputNanoPerMtok": 1, "cachedInputNanoPerMtok": 1, "outputNanoPerMtok": 1 },
            "sessionId": "00000000-0000-7000-8000-000000000000", "newSession": true, "agentCount": 1, "now": "2026-11-24T00:00:00.000Z",
            "spans": { "hour": span("hour"), "day": span("day"), "month": span("month") },
            "history": [{ "content": "1234567890" }], "memories": memories
        }))
        .unwrap();
        let said = context.size("user", "hello", Prior::default());
        // The same when a receiver gives it: nobody else's is told.
        let of = |texts: &[Text]| (texts.len(), texts.iter().map(|text| text.content.len()).sum());
        let ((messages, message_bytes), (memories, memory_bytes)) = (of(&context.history), of(&context.memories));
        let bare = Context { history: vec![], memories: vec![], ..context };
        assert_eq!(bare.size("user", "hello", Prior { messages, message_bytes, memories, memory_bytes }), said);
        said
    }

    #[test]
    fn a_size_is_the_bytes_and_little_more() {
        assert_eq!(size("local", "Be kind.", &json!([])), Size { least: 8 + 5, full: 8 + 5 + 10 });
        assert_eq!(size("openai", "Be kind.", &json!([])), Size { least: 8 + 5 + 2 * 16 + 64, full: 8 + 5 + 3 * 16 + 64 + 10 });
        // A variable counts with the longest that any can be, in place of its own text.
        assert_eq!(size("local", "{{workspace.displayName}}", &json!([])).least, 64 + 5);
        assert_eq!(size("local", "", &json!([{ "content": "12345" }])).least, 64 + 8 + 5);
    }
}
