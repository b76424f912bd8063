//! One workspace's counter: what was spent in the windows of now, what running turns hold, and the one decision that compares both with the limits.

use crate::budget::AdmitError;
use crate::hold::{Hold, Request};
use crate::plan::{self, MINUTE_MILLIS, Recent, Short, Stand};
use crate::spent::Spent;
use crate::view::{self, Counts, QuotaView};
use crate::waits::Waits;
use crate::window::{Amount, Cap, Span, Spans};
use crate::words::{Extend, Extended};
use astra_kernel::{AgentId, Allowance, Limits, MoneyError, Timestamp, TurnId, WorkspaceId};
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

/// What became of a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It was taken.
    Taken(Extended),
    /// It was taken, and the hold has to grow, but what was spent is not known: load it and ask again.
    NotLoaded,
    /// No such turn is running.
    NotRunning,
}

/// One workspace's counter.
#[derive(Debug, Default)]
pub struct Counter {
    spent: Vec<(Span, Spent)>,
    holds: BTreeMap<TurnId, Hold>,
    /// The workspace's limits, and the windows of the moment when they were so.
    limits: Option<(Spans, Limits)>,
    /// What its agents may use, of the month with it.
    allowances: BTreeMap<AgentId, (Span, Allowance)>,
    /// How often limits, windows and allowances have changed.
    changes: u64,
    begun: VecDeque<Timestamp>,
    closed: VecDeque<(Timestamp, TurnId, Closed)>,
}

#[derive(Debug)]
struct Closed {
    subject: String,
    key: (String, String),
    /// The month in which its key is its own.
    month: Option<Span>,
}

impl Counter {
    /// A counter that goes on with holds that were kept. What was spent has to be loaded.
    pub fn with_holds(holds: impl IntoIterator<Item = (TurnId, Hold)>) -> Self {
        Self { holds: holds.into_iter().collect(), ..Self::default() }
    }

    /// Which of these windows have to be loaded before anything is decided that looks at them.
    pub fn missing(&self, windows: &[Span]) -> Vec<Span> {
        windows.iter().filter(|window| self.spent(window).is_none()).copied().collect()
    }

    /// Takes what the ledger says of a window. The caller sees to it that no record was being written meanwhile.
    pub fn load(&mut self, window: Span, spent: Spent) {
        self.spent.retain(|(known, _)| *known != window);
        self.spent.push((window, spent));
    }

    /// Forgets what was spent: it is loaded again before the next decision.
    pub fn doubt(&mut self) {
        self.spent.clear();
    }

    /// Forgets windows that are over and that no running turn is counted in.
    fn forget_past(&mut self, now: Timestamp) {
        let holds = &self.holds;
        self.spent.retain(|(window, _)| window.ends_at > now || holds.values().any(|hold| hold.is_in(window)));
    }

    /// Takes the workspace's limits and windows as they are now: its running turns keep to them too when they need more.
    pub fn set_limits(&mut self, spans: Spans, limits: Limits) {
        if self.limits.as_ref().is_none_or(|(known, _)| *known != spans) {
            self.holds.values_mut().for_each(|hold| hold.tell(&spans));
        }
        if self.limits.replace((spans, limits)) != Some((spans, limits)) {
            self.changes += 1;
        }
    }

    /// Takes what each of the workspace's agents may use in a month, as it is now: their running turns keep to it too when they need more. An agent that is not among them is gone.
    pub fn set_allowances(&mut self, month: Span, agents: impl IntoIterator<Item = (AgentId, Allowance)>) {
        let own = agents.into_iter().filter(|(agent, _)| agent.is_own());
        let allowances = own.map(|(agent, allowance)| (agent, (month, allowance))).collect();
        if self.allowances != allowances {
            self.allowances = allowances;
            self.changes += 1;
        }
    }

    /// Likewise, of the agent of a turn that begins. (What one may use that is granted never changes: of its turns each keeps to its own.)
    fn set_allowance(&mut self, month: Span, agent: &AgentId, allowance: Allowance) {
        if agent.is_own() && self.allowances.insert(agent.clone(), (month, allowance)) != Some((month, allowance)) {
            self.changes += 1;
        }
    }

    /// How often the limits, windows and allowances have changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether these may be older than what is known: others were told since `changes`, when they had not been read yet.
    pub fn may_be_old<'a>(
        &self,
        spans: &Spans,
        limits: &Limits,
        agents: impl IntoIterator<Item = (&'a AgentId, &'a Allowance)>,
        changes: u64,
    ) -> bool {
        let is_other = |agent, allowance: &Allowance| self.allowances.get(agent).is_some_and(|known| *known != (spans.month, *allowance));
        self.changes != changes
            && (self.limits != Some((*spans, *limits)) || agents.into_iter().any(|(agent, allowance)| is_other(agent, allowance)))
    }

    /// The caps of a running turn as they are now.
    fn caps_now(&self, hold: &Hold) -> Vec<Cap> {
        let of_workspace = self.limits.map(|(spans, limits)| (spans.month, limits.allowance()));
        plan::caps_now(hold, of_workspace, self.allowances.get(&hold.agent).copied())
    }

    /// The windows that have to be known before a running turn's hold can grow.
    pub fn windows_now(&self, turn: TurnId) -> Vec<Span> {
        self.holds.get(&turn).map(|hold| plan::windows_now(hold, &self.caps_now(hold))).unwrap_or_default()
    }

    /// The hold of a running turn.
    pub fn hold(&self, turn: TurnId) -> Option<&Hold> {
        self.holds.get(&turn)
    }

    /// Looks for a turn under an idempotency key that is running, or ended within the last minute and began in the month of now.
    pub fn known(&mut self, key: &str, hash: &str, subject: &str, now: Timestamp) -> Option<Known> {
        while self.closed.front().is_some_and(|(at, ..)| at.plus_millis(CLOSED_MILLIS) <= now) {
            self.closed.pop_front();
        }
        let running = self.holds.iter().filter_map(|(turn, h)| h.key.as_ref().map(|key| (*turn, key, &h.subject)));
        let in_month = |closed: &Closed| closed.month.is_none_or(|month| month.contains(now));
        let ended = self.closed.iter().filter(|(.., c)| in_month(c)).map(|(_, turn, c)| (*turn, &c.key, &c.subject));
        running.chain(ended).find(|(_, (known, _), _)| known == key).map(|(turn, (_, known_hash), known_subject)| {
            if known_hash == hash && known_subject == subject { Known::Same(turn) } else { Known::Other }
        })
    }

    /// How each cap stands. None while what was spent in one of their windows is not known.
    pub fn stands(&self, caps: &[Cap]) -> Option<Vec<Stand>> {
        let stand = |cap: &Cap| {
            let used = self.spent(&cap.window)?.of(&cap.scope);
            let counted = self.holds.values().filter(|hold| hold.is_in(&cap.window) && cap.scope.counts(&hold.agent));
            Some(Stand { used, held: counted.fold(Amount::default(), |sum, hold| sum.and(hold.amount())) })
        };
        caps.iter().map(stand).collect()
    }

    /// Decides whether a turn may begin, and holds its budget: one step. A turn that holds one already keeps it.
    ///
    /// # Errors
    /// [`AdmitError`]; then nothing is held.
    pub fn admit(&mut self, request: Request<'_>) -> Result<&Hold, AdmitError> {
        let turn = request.turn;
        if !self.holds.contains_key(&turn) {
            self.forget_past(request.now);
            self.set_limits(*request.spans, *request.limits);
            self.set_allowance(request.spans.month, &request.agent, *request.allowance);
            let caps = plan::caps(&request);
            let stands = self.stands(&caps).filter(|_| self.spent(&request.spans.month).is_some()).ok_or(AdmitError::NotLoaded)?;
            let recent = self.recent(request.now);
            let waits: Vec<Waits> = self.holds.values().filter_map(|hold| hold.waits.clone()).collect();
            let (now, is_counted) = (request.now, request.presumed.is_none() && request.limits.max_turns_per_minute.is_some());
            let hold = plan::admit(request, caps, &stands, recent, &waits)?;
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
        self.recently(now)
    }

    fn recently(&self, now: Timestamp) -> Recent {
        let mut recent = self.begun.iter().filter(|at| at.plus_millis(MINUTE_MILLIS) > now).peekable();
        let first = recent.peek().copied().copied();
        Recent { count: i64::try_from(recent.count()).unwrap_or(i64::MAX), first }
    }

    /// Takes a sign of life; grows the hold when it has to cover more than it does.
    pub fn extend(&mut self, now: Timestamp, extend: &Extend) -> Heard {
        let Some(hold) = self.holds.get_mut(&extend.turn_id) else { return Heard::NotRunning };
        hold.stop |= hold.until.is_some_and(|until| until <= now);
        if extend.sequence > hold.sequence {
            hold.sequence = extend.sequence;
            hold.progress = extend.progress;
            hold.expires_at = hold.expires_at.max(now.plus_millis(hold.lease_millis));
        }
        if extend.sequence < hold.sequence {
            return Heard::Taken(hold.extended(extend, false));
        }
        if hold.covers(extend) {
            hold.waits = None;
            return Heard::Taken(hold.extended(extend, false));
        }
        let hold = hold.clone();
        let caps = self.caps_now(&hold);
        let Some(stands) = self.stands(&caps) else { return Heard::NotLoaded };
        // An amount that does not fit is as good as one that is not there.
        let Ok(growth) = plan::grow(&hold, caps, &stands, extend.input_bound, extend.output) else {
            return Heard::Taken(hold.extended(extend, false));
        };
        let waits =
            growth.short.filter(|short| extend.is_urgent && self.may_get_back(extend.turn_id, short)).and_then(|short| short.waits());
        // A turn that waits takes nothing of what is left: others that wait with it need it as much.
        let hold = if waits.is_some() { Hold { waits, ..hold } } else { Hold { waits: None, ..growth.hold } };
        let extended = hold.extended(extend, hold.waits.is_some());
        self.holds.insert(extend.turn_id, hold);
        Heard::Taken(extended)
    }

    /// Whether others will give back some of what a turn lacks: those that go on, when they end; and of those that wait, all that began later, because the
    /// last that began is the first that does not wait any longer.
    fn may_get_back(&self, turn: TurnId, short: &Short) -> bool {
        let Some(window) = &short.window else { return false };
        let mut others = self.holds.iter().filter(|(other, hold)| **other != turn && hold.is_in(window) && short.scope.counts(&hold.agent));
        others.any(|(other, hold)| hold.waits.is_none() || *other > turn)
    }

    /// Asks a running turn to stop. False when it does not run, or is not the member's, or not that workspace's.
    pub fn stop(&mut self, turn: TurnId, subject: Option<&str>, guest: Option<&WorkspaceId>) -> bool {
        match self.holds.get_mut(&turn) {
            Some(hold) if subject.is_none_or(|s| s == hold.subject) && hold.guest.as_ref() == guest => {
                hold.stop = true;
                true
            }
            _ => false,
        }
    }

    /// Asks all running turns of an agent to stop; which.
    pub fn withdraw(&mut self, agent: &AgentId) -> Vec<TurnId> {
        let tell = |(turn, hold): (&TurnId, &mut Hold)| {
            let is_its = hold.agent == *agent;
            hold.stop |= is_its;
            is_its.then_some(*turn)
        };
        self.holds.iter_mut().filter_map(tell).collect()
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
        charge: Amount,
        outcome: SaveOutcome,
    ) -> Result<(), MoneyError> {
        if let Some(Hold { key: Some(key), subject, spans, .. }) = self.holds.remove(&turn) {
            self.closed.push_back((now, turn, Closed { subject, key, month: spans.first().copied() }));
        }
        if outcome != SaveOutcome::Saved {
            // It was charged before, here or by an object that is gone: the ledger knows how much.
            self.doubt();
            return Ok(());
        }
        let mut counted = self.spent.iter_mut().filter(|(window, _)| window.contains(started_at));
        let settled = counted.try_for_each(|(_, spent)| spent.add(agent, charge));
        settled.inspect_err(|_| self.doubt())
    }

    /// Puts a hold back whose settlement came to nothing.
    pub fn resume(&mut self, turn: TurnId, mut hold: Hold) {
        if let Some((spans, _)) = &self.limits {
            hold.tell(spans);
        }
        self.holds.entry(turn).or_insert(hold);
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

    /// Whether a turn is running that began before a moment.
    pub fn has_begun_before(&self, moment: Timestamp) -> bool {
        self.holds.values().any(|hold| hold.started_at < moment)
    }

    /// How many turns are running.
    pub fn running(&self) -> usize {
        self.holds.len()
    }

    /// The windows of which it is known what was spent.
    pub fn windows(&self) -> Vec<Span> {
        self.spent.iter().map(|(window, _)| *window).collect()
    }

    /// What the ledger said was spent in a window, and what was added since; none when that is not known.
    pub fn spent(&self, window: &Span) -> Option<&Spent> {
        self.spent.iter().find(|(known, _)| known == window).map(|(_, spent)| spent)
    }

    /// What is used and left of these caps. None while what was spent is not known.
    pub fn view(&self, caps: &[Cap], max_turns_per_minute: Option<i64>, agents: Option<(i64, i64)>, now: Timestamp) -> Option<QuotaView> {
        let stands = self.stands(caps)?;
        Some(view::view(caps, &stands, Counts { max_turns_per_minute, recent: self.recently(now), agents }))
    }
}
