//! Sums of the ledger by one thing, within dates; and the roll-ups that they are read from.
//!
//! An answer is the ledger's sum whatever was rolled up: what was not is counted entry by entry, in the same snapshot (`migrations/0035`).

use crate::billing::is_amount;
use crate::{Database, Operator, Outcome, StoreError, Tenant, operator_statement, parse, tenant_statement};
use astra_kernel::{Day, NanoUsd, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};

/// By what sums are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// By workspace: the operator's.
    Workspace,
    /// By agent.
    Agent,
    /// By provider and model.
    Model,
    /// By who asked.
    User,
    /// By the workspace's own days.
    Day,
    /// By kind of entry.
    Kind,
}

/// Which sums.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PartsArg<'a> {
    /// By what.
    pub by: By,
    /// From this day of the workspace's on; from the first of its month unless told.
    pub from: Option<Day>,
    /// Until the end of this day; until now unless told.
    pub to: Option<Day>,
    /// The host's clock.
    pub now: Timestamp,
    /// The `next` of a page: nothing else may be passed on from a request ([`is_parts_cursor`]).
    pub after: Option<&'a str>,
    /// How many at most.
    pub limit: u32,
}

/// One sum.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Whose: an id, a name, a date. Empty: of no agent, of nobody.
    pub key: String,
    /// Turns.
    pub turns: i64,
    /// Input tokens, the cached and the embedded included.
    pub input_tokens: i64,
    /// Those of them that the provider had cached.
    pub cached_input_tokens: i64,
    /// Output tokens, the reasoning included.
    pub output_tokens: i64,
    /// Those of them that were not shown.
    pub reasoning_tokens: i64,
    /// Those of the input that were embedded.
    pub embedding_tokens: i64,
    /// What it cost.
    pub cost_nano_usd: NanoUsd,
    /// What is charged for it.
    pub charge_nano_usd: NanoUsd,
}

/// A page of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parts {
    /// Dearest first, days in their order.
    pub data: Vec<Part>,
    /// What `after` is for the next page.
    pub next: Option<String>,
    /// How many entries of the ledger were counted one by one, because they are not rolled up yet.
    pub not_rolled_up: i64,
}

/// What a round has rolled up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolledUp {
    /// Entries.
    pub rolled_up: i64,
    /// Workspaces that had some.
    pub workspaces: i64,
    /// Entries that are not rolled up yet: how far it is behind.
    pub left: i64,
}

/// Whether a text has the form of a cursor of [`Operator::parts`]: a number, a colon, a key.
pub fn is_parts_cursor(text: &str) -> bool {
    text.len() <= 1024 && !text.contains('\0') && text.split_once(':').is_some_and(|(rank, _)| is_amount(rank))
}

impl<D: Database> Tenant<'_, D> {
    /// The workspace's sums; `None` when it does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn parts(&self, arg: &PartsArg<'_>) -> Result<Option<Parts>, StoreError> {
        const STATEMENT: &str = tenant_statement!("usage_by");
        let arg = serde_json::to_string(arg).map_err(|_| StoreError::Shape(STATEMENT))?;
        let answer = self.call_text(STATEMENT, &arg).await?;
        let Outcome { outcome } = parse(STATEMENT, &answer)?;
        if outcome == "ok" { parse(STATEMENT, &answer).map(Some) } else { Ok(None) }
    }
}

impl<D: Database> Operator<'_, D> {
    /// Every workspace's sums.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn parts(&self, arg: &PartsArg<'_>) -> Result<Parts, StoreError> {
        self.call(operator_statement!("op_usage_by"), arg).await
    }

    /// Rolls up what is the furthest behind, at most `limit` entries.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn roll_up(&self, limit: u32) -> Result<RolledUp, StoreError> {
        #[derive(Serialize)]
        struct Arg {
            limit: u32,
        }
        self.call(operator_statement!("op_usage_roll"), &Arg { limit }).await
    }

    /// Drops a workspace's roll-ups, so that they are made anew. Whether there is such a workspace.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn drop_rollups(&self, workspace: &WorkspaceId) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Arg<'a> {
            workspace_id: &'a WorkspaceId,
        }
        self.call(operator_statement!("op_usage_drop"), &Arg { workspace_id: workspace }).await.map(|Outcome { outcome }| outcome == "ok")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_told_from_other_texts() {
        for text in ["0:2026-11-01", "-12:openai/gpt-4o", "0:", "5:a:b"] {
            assert!(is_parts_cursor(text), "{text}");
        }
        for text in ["", ":", "a:b", "1.5:a", "1000000000000000000:a", "1:a\0"] {
            assert!(!is_parts_cursor(text), "{text}");
        }
    }
}
