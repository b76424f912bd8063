//! Server-sent events out of a body's reads (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), by `sse-stream`.
//!
//! That crate parses a `Stream`; here bytes are pushed and all events that they complete are pulled at once, without waiting,
//! so that a read that carries twenty events costs one pass and not twenty.

use crate::ModelError;
use bytes::Bytes;
use futures_channel::mpsc;
use futures_util::{FutureExt, StreamExt};
use sse_stream::SseByteStream;
use std::convert::Infallible;

/// The most bytes of one event. Providers send tens to thousands; a line without an end must not fill the memory.
pub(crate) const MAX_EVENT: usize = 1024 * 1024;

const TOO_LARGE: ModelError = ModelError::Garbage("an event of its stream is larger than 1 MiB");

/// A parser that is fed.
pub(crate) struct Events {
    feed: mpsc::UnboundedSender<Result<Bytes, Infallible>>,
    parser: SseByteStream<mpsc::UnboundedReceiver<Result<Bytes, Infallible>>>,
    /// Bytes fed since the last event.
    unread: usize,
}

impl Events {
    pub(crate) fn new() -> Self {
        let (feed, receiver) = mpsc::unbounded();
        Self { feed, parser: SseByteStream::new(receiver), unread: 0 }
    }

    /// Takes in what was read; [`Self::pull`] until it gives nothing.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.unread += bytes.len();
        // The receiver lives as long as the sender: both are fields of this.
        let _ = self.feed.unbounded_send(Ok(bytes));
    }

    /// Ends an event that lacks its empty line, as some servers leave it out after `[DONE]`.
    pub(crate) fn flush(&mut self) {
        self.push(Bytes::from_static(b"\n\n"));
    }

    /// The next event's data that is complete. Events without data are passed over.
    ///
    /// # Errors
    /// [`ModelError::Garbage`] for an event beyond [`MAX_EVENT`] and for bytes that are not UTF-8.
    pub(crate) fn pull(&mut self) -> Result<Option<String>, ModelError> {
        loop {
            match self.parser.next().now_or_never() {
                Some(Some(Ok(event))) => {
                    self.unread = 0;
                    match event.data {
                        Some(data) if data.len() > MAX_EVENT => return Err(TOO_LARGE),
                        Some(data) => return Ok(Some(data)),
                        None => {}
                    }
                }
                Some(Some(Err(_))) => return Err(ModelError::Garbage("its stream is not UTF-8")),
                // Nothing more until more is fed (the feed never ends).
                Some(None) | None => return if self.unread > MAX_EVENT { Err(TOO_LARGE) } else { Ok(None) },
            }
        }
    }
}
