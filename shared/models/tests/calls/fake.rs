//! A network that answers by script. Reads can be cut anywhere, kept waiting, or broken off.

use astra_kernel::Timestamp;
use astra_models::{
    ByteStream, Ended, Endpoint, Generation, Http, HttpError, Message, MessageRole, ModelError, Piece, Prompt, Provider, Retry,
};
use bytes::Bytes;
use futures_util::FutureExt;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

/// One read of a body.
#[derive(Clone)]
pub(crate) enum Read {
    Data(Bytes),
    /// Not ready at the first poll: what awaits it is dropped, and asks again.
    Wait,
    Break,
}

pub(crate) type Reply = Result<http::Response<Vec<Read>>, HttpError>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) replies: VecDeque<Reply>,
    pub(crate) requests: Vec<http::Request<Bytes>>,
    pub(crate) sleeps: Vec<u32>,
    /// What [`Retry::asking`] was told last.
    pub(crate) asking: bool,
    /// The same at each call and each wait, in their order.
    pub(crate) trail: Vec<(&'static str, bool)>,
}

#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<State>>);

impl Network {
    pub(crate) fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let network = Self::default();
        network.state().replies.extend(replies);
        network
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds this")
    }

    /// The clock: it moves only when something sleeps.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.state().sleeps.iter().copied().map(i64::from).sum())
    }
}

impl Http for Network {
    type Body = Body;

    async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, HttpError> {
        let mut state = self.state();
        let asking = state.asking;
        state.trail.push(("call", asking));
        state.requests.push(request);
        state.replies.pop_front().expect("a call that the script has no reply for").map(|response| response.map(|reads| Body(reads.into())))
    }

    async fn sleep(&self, millis: u32) {
        let mut state = self.state();
        let asking = state.asking;
        state.trail.push(("wait", asking));
        state.sleeps.push(millis);
    }
}

pub(crate) struct Body(VecDeque<Read>);

impl ByteStream for Body {
    async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        std::future::poll_fn(|_| match self.0.pop_front() {
            Some(Read::Wait) => Poll::Pending,
            Some(Read::Data(bytes)) => Poll::Ready(Some(Ok(bytes))),
            Some(Read::Break) => Poll::Ready(Some(Err(HttpError::Broken))),
            None => Poll::Ready(None),
        })
        .await
    }
}

pub(crate) fn data(text: &str) -> Read {
    Read::Data(Bytes::copy_from_slice(text.as_bytes()))
}

#[expect(clippy::unnecessary_wraps, reason = "a reply is what a script is made of")]
pub(crate) fn stream(reads: impl IntoIterator<Item = Read>) -> Reply {
    let response = http::Response::builder().header("content-type", "text/event-stream; charset=utf-8");
    Ok(response.body(reads.into_iter().collect()).expect("a response"))
}

#[expect(clippy::unnecessary_wraps, reason = "a reply is what a script is made of")]
pub(crate) fn status(status: u16, retry_after: Option<&str>) -> Reply {
    let mut response = http::Response::builder().status(status);
    if let Some(value) = retry_after {
        response = response.header("retry-after", value);
    }
    Ok(response.body(vec![data("{\"error\": {\"message\": \"sk-secret is wrong\"}}")]).expect("a response"))
}

pub(crate) fn endpoint(provider: Provider) -> Endpoint {
    let model = if provider == Provider::Anthropic { "claude-sonnet-4-5" } else { "gpt-4o-mini" };
    Endpoint { provider, model: model.into(), base_url: None, api_key: Some("sk-secret".to_owned().into()) }
}

pub(crate) fn prompt() -> Prompt {
    let message = |role, content: &str| Message { role, content: content.into() };
    Prompt {
        system: "You are ACME's assistant.".into(),
        messages: vec![
            message(MessageRole::User, "Hello"),
            message(MessageRole::Assistant, "Hi! \"How\" can I help?"),
            message(MessageRole::User, "Grüße 👋\nrefunds?"),
        ],
        memories: vec!["for the local model only".into()],
        max_output_tokens: 500,
        answer_schema: None,
        batch: false,
    }
}

/// Starts with three attempts and a deadline in a minute.
pub(crate) fn start(network: &Network, endpoint: &Endpoint) -> Result<Generation<Network>, ModelError> {
    start_with(network, endpoint, &prompt())
}

pub(crate) fn start_with(network: &Network, endpoint: &Endpoint, prompt: &Prompt) -> Result<Generation<Network>, ModelError> {
    let now = || network.now();
    let asking = |asking| network.state().asking = asking;
    let retry = Retry { attempts: 3, deadline: Timestamp(60_000), now: &now, seed: 7, asking: &asking };
    Generation::start(network, endpoint, prompt, retry).now_or_never().expect("nothing here waits")
}

/// Reads to the end. Each wait drops the future, as a race with a timer does.
pub(crate) fn read(generation: &mut Generation<Network>) -> (Vec<String>, Result<Ended, ModelError>) {
    let mut texts = Vec::new();
    let end = loop {
        match generation.next().now_or_never() {
            None => {}
            Some(Ok(Some(Piece::Text(text)))) => texts.push(text),
            Some(Ok(Some(Piece::End(ended)))) => break Ok(ended),
            Some(Ok(None)) => panic!("None before the end"),
            Some(Err(error)) => break Err(error),
        }
    };
    assert_eq!(generation.next().now_or_never(), Some(Ok(None)), "after the end there is nothing");
    (texts, end)
}

pub(crate) fn answer(provider: Provider, reads: impl IntoIterator<Item = Read>) -> (Vec<String>, Result<Ended, ModelError>) {
    let network = Network::new([stream(reads)]);
    read(&mut start(&network, &endpoint(provider)).expect("a stream"))
}

/// Cuts a body at the given places, each a fraction of its length, with or without waits between the reads.
pub(crate) fn cut(body: &[u8], places: &[usize], waits: bool) -> Vec<Read> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (body.len() + 1)).chain([0, body.len()]).collect();
    places.sort_unstable();
    let reads = places.windows(2).map(|pair| Read::Data(Bytes::copy_from_slice(&body[pair[0]..pair[1]])));
    if waits { reads.flat_map(|read| [Read::Wait, read]).collect() } else { reads.collect() }
}

/// What a request is, with the key as `***`.
pub(crate) fn shown(request: &http::Request<Bytes>) -> String {
    let headers: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text").replace("sk-secret", "***")))
        .collect();
    let body: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
    format!("{} {}\n{}\n\n{body:#}", request.method(), request.uri(), headers.join("\n"))
}
