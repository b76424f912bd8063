//! What a function does besides answering requests: a schedule's tasks, a queue's messages.

use crate::native::log;
use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use std::future::Future;

/// Why an event was not dealt with. Whoever sent it sends it again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EventError(pub String);

/// What a function does besides answering requests.
pub trait Events: Send + Sync + 'static {
    /// Does what a schedule asks for.
    fn scheduled(&self, task: &str) -> impl Future<Output = Result<(), EventError>> + Send;

    /// Deals with a queue's message. May come more than once.
    fn message(&self, body: &str) -> impl Future<Output = Result<(), EventError>> + Send;
}

/// A function that has routes only.
#[derive(Debug, Clone, Copy)]
pub struct NoEvents;

impl Events for NoEvents {
    async fn scheduled(&self, task: &str) -> Result<(), EventError> {
        Err(EventError(format!("this function has no scheduled task {task:?}")))
    }

    async fn message(&self, _: &str) -> Result<(), EventError> {
        Err(EventError("this function reads no queue".into()))
    }
}

/// Deals with a batch, message by message; says which have failed and shall come again. One that fails keeps no other from it.
pub async fn batch(events: &impl Events, batch: &SqsEvent) -> SqsBatchResponse {
    let mut failed = SqsBatchResponse::default();
    for message in &batch.records {
        if let Err(error) = events.message(message.body.as_deref().unwrap_or_default()).await {
            log(&serde_json::json!({ "event": "message", "messageId": message.message_id, "error": error.to_string() }).to_string());
            failed.add_failure(message.message_id.clone().unwrap_or_default());
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Fails at what is bad.
    #[derive(Default)]
    struct Picky(Mutex<Vec<String>>);

    impl Events for Picky {
        async fn scheduled(&self, _: &str) -> Result<(), EventError> {
            Ok(())
        }

        async fn message(&self, body: &str) -> Result<(), EventError> {
            if body == "bad" {
                return Err(EventError("it is bad".into()));
            }
            self.0.lock().unwrap().push(body.to_owned());
            Ok(())
        }
    }

    fn of(bodies: &[&str]) -> SqsEvent {
        let records: Vec<_> =
            (1..).zip(bodies).map(|(id, body)| serde_json::json!({ "messageId": format!("m{id}"), "body": body })).collect();
        serde_json::from_value(serde_json::json!({ "Records": records })).unwrap()
    }

    #[tokio::test]
    async fn a_message_that_fails_comes_again_and_keeps_no_other_from_it() {
        let picky = Picky::default();
        let response = batch(&picky, &of(&["one", "bad", "two", "bad"])).await;
        assert_eq!(*picky.0.lock().unwrap(), ["one", "two"]);
        // The names are AWS's.
        let expected = serde_json::json!({ "batchItemFailures": [{ "itemIdentifier": "m2" }, { "itemIdentifier": "m4" }] });
        assert_eq!(serde_json::to_value(&response).unwrap(), expected);
        let response = batch(&picky, &of(&["three"])).await;
        assert_eq!(serde_json::to_value(&response).unwrap(), serde_json::json!({ "batchItemFailures": [] }));
    }

    #[tokio::test]
    async fn who_reads_no_queue_loses_no_message() {
        assert_eq!(batch(&NoEvents, &of(&["one", "two"])).await.batch_item_failures.len(), 2);
        assert!(NoEvents.scheduled("expire-stale").await.unwrap_err().to_string().contains("expire-stale"));
    }
}
