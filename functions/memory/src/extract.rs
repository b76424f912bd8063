//! Memories out of a conversation: what was said since it was read last, by rules or by a model.
//!
//! 1. What was said is data. Whose a memory becomes is the session's to say, never the text's: the person's own, or, where they may write those, the workspace's. Who may write no memories
//!    has none written.
//! 2. What a model costs is held before it is called and entered as an extraction ([`astra_host::uses`]). A full budget makes the job wait; nothing is spent then.
//! 3. An answer that is not as it was asked for is refused as a whole. It was paid for; it is asked for twice more at most, then the job is dead.
//! 4. All that becomes of it is written in one transaction with the job's end. What was learnt from a text never gets into a log or an error.

use crate::work::Undone;
use astra_host::embedder::{self, embed};
use astra_host::provider;
use astra_host::stream::TurnHost;
use astra_host::uses::{self, UseHold, What};
use astra_kernel::{Code, Permission, TurnId, Usage};
use astra_memory::extract::{Extracted, Said, Speaker, answer, prompt, rules};
use astra_memory::hash::content_hash;
use astra_memory::near::{Known, Verdict, decide};
use astra_memory::{Kind, Scope};
use astra_models::{
    Ended, Endpoint, Generation, MAX_BATCH, Message, MessageRole, ModelError, Piece, Prompt, Provider, Retry, estimate_input,
    prompt_upper_bound,
};
use astra_quota::words::ModelRef;
use astra_store::Tenant;
use astra_store::documents::Step;
use astra_store::extract::{Conversation, Extraction, Kept, Model, Near, Read, Reading, Wanted};
use astra_store::jobs::Lease;
use futures_util::future::{Either, select};
use std::pin::pin;
use uuid::Uuid;

/// How many bytes of a conversation one job reads.
const BYTES: usize = 20_000;

/// How many messages from before a model is shown, for what is meant by "it".
const BEFORE: u32 = 6;

/// How many tokens a model may answer with.
const MOST_OUTPUT: u64 = 2_000;

/// How long a model may take, in milliseconds: less than the job's lease.
const MODEL_MILLIS: u32 = 40_000;

/// After so many answers that could not be read the job is dead: each was paid for.
const BAD_ANSWERS: u32 = 3;

/// So many tries are made at batch rates; then the model is asked as always.
const BATCH_TRIES: u32 = 2;

/// How many known memories are looked at for each new one.
const NEAR: u32 = 10;

/// How long a job waits for another one of the same conversation, in milliseconds.
const BUSY_MILLIS: i64 = 2_000;

/// How conversations become memories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Off,
    Rules,
    Model,
    /// By a model, at its provider's batch rates where there are such.
    Batch,
}

/// As the plan says, else as the deployment does (`EXTRACTION`: `off`, `rules`, `model` or `batch`; `model` unless set). The local model has rules.
fn way<H: TurnHost>(host: &H, conversation: &Conversation) -> Result<Way, Undone> {
    let setting = conversation.extraction.clone().or_else(|| host.shared().setting("EXTRACTION"));
    match setting.as_deref() {
        Some("off") => Ok(Way::Off),
        Some("rules") => Ok(Way::Rules),
        None | Some("model" | "batch") if conversation.provider.as_deref() == Some(Provider::Local.as_str()) => Ok(Way::Rules),
        None | Some("model") => Ok(Way::Model),
        Some("batch") => Ok(Way::Batch),
        Some(_) => Err(Undone::Later("EXTRACTION is off, rules, model or batch.".to_owned())),
    }
}

/// Makes memories of what was said.
pub(crate) async fn extract<H: TurnHost>(host: &H, tenant: &Tenant<'_, H>, lease: Lease, attempts: u32) -> Result<(), Undone> {
    let default_model = provider::default_model(host.shared()).map_err(|error| Undone::Later(error.to_string()))?;
    let default_model = default_model.map(|ModelRef { provider, model_id }| Model { provider, model_id });
    let host_providers = provider::host_providers(host.shared());
    let reading = Reading { lease, now: host.now(), host_providers: &host_providers, default_model, bytes: BYTES, before: BEFORE };
    let conversation = match tenant.read_conversation(&reading).await? {
        Read::Conversation(conversation) => conversation,
        Read::Busy => {
            return Err(Undone::Wait("Another job of the conversation is at work.".to_owned(), host.now().plus_millis(BUSY_MILLIS)));
        }
        Read::Lost => return Err(Undone::Lost),
    };
    let may_write = conversation.access.as_ref().is_none_or(|access| access.allows(None, Permission::MemoryWrite));
    let has_news = conversation.messages.iter().any(|message| message.is_new && message.role == "user");
    let mut found = match way(host, &conversation)? {
        _ if !may_write || !has_news => Vec::new(),
        Way::Off => Vec::new(),
        Way::Rules => rules::extract(&said(&conversation, true)),
        Way::Model => by_model(host, tenant, &conversation, attempts, false).await?,
        // What the provider has no room for now is asked for once more so, then as always.
        Way::Batch => by_model(host, tenant, &conversation, attempts, attempts <= BATCH_TRIES).await?,
    };
    // Who is no member (the operator) writes nothing for the whole workspace.
    if conversation.access.is_none() {
        for memory in &mut found {
            memory.scope = Scope::User;
        }
    }
    keep(host, tenant, lease, &conversation.subject, &found).await
}

/// A conversation, or what is new of it.
fn said(conversation: &Conversation, only_new: bool) -> Vec<Said<'_>> {
    let messages = conversation.messages.iter().filter(|message| message.is_new || !only_new);
    let said = messages.map(|message| {
        let speaker = if message.role == "user" { Speaker::User } else { Speaker::Assistant };
        Said { speaker, text: &message.content }
    });
    said.collect()
}

/// Decides what becomes of each memory, and writes it.
async fn keep<H: TurnHost>(host: &H, tenant: &Tenant<'_, H>, lease: Lease, subject: &str, found: &[Extracted]) -> Result<(), Undone> {
    let embedder = match found {
        [] => None,
        _ => tenant.memory_settings().await?.map(|settings| settings.embedder),
    };
    let texts: Vec<&str> = found.iter().flat_map(|memory| [Some(memory.content.as_str()), memory.replaces.as_deref()]).flatten().collect();
    let mut vectors = Vec::new();
    for texts in texts.chunks(MAX_BATCH) {
        let embedder = embedder.as_ref().ok_or(Undone::Lost)?;
        vectors.extend(embed(host, tenant.workspace(), embedder, subject, texts, MODEL_MILLIS).await?);
    }
    let mut vectors = vectors.into_iter();
    let mut next = || vectors.next().unwrap_or_default();
    let wanted: Vec<Wanted> = found
        .iter()
        .map(|memory| Wanted {
            embedding: next(),
            replaces: memory.replaces.as_ref().map(|_| next()),
            personal: memory.scope == Scope::User,
        })
        .collect();
    let near = if wanted.is_empty() { Vec::new() } else { tenant.near_memories(subject, &wanted, NEAR).await? };
    let (mut known, mut memories, mut replaced) = (Vec::new(), Vec::new(), Vec::new());
    for ((memory, wanted), near) in found.iter().zip(&wanted).zip(&near) {
        let supersedes = match verdict(memory, near, &replaced) {
            Verdict::Same(id) => {
                known.push(id);
                continue;
            }
            Verdict::Supersedes(id) => Some(id),
            Verdict::New => None,
        };
        replaced.extend(supersedes);
        memories.push(Kept {
            id: host.new_id(),
            kind: memory.kind.as_str(),
            content: &memory.content,
            embedding: &wanted.embedding,
            hash: content_hash(&memory.content),
            personal: wanted.personal,
            supersedes,
        });
    }
    let generation = embedder.as_ref().and_then(embedder::generation);
    let extraction = Extraction { lease, now: host.now(), subject, known: &known, memories: &memories, generation };
    match tenant.store_extraction(&extraction).await? {
        Step::Ok | Step::Done => Ok(()),
        Step::Lost => Err(Undone::Lost),
        Step::Stale => Err(Undone::stale()),
    }
}

/// What becomes of one, given what is known; what another one of the same conversation has replaced is known no more.
fn verdict(memory: &Extracted, near: &[Near], replaced: &[Uuid]) -> Verdict<Uuid> {
    let known: Vec<Known<'_, Uuid>> = near
        .iter()
        .filter(|near| !replaced.contains(&near.id))
        .filter_map(|near| Some(Known { id: near.id, kind: near.kind.parse::<Kind>().ok()?, content: &near.content, score: near.score }))
        .collect();
    decide(memory.kind, &memory.content, memory.replaces.is_some(), &known)
}

/// Asks a model, whose call is held and paid.
async fn by_model<H: TurnHost>(
    host: &H,
    tenant: &Tenant<'_, H>,
    conversation: &Conversation,
    attempts: u32,
    batch: bool,
) -> Result<Vec<Extracted>, Undone> {
    let messages = vec![Message { role: MessageRole::User, content: prompt::conversation(&said(conversation, false)) }];
    let (system, answer_schema) = (prompt::system(), Some(prompt::schema().to_string()));
    let mut asked = Prompt { system, messages, memories: Vec::new(), max_output_tokens: MOST_OUTPUT, answer_schema, batch: false };
    let wanted = uses::Wanted {
        id: TurnId(host.new_id()),
        what: What::Extraction { agent_id: conversation.agent_id.clone(), session_id: conversation.session_id },
        subject: conversation.subject.clone(),
        model: conversation.model.clone().map(|Model { provider, model_id }| ModelRef { provider, model_id }),
        input_bound: prompt_upper_bound(Provider::Openai, &asked),
        presumed_input: estimate_input(&asked),
        max_output: MOST_OUTPUT,
        millis: i64::from(MODEL_MILLIS),
    };
    let (hold, endpoint) = uses::begin(host, tenant.workspace(), wanted).await?;
    if endpoint.provider == Provider::Local {
        hold.release(Code::ModelUnavailable).await?;
        return Ok(rules::extract(&said(conversation, true)));
    }
    asked.batch = batch && hold.may_be_batch();
    let text = ask(host, hold, &endpoint, &mut asked).await?;
    // A bad answer says what is wrong with it and nothing that stands in it.
    answer::parse(&text).map_err(|bad| {
        let why = format!("What the model answered cannot be taken: {bad}.");
        if attempts < BAD_ANSWERS { Undone::Later(why) } else { Undone::Never(why) }
    })
}

/// One call, settled whatever becomes of it.
async fn ask<H: TurnHost>(host: &H, mut hold: UseHold<H>, endpoint: &Endpoint, asked: &mut Prompt) -> Result<String, Undone> {
    let deadline = host.now().plus_millis(i64::from(MODEL_MILLIS));
    let (mut text, mut is_batch) = (String::new(), false);
    let answered = {
        let call = pin!(listen(host, endpoint, asked, deadline, &mut text, &mut is_batch));
        match select(call, pin!(host.sleep(MODEL_MILLIS))).await {
            Either::Left((answered, _)) => answered,
            Either::Right(((), _)) => Err((ModelError::Broken, None)),
        }
    };
    if is_batch {
        hold.at_batch_rates();
    }
    match answered {
        Ok(usage) => {
            hold.finish(usage, None).await?;
            Ok(text)
        }
        Err((error, usage)) => {
            match usage {
                Some(usage) => drop(hold.finish(usage, Some(Code::UpstreamError)).await?),
                // It said no before it had done anything.
                None if matches!(error, ModelError::Status { .. } | ModelError::Unreachable | ModelError::Misconfigured(_)) => {
                    hold.release(Code::UpstreamError).await?;
                }
                // Nobody knows what it has done: dropped, it is charged what was presumed.
                None => drop(hold),
            }
            Err(Undone::Later(error.to_string()))
        }
    }
}

/// Listens to the model's whole answer. An error comes with what was used, where that is known; `is_batch`: whether the provider says that it was a batch.
async fn listen<H: TurnHost>(
    host: &H,
    endpoint: &Endpoint,
    asked: &mut Prompt,
    deadline: astra_kernel::Timestamp,
    text: &mut String,
    is_batch: &mut bool,
) -> Result<Usage, (ModelError, Option<Usage>)> {
    let now = || host.now();
    let seed = u64::from_le_bytes(*host.new_id().as_bytes().last_chunk().unwrap_or(&[0; 8]));
    let retry = Retry { attempts: 3, deadline, now: &now, seed, asking: &|_| {} };
    let mut begun = Generation::start(host, endpoint, asked, retry).await;
    // A server that takes no batch, or no schema, which the prompt says as well.
    for leave in [|asked: &mut Prompt| std::mem::take(&mut asked.batch), |asked: &mut Prompt| asked.answer_schema.take().is_some()] {
        if matches!(begun, Err(ModelError::Status { status: 400 | 422, .. })) && leave(asked) {
            begun = Generation::start(host, endpoint, asked, retry).await;
        }
    }
    let mut generation = begun.map_err(|error| (error, None))?;
    loop {
        let piece = generation.next().await;
        *is_batch = generation.is_batch();
        match piece {
            Ok(Some(Piece::Text(piece))) => text.push_str(&piece),
            Ok(Some(Piece::End(Ended { usage: Some(usage), .. }))) => return Ok(usage),
            Ok(Some(Piece::End(Ended { usage: None, .. }))) => return Ok(generation.delivered_usage(asked, text)),
            Ok(None) => return Err((ModelError::Broken, Some(generation.delivered_usage(asked, text)))),
            Err(error) => return Err((error, Some(generation.delivered_usage(asked, text)))),
        }
        if text.len() > answer::MAX_ANSWER {
            return Err((ModelError::Garbage("its answer is too long"), Some(generation.delivered_usage(asked, text))));
        }
    }
}

#[cfg(test)]
mod tests;
