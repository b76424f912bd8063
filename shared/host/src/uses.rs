//! What costs money and is no turn: one call to a provider that a job makes. Held at the workspace's counter before the provider is called, entered in the ledger once.
//!
//! [`begin`] holds all that the call may cost, or says why it must not be made. The [`UseHold`] that it gives is settled: by [`UseHold::finish`] with what the provider counted, or, when it
//! is dropped instead, in the background with what was presumed, because the provider may have been asked. A process that dies settles nothing; then the counter does, with the same, when
//! its lease is over.
//!
//! The trap: an id is one call's, not one job's. A job that makes its call again pays it again and needs a new id; under the old one the second call would be nobody's, so [`begin`] refuses
//! that ([`NotHeld::Known`]).

use crate::CounterUnreachable;
use crate::provider::{self, Model, Secret};
use crate::settle::settle;
use crate::stream::TurnHost;
use astra_kernel::{AgentId, Code, NanoUsd, Price, SessionId, Timestamp, Tokens, TurnId, Usage, UsageSource, WorkspaceId};
use astra_models::Endpoint;
use astra_quota::words::{Answer, Ask, Begin, Begun, ModelRef, Record, Refusal, TurnStatus, Use, UseKind};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How soon what a limit refused is tried again at the latest, in milliseconds: somebody may have raised it.
const AGAIN_MILLIS: i64 = 15 * 60_000;

/// What a job wants to call.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The call's id: a new one for each call.
    pub id: TurnId,
    /// What it is for.
    pub what: What,
    /// For whom: the member whose conversation it is, or who brought the document.
    pub subject: String,
    /// The model. None: the agent's.
    pub model: Option<ModelRef>,
    /// How many tokens the provider may count as input at most: a token is at least one byte.
    pub input_bound: Tokens,
    /// How many it will probably count.
    pub presumed_input: Tokens,
    /// How many it is told to generate at most.
    pub max_output: Tokens,
    /// How long the call may take at most, in milliseconds. After twice that the counter takes its job for dead.
    pub millis: i64,
}

/// What a call is for.
#[derive(Debug, Clone)]
pub enum What {
    /// Texts as vectors.
    Embedding,
    /// Memories out of a conversation with an agent.
    Extraction {
        /// The agent.
        agent_id: AgentId,
        /// The conversation, which must be the subject's.
        session_id: SessionId,
    },
}

/// Why a call must not be made (now).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// A limit is reached. The job waits, and the try does not count.
    #[error("{limit} does not pay for it: {used} used and {held} held of {max}, {needs} needed")]
    Full {
        /// Which, by its name in the API.
        limit: String,
        /// The limit.
        max: i64,
        /// Used of it.
        used: i64,
        /// Held by others.
        held: i64,
        /// What the call would need.
        needs: i64,
        /// When to try again.
        again_at: Timestamp,
    },
    /// It may not be made as things are: the workspace, its agent, its model, its price or its key stands against it.
    #[error("{0}")]
    Denied(&'static str),
    /// A call under this id was entered already.
    #[error("a call under this id was made already")]
    Known,
    /// The counter or its database is away; nothing is held.
    #[error(transparent)]
    Away(#[from] CounterUnreachable),
    /// A fault of ours.
    #[error("{0}")]
    Fault(String),
}

/// Money that is held for one call. See the module's head.
#[must_use = "a hold is settled"]
pub struct UseHold<H: TurnHost> {
    host: H,
    workspace: WorkspaceId,
    /// The record as it is when nothing more is heard. None once it is settled.
    draft: Option<Box<Record>>,
    price: Price,
    batch_price: Option<Price>,
    max_output: Tokens,
}

impl<H: TurnHost> std::fmt::Debug for UseHold<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UseHold").field("id", &self.draft.as_ref().map(|draft| draft.turn_id)).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    agent: Agent,
    model: Model,
    price: Price,
    #[serde(default)]
    batch_price: Option<Price>,
    secret: Option<Secret>,
}

#[derive(Deserialize)]
struct Agent {
    id: AgentId,
}

/// Holds what a call may cost at most. The endpoint is where the model is reached, as the operator configured it.
///
/// # Errors
/// [`NotHeld`]; then nothing is held and nothing was called.
pub async fn begin<H: TurnHost>(host: &H, workspace: &WorkspaceId, wanted: Wanted) -> Result<(UseHold<H>, Endpoint), NotHeld> {
    let Wanted { id, what, subject, model, input_bound, presumed_input, max_output, millis } = wanted;
    let (kind, agent_id, session_id) = match what {
        What::Embedding => (UseKind::Embedding, AgentId::embedding(), None),
        What::Extraction { agent_id, session_id } => (UseKind::Extraction, agent_id, Some(session_id)),
    };
    let no_turn = Use { kind, model, input_bound, presumed_input, max_output };
    let presumed = no_turn.presumed();
    let default_model = provider::default_model(host.shared()).map_err(|error| NotHeld::Fault(error.to_string()))?;
    let words = Ask::Begin(Box::new(Begin {
        turn_id: id,
        session_id,
        new_session_id: SessionId(uuid::Uuid::nil()),
        agent_id,
        subject: subject.clone(),
        token_id: None,
        message: String::new(),
        idempotency_key: None,
        request_hash: String::new(),
        metadata: None,
        host_providers: provider::host_providers(host.shared()),
        default_model,
        embedding: None,
        top_k: 0,
        history_limit: 0,
        lease_millis: millis.saturating_mul(2),
        asks_index: false,
        guest: None,
        no_turn: Some(no_turn),
    }));
    let Begun { context, started_at, .. } = match host.ask(workspace, &words).await? {
        Answer::Begun(begun) => *begun,
        Answer::Refused(refusal) => return Err(full(refusal, host.now())),
        Answer::Denied(document) => return Err(denied(&document)),
        Answer::Unavailable => return Err(CounterUnreachable.into()),
        Answer::Fault(state) => return Err(NotHeld::Fault(format!("use_begin: {state}"))),
        _ => return Err(NotHeld::Fault("the counter answered something else".to_owned())),
    };
    let fault = |error: &dyn std::fmt::Display| NotHeld::Fault(format!("use_begin's document: {error}"));
    // What cannot be read was held all the same: the counter ends it by itself.
    let Context { agent, model, price, batch_price, secret } =
        astra_kernel::json::from_str(context.get()).map_err(|error| fault(&error))?;
    let cost_nano_usd = price.cost(&presumed).map_err(|error| fault(&error))?;
    let endpoint = provider::endpoint(host, workspace, &model, secret.as_ref());
    let draft = Record {
        turn_id: id,
        kind: Some(kind),
        session_id,
        new_session: false,
        agent_id: agent.id,
        subject,
        status: TurnStatus::Failed,
        finish_reason: None,
        message: String::new(),
        content: None,
        provider: model.provider,
        model: model.model_id,
        price_version: price.version,
        usage: presumed,
        cost_nano_usd,
        markup_basis_points: price.markup_basis_points,
        batch: false,
        idempotency_key: None,
        request_hash: String::new(),
        error_code: Some(Code::Internal.as_str().to_owned()),
        answer: None,
        metadata: None,
        started_at,
        ended_at: started_at,
        alerts: Vec::new(),
        guest: None,
    };
    // What is held pays for a batch only where nothing costs more as one.
    let batch_price = batch_price.filter(|batch| batch.is_never_above(&price));
    let hold = UseHold { host: host.clone(), workspace: workspace.clone(), draft: Some(Box::new(draft)), price, batch_price, max_output };
    match endpoint {
        Ok(endpoint) => Ok((hold, endpoint)),
        Err(problem) => {
            hold.release(problem.code).await?;
            Err(NotHeld::Denied("The workspace's key for the model's provider cannot be opened, or the provider is not known."))
        }
    }
}

impl<H: TurnHost> UseHold<H> {
    /// How many tokens the model is to be told to generate at most.
    pub fn max_output(&self) -> Tokens {
        self.max_output
    }

    /// Whether it is known what the call costs at the provider's batch rates.
    pub fn may_be_batch(&self) -> bool {
        self.batch_price.is_some()
    }

    /// The provider says that it serves the call as a batch: it is charged so, also what is presumed of it. Without a batch rate it is charged as held.
    pub fn at_batch_rates(&mut self) {
        let (Some(price), Some(draft)) = (self.batch_price.take(), self.draft.as_mut()) else { return };
        let Ok(presumed) = price.cost(&draft.usage) else { return };
        self.price = price;
        (draft.price_version, draft.batch, draft.cost_nano_usd) = (price.version, true, presumed);
    }

    /// The call was made: it is charged what the provider counted, also if its answer is of no use (`failed` says why). An estimate is never charged beyond what was held.
    ///
    /// # Errors
    /// When the counter cannot be reached: it is tried for a while more, and then charged what was presumed.
    pub async fn finish(mut self, usage: Usage, failed: Option<Code>) -> Result<NanoUsd, NotHeld> {
        let Some(draft) = self.draft.take() else { return Ok(NanoUsd::ZERO) };
        let usage = match usage.source {
            UsageSource::Provider => usage,
            UsageSource::Estimated => Usage { output_tokens: usage.output_tokens.min(self.max_output), ..usage },
        };
        let cost_nano_usd = match self.price.cost(&usage) {
            Ok(cost) => cost,
            Err(error) => {
                // Dropped, it is charged what was presumed.
                self.draft = Some(draft);
                return Err(NotHeld::Fault(format!("the cost of a use: {error}")));
            }
        };
        let status = if failed.is_none() { TurnStatus::Completed } else { TurnStatus::Failed };
        let ended_at = self.host.now().max(draft.started_at);
        let error_code = failed.map(|code| code.as_str().to_owned());
        let record = Record { status, usage, cost_nano_usd, error_code, ended_at, ..*draft };
        settle(&self.host, &self.workspace, record).await?;
        Ok(cost_nano_usd)
    }

    /// The call was not made, or the provider refused it: it costs nothing.
    ///
    /// # Errors
    /// As [`UseHold::finish`].
    pub async fn release(self, failed: Code) -> Result<(), NotHeld> {
        self.finish(Usage { source: UsageSource::Estimated, ..Usage::NONE }, Some(failed)).await.map(drop)
    }
}

impl<H: TurnHost> Drop for UseHold<H> {
    fn drop(&mut self) {
        let Some(draft) = self.draft.take() else { return };
        let (host, workspace) = (self.host.clone(), self.workspace.clone());
        let ended_at = host.now().max(draft.started_at);
        self.host.background(async move {
            // When it cannot be saved, it is tried for a while in there, and then the counter ends it.
            let _ = settle(&host, &workspace, Record { ended_at, ..*draft }).await;
        });
    }
}

fn full(refusal: Refusal, now: Timestamp) -> NotHeld {
    let Refusal { limit, scope: _, max, used, held, needs, resets_at: _, retry_after } = refusal;
    let millis = retry_after.map_or(AGAIN_MILLIS, |seconds| seconds.saturating_mul(1000).clamp(1000, AGAIN_MILLIS));
    NotHeld::Full { limit, max, used, held, needs, again_at: now.plus_millis(millis) }
}

fn denied(document: &RawValue) -> NotHeld {
    #[derive(Deserialize)]
    struct Denial {
        outcome: String,
    }
    let Ok(Denial { outcome }) = astra_kernel::json::from_str::<Denial>(document.get()) else {
        return NotHeld::Fault("use_begin's document".to_owned());
    };
    NotHeld::Denied(match outcome.as_str() {
        "use_known" => return NotHeld::Known,
        "workspace_unknown" | "workspace_inactive" => "The workspace is not there, or not active.",
        "agent_denied" => "The conversation's agent is not there any more.",
        "session_unknown" => "The conversation is not there any more.",
        "model_unavailable" => "There is no key for the model's provider.",
        "model_forbidden" => "The workspace's restrictions do not list the model.",
        "model_unpriced" => "The model has no price, so it is not called.",
        _ => return NotHeld::Fault(format!("use_begin answered {outcome}")),
    })
}

#[cfg(test)]
mod tests;
