//! What is shown of limits: in each turn's answer and by `GET /workspaces/{id}/quota`.

use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};

/// The limits of a workspace and what is used of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaView {
    /// One entry per limit that is set.
    pub windows: Vec<Window>,
}

/// One limit. Amounts are nano-dollars, tokens, turns or agents, as the limit's name says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The limit's name in the API.
    pub limit: String,
    /// `workspace`, or `agent:` and the agent's id.
    pub scope: String,
    /// The limit.
    pub max: i64,
    /// Used of it.
    pub used: i64,
    /// Held by running turns.
    pub held: i64,
    /// What a new turn can still take: `max - used - held`, never below 0.
    pub left: i64,
    /// When it starts anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Timestamp>,
}

impl Window {
    pub(crate) fn new(limit: &str, scope: impl Into<String>, max: i64, used: i64, held: i64, resets_at: Option<Timestamp>) -> Self {
        let left = max.saturating_sub(used).saturating_sub(held).max(0);
        Self { limit: limit.to_owned(), scope: scope.into(), max, used, held, left, resets_at }
    }
}
