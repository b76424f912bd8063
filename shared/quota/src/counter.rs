//! One workspace's counter: what was spent this month, what running turns hold, and the one decision that compares both with the limits.

use crate::budget::{AdmitError, Budget, Unit, fit};
use crate::hold::{Hold, Request, Size};
use crate::spent::{Charge, Spent};
use crate::view::{QuotaView, Window};
use crate::words::{Extend, Extended, Refusal};
use astra_kernel::{AgentId, Limits, MoneyError, Month, NanoUsd, Timestamp, Tokens, TurnId, Usage};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};

/// How long an ended turn's idempotency key is remembered, in milliseconds: longer than a database snapshot taken before its end can live.
const CLOSED_MILLIS: i64 = 60_000;

/// What the database did with a turn's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaveOutcome {
    /// It is new in the ledger.
    Saved,
    /// It was there.
    Duplicate,
    /// It corrected what was charged when the turn was thought dead.
    Corrected,
}

/// A request that a running (or just ended) turn answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The same key and body: that turn's answer is this one's.
    Same(TurnId),
    /// The same key, another body or another member.
    Other,
}

/// One workspace's counter.
#[derive(Debug, Default)]
pub struct Counter {
    month: Option<Month>,
    spent: Option<Spent>,
    holds: BTreeMap<TurnId, Hold>,
    begun: VecDeque<Timestamp>,
    closed: VecDeque<(Timestamp, TurnId, Closed)>,
}

#[derive(Debug)]
struct Closed {
    subject: String,
    key: (String, String),
}

/// What a decision compares.
struct Limited<'a> {
    agent: &'a AgentId,
    limits: &'a Limits,
    agent_max_cost: Option<NanoUsd>,
    max_tokens_per_turn: Option<i64>,
    month: Month,
}

impl Counter {
    /// A counter that goes on with holds that were kept. What was spent has to be loaded.
    pub fn with_holds(holds: impl IntoIterator<Item = (TurnId, Hold)>) -> Self {
        Self { holds: holds.into_iter().collect(), ..Self::default() }
    }

    /// Moves on to the month of a moment. Time that goes back moves nothing.
    pub fn roll(&mut self, now: Timestamp) -> Month {
        let month = now.month();
        match self.month {
            Some(known) if known >= month => known,
            Some(_) => {
                // Nothing can have been spent in a month that has just begun: every turn of it begins here.
                self.spent = self.spent.take().map(|_| Spent::default());
                self.month = Some(month);
                month
            }
            None => {
                self.month = Some(month);
                month
            }
        }
    }

    /// Whether what was spent has to be loaded before anything is admitted.
    pub fn needs_load(&self) -> bool {
        self.spent.is_none()
    }

    /// Takes what the ledger says of a month. The caller sees to it that no record was being written meanwhile.
    pub fn load(&mut self, month: Month, spent: Spent) {
        if self.month == Some(month) {
            self.spent = Some(spent);
        }
    }

    /// Forgets what was spent: the next admission loads it again.
    pub fn doubt(&mut self) {
        self.spent = None;
    }

    /// The hold of a running turn.
    pub fn hold(&self, turn: TurnId) -> Option<&Hold> {
        self.holds.get(&turn)
    }

    /// Looks for a turn that is running, or ended within the last minute, under an idempotency key.
    pub fn known(&mut self, key: &str, hash: &str, subject: &str, now: Timestamp) -> Option<Known> {
        while self.closed.front().is_some_and(|(at, ..)| at.plus_millis(CLOSED_MILLIS) <= now) {
            self.closed.pop_front();
        }
        let running = self.holds.iter().filter_map(|(turn, h)| h.key.as_ref().map(|key| (*turn, key, &h.subject)));
        let ended = self.closed.iter().map(|(_, turn, c)| (*turn, &c.key, &c.subject));
        running.chain(ended).find(|(_, (known, _), _)| known == key).map(|(turn, (_, known_hash), known_subject)| {
            if known_hash == hash && known_subject == subject { Known::Same(turn) } else { Known::Other }
        })
    }

    fn budgets(&self, of: &Limited<'_>) -> Result<Vec<Budget>, AdmitError> {
        let spent = self.spent.as_ref().ok_or(AdmitError::NotLoaded)?;
        let resets_at = Some(of.month.resets_at());
        let mine = || self.holds.values().filter(|h| h.started_at.month() == of.month);
        let mut budgets = Vec::with_capacity(4);
        if let Some(max) = of.max_tokens_per_turn {
            let limit = "maxTokensPerTurn";
            budgets.push(Budget { limit, scope: "agent", max, used: 0, held: 0, resets_at: None, unit: Unit::Tokens });
        }
        if let Some(max) = of.limits.max_tokens_per_month {
            let held = mine().map(Hold::tokens).fold(0, i64::saturating_add);
            let limit = "maxTokensPerMonth";
            budgets.push(Budget { limit, scope: "workspace", max, used: spent.tokens, held, resets_at, unit: Unit::Tokens });
        }
        let held_cost =
            |agent: Option<&AgentId>| mine().filter(|h| agent.is_none_or(|a| *a == h.agent)).map(|h| h.cost.0).fold(0, i64::saturating_add);
        let limit = "maxCostUsdPerMonth";
        if let Some(NanoUsd(max)) = of.limits.max_cost_nano_usd_per_month {
            budgets.push(Budget {
                limit,
                scope: "workspace",
                max,
                used: spent.cost.0,
                held: held_cost(None),
                resets_at,
                unit: Unit::Money,
            });
        }
        if let Some(NanoUsd(max)) = of.agent_max_cost {
            let (used, held) = (spent.agent_cost(of.agent).0, held_cost(Some(of.agent)));
            budgets.push(Budget { limit, scope: "agent", max, used, held, resets_at, unit: Unit::Money });
        }
        Ok(budgets)
    }

    /// Decides whether a turn may begin, and holds its budget: one step.
    ///
    /// # Errors
    /// [`AdmitError`]; then nothing is held.
    pub fn admit(&mut self, now: Timestamp, request: Request<'_>) -> Result<&Hold, AdmitError> {
        let month = self.roll(now);
        let Request {
            turn,
            agent,
            subject,
            key,
            limits,
            agent_count,
            agent_max_cost,
            max_tokens_per_turn,
            size,
            wanted_output,
            price,
            lease_millis,
        } = request;
        self.check_counts(now, limits, agent_count)?;
        let budgets = self.budgets(&Limited { agent: &agent, limits, agent_max_cost, max_tokens_per_turn, month })?;
        let (input_bound, output) = fit(&budgets, size, wanted_output, &price, now)?;
        let hold = Hold {
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
        };
        if limits.max_turns_per_minute.is_some() {
            self.begun.push_back(now);
        }
        self.holds.insert(turn, hold);
        self.holds.get(&turn).ok_or(AdmitError::NotLoaded)
    }

    /// The limits that count things, not tokens.
    fn check_counts(&mut self, now: Timestamp, limits: &Limits, agent_count: i64) -> Result<(), AdmitError> {
        const MINUTE: i64 = 60_000;
        while self.begun.front().is_some_and(|at| at.plus_millis(MINUTE) <= now) {
            self.begun.pop_front();
        }
        let count = i64::try_from(self.begun.len()).unwrap_or(i64::MAX);
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
        match (limits.max_turns_per_minute, limits.max_agents) {
            (Some(max), _) if count >= max => {
                refuse("maxTurnsPerMinute", max, count, self.begun.front().filter(|_| max > 0).map(|at| at.plus_millis(MINUTE)))
            }
            (_, Some(max)) if agent_count > max => refuse("maxAgents", max, agent_count, None),
            _ => Ok(()),
        }
    }

    /// Takes a sign of life; grows the hold when it has to cover more input. None when no such turn is running.
    pub fn extend(&mut self, now: Timestamp, extend: &Extend) -> Option<Extended> {
        let hold = self.holds.get_mut(&extend.turn_id)?;
        if extend.sequence > hold.sequence {
            hold.sequence = extend.sequence;
            hold.progress = extend.progress;
            hold.expires_at = hold.expires_at.max(now.plus_millis(hold.lease_millis));
        }
        let covered = extend.input_bound <= hold.input_bound || self.grow(extend.turn_id, extend.input_bound, now);
        self.holds.get(&extend.turn_id).map(|h| Extended { stop: h.stop, covered, max_output: h.max_output })
    }

    /// Decides a hold anew for a larger prompt. When it does not fit, the hold stays as it was.
    fn grow(&mut self, turn: TurnId, input: Tokens, now: Timestamp) -> bool {
        let Some(old) = self.holds.remove(&turn) else { return false };
        let of = Limited {
            agent: &old.agent,
            limits: &old.limits,
            agent_max_cost: old.agent_max_cost,
            max_tokens_per_turn: old.max_tokens_per_turn,
            month: old.started_at.month(),
        };
        let size = Size { least: input, full: input };
        let grown = self.budgets(&of).and_then(|budgets| {
            let (input_bound, max_output) = fit(&budgets, size, old.max_output, &old.price, now)?;
            Ok(Hold { input_bound, max_output, cost: old.price.at_most(input_bound, max_output)?, ..old.clone() })
        });
        // A turn of a month that has ended cannot be decided anew: what was spent then is not kept.
        let fits = grown.is_ok() && self.month == Some(of.month);
        self.holds.insert(turn, if fits { grown.unwrap_or(old) } else { old });
        fits
    }

    /// Asks a running turn to stop. False when it does not run, or is not the member's.
    pub fn stop(&mut self, turn: TurnId, subject: Option<&str>) -> bool {
        match self.holds.get_mut(&turn) {
            Some(hold) if subject.is_none_or(|s| s == hold.subject) => {
                hold.stop = true;
                true
            }
            _ => false,
        }
    }

    /// Replaces a hold by what was really used, once the record is in the ledger (or is kept to get there).
    ///
    /// # Errors
    /// [`MoneyError`] when the sum does not fit; the counter then loads again.
    pub fn finish(
        &mut self,
        now: Timestamp,
        turn: TurnId,
        agent: &AgentId,
        started_at: Timestamp,
        charge: Charge,
        outcome: SaveOutcome,
    ) -> Result<(), MoneyError> {
        if let Some(Hold { key: Some(key), subject, .. }) = self.holds.remove(&turn) {
            self.closed.push_back((now, turn, Closed { subject, key }));
        }
        if self.month != Some(started_at.month()) {
            return Ok(());
        }
        let settled = match (outcome, self.spent.as_mut()) {
            (SaveOutcome::Saved, Some(spent)) => spent.add(agent, charge),
            (_, None) => Ok(()),
            // It was charged before, here or by an object that is gone: the ledger knows how much.
            (SaveOutcome::Duplicate | SaveOutcome::Corrected, Some(_)) => {
                self.spent = None;
                Ok(())
            }
        };
        settled.inspect_err(|_| self.spent = None)
    }

    /// Gives a hold back without a charge: the turn never began.
    pub fn release(&mut self, turn: TurnId) {
        self.holds.remove(&turn);
    }

    /// Turns of which nothing was heard in time.
    pub fn expired(&self, now: Timestamp) -> Vec<TurnId> {
        self.holds.iter().filter(|(_, h)| h.expires_at <= now).map(|(turn, _)| *turn).collect()
    }

    /// When the next hold expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.holds.values().map(|h| h.expires_at).min()
    }

    /// How many turns are running.
    pub fn running(&self) -> usize {
        self.holds.len()
    }

    /// What is used and left of each limit that is set. Empty while what was spent is not known.
    pub fn view(&self, limits: &Limits, agents: &[(AgentId, NanoUsd)], agent_count: Option<i64>, now: Timestamp) -> QuotaView {
        let month = self.month.unwrap_or_else(|| now.month());
        let (Some(spent), resets_at) = (self.spent.as_ref(), Some(month.resets_at())) else { return QuotaView::default() };
        let mine = || self.holds.values().filter(|h| h.started_at.month() == month);
        let mut windows = Vec::with_capacity(4);
        if let Some(max) = limits.max_tokens_per_month {
            let held = mine().map(Hold::tokens).fold(0, i64::saturating_add);
            windows.push(Window::new("maxTokensPerMonth", "workspace", max, spent.tokens, held, resets_at));
        }
        if let Some(NanoUsd(max)) = limits.max_cost_nano_usd_per_month {
            let held = mine().map(|h| h.cost.0).fold(0, i64::saturating_add);
            windows.push(Window::new("maxCostUsdPerMonth", "workspace", max, spent.cost.0, held, resets_at));
        }
        for (agent, NanoUsd(max)) in agents {
            let held = mine().filter(|h| h.agent == *agent).map(|h| h.cost.0).fold(0, i64::saturating_add);
            windows.push(Window::new("maxCostUsdPerMonth", format!("agent:{agent}"), *max, spent.agent_cost(agent).0, held, resets_at));
        }
        if let Some(max) = limits.max_turns_per_minute {
            let recent = self.begun.iter().filter(|at| at.plus_millis(60_000) > now).count();
            let resets = self.begun.front().map(|at| at.plus_millis(60_000));
            windows.push(Window::new("maxTurnsPerMinute", "workspace", max, i64::try_from(recent).unwrap_or(i64::MAX), 0, resets));
        }
        if let (Some(max), Some(count)) = (limits.max_agents, agent_count) {
            windows.push(Window::new("maxAgents", "workspace", max, count, 0, None));
        }
        QuotaView { windows }
    }
}
