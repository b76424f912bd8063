//! Turns that have died are ended by the schedule: at once by itself, or by way of a queue, one message for each workspace that has some.
//!
//! With the queue (`EXPIRY_QUEUE_URL`) a workspace whose turns cannot be ended keeps no other from it, is tried again, and ends in the dead letters. Messages
//! come at least once; a turn is ended once. Without it whatever fails is tried again by the next schedule.

use super::aws::{Aws, AwsError, OpenError, Service};
use super::events::{EventError, Events};
use crate::Shared;
use crate::native::{Rows, log};
use astra_kernel::WorkspaceId;
use astra_store::StoreError;
use serde::{Deserialize, Serialize};

/// The task's name in schedules and messages.
const TASK: &str = "expire-stale";

/// How many messages SQS takes at once.
const BATCH: usize = 10;

/// What schedules and messages are about: there is one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Turns of which nothing was heard in time are ended.
    ExpireStale,
}

/// A message of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Whose.
    pub workspace_id: WorkspaceId,
    /// What to do.
    pub task: Task,
}

/// Why what is stale was not, or not all, expired.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] AwsError),
    /// The queue took some messages only.
    #[error("the queue did not take {0} messages")]
    NotTaken(usize),
}

/// Ends what has died.
#[derive(Debug, Clone)]
pub struct Expiry {
    counters: Rows,
    queue: Option<Queue>,
}

#[derive(Debug, Clone)]
struct Queue {
    aws: Aws,
    url: String,
}

impl Expiry {
    /// With the counters' rows, and the queue of `EXPIRY_QUEUE_URL` if that is set.
    ///
    /// # Errors
    /// When the queue cannot be called.
    pub fn new(shared: &Shared, counters: Rows) -> Result<Self, OpenError> {
        let queue = match shared.setting("EXPIRY_QUEUE_URL") {
            Some(url) => Some(Queue { aws: Aws::open(|name| shared.setting(name))?, url }),
            None => None,
        };
        Ok(Self { counters, queue })
    }

    /// Ends them, or asks by the queue for it.
    async fn all(&self) -> Result<(), ExpiryError> {
        let Some(queue) = &self.queue else {
            told(None, self.counters.expire_stale().await?);
            return Ok(());
        };
        let mut after = None;
        loop {
            let page = self.counters.stale(after.as_ref()).await?;
            for some in page.data.chunks(BATCH) {
                queue.send(some).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}

impl Events for Expiry {
    async fn scheduled(&self, task: &str) -> Result<(), EventError> {
        if task != TASK {
            return Err(EventError(format!("there is no scheduled task {task:?}; there is {TASK}")));
        }
        self.all().await.map_err(|error| EventError(error.to_string()))
    }

    async fn message(&self, body: &str) -> Result<(), EventError> {
        let message = serde_json::from_str(body).map_err(|_| EventError("the message is not what this queue is for".to_owned()))?;
        let Message { workspace_id, task: Task::ExpireStale } = message;
        let ended = self.counters.expire(&workspace_id).await.map_err(|error| EventError(error.to_string()))?;
        told(Some(&workspace_id), ended);
        Ok(())
    }
}

fn told(workspace: Option<&WorkspaceId>, ended: usize) {
    if ended > 0 {
        log(&serde_json::json!({ "event": "expired", "workspace": workspace, "turns": ended }).to_string());
    }
}

impl Queue {
    /// One message for each workspace.
    async fn send(&self, workspaces: &[WorkspaceId]) -> Result<(), ExpiryError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct SendMessageBatch<'a> {
            queue_url: &'a str,
            entries: Vec<Entry>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            id: String,
            message_body: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Sent {
            #[serde(default)]
            failed: Vec<serde::de::IgnoredAny>,
        }
        let entries = workspaces.iter().enumerate().map(|(place, workspace)| {
            let message = Message { workspace_id: workspace.clone(), task: Task::ExpireStale };
            let message_body = serde_json::to_string(&message).map_err(|_| AwsError::Unsigned)?;
            Ok(Entry { id: place.to_string(), message_body })
        });
        let entries = entries.collect::<Result<_, AwsError>>()?;
        let body = SendMessageBatch { queue_url: &self.url, entries };
        let Sent { failed } = self.aws.call(Service::Queues, "SendMessageBatch", &body).await?;
        if failed.is_empty() { Ok(()) } else { Err(ExpiryError::NotTaken(failed.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_as_it_was_written_and_nothing_else_does() {
        let message = Message { workspace_id: "acme".to_owned().try_into().unwrap(), task: Task::ExpireStale };
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(text, r#"{"workspaceId":"acme","task":"expire-stale"}"#);
        assert!(text.contains(TASK));
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
        for other in [r#"{"workspaceId":"acme","task":"dance"}"#, r#"{"workspaceId":"../x","task":"expire-stale"}"#, "{}"] {
            assert!(serde_json::from_str::<Message>(other).is_err(), "{other}");
        }
    }
}
