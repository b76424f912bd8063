//! From a request to its answer: which function it is for, what browsers may see of the answer, and the two routes that belong to no function.
//!
//! Generic over the host, so that it is tested with any. Every answer that is no preflight comes through [`astra_host::serve`]: request id, problem and log
//! line are the same for what a function answers and for what is refused before one is found.

use crate::cors;
use crate::rules::{self, Function};
use astra_host::stream::TurnHost;
use astra_host::web::{X_REQUEST_ID, remember_route};
use astra_host::{Failure, serve};
use astra_kernel::{Code, Problem};
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router, middleware};
use futures_util::future::join_all;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// The name under which the log shows what no function has answered.
const SELF: &str = "gateway";

/// A function: its router, and its host with its own way into the database.
#[derive(Debug)]
pub struct Part<H> {
    /// Which.
    pub function: Function,
    /// Its routes.
    pub router: Router,
    /// Its host.
    pub host: H,
}

/// Functions behind one address.
pub struct App<H> {
    parts: Arc<[Part<H>]>,
    host: H,
    own: Router,
    panicked: Router,
    allowed_origins: String,
}

impl<H> std::fmt::Debug for App<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}

impl<H: TurnHost> App<H> {
    /// Functions, each with its host; `host` is for what none of them answers. `allowed_origins` is `ALLOWED_ORIGINS`.
    pub fn new(allowed_origins: String, host: H, parts: impl IntoIterator<Item = Part<H>>) -> Self {
        let parts: Arc<[Part<H>]> = parts.into_iter().collect();
        Self {
            own: own_routes(Arc::clone(&parts)),
            panicked: Router::new().fallback(async || Failure::internal("a handler panicked; standard error says where")),
            host,
            parts,
            allowed_origins,
        }
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request) -> Response {
        let origin = cors::allowed_origin(request.headers(), &self.allowed_origins);
        if cors::is_preflight(&request) {
            return cors::preflight(origin);
        }
        let mut response = self.route(request).await;
        if let Some(origin) = origin {
            cors::expose(response.headers_mut(), origin);
        }
        response
    }

    /// Answers a request in a task of its own: a client that hangs up half-way cuts nothing off, and a panic is a `500` for one client.
    pub async fn answer_apart(self: Arc<Self>, tasks: &TaskTracker, request: Request) -> Response {
        let (method, uri, id) = (request.method().clone(), request.uri().clone(), request.headers().get(&X_REQUEST_ID).cloned());
        let origin = cors::allowed_origin(request.headers(), &self.allowed_origins);
        let app = Arc::clone(&self);
        if let Ok(response) = tasks.spawn(async move { app.answer(request).await }).await {
            return response;
        }
        let mut request = Request::new(Body::empty());
        (*request.method_mut(), *request.uri_mut()) = (method, uri);
        if let Some(id) = id {
            request.headers_mut().insert(X_REQUEST_ID.clone(), id);
        }
        let mut response = serve(SELF, &self.panicked, self.host.clone(), request).await;
        if let Some(origin) = origin {
            cors::expose(response.headers_mut(), origin);
        }
        response
    }

    async fn route(&self, request: Request) -> Response {
        let function = rules::function_for(request.uri().path());
        let Some(part) = self.parts.iter().find(|part| Some(part.function) == function) else {
            return serve(SELF, &self.own, self.host.clone(), request).await;
        };
        // A length that is no text is none that is acceptable.
        let length = request.headers().get(CONTENT_LENGTH).map(|length| length.to_str().unwrap_or("?"));
        let limit = rules::body_limit(request.uri().path());
        if !rules::length_is_acceptable(length, limit) {
            let too_large = move || Problem::new(Code::PayloadTooLarge, format!("The body is larger than {limit} bytes."));
            let refuse = Router::new().fallback(async move || Failure::from(too_large()));
            return serve(SELF, &refuse, self.host.clone(), request).await;
        }
        serve(part.function.name(), &part.router, part.host.clone(), request).await
    }
}

/// `/openapi.json`, `/healthz`, and a problem for all else.
fn own_routes<H: TurnHost>(parts: Arc<[Part<H>]>) -> Router {
    let health = move || {
        let parts = Arc::clone(&parts);
        async move { health(&parts).await }
    };
    Router::new()
        .route("/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], crate::OPENAPI)))
        .route("/healthz", get(health))
        .layer(middleware::from_fn(remember_route))
        .fallback(async || Failure::from(Problem::new(Code::NotFound, "No such route. GET /openapi.json lists them.")))
        .method_not_allowed_fallback(async || Failure::from(Problem::new(Code::MethodNotAllowed, "This route has GET only.")))
}

/// Asks every function what it can reach.
async fn health<H: TurnHost>(parts: &[Part<H>]) -> Response {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
        parts: BTreeMap<&'static str, Value>,
    }
    let asked = parts.iter().map(|Part { function, router, host }| async move {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static("/healthz");
        let response = serve(function.name(), router, host.clone(), request).await;
        let well = response.status().is_success();
        let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        (function.name(), well, serde_json::from_slice(&body).unwrap_or_else(|_| "failing".into()))
    });
    let said = join_all(asked).await;
    let well = said.iter().all(|(_, well, _)| *well);
    let parts = said.into_iter().map(|(name, _, said)| (name, said)).collect();
    let body = Health { status: if well { "ok" } else { "degraded" }, parts };
    (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}
