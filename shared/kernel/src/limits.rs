//! Hard limits: of a workspace, and of one agent in it.

use crate::NanoUsd;
use serde::{Deserialize, Serialize};

/// What a workspace may use. `None` means no limit. Hours, days and months are those of the workspace's time zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// How many agents a workspace may have: its own and its template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_agents: Option<i64>,
    /// Turns begun within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_turns_per_minute: Option<i64>,
    /// Input and output tokens in an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_hour: Option<i64>,
    /// Input and output tokens in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_day: Option<i64>,
    /// Input and output tokens in a calendar month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_month: Option<i64>,
    /// Cost in an hour, nano-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_hour: Option<NanoUsd>,
    /// Cost in a day, nano-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_day: Option<NanoUsd>,
    /// Cost in a calendar month, nano-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_month: Option<NanoUsd>,
}

impl Limits {
    /// The limits of tokens and cost.
    pub fn allowance(&self) -> Allowance {
        let Self {
            max_agents: _,
            max_turns_per_minute: _,
            max_tokens_per_hour,
            max_tokens_per_day,
            max_tokens_per_month,
            max_cost_nano_usd_per_hour,
            max_cost_nano_usd_per_day,
            max_cost_nano_usd_per_month,
        } = *self;
        Allowance {
            max_tokens_per_hour,
            max_tokens_per_day,
            max_tokens_per_month,
            max_cost_nano_usd_per_hour,
            max_cost_nano_usd_per_day,
            max_cost_nano_usd_per_month,
        }
    }
}

/// The limits of tokens and cost alone: what an agent may use within its workspace's [`Limits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allowance {
    /// Input and output tokens in an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_hour: Option<i64>,
    /// Input and output tokens in a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_day: Option<i64>,
    /// Input and output tokens in a calendar month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_per_month: Option<i64>,
    /// Cost in an hour, nano-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_hour: Option<NanoUsd>,
    /// Cost in a day, nano-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_day: Option<NanoUsd>,
    /// Cost in a calendar month, nano-dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_nano_usd_per_month: Option<NanoUsd>,
}
