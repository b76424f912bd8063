//! One workspace's counter: what was spent this month, what running turns hold, and the one decision that compares both with the limits.

use crate::budget::AdmitError;
use crate::hold::{Hold, Request};
use crate::plan::{self, MINUTE_MILLIS, Recent, Standing};
use crate::spent::{Charge, Spent};
use crate::view::{QuotaView, Window};
use crate::words::{Extend, Extended};
use astra_kernel::{AgentId, Limits, MoneyError, Month, NanoUsd, Timestamp, Tokens, TurnId};
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
    /// In which its key is its own.
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

    /// Looks for a turn that is running, or began this month and ended within the last minute, under an idempotency key.
    pub fn known(&mut self, key: &str, hash: &str, subject: &str, now: Timestamp) -> Option<Known> {
        while self.closed.front().is_some_and(|(at, ..)| at.plus_millis(CLOSED_MILLIS) <= now) {
            self.closed.pop_front();
        }
        let running = self.holds.iter().filter_map(|(turn, h)| h.key.as_ref().map(|key| (*turn, key, &h.subject)));
        let month = now.month();
        let ended = self.closed.iter().filter(|(.., c)| c.month == month).map(|(_, turn, c)| (*turn, &c.key, &c.subject));
        running.chain(ended).find(|(_, (known, _), _)| known == key).map(|(turn, (_, known_hash), known_subject)| {
            if known_hash == hash && known_subject == subject { Known::Same(turn) } else { Known::Other }
        })
    }

    /// What a decision compares with the limits, for one agent. None while what was spent is not known.
    fn standing(&self, agent: &AgentId, month: Month) -> Option<Standing> {
        let spent = self.spent.as_ref()?;
        let mut standing =
            Standing { cost_used: spent.cost, tokens_used: spent.tokens, agent_cost_used: spent.agent_cost(agent), ..Standing::default() };
        for hold in self.holds.values().filter(|h| h.started_at.month() == month) {
            let more = |NanoUsd(held): NanoUsd| NanoUsd(held.saturating_add(hold.cost.0));
            standing.cost_held = more(standing.cost_held);
            standing.tokens_held = standing.tokens_held.saturating_add(hold.tokens());
            if hold.agent == *agent {
                standing.agent_cost_held = more(standing.agent_cost_held);
            }
        }
        Some(standing)
    }

    /// Decides whether a turn may begin, and holds its budget: one step. A turn that holds one already keeps it.
    ///
    /// # Errors
    /// [`AdmitError`]; then nothing is held.
    pub fn admit(&mut self, now: Timestamp, request: Request<'_>) -> Result<&Hold, AdmitError> {
        let month = self.roll(now);
        let turn = request.turn;
        if !self.holds.contains_key(&turn) {
            let recent = self.recent(now);
            plan::counts(now, request.limits, request.agent_count, recent)?;
            let standing = self.standing(&request.agent, month).ok_or(AdmitError::NotLoaded)?;
            let is_counted = request.limits.max_turns_per_minute.is_some();
            let hold = plan::hold(now, month, request, &standing)?;
            if is_counted {
                self.begun.push_back(now);
            }
            self.holds.insert(turn, hold);
        }
        self.holds.get(&turn).ok_or(AdmitError::NotLoaded)
    }

    fn recent(&mut self, now: Timestamp) -> Recent {
        while self.begun.front().is_some_and(|at| at.plus_millis(MINUTE_MILLIS) <= now) {
            self.begun.pop_front();
        }
        Recent { count: i64::try_from(self.begun.len()).unwrap_or(i64::MAX), first: self.begun.front().copied() }
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
        let Some(old) = self.holds.get(&turn) else { return false };
        let month = old.started_at.month();
        // A turn of a month that has ended cannot be decided anew: what was spent then is not kept.
        let Some(standing) = self.standing(&old.agent, month).filter(|_| self.month == Some(month)) else { return false };
        let Ok(grown) = plan::grow(now, old, input, &standing.without(old)) else { return false };
        self.holds.insert(turn, grown);
        true
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
        if let Some(Hold { key: Some(key), subject, started_at, .. }) = self.holds.remove(&turn) {
            self.closed.push_back((now, turn, Closed { subject, key, month: started_at.month() }));
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
            let mut recent = self.begun.iter().map(|at| at.plus_millis(MINUTE_MILLIS)).filter(|until| *until > now).peekable();
            let resets = recent.peek().copied();
            let count = i64::try_from(recent.count()).unwrap_or(i64::MAX);
            windows.push(Window::new("maxTurnsPerMinute", "workspace", max, count, 0, resets));
        }
        if let (Some(max), Some(count)) = (limits.max_agents, agent_count) {
            windows.push(Window::new("maxAgents", "workspace", max, count, 0, None));
        }
        QuotaView { windows }
    }
}
