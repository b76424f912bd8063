//! Windows and caps: over which time, of whom, and how much.
//!
//! A window is an hour, a day or a month of the workspace's time zone; the database says where it begins and ends, because it knows the zones. A turn
//! belongs to every window that its beginning lies in, until it has ended: also to one that nobody looked at when it began.

use astra_kernel::{AgentId, Allowance, Limits, NanoUsd, Timestamp};
use serde::{Deserialize, Serialize};

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// From full hour to full hour.
    Hour,
    /// From midnight to midnight.
    Day,
    /// A calendar month.
    Month,
}

/// One window: from its first moment to the first of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// How long it is.
    pub period: Period,
    /// Its first moment.
    pub starts_at: Timestamp,
    /// The first moment after it: when its limits start anew.
    pub ends_at: Timestamp,
}

impl Span {
    /// Its name, such as `month:2026-11-01T00:00:00.000Z/2026-12-01T00:00:00.000Z`. With its end: those of two time zones may begin together and end apart.
    pub fn id(&self) -> String {
        let period = match self.period {
            Period::Hour => "hour",
            Period::Day => "day",
            Period::Month => "month",
        };
        format!("{period}:{}/{}", self.starts_at, self.ends_at)
    }

    /// Whether a moment lies in it.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.starts_at <= at && at < self.ends_at
    }
}

/// The windows that a moment lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans {
    /// Its hour.
    pub hour: Span,
    /// Its day.
    pub day: Span,
    /// Its month.
    pub month: Span,
}

impl Spans {
    /// The window of a length.
    pub fn of(&self, period: Period) -> Span {
        match period {
            Period::Hour => self.hour,
            Period::Day => self.day,
            Period::Month => self.month,
        }
    }

    /// All of them, the month first.
    pub fn all(&self) -> [Span; 3] {
        [self.month, self.day, self.hour]
    }
}

/// Whose use a limit counts, as the API writes it: `workspace`, or `agent:` and the agent's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(String);

impl Scope {
    /// The whole workspace.
    pub fn workspace() -> Self {
        Self("workspace".into())
    }

    /// One agent of it.
    pub fn agent(agent: &AgentId) -> Self {
        Self(format!("agent:{agent}"))
    }

    /// The agent, when it is one's.
    pub fn agent_id(&self) -> Option<&str> {
        self.0.strip_prefix("agent:")
    }

    /// Whether it counts a turn of this agent.
    pub fn counts(&self, agent: &AgentId) -> bool {
        self.agent_id().is_none_or(|id| id == agent.as_str())
    }

    /// As the API writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Input and output tokens.
    Tokens,
    /// Nano-dollars.
    Cost,
}

/// A limit of a window, by its name in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitName {
    /// Tokens in a calendar month.
    MaxTokensPerMonth,
    /// Cost in a calendar month.
    MaxCostUsdPerMonth,
    /// Tokens in a day.
    MaxTokensPerDay,
    /// Cost in a day.
    MaxCostUsdPerDay,
    /// Tokens in an hour.
    MaxTokensPerHour,
    /// Cost in an hour.
    MaxCostUsdPerHour,
}

impl LimitName {
    /// What it counts.
    pub fn unit(self) -> Unit {
        match self {
            Self::MaxTokensPerMonth | Self::MaxTokensPerDay | Self::MaxTokensPerHour => Unit::Tokens,
            Self::MaxCostUsdPerMonth | Self::MaxCostUsdPerDay | Self::MaxCostUsdPerHour => Unit::Cost,
        }
    }

    /// How long its window is.
    pub fn period(self) -> Period {
        match self {
            Self::MaxTokensPerMonth | Self::MaxCostUsdPerMonth => Period::Month,
            Self::MaxTokensPerDay | Self::MaxCostUsdPerDay => Period::Day,
            Self::MaxTokensPerHour | Self::MaxCostUsdPerHour => Period::Hour,
        }
    }

    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokensPerMonth => "maxTokensPerMonth",
            Self::MaxCostUsdPerMonth => "maxCostUsdPerMonth",
            Self::MaxTokensPerDay => "maxTokensPerDay",
            Self::MaxCostUsdPerDay => "maxCostUsdPerDay",
            Self::MaxTokensPerHour => "maxTokensPerHour",
            Self::MaxCostUsdPerHour => "maxCostUsdPerHour",
        }
    }
}

/// One limit of one window: what `spent + held` must not exceed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cap {
    /// Which limit.
    pub limit: LimitName,
    /// Whose.
    pub scope: Scope,
    /// The window.
    pub window: Span,
    /// Tokens or nano-dollars.
    pub max: i64,
}

impl Cap {
    /// What of a use it counts.
    pub fn amount(&self, amount: Amount) -> i64 {
        match self.limit.unit() {
            Unit::Tokens => amount.tokens,
            Unit::Cost => amount.cost.0,
        }
    }
}

/// What is used or held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Nano-dollars.
    pub cost: NanoUsd,
    /// Input and output tokens.
    pub tokens: i64,
}

impl Amount {
    /// Both, without overflow: a sum that does not fit is as good as the largest number.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { cost: NanoUsd(self.cost.0.saturating_add(other.cost.0)), tokens: self.tokens.saturating_add(other.tokens) }
    }

    /// Without a part of it.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self { cost: NanoUsd(self.cost.0.saturating_sub(other.cost.0)), tokens: self.tokens.saturating_sub(other.tokens) }
    }
}

/// The caps of a turn: those of its workspace, then those of its agent.
pub fn caps(limits: &Limits, agent: &AgentId, allowance: &Allowance, spans: &Spans) -> Vec<Cap> {
    let mut caps = Vec::with_capacity(4);
    push(&mut caps, &Scope::workspace(), &limits.allowance(), |period| Some(spans.of(period)));
    push(&mut caps, &Scope::agent(agent), allowance, |period| Some(spans.of(period)));
    caps
}

/// Adds the caps of one scope, the month's first. A limit over a window that is not known adds none.
pub fn push(caps: &mut Vec<Cap>, scope: &Scope, allowance: &Allowance, window: impl Fn(Period) -> Option<Span>) {
    let Allowance {
        max_tokens_per_hour,
        max_tokens_per_day,
        max_tokens_per_month,
        max_cost_nano_usd_per_hour,
        max_cost_nano_usd_per_day,
        max_cost_nano_usd_per_month,
    } = *allowance;
    let limits = [
        (LimitName::MaxTokensPerMonth, max_tokens_per_month),
        (LimitName::MaxCostUsdPerMonth, max_cost_nano_usd_per_month.map(|cost| cost.0)),
        (LimitName::MaxTokensPerDay, max_tokens_per_day),
        (LimitName::MaxCostUsdPerDay, max_cost_nano_usd_per_day.map(|cost| cost.0)),
        (LimitName::MaxTokensPerHour, max_tokens_per_hour),
        (LimitName::MaxCostUsdPerHour, max_cost_nano_usd_per_hour.map(|cost| cost.0)),
    ];
    for (limit, max) in limits {
        if let (Some(max), Some(window)) = (max, window(limit.period())) {
            caps.push(Cap { limit, scope: scope.clone(), window, max });
        }
    }
}

/// The windows that a decision looks at: the month, and those of the caps.
pub fn looked_at(caps: &[Cap], month: Span) -> Vec<Span> {
    let mut windows = vec![month];
    for cap in caps {
        if !windows.contains(&cap.window) {
            windows.push(cap.window);
        }
    }
    windows
}
