//! A model server that does exactly what a script says, byte by byte: for what no mock offers (garbage, half a stream, silence), and to see
//! when the connection was cut from the other side.

use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// One step of a script.
#[derive(Debug, Clone)]
pub enum Act {
    /// The status line and headers of a chunked answer.
    Head(u16, &'static [(&'static str, &'static str)]),
    /// One piece of the body, written at once.
    Chunk(String),
    /// The body's proper end.
    End,
    /// Bytes as they are, past all framing.
    Raw(&'static [u8]),
    /// Nothing for a while.
    Pause(Duration),
    /// Nothing until the other side goes.
    Hang,
}

/// What one call did.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The request's line and headers.
    pub head: String,
    /// The request's body.
    pub body: Value,
    /// How many pieces of the body were written.
    pub chunks: usize,
    /// The other side went before the script was done.
    pub cut: bool,
    /// The script was played to its end.
    pub done: bool,
    /// How many others were being answered when it came.
    pub beside: usize,
}

/// Chooses a script for a call: by its number, from 0, and its body.
type Director = Arc<dyn Fn(usize, &Value) -> Vec<Act> + Send + Sync>;

/// The running server. It ends with the test.
#[derive(Debug)]
pub struct Scripted {
    address: String,
    calls: Arc<Mutex<Vec<Call>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// Starts one: the first call plays the first script, and so on; the last script is played again and again.
    pub async fn start(scripts: Vec<Vec<Act>>) -> Self {
        Self::directed(move |number, _| scripts.get(number).or(scripts.last()).cloned().unwrap_or_default()).await
    }

    /// Starts one that keeps a provider's promises: as many one-token words as it is let by `max_tokens`, at most `words`, and a count
    /// of the prompt that is not above its bytes.
    pub async fn obedient(words: i64, millis_between: u64) -> Self {
        Self::obedient_in_bursts(words, 1, millis_between).await
    }

    /// The same, so many words at a time: for many streams at once.
    pub async fn obedient_in_bursts(words: i64, at_a_time: i64, millis_between: u64) -> Self {
        Self::directed(move |_, body| obey(body, words, at_a_time, millis_between)).await
    }

    /// Starts one whose scripts are chosen by the call.
    pub async fn directed(director: impl Fn(usize, &Value) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let director: Director = Arc::new(director);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the socket has an address").to_string();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let task = tokio::spawn({
            let calls = calls.clone();
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(serve(socket, director.clone(), calls.clone()));
                }
            }
        });
        Self { address, calls, task }
    }

    /// The base URL for provider `openai`.
    pub fn openai(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What was asked and done so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no test panics while it writes down").clone()
    }
}

async fn serve(socket: TcpStream, director: Director, calls: Arc<Mutex<Vec<Call>>>) {
    let _ = socket.set_nodelay(true);
    let (mut reader, mut writer) = socket.into_split();
    let Some((head, body)) = read_request(&mut reader).await else { return };
    let (number, script) = {
        let mut calls = calls.lock().expect("no test panics while it writes down");
        let number = calls.len();
        let script = director(number, &body);
        let beside = calls.iter().filter(|call| !call.done && !call.cut).count();
        calls.push(Call { head, body, beside, ..Call::default() });
        (number, script)
    };
    let note = |change: &dyn Fn(&mut Call)| change(&mut calls.lock().expect("no test panics while it writes down")[number]);
    for act in &script {
        if play(act, &mut reader, &mut writer).await.is_err() {
            note(&|call| call.cut = true);
            return;
        }
        if matches!(act, Act::Chunk(_)) {
            note(&|call| call.chunks += 1);
        }
    }
    note(&|call| call.done = true);
}

/// Plays one step; an error says that the other side has gone.
async fn play(act: &Act, reader: &mut OwnedReadHalf, writer: &mut OwnedWriteHalf) -> Result<(), ()> {
    let bytes = match act {
        Act::Head(status, headers) => {
            let mut head = format!("HTTP/1.1 {status} Scripted\r\ntransfer-encoding: chunked\r\nconnection: close\r\n");
            for (name, value) in *headers {
                for part in [name, ": ", value, "\r\n"] {
                    head.push_str(part);
                }
            }
            (head + "\r\n").into_bytes()
        }
        Act::Chunk(text) => format!("{:x}\r\n{text}\r\n", text.len()).into_bytes(),
        Act::End => b"0\r\n\r\n".to_vec(),
        Act::Raw(bytes) => bytes.to_vec(),
        Act::Pause(duration) => {
            return tokio::select! {
                () = tokio::time::sleep(*duration) => Ok(()),
                () = gone(reader) => Err(()),
            };
        }
        Act::Hang => {
            gone(reader).await;
            return Err(());
        }
    };
    writer.write_all(&bytes).await.map_err(|_| ())
}

/// Waits until the other side closes.
async fn gone(reader: &mut OwnedReadHalf) {
    let mut rest = [0; 256];
    while reader.read(&mut rest).await.is_ok_and(|n| n > 0) {}
}

async fn read_request(reader: &mut OwnedReadHalf) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let wanted = content_length(&head)?;
            if let Some(body) = bytes.get(end + 4..end + 4 + wanted) {
                return Some((head, serde_json::from_slice(body).unwrap_or(Value::Null)));
            }
        }
        if reader.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn content_length(head: &str) -> Option<usize> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length:"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

/// The head of a stream.
pub const OK: Act = Act::Head(200, &[("content-type", "text/event-stream")]);

/// A chunk of an `OpenAI` stream with some text.
pub fn delta(text: &str) -> Act {
    event(&json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
}

/// The chunk that ends an `OpenAI` answer.
pub fn finish(reason: &str) -> Act {
    event(&json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
        "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] }))
}

/// The chunk with the provider's count.
pub fn usage(prompt_tokens: i64, completion_tokens: i64) -> Act {
    event(&json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": [],
        "usage": { "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens.saturating_add(completion_tokens) } }))
}

/// A chunk that says how the answer is served.
pub fn tier(name: &str) -> Act {
    event(&json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "service_tier": name,
        "choices": [{ "index": 0, "delta": {}, "finish_reason": null }] }))
}

/// `[DONE]` and the body's end.
pub fn done() -> [Act; 2] {
    [Act::Chunk("data: [DONE]\n\n".to_owned()), Act::End]
}

/// A whole answer: these pieces with a pause before each, then the count.
pub fn answer(pieces: &[&str], millis_between: u64, prompt_tokens: i64, completion_tokens: i64) -> Vec<Act> {
    let mut acts = vec![OK];
    for piece in pieces {
        acts.push(Act::Pause(Duration::from_millis(millis_between)));
        acts.push(delta(piece));
    }
    acts.extend([finish("stop"), usage(prompt_tokens, completion_tokens)]);
    acts.extend(done());
    acts
}

/// As many one-token words as the call's `max_tokens` lets say, at most `words`, with a pause before each few; then the count.
pub fn obey(body: &Value, words: i64, at_a_time: i64, millis_between: u64) -> Vec<Act> {
    let allowed = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body[name].as_i64()).unwrap_or(i64::MAX);
    let count = words.min(allowed);
    let mut acts = vec![OK];
    let mut left = count;
    while left > 0 {
        let now = left.min(at_a_time);
        acts.extend([Act::Pause(Duration::from_millis(millis_between)), delta(&"word ".repeat(usize::try_from(now).unwrap_or(0)))]);
        left -= now;
    }
    let prompt =
        body["messages"].as_array().into_iter().flatten().map(|m| m["content"].as_str().unwrap_or_default().len()).sum::<usize>() / 4;
    acts.extend([finish(if count < words { "length" } else { "stop" }), usage(i64::try_from(prompt).unwrap_or(i64::MAX), count)]);
    acts.extend(done());
    acts
}

fn event(data: &Value) -> Act {
    Act::Chunk(format!("data: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_plays_its_script_and_sees_who_goes() {
        let slow = vec![OK, delta("a"), Act::Pause(Duration::from_mins(1)), delta("b")];
        let server = Scripted::start(vec![answer(&["x", "y"], 1, 3, 2), slow]).await;
        let ask = || reqwest::Client::new().post(format!("{}/chat/completions", server.openai())).body(r#"{"model":"m"}"#).send();
        let text = ask().await.unwrap().text().await.unwrap();
        assert!(text.contains(r#""content":"x""#) && text.ends_with("data: [DONE]\n\n"), "{text}");
        let mut response = ask().await.unwrap();
        response.chunk().await.unwrap();
        drop(response);
        crate::wait::until("the cut", Duration::from_secs(5), async || match &server.calls()[..] {
            [first, second] if first.done && second.cut => Ok(()),
            calls => Err(format!("{calls:?}")),
        })
        .await;
        let calls = server.calls();
        assert_eq!((calls[0].chunks, calls[1].chunks, &calls[1].body["model"]), (5, 1, &json!("m")));
    }

    #[tokio::test]
    async fn the_obedient_one_keeps_to_max_tokens() {
        let server = Scripted::obedient(5, 0).await;
        let body = r#"{"max_tokens":2,"messages":[{"role":"user","content":"12345678"}]}"#;
        let text = reqwest::Client::new().post(server.openai()).body(body).send().await.unwrap().text().await.unwrap();
        assert_eq!(text.matches("word ").count(), 2);
        assert!(
            text.contains(r#""completion_tokens":2"#) && text.contains(r#""prompt_tokens":2"#) && text.contains(r#""length""#),
            "{text}"
        );
    }
}
