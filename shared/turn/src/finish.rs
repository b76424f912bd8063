//! Step 6: the turn's record to the counter, which settles and saves it.

use crate::TurnAsk;
use crate::answer::{StoredAnswer, TurnAnswer};
use crate::context::Context;
use crate::prompt;
use astra_host::settle::settle;
use astra_host::stream::TurnHost;
use astra_host::{Failure, receipts};
use astra_kernel::{AgentId, Code, NanoUsd, Price, Problem, SessionId, Timestamp, TurnId, Usage, UsageSource, WorkspaceId};
use astra_memory::Citation;
use astra_quota::Guest;
use astra_quota::words::{Record, TurnStatus};

/// What is known of a turn's record when it begins.
#[derive(Debug)]
pub struct Opening {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The turn.
    pub turn_id: TurnId,
    /// Its conversation.
    pub session_id: SessionId,
    /// What was asked.
    pub ask: TurnAsk,
    /// Who pays, when it is another workspace.
    pub payer: Option<Payer>,
    new_session: bool,
    provider: String,
    model: String,
    price: Price,
    citations: Vec<Citation>,
    left_out: Vec<String>,
    started_at: Timestamp,
}

/// The workspace that pays for another's turn.
#[derive(Debug)]
pub struct Payer {
    /// It, whose counter holds.
    pub workspace: WorkspaceId,
    /// What its counter calls the agent.
    pub agent_id: AgentId,
    /// Whose turn it is, and by which grant.
    pub guest: Guest,
}

impl Opening {
    pub(crate) fn new(
        workspace: WorkspaceId,
        turn_id: TurnId,
        ask: TurnAsk,
        context: &Context,
        started_at: Timestamp,
        payer: Option<Payer>,
    ) -> Self {
        Self {
            workspace,
            turn_id,
            session_id: context.session_id,
            ask,
            payer,
            new_session: context.new_session,
            provider: context.model.provider.clone(),
            model: context.model.model_id.clone(),
            price: context.price,
            citations: prompt::shown(context).filter_map(|memory| memory.citation.clone()).collect(),
            left_out: context.left_out.clone(),
            started_at,
        }
    }

    /// Whose counter holds and settles.
    pub fn counter(&self) -> &WorkspaceId {
        self.payer.as_ref().map_or(&self.workspace, |payer| &payer.workspace)
    }
}

/// How a turn ended.
#[derive(Debug)]
pub struct End {
    /// For the record.
    pub status: TurnStatus,
    /// Why the answer ended.
    pub finish_reason: &'static str,
    /// What was delivered.
    pub content: Option<String>,
    /// What was used.
    pub usage: Usage,
    /// The problem that the caller is told.
    pub error: Option<Code>,
}

impl End {
    /// It failed before anything was asked of a model.
    pub(crate) fn failed(code: Code) -> Self {
        let usage = Usage { source: UsageSource::Estimated, ..Usage::NONE };
        Self { status: TurnStatus::Failed, finish_reason: "error", content: None, usage, error: Some(code) }
    }
}

/// Saves and settles. The same turn may be sent again and again.
///
/// # Errors
/// When the counter cannot be reached. Saving goes on in the background for a while; when that is in vain too, or the process ends, the counter ends the turn
/// by itself, charged with what was last reported.
pub async fn finish<H: TurnHost>(host: &H, opening: Opening, end: End) -> Result<TurnAnswer, Failure> {
    let counter = opening.counter().clone();
    let Opening { workspace: _, turn_id, session_id, ask, payer, new_session, provider, model, price, citations, left_out, started_at } =
        opening;
    let End { status, finish_reason, content, usage, error } = end;
    let cost: NanoUsd = price.cost(&usage).map_err(|e| Failure::internal(format!("the cost of a turn: {e}")))?;
    let stored = StoredAnswer {
        turn_id,
        session_id,
        agent_id: ask.agent_id.clone(),
        content: None,
        finish_reason: finish_reason.to_owned(),
        usage,
        cost_nano_usd: if payer.is_none() { cost } else { NanoUsd::ZERO },
        paid_by: payer.as_ref().map(|payer| payer.workspace.clone()),
        quota: astra_quota::QuotaView::default(),
        citations,
        left_out,
    };
    let answer = error.is_none().then(|| serde_json::value::to_raw_value(&stored).ok()).flatten();
    let (agent_id, idempotency_key, guest) = match payer {
        None => (ask.agent_id, ask.idempotency_key, None),
        Some(Payer { workspace: _, agent_id, guest }) => (agent_id, ask.idempotency_key.map(|key| guest.key(&key)), Some(guest)),
    };
    let is_own = guest.is_none();
    let record = Record {
        turn_id,
        kind: None,
        session_id: Some(session_id),
        new_session,
        agent_id,
        subject: ask.subject,
        status,
        finish_reason: Some(finish_reason.to_owned()),
        message: ask.message,
        content: content.clone(),
        provider,
        model,
        price_version: price.version,
        usage,
        cost_nano_usd: cost,
        markup_basis_points: price.markup_basis_points,
        batch: false,
        idempotency_key,
        request_hash: ask.request_hash,
        error_code: error.map(|code| code.as_str().to_owned()),
        answer,
        metadata: ask.metadata,
        started_at,
        ended_at: host.now().max(started_at),
        alerts: Vec::new(),
        guest,
    };
    let Ok(finished) = settle(host, &counter, record).await else {
        let detail = "The answer could not be saved: the quota counter cannot be reached. It is tried for a while; then the turn is charged what \
                      was last reported.";
        return Err(Problem::new(Code::Unavailable, detail).into());
    };
    // What is left of another's limits is not told.
    let quota = if is_own { finished.quota } else { astra_quota::QuotaView::default() };
    let answer = StoredAnswer { content: Some(content.unwrap_or_default()), quota, ..stored };
    signed(host, answer, finished.receipt).await
}

/// The answer with its receipt, of what the database says of its entry. That it can be signed was looked at when the turn began.
pub(crate) async fn signed<H: TurnHost>(host: &H, answer: StoredAnswer, text: Option<String>) -> Result<TurnAnswer, Failure> {
    let receipt = match text {
        Some(text) => receipts::of(host, &text).await?,
        None => None,
    };
    Ok(TurnAnswer { receipt, ..answer.into() })
}
