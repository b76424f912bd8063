//! Texts as vectors, by the workspace's own embedder. The local one costs nothing; a provider's call is held before it is made and entered as an embedding ([`crate::uses`]).

use crate::stream::TurnHost;
use crate::uses::{self, NotHeld, What};
use astra_kernel::{Code, Problem, TurnId, Usage, UsageSource, WorkspaceId};
use astra_models::embed::{local_embedding, to_pgvector};
use astra_models::{Embeddings, Endpoint, ModelError, Retry, embed_texts};
use astra_quota::words::ModelRef;
pub use astra_store::memory::Embedder;
use futures_util::future::{Either, select};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a tokenizer may put around a text, in tokens.
const AROUND: u64 = 8;

/// Why there are no vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEmbedded {
    /// It was not called.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// It gave none.
    #[error("the embedder: {0}")]
    Model(ModelError),
    /// It gave none in time.
    #[error("the embedder did not answer in time")]
    Late,
}

impl From<NotEmbedded> for Problem {
    fn from(error: NotEmbedded) -> Self {
        match error {
            NotEmbedded::NotHeld(NotHeld::Full { limit, max, used, again_at: _, .. }) => {
                let detail = format!("The limit {limit} does not pay for embedding it: {used} of {max} are used.");
                Self { limit: Some(limit), ..Self::new(Code::QuotaExceeded, detail) }
            }
            NotEmbedded::NotHeld(NotHeld::Denied(why)) => {
                Self::new(Code::ModelUnavailable, format!("The workspace's embedder is not called. {why}"))
            }
            _ => Self::new(Code::Unavailable, "The workspace's embedder gives no answer, so nothing was written. Try again.")
                .with_retry_after(1),
        }
    }
}

/// For which embedder vectors are, as the database is told.
pub fn generation(embedder: &Embedder) -> Option<i32> {
    embedder.model.is_some().then_some(embedder.generation)
}

/// Texts as vectors in pgvector's form, in the texts' order. At most [`astra_models::MAX_BATCH`]. `millis`: how long the provider has.
///
/// # Errors
/// [`NotEmbedded`].
pub async fn embed<H: TurnHost>(
    host: &H,
    workspace: &WorkspaceId,
    embedder: &Embedder,
    subject: &str,
    texts: &[&str],
    millis: u32,
) -> Result<Vec<String>, NotEmbedded> {
    let Some(model) = &embedder.model else {
        return Ok(texts.iter().map(|text| to_pgvector(&local_embedding(text))).collect());
    };
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = texts.iter().map(|text| text.len() as u64).sum::<u64>();
    let presumed_input = bytes / 4 + 1;
    let wanted = uses::Wanted {
        id: TurnId(host.new_id()),
        what: What::Embedding,
        subject: subject.to_owned(),
        model: Some(ModelRef { provider: embedder.provider.clone(), model_id: model.clone() }),
        input_bound: bytes + AROUND * texts.len() as u64,
        presumed_input,
        max_output: 0,
        millis: i64::from(millis),
    };
    let (hold, endpoint) = uses::begin(host, workspace, wanted).await?;
    let endpoint = Endpoint { base_url: embedder.endpoint.clone().or(endpoint.base_url), ..endpoint };
    let asked = AtomicBool::new(false);
    let (now, asking) = (|| host.now(), |is: bool| asked.store(is, Ordering::Relaxed));
    let retry = Retry { attempts: 2, deadline: host.now().plus_millis(i64::from(millis)), now: &now, seed: bytes, asking: &asking };
    let answer = {
        let call = pin!(embed_texts(host, &endpoint, embedder.dimensions, texts, retry));
        let late = pin!(host.sleep(millis));
        match select(call, late).await {
            Either::Left((answer, _)) => Some(answer),
            Either::Right(_) => None,
        }
    };
    match answer {
        Some(Ok(Embeddings { vectors, tokens })) => {
            let source = if tokens.is_some() { UsageSource::Provider } else { UsageSource::Estimated };
            // What was bought is used, whether its entry is made now or by the counter.
            let _ = hold.finish(Usage { input_tokens: tokens.unwrap_or(presumed_input), source, ..Usage::NONE }, None).await;
            Ok(vectors.iter().map(|vector| to_pgvector(vector)).collect())
        }
        Some(Err(error)) => {
            // Where the provider has the texts in hand it may charge for them: the hold is dropped, and charged what was presumed.
            if !asked.load(Ordering::Relaxed)
                || matches!(error, ModelError::Status { .. } | ModelError::Unreachable | ModelError::Misconfigured(_))
            {
                let _ = hold.release(Code::UpstreamError).await;
            }
            Err(NotEmbedded::Model(error))
        }
        None => Err(NotEmbedded::Late),
    }
}
