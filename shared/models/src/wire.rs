//! An answer read from the network, whatever the protocol.

use crate::sse::Events;
use crate::{ByteStream, EndReason, Ended, HttpError, ModelError, Piece, anthropic, openai};
use astra_kernel::{Tokens, Usage, UsageSource};
use bytes::Bytes;

/// What the provider has counted so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// All input, the cached included.
    pub(crate) input: Option<Tokens>,
    /// Input from the provider's cache.
    pub(crate) cached_input: Tokens,
    /// All output, reasoning included.
    pub(crate) output: Option<Tokens>,
    /// Output that was not shown.
    pub(crate) reasoning: Tokens,
}

impl Counts {
    /// The usage, when both sides were said.
    fn usage(&self) -> Option<Usage> {
        let (input_tokens, output_tokens) = (self.input?, self.output?);
        Some(Usage {
            input_tokens,
            cached_input_tokens: self.cached_input.min(input_tokens),
            output_tokens,
            reasoning_tokens: self.reasoning.min(output_tokens),
            source: UsageSource::Provider,
        })
    }
}

/// What the events have told so far. A dialect fills it in.
#[derive(Default)]
pub(crate) struct Told {
    /// Text not yet given out.
    pub(crate) text: String,
    /// Why the model stopped.
    pub(crate) reason: Option<EndReason>,
    /// Nothing more is to come.
    pub(crate) complete: bool,
}

/// A provider's protocol, with what it has to remember.
pub(crate) enum Dialect {
    Openai(openai::Reading),
    Anthropic(anthropic::Reading),
}

impl Dialect {
    fn event(&mut self, data: &str, told: &mut Told) -> Result<(), ModelError> {
        match self {
            Self::Openai(reading) => reading.event(data, told),
            Self::Anthropic(reading) => reading.event(data, told),
        }
    }

    fn is_batch(&self) -> bool {
        match self {
            Self::Openai(reading) => reading.is_batch(),
            Self::Anthropic(_) => false,
        }
    }

    fn counts(&self) -> Counts {
        match self {
            Self::Openai(reading) => reading.counts(),
            Self::Anthropic(reading) => reading.counts(),
        }
    }
}

/// A body and what has been read of it.
pub(crate) struct Wire<B> {
    body: B,
    events: Events,
    dialect: Dialect,
    told: Told,
    /// Some text was given out or waits to be.
    spoke: bool,
    /// To be reported once the text before it was given out.
    failed: Option<ModelError>,
    over: bool,
}

impl<B: ByteStream> Wire<B> {
    pub(crate) fn new(body: B, dialect: Dialect) -> Self {
        Self { body, events: Events::new(), dialect, told: Told::default(), spoke: false, failed: None, over: false }
    }

    /// See [`crate::Generation::next`]. The only wait is for the body, and what it gives is taken in before the next: that makes it cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, ModelError> {
        loop {
            if let Some(ready) = self.ready() {
                return ready;
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.read(bytes),
                Some(Err(HttpError::Unreachable | HttpError::Broken)) => self.close(true),
                None => self.close(false),
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.dialect.counts()
    }

    pub(crate) fn is_batch(&self) -> bool {
        self.dialect.is_batch()
    }

    /// What can be said without reading on.
    fn ready(&mut self) -> Option<Result<Option<Piece>, ModelError>> {
        if !self.told.text.is_empty() {
            return Some(Ok(Some(Piece::Text(std::mem::take(&mut self.told.text)))));
        }
        if self.over {
            return Some(Ok(None));
        }
        if let Some(error) = self.failed.take() {
            self.over = true;
            return Some(Err(error));
        }
        if self.told.complete {
            self.over = true;
            // Its word that it is done, without a reason, is still its word.
            let reason = self.told.reason.unwrap_or(EndReason::Other);
            return Some(Ok(Some(Piece::End(Ended { reason, usage: self.counts().usage() }))));
        }
        None
    }

    fn read(&mut self, bytes: Bytes) {
        self.events.push(bytes);
        self.failed = self.take_in().err();
    }

    fn take_in(&mut self) -> Result<(), ModelError> {
        while !self.told.complete
            && let Some(data) = self.events.pull()?
        {
            let read = self.dialect.event(&data, &mut self.told);
            self.spoke |= !self.told.text.is_empty();
            read?;
            if self.told.complete && self.told.reason.is_none() && !self.spoke {
                return Err(ModelError::Empty);
            }
        }
        Ok(())
    }

    /// The body ended. That is an answer's end only when the provider had said why the model stopped: then nothing but counts can be missing.
    fn close(&mut self, broken: bool) {
        self.events.flush();
        // What the flush completes is often half an event: garbage that only means that the stream broke off.
        let flushed = self.take_in();
        if self.told.complete && flushed.is_ok() {
            return;
        }
        match (self.told.reason, flushed) {
            (Some(_), _) => self.told.complete = true,
            (None, Err(error @ (ModelError::Empty | ModelError::Status { .. }))) => self.failed = Some(error),
            (None, _) if broken || self.spoke => self.failed = Some(ModelError::Broken),
            (None, _) => self.failed = Some(ModelError::Empty),
        }
    }
}
