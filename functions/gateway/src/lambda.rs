//! A function on AWS Lambda: its routes, and beside them what comes from a schedule or a queue, in one binary.
//!
//! One environment does one invocation at a time and is frozen in between, so an invocation must not be over before its background work is: a turn goes on
//! when its client has hung up, and its end is what is paid. [`Whole`] sees to it, whether an answer was taken whole, broke off, or was there before the work.
//!
//! - Routes: a REST API, an HTTP API or a function's address (payloads of both forms), with what the gateway does in front ([`App`]).
//!   `LAMBDA_INVOKE_MODE=RESPONSE_STREAM` says that the answer is streamed, as the integration in front must say too: one that does not stream would hand
//!   on a streamed answer's raw form. Unless set answers are sent whole.
//! - A schedule and a queue: [`astra_host::lambda::events`].
//!
//! Everything is set up before the first event is asked for: an environment that cannot serve does not start, and its log says what to set.

use crate::app::{App, Part};
use crate::rules::Function;
use astra_host::Shared;
use astra_host::lambda::aws::OpenError;
use astra_host::lambda::event::Event;
use astra_host::lambda::events::{EventError, Events, batch};
use astra_host::lambda::secrets::{SecretError, Variables};
use astra_host::lambda::whole::Whole;
use astra_host::native::{Addresses, NativeHost, Process, Rows, SetupError, log};
use astra_host::stream::TurnHost;
use astra_host::web::X_REQUEST_ID;
use astra_kernel::ConfigError;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, Uri};
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, RequestExt as _};
use lambda_runtime::{Context, Error, FunctionResponse, LambdaEvent, MetadataPrelude, Runtime, Service as _, StreamResponse, service_fn};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// The host of a function on Lambda.
pub type LambdaHost = NativeHost<Rows>;

/// One environment does one invocation at a time: a turn's own calls and its signs of life.
const POOL_SIZE: usize = 2;

/// Why an environment does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the runtime: {0}")]
    Runtime(#[from] std::io::Error),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Events(#[from] OpenError),
    #[error("{0}")]
    Loop(Error),
}

/// Runs a function until its environment ends. `check` reads what it needs to be set beside `TOKEN_KEYS`, `TENANT_KEYS` and the database; `events` makes what deals with
/// events that are no requests, of the function's host and the counters.
///
/// - `DATABASE_URL` (or the function's own of the server's): the address of the function's role. `DATABASE_URL_QUOTA`: of the counter's, `astra_quota`.
///   `DATABASE_POOL_SIZE`: 2 unless set.
/// - `LAMBDA_INVOKE_MODE`: `RESPONSE_STREAM`, or `BUFFERED`, as it is unless set.
/// - Instead of any `NAME`: `NAME_SECRET_ARN` or `NAME_SSM_PARAMETER` ([`astra_host::lambda::secrets`]).
pub fn run<E: Events>(
    function: Function,
    router: Router,
    check: fn(&Shared) -> Result<(), ConfigError>,
    events: fn(LambdaHost, Rows) -> Result<E, OpenError>,
) -> ExitCode {
    // One core at most, and often a fraction of one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::from);
    match runtime.and_then(|runtime| runtime.block_on(serve(function, router, check, events))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&serde_json::json!({ "event": "start", "function": function.name(), "error": error.to_string() }).to_string());
            ExitCode::FAILURE
        }
    }
}

async fn serve<E: Events>(
    function: Function,
    router: Router,
    check: fn(&Shared) -> Result<(), ConfigError>,
    events: fn(LambdaHost, Rows) -> Result<E, OpenError>,
) -> Result<(), StartError> {
    let shared = Variables::of_process().with_secrets().await?.shared();
    shared.token_keys()?;
    shared.tenant_keys()?;
    shared.issuers()?;
    check(&shared)?;
    let streams = streams(&shared)?;
    let allowed_origins = shared.setting("ALLOWED_ORIGINS").unwrap_or_default();
    let (pool, counters) = {
        let mut addresses = Addresses::new(&shared, POOL_SIZE)?;
        (addresses.pool(function.own_address())?, Rows::new(addresses.pool("DATABASE_URL_QUOTA")?))
    };
    let tasks = TaskTracker::new();
    let host = NativeHost::new(Process::new(shared, counters.clone(), tasks.clone())?, pool);
    let events = events(host.clone(), counters)?;
    let app = Arc::new(App::new(allowed_origins, host.clone(), [Part { function, router, host }]));
    let lambda = Arc::new(Lambda { function, app, tasks: tasks.clone(), events, streams });
    let handler = service_fn(move |event| Arc::clone(&lambda).handle(event));
    Runtime::new(handler).layer(Whole::new(tasks)).run().await.map_err(StartError::Loop)
}

fn streams(shared: &Shared) -> Result<bool, ConfigError> {
    const NAME: &str = "LAMBDA_INVOKE_MODE";
    match shared.setting(NAME).as_deref() {
        Some("RESPONSE_STREAM") => Ok(true),
        None | Some("BUFFERED") => Ok(false),
        Some(_) => Err(ConfigError::Malformed(NAME, "it is RESPONSE_STREAM or BUFFERED".to_owned())),
    }
}

type Reply = FunctionResponse<Value, BodyDataStream>;

/// One function.
struct Lambda<H, E> {
    function: Function,
    app: Arc<App<H>>,
    tasks: TaskTracker,
    events: E,
    streams: bool,
}

impl<H: TurnHost, E: Events> Lambda<H, E> {
    async fn handle(self: Arc<Self>, LambdaEvent { payload, context }: LambdaEvent<Box<RawValue>>) -> Result<Reply, Error> {
        let (function, id) = (self.function.name(), context.request_id.clone());
        let reply = match serde_json::from_str(payload.get()) {
            Ok(Event::Request(request)) => self.request(*request, context).await,
            Ok(Event::Queue(messages)) => whole(&batch(&self.events, &messages).await),
            Ok(Event::Schedule(task)) => self.events.scheduled(&task).await.and_then(|()| whole(&())),
            Err(error) => Err(EventError(error.to_string())),
        };
        reply.map_err(|error| {
            log(&serde_json::json!({ "event": "invocation", "function": function, "requestId": id, "error": error.to_string() })
                .to_string());
            error.into()
        })
    }

    async fn request(self: Arc<Self>, request: LambdaRequest, context: Context) -> Result<Reply, EventError> {
        if self.streams {
            let id = context.request_id.clone();
            return Ok(streamed(self.answer(request.into(), &id).await));
        }
        let id = context.request_id.clone();
        let answer = service_fn(move |request| {
            let (lambda, id) = (Arc::clone(&self), id.clone());
            async move { Ok::<_, Infallible>(lambda.answer(request, &id).await) }
        });
        match Adapter::from(answer).call(LambdaEvent::new(request, context)).await {
            Ok(response) => whole(&response),
            Err(never) => match never {},
        }
    }

    async fn answer(&self, request: lambda_http::Request, id: &str) -> Response {
        Arc::clone(&self.app).answer_apart(&self.tasks, as_sent(request, id)).await
    }
}

/// The request as a client sent it: what the event's address has before the path is the integration's. A request that has no id gets the invocation's, so
/// that the log's lines and Lambda's own are found together.
fn as_sent(request: lambda_http::Request, id: &str) -> Request {
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let address = format!("{}{query}", request.raw_http_path()).parse();
    let (mut parts, body) = request.into_parts();
    parts.uri = address.unwrap_or_else(|_| Uri::from_static("/"));
    if let (false, Ok(id)) = (parts.headers.contains_key(&X_REQUEST_ID), HeaderValue::from_str(id)) {
        parts.headers.insert(X_REQUEST_ID.clone(), id);
    }
    Request::from_parts(parts, Body::new(body))
}

fn whole(answer: &impl Serialize) -> Result<Reply, EventError> {
    serde_json::to_value(answer).map(FunctionResponse::BufferedResponse).map_err(|error| EventError(error.to_string()))
}

fn streamed(response: Response) -> Reply {
    let (parts, body) = response.into_parts();
    let metadata_prelude = MetadataPrelude { status_code: parts.status, headers: parts.headers, cookies: Vec::new() };
    FunctionResponse::StreamingResponse(StreamResponse { metadata_prelude, stream: body.into_data_stream() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_kernel::Settings;
    use http_body_util::BodyExt as _;

    async fn sent(event: Value, id: &str) -> (String, Option<String>, String) {
        let request: LambdaRequest = serde_json::from_value(event).unwrap();
        let request = as_sent(request.into(), id);
        let given = request.headers().get(&X_REQUEST_ID).map(|id| id.to_str().unwrap().to_owned());
        let address = request.uri().to_string();
        (address, given, String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_request_is_what_the_client_sent_whatever_stands_in_front() {
        let rest = serde_json::json!({ "resource": "/{proxy+}", "path": "/workspaces/a/usage", "httpMethod": "POST", "headers": { "Host": "x.example" },
            "multiValueHeaders": {}, "queryStringParameters": { "month": "2026-11" }, "multiValueQueryStringParameters": { "month": ["2026-11"] },
            "requestContext": { "stage": "prod", "httpMethod": "POST", "identity": {} }, "body": "aGVsbG8=", "isBase64Encoded": true });
        assert_eq!(sent(rest, "id-1").await, ("/workspaces/a/usage?month=2026-11".to_owned(), Some("id-1".to_owned()), "hello".to_owned()));
        let url = serde_json::json!({ "version": "2.0", "routeKey": "$default", "rawPath": "/workspaces/a%20b", "rawQueryString": "limit=2&after=%2F",
            "headers": { "x-request-id": "mine" }, "requestContext": { "stage": "$default", "http": { "method": "POST", "path": "/workspaces/a%20b" } },
            "body": "{}", "isBase64Encoded": false });
        assert_eq!(sent(url, "id-2").await, ("/workspaces/a%20b?limit=2&after=%2F".to_owned(), Some("mine".to_owned()), "{}".to_owned()));
    }

    #[test]
    fn answers_are_streamed_only_if_that_is_said() {
        struct One(Option<&'static str>);
        impl Settings for One {
            fn get(&self, _: &str) -> Option<String> {
                self.0.map(str::to_owned)
            }
        }
        let read = |value| streams(&Shared::new(Box::new(One(value)))).map_err(|error| error.to_string());
        assert_eq!((read(None), read(Some("BUFFERED")), read(Some("RESPONSE_STREAM"))), (Ok(false), Ok(false), Ok(true)));
        assert!(read(Some("stream")).unwrap_err().starts_with("LAMBDA_INVOKE_MODE"));
    }

    #[tokio::test]
    async fn a_problem_sent_whole_is_text() {
        let answer = || {
            let response = Response::builder().status(404).header("content-type", "application/problem+json");
            response.body(Body::from(r#"{"code":"not_found"}"#)).unwrap()
        };
        let event = serde_json::json!({ "version": "2.0", "rawPath": "/", "rawQueryString": "", "headers": {}, "isBase64Encoded": false,
            "requestContext": { "stage": "$default", "http": { "method": "GET", "path": "/" } } });
        let event: LambdaRequest = serde_json::from_value(event).unwrap();
        let answering = service_fn(move |_: lambda_http::Request| async move { Ok::<_, Infallible>(answer()) });
        let context = Context::default();
        let Ok(response) = Adapter::from(answering).call(LambdaEvent::new(event, context)).await;
        let response = serde_json::to_value(response).unwrap();
        assert_eq!((&response["statusCode"], &response["isBase64Encoded"]), (&Value::from(404), &Value::from(false)));
        assert_eq!(response["body"], r#"{"code":"not_found"}"#);
    }
}
