//! The decision without the state: from what is wanted, the limits, and what is used and held of them, to a hold or a refusal.
//!
//! Whoever keeps the state (the [`Counter`](crate::Counter) in memory, rows in a database) calls this and then applies what it says. The trap: what it
//! was told must still be true when it is applied. In memory nothing runs in between; rows are compared with the limits once more as they are changed.

use crate::budget::{AdmitError, Budget, Unit, fit};
use crate::hold::{Hold, Request, Size};
use crate::words::Refusal;
use astra_kernel::{Limits, Month, NanoUsd, Timestamp, Tokens, Usage};
use serde::{Deserialize, Serialize};

/// What counts as a minute for `maxTurnsPerMinute`, in milliseconds.
pub const MINUTE_MILLIS: i64 = 60_000;

/// What is used and held of a month, by the workspace and by the agent that is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The workspace's cost, as the ledger has it.
    pub cost_used: NanoUsd,
    /// What running turns may cost.
    pub cost_held: NanoUsd,
    /// The workspace's input and output tokens.
    pub tokens_used: i64,
    /// What running turns may use.
    pub tokens_held: i64,
    /// The agent's part of the cost.
    pub agent_cost_used: NanoUsd,
    /// What its running turns may cost.
    pub agent_cost_held: NanoUsd,
}

impl Standing {
    /// As it would be without a hold that is in it.
    #[must_use]
    pub fn without(self, hold: &Hold) -> Self {
        let less = |NanoUsd(held): NanoUsd| NanoUsd(held.saturating_sub(hold.cost.0));
        Self {
            cost_held: less(self.cost_held),
            tokens_held: self.tokens_held.saturating_sub(hold.tokens()),
            agent_cost_held: less(self.agent_cost_held),
            ..self
        }
    }
}

/// Turns that began within the last minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recent {
    /// How many.
    pub count: i64,
    /// The first of them.
    pub first: Option<Timestamp>,
}

/// What a decision compares, beside what is used and held.
struct Limited<'a> {
    limits: &'a Limits,
    agent_max_cost: Option<NanoUsd>,
    max_tokens_per_turn: Option<i64>,
    month: Month,
}

fn budgets(of: &Limited<'_>, standing: &Standing) -> Vec<Budget> {
    let Standing { cost_used, cost_held, tokens_used, tokens_held, agent_cost_used, agent_cost_held } = *standing;
    let resets_at = Some(of.month.resets_at());
    let mut budgets = Vec::with_capacity(4);
    if let Some(max) = of.max_tokens_per_turn {
        let limit = "maxTokensPerTurn";
        budgets.push(Budget { limit, scope: "agent", max, used: 0, held: 0, resets_at: None, unit: Unit::Tokens });
    }
    if let Some(max) = of.limits.max_tokens_per_month {
        let limit = "maxTokensPerMonth";
        budgets.push(Budget { limit, scope: "workspace", max, used: tokens_used, held: tokens_held, resets_at, unit: Unit::Tokens });
    }
    let limit = "maxCostUsdPerMonth";
    if let Some(NanoUsd(max)) = of.limits.max_cost_nano_usd_per_month {
        let (used, held) = (cost_used.0, cost_held.0);
        budgets.push(Budget { limit, scope: "workspace", max, used, held, resets_at, unit: Unit::Money });
    }
    if let Some(NanoUsd(max)) = of.agent_max_cost {
        let (used, held) = (agent_cost_used.0, agent_cost_held.0);
        budgets.push(Budget { limit, scope: "agent", max, used, held, resets_at, unit: Unit::Money });
    }
    budgets
}

/// Decides whether a turn may begin in a month, and what it holds.
///
/// # Errors
/// [`AdmitError`]; never [`AdmitError::NotLoaded`].
pub fn admit(now: Timestamp, month: Month, request: Request<'_>, recent: Recent, standing: &Standing) -> Result<Hold, AdmitError> {
    counts(now, request.limits, request.agent_count, recent)?;
    hold(now, month, request, standing)
}

/// The limits that count things, not tokens.
pub(crate) fn counts(now: Timestamp, limits: &Limits, agent_count: i64, recent: Recent) -> Result<(), AdmitError> {
    let refuse = |limit: &str, max, used, resets_at: Option<Timestamp>| {
        let retry_after = resets_at.map(|at| (at.0 - now.0).max(0) / 1000 + 1);
        Err(AdmitError::Refused(Refusal {
            limit: limit.into(),
            scope: "workspace".into(),
            max,
            used,
            held: 0,
            needs: 1,
            resets_at,
            retry_after,
        }))
    };
    let Recent { count, first } = recent;
    match (limits.max_turns_per_minute, limits.max_agents) {
        (Some(max), _) if count >= max => {
            refuse("maxTurnsPerMinute", max, count, first.filter(|_| max > 0).map(|at| at.plus_millis(MINUTE_MILLIS)))
        }
        (_, Some(max)) if agent_count > max => refuse("maxAgents", max, agent_count, None),
        _ => Ok(()),
    }
}

/// The limits that count tokens and money.
pub(crate) fn hold(now: Timestamp, month: Month, request: Request<'_>, standing: &Standing) -> Result<Hold, AdmitError> {
    let Request {
        turn: _,
        agent,
        subject,
        key,
        limits,
        agent_count: _,
        agent_max_cost,
        max_tokens_per_turn,
        size,
        wanted_output,
        price,
        lease_millis,
    } = request;
    let budgets = budgets(&Limited { limits, agent_max_cost, max_tokens_per_turn, month }, standing);
    let (input_bound, output) = fit(&budgets, size, wanted_output, &price, now)?;
    Ok(Hold {
        agent,
        subject,
        key,
        // A clock that went back must not put the turn into a month that this counter has closed.
        started_at: now.max(month.starts_at()),
        input_bound,
        max_output: output,
        bounded_by_budget: output < wanted_output,
        cost: price.at_most(input_bound, output)?,
        price,
        limits: *limits,
        agent_max_cost,
        max_tokens_per_turn,
        lease_millis,
        expires_at: now.plus_millis(lease_millis),
        sequence: 0,
        progress: Usage::NONE,
        stop: false,
    })
}

/// Decides a hold anew for a larger prompt, against what others use and hold of its month. An error leaves it as it was.
///
/// # Errors
/// [`AdmitError`]; never [`AdmitError::NotLoaded`].
pub fn grow(now: Timestamp, old: &Hold, input: Tokens, others: &Standing) -> Result<Hold, AdmitError> {
    let of = Limited {
        limits: &old.limits,
        agent_max_cost: old.agent_max_cost,
        max_tokens_per_turn: old.max_tokens_per_turn,
        month: old.started_at.month(),
    };
    let (input_bound, max_output) = fit(&budgets(&of, others), Size { least: input, full: input }, old.max_output, &old.price, now)?;
    Ok(Hold { input_bound, max_output, cost: old.price.at_most(input_bound, max_output)?, ..old.clone() })
}
