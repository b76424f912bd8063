//! One call of a model: begun with retries, then read piece by piece.

use crate::call::{self, Wanted};
use crate::wire::{Dialect, Wire};
use crate::{Endpoint, Http, ModelError, Prompt, Provider, Retry};
use crate::{anthropic, count, local, openai};
use astra_kernel::{Usage, UsageSource};

/// What a model's answer is made of, in order: texts, then one end. Its `Debug` shows a text's size only.
#[derive(Clone, PartialEq, Eq)]
pub enum Piece {
    /// More of the answer; never empty.
    Text(String),
    /// The provider said that this was all.
    End(Ended),
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::End(ended) => f.debug_tuple("End").field(ended).finish(),
        }
    }
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    /// What the provider counted; `None` when it did not say ([`Generation::delivered_usage`] then). An explicit zero is a count.
    pub usage: Option<Usage>,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// It was done.
    Stop,
    /// `max_output_tokens` or the model's context was used up.
    Length,
    /// The provider's filter or the model itself refused.
    ContentFilter,
    /// Something else, such as a tool call that nobody offered.
    Other,
}

/// A model's answer on its way. Dropping it cuts the connection.
pub struct Generation<H: Http> {
    source: Source<H::Body>,
}

enum Source<B> {
    Wire(Wire<B>),
    Local(local::Answer),
}

impl<H: Http> std::fmt::Debug for Generation<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").finish_non_exhaustive()
    }
}

impl<H: Http> Generation<H> {
    /// Calls the model and returns when the provider has begun to answer. Calls again as [`Retry`] says after 429, 5xx and
    /// [`ModelError::Unreachable`]; once it has returned nothing is called again. Dropping the future cuts the call.
    ///
    /// # Errors
    /// [`ModelError`] of the last call.
    pub async fn start(http: &H, endpoint: &Endpoint, prompt: &Prompt, retry: Retry<'_>) -> Result<Self, ModelError> {
        let (request, dialect) = match endpoint.provider {
            Provider::Local => return Ok(Self { source: Source::Local(local::Answer::new(&endpoint.model, prompt)?) }),
            Provider::Openai => (openai::request(endpoint, prompt)?, Dialect::Openai(openai::Reading::default())),
            Provider::Anthropic => (anthropic::request(endpoint, prompt)?, Dialect::Anthropic(anthropic::Reading::default())),
        };
        let body = call::begin(http, &request, Wanted::Events, retry).await?;
        Ok(Self { source: Source::Wire(Wire::new(body, dialect)) })
    }

    /// What comes next: all text that has arrived together as one [`Piece::Text`], at last [`Piece::End`], then `None`.
    ///
    /// Cancel-safe: a future dropped before it was ready has lost nothing, so it can be raced with a timer or a stop.
    ///
    /// # Errors
    /// [`ModelError`], after all text that came before it was given. `None` follows it.
    pub async fn next(&mut self) -> Result<Option<Piece>, ModelError> {
        match &mut self.source {
            Source::Wire(wire) => wire.next().await,
            Source::Local(answer) => Ok(answer.next()),
        }
    }

    /// Whether the provider has said that it serves this, and bills it, as a batch.
    pub fn is_batch(&self) -> bool {
        match &self.source {
            Source::Wire(wire) => wire.is_batch(),
            Source::Local(_) => false,
        }
    }

    /// What to charge for an answer that was stopped or cut off, or whose end came without a count: for each side what the provider
    /// has counted so far, else an estimate ([`crate::estimate_input`], [`crate::estimate_output`]); output at least as delivered.
    /// `prompt` is the one that this was started with, `delivered` all text that [`Self::next`] gave.
    pub fn delivered_usage(&self, prompt: &Prompt, delivered: &str) -> Usage {
        let source = UsageSource::Estimated;
        match &self.source {
            Source::Local(answer) => Usage { output_tokens: local::local_tokens(delivered), source, ..answer.usage() },
            Source::Wire(wire) => {
                let counts = wire.counts();
                let output = count::estimate_output(delivered);
                let input_tokens = counts.input.unwrap_or_else(|| count::estimate_input(prompt));
                Usage {
                    input_tokens,
                    cached_input_tokens: counts.cached_input.min(input_tokens),
                    output_tokens: counts.output.unwrap_or(0).max(output),
                    reasoning_tokens: counts.reasoning,
                    source,
                }
            }
        }
    }
}
