//! The server-sent events of a turn (WHATWG HTML, "Server-sent events"): `turn.started`, `content.delta`, `turn.completed` or `turn.failed`.

use crate::TurnAnswer;
use astra_kernel::Problem;
use serde::Serialize;

/// Writes events, each with an id that counts up from 1.
#[derive(Debug, Default)]
pub struct EventWriter {
    last: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Started<'a> {
    turn_id: &'a astra_kernel::TurnId,
    session_id: &'a astra_kernel::SessionId,
}

#[derive(Serialize)]
struct Delta<'a> {
    text: &'a str,
}

impl EventWriter {
    /// `turn.started`.
    pub fn started(&mut self, turn_id: &astra_kernel::TurnId, session_id: &astra_kernel::SessionId) -> Vec<u8> {
        self.event("turn.started", &Started { turn_id, session_id })
    }

    /// `content.delta`.
    pub fn delta(&mut self, text: &str) -> Vec<u8> {
        self.event("content.delta", &Delta { text })
    }

    /// `turn.completed`: the answer without its text.
    pub fn completed(&mut self, answer: &TurnAnswer) -> Vec<u8> {
        self.event("turn.completed", &TurnAnswer { content: None, ..answer.clone() })
    }

    /// `turn.failed`: a problem.
    pub fn failed(&mut self, problem: &Problem, instance: &str, request_id: &str) -> Vec<u8> {
        self.event("turn.failed", &problem.document(instance, request_id))
    }

    fn event(&mut self, name: &str, data: &impl Serialize) -> Vec<u8> {
        self.last += 1;
        let mut bytes = format!("id: {}\nevent: {name}\ndata: ", self.last).into_bytes();
        // JSON has no raw line breaks, so one data line holds it.
        let _ = serde_json::to_writer(&mut bytes, data);
        bytes.extend_from_slice(b"\n\n");
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_framed_and_numbered() {
        let mut events = EventWriter::default();
        let mut all = events.delta("two\nlines");
        all.extend(events.delta("more"));
        insta::assert_snapshot!(String::from_utf8(all).unwrap(), @r#"
        id: 1
        event: content.delta
        data: {"text":"two\nlines"}

        id: 2
        event: content.delta
        data: {"text":"more"}
        "#);
    }
}
