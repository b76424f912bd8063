//! The model server that nobody here wrote: npm's @copilotkit/aimock, one process per test on a port of its own.
//!
//! What it answers is given by fixtures (the first whose text occurs in the last user message wins), what it was asked is in its journal.
//! Its usage is what a fixture says, or counted from the texts. Trap: a fault in a fixture comes before any byte is out, unless `latency` is set.

use crate::environment;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// A running aimock. It ends with the test.
#[derive(Debug)]
pub struct Aimock {
    _child: Child,
    http: reqwest::Client,
    url: String,
    key: Option<String>,
}

impl Aimock {
    /// Starts one that takes any key.
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts one that answers 401 to every other key than this.
    pub async fn start_with_key(key: &str) -> Self {
        Self::start_with(Some(key)).await
    }

    async fn start_with(key: Option<&str>) -> Self {
        let mut command = Command::new("node");
        command
            .arg(environment::aimock())
            .args(["--port", "0", "--host", "127.0.0.1", "--log-level", "info", "--journal-max", "0", "--fixtures"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/aimock.json"))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true);
        if let Some(key) = key {
            command.env("AIMOCK_API_KEYS", key);
        }
        let mut child = command.spawn().expect("node starts aimock (is node on PATH?)");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let url = loop {
            let line = lines.next_line().await.expect("aimock's output is read");
            let line = line.expect("aimock says its address (it ended before)");
            if let Some((_, url)) = line.split_once("listening on ") {
                break url.trim().to_owned();
            }
        };
        // Its pipe must not fill.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client is made");
        Self { _child: child, http, url, key: key.map(str::to_owned) }
    }

    /// The base URL for provider `openai`.
    pub fn openai(&self) -> String {
        format!("{}/v1", self.url)
    }

    /// The base URL for provider `anthropic`.
    pub fn anthropic(&self) -> String {
        self.url.clone()
    }

    /// Answers messages that contain a text.
    pub async fn answer(&self, containing: &str, content: &str, prompt_tokens: i64, completion_tokens: i64) {
        self.fixture(&json!({ "match": { "userMessage": containing }, "response": answer(content, prompt_tokens, completion_tokens) }))
            .await;
    }

    /// Answers messages that contain a text slowly: five characters at a time.
    pub async fn answer_slowly(
        &self,
        containing: &str,
        content: &str,
        (prompt_tokens, completion_tokens): (i64, i64),
        millis_between: u64,
    ) {
        let fixture = json!({
            "match": { "userMessage": containing },
            "response": answer(content, prompt_tokens, completion_tokens),
            "chunkSize": 5,
            "latency": millis_between,
        });
        self.fixture(&fixture).await;
    }

    /// Adds any fixture.
    pub async fn fixture(&self, fixture: &Value) {
        let body = json!({ "fixtures": [fixture] }).to_string();
        let request = self.http.post(format!("{}/__aimock/fixtures", self.url)).body(body);
        let response = self.authorized(request).send().await.expect("aimock answers");
        let status = response.status();
        assert!(status.is_success(), "aimock refuses {fixture}: {status} {}", response.text().await.unwrap_or_default());
    }

    /// What it was asked on its model routes: its journal.
    pub async fn journal(&self) -> Vec<Value> {
        let request = self.http.get(format!("{}/__aimock/journal?method=POST", self.url));
        let bytes = self.authorized(request).send().await.expect("aimock answers").bytes().await.expect("the journal is read");
        let entries: Vec<Value> = serde_json::from_slice(&bytes).expect("the journal is JSON");
        entries.into_iter().filter(|entry| entry["path"].as_str().is_some_and(|path| !path.starts_with("/__aimock"))).collect()
    }

    /// The bodies of those calls whose last message contains a text.
    pub async fn calls(&self, containing: &str) -> Vec<Value> {
        let bodies = self.journal().await.into_iter().map(|mut entry| entry["body"].take());
        bodies.filter(|body| last_message(body).contains(containing)).collect()
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// A fixture's response with the provider's own count.
pub fn answer(content: &str, prompt_tokens: i64, completion_tokens: i64) -> Value {
    let total = prompt_tokens + completion_tokens;
    json!({ "content": content, "usage": { "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total } })
}

/// The last message of a call's body.
pub fn last_message(body: &Value) -> String {
    body["messages"].as_array().and_then(|messages| messages.last()).map(|m| m["content"].to_string()).unwrap_or_default()
}

/// What the provider's count costs on gpt-4o-mini, in nano-dollars: 0.15 and 0.60 dollars per million tokens.
pub fn gpt_4o_mini_nano(prompt_tokens: i64, completion_tokens: i64) -> i64 {
    prompt_tokens * 150 + completion_tokens * 600
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_by_fixture_and_remembers_what_it_was_asked() {
        let mock = Aimock::start_with_key("k-1").await;
        mock.answer("ping", "pong", 7, 3).await;
        let ask = |key: &str| {
            let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "a ping here" }] });
            let client = reqwest::Client::new().post(format!("{}/chat/completions", mock.openai())).bearer_auth(key);
            client.header("content-type", "application/json").body(body.to_string()).send()
        };
        assert_eq!(ask("k-2").await.unwrap().status(), 401);
        let answer: Value = serde_json::from_slice(&ask("k-1").await.unwrap().bytes().await.unwrap()).unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "pong");
        assert_eq!(answer["usage"]["prompt_tokens"], 7);
        assert_eq!(mock.calls("ping").await.len(), 1);
        assert_eq!(mock.calls("else").await.len(), 0);
    }
}
