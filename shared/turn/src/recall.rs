//! The memory searched once more, for what the round trip that begins a turn cannot do: by meaning, where a provider's embedder makes the workspace's vectors, and by words, where the
//! deployment has a Typesense.
//!
//! `turn_begin` has searched by then, with what Postgres has. Typesense is asked at the same time as that; it names ids, and what is shown of them is read behind the walls. The message is
//! embedded by the workspace's embedder, which is held at the counter of the workspace that is asked, whoever pays for the turn, and entered there as an embedding. With what came of both,
//! one more round trip searches again. Whatever fails or is late leaves the turn with what Postgres found: it is never refused for that.

use crate::begin::TOP_K;
use crate::context::{Context, Memory};
use astra_host::Call;
use astra_host::embedder::{Embedder, embed};
use astra_host::stream::TurnHost;
use astra_kernel::WorkspaceId;
use astra_models::embed::{local_embedding, to_pgvector};
use astra_quota::words::{Answer, Ask, Recall};
use astra_typesense::{IndexError, Named, Searches};
use futures_util::future::{BoxFuture, Either, FutureExt as _, MaybeDone, join, maybe_done, select};
use std::future::{Future, poll_fn};
use std::mem::take;
use std::pin::{Pin, pin};

/// How long all of it may take, in milliseconds: half of what a search has, because a turn has its model still before it.
const MILLIS: u32 = 1_000;

/// How much of that is kept for the search itself, in milliseconds, where an index has named something that can be searched with if the embedder is late.
const READ_MILLIS: u32 = 200;

/// How long Typesense has, in milliseconds, from the turn's beginning on.
const WORDS_MILLIS: u32 = 400;

/// How many characters of a message are looked for, as in every search.
const LONGEST: usize = 2_000;

/// How many ids an index names at most, as in every search.
const NAMED: u32 = 50;

/// The message's words being looked for.
pub(crate) struct Words(MaybeDone<BoxFuture<'static, Result<Vec<Named>, IndexError>>>);

impl Words {
    /// Begins with it; it goes on when it is waited for.
    pub(crate) fn look_for<H: TurnHost>(host: &H, typesense: Searches, workspace: &WorkspaceId, subject: &str, message: &str) -> Self {
        let (host, workspace, subject, message) = (host.clone(), workspace.clone(), subject.to_owned(), searched(message).to_owned());
        let search =
            async move { astra_typesense::search(&host, &typesense, (&workspace, &subject), None, &message, NAMED, WORDS_MILLIS).await };
        Self(maybe_done(search.boxed()))
    }

    /// Goes on with it while something else is done, and no longer.
    pub(crate) async fn meanwhile<T>(mut words: Option<&mut Self>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if let Some(Self(search)) = &mut words {
                let _ = Pin::new(search).poll(context);
            }
            work.as_mut().poll(context)
        })
        .await
    }

    /// What came of it.
    async fn named(mut self) -> Result<Vec<Named>, IndexError> {
        (&mut self.0).await;
        Pin::new(&mut self.0).take_output().unwrap_or(Err(IndexError::Away))
    }
}

/// As much of a message as is looked for.
fn searched(message: &str) -> &str {
    message.char_indices().nth(LONGEST).map_or(message, |(end, _)| &message[..end])
}

/// What a turn would have been told without all this, and what it goes without then.
pub(crate) struct Before {
    memories: Vec<Memory>,
    left_out: Vec<String>,
}

/// Puts what is found now in the place of what Postgres found at first, which it returns ([`put_back`]). None: that is still there.
pub(crate) async fn once_more<H: TurnHost>(
    call: &Call<H>,
    workspace: &WorkspaceId,
    subject: &str,
    message: &str,
    words: Option<Words>,
    context: &mut Context,
) -> Option<Before> {
    let host = &call.host;
    let embedder = context.embedder.take();
    let words = words.filter(|_| context.indexed == Some(true));
    if context.indexed == Some(false) {
        index(host, workspace, false);
    }
    // All that was to be done and may come to nothing.
    let all: Vec<String> = [(embedder.is_some(), "vector"), (words.is_some(), "keyword")]
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, leg)| (*leg).to_owned())
        .collect();
    if all.is_empty() {
        return None;
    }
    let began = host.now();
    let work = Box::pin(find(host.clone(), workspace.clone(), embedder, words, subject.to_owned(), message.to_owned()));
    let found = match select(work, pin!(host.sleep(MILLIS))).await {
        Either::Left((found, _)) => found,
        // It ends by itself soon, and what it holds is settled.
        Either::Right(((), work)) => {
            host.background(async move { drop(work.await) });
            Found::Nothing("late")
        }
    };
    call.trace.phase("recall", host.now().0 - began.0);
    match found {
        Found::Anew(mut memories, without) => {
            // What a granter shows stays: its vectors are of its own embedder, and its words are not looked for elsewhere.
            let (shared, before): (Vec<_>, Vec<_>) = take(&mut context.memories).into_iter().partition(|memory| memory.shared);
            memories.extend(shared);
            context.memories = memories;
            context.left_out = without;
            Some(Before { memories: before, left_out: all })
        }
        Found::AsBefore(without) => {
            context.left_out = without;
            None
        }
        Found::Nothing(error) => {
            left_out(host, &all.join(","), error);
            context.left_out = all;
            None
        }
    }
}

/// What was found at first in the place of what was found then.
pub(crate) fn put_back(context: &mut Context, before: Before) {
    let Before { mut memories, left_out } = before;
    context.memories.retain(|memory| memory.shared);
    memories.append(&mut context.memories);
    context.memories = memories;
    context.left_out = left_out;
}

/// Has the workspace's words brought into an index; `lost`: made anew. Nobody waits for it.
fn index<H: TurnHost>(host: &H, workspace: &WorkspaceId, lost: bool) {
    let (own, workspace) = (host.clone(), workspace.clone());
    // What comes to nothing is asked for again by the next turn.
    host.background(async move { drop(own.ask(&workspace, &Ask::Index { lost }).await) });
}

fn left_out<H: TurnHost>(host: &H, leg: &str, error: &str) {
    host.log(&format!(r#"{{"event":"recall","leftOut":"{leg}","error":"{error}"}}"#));
}

/// What came of searching once more.
enum Found {
    /// This, and what it goes without.
    Anew(Vec<Memory>, Vec<String>),
    /// Nothing but what there is; what that goes without.
    AsBefore(Vec<String>),
    /// Why there is nothing.
    Nothing(&'static str),
}

/// By owned values: it may outlive the turn's beginning.
async fn find<H: TurnHost>(
    host: H,
    workspace: WorkspaceId,
    embedder: Option<Embedder>,
    words: Option<Words>,
    subject: String,
    message: String,
) -> Found {
    let text = searched(&message).to_owned();
    let texts = [text.as_str()];
    let millis = if words.is_some() { MILLIS - READ_MILLIS } else { MILLIS };
    let by_meaning = async {
        match &embedder {
            Some(embedder) => Some(embed(&host, &workspace, embedder, &subject, &texts, millis).await),
            None => None,
        }
    };
    let by_words = async {
        match words {
            Some(words) => Some(words.named().await),
            None => None,
        }
    };
    let (vectors, named) = join(by_meaning, by_words).await;
    let mut without = Vec::new();
    let mut is_new = false;
    let embedding = match vectors {
        None => Some(to_pgvector(&local_embedding(&message))),
        Some(Ok(vectors)) => {
            is_new = true;
            vectors.into_iter().next()
        }
        Some(Err(error)) => {
            left_out(&host, "vector", &error.to_string());
            without.push("vector".to_owned());
            None
        }
    };
    let named = match named {
        None => None,
        // Postgres may know better: an index that has nothing is asked for nothing.
        Some(Ok(named)) => Some(named).filter(|named| !named.is_empty()),
        Some(Err(error)) => {
            left_out(&host, "keyword", &error.to_string());
            without.push("keyword".to_owned());
            if error == IndexError::Missing {
                index(&host, &workspace, true);
            }
            None
        }
    };
    if !is_new && named.is_none() {
        return Found::AsBefore(without);
    }
    let generation = embedder.filter(|_| embedding.is_some()).map(|embedder| embedder.generation);
    let sure = named.iter().flatten().filter(|named| named.has_half).map(|named| named.id).collect();
    let said = named.map(|named| named.into_iter().map(|named| named.id).collect());
    let ask = Ask::Recall(Box::new(Recall { subject, message: text, embedding, generation, said, sure, top_k: TOP_K }));
    match host.ask(&workspace, &ask).await {
        // Null: the embedder is another by now.
        Ok(Answer::Recalled(memories)) => astra_kernel::json::from_str::<Option<_>>(memories.get()).ok().flatten(),
        _ => None,
    }
    .map_or(Found::Nothing("not recalled"), |memories| Found::Anew(memories, without))
}
