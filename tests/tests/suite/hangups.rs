//! A client hangs up at every boundary between two pieces of an answer. Each time the bill is what the model server's own journal says that it produced.
//!
//! One client for each boundary, all at once, each with a usage of its own: an entry that is charged by what its client read, or by what another's
//! answer used, is seen by name.

use astra_tests::{Aimock, Db, Stream, Workspace, aimock, environment};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;

const PIECES: usize = 50;
/// Bytes: aimock cuts its answer into pieces of this size.
const PIECE: usize = 5;
const SOON: Duration = Duration::from_secs(30);

fn message(boundary: usize) -> String {
    format!("I go after {boundary:02} pieces")
}

/// Reads so many pieces by way of an address and hangs up. Gives the bytes that were read.
async fn hang_up_after(ws: &Workspace, base: &str, boundary: usize) -> usize {
    let mut stream = Stream::open(&ws.member.via(base), &ws.path("/turns"), &Workspace::turn_body(&message(boundary))).await;
    stream.next_named("turn.started").await;
    let mut read = 0;
    // Pieces that came together are one event.
    while read < boundary * PIECE {
        read += stream.next_named("content.delta").await.data["text"].as_str().unwrap().len();
    }
    read
}

async fn hang_up_everywhere(base: &str) {
    let mock = Aimock::start().await;
    let content: String = ('a'..='z').cycle().take(PIECES * PIECE).collect();
    for boundary in 0..=PIECES {
        let usage = (100 + i64::try_from(boundary).unwrap(), 300 - i64::try_from(boundary).unwrap());
        mock.answer_slowly(&message(boundary), &content, usage, 20).await;
    }
    let ws = Workspace::openai_with(&mock.openai(), &json!({ "maxCostUsdPerMonth": 1 })).await;
    let read = futures_util::future::join_all((0..=PIECES).map(|boundary| hang_up_after(&ws, base, boundary))).await;
    let early = read.iter().filter(|bytes| **bytes < content.len()).count();
    assert!(early > PIECES / 2, "most went before the answer's end, not after all of it had come at once: {read:?}");

    let db = Db::connect().await;
    let ledger = db.settled(&ws.id, PIECES + 1, SOON).await;
    let (messages, journal) = (db.messages(&ws.id).await, mock.journal().await);
    assert_eq!(journal.len(), PIECES + 1, "each turn is one call");
    let mut billed = HashSet::new();
    for entry in &ledger {
        let said = |role: &str| {
            let found = messages.iter().find(|m| m["turn_id"] == entry["turn_id"] && m["role"] == role);
            found.unwrap_or_else(|| panic!("no message of the {role}: {entry}"))["content"].as_str().unwrap()
        };
        let call = journal.iter().find(|call| aimock::last_message(&call["body"]).contains(said("user"))).expect("the call of an entry");
        assert!(billed.insert(call["id"].as_str().unwrap()), "one call is billed twice: {entry}");
        assert_eq!(billed_usage(entry), produced(call), "{entry} of {call}");
        assert_eq!((said("assistant"), &entry["source"]), (content.as_str(), &json!("provider")), "{entry}");
    }
    let total: i64 = journal.iter().map(|call| produced(call).2).sum();
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!((&window["used"], &window["held"]), (&json!(total), &json!(0)), "{window}");
}

/// Input, output and cost of an entry.
fn billed_usage(entry: &Value) -> (i64, i64, i64) {
    let number = |name: &str| entry[name].as_i64().unwrap_or_else(|| panic!("{name}: {entry}"));
    (number("input_tokens"), number("output_tokens"), number("nano"))
}

/// What the journal says that a call produced, and what that costs.
fn produced(call: &Value) -> (i64, i64, i64) {
    let response = &call["response"];
    assert!(response["status"] == 200 && response["interrupted"].is_null(), "{call}");
    let usage = &response["fixture"]["response"]["usage"];
    let number = |name: &str| usage[name].as_i64().unwrap_or_else(|| panic!("{name}: {call}"));
    let (input, output) = (number("prompt_tokens"), number("completion_tokens"));
    (input, output, aimock::gpt_4o_mini_nano(input, output))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kf15_a_client_may_hang_up_at_each_piece_through_the_gateway_and_the_bill_is_the_model_servers() {
    hang_up_everywhere(&environment::gateway()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kf16_a_client_may_hang_up_at_each_piece_directly_and_the_bill_is_the_model_servers() {
    hang_up_everywhere(&environment::invoke_turn()).await;
}
