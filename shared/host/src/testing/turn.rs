//! What turns need besides: a provider that answers with statuses only, and waits that end when they are told to.

use super::FakeHost;
use crate::Host as _;
use crate::stream::{EventSink, TurnHost};
use astra_models::{ByteStream, Http, HttpError};
use axum::response::Response;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

/// The provider and the clock's waits.
#[derive(Default)]
pub(super) struct Model {
    statuses: VecDeque<u16>,
    waits: usize,
}

impl FakeHost {
    /// The provider answers with these statuses from now on, each once, and then not at all; so many waits are over at once, and the next when the
    /// clock says so.
    pub fn model(&self, statuses: &[u16], waits: usize) -> &Self {
        *self.0.model.lock().unwrap() = Model { statuses: statuses.iter().copied().collect(), waits };
        self
    }
}

impl Http for FakeHost {
    type Body = Silence;

    async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Silence>, HttpError> {
        let status = self.0.model.lock().unwrap().statuses.pop_front();
        match status {
            Some(status) => Ok(http::Response::builder().status(status).body(Silence).unwrap()),
            None => std::future::pending().await,
        }
    }

    async fn sleep(&self, millis: u32) {
        let over = {
            let mut model = self.0.model.lock().unwrap();
            let over = model.waits > 0;
            model.waits = model.waits.saturating_sub(1);
            over
        };
        if !over {
            let until = self.now().plus_millis(millis.into());
            poll_fn(|_| if self.now() >= until { Poll::Ready(()) } else { Poll::Pending }).await;
        }
    }
}

/// A body with nothing in it, and a sink that nobody reads.
#[derive(Debug)]
pub struct Silence;

impl ByteStream for Silence {
    async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        None
    }
}

impl EventSink for Silence {
    fn push(&self, _: &[u8]) {}

    async fn close(self) {}
}

impl TurnHost for FakeHost {
    type Sink = Silence;

    fn stream(&self) -> (Silence, Response) {
        (Silence, Response::default())
    }
}
