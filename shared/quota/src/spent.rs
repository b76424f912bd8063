//! What was spent in a month, as the ledger says it.

use astra_kernel::{AgentId, MoneyError, NanoUsd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the ledger says was spent in a month.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// Cost.
    #[serde(rename = "costNanoUsd")]
    pub cost: NanoUsd,
    /// Input and output tokens.
    pub tokens: i64,
    /// By agent.
    pub by_agent: BTreeMap<AgentId, AgentSpent>,
}

/// An agent's part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpent {
    /// Cost.
    #[serde(rename = "costNanoUsd")]
    pub cost: NanoUsd,
    /// Input and output tokens.
    pub tokens: i64,
}

impl Spent {
    pub(crate) fn add(&mut self, agent: &AgentId, charge: Charge) -> Result<(), MoneyError> {
        let entry = self.by_agent.entry(agent.clone()).or_default();
        (self.cost, entry.cost) = (self.cost.plus(charge.cost)?, entry.cost.plus(charge.cost)?);
        self.tokens = self.tokens.saturating_add(charge.tokens);
        entry.tokens = entry.tokens.saturating_add(charge.tokens);
        Ok(())
    }

    pub(crate) fn agent_cost(&self, agent: &AgentId) -> NanoUsd {
        self.by_agent.get(agent).map_or(NanoUsd::ZERO, |a| a.cost)
    }
}

/// What a turn is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Cost.
    pub cost: NanoUsd,
    /// Input and output tokens.
    pub tokens: i64,
}
