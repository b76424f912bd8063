//! The memory searched by meaning, where a provider's embedder makes the workspace's vectors.
//!
//! `turn_begin` has searched by words then, and says which embedder it is. The message is embedded by that one, which is held at the counter of the workspace that is asked, whoever pays for
//! the turn, and entered there as an embedding; then both searches are made once more. Whatever fails or is late leaves the turn with what the words found: it is never refused for that.

use crate::begin::TOP_K;
use crate::context::{Context, Memory};
use astra_host::Call;
use astra_host::embedder::{Embedder, embed};
use astra_host::stream::TurnHost;
use astra_kernel::WorkspaceId;
use astra_quota::words::{Answer, Ask, Recall};
use futures_util::future::{Either, select};
use std::mem::take;
use std::pin::pin;

/// How long all of it may take, in milliseconds: half of what a search has, because a turn has its model still before it.
const MILLIS: u32 = 1_000;

/// How many characters of a message are looked for, as in every search.
const LONGEST: usize = 2_000;

/// Puts what both searches find in the place of what the words alone did, which it returns ([`put_back`]). None: all is as it was.
pub(crate) async fn by_meaning<H: TurnHost>(
    call: &Call<H>,
    workspace: &WorkspaceId,
    subject: &str,
    message: &str,
    context: &mut Context,
) -> Option<Vec<Memory>> {
    let embedder = context.embedder.take()?;
    let host = &call.host;
    let began = host.now();
    let mut text = message.to_owned();
    if let Some((end, _)) = message.char_indices().nth(LONGEST) {
        text.truncate(end);
    }
    let work = Box::pin(find(host.clone(), workspace.clone(), embedder, subject.to_owned(), text));
    let found = match select(work, pin!(host.sleep(MILLIS))).await {
        Either::Left((found, _)) => found,
        // It ends by itself soon, and what it holds is settled.
        Either::Right(((), work)) => {
            host.background(async move { drop(work.await) });
            Err("late".to_owned())
        }
    };
    call.trace.phase("recall", host.now().0 - began.0);
    match found {
        Ok(mut memories) => {
            context.left_out.clear();
            // What a granter shows stays: its vectors are of its own embedder.
            let (shared, by_words): (Vec<_>, Vec<_>) = take(&mut context.memories).into_iter().partition(|memory| memory.shared);
            memories.extend(shared);
            context.memories = memories;
            Some(by_words)
        }
        Err(error) => {
            host.log(&format!(r#"{{"event":"recall","leftOut":"vector","error":"{error}"}}"#));
            None
        }
    }
}

/// What the words found in the place of what both searches did.
pub(crate) fn put_back(context: &mut Context, mut by_words: Vec<Memory>) {
    context.memories.retain(|memory| memory.shared);
    by_words.append(&mut context.memories);
    context.memories = by_words;
    context.left_out.push("vector".to_owned());
}

/// By owned values: it may outlive the turn's beginning.
async fn find<H: TurnHost>(
    host: H,
    workspace: WorkspaceId,
    embedder: Embedder,
    subject: String,
    message: String,
) -> Result<Vec<Memory>, String> {
    let vectors = embed(&host, &workspace, &embedder, &subject, &[&message], MILLIS).await.map_err(|error| error.to_string())?;
    let embedding = vectors.into_iter().next().unwrap_or_default();
    let ask = Ask::Recall(Box::new(Recall { subject, message, embedding, generation: embedder.generation, top_k: TOP_K }));
    match host.ask(&workspace, &ask).await {
        // Null: the embedder is another by now.
        Ok(Answer::Recalled(memories)) => astra_kernel::json::from_str::<Option<_>>(memories.get()).ok().flatten(),
        _ => None,
    }
    .ok_or_else(|| "not recalled".to_owned())
}
