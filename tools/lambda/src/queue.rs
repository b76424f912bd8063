//! As much of SQS as the functions use: `SendMessageBatch`, and the event source that hands messages to a function in batches, again when they fail.

use crate::environment::Fleet;
use crate::log;
use crate::runtime_api::Outcome;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// How often a message is tried before it is a dead letter.
const TRIES: u32 = 3;

struct Message {
    id: String,
    body: String,
    tries: u32,
}

/// A queue that a function reads.
pub(crate) fn router(fleet: Arc<Fleet>) -> Router {
    Router::new().route("/", post(send)).with_state(fleet)
}

// The content type is SQS's own, so the body is read by hand.
async fn send(State(fleet): State<Arc<Fleet>>, body: Bytes) -> Json<Value> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct SendMessageBatch {
        entries: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        id: String,
        message_body: String,
    }
    let Ok(SendMessageBatch { entries }) = serde_json::from_slice(&body) else {
        return Json(json!({ "Successful": [], "Failed": [{ "Id": "?", "SenderFault": true, "Code": "InvalidParameterValue" }] }));
    };
    let sent: Vec<_> = entries.iter().map(|Entry { id, .. }| json!({ "Id": id, "MessageId": id })).collect();
    let message = |entry: Entry| Message { id: uuid::Uuid::new_v4().to_string(), body: entry.message_body, tries: 0 };
    tokio::spawn(deliver(fleet, entries.into_iter().map(message).collect()));
    Json(json!({ "Successful": sent, "Failed": [] }))
}

/// Hands a batch over until each of its messages is done or a dead letter.
async fn deliver(fleet: Arc<Fleet>, mut messages: Vec<Message>) {
    while !messages.is_empty() {
        let record = |Message { id, body, tries }: &Message| {
            json!({ "messageId": id, "receiptHandle": id, "body": body, "eventSource": "aws:sqs", "awsRegion": "local",
                "attributes": { "ApproximateReceiveCount": (tries + 1).to_string() }, "messageAttributes": {} })
        };
        let records: Vec<_> = messages.iter().map(record).collect();
        let failed = failures(fleet.invoke(json!({ "Records": records }).to_string()).await.ok());
        messages.retain_mut(|message| {
            message.tries += 1;
            // No list: the whole batch has failed.
            let again = failed.as_ref().is_none_or(|failed| failed.contains(&message.id));
            if again && message.tries >= TRIES {
                log(&json!({ "event": "dead letter", "messageId": message.id }));
            }
            again && message.tries < TRIES
        });
    }
}

/// The messages that failed, by id.
fn failures(outcome: Option<Outcome>) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        batch_item_failures: Vec<Item>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        item_identifier: String,
    }
    let Some(Outcome::Whole(document)) = outcome else { return None };
    let Answer { batch_item_failures } = serde_json::from_slice(&document).ok()?;
    Some(batch_item_failures.into_iter().map(|Item { item_identifier }| item_identifier).collect())
}
