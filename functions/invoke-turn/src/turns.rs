//! `POST /workspaces/{workspaceId}/turns` and `…/turns/{turnId}/stop`.

use astra_host::routes::{Params, Unread};
use astra_host::stream::{EventSink as _, TurnHost};
use astra_host::{Call, Failure, with_limits};
use astra_kernel::{AgentId, Claims, Permission, Problem, SessionId, TurnId, WorkspaceId};
use astra_quota::words::{Answer, Ask, Stop};
use astra_turn::events::EventWriter;
use astra_turn::{Begun, Running, TurnAnswer, TurnAsk};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;

/// The longest message, in bytes of UTF-8.
const LONGEST_MESSAGE: usize = 256 * 1024;

/// How often a stream carries at least a comment, in milliseconds: WHATWG HTML ("Server-sent events", authoring notes) suggests about 15 s.
const COMMENT_MILLIS: u32 = 15_000;

/// The largest metadata, in bytes of JSON.
const LARGEST_METADATA: usize = 16 * 1024;

/// A message to an agent.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct TurnRequest {
    /// The agent.
    #[schema(value_type = String, pattern = "^([a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?/)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub agent_id: AgentId,
    /// What the user says; at most 256 KiB, without U+0000.
    #[schema(min_length = 1, pattern = "^[^\\u0000]*$")]
    pub message: String,
    /// The conversation to go on with; a new one unless given.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub session_id: Option<SessionId>,
    /// Whether the answer comes as server-sent events; so it does too when `Accept` is `text/event-stream`.
    #[serde(default)]
    pub stream: bool,
    /// The caller's own data, stored with the turn; at most 16 KiB of JSON.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The turn is asked to stop; it ends within seconds, charged what was delivered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stopping {
    /// The turn.
    #[schema(value_type = String, format = "uuid")]
    pub turn_id: TurnId,
    /// Always `stopping`.
    pub status: &'static str,
}

impl TurnRequest {
    /// Checks the rules that types do not say and makes it a turn.
    ///
    /// # Errors
    /// `422` naming the field.
    pub fn into_ask(self, claims: &Claims, idempotency_key: Option<String>) -> Result<TurnAsk, Problem> {
        let Self { agent_id, message, session_id, stream: _, metadata } = self;
        if agent_id.is_a_guests() {
            return Err(Problem::field("/agentId", "an agent of this workspace, or WORKSPACE/AGENT of another that has granted it"));
        }
        if message.is_empty() || message.len() > LONGEST_MESSAGE {
            return Err(Problem::field("/message", format!("a text of 1 to {LONGEST_MESSAGE} bytes")));
        }
        if message.contains('\0') {
            return Err(Problem::field("/message", "a text without U+0000"));
        }
        let metadata = metadata
            .map(|map| serde_json::value::to_raw_value(&map))
            .transpose()
            .map_err(|_| Problem::field("/metadata", "a JSON object"))?;
        if metadata.as_ref().is_some_and(|m| m.get().len() > LARGEST_METADATA) {
            return Err(Problem::field("/metadata", format!("a JSON object of at most {LARGEST_METADATA} bytes")));
        }
        if metadata.as_ref().is_some_and(|m| holds_nul(m)) {
            return Err(Problem::field("/metadata", "a JSON object without U+0000"));
        }
        let mut hash = Sha256::new();
        for part in
            [agent_id.as_str(), &message, &session_id.map(|s| s.to_string()).unwrap_or_default(), metadata.as_ref().map_or("", |m| m.get())]
        {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let request_hash = hex::encode(hash.finalize());
        let token_id = (!claims.is_operator()).then(|| claims.jti.clone());
        let (subject, scope) = (claims.sub.clone(), claims.scope.clone());
        Ok(TurnAsk { agent_id, message, session_id, metadata, idempotency_key, request_hash, subject, token_id, scope })
    }
}

/// Postgres's JSON has no U+0000, which JSON writes as an escape with an odd number of backslashes before the `u`.
fn holds_nul(json: &RawValue) -> bool {
    let bytes = json.get().as_bytes();
    json.get().match_indices("\\u0000").any(|(at, _)| bytes[..at].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 0)
}

/// Says something to an agent.
///
/// With `Accept: text/event-stream` (or `"stream": true`) the answer comes as the events `turn.started`, `content.delta`,
/// `turn.completed` (this answer without `content`) or `turn.failed` (a problem).
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/turns", tag = "turns", operation_id = "createTurn",
    params(
        ("workspaceId" = String, Path, description = "The workspace"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key and body: the same answer, once run and once charged, for the rest of the month"),
    ),
    request_body = TurnRequest,
    responses((status = 200, description = "The answer", content((TurnAnswer = "application/json"), (String = "text/event-stream"))))
)]
pub async fn create<H: TurnHost>(call: Call<H>, Params(workspace): Params<String>, request: Unread) -> Result<Response, Failure> {
    // What their role allows is read with all else that the turn needs.
    let (claims, workspace) = call.named(&workspace, Permission::AgentInvoke).await?;
    let key = request.idempotency_key()?;
    let wants_stream = request.header(&ACCEPT).contains("text/event-stream");
    let body: TurnRequest = request.json().await?;
    let streams = wants_stream || body.stream;
    let ask = body.into_ask(&claims, key)?;
    match astra_turn::begin(&call, &workspace, ask).await? {
        Begun::Running(running) if streams => {
            let quota = running.quota.clone();
            Ok(with_limits(stream(&call.host, *running), &quota, call.host.now()))
        }
        Begun::Running(running) => {
            let answer = answer(&call.host, *running).await?;
            let quota = answer.quota.clone();
            Ok(with_limits(Json(answer).into_response(), &quota, call.host.now()))
        }
        Begun::Replay(answer) if streams => Ok(replay(&call.host, *answer)),
        Begun::Replay(answer) => Ok(Json(answer).into_response()),
    }
}

/// Runs the turn to its end and waits for it. The task is the background's: if the caller goes, it does not.
pub(crate) async fn answer<H: TurnHost>(host: &H, running: Running<H>) -> Result<TurnAnswer, Failure> {
    let (sender, receiver) = oneshot::channel();
    let task = host.clone();
    host.background(async move {
        let _ = sender.send(astra_turn::run(&task, running, &mut |_| ()).await);
    });
    receiver.await.map_err(|_| Failure::internal("the turn's task ended without a word"))?
}

fn event_stream<H: TurnHost>(host: &H) -> (H::Sink, Response) {
    let (sink, mut response) = host.stream();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    (sink, response)
}

fn stream<H: TurnHost>(host: &H, running: Running<H>) -> Response {
    let (sink, response) = event_stream(host);
    let task = host.clone();
    host.background(async move {
        let mut events = EventWriter::default();
        let request_id = running.request_id();
        let Some(opening) = running.hold.opening() else { return };
        let instance = format!("/workspaces/{}/turns", opening.workspace);
        sink.push(&events.started(&opening.turn_id, &opening.session_id));
        let ended = {
            let mut deltas = |text: &str| sink.push(&events.delta(text));
            let run = std::pin::pin!(astra_turn::run(&task, running, &mut deltas));
            match select(run, std::pin::pin!(comment(&task, &sink))).await {
                Either::Left((ended, _)) => ended,
                Either::Right((never, _)) => match never {},
            }
        };
        sink.push(&match ended {
            Ok(answer) => events.completed(&answer),
            Err(failure) => events.failed(failure.problem(), &instance, &request_id),
        });
        sink.close().await;
    });
    response
}

/// Sends a comment now and then, so that no proxy on the way takes a model that thinks for a connection that is dead.
async fn comment<H: TurnHost>(host: &H, sink: &H::Sink) -> Infallible {
    loop {
        host.sleep(COMMENT_MILLIS).await;
        sink.push(b": still here\n\n");
    }
}

/// An answer that was given before, as events.
fn replay<H: TurnHost>(host: &H, answer: TurnAnswer) -> Response {
    let (sink, response) = event_stream(host);
    host.background(async move {
        let mut events = EventWriter::default();
        sink.push(&events.started(&answer.turn_id, &answer.session_id));
        if let Some(text) = answer.content.as_deref().filter(|text| !text.is_empty()) {
            sink.push(&events.delta(text));
        }
        sink.push(&events.completed(&answer));
        sink.close().await;
    });
    response
}

/// Stops a running turn. What was delivered is saved and charged; the turn ends with finishReason `stopped`.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/turns/{turnId}/stop", tag = "turns", operation_id = "stopTurn",
    params(("workspaceId" = String, Path, description = "The workspace"), ("turnId" = String, Path, format = "uuid", description = "The turn")),
    responses((status = 202, description = "It will stop", body = Stopping))
)]
pub async fn stop<H: TurnHost>(call: Call<H>, Params((workspace, turn)): Params<(String, String)>) -> Result<Response, Failure> {
    let allowed = call.tenant(&workspace, Permission::AgentInvoke).await?;
    let not_running = || Problem::not_found("running turn of yours");
    let turn_id: TurnId = turn.parse().map_err(|_| not_running())?;
    // A member stops their own turns; who may read everybody's sessions may stop everybody's.
    let subject = (!allowed.may(Permission::SessionReadAll)).then(|| allowed.claims.sub.clone());
    let workspace: &WorkspaceId = allowed.data.workspace();
    let stopping = || Ok((http::StatusCode::ACCEPTED, Json(Stopping { turn_id, status: "stopping" })).into_response());
    if let Answer::Stopping = call.host.ask(workspace, &Ask::Stop(Stop { turn_id, subject: subject.clone(), guest: None })).await? {
        return stopping();
    }
    // Or it is held by the counter of a workspace that pays for it.
    let stop = Ask::Stop(Stop { turn_id, subject, guest: Some(workspace.clone()) });
    for payer in allowed.data.payers(call.host.now()).await? {
        if let Answer::Stopping = call.host.ask(&payer, &stop).await? {
            return stopping();
        }
    }
    Err(not_running().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(json: &str) -> Result<TurnAsk, Problem> {
        let claims = astra_kernel::Claims {
            sub: "u".into(),
            ws: Some("acme".to_owned().try_into().unwrap()),
            role: "member".into(),
            scope: None,
            jti: "j".into(),
            iat: 0,
            exp: 0,
            iss: String::new(),
            aud: String::new(),
        };
        serde_json::from_str::<TurnRequest>(json).unwrap().into_ask(&claims, None)
    }

    #[test]
    fn the_hash_is_of_what_is_asked_not_of_how_it_is_written() {
        let hash = |json| ask(json).unwrap().request_hash;
        let one = hash(r#"{"agentId":"a","message":"m","metadata":{"x":1,"y":2}}"#);
        assert_eq!(one, hash(r#"{"metadata":{"y":2,"x":1},"message":"\u006d","stream":true,"agentId":"a"}"#));
        assert_ne!(one, hash(r#"{"agentId":"a","message":"m"}"#));
        assert_ne!(hash(r#"{"agentId":"ab","message":"c"}"#), hash(r#"{"agentId":"a","message":"bc"}"#));
    }

    #[test]
    fn what_postgres_cannot_hold_is_refused() {
        assert_eq!(ask(r#"{"agentId":"a","message":"x\u0000"}"#).unwrap_err().errors[0].pointer, "/message");
        assert_eq!(ask(r#"{"agentId":"a","message":"x","metadata":{"a":"\u0000"}}"#).unwrap_err().errors[0].pointer, "/metadata");
        assert!(ask(r#"{"agentId":"a","message":"x","metadata":{"a":"\\u0000"}}"#).is_ok());
        assert!(ask(r#"{"agentId":"a","message":""}"#).is_err());
    }
}
