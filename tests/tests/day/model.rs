//! The day's model server: it knows a turn by what its user said, and plays what the recording has for it, in the protocol that the agent's model has.

use crate::recording::{Action, Answer, Count, End, Script, Turn};
use astra_tests::scripted::{self, Act, OK};
use astra_tests::{Scripted, aimock, canary};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Between two pieces, in milliseconds: time to hang up in.
const BETWEEN: u64 = 20;

/// Starts it.
pub(crate) async fn start(day: &[Action]) -> Scripted {
    let mut scripts: HashMap<String, Vec<Script>> = HashMap::new();
    for action in day {
        if let Action::Turn(Turn { say, model, .. }) = action
            && !model.is_empty()
        {
            let twice = scripts.insert(said(say), model.clone());
            assert!(twice.is_none(), "day.jsonl has two answers to {say:?}");
        }
    }
    let asked: Mutex<HashMap<String, usize>> = Mutex::default();
    Scripted::directed(move |_, body| {
        let message = last_message(body);
        let mut asked = asked.lock().unwrap();
        let times = asked.entry(message.clone()).or_default();
        *times += 1;
        // A call that the recording does not have is a difference: what is charged for it shows it.
        let script = scripts.get(&message).and_then(|scripts| scripts.get(*times - 1));
        script.map_or_else(|| vec![Act::Head(418, &[]), Act::End], |script| acts(script, body))
    })
    .await
}

/// How often the model was asked about what a user said.
pub(crate) fn calls(model: &Scripted, say: &str) -> usize {
    let message = said(say);
    model.calls().iter().filter(|call| last_message(&call.body) == message).count()
}

fn said(say: &str) -> String {
    Value::from(canary::message(say)).to_string()
}

fn last_message(body: &Value) -> String {
    aimock::last_message(body)
}

fn acts(script: &Script, body: &Value) -> Vec<Act> {
    match script {
        Script::Status(status) => vec![Act::Head(*status, &[]), Act::End],
        Script::Busy => vec![Act::Head(429, &[("retry-after", "6")]), Act::End],
        Script::NoStream => vec![Act::Head(200, &[("content-type", "application/json")]), Act::Chunk("{}".to_owned()), Act::End],
        Script::Obedient(words) => scripted::obey(body, *words, 1, 0),
        Script::Answer(answer) if body["model"].as_str().is_some_and(|model| model.starts_with("claude")) => anthropic(answer),
        Script::Answer(answer) => openai(answer),
    }
}

fn openai(answer: &Answer) -> Vec<Act> {
    let chunk = |choices: Value| event(&json!({ "id": "c", "object": "chat.completion.chunk", "choices": choices }));
    let count = answer.count.map(|Count { input, cached, output, reasoning }| {
        event(&json!({ "id": "c", "object": "chat.completion.chunk", "choices": [], "usage": {
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": { "cached_tokens": cached }, "completion_tokens_details": { "reasoning_tokens": reasoning } } }))
    });
    let reason = |reason: &str| {
        let mut acts = vec![chunk(json!([{ "index": 0, "delta": {}, "finish_reason": reason }]))];
        acts.extend(count.clone());
        acts.extend(scripted::done());
        acts
    };
    let end = match answer.end {
        End::Stop => reason("stop"),
        End::Length => reason("length"),
        End::Refusal => reason("content_filter"),
        other => abrupt(other, &json!({ "error": { "message": "overloaded", "code": 503 } })),
    };
    whole(answer.pieces.iter().map(|piece| scripted::delta(piece)), end)
}

fn anthropic(answer: &Answer) -> Vec<Act> {
    let count = answer.count.unwrap_or(Count { input: 0, cached: 0, output: 0, reasoning: 0 });
    let start = json!({ "type": "message_start", "message": { "id": "m", "type": "message", "role": "assistant", "content": [], "usage": {
        "input_tokens": count.input - count.cached, "cache_read_input_tokens": count.cached, "output_tokens": 1 } } });
    let pieces = answer
        .pieces
        .iter()
        .map(|piece| event(&json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": piece } })));
    let reason = |reason: &str| {
        let usage = json!({ "output_tokens": count.output });
        vec![
            event(&json!({ "type": "message_delta", "delta": { "stop_reason": reason }, "usage": usage })),
            event(&json!({ "type": "message_stop" })),
            Act::End,
        ]
    };
    let end = match answer.end {
        End::Stop => reason("end_turn"),
        End::Length => reason("max_tokens"),
        End::Refusal => reason("refusal"),
        other => abrupt(other, &json!({ "type": "error", "error": { "type": "overloaded_error", "message": "overloaded" } })),
    };
    whole(std::iter::once(event(&start)).chain(pieces), end)
}

/// Pieces that come one by one, and an end after them.
fn whole(pieces: impl Iterator<Item = Act>, end: Vec<Act>) -> Vec<Act> {
    let pause = || Act::Pause(Duration::from_millis(BETWEEN));
    let mut acts = vec![OK];
    acts.extend(pieces.flat_map(|piece| [pause(), piece]));
    acts.push(pause());
    acts.extend(end);
    acts
}

/// An end that is none.
fn abrupt(end: End, error: &Value) -> Vec<Act> {
    match end {
        // The socket closes with the script's end.
        End::Broken => vec![],
        End::Garbage => vec![Act::Chunk("data: <html>\n\n".to_owned()), Act::End],
        End::Overloaded => vec![event(error), Act::End],
        _ => vec![Act::Hang],
    }
}

fn event(data: &Value) -> Act {
    Act::Chunk(format!("data: {data}\n\n"))
}
