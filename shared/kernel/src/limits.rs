//! A workspace's hard limits.

use crate::NanoUsd;
use serde::{Deserialize, Serialize};

/// What a workspace may use. `None` means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// How many agents a workspace may have: its own and its template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<i64>,
    /// Input and output tokens in a calendar month (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_month: Option<i64>,
    /// Cost in a calendar month (UTC), nano-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_month: Option<NanoUsd>,
    /// Turns begun within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns_per_minute: Option<i64>,
}
