//! A workspace's limits on the wire. Cost is a number of dollars there and integer nano-dollars everywhere else.

use crate::amount::{Usd, write_usd};
use crate::fields::{Change, Count};
use astra_host::fields::present;
use astra_kernel::{Limits, NanoUsd};
use astra_store::workspaces;
use serde::{Deserialize, Serialize};

/// Hard limits. One that is not given does not limit.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewLimits)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct LimitsBody {
    /// How many agents the workspace may have: its own and its template's.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_agents: Option<Count>,
    /// Input and output tokens in a calendar month of the workspace's time zone.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_tokens_per_month: Option<Count>,
    /// Dollars in a calendar month of the workspace's time zone, at most 9 decimals.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_cost_usd_per_month: Option<Usd>,
    /// Turns begun within a minute.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_turns_per_minute: Option<Count>,
    /// Input and output tokens in a day of the workspace's time zone.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_tokens_per_day: Option<Count>,
    /// Input and output tokens in an hour.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_tokens_per_hour: Option<Count>,
    /// Dollars in a day of the workspace's time zone, at most 9 decimals.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_cost_usd_per_day: Option<Usd>,
    /// Dollars in an hour, at most 9 decimals.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_cost_usd_per_hour: Option<Usd>,
}

impl From<LimitsBody> for Limits {
    fn from(body: LimitsBody) -> Self {
        let LimitsBody {
            max_agents,
            max_tokens_per_month,
            max_cost_usd_per_month,
            max_turns_per_minute,
            max_tokens_per_day,
            max_tokens_per_hour,
            max_cost_usd_per_day,
            max_cost_usd_per_hour,
        } = body;
        let (count, cost) = (|count: Option<Count>| count.map(|n| n.0), |usd: Option<Usd>| usd.map(|usd| usd.0));
        Self {
            max_agents: count(max_agents),
            max_turns_per_minute: count(max_turns_per_minute),
            max_tokens_per_hour: count(max_tokens_per_hour),
            max_tokens_per_day: count(max_tokens_per_day),
            max_tokens_per_month: count(max_tokens_per_month),
            max_cost_nano_usd_per_hour: cost(max_cost_usd_per_hour),
            max_cost_nano_usd_per_day: cost(max_cost_usd_per_day),
            max_cost_nano_usd_per_month: cost(max_cost_usd_per_month),
        }
    }
}

/// Limits to change: one that is not named stays, null removes one.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = LimitsChange)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct LimitsPatch {
    /// How many agents.
    #[serde(default)]
    #[schema(value_type = Option<Count>)]
    max_agents: Change<Count>,
    /// Tokens in a month.
    #[serde(default)]
    #[schema(value_type = Option<Count>)]
    max_tokens_per_month: Change<Count>,
    /// Dollars in a month, at most 9 decimals.
    #[serde(default)]
    #[schema(value_type = Option<Usd>)]
    max_cost_usd_per_month: Change<Usd>,
    /// Turns begun within a minute.
    #[serde(default)]
    #[schema(value_type = Option<Count>)]
    max_turns_per_minute: Change<Count>,
    /// Tokens in a day.
    #[serde(default)]
    #[schema(value_type = Option<Count>)]
    max_tokens_per_day: Change<Count>,
    /// Tokens in an hour.
    #[serde(default)]
    #[schema(value_type = Option<Count>)]
    max_tokens_per_hour: Change<Count>,
    /// Dollars in a day, at most 9 decimals.
    #[serde(default)]
    #[schema(value_type = Option<Usd>)]
    max_cost_usd_per_day: Change<Usd>,
    /// Dollars in an hour, at most 9 decimals.
    #[serde(default)]
    #[schema(value_type = Option<Usd>)]
    max_cost_usd_per_hour: Change<Usd>,
}

impl LimitsPatch {
    /// The patch in the names of the database.
    pub(crate) fn into_stored(self) -> workspaces::LimitsPatch {
        let Self {
            max_agents,
            max_tokens_per_month,
            max_cost_usd_per_month,
            max_turns_per_minute,
            max_tokens_per_day,
            max_tokens_per_hour,
            max_cost_usd_per_day,
            max_cost_usd_per_hour,
        } = self;
        let (count, cost) = (|Count(n)| n, |Usd(amount)| amount);
        workspaces::LimitsPatch {
            max_agents: max_agents.into_stored(count),
            max_turns_per_minute: max_turns_per_minute.into_stored(count),
            max_tokens_per_hour: max_tokens_per_hour.into_stored(count),
            max_tokens_per_day: max_tokens_per_day.into_stored(count),
            max_tokens_per_month: max_tokens_per_month.into_stored(count),
            max_cost_nano_usd_per_hour: max_cost_usd_per_hour.into_stored(cost),
            max_cost_nano_usd_per_day: max_cost_usd_per_day.into_stored(cost),
            max_cost_nano_usd_per_month: max_cost_usd_per_month.into_stored(cost),
        }
    }
}

/// A workspace's limits. One that is not there does not limit.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Limits)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct LimitsView {
    /// How many agents the workspace may have: its own and its template's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_agents: Option<i64>,
    /// Input and output tokens in a calendar month of the workspace's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_month: Option<i64>,
    /// Dollars in a calendar month of the workspace's time zone.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_usd")]
    #[schema(value_type = Option<f64>, nullable = false)]
    max_cost_usd_per_month: Option<NanoUsd>,
    /// Turns begun within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_turns_per_minute: Option<i64>,
    /// Input and output tokens in a day of the workspace's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_day: Option<i64>,
    /// Input and output tokens in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_hour: Option<i64>,
    /// Dollars in a day of the workspace's time zone.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_usd")]
    #[schema(value_type = Option<f64>, nullable = false)]
    max_cost_usd_per_day: Option<NanoUsd>,
    /// Dollars in an hour.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_usd")]
    #[schema(value_type = Option<f64>, nullable = false)]
    max_cost_usd_per_hour: Option<NanoUsd>,
}

impl From<Limits> for LimitsView {
    fn from(limits: Limits) -> Self {
        let Limits {
            max_agents,
            max_turns_per_minute,
            max_tokens_per_hour,
            max_tokens_per_day,
            max_tokens_per_month,
            max_cost_nano_usd_per_hour,
            max_cost_nano_usd_per_day,
            max_cost_nano_usd_per_month,
        } = limits;
        Self {
            max_agents,
            max_tokens_per_month,
            max_cost_usd_per_month: max_cost_nano_usd_per_month,
            max_turns_per_minute,
            max_tokens_per_day,
            max_tokens_per_hour,
            max_cost_usd_per_day: max_cost_nano_usd_per_day,
            max_cost_usd_per_hour: max_cost_nano_usd_per_hour,
        }
    }
}
