//! Ends turns of which nothing was heard in time: for all workspaces when a schedule asks for it, for one when a queue's message names it.

use gateway::lambda::{EventError, Events, Tools};

/// The task's name in schedules and messages.
const TASK: &str = "expire-stale";

/// Ends turns that have died.
pub(crate) struct Expiry(Tools);

impl Expiry {
    pub(crate) fn new(tools: Tools) -> Self {
        Self(tools)
    }
}

impl Events for Expiry {
    async fn scheduled(&self, task: &str) -> Result<(), EventError> {
        if task != TASK {
            return Err(EventError(format!("there is no scheduled task {task}; there is {TASK}")));
        }
        self.0.counters.expire_stale().await.map(drop).map_err(|error| EventError(error.to_string()))
    }

    async fn message(&self, _: &str) -> Result<(), EventError> {
        Err(EventError("this function reads no queue".into()))
    }
}
