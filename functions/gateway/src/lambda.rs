//! A function on AWS Lambda: its routes, and beside them what comes from a schedule or a queue, in one binary.
//!
//! One environment does one invocation at a time and is frozen in between. So an invocation must not be over before its background work is: a turn goes on
//! when its client has hung up, and its end is what is paid. An invocation is over when the runtime asks for the next one (and not when its answer has been
//! sent), so [`Whole`], the outermost layer, lets the runtime ask only when all tasks are finished: whether the answer was taken whole, broke off, or was
//! there before the work was.
//!
//! - Routes: a REST API or a function's address (payloads of both forms). `LAMBDA_INVOKE_MODE=RESPONSE_STREAM` says that the answer is streamed, as the
//!   integration in front must say too; else it is sent whole.
//! - A schedule: the constant `{"source": "astra.schedule", "task": "…"}`. An error makes `EventBridge` send it again.
//! - A queue: SQS batches. Messages that fail are told one by one (`batchItemFailures`), so that the others are not sent again.

use crate::app::{App, Part};
use crate::rules::Function;
use astra_host::Shared;
use astra_host::native::{self, Addresses, NativeHost, Process, Rows, SetupError};
use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::response::Response;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, RequestExt as _};
use lambda_runtime::{FunctionResponse, LambdaEvent, LambdaInvocation, MetadataPrelude, Runtime, StreamResponse};
use serde_json::Value;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_util::task::TaskTracker;
use tower_service::Service;

/// The host of a function on Lambda.
pub type LambdaHost = NativeHost<Rows>;

/// One environment does one invocation at a time: a turn's own calls and its signs of life.
const POOL_SIZE: usize = 2;

/// Why an event was not dealt with. Whoever sent it sends it again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EventError(pub String);

/// What a function does besides answering requests.
pub trait Events: Send + Sync + 'static {
    /// Does what a schedule asks for.
    fn scheduled(&self, task: &str) -> impl Future<Output = Result<(), EventError>> + Send;

    /// Deals with a queue's message. May come more than once.
    fn message(&self, body: &str) -> impl Future<Output = Result<(), EventError>> + Send;
}

/// A function that has routes only.
#[derive(Debug, Clone, Copy)]
pub struct NoEvents;

impl Events for NoEvents {
    async fn scheduled(&self, task: &str) -> Result<(), EventError> {
        Err(EventError(format!("this function has no scheduled task {task}")))
    }

    async fn message(&self, _: &str) -> Result<(), EventError> {
        Err(EventError("this function reads no queue".into()))
    }
}

/// What a function can use to deal with events.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The counters.
    pub counters: Rows,
    /// Configuration.
    pub shared: Arc<Shared>,
}

type Reply = FunctionResponse<Value, BodyDataStream>;

/// One function.
struct Lambda<E> {
    app: Arc<App<LambdaHost>>,
    tasks: TaskTracker,
    events: E,
    streams: bool,
}

/// Runs a function until its environment ends.
pub fn run<E: Events>(function: Function, router: Router, events: impl FnOnce(Tools) -> E) -> ExitCode {
    // One core at most, and often a fraction of one.
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(serve(function, router, events)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", function.name());
            ExitCode::FAILURE
        }
    }
}

async fn serve<E: Events>(function: Function, router: Router, events: impl FnOnce(Tools) -> E) -> Result<(), String> {
    let tasks = TaskTracker::new();
    let lambda = Arc::new(set_up(function, router, events, tasks.clone()).map_err(|error| error.to_string())?);
    let handler = lambda_runtime::service_fn(move |event| {
        let lambda = Arc::clone(&lambda);
        async move { lambda.handle(event).await }
    });
    Runtime::new(handler).layer(WholeLayer(tasks)).run().await.map_err(|error| error.to_string())
}

fn set_up<E: Events>(
    function: Function,
    router: Router,
    events: impl FnOnce(Tools) -> E,
    tasks: TaskTracker,
) -> Result<Lambda<E>, SetupError> {
    let shared = native::environment();
    shared.token_keys()?;
    let mut addresses = Addresses::new(&shared, POOL_SIZE)?;
    let pool = addresses.pool(function.own_address())?;
    let counters = Rows::new(addresses.pool("DATABASE_URL_QUOTA")?);
    let allowed_origins = shared.setting("ALLOWED_ORIGINS").unwrap_or_default();
    let streams = shared.setting("LAMBDA_INVOKE_MODE").is_some_and(|mode| mode == "RESPONSE_STREAM");
    let process = Process::new(shared, counters.clone(), tasks.clone())?;
    let host = NativeHost::new(Arc::clone(&process), pool);
    let app = App::new(allowed_origins, host.clone(), [Part { function, router, host }]);
    let events = events(Tools { counters, shared: process.shared() });
    Ok(Lambda { app: Arc::new(app), tasks, events, streams })
}

impl<E: Events> Lambda<E> {
    async fn handle(self: Arc<Self>, LambdaEvent { payload, context }: LambdaEvent<Value>) -> Result<Reply, lambda_runtime::Error> {
        if payload["source"] == "astra.schedule" {
            self.events.scheduled(payload["task"].as_str().unwrap_or_default()).await?;
            return Ok(FunctionResponse::BufferedResponse(Value::Null));
        }
        if payload["Records"][0]["eventSource"] == "aws:sqs" {
            let batch = serde_json::from_value(payload).map_err(|error| EventError(format!("a batch out of form: {error}")))?;
            return Ok(reply(&self.batch(batch).await)?);
        }
        let request: LambdaRequest =
            serde_json::from_value(payload).map_err(|_| EventError("neither a request nor a schedule nor a queue's batch".into()))?;
        let event = LambdaEvent::new(request, context);
        if self.streams {
            let request = http::Request::from(event.payload);
            return Ok(FunctionResponse::StreamingResponse(streamed(self.answer(request).await)));
        }
        let answer = lambda_runtime::service_fn(|request| {
            let lambda = Arc::clone(&self);
            async move { Ok::<_, Infallible>(lambda.answer(request).await) }
        });
        match Adapter::from(answer).call(event).await {
            Ok(response) => Ok(reply(&response)?),
            Err(never) => match never {},
        }
    }

    async fn answer(&self, request: lambda_http::Request) -> Response {
        let path = request.raw_http_path().to_owned();
        let (mut parts, body) = request.into_parts();
        // As the client sent it: what is before the path in the event's address is the integration's.
        let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
        if let Ok(uri) = format!("{path}{query}").parse() {
            parts.uri = uri;
        }
        let body = match body {
            lambda_http::Body::Text(text) => Body::from(text),
            lambda_http::Body::Binary(bytes) => Body::from(bytes),
            _ => Body::empty(),
        };
        Arc::clone(&self.app).answer_apart(&self.tasks, http::Request::from_parts(parts, body)).await
    }

    async fn batch(&self, batch: SqsEvent) -> SqsBatchResponse {
        let mut failed = SqsBatchResponse::default();
        for message in batch.records {
            if let Err(error) = self.events.message(message.body.as_deref().unwrap_or_default()).await {
                native::log(&serde_json::json!({ "event": "message", "id": message.message_id, "error": error.to_string() }).to_string());
                failed.add_failure(message.message_id.unwrap_or_default());
            }
        }
        failed
    }
}

fn reply(answer: &impl serde::Serialize) -> Result<Reply, EventError> {
    serde_json::to_value(answer).map(FunctionResponse::BufferedResponse).map_err(|error| EventError(error.to_string()))
}

fn streamed(response: Response) -> StreamResponse<BodyDataStream> {
    let (parts, body) = response.into_parts();
    let metadata_prelude = MetadataPrelude { status_code: parts.status, headers: parts.headers, cookies: Vec::new() };
    StreamResponse { metadata_prelude, stream: body.into_data_stream() }
}

/// Makes each invocation last until its work is done.
struct WholeLayer(TaskTracker);

/// See [`WholeLayer`].
struct Whole<S> {
    inner: S,
    tasks: TaskTracker,
}

impl<S> lambda_runtime::tower::Layer<S> for WholeLayer {
    type Service = Whole<S>;

    fn layer(&self, inner: S) -> Whole<S> {
        Whole { inner, tasks: self.0.clone() }
    }
}

impl<S> Service<LambdaInvocation> for Whole<S>
where
    S: Service<LambdaInvocation, Response = ()>,
    S::Future: 'static,
    S::Error: std::fmt::Display,
{
    type Response = ();
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), S::Error>>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let answer = self.inner.call(invocation);
        let tasks = self.tasks.clone();
        Box::pin(async move {
            // An answer that could not be handed over is the client's loss and no reason to end the environment.
            if let Err(error) = answer.await {
                native::log(&serde_json::json!({ "event": "answer", "error": error.to_string() }).to_string());
            }
            tasks.close();
            tasks.wait().await;
            tasks.reopen();
            Ok(())
        })
    }
}
