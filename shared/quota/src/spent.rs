//! What was spent in a window, as the ledger says it.

use crate::window::{Amount, Scope};
use astra_kernel::{AgentId, MoneyError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the ledger says was spent in a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// By the whole workspace.
    pub total: Amount,
    /// By agent.
    pub by_agent: BTreeMap<AgentId, Amount>,
}

impl Spent {
    /// Adds a charge.
    ///
    /// # Errors
    /// [`MoneyError`] when the sum does not fit.
    pub fn add(&mut self, agent: &AgentId, charge: Amount) -> Result<(), MoneyError> {
        let entry = self.by_agent.entry(agent.clone()).or_default();
        (self.total.cost, entry.cost) = (self.total.cost.plus(charge.cost)?, entry.cost.plus(charge.cost)?);
        self.total.tokens = self.total.tokens.saturating_add(charge.tokens);
        entry.tokens = entry.tokens.saturating_add(charge.tokens);
        Ok(())
    }

    /// The scopes that have spent something of it, and the whole workspace.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        std::iter::once(Scope::workspace()).chain(self.by_agent.keys().map(Scope::agent))
    }

    /// What one scope has spent of it.
    pub fn of(&self, scope: &Scope) -> Amount {
        match scope.agent_id() {
            None => self.total,
            Some(id) => self.by_agent.iter().find(|(agent, _)| agent.as_str() == id).map_or_else(Amount::default, |(_, amount)| *amount),
        }
    }
}
