//! What is in front of the functions: a path finds its function, an answer becomes a response again.

use crate::environment::{Fleet, NoAnswer};
use crate::event::event;
use crate::log;
use crate::runtime_api::Outcome;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures_util::{StreamExt as _, stream};
use gateway::rules::{self, Function};
use http::StatusCode;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// The most that Lambda takes as a request, in bytes.
const LARGEST: usize = 6 << 20;

/// Between what describes a streamed answer and the answer.
const DELIMITER: [u8; 8] = [0; 8];

type Fleets = Arc<HashMap<Function, Arc<Fleet>>>;

pub(crate) fn router(fleets: HashMap<Function, Arc<Fleet>>) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(fleets))
}

/// How an answer is described.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    status_code: u16,
    #[serde(default)]
    headers: HashMap<String, OneOrMany>,
    #[serde(default)]
    multi_value_headers: HashMap<String, OneOrMany>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// A header's values.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Description {
    fn response(self, body: Body) -> Response {
        let mut response = Response::builder().status(self.status_code);
        let many: Vec<_> = self.multi_value_headers.keys().cloned().collect();
        for (name, values) in self.headers.into_iter().filter(|(name, _)| !many.contains(name)).chain(self.multi_value_headers) {
            match values {
                OneOrMany::One(value) => response = response.header(&name, value),
                OneOrMany::Many(values) => response = values.into_iter().fold(response, |response, value| response.header(&name, value)),
            }
        }
        response.body(body).unwrap_or_else(|_| plain(StatusCode::BAD_GATEWAY, "the function's answer is out of form"))
    }
}

async fn serve(State(fleets): State<Fleets>, request: Request) -> Response {
    // What no function has a path for is answered by one of them: as a problem, like everything else.
    let function = rules::function_for(request.uri().path()).unwrap_or(Function::Provision);
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, LARGEST).await else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "larger than Lambda takes");
    };
    let event = event(&uuid::Uuid::new_v4().to_string(), &parts, &body);
    match fleets[&function].invoke(event).await {
        Ok(Outcome::Whole(document)) => whole(&document),
        Ok(Outcome::Stream(body)) => streamed(body).await,
        Ok(Outcome::Error(document)) => {
            log(
                &serde_json::json!({ "event": "function error", "function": function.name(), "error": String::from_utf8_lossy(&document) }),
            );
            plain(StatusCode::BAD_GATEWAY, "the function failed")
        }
        Err(NoAnswer::TimedOut) => plain(StatusCode::GATEWAY_TIMEOUT, "the function took too long"),
        Err(NoAnswer::Ended) => plain(StatusCode::BAD_GATEWAY, "the function's process ended"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

fn whole(document: &[u8]) -> Response {
    let Ok(mut description) = serde_json::from_slice::<Description>(document) else {
        return plain(StatusCode::BAD_GATEWAY, "the function's answer is out of form");
    };
    let body = description.body.take().unwrap_or_default();
    let body = if description.is_base64_encoded { BASE64_STANDARD.decode(body).unwrap_or_default().into() } else { Body::from(body) };
    description.response(body)
}

async fn streamed(body: Body) -> Response {
    let mut chunks = body.into_data_stream();
    let mut read = Vec::new();
    loop {
        if let Some(at) = read.windows(DELIMITER.len()).position(|window| window == DELIMITER) {
            let rest = Bytes::copy_from_slice(&read[at + DELIMITER.len()..]);
            let Ok(description) = serde_json::from_slice::<Description>(&read[..at]) else {
                return plain(StatusCode::BAD_GATEWAY, "the function's answer is out of form");
            };
            let first = stream::iter((!rest.is_empty()).then_some(Ok(rest)));
            return description.response(Body::from_stream(first.chain(chunks)));
        }
        match chunks.next().await {
            Some(Ok(chunk)) => read.extend_from_slice(&chunk),
            _ => return plain(StatusCode::BAD_GATEWAY, "the function's answer broke off"),
        }
    }
}
