//! A host for tests: a database that answers what it was told to and remembers what it was asked, a clock that stands still.

use astra_host::{CounterUnreachable, Host, Shared, serve};
use astra_kernel::token::AUDIENCE;
use astra_kernel::{Claims, Settings, Timestamp, TokenKeys, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use astra_store::{Database, StoreError};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// 2026-11-24T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_521_600_000);

const TOKEN_KEYS: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const SECRETS_KEY: &str = "s1:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4";

type Counter = fn(&Ask) -> Result<Answer, CounterUnreachable>;

/// The host. Clones share everything.
#[derive(Clone)]
pub(crate) struct FakeHost(Arc<Inner>);

#[derive(Default)]
struct Inner {
    shared: Option<Shared>,
    answers: Mutex<HashMap<String, Result<String, StoreError>>>,
    calls: Mutex<Vec<(String, Vec<String>)>>,
    counter: Mutex<Option<Counter>>,
    asked: Mutex<Vec<String>>,
    logged: Mutex<Vec<String>>,
}

struct Fixed(HashMap<&'static str, &'static str>);

impl Settings for Fixed {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|v| (*v).to_owned())
    }
}

impl FakeHost {
    /// A host with keys and these further variables.
    pub(crate) fn new(variables: &[(&'static str, &'static str)]) -> Self {
        let mut settings = HashMap::from([("TOKEN_KEYS", TOKEN_KEYS), ("SECRETS_KEY", SECRETS_KEY)]);
        settings.extend(variables.iter().copied());
        Self(Arc::new(Inner { shared: Some(Shared::new(Box::new(Fixed(settings)))), ..Inner::default() }))
    }

    /// What the SQL function `astra.NAME` answers from now on.
    pub(crate) fn answer(&self, name: &str, document: &Value) -> &Self {
        self.0.answers.lock().unwrap().insert(name.to_owned(), Ok(document.to_string()));
        self
    }

    /// The SQL function fails from now on.
    pub(crate) fn fail(&self, name: &str, error: StoreError) -> &Self {
        self.0.answers.lock().unwrap().insert(name.to_owned(), Err(error));
        self
    }

    /// What the counter answers from now on.
    pub(crate) fn counter(&self, counter: Counter) -> &Self {
        *self.0.counter.lock().unwrap() = Some(counter);
        self
    }

    /// Every SQL function that was called, with its parameters.
    pub(crate) fn calls(&self) -> Vec<(String, Vec<String>)> {
        self.0.calls.lock().unwrap().clone()
    }

    /// The JSON argument of the one call of a function.
    pub(crate) fn argument(&self, name: &str) -> Value {
        let calls = self.calls();
        let found: Vec<_> = calls.iter().filter(|(called, _)| called == name).collect();
        assert_eq!(found.len(), 1, "calls of {name} in {calls:?}");
        serde_json::from_str(found[0].1.last().unwrap()).unwrap()
    }

    /// What the counter was asked.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().clone()
    }

    /// What was logged.
    pub(crate) fn logged(&self) -> Vec<String> {
        self.0.logged.lock().unwrap().clone()
    }
}

impl Database for FakeHost {
    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        let name = statement.split("astra.").nth(1).and_then(|s| s.split('(').next()).unwrap_or(statement).to_owned();
        self.0.calls.lock().unwrap().push((name.clone(), params.iter().map(|p| (*p).to_owned()).collect()));
        self.0.answers.lock().unwrap().get(&name).cloned().unwrap_or(Err(StoreError::Unreachable))
    }
}

impl Host for FakeHost {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }

    fn shared(&self) -> &Shared {
        self.0.shared.as_ref().unwrap()
    }

    async fn ask(&self, workspace: &WorkspaceId, ask: &Ask) -> Result<Answer, CounterUnreachable> {
        self.0.asked.lock().unwrap().push(format!("{workspace} {ask:?}"));
        self.0.counter.lock().unwrap().map_or(Err(CounterUnreachable), |answer| answer(ask))
    }

    fn background(&self, _: impl Future<Output = ()> + Send + 'static) {}

    fn log(&self, line: &str) {
        self.0.logged.lock().unwrap().push(line.to_owned());
    }
}

/// A token. `workspace` is none for operators.
pub(crate) fn token(workspace: Option<&str>, role: &str, scope: Option<&[&str]>) -> String {
    let claims = Claims {
        sub: "user-1".into(),
        ws: workspace.map(|ws| ws.to_owned().try_into().unwrap()),
        role: role.into(),
        scope: scope.map(|s| s.iter().map(|e| (*e).to_owned()).collect()),
        jti: "j".into(),
        iat: NOW.unix_seconds(),
        exp: NOW.unix_seconds() + 60,
        iss: AUDIENCE.into(),
        aud: AUDIENCE.into(),
    };
    TokenKeys::parse(TOKEN_KEYS).unwrap().sign(&claims).unwrap()
}

/// The operator's token.
pub(crate) fn operator() -> String {
    token(None, "operator", None)
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Its JSON, when it has this status.
    #[track_caller]
    pub(crate) fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The pointer (or the detail) of a problem, when it has this status.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        problem["errors"][0]["pointer"].as_str().unwrap_or_else(|| problem["detail"].as_str().unwrap()).to_owned()
    }
}

/// A request in the making.
pub(crate) struct Sent<'a> {
    pub(crate) token: Option<&'a str>,
    pub(crate) content_type: &'a str,
    pub(crate) accept: &'a str,
    pub(crate) body: String,
}

/// Sends a request with a JSON body.
pub(crate) async fn send(router: &Router, host: &FakeHost, method: &str, path: &str, token: Option<&str>, body: &str) -> Reply {
    let ask = Sent { token, content_type: "application/json", accept: "*/*", body: body.to_owned() };
    send_as(router, host, method, path, ask).await
}

/// Sends any request.
pub(crate) async fn send_as(router: &Router, host: &FakeHost, method: &str, path: &str, ask: Sent<'_>) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("accept", ask.accept);
    if !ask.content_type.is_empty() {
        request = request.header("content-type", ask.content_type);
    }
    if let Some(token) = ask.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::from(ask.body)).unwrap();
    let response = serve("test", router, host.clone(), request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { status: parts.status.as_u16(), headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}
