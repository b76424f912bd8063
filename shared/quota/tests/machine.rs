//! The rules of holds and limits under generated schedules: begins, signs of life, ends (once, twice, late), deaths, clock jumps, changed limits.
//!
//! Beside the counter runs a ledger as the database would keep it; after each step what the counter says must agree with it, and never exceed a limit.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use astra_kernel::{AgentId, Limits, NanoUsd, Price, Timestamp, TurnId, Usage, UsageSource};
use astra_quota::words::Extend;
use astra_quota::{AdmitError, Charge, Counter, Known, Request, SaveOutcome, Size, Spent};
use proptest::prelude::*;
use std::collections::BTreeMap;

const PRICE: Price = Price {
    version: 1,
    input_nano_per_mtok: 150_000_000,
    cached_input_nano_per_mtok: 75_000_000,
    output_nano_per_mtok: 600_000_000,
    holds_maximum: false,
};

/// 2026-11-24T00:00:00Z: a few days before a month ends.
const START: Timestamp = Timestamp(1_795_478_400_000);

#[derive(Debug, Clone)]
enum Step {
    Begin { agent: u8, input: u64, history: u64, output: u64 },
    Extend { which: usize, output: u64, input_bound: u64 },
    Finish { which: usize, input: u64, output: u64 },
    FinishAgain { which: usize },
    Die { which: usize },
    Wait { millis: i64 },
    SetLimits(Limits),
    Restart,
}

fn limits() -> impl Strategy<Value = Limits> {
    (proptest::option::of(0_i64..20_000), proptest::option::of(0_i64..8_000_000), proptest::option::of(0_i64..12)).prop_map(
        |(tokens, cost, turns)| Limits {
            max_agents: None,
            max_tokens_per_month: tokens,
            max_cost_nano_usd_per_month: cost.map(NanoUsd),
            max_turns_per_minute: turns,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u8..3, 1_u64..800, 0_u64..800, 1_u64..4_000)
            .prop_map(|(agent, input, history, output)| Step::Begin { agent, input, history, output }),
        2 => (any::<usize>(), 0_u64..4_000, 0_u64..2_000).prop_map(|(which, output, input_bound)| Step::Extend { which, output, input_bound }),
        4 => (any::<usize>(), 0_u64..2_000, 0_u64..5_000).prop_map(|(which, input, output)| Step::Finish { which, input, output }),
        1 => any::<usize>().prop_map(|which| Step::FinishAgain { which }),
        1 => any::<usize>().prop_map(|which| Step::Die { which }),
        2 => prop_oneof![-50_000_i64..50_000, Just(3 * 86_400_000), Just(5 * 86_400_000)].prop_map(|millis| Step::Wait { millis }),
        1 => limits().prop_map(Step::SetLimits),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

struct Entry {
    agent: AgentId,
    started_at: Timestamp,
    charge: Charge,
}

/// The counter, and beside it the ledger as the database keeps it.
struct World {
    counter: Counter,
    ledger: BTreeMap<TurnId, Entry>,
    running: Vec<TurnId>,
    ended: Vec<TurnId>,
    limits: Limits,
    now: Timestamp,
    latest: Timestamp,
    next: u128,
}

fn agent(n: u8) -> AgentId {
    format!("agent{n}").try_into().unwrap()
}

fn tokens(charge: Charge) -> i64 {
    charge.tokens
}

impl World {
    fn spent(&self) -> Spent {
        let mut spent = Spent::default();
        for entry in self.ledger.values().filter(|e| e.started_at.month() == self.latest.month()) {
            spent.cost = spent.cost.plus(entry.charge.cost).unwrap();
            spent.tokens += tokens(entry.charge);
            let of_agent = spent.by_agent.entry(entry.agent.clone()).or_default();
            of_agent.cost = of_agent.cost.plus(entry.charge.cost).unwrap();
            of_agent.tokens += tokens(entry.charge);
        }
        spent
    }

    fn load(&mut self) {
        let month = self.counter.roll(self.latest);
        if self.counter.needs_load() {
            let spent = self.spent();
            self.counter.load(month, spent);
        }
    }

    fn pick(list: &[TurnId], which: usize) -> Option<TurnId> {
        (!list.is_empty()).then(|| list[which % list.len()])
    }

    /// As the desk and the database do it: settle, then save; a record that was there makes the counter doubt.
    fn finish(&mut self, turn: TurnId, agent: &AgentId, started_at: Timestamp, charge: Charge) {
        self.counter.finish(self.latest, turn, agent, started_at, charge, SaveOutcome::Saved).unwrap();
        match self.ledger.entry(turn) {
            std::collections::btree_map::Entry::Occupied(_) => self.counter.doubt(),
            std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(Entry { agent: agent.clone(), started_at, charge })),
        }
        self.running.retain(|t| *t != turn);
        self.ended.push(turn);
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input_tokens: input, output_tokens: output, source: UsageSource::Provider, ..Usage::NONE }
    }

    fn charge(usage: Usage) -> Charge {
        Charge { cost: PRICE.cost(&usage).unwrap(), tokens: i64::try_from(usage.total_tokens()).unwrap() }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin { agent: n, input, history, output } => {
                self.load();
                self.next += 1;
                let turn = TurnId(uuid::Uuid::from_u128(self.next));
                let limits = self.limits;
                let request = Request {
                    turn,
                    agent: agent(n),
                    subject: "u".into(),
                    key: Some((format!("key{}", self.next), "hash".into())),
                    limits: &limits,
                    agent_count: 1,
                    agent_max_cost: (n == 1).then_some(NanoUsd(2_000_000)),
                    max_tokens_per_turn: (n == 2).then_some(2_000),
                    size: Size { least: input, full: input + history },
                    wanted_output: output,
                    price: PRICE,
                    lease_millis: 30_000,
                };
                match self.counter.admit(self.latest, request) {
                    Ok(hold) => {
                        assert!(hold.input_bound >= input && hold.input_bound <= input + history);
                        assert!((1..=output).contains(&hold.max_output));
                        assert_eq!(hold.bounded_by_budget, hold.max_output < output);
                        assert!(n != 2 || hold.input_bound + hold.max_output <= 2_000);
                        assert_eq!(hold.started_at.month(), self.latest.month());
                        self.running.push(turn);
                    }
                    Err(AdmitError::Refused(refusal)) => check_refusal(&refusal, input),
                    Err(error) => panic!("{error}"),
                }
            }
            Step::Extend { which, output, input_bound } => {
                self.load();
                if let Some(turn) = Self::pick(&self.running, which) {
                    let extend = Extend { turn_id: turn, sequence: 1, progress: Self::usage(10, output), input_bound };
                    let extended = self.counter.extend(self.latest, &extend).unwrap();
                    assert!(!extended.covered || self.counter.hold(turn).unwrap().input_bound >= input_bound);
                }
            }
            Step::Finish { which, input, output } => {
                if let Some(turn) = Self::pick(&self.running, which) {
                    let hold = self.counter.hold(turn).unwrap().clone();
                    // The model was told to stop at what is held.
                    let usage = Self::usage(input.min(hold.input_bound), output.min(hold.max_output));
                    self.finish(turn, &hold.agent, hold.started_at, Self::charge(usage));
                    assert_eq!(self.counter.hold(turn), None);
                }
            }
            Step::FinishAgain { which } => {
                if let Some(turn) = Self::pick(&self.ended, which) {
                    let (agent, started_at, charge) =
                        (self.ledger[&turn].agent.clone(), self.ledger[&turn].started_at, self.ledger[&turn].charge);
                    self.finish(turn, &agent, started_at, charge);
                }
            }
            Step::Die { which } => {
                if let Some(turn) = Self::pick(&self.running, which) {
                    let expires = self.counter.hold(turn).unwrap().expires_at;
                    self.latest = self.latest.max(expires);
                    self.now = self.latest;
                    self.wake();
                    assert_eq!(self.counter.hold(turn), None);
                }
            }
            Step::Wait { millis } => {
                self.now = self.now.plus_millis(millis);
                self.latest = self.latest.max(self.now);
                self.wake();
            }
            Step::SetLimits(limits) => self.limits = limits,
            Step::Restart => {
                let holds: Vec<_> = self.running.iter().map(|t| (*t, self.counter.hold(*t).unwrap().clone())).collect();
                self.counter = Counter::with_holds(holds);
                assert!(self.counter.needs_load());
            }
        }
    }

    /// Ends what has expired, as the alarm does.
    fn wake(&mut self) {
        for turn in self.counter.expired(self.latest) {
            let hold = self.counter.hold(turn).unwrap().clone();
            let charge = Self::charge(hold.charge_if_dead());
            assert!(charge.cost <= hold.cost, "a dead turn is never charged more than it held");
            self.finish(turn, &hold.agent, hold.started_at, charge);
        }
    }

    /// What is always true, whatever happened.
    fn check(&mut self, limits_were_lowered: bool) {
        self.load();
        let view = self.counter.view(&self.limits, &[(agent(1), NanoUsd(2_000_000))], None, self.latest);
        let spent = self.spent();
        for window in &view.windows {
            match (window.limit.as_str(), window.scope.as_str()) {
                ("maxCostUsdPerMonth", "workspace") => assert_eq!(window.used, spent.cost.0, "the counter says what the ledger says"),
                ("maxTokensPerMonth", _) => assert_eq!(window.used, spent.tokens),
                ("maxCostUsdPerMonth", _) => {
                    assert_eq!(window.used, spent.by_agent.get(&agent(1)).map_or(0, |a| a.cost.0));
                    assert!(window.used + window.held <= window.max, "{window:?}");
                }
                _ => continue,
            }
            if !limits_were_lowered {
                assert!(window.used + window.held <= window.max, "{window:?}");
            }
        }
        assert_eq!(self.counter.running(), self.running.len());
        assert!(
            self.running.iter().all(|t| self.counter.hold(*t).is_some_and(|h| h.expires_at > self.latest)),
            "no hold outlives its lease"
        );
    }
}

/// A refusal must be true: the least that the turn needs does not fit.
fn check_refusal(refusal: &astra_quota::Refusal, input: u64) {
    let left = refusal.max - refusal.used - refusal.held;
    assert!(left < refusal.needs, "{refusal:?} refuses what is there");
    match refusal.limit.as_str() {
        "maxCostUsdPerMonth" => assert_eq!(refusal.needs, PRICE.at_most(input, 1).unwrap().0),
        "maxTokensPerMonth" | "maxTokensPerTurn" => assert_eq!(refusal.needs, i64::try_from(input).unwrap() + 1),
        "maxTurnsPerMinute" => assert_eq!(refusal.needs, 1),
        other => panic!("{other}"),
    }
    assert!(refusal.retry_after.is_none_or(|seconds| seconds >= 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn spent_and_held_never_exceed_a_limit(first in limits(), steps in steps()) {
        let mut world = World {
            counter: Counter::default(), ledger: BTreeMap::new(), running: vec![], ended: vec![], limits: first, now: START, latest: START, next: 0,
        };
        // A limit that was lowered below what is used or held may be exceeded by what was there; the schedule goes on with that known.
        let mut lowered = false;
        for step in steps {
            lowered |= matches!(step, Step::SetLimits(_));
            world.take(&step);
            world.check(lowered);
        }
        // A quiet system has no holds.
        world.latest = world.latest.plus_millis(40 * 86_400_000);
        world.wake();
        prop_assert_eq!(world.counter.running(), 0);
        prop_assert_eq!(world.ledger.len(), world.ended.iter().collect::<std::collections::BTreeSet<_>>().len());
    }
}

fn begin(counter: &mut Counter, n: u128, key: Option<&str>, limits: &Limits, now: Timestamp) -> Result<TurnId, AdmitError> {
    let turn = TurnId(uuid::Uuid::from_u128(n));
    let request = Request {
        turn,
        agent: agent(0),
        subject: "u".into(),
        key: key.map(|k| (k.to_owned(), "hash".to_owned())),
        limits,
        agent_count: 3,
        agent_max_cost: None,
        max_tokens_per_turn: None,
        size: Size { least: 100, full: 100 },
        wanted_output: 1_000,
        price: PRICE,
        lease_millis: 30_000,
    };
    counter.admit(now, request).map(|_| turn)
}

fn loaded(now: Timestamp) -> Counter {
    let mut counter = Counter::default();
    let month = counter.roll(now);
    counter.load(month, Spent::default());
    counter
}

#[test]
fn kf_02_a_counter_that_knows_nothing_admits_nothing() {
    assert_eq!(begin(&mut Counter::default(), 1, None, &Limits::default(), START), Err(AdmitError::NotLoaded));
}

#[test]
fn a_key_belongs_to_its_turn_while_it_runs_and_a_minute_longer() {
    let mut counter = loaded(START);
    let turn = begin(&mut counter, 1, Some("k"), &Limits::default(), START).unwrap();
    assert_eq!(counter.known("k", "hash", "u", START), Some(Known::Same(turn)));
    assert_eq!(counter.known("k", "other", "u", START), Some(Known::Other));
    assert_eq!(counter.known("k", "hash", "somebody else", START), Some(Known::Other));
    counter.finish(START, turn, &agent(0), START, Charge { cost: NanoUsd(1), tokens: 1 }, SaveOutcome::Saved).unwrap();
    assert_eq!(counter.known("k", "hash", "u", START.plus_millis(59_999)), Some(Known::Same(turn)));
    assert_eq!(counter.known("k", "hash", "u", START.plus_millis(60_000)), None);
}

#[test]
fn turns_per_minute_are_counted_over_a_sliding_minute() {
    let limits = Limits { max_turns_per_minute: Some(2), ..Limits::default() };
    let mut counter = loaded(START);
    begin(&mut counter, 1, None, &limits, START).unwrap();
    begin(&mut counter, 2, None, &limits, START.plus_millis(10_000)).unwrap();
    let Err(AdmitError::Refused(refusal)) = begin(&mut counter, 3, None, &limits, START.plus_millis(30_000)) else { panic!("admitted") };
    assert_eq!((refusal.limit.as_str(), refusal.used, refusal.retry_after), ("maxTurnsPerMinute", 2, Some(31)));
    begin(&mut counter, 4, None, &limits, START.plus_millis(60_000)).unwrap();
}

#[test]
fn too_many_agents_are_named() {
    let limits = Limits { max_agents: Some(2), ..Limits::default() };
    let Err(AdmitError::Refused(refusal)) = begin(&mut loaded(START), 1, None, &limits, START) else { panic!("admitted") };
    assert_eq!((refusal.limit.as_str(), refusal.max, refusal.used, refusal.retry_after), ("maxAgents", 2, 3, None));
}

#[test]
fn kf_09_a_refusal_says_when_waiting_helps() {
    let tight = |nano| Limits { max_cost_nano_usd_per_month: Some(NanoUsd(nano)), ..Limits::default() };
    let mut counter = loaded(START);
    // Another turn holds it: soon.
    let needs = PRICE.at_most(100, 1).unwrap().0;
    begin(&mut counter, 1, None, &tight(needs), START).unwrap();
    let Err(AdmitError::Refused(held)) = begin(&mut counter, 2, None, &tight(needs), START) else { panic!("admitted") };
    assert_eq!(held.retry_after, Some(1));
    // The month is used up: when it ends. The limit is too small for any turn: never.
    let mut counter = loaded(START);
    let month = START.month();
    counter.load(month, Spent { cost: NanoUsd(needs), ..Spent::default() });
    let Err(AdmitError::Refused(used)) = begin(&mut counter, 1, None, &tight(needs), START) else { panic!("admitted") };
    assert_eq!(used.retry_after, Some((month.resets_at().0 - START.0) / 1000 + 1));
    let Err(AdmitError::Refused(never)) = begin(&mut counter, 1, None, &tight(needs - 1), START) else { panic!("admitted") };
    assert_eq!(never.retry_after, None);
}

#[test]
fn kf_24_a_turn_belongs_to_the_month_in_which_it_began() {
    let end = START.month().resets_at();
    let limits = Limits { max_cost_nano_usd_per_month: Some(NanoUsd(1_000_000_000)), ..Limits::default() };
    let mut counter = loaded(START);
    let turn = begin(&mut counter, 1, None, &limits, end.plus_millis(-1)).unwrap();
    counter.roll(end);
    let view = counter.view(&limits, &[], None, end);
    assert_eq!((view.windows[0].used, view.windows[0].held), (0, 0));
    counter.finish(end, turn, &agent(0), end.plus_millis(-1), Charge { cost: NanoUsd(5), tokens: 5 }, SaveOutcome::Saved).unwrap();
    assert_eq!(counter.view(&limits, &[], None, end).windows[0].used, 0);
}

#[test]
fn kf_13_changed_limits_leave_usage_alone() {
    let limits = |nano| Limits { max_cost_nano_usd_per_month: Some(NanoUsd(nano)), ..Limits::default() };
    let mut counter = loaded(START);
    let turn = begin(&mut counter, 1, None, &limits(1_000_000_000), START).unwrap();
    counter.finish(START, turn, &agent(0), START, Charge { cost: NanoUsd(700), tokens: 5 }, SaveOutcome::Saved).unwrap();
    for max in [500, 700, 5_000_000_000] {
        assert_eq!(counter.view(&limits(max), &[], None, START).windows[0].used, 700);
    }
}
