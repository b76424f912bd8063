//! The counter, and beside it the ledger as the database keeps it. Each step checks what it was told; [`World::check`] what is always true.

use crate::{PRICE, agent, spans};
use astra_kernel::{AgentId, Allowance, Limits, NanoUsd, Price, Timestamp, TurnId, Usage, UsageSource};
use astra_quota::words::{Extend, Extended};
use astra_quota::{AdmitError, Amount, Cap, Counter, Heard, Hold, Request, SaveOutcome, Scope, Size, Span, Spans, Spent, plan, window};
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Begin { agent: u8, input: u64, history: u64, output: u64 },
    Extend { which: usize, output: u64, input_bound: u64, is_urgent: bool, is_late: bool },
    Finish { which: usize, input: u64, output: u64 },
    FinishAgain { which: usize },
    Die { which: usize },
    Wait { millis: i64 },
    SetLimits { limits: Limits, tells: bool },
    Restart,
}

pub(crate) struct Entry {
    agent: AgentId,
    started_at: Timestamp,
    charge: Amount,
    expired: bool,
}

pub(crate) struct World {
    pub(crate) counter: Counter,
    pub(crate) ledger: BTreeMap<TurnId, Entry>,
    pub(crate) running: Vec<TurnId>,
    pub(crate) ended: Vec<TurnId>,
    pub(crate) limits: Limits,
    pub(crate) now: Timestamp,
    /// The counter was told of the limits as they are: by a turn that began since, or by whoever changed them.
    knows_limits: bool,
    sequence: u32,
    next: u128,
    /// What each cap stood at after the step before: a decision may not add to one that is full.
    stood: BTreeMap<(Span, Scope, &'static str), i64>,
}

/// Of each agent: 1 has a limit of its own over a month and an hour, the others none.
pub(crate) fn allowance(n: u8) -> Allowance {
    match n {
        1 => Allowance { max_cost_nano_usd_per_month: Some(NanoUsd(2_000_000)), max_tokens_per_hour: Some(6_000), ..Allowance::default() },
        _ => Allowance::default(),
    }
}

fn usage(input: u64, output: u64) -> Usage {
    Usage { input_tokens: input, output_tokens: output, source: UsageSource::Provider, ..Usage::NONE }
}

fn charge(usage: &Usage) -> Amount {
    Amount { cost: PRICE.cost(usage).unwrap(), tokens: i64::try_from(usage.total_tokens()).unwrap() }
}

impl World {
    pub(crate) fn new(limits: Limits, now: Timestamp) -> Self {
        let (counter, ledger, stood) = (Counter::default(), BTreeMap::new(), BTreeMap::new());
        Self { counter, ledger, running: vec![], ended: vec![], limits, now, knows_limits: false, sequence: 0, next: 0, stood }
    }

    fn spent(&self, window: &Span) -> Spent {
        let mut spent = Spent::default();
        for entry in self.ledger.values().filter(|e| window.contains(e.started_at)) {
            spent.add(&entry.agent, entry.charge).unwrap();
        }
        spent
    }

    /// As the desk does before it decides.
    pub(crate) fn load(&mut self, windows: &[Span]) {
        for window in self.counter.missing(windows) {
            let spent = self.spent(&window);
            self.counter.load(window, spent);
        }
    }

    fn pick(list: &[TurnId], which: usize) -> Option<TurnId> {
        (!list.is_empty()).then(|| list[which % list.len()])
    }

    pub(crate) fn hold(&self, turn: TurnId) -> Hold {
        self.counter.hold(turn).unwrap().clone()
    }

    /// As the desk and the database do it: settle, then save; a record that was there makes the counter doubt.
    fn finish(&mut self, turn: TurnId, agent: &AgentId, started_at: Timestamp, charge: Amount, expired: bool) {
        self.counter.finish(self.now, turn, agent, started_at, charge, SaveOutcome::Saved).unwrap();
        match self.ledger.get_mut(&turn) {
            Some(entry) => {
                // A settlement that comes after all corrects what was charged when the turn was taken for dead: once.
                if entry.expired && !expired {
                    (entry.charge, entry.expired) = (charge, false);
                }
                self.counter.doubt();
            }
            None => drop(self.ledger.insert(turn, Entry { agent: agent.clone(), started_at, charge, expired })),
        }
        self.running.retain(|t| *t != turn);
        self.ended.push(turn);
    }

    pub(crate) fn begin(&mut self, n: u8, size: Size, wanted_output: u64) -> Option<TurnId> {
        self.next += 1;
        let turn = TurnId(uuid::Uuid::from_u128(self.next));
        let (limits, allowance, spans) = (self.limits, allowance(n), spans(self.now));
        let request = Request {
            turn,
            agent: agent(n),
            subject: "u".into(),
            key: Some((format!("key{}", self.next), "hash".into())),
            now: self.now,
            spans: &spans,
            limits: &limits,
            allowance: &allowance,
            agent_count: 1,
            max_tokens_per_turn: (n == 2).then_some(2_000),
            size,
            wanted_output,
            price: Price { holds_maximum: n == 3, ..PRICE },
            lease_millis: 30_000,
        };
        self.load(&plan::windows(&request));
        let waited_for = self.running.iter().any(|t| self.hold(*t).waits.is_some());
        self.knows_limits = true;
        match self.counter.admit(request) {
            Ok(hold) => {
                assert!(hold.input_bound >= size.least && hold.input_bound <= size.full.max(size.least));
                assert!((1..=wanted_output).contains(&hold.output) && hold.output <= hold.max_output && hold.max_output <= wanted_output);
                assert_eq!(hold.bounded_by_budget, hold.max_output < wanted_output);
                assert!(n != 2 || hold.input_bound + hold.max_output <= 2_000);
                assert!(n != 3 || hold.output == hold.max_output, "what a model does not stream is held whole");
                assert_eq!((hold.started_at, hold.spans[0]), (self.now, spans.month));
                self.running.push(turn);
                Some(turn)
            }
            Err(AdmitError::Refused(refusal)) => {
                check_refusal(&refusal, size.least, waited_for);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Tells the counter that a turn lives, as the desk does.
    pub(crate) fn extend(&mut self, turn: TurnId, output: u64, input_bound: u64, is_urgent: bool) -> Extended {
        self.sequence += 1;
        self.extend_as(turn, self.sequence, output, input_bound, is_urgent)
    }

    fn extend_as(&mut self, turn: TurnId, sequence: u32, output: u64, input_bound: u64, is_urgent: bool) -> Extended {
        let before = self.hold(turn);
        let reported = output.min(before.output);
        let extend = Extend { turn_id: turn, sequence, progress: usage(10, reported), input_bound, output, is_urgent };
        let extended = loop {
            match self.counter.extend(self.now, &extend) {
                Heard::Taken(extended) => break extended,
                Heard::NotLoaded => self.load(&before.spans),
                Heard::NotRunning => panic!("it runs"),
            }
        };
        let hold = self.hold(turn);
        assert_eq!((extended.output, extended.max_output), (hold.output, hold.max_output));
        if sequence < before.sequence {
            assert_eq!((hold.output, hold.input_bound, hold.progress), (before.output, before.input_bound, before.progress), "late");
            return extended;
        }
        assert_eq!(extended.covered, hold.input_bound >= input_bound && hold.output >= output.min(hold.max_output));
        assert_eq!(extended.wait, hold.waits.is_some());
        assert!(!(extended.covered && extended.wait));
        if self.knows_limits && !extended.covered && input_bound <= before.input_bound {
            self.check_short(turn, output);
        }
        extended
    }

    /// A hold that was not let grow: no limit pays for what was needed, beside what others hold.
    fn check_short(&mut self, turn: TurnId, output: u64) {
        let hold = self.hold(turn);
        self.load(&hold.spans);
        let caps = plan::caps_now(&hold, None);
        let stands = self.counter.stands(&caps).unwrap();
        let need = hold.price.at_most(hold.input_bound, output.min(hold.max_output)).unwrap();
        let need = Amount { cost: need, tokens: i64::try_from(hold.input_bound + output.min(hold.max_output)).unwrap() };
        let fits = |cap: &Cap, max: i64, stand: &plan::Stand| {
            cap.amount(stand.used) + cap.amount(stand.held.less(hold.amount())) + cap.amount(need) <= max
        };
        let limits_now = plan::caps_now(&hold, Some(&self.limits));
        let fits_before = caps.iter().zip(&stands).all(|(cap, stand)| fits(cap, cap.max, stand));
        let stands_now = self.counter.stands(&limits_now).unwrap();
        let fits_now = limits_now.iter().zip(&stands_now).all(|(cap, stand)| fits(cap, cap.max, stand));
        let in_turn = hold.max_tokens_per_turn.is_none_or(|max| need.tokens <= max);
        assert!(!(fits_before && fits_now && in_turn), "{hold:?} was refused {output}, which is there");
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin { agent, input, history, output } => {
                self.begin(agent, Size { least: input, full: input + history }, output);
            }
            Step::Extend { which, output, input_bound, is_urgent, is_late } => {
                if let Some(turn) = Self::pick(&self.running, which) {
                    if is_late {
                        let sequence = self.hold(turn).sequence.saturating_sub(1);
                        self.extend_as(turn, sequence, output, 0, is_urgent);
                    } else {
                        self.extend(turn, output, input_bound, is_urgent);
                    }
                }
            }
            Step::Finish { which, input, output } => {
                if let Some(turn) = Self::pick(&self.running, which) {
                    let hold = self.hold(turn);
                    // No more is delivered than is covered.
                    let usage = usage(input.min(hold.input_bound), output.min(hold.output));
                    self.finish(turn, &hold.agent, hold.started_at, charge(&usage), false);
                    assert_eq!(self.counter.hold(turn), None);
                }
            }
            Step::FinishAgain { which } => {
                if let Some(turn) = Self::pick(&self.ended, which) {
                    let entry = &self.ledger[&turn];
                    let (agent, started_at, charge) = (entry.agent.clone(), entry.started_at, entry.charge);
                    self.finish(turn, &agent, started_at, charge, false);
                }
            }
            Step::Die { which } => {
                if let Some(turn) = Self::pick(&self.running, which) {
                    self.now = self.now.max(self.hold(turn).expires_at);
                    self.wake();
                    assert_eq!(self.counter.hold(turn), None);
                }
            }
            // The desk's clock never goes back.
            Step::Wait { millis } => {
                self.now = self.now.max(self.now.plus_millis(millis));
                self.wake();
            }
            Step::SetLimits { limits, tells } => {
                self.limits = limits;
                self.knows_limits = tells;
                if tells {
                    self.counter.set_limits(spans(self.now).month, limits);
                }
            }
            Step::Restart => {
                let holds: Vec<_> = self.running.iter().map(|t| (*t, self.hold(*t))).collect();
                self.counter = Counter::with_holds(holds);
                self.knows_limits = false;
                let month = spans(self.now).month;
                assert_eq!(self.counter.missing(&[month]), [month], "it knows nothing of what was spent");
            }
        }
    }

    /// Ends what has expired, as the alarm does.
    pub(crate) fn wake(&mut self) {
        for turn in self.counter.expired(self.now) {
            let hold = self.hold(turn);
            let usage = hold.charge_if_dead();
            assert_eq!(usage.output_tokens, hold.progress.output_tokens.min(hold.output), "what was last reported");
            let charge = charge(&usage);
            assert!(charge.cost <= hold.cost, "a dead turn is never charged more than it held");
            self.finish(turn, &hold.agent, hold.started_at, charge, true);
        }
    }

    /// What is always true, whatever happened.
    pub(crate) fn check(&mut self, is_decision: bool) {
        let spans: Spans = spans(self.now);
        let mut caps = Vec::new();
        window::push(&mut caps, &Scope::workspace(), &self.limits.allowance(), |period| Some(spans.of(period)));
        window::push(&mut caps, &Scope::agent(&agent(1)), &allowance(1), |period| Some(spans.of(period)));
        // And those of turns that run on from a window that is over.
        caps.extend(self.running.iter().flat_map(|t| plan::caps_now(&self.hold(*t), None)).filter(|cap| cap.scope.agent_id().is_some()));
        let windows: Vec<Span> = caps.iter().map(|cap| cap.window).collect();
        self.load(&windows);
        let stands = self.counter.stands(&caps).unwrap();
        let mut stood = BTreeMap::new();
        for (cap, stand) in caps.iter().zip(&stands) {
            assert_eq!(stand.used, self.spent(&cap.window).of(&cap.scope), "the counter says what the ledger says");
            let total = cap.amount(stand.used) + cap.amount(stand.held);
            let key = (cap.window, cap.scope.clone(), cap.limit.as_str());
            if total > cap.max {
                // Only what was there before the limit was lowered may be above it, and no decision adds to that.
                assert!(cap.scope.agent_id().is_none(), "an agent's limit does not change here: {cap:?} {stand:?}");
                let before = self.stood.get(&key).copied();
                assert!(!is_decision || !self.knows_limits || before.is_none_or(|before| total <= before), "{cap:?} {stand:?} {before:?}");
            }
            stood.insert(key, total);
        }
        self.stood = stood;
        assert_eq!(self.counter.running(), self.running.len());
        assert!(self.running.iter().all(|t| self.hold(*t).expires_at > self.now), "no hold outlives its lease");
    }

    /// Lets all that is running ask for more, until all have ended: each ends when it is refused. That ends.
    pub(crate) fn drain(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "they wait for each other for ever: {:?}", self.running);
            let Some(turn) = self.running.get(round % self.running.len().max(1)).copied() else { return };
            let hold = self.hold(turn);
            let extended = self.extend(turn, hold.output + 1, 0, true);
            if !extended.wait && (!extended.covered || hold.output >= hold.max_output) {
                let usage = usage(hold.input_bound, self.hold(turn).output);
                self.finish(turn, &hold.agent, hold.started_at, charge(&usage), false);
                self.check(false);
            }
        }
    }
}

/// A refusal must be true: the least that the turn needs does not fit, or others wait for it.
fn check_refusal(refusal: &astra_quota::Refusal, input: u64, waited_for: bool) {
    let left = refusal.max - refusal.used - refusal.held;
    assert!(left < refusal.needs || (waited_for && refusal.retry_after == Some(1)), "{refusal:?} refuses what is there");
    if left < refusal.needs {
        match refusal.limit.as_str() {
            limit if limit.starts_with("maxCostUsd") => assert_eq!(refusal.needs, PRICE.at_most(input, 1).unwrap().0),
            limit if limit.starts_with("maxTokens") => assert_eq!(refusal.needs, i64::try_from(input).unwrap() + 1),
            "maxTurnsPerMinute" => assert_eq!(refusal.needs, 1),
            other => panic!("{other}"),
        }
    }
    assert!(refusal.retry_after.is_none_or(|seconds| seconds >= 1));
}
