//! The Lambda runtime API, as one environment sees it: it asks for the next invocation, and hands over an answer or an error.

use crate::environment::NoAnswer;
use crate::quick;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use http::StatusCode;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

type Tell = oneshot::Sender<Result<Outcome, NoAnswer>>;

/// What a function answered.
pub(crate) enum Outcome {
    /// A document, whole.
    Whole(Bytes),
    /// Bytes as they come; the first of them describe the answer.
    Stream(Body),
    /// An error's document.
    Error(Bytes),
}

#[derive(Default)]
struct State_ {
    event: Option<(String, String, u128)>,
    tell: Option<Tell>,
    /// How often the environment has asked for an invocation.
    asked: u64,
}

/// One environment's runtime API.
#[derive(Default)]
pub(crate) struct Api {
    state: Mutex<State_>,
    wake: Notify,
    asked: Notify,
}

/// Opens a runtime API at an address of its own.
pub(crate) async fn open() -> std::io::Result<(SocketAddr, Arc<Api>)> {
    let api = Arc::<Api>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(answer))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(Arc::clone(&api));
    // Ends with the program: an environment is kept as long as that.
    tokio::spawn(axum::serve(quick::Listener(listener), router).into_future());
    Ok((address, api))
}

impl Api {
    fn state(&self) -> MutexGuard<'_, State_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn asked(&self, times: u64) {
        loop {
            let asked = self.asked.notified();
            if self.state().asked >= times {
                return;
            }
            asked.await;
        }
    }

    /// Waits until the environment asks for its first invocation.
    pub(crate) async fn ready(&self) {
        self.asked(1).await;
    }

    /// Hands over an invocation and waits until the environment asks for another. False if it never answered this one.
    pub(crate) async fn invoke(&self, event: String, timeout: Duration, tell: Tell) -> bool {
        #[expect(clippy::disallowed_methods, reason = "a program of this machine's")]
        let deadline = SystemTime::now().checked_add(timeout).and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let asked = {
            let mut state = self.state();
            state.event = Some((uuid::Uuid::new_v4().to_string(), event, deadline.map_or(0, |at| at.as_millis())));
            state.tell = Some(tell);
            state.asked
        };
        self.wake.notify_one();
        self.asked(asked + 1).await;
        self.state().tell.is_none()
    }

    /// Tells whoever still waits that there will be no answer.
    pub(crate) fn give_up(&self, error: NoAnswer) {
        if let Some(tell) = self.state().tell.take() {
            let _ = tell.send(Err(error));
        }
    }

    fn told(&self, outcome: Outcome) {
        if let Some(tell) = self.state().tell.take() {
            let _ = tell.send(Ok(outcome));
        }
    }
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    api.state().asked += 1;
    api.asked.notify_waiters();
    loop {
        let event = api.state().event.take();
        if let Some((id, event, deadline)) = event {
            let headers = [
                ("lambda-runtime-aws-request-id", id),
                ("lambda-runtime-deadline-ms", deadline.to_string()),
                ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:local:000000000000:function:local".to_owned()),
                ("content-type", "application/json".to_owned()),
            ];
            return (headers, event).into_response();
        }
        api.wake.notified().await;
    }
}

async fn answer(State(api): State<Arc<Api>>, Path(_): Path<String>, request: Request) -> StatusCode {
    let streams = request.headers().get("lambda-runtime-function-response-mode").is_some_and(|mode| mode == "streaming");
    let mut body = request.into_body().into_data_stream();
    if !streams {
        let mut whole = Vec::new();
        while let Some(Ok(chunk)) = body.next().await {
            whole.extend_from_slice(&chunk);
        }
        api.told(Outcome::Whole(whole.into()));
        return StatusCode::ACCEPTED;
    }
    // Read to its end, whether or not the client is still there.
    let (send, receive) = mpsc::unbounded_channel();
    api.told(Outcome::Stream(Body::from_stream(UnboundedReceiverStream::new(receive))));
    while let Some(chunk) = body.next().await {
        let _ = send.send(chunk);
    }
    StatusCode::ACCEPTED
}

async fn error(State(api): State<Arc<Api>>, Path(_): Path<String>, body: Bytes) -> StatusCode {
    api.told(Outcome::Error(body));
    StatusCode::ACCEPTED
}
