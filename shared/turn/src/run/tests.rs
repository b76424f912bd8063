//! What a turn is charged that is cut before its model has said a word.

use super::*;
use astra_host::stream::EventSink;
use astra_host::{CounterUnreachable, Host, Shared};
use astra_kernel::WorkspaceId;
use astra_models::{ByteStream, Http, HttpError, Message, MessageRole, Provider};
use astra_quota::words::{Answer, Ask};
use astra_store::{Database, StoreError};
use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use std::collections::VecDeque;
use std::sync::Mutex;

/// A host whose provider answers with these statuses and then not at all; its waits are over at once, as many as are told.
#[derive(Clone)]
struct Busy(Arc<Mutex<(VecDeque<u16>, usize)>>);

impl Busy {
    fn new(statuses: &[u16], waits: usize) -> Self {
        Self(Arc::new(Mutex::new((statuses.iter().copied().collect(), waits))))
    }
}

impl Http for Busy {
    type Body = Silence;

    async fn send(&self, _: http::Request<Bytes>) -> Result<http::Response<Silence>, HttpError> {
        let status = self.0.lock().unwrap().0.pop_front();
        match status {
            Some(status) => Ok(http::Response::builder().status(status).body(Silence).unwrap()),
            None => std::future::pending().await,
        }
    }

    async fn sleep(&self, _: u32) {
        let left = self.0.lock().unwrap().1.checked_sub(1);
        match left {
            Some(left) => self.0.lock().unwrap().1 = left,
            None => std::future::pending().await,
        }
    }
}

struct Silence;

impl ByteStream for Silence {
    async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        None
    }
}

impl Database for Busy {
    async fn query(&self, _: &'static str, _: &[&str]) -> Result<String, StoreError> {
        Err(StoreError::Unreachable)
    }
}

impl Host for Busy {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }
    fn fill_random(&self, buffer: &mut [u8]) {
        buffer.fill(7);
    }
    fn shared(&self) -> &Shared {
        unreachable!("a model call reads no configuration")
    }
    async fn ask(&self, _: &WorkspaceId, _: &Ask) -> Result<Answer, CounterUnreachable> {
        Err(CounterUnreachable)
    }
    fn background(&self, _: impl Future<Output = ()> + Send + 'static) {}
    fn log(&self, _: &str) {}
}

impl TurnHost for Busy {
    type Sink = Silence;

    fn stream(&self) -> (Silence, Response) {
        unreachable!("a model call streams through its caller")
    }
}

impl EventSink for Silence {
    fn push(&self, _: &[u8]) {}
    async fn close(self) {}
}

/// What a turn is charged that is stopped as soon as nothing more happens by itself, and what its next sign of life would have reported.
fn charged(statuses: &[u16], waits: usize) -> (u64, u64) {
    let endpoint = Endpoint { provider: Provider::Openai, model: "m".into(), base_url: None, api_key: Some("k".to_owned().into()) };
    let message = Message { role: MessageRole::User, content: "twelve bytes".into() };
    let prompt = Prompt { system: "be kind".into(), messages: vec![message], memories: vec![], max_output_tokens: 10 };
    let (host, progress) = (Busy::new(statuses, waits), Progress::default());
    let stop = std::future::ready(Cut::Stopped);
    let said = generate(&host, &endpoint, &prompt, Timestamp(60_000), &progress, stop, &mut |_| ()).now_or_never().unwrap();
    let estimate = estimate_input(&prompt);
    let (end, problem) = judge(said, estimate, prompt.max_output_tokens, false);
    assert_eq!((end.status, end.content, problem), (TurnStatus::Stopped, None, None));
    assert_eq!((end.usage.output_tokens, end.usage.source), (0, UsageSource::Estimated));
    assert!(estimate > 0 && [0, estimate].contains(&end.usage.input_tokens));
    (end.usage.input_tokens / estimate, progress.usage().input_tokens / estimate)
}

#[test]
fn a_stop_charges_the_prompt_while_a_provider_works_on_it_and_nothing_while_a_retry_is_waited_for() {
    assert_eq!(charged(&[], 0), (1, 1), "the first call");
    assert_eq!(charged(&[429], 0), (0, 0), "the wait after its refusal");
    assert_eq!(charged(&[429], 1), (1, 1), "the second call");
    assert_eq!(charged(&[429, 503], 1), (0, 0), "the second wait");
}
