//! A host for the functions' tests: a database that answers what it was told to and remembers what it was asked, a clock that goes on when it is told to.
//!
//! Behind the feature `testing`, which only dev-dependencies ask for; not in wasm, so that no function can ship it.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test that cannot go on panics")]

#[cfg(feature = "http-client")]
mod turn;

use crate::outgoing::{Answered, NotAnswered, Outgoing};
use crate::{CounterUnreachable, Host, NotFetched, Shared, serve, signatures};
use astra_kernel::jwk::PublicKey;
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
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// 2026-11-24T12:00:00Z.
pub const NOW: Timestamp = Timestamp(1_795_521_600_000);

/// Who asks with a [`token`]: a member with the token's role, unless the answer to `access` is said. Nobody else is one.
const SUBJECT: &str = "user-1";

const TOKEN_KEYS: &str = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const SECRETS_KEY: &str = "s1:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4";
const RECEIPT_KEYS: &str = "r1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// A counter: what it is asked, what it answers.
pub type Counter = fn(&Ask) -> Result<Answer, CounterUnreachable>;

/// Who is called outside: what they are sent, what they answer.
pub type Outside = fn(&Outgoing) -> Result<Answered, NotAnswered>;

/// The host. Clones share everything.
#[derive(Clone)]
pub struct FakeHost(Arc<Inner>);

impl std::fmt::Debug for FakeHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeHost")
    }
}

#[derive(Default)]
struct Inner {
    shared: Option<Shared>,
    answers: Mutex<HashMap<String, Result<String, StoreError>>>,
    calls: Mutex<Vec<(String, Vec<String>)>>,
    counter: Mutex<Option<Counter>>,
    asked: Mutex<Vec<String>>,
    audited: Mutex<Vec<Value>>,
    logged: Mutex<Vec<String>>,
    /// The role of who asks, as the database says it unless it was told otherwise: the token's.
    role: Mutex<String>,
    passed: AtomicI64,
    pages: Mutex<HashMap<String, Result<String, NotFetched>>>,
    fetched: Mutex<Vec<String>>,
    page_waits: AtomicUsize,
    outside: Mutex<Option<Outside>>,
    #[cfg(feature = "http-client")]
    model: Mutex<turn::Model>,
}

struct Fixed(HashMap<&'static str, &'static str>);

impl Settings for Fixed {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|v| (*v).to_owned())
    }
}

impl FakeHost {
    /// A host with keys and these further variables.
    pub fn new(variables: &[(&'static str, &'static str)]) -> Self {
        let mut settings = HashMap::from([("TOKEN_KEYS", TOKEN_KEYS), ("SECRETS_KEY", SECRETS_KEY), ("RECEIPT_KEYS", RECEIPT_KEYS)]);
        settings.extend(variables.iter().copied());
        Self(Arc::new(Inner { shared: Some(Shared::new(Box::new(Fixed(settings)))), ..Inner::default() }))
    }

    /// What the SQL function `astra.NAME` answers from now on.
    pub fn answer(&self, name: &str, document: &Value) -> &Self {
        self.0.answers.lock().unwrap().insert(name.to_owned(), Ok(document.to_string()));
        self
    }

    /// The same, with an answer that is no JSON.
    pub fn answer_text(&self, name: &str, text: &str) -> &Self {
        self.0.answers.lock().unwrap().insert(name.to_owned(), Ok(text.to_owned()));
        self
    }

    /// The SQL function fails from now on.
    pub fn fail(&self, name: &str, error: StoreError) -> &Self {
        self.0.answers.lock().unwrap().insert(name.to_owned(), Err(error));
        self
    }

    /// What the counter answers from now on.
    pub fn counter(&self, counter: Counter) -> &Self {
        *self.0.counter.lock().unwrap() = Some(counter);
        self
    }

    /// Who is outside from now on. Nobody is, unless that is said.
    pub fn outside(&self, outside: Outside) -> &Self {
        *self.0.outside.lock().unwrap() = Some(outside);
        self
    }

    /// So many milliseconds pass. Waits that are over then end when they are looked at.
    pub fn pass(&self, millis: i64) {
        self.0.passed.fetch_add(millis, Ordering::Relaxed);
    }

    /// What is at an address from now on. Where nothing is, nobody answers.
    pub fn page(&self, url: &str, page: Result<&str, NotFetched>) -> &Self {
        self.0.pages.lock().unwrap().insert(url.to_owned(), page.map(str::to_owned));
        self
    }

    /// Whoever fetches a page waits so many times before it is there.
    pub fn slow_pages(&self, waits: usize) -> &Self {
        self.0.page_waits.store(waits, Ordering::Relaxed);
        self
    }

    /// Every address that was fetched.
    pub fn fetched(&self) -> Vec<String> {
        self.0.fetched.lock().unwrap().clone()
    }

    /// Every SQL function that was called, with its parameters.
    pub fn calls(&self) -> Vec<(String, Vec<String>)> {
        self.0.calls.lock().unwrap().clone()
    }

    /// The JSON argument of the one call of a function.
    pub fn argument(&self, name: &str) -> Value {
        let calls = self.calls();
        let found: Vec<_> = calls.iter().filter(|(called, _)| called == name).collect();
        assert_eq!(found.len(), 1, "calls of {name} in {calls:?}");
        serde_json::from_str(found[0].1.last().unwrap()).unwrap()
    }

    /// What the counter was asked.
    pub fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().clone()
    }

    /// What the audit log was told by hand. These calls are not among [`FakeHost::calls`].
    pub fn audited(&self) -> Vec<Value> {
        self.0.audited.lock().unwrap().clone()
    }

    /// What was logged.
    pub fn logged(&self) -> Vec<String> {
        self.0.logged.lock().unwrap().clone()
    }
}

impl Database for FakeHost {
    fn proof(&self, workspace: &WorkspaceId, _: &str) -> Result<String, StoreError> {
        Ok(workspace.to_string())
    }

    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        let known = |name: &str| self.0.answers.lock().unwrap().contains_key(name);
        if statement == astra_store::tenant_statement!("access") && !known("access") {
            let who: Value = serde_json::from_str(params.last().unwrap()).unwrap();
            let access = serde_json::json!({ "outcome": "ok", "access": { "role": *self.0.role.lock().unwrap() } });
            return Ok(if who["subject"] == SUBJECT { access.to_string() } else { r#"{"outcome":"no_member"}"#.to_owned() });
        }
        if statement == astra_store::tenant_statement!("audit_add") && !known("audit_add") {
            self.0.audited.lock().unwrap().push(serde_json::from_str(params.last().unwrap()).unwrap());
            return Ok(r#"{"outcome":"ok"}"#.to_owned());
        }
        let name = statement.split("astra.").nth(1).and_then(|s| s.split('(').next()).unwrap_or(statement).to_owned();
        self.0.calls.lock().unwrap().push((name.clone(), params.iter().map(|p| (*p).to_owned()).collect()));
        self.0.answers.lock().unwrap().get(&name).cloned().unwrap_or(Err(StoreError::Unreachable))
    }
}

impl Host for FakeHost {
    fn now(&self) -> Timestamp {
        NOW.plus_millis(self.0.passed.load(Ordering::Relaxed))
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

    /// Work that waits for nothing is done at once; other work is dropped where it first waits.
    fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let _ = futures_util::FutureExt::now_or_never(work);
    }

    fn log(&self, line: &str) {
        self.0.logged.lock().unwrap().push(line.to_owned());
    }

    async fn verify_signature(&self, key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
        signatures::is_signed(key, signed, signature)
    }

    async fn sign(&self, seed: &[u8; 32], bytes: &[u8]) -> Option<Vec<u8>> {
        signatures::sign(seed, bytes)
    }

    async fn public_key(&self, seed: &[u8; 32]) -> Option<String> {
        signatures::public_key(seed)
    }

    async fn fetch_text(&self, url: &str, limit: usize, _: u32) -> Result<String, NotFetched> {
        self.0.fetched.lock().unwrap().push(url.to_owned());
        for _ in 0..self.0.page_waits.load(Ordering::Relaxed) {
            let_others_go_on().await;
        }
        let page = self.0.pages.lock().unwrap().get(url).cloned().unwrap_or(Err(NotFetched::Unreachable))?;
        if page.len() > limit { Err(NotFetched::TooLarge) } else { Ok(page) }
    }

    async fn call_out(&self, call: Outgoing) -> Result<Answered, NotAnswered> {
        self.0.fetched.lock().unwrap().push(call.url().to_owned());
        self.0.outside.lock().unwrap().map_or(Err(NotAnswered::Unreachable), |outside| outside(&call))
    }

    /// Others go on; the clock goes on when it is told to.
    async fn pause(&self, _: u32) {
        let_others_go_on().await;
    }
}

/// Ready when it is looked at a second time.
async fn let_others_go_on() {
    let mut looked = false;
    let twice = std::future::poll_fn(|context| {
        if std::mem::replace(&mut looked, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    });
    twice.await;
}

/// A token. `workspace` is none for operators.
pub fn token(workspace: Option<&str>, role: &str, scope: Option<&[&str]>) -> String {
    let claims = Claims {
        sub: SUBJECT.into(),
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
pub fn operator() -> String {
    token(None, "operator", None)
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// Its body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Its JSON, when it has this status.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The pointer (or the detail) of a problem, when it has this status.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        problem["errors"][0]["pointer"].as_str().unwrap_or_else(|| problem["detail"].as_str().unwrap()).to_owned()
    }
}

/// A request in the making.
#[derive(Debug)]
pub struct Sent<'a> {
    /// The bearer token, if any.
    pub token: Option<&'a str>,
    /// Content-Type; not sent when empty.
    pub content_type: &'a str,
    /// Accept.
    pub accept: &'a str,
    /// The body.
    pub body: String,
}

/// Sends a request with a JSON body.
pub async fn send(router: &Router, host: &FakeHost, method: &str, path: &str, token: Option<&str>, body: &str) -> Reply {
    let ask = Sent { token, content_type: "application/json", accept: "*/*", body: body.to_owned() };
    send_as(router, host, method, path, ask).await
}

/// Sends any request.
pub async fn send_as(router: &Router, host: &FakeHost, method: &str, path: &str, ask: Sent<'_>) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("accept", ask.accept);
    if !ask.content_type.is_empty() {
        request = request.header("content-type", ask.content_type);
    }
    if let Some(token) = ask.token {
        if let Ok(claims) = TokenKeys::parse(TOKEN_KEYS).unwrap().verify(token, host.now()) {
            *host.0.role.lock().unwrap() = claims.role;
        }
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::from(ask.body)).unwrap();
    let response = serve("test", router, host.clone(), request).await;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { status: parts.status.as_u16(), headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}
