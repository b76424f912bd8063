//! What a workspace and its agents may use, as the SQL function `quota_status` says it.

use crate::window::{self, Cap, Scope, Span, Spans};
use astra_kernel::{AgentId, Allowance, Limits};
use serde::Deserialize;

/// The limits of a workspace in the month of a moment, and the windows of that moment.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The workspace's.
    pub limits: Limits,
    /// Those of its agents, also of who has none, and of granted ones that have some.
    pub agents: Vec<AgentLimits>,
    /// How many agents it has.
    pub agent_count: i64,
    /// The windows.
    pub spans: Spans,
}

/// An agent and its limits.
#[derive(Debug, Deserialize)]
pub struct AgentLimits {
    /// The agent.
    pub id: AgentId,
    /// What it may use.
    pub allowance: Allowance,
}

impl Status {
    /// Without the agents that are not asked for.
    #[must_use]
    pub fn of(mut self, agent: &AgentId) -> Self {
        self.agents.retain(|limits| limits.id == *agent);
        self
    }

    /// What each agent may use.
    pub fn allowances(&self) -> impl Iterator<Item = (&AgentId, &Allowance)> {
        self.agents.iter().map(|AgentLimits { id, allowance }| (id, allowance))
    }

    /// The caps of the workspace and of its agents.
    pub fn caps(&self) -> Vec<Cap> {
        let mut caps = Vec::new();
        let window = |period| Some(self.spans.of(period));
        window::push(&mut caps, &Scope::workspace(), &self.limits.allowance(), window);
        for AgentLimits { id, allowance } in &self.agents {
            window::push(&mut caps, &Scope::agent(id), allowance, window);
        }
        caps
    }

    /// The windows that these look at.
    pub fn windows(&self) -> Vec<Span> {
        window::looked_at(&self.caps(), self.spans.month)
    }
}
