//! A turn's events as a client reads them off the wire.

use crate::Api;
use http::Method;
use serde_json::{Value, json};

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its data.
    pub data: Value,
}

/// A stream of events that is being read. Dropping it hangs up.
#[derive(Debug)]
pub struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

impl Stream {
    /// Sends a turn and asks for events; fails unless they come.
    pub async fn open(api: &Api, path: &str, body: &Value) -> Self {
        Self::open_with(api, path, body, &[]).await
    }

    /// The same with more headers.
    pub async fn open_with(api: &Api, path: &str, body: &Value, headers: &[(&str, &str)]) -> Self {
        let opened = Self::try_open_with(api, path, body, headers).await;
        opened.unwrap_or_else(|(status, said)| panic!("{path}: no stream but {status}: {said}"))
    }

    /// The same where something else than events may come.
    ///
    /// # Errors
    /// The status and the body of what came.
    pub async fn try_open_with(api: &Api, path: &str, body: &Value, headers: &[(&str, &str)]) -> Result<Self, (u16, String)> {
        let mut request = api.request(Method::POST, path).json(body).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.open().await.unwrap_or_else(|error| panic!("{path}: no answer: {error:?}"));
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        assert!(response.headers().contains_key("x-request-id"), "{path}: an answer without X-Request-Id");
        if status != 200 || !content_type.starts_with("text/event-stream") {
            return Err((status, response.text().await.unwrap_or_default()));
        }
        Ok(Self::of(response))
    }

    /// The events of an answer that has come.
    pub fn of(response: reqwest::Response) -> Self {
        Self { response, buffer: Vec::new() }
    }

    /// The next event; `None` at the end. Comments are passed over.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn try_next(&mut self) -> Result<Option<Event>, reqwest::Error> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse(std::str::from_utf8(&block).expect("events are UTF-8")) {
                    return Ok(Some(event));
                }
                continue;
            }
            let Some(chunk) = self.response.chunk().await? else {
                assert!(self.buffer.is_empty(), "the stream ends within an event: {:?}", String::from_utf8_lossy(&self.buffer));
                return Ok(None);
            };
            self.buffer.extend(chunk.iter().filter(|byte| **byte != b'\r'));
        }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Event> {
        self.try_next().await.unwrap_or_else(|error| panic!("the stream broke: {error:?}"))
    }

    /// Reads on to the first event of this name.
    pub async fn next_named(&mut self, name: &str) -> Event {
        loop {
            match self.next().await {
                Some(event) if event.name == name => return event,
                Some(event) => assert!(!event.name.starts_with("turn.failed"), "{name} was to come: {event:?}"),
                None => panic!("the stream ended before {name}"),
            }
        }
    }

    /// All events to the end.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn parse(block: &str) -> Option<Event> {
    let (mut id, mut name, mut data) = (String::new(), String::new(), Vec::new());
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut id),
            "event" => value.clone_into(&mut name),
            "data" => data.push(value),
            _ => {}
        }
    }
    if name.is_empty() && data.is_empty() {
        return None;
    }
    let data = data.join("\n");
    Some(Event { id, name, data: serde_json::from_str(&data).unwrap_or_else(|_| panic!("data is not JSON: {data}")) })
}

/// The text that the events delivered.
pub fn text(events: &[Event]) -> String {
    events.iter().filter(|e| e.name == "content.delta").filter_map(|e| e.data["text"].as_str()).collect()
}

/// The data of the only event of this name.
pub fn only<'a>(events: &'a [Event], name: &str) -> &'a Value {
    let found: Vec<_> = events.iter().filter(|e| e.name == name).collect();
    assert_eq!(found.len(), 1, "one {name} in {:?}", json!(events.iter().map(|e| &e.name).collect::<Vec<_>>()).to_string());
    &found[0].data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_comments_passed_over() {
        let event = parse("id: 3\nevent: content.delta\ndata: {\"text\":\ndata: \"a\"}\n\n").unwrap();
        assert_eq!((event.id.as_str(), event.name.as_str(), &event.data), ("3", "content.delta", &json!({ "text": "a" })));
        assert!(parse(": keep-alive\n\n").is_none());
        assert_eq!(text(&[event.clone(), event]), "aa");
    }
}
