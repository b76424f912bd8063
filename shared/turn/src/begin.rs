//! Steps 2 to 4: the hold and the context in one call, the prompt.
//!
//! Where the agent is another workspace's and that one pays, the call to this workspace's counter holds nothing and says whom to ask ([`Referral`]): a second call, to the
//! granter's counter, holds. From then on the turn speaks with that one alone.

use crate::answer::{StoredAnswer, TurnAnswer};
use crate::context::{Context, Denial, Referral};
use crate::finish::{self, End, Payer};
use crate::hold::TurnHold;
use crate::meter::Meter;
use crate::recall::{Words, once_more, put_back};
use crate::{Running, TurnSettings, prompt};
use astra_host::stream::TurnHost;
use astra_host::{Call, Failure, provider};
use astra_kernel::{AgentId, Code, Permission, Problem, SessionId, TurnId, WorkspaceId};
use astra_models::{embed, prompt_upper_bound};
use astra_quota::QuotaView;
use astra_quota::words::{Answer, Ask, Begin, Begun as Held, Extend, ModelRef, Refusal};
use astra_store::audit::Because;
use serde_json::value::RawValue;

/// Memories that a turn asks for.
pub(crate) const TOP_K: u32 = 5;

/// Messages of the conversation that a turn asks for.
const HISTORY: u32 = 40;

/// How often, in milliseconds, and how often at most, to ask again while a turn with the same key runs.
const RUNNING_WAIT: u32 = 250;

/// What the caller wants.
#[derive(Debug)]
pub struct TurnAsk {
    /// The agent.
    pub agent_id: AgentId,
    /// The user's words.
    pub message: String,
    /// The conversation to go on with.
    pub session_id: Option<SessionId>,
    /// The caller's own data.
    pub metadata: Option<Box<RawValue>>,
    /// The caller's key.
    pub idempotency_key: Option<String>,
    /// A hash of the body.
    pub request_hash: String,
    /// Who asks.
    pub subject: String,
    /// The id of their token; none: the operator.
    pub token_id: Option<String>,
    /// What their token is narrowed to.
    pub scope: Option<Vec<String>>,
}

/// A turn has begun, or has been before.
#[derive(Debug)]
pub enum Begun<H: TurnHost> {
    /// Now [`crate::run`] must run it.
    Running(Box<Running<H>>),
    /// The same key and body: the answer that was given.
    Replay(Box<TurnAnswer>),
}

/// Begins a turn.
///
/// # Errors
/// What the caller is told when it may not begin. Nothing is held then, and the user's message is saved where the turn had begun.
pub async fn begin<H: TurnHost>(call: &Call<H>, workspace: &WorkspaceId, ask: TurnAsk) -> Result<Begun<H>, Failure> {
    let host = &call.host;
    let settings = TurnSettings::read(host.shared())?;
    let started = host.now();
    let turn_id = TurnId(host.new_id());
    let embedding = embed::to_pgvector(&embed::local_embedding(&ask.message));
    let mut words = settings.typesense.clone().map(|typesense| Words::look_for(host, typesense, workspace, &ask.subject, &ask.message));
    let begin = Ask::Begin(Box::new(Begin {
        turn_id,
        session_id: ask.session_id,
        new_session_id: SessionId(host.new_id()),
        agent_id: ask.agent_id.clone(),
        subject: ask.subject.clone(),
        token_id: ask.token_id.clone(),
        message: ask.message.clone(),
        idempotency_key: ask.idempotency_key.clone(),
        request_hash: ask.request_hash.clone(),
        metadata: ask.metadata.clone(),
        host_providers: settings.host_providers.clone(),
        default_model: settings.default_model.clone(),
        embedding: Some(embedding),
        top_k: TOP_K,
        history_limit: HISTORY,
        lease_millis: settings.lease_millis,
        asks_index: words.is_some(),
        guest: None,
        no_turn: None,
    }));
    // Whether a turn with the same key has ended between the two calls: the workspace has its answer now.
    let asks_again = |document: &RawValue| read::<Denial>(document).is_ok_and(|denial| denial.outcome == "key_taken");
    let (held, referral) = loop {
        let (answer, referral) = Words::meanwhile(words.as_mut(), ask_who_pays(host, workspace, &begin)).await?;
        match answer {
            Answer::Begun(held) => break (held, referral),
            Answer::Denied(denial) if !asks_again(&denial) => return denied(call, workspace, denial.get(), referral.is_some()).await,
            Answer::Refused(refusal) => return Err(if referral.is_some() { refused_there(&refusal) } else { refused(&refusal) }.into()),
            Answer::Running(_) | Answer::Denied(_) if host.now().0 - started.0 < settings.deadline_millis => host.sleep(RUNNING_WAIT).await,
            Answer::Running(_) | Answer::Denied(_) => {
                let detail = "A turn with this Idempotency-Key is still running. Ask again with the same key.";
                return Err(Problem::new(Code::Unavailable, detail).with_retry_after(1).into());
            }
            Answer::KeyReused => return Err(key_reused().into()),
            Answer::Unavailable => return Err(unavailable().into()),
            Answer::Fault(state) => return Err(Failure::internal(format!("turn_begin: {state}"))),
            _ => return Err(Failure::internal("the counter answered something else")),
        }
    };
    call.trace.phase("begin", host.now().0 - started.0);
    prepare(call, workspace, ask, turn_id, (*held, referral), words, &settings).await
}

/// Asks the workspace's counter; the granter's, where that one pays. What the receiver gives to the turn comes with the second answer.
async fn ask_who_pays<H: TurnHost>(host: &H, workspace: &WorkspaceId, begin: &Ask) -> Result<(Answer, Option<Referral>), Failure> {
    let answer = host.ask(workspace, begin).await?;
    let (Answer::Denied(document), Ask::Begin(begin)) = (&answer, begin) else { return Ok((answer, None)) };
    if read::<Denial>(document)?.outcome != "payer" {
        return Ok((answer, None));
    }
    let referral: Referral = read(document)?;
    let visit = referral.visit(workspace);
    let guests = Begin {
        session_id: None,
        new_session_id: referral.session_id,
        agent_id: referral.counted_as.clone(),
        // Who it is, and whether they may, was the receiver's to say.
        token_id: None,
        idempotency_key: begin.idempotency_key.as_deref().map(|key| visit.guest().key(key)),
        metadata: None,
        embedding: None,
        asks_index: false,
        guest: Some(visit),
        ..begin.as_ref().clone()
    };
    let answer = host.ask(&referral.granter, &Ask::Begin(Box::new(guests))).await?;
    Ok((answer, Some(referral)))
}

fn read<'a, T: serde::Deserialize<'a>>(document: &'a RawValue) -> Result<T, Failure> {
    astra_kernel::json::from_str(document.get()).map_err(|e| Failure::internal(format!("turn_begin's document: {e}")))
}

/// From here on the turn exists: whatever fails is saved as its end.
async fn prepare<H: TurnHost>(
    call: &Call<H>,
    workspace: &WorkspaceId,
    mut ask: TurnAsk,
    turn_id: TurnId,
    (begun, referral): (Held, Option<Referral>),
    words: Option<Words>,
    settings: &TurnSettings,
) -> Result<Begun<H>, Failure> {
    let host = &call.host;
    let mut context: Context = read(&begun.context)?;
    let mut payer = None;
    if let Some(referral) = referral {
        let guest = referral.visit(workspace).guest();
        payer = Some(Payer { workspace: referral.granter.clone(), agent_id: referral.counted_as.clone(), guest });
        context = referral.complete(context);
    }
    context.keep_what_may_be_told(ask.scope.as_deref());
    let counter = payer.as_ref().map_or(workspace, |payer| &payer.workspace).clone();
    // A granted agent is its granter's, however it was asked for.
    ask.agent_id = context.agent.id.clone();
    let before = once_more(call, workspace, &ask.subject, &ask.message, words, &mut context).await;
    let mut prompt = prompt::build(&context, &ask.subject, &ask.message, begun.max_output);
    let endpoint = provider::endpoint(host, &counter, &context.model, context.secret.as_ref());
    let Held { context: _, started_at, mut input_bound, mut output, max_output, bounded_by_budget, quota } = begun;
    // What is left of another's limits is not told.
    let quota = if payer.is_none() { quota } else { QuotaView::default() };
    let first_bound = input_bound;
    if let (Ok(larger), Ok(endpoint), Some(before)) = (&mut prompt, &endpoint, before)
        && prompt_upper_bound(endpoint.provider, larger) > input_bound
    {
        // Nothing that was said is left out for what was found, and no turn is refused for it.
        let bound = prompt_upper_bound(endpoint.provider, larger);
        match grow(host, &counter, turn_id, bound).await {
            Ok((held, most)) if most > 0 => (input_bound, output, larger.max_output_tokens) = (bound, held, most),
            _ => {
                put_back(&mut context, before);
                prompt = prompt::build(&context, &ask.subject, &ask.message, max_output);
            }
        }
    }
    if let (Ok(prompt), Ok(endpoint)) = (&mut prompt, &endpoint)
        && !prompt::trim(prompt, endpoint.provider, input_bound)
    {
        input_bound = prompt_upper_bound(endpoint.provider, prompt);
        (output, prompt.max_output_tokens) = grow(host, &counter, turn_id, input_bound).await?;
    }
    let deadline = started_at.plus_millis(settings.deadline_millis);
    let opening = finish::Opening::new(workspace.clone(), turn_id, ask, &context, started_at, payer);
    let meter = Meter::new(output, prompt.as_ref().map_or(0, |prompt| prompt.max_output_tokens));
    if input_bound > first_bound {
        meter.called();
    }
    let hold = TurnHold::new(host.clone(), opening, input_bound, meter);
    let problem = match (prompt, endpoint) {
        (Ok(prompt), Ok(endpoint)) if prompt.max_output_tokens > 0 => {
            let request_id = call.request_id.clone();
            let bounded_by_budget = bounded_by_budget || prompt.max_output_tokens < max_output;
            return Ok(Begun::Running(Box::new(Running { hold, prompt, endpoint, bounded_by_budget, deadline, request_id, quota })));
        }
        (Err(problem), _) | (_, Err(problem)) => problem,
        _ => {
            let detail = "The agent's prompt is larger than what is left of its limits (maxTokensPerTurn or a budget).";
            Problem { limit: Some("maxTokensPerTurn".into()), ..Problem::new(Code::QuotaExceeded, detail) }
        }
    };
    hold.settle(End::failed(problem.code)).await?;
    Err(problem.into())
}

/// A prompt that rendered larger than its bound: the hold grows first. Returns the output that is held beside it and the most that it can grow to: none
/// if it does not fit.
async fn grow<H: TurnHost>(host: &H, counter: &WorkspaceId, turn_id: TurnId, input_bound: u64) -> Result<(u64, u64), Failure> {
    let progress = astra_kernel::Usage::NONE;
    let extend = Extend { turn_id, sequence: 0, progress, input_bound, output: 0, is_urgent: false };
    match host.ask(counter, &Ask::Extend(extend)).await? {
        Answer::Extended(extended) if extended.covered => Ok((extended.output, extended.max_output)),
        _ => Ok((0, 0)),
    }
}

/// Why it may not begin. `elsewhere`: the granter's counter says so, which pays.
async fn denied<H: TurnHost>(call: &Call<H>, workspace: &WorkspaceId, document: &str, elsewhere: bool) -> Result<Begun<H>, Failure> {
    let host = &call.host;
    let Denial { outcome, model, replay, receipt, replay_turn } =
        astra_kernel::json::from_str(document).map_err(|e| Failure::internal(format!("turn_begin's document: {e}")))?;
    let model = model.map_or_else(|| "?".to_owned(), |ModelRef { provider, model_id }| format!("{provider}/{model_id}"));
    let because = match outcome.as_str() {
        "no_member" => Some(Because::NoMember),
        "token_revoked" => Some(Because::Revoked),
        "role_denied" => Some(Because::Role),
        _ => None,
    };
    if let Some(because) = because.filter(|_| !elsewhere) {
        call.note_denial(&call.claims().await?, workspace, Permission::AgentInvoke, because)?;
    }
    let problem = match outcome.as_str() {
        "replay" => return replayed(host, replay, receipt, replay_turn.and_then(|t| t.error_code)).await,
        "key_reused" => key_reused(),
        // The same whether the agent, or the workspace, exists or not.
        "agent_denied" | "workspace_unknown" | "workspace_inactive" => {
            Problem::new(Code::Forbidden, "This workspace has no such agent that you may use.")
        }
        "no_member" => Problem::no_member(),
        "token_revoked" => Problem::token_revoked(),
        "role_denied" => Problem::forbidden(Permission::AgentInvoke.as_str()),
        "model_forbidden" if elsewhere => Problem::new(
            Code::Forbidden,
            "The granted agent's model is not one that both workspaces may use: their restrictions do not list it.",
        ),
        "model_unavailable" if elsewhere => {
            Problem::new(Code::ModelUnavailable, "The workspace that grants the agent, and pays, has no key for the agent's model.")
        }
        "model_forbidden" => {
            Problem::new(Code::Forbidden, format!("This workspace may not use the model {model}: its restrictions do not list it."))
        }
        "session_unknown" => Problem::not_found("session of yours"),
        "model_unpriced" => Problem::new(
            Code::ModelUnpriced,
            format!("The model {model} has no price, so it is not called. The operator sets one with PUT /billing/prices."),
        ),
        "model_unavailable" => Problem::new(
            Code::ModelUnavailable,
            "There is no key for the agent's model: set the workspace's secret (OPENAI_API_KEY or ANTHROPIC_API_KEY), or the deployment's, or DEFAULT_MODEL.",
        ),
        _ => return Err(Failure::internal(format!("turn_begin's outcome {outcome}"))),
    };
    Err(problem.into())
}

async fn replayed<H: TurnHost>(
    host: &H,
    replay: Option<Box<RawValue>>,
    receipt: Option<String>,
    error_code: Option<String>,
) -> Result<Begun<H>, Failure> {
    if let Some(error) = error_code {
        // What passes would be asked for again and again: this does not pass.
        let code = Code::ALL.into_iter().find(|code| code.as_str() == error && code.status() != 503).unwrap_or(Code::Conflict);
        let detail = format!("The turn with this Idempotency-Key failed ({error}). It is not run again: send a new key to try again.");
        return Err(Problem::new(code, detail).into());
    }
    let stored: Result<StoredAnswer, _> = astra_kernel::json::from_str(replay.as_ref().map_or("{}", |replay| replay.get()));
    let answer = stored.map_err(|e| Failure::internal(format!("a stored answer: {e}")))?;
    Ok(Begun::Replay(Box::new(finish::signed(host, answer, receipt).await?)))
}

fn key_reused() -> Problem {
    Problem::new(Code::IdempotencyKeyReused, "This Idempotency-Key was used with another body, or by another member. Send a new key.")
}

fn unavailable() -> Problem {
    Problem::new(Code::Unavailable, "The database cannot be reached, so nothing is started. Try again.").with_retry_after(1)
}

/// A limit of the workspace that pays is reached. Which one is told, and when to try again; none of its figures.
fn refused_there(refusal: &Refusal) -> Problem {
    let limit = &refusal.limit;
    let whose = if refusal.scope == "agent" && limit != "maxTokensPerTurn" { "grant" } else { "granting workspace" };
    let detail = format!("The {whose}'s limit {limit} is reached: the agent is another workspace's, which pays for it.");
    Problem { limit: Some(limit.clone()), retry_after: refusal.retry_after, ..Problem::new(Code::QuotaExceeded, detail) }
}

/// A limit that is reached, for the caller.
fn refused(refusal: &Refusal) -> Problem {
    let Refusal { limit, scope, max, used, held, needs, resets_at, retry_after } = refusal;
    let amount = |n: i64| match limit.as_str() {
        cost if cost.starts_with("maxCostUsd") => format!("{} USD", astra_kernel::NanoUsd(n).to_usd_text()),
        "maxTurnsPerMinute" => format!("{n} turns"),
        "maxAgents" => format!("{n} agents"),
        _ => format!("{n} tokens"),
    };
    let detail = format!(
        "The {scope}'s limit {limit} of {} is reached: {} used, {} held by running turns; this turn needs at least {}.",
        amount(*max),
        amount(*used),
        amount(*held),
        amount(*needs)
    );
    let mut problem = Problem::new(Code::QuotaExceeded, detail);
    problem.limit = Some(limit.clone());
    problem.used = Some(*used);
    problem.resets_at = *resets_at;
    problem.retry_after = *retry_after;
    problem
}
