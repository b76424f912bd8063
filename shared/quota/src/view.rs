//! What is shown of limits: in each turn's answer and by `GET /workspaces/{id}/quota`.

use crate::plan::{MINUTE_MILLIS, Recent, Stand};
use crate::window::Cap;
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
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub starts_at: Option<Timestamp>,
    /// When it starts anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub resets_at: Option<Timestamp>,
}

impl Window {
    /// One that counts things.
    pub(crate) fn new(limit: &str, max: i64, used: i64, resets_at: Option<Timestamp>) -> Self {
        let left = max.saturating_sub(used).max(0);
        Self { limit: limit.to_owned(), scope: "workspace".into(), max, used, held: 0, left, starts_at: None, resets_at }
    }

    /// One of tokens or cost.
    pub(crate) fn of(cap: &Cap, stand: &Stand) -> Self {
        let (max, used, held) = (cap.max, cap.amount(stand.used), cap.amount(stand.held));
        let left = max.saturating_sub(used).saturating_sub(held).max(0);
        let (starts_at, resets_at) = (Some(cap.window.starts_at), Some(cap.window.ends_at));
        Self { limit: cap.limit.as_str().to_owned(), scope: cap.scope.as_str().to_owned(), max, used, held, left, starts_at, resets_at }
    }
}

/// What is shown beside the windows of tokens and cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// The limit of turns a minute.
    pub max_turns_per_minute: Option<i64>,
    /// The turns of the last minute.
    pub recent: Recent,
    /// The limit of agents, and how many there are.
    pub agents: Option<(i64, i64)>,
}

/// Shows caps and how they stand.
pub fn view(caps: &[Cap], stands: &[Stand], counts: Counts) -> QuotaView {
    let mut windows: Vec<_> = caps.iter().zip(stands).map(|(cap, stand)| Window::of(cap, stand)).collect();
    let Counts { max_turns_per_minute, recent, agents } = counts;
    if let Some(max) = max_turns_per_minute {
        windows.push(Window::new("maxTurnsPerMinute", max, recent.count, recent.first.map(|at| at.plus_millis(MINUTE_MILLIS))));
    }
    if let Some((max, count)) = agents {
        windows.push(Window::new("maxAgents", max, count, None));
    }
    QuotaView { windows }
}
