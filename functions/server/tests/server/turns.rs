//! Turns over real sockets: clients that hang up and servers that stop, while a model is in the middle of its answer.

use crate::support::{self, Server, token};
use astra_edge::listen::Ended;
use astra_host::native;
use astra_quota::QuotaView;
use astra_quota::words::{Answer, Ask, Begin, Begun, Extended, Finished, Record};
use reqwest::Method;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A model server that has one request in the middle of its answer.
struct Model(TcpStream);

impl Model {
    async fn begin(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
        }
        let mut model = Self(stream);
        model.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n").await;
        model.delta("one ").await;
        model
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn delta(&mut self, text: &str) {
        let chunk = json!({ "id": "c", "choices": [{ "index": 0, "delta": { "content": text } }] });
        self.say(&format!("data: {chunk}\n\n")).await;
    }

    async fn end(mut self) {
        self.delta("two").await;
        let end = json!({ "id": "c", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
        let usage = json!({ "id": "c", "choices": [], "usage": { "prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7 } });
        self.say(&format!("data: {end}\n\ndata: {usage}\n\ndata: [DONE]\n\n")).await;
    }
}

/// A counter that lets every turn run, on a model at this address, and passes on the records.
fn counter(model: SocketAddr, records: mpsc::UnboundedSender<Record>) -> impl Fn(&Ask) -> Answer {
    move |ask| match ask {
        Ask::Begin(begin) => Answer::Begun(Box::new(begun(model, begin))),
        Ask::Extend(_) => Answer::Extended(Extended { stop: false, covered: true, wait: false, output: 100, max_output: 100 }),
        Ask::Finish(record) => {
            records.send(Record::clone(record)).unwrap();
            Answer::Finished(Finished { saved: true, quota: QuotaView::default(), receipt: None })
        }
        _ => support::pong(ask),
    }
}

fn begun(model: SocketAddr, begin: &Begin) -> Begun {
    let context = json!({
        "outcome": "ok",
        "workspace": { "id": "acme", "displayName": "Acme", "plan": "pro", "ownerId": "o", "limits": {} },
        "agent": { "id": "helper", "definition": { "systemPromptTemplate": "Be kind." } },
        "model": { "provider": "openai", "modelId": "m", "endpoint": format!("http://{model}/v1") },
        "price": { "version": 1, "inputNanoPerMtok": 1_000_000, "cachedInputNanoPerMtok": 1_000_000, "outputNanoPerMtok": 1_000_000 },
        "sessionId": begin.new_session_id, "newSession": true, "agentCount": 1,
    });
    let context = serde_json::value::to_raw_value(&context).unwrap();
    Begun {
        context,
        started_at: native::now(),
        input_bound: 10_000,
        output: 100,
        max_output: 100,
        bounded_by_budget: false,
        quota: QuotaView::default(),
    }
}

struct Scene {
    server: Server,
    models: TcpListener,
    records: mpsc::UnboundedReceiver<Record>,
}

impl Scene {
    async fn set(grace: Duration) -> Self {
        let models = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (sender, records) = mpsc::unbounded_channel();
        let server = Server::start_with(counter(models.local_addr().unwrap(), sender), grace).await;
        Self { server, models, records }
    }

    /// A turn that streams, and its model in the middle of the answer.
    async fn turn(&self) -> (reqwest::Response, Model) {
        let ask = self.server.ask(Method::POST, "/workspaces/acme/turns").bearer_auth(token(Some("acme"), "member"));
        let ask = ask.header("accept", "text/event-stream").json(&json!({ "agentId": "helper", "message": "hello" }));
        let (answer, model) = tokio::join!(ask.send(), Model::begin(&self.models));
        (answer.unwrap(), model)
    }
}

/// Reads events up to a text.
async fn read_until(answer: &mut reqwest::Response, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let chunk = answer.chunk().await.unwrap().unwrap_or_else(|| panic!("the stream ended before {text}: {read}"));
        read.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    read
}

const LONG: Duration = Duration::from_mins(10);

#[tokio::test]
async fn a_turn_streams_as_the_model_speaks() {
    let mut scene = Scene::set(LONG).await;
    let (mut answer, model) = scene.turn().await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    assert!(answer.headers().contains_key("x-request-id"));
    let begun = read_until(&mut answer, "one ").await;
    assert!(begun.starts_with("id: ") || begun.starts_with("event: turn.started"), "{begun}");
    model.end().await;
    let rest = answer.text().await.unwrap();
    assert!(rest.contains("two") && rest.contains("event: turn.completed"), "{rest}");
    let record = scene.records.recv().await.unwrap();
    assert_eq!((record.content.as_deref(), record.finish_reason.as_deref()), (Some("one two"), Some("stop")));
}

#[tokio::test]
async fn a_client_that_hangs_up_loses_the_text_and_not_the_accounting() {
    let mut scene = Scene::set(LONG).await;
    let (mut answer, model) = scene.turn().await;
    read_until(&mut answer, "one ").await;
    drop(answer);
    model.end().await;
    let record = scene.records.recv().await.unwrap();
    assert_eq!((record.content.as_deref(), record.usage.output_tokens), (Some("one two"), 2));
    // Nothing waits for the client that has gone.
    scene.server.stop();
    assert_eq!(scene.server.ended().await, Ended::Whole);
}

#[tokio::test]
async fn a_server_that_stops_lets_turns_end() {
    let mut scene = Scene::set(LONG).await;
    let (mut answer, model) = scene.turn().await;
    read_until(&mut answer, "one ").await;
    let _idle = TcpStream::connect(scene.server.address).await.unwrap();
    scene.server.stop();
    // It has stopped listening when the next client is refused.
    while TcpStream::connect(scene.server.address).await.is_ok() {}
    model.end().await;
    assert!(answer.text().await.unwrap().contains("event: turn.completed"));
    assert!(scene.records.recv().await.is_some());
    assert_eq!(scene.server.ended().await, Ended::Whole);
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_ever() {
    let mut scene = Scene::set(Duration::from_millis(1)).await;
    let (mut answer, _model) = scene.turn().await;
    read_until(&mut answer, "one ").await;
    scene.server.stop();
    assert_eq!(scene.server.ended().await, Ended::CutOff(1));
}
