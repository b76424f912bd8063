//! The model: a server that speaks `OpenAI`'s chat completions, streamed and not, does what the last message tells it to, and keeps a journal of what it has
//! produced for whom. The journal is what gateways are measured by.
//!
//! A word is four bytes and, for the usual tokenizers, one token: whoever has to estimate what was delivered can be exact. What was written to a connection
//! that the other side has left is in the journal too, one piece at most.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Nano-dollars for a token of a prompt: one dollar for a million.
pub const NANO_PER_INPUT: i64 = 1_000;
/// Nano-dollars for a word: a cent for 200.
pub const NANO_PER_WORD: i64 = 50_000;
/// The model that has a price.
pub const MODEL: &str = "conformance-1";
/// The model that has none.
pub const UNPRICED: &str = "conformance-unpriced-1";

const WORD: &str = " the";
const MARK: &str = "conformance ";

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// As it should, with a count.
    Whole,
    /// As it should, with a count of nothing.
    Zero,
    /// The connection breaks after the words, before any count.
    Broken,
    /// Silence after the words, until the other side goes.
    Silent,
    /// 500 instead of an answer.
    Error,
}

/// What the model is to do. It travels in the message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// Whose it is.
    pub customer: String,
    /// So many words, if `max_tokens` lets them be said.
    pub words: i64,
    /// So many words in a piece.
    pub piece: i64,
    /// Before each piece.
    pub every_ms: u64,
    /// How it ends.
    pub end: End,
}

impl Ask {
    /// The message that says so.
    pub fn message(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).unwrap_or_default())
    }

    fn of(body: &Value) -> Option<Self> {
        let content = &body["messages"].as_array()?.last()?["content"];
        let text = content.as_str().or_else(|| content[0]["text"].as_str())?;
        let said = text.split_once(MARK)?.1;
        serde_json::Deserializer::from_str(said).into_iter().next()?.ok()
    }
}

/// What one call produced.
#[derive(Debug, Clone)]
pub struct Call {
    /// For whom.
    pub customer: String,
    /// Tokens of the prompt that are billed.
    pub input: i64,
    /// Words that were written.
    pub words: i64,
    /// All that was asked for was said.
    pub whole: bool,
    /// It is over.
    pub over: bool,
}

/// The running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Mock {
    address: String,
    journal: Arc<Mutex<Vec<Call>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mock {
    /// Starts on a port of loopback; 0 for any.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let address = listener.local_addr()?.to_string();
        let journal: Arc<Mutex<Vec<Call>>> = Arc::default();
        let kept = journal.clone();
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, kept.clone()));
            }
        });
        Ok(Self { address, journal, task })
    }

    /// The base URL.
    pub fn base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// A customer's calls.
    pub fn calls(&self, customer: &str) -> Vec<Call> {
        lock(&self.journal).iter().filter(|call| call.customer == customer).cloned().collect()
    }

    /// What a customer's calls cost by what was produced.
    pub fn nano(&self, customer: &str) -> i64 {
        self.calls(customer).iter().map(|call| call.input * NANO_PER_INPUT + call.words * NANO_PER_WORD).sum()
    }
}

fn lock(journal: &Mutex<Vec<Call>>) -> std::sync::MutexGuard<'_, Vec<Call>> {
    journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The other side has gone.
struct Gone;

struct Line {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Line {
    async fn write(&mut self, bytes: &str) -> Result<(), Gone> {
        self.writer.write_all(bytes.as_bytes()).await.map_err(|_| Gone)
    }

    /// One chunk of the body: a body whose last chunk does not come is a broken one.
    async fn chunk(&mut self, text: &str) -> Result<(), Gone> {
        self.write(&format!("{:x}\r\n{text}\r\n", text.len())).await
    }

    async fn event(&mut self, data: &Value) -> Result<(), Gone> {
        self.chunk(&format!("data: {data}\n\n")).await
    }

    async fn pause(&mut self, ms: u64) -> Result<(), Gone> {
        let mut rest = [0; 256];
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => Ok(()),
            _ = self.reader.read(&mut rest) => Err(Gone),
        }
    }
}

async fn serve(socket: TcpStream, journal: Arc<Mutex<Vec<Call>>>) {
    let _ = socket.set_nodelay(true);
    let (mut reader, writer) = socket.into_split();
    let Some(body) = read_body(&mut reader).await else { return };
    let mut line = Line { reader, writer };
    let Some(ask) = Ask::of(&body) else {
        let _ = line.write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        return;
    };
    let bills = matches!(ask.end, End::Whole | End::Broken) || (ask.end == End::Silent && ask.words > 0);
    let input = if bills { prompt(&body) } else { 0 };
    let number = {
        let mut calls = lock(&journal);
        calls.push(Call { customer: ask.customer.clone(), input, words: 0, whole: false, over: false });
        calls.len() - 1
    };
    let said = |words: i64| lock(&journal)[number].words += if bills { words } else { 0 };
    let whole = answer(&mut line, &body, &ask, said).await.is_ok();
    let call = &mut lock(&journal)[number];
    (call.whole, call.over) = (whole, true);
}

async fn answer(line: &mut Line, body: &Value, ask: &Ask, said: impl Fn(i64)) -> Result<(), Gone> {
    if ask.end == End::Error {
        let error = r#"{"error":{"message":"no","type":"server_error"}}"#;
        let length = error.len();
        let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\nconnection: close\r\n";
        return line.write(&format!("{head}content-length: {length}\r\n\r\n{error}")).await;
    }
    let most = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body[name].as_i64()).unwrap_or(i64::MAX);
    let (words, streamed) = (ask.words.min(most), body["stream"] == true);
    let reason = if words < ask.words { "length" } else { "stop" };
    let (input, output) = if ask.end == End::Zero { (0, 0) } else { (prompt(body), words) };
    let usage = json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output });
    let chunk = |choices: Value, usage: &Value| json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "choices": choices, "usage": usage });
    if streamed && (ask.end != End::Silent || words > 0) {
        line.write("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n").await?;
    }
    let mut left = words;
    while left > 0 {
        line.pause(ask.every_ms).await?;
        let now = left.min(ask.piece);
        if streamed {
            let text = WORD.repeat(usize::try_from(now).unwrap_or(0));
            line.event(&chunk(
                json!([{ "index": 0, "delta": { "role": "assistant", "content": text }, "finish_reason": null }]),
                &Value::Null,
            ))
            .await?;
        }
        said(now);
        left -= now;
    }
    match ask.end {
        End::Broken => return Err(Gone),
        End::Silent => return line.pause(600_000).await,
        End::Whole | End::Zero | End::Error => {}
    }
    if !streamed {
        let text = WORD.repeat(usize::try_from(words).unwrap_or(0));
        let choice = json!({ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": reason });
        let whole =
            json!({ "id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage })
                .to_string();
        let length = whole.len();
        return line
            .write(&format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{whole}"
            ))
            .await;
    }
    line.event(&chunk(json!([{ "index": 0, "delta": {}, "finish_reason": reason }]), &Value::Null)).await?;
    if body["stream_options"]["include_usage"] == true {
        line.event(&chunk(json!([]), &usage)).await?;
    }
    line.chunk("data: [DONE]\n\n").await?;
    line.write("0\r\n\r\n").await
}

/// The prompt's tokens: a quarter of its bytes.
fn prompt(body: &Value) -> i64 {
    let length = |message: &Value| message["content"].as_str().map_or_else(|| message["content"].to_string().len(), str::len);
    let bytes: usize = body["messages"].as_array().into_iter().flatten().map(length).sum();
    i64::try_from(bytes / 4).unwrap_or(i64::MAX)
}

async fn read_body(reader: &mut OwnedReadHalf) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
            if let Some(body) = bytes.get(end + 4..end + 4 + length) {
                return serde_json::from_slice(body).ok();
            }
        }
        if reader.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(ask: &Ask, streamed: bool) -> String {
        json!({ "model": MODEL, "max_tokens": 30, "stream": streamed, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": ask.message() }] })
        .to_string()
    }

    async fn post(mock: &Mock, body: String) -> reqwest::Response {
        reqwest::Client::new().post(format!("{}/chat/completions", mock.base())).body(body).send().await.unwrap()
    }

    #[tokio::test]
    async fn the_journal_has_what_was_told_to_be_counted() {
        let mock = Mock::start(0).await.unwrap();
        let ask = Ask { customer: "a".to_owned(), words: 50, piece: 20, every_ms: 1, end: End::Whole };
        for streamed in [true, false] {
            let text = post(&mock, body(&ask, streamed)).await.text().await.unwrap();
            assert!(text.contains(r#""completion_tokens":30"#) && text.contains(r#""finish_reason":"length""#), "{text}");
            assert_eq!(text.matches(WORD).count(), 30);
        }
        let [first, second] = &mock.calls("a")[..] else { panic!("two calls") };
        assert!(first.words == 30 && second.words == 30 && first.over && first.whole, "{first:?} {second:?}");
        assert_eq!(mock.nano("a"), 60 * NANO_PER_WORD + 2 * first.input * NANO_PER_INPUT);
        let nothing = Ask { customer: "b".to_owned(), end: End::Zero, ..ask };
        assert!(post(&mock, body(&nothing, false)).await.text().await.unwrap().contains(r#""total_tokens":0"#));
        assert_eq!(mock.nano("b"), 0);
    }

    #[tokio::test]
    async fn who_goes_ends_the_production_and_who_stays_sees_it_break() {
        let mock = Mock::start(0).await.unwrap();
        let ask = Ask { customer: "a".to_owned(), words: 30, piece: 1, every_ms: 30, end: End::Whole };
        let mut response = post(&mock, body(&ask, true)).await;
        response.chunk().await.unwrap().unwrap();
        drop(response);
        while !mock.calls("a").iter().all(|call| call.over) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let call = &mock.calls("a")[0];
        assert!(call.words < 10 && !call.whole, "{call:?}");
        let broken = Ask { customer: "b".to_owned(), end: End::Broken, every_ms: 1, ..ask };
        assert!(post(&mock, body(&broken, true)).await.text().await.is_err());
        assert_eq!(mock.calls("b")[0].words, 30);
    }
}
