//! A streaming response: what was pushed and not yet taken waits in memory and goes to the connection in one piece.
//!
//! The connection takes when it has room, the writer never waits. So a client that reads too slowly costs memory: from [`MOST`] bytes on it is cut off,
//! as is one that has taken nothing for [`STALLED`] after the end. Either sees a response that broke off, never one that ended early. Whoever pushes
//! goes on with their work.

use crate::stream::EventSink;
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body::Frame;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

/// The most that waits for one client, in bytes: more than any model's answer.
const MOST: usize = 8 << 20;

/// How long a client may take nothing after the stream has ended.
const STALLED: Duration = Duration::from_mins(1);

#[derive(Default)]
struct State {
    waiting: BytesMut,
    /// How often the connection took something.
    taken: u64,
    reader: Option<Waker>,
    ended: bool,
    gone: bool,
}

#[derive(Default)]
struct Pipe(Mutex<State>);

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes the connection's task.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let reader = {
            let mut state = self.state();
            change(&mut state);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

fn give_up(state: &mut State) {
    state.gone = true;
    state.waiting = BytesMut::new();
}

/// The writing end.
pub struct Sink {
    pipe: Arc<Pipe>,
    closed: oneshot::Receiver<()>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

/// The client was cut off, or the writer went without an end.
#[derive(Debug, thiserror::Error)]
#[error("the event stream was cut off")]
pub struct StreamCut;

/// The response's body. Dropping it means that the client has gone, or has read everything.
pub struct EventBody {
    pipe: Arc<Pipe>,
    /// Dropped with the body, which is what the writing end waits for.
    _open: oneshot::Sender<()>,
}

impl std::fmt::Debug for EventBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventBody")
    }
}

pub(super) fn open() -> (Sink, Response) {
    let pipe = Arc::<Pipe>::default();
    let (open, closed) = oneshot::channel();
    let body = EventBody { pipe: Arc::clone(&pipe), _open: open };
    (Sink { pipe, closed }, Response::new(Body::new(body)))
}

impl EventSink for Sink {
    fn push(&self, bytes: &[u8]) {
        self.pipe.change(|state| {
            if state.gone {
                return;
            }
            if state.waiting.len() + bytes.len() > MOST {
                give_up(state);
            } else {
                state.waiting.extend_from_slice(bytes);
            }
        });
    }

    async fn close(mut self) {
        self.pipe.change(|state| state.ended = true);
        loop {
            let before = self.pipe.state().taken;
            if tokio::time::timeout(STALLED, &mut self.closed).await.is_ok() {
                return;
            }
            let stalled = self.pipe.state().taken == before;
            if stalled {
                self.pipe.change(give_up);
                return;
            }
        }
    }
}

impl Drop for Sink {
    /// Without an end (its task was cut off, or panicked) the response breaks off.
    fn drop(&mut self) {
        self.pipe.change(|state| {
            if !state.ended {
                give_up(state);
            }
        });
    }
}

impl http_body::Body for EventBody {
    type Data = Bytes;
    type Error = StreamCut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamCut>>> {
        let mut state = self.pipe.state();
        if state.gone {
            return Poll::Ready(Some(Err(StreamCut)));
        }
        if !state.waiting.is_empty() {
            state.taken += 1;
            return Poll::Ready(Some(Ok(Frame::data(state.waiting.split().freeze()))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        give_up(&mut self.pipe.state());
    }
}
