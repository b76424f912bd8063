//! The counter, beside it all that should be true of it ([`Model`]), and the steps that change both.

use crate::begin::Wish;
use crate::model::{Model, Sum};
use crate::zone::Zone;
use crate::{PRICE, turn_id};
use astra_kernel::{Allowance, Limits, NanoUsd, Price, Timestamp, Tokens, TurnId, Usage, UsageSource};
use astra_quota::words::Extend;
use astra_quota::{Amount, Counter, Heard, Span, Spent};
use std::collections::{BTreeMap, BTreeSet};

/// How long a hold lives without a sign of life.
pub(crate) const LEASE: i64 = 30_000;

/// How many agents the workspace has.
pub(crate) const AGENT_COUNT: i64 = 2;

/// Of each agent at first: 1 and 2 have limits of their own over a time, the others none.
pub(crate) fn allowance(agent: u8) -> Allowance {
    match agent {
        1 => Allowance { max_cost_nano_usd_per_month: Some(NanoUsd(2_000_000)), max_tokens_per_hour: Some(6_000), ..Allowance::default() },
        2 => Allowance { max_tokens_per_day: Some(9_000), max_cost_nano_usd_per_hour: Some(NanoUsd(3_000_000)), ..Allowance::default() },
        _ => Allowance::default(),
    }
}

/// Of a turn alone: 0 has a wide limit, 2 a narrow one.
pub(crate) fn per_turn(agent: u8) -> Option<i64> {
    match agent {
        0 => Some(30_000),
        2 => Some(2_000),
        _ => None,
    }
}

/// What is cached is dearer with 1 (as it is to write a cache); 3 bills what it does not stream.
pub(crate) fn price(agent: u8) -> Price {
    match agent {
        1 => Price { cached_input_nano_per_mtok: 200_000_001, output_nano_per_mtok: 599_999_999, ..PRICE },
        3 => Price { holds_maximum: true, ..PRICE },
        _ => PRICE,
    }
}

/// When a sign of life arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Next,
    /// A copy of the last.
    Again,
    /// Overtaken by a later one.
    Late,
    /// Some before it were lost.
    Skipping,
}

/// What a sign of life says.
#[derive(Debug, Clone)]
pub(crate) struct Sign {
    pub(crate) output: Tokens,
    pub(crate) input_bound: Tokens,
    pub(crate) is_urgent: bool,
    pub(crate) order: Order,
    pub(crate) progress: Usage,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Begin(Wish),
    BeginAgain {
        which: usize,
        wish: Wish,
    },
    Extend {
        which: usize,
        sign: Sign,
    },
    /// Of a turn that has ended.
    ExtendEnded {
        which: usize,
        sign: Sign,
    },
    Stop {
        which: usize,
        is_own: bool,
    },
    /// `more`: the provider counts more output than it was allowed.
    Finish {
        which: usize,
        input: Tokens,
        cached: Tokens,
        output: Tokens,
        more: Tokens,
    },
    /// A message twice, or the settlement of a turn that was taken for dead. `knows`: the database was asked before the counter is told.
    FinishAgain {
        which: usize,
        input: Tokens,
        output: Tokens,
        knows: bool,
    },
    /// It was settled, and that came to nothing: no store took its record.
    Undo {
        which: usize,
    },
    /// It never began: its row could not be written.
    Release {
        which: usize,
    },
    /// Nothing more is heard of it.
    Die {
        which: usize,
    },
    /// `wakes`: the alarm is on time.
    Wait {
        millis: i64,
        wakes: bool,
    },
    SetLimits {
        limits: Limits,
        tells: bool,
    },
    /// None: the agent is removed.
    SetAgent {
        agent: u8,
        allowance: Option<Allowance>,
        tells: bool,
    },
    SetZone(Zone),
    /// The counter's memory is gone but for the holds, which are kept.
    Restart,
    Doubt,
    /// All that it knows is read again.
    Reconcile,
}

pub(crate) struct World {
    pub(crate) counter: Counter,
    pub(crate) model: Model,
    pub(crate) ended: BTreeSet<TurnId>,
    pub(crate) next: u128,
    /// Used and held of each window after the step before.
    pub(crate) stood: BTreeMap<(Span, Option<u8>), Sum>,
}

impl World {
    pub(crate) fn new(zone: Zone, limits: Limits) -> Self {
        let (model, ended, stood) = (Model::new(zone, limits), BTreeSet::new(), BTreeMap::new());
        Self { counter: Counter::default(), model, ended, next: 0, stood }
    }

    /// As the desk does before it decides.
    pub(crate) fn load(&mut self, windows: &[Span]) {
        let missing: Vec<Span> = windows.iter().filter(|window| !self.model.known.contains(window)).copied().collect();
        assert_eq!(self.counter.missing(windows), missing, "what has to be loaded");
        self.read(&missing);
    }

    /// What the ledger says of these windows.
    fn read(&mut self, windows: &[Span]) {
        for &window in windows {
            let mut spent = Spent::default();
            for agent in 0..4 {
                let Sum { cost, tokens } = self.model.used(&window, Some(agent));
                if tokens == 0 {
                    continue;
                }
                let (cost, tokens) = (NanoUsd(i64::try_from(cost).unwrap()), i64::try_from(tokens).unwrap());
                spent.by_agent.insert(crate::agent(agent), Amount { cost, tokens });
                spent.total = Amount { cost: NanoUsd(spent.total.cost.0 + cost.0), tokens: spent.total.tokens + tokens };
            }
            self.counter.load(window, spent);
            self.model.known.insert(window);
        }
    }

    fn running(&self, which: usize) -> Option<TurnId> {
        let running = &self.model.running;
        (!running.is_empty()).then(|| *running.keys().nth(which % running.len()).unwrap())
    }

    fn ended(&self, which: usize) -> Option<TurnId> {
        (!self.ended.is_empty()).then(|| *self.ended.iter().nth(which % self.ended.len()).unwrap())
    }

    fn sign(&mut self, turn: TurnId, sign: &Sign) -> Heard {
        let known = self.model.running.get(&turn).map_or(0, |turn| turn.sequence);
        let sequence = match sign.order {
            Order::Next => known + 1,
            Order::Again => known,
            Order::Late => known.saturating_sub(1),
            Order::Skipping => known + 3,
        };
        let Sign { output, input_bound, is_urgent, progress, .. } = *sign;
        self.extend(&Extend { turn_id: turn, sequence, progress, input_bound, output, is_urgent })
    }

    /// Does one step. True when it may be the reason why a limit is exceeded: the provider counted more than was covered, now or when it corrected that.
    pub(crate) fn take(&mut self, step: &Step) -> bool {
        match step {
            Step::Begin(wish) => self.begin(wish),
            Step::BeginAgain { which, wish } => {
                if let Some(turn) = self.running(*which) {
                    self.begin_again(turn, wish);
                }
            }
            Step::Extend { which, sign } => {
                if let Some(turn) = self.running(*which) {
                    self.sign(turn, sign);
                }
            }
            Step::ExtendEnded { which, sign } => {
                if let Some(turn) = self.ended(*which) {
                    assert_eq!(self.sign(turn, sign), Heard::NotRunning, "a sign of life of who has ended");
                }
            }
            Step::Stop { which, is_own } => self.stop(self.running(*which).unwrap_or(turn_id(0)), *is_own),
            Step::Finish { which, input, cached, output, more } => {
                if let Some(turn) = self.running(*which) {
                    let hold = &self.model.running[&turn];
                    let (input, output) = ((*input).min(hold.input), (*output).min(hold.output) + more);
                    self.finish(turn, &usage(input, *cached, output));
                    return *more > 0;
                }
            }
            Step::FinishAgain { which, input, output, knows } => {
                if let Some(turn) = self.ended(*which) {
                    self.finish_again(turn, &usage(*input, 0, *output), *knows);
                    return true;
                }
            }
            Step::Undo { which } => {
                if let Some(turn) = self.running(*which) {
                    self.undo(turn);
                }
            }
            Step::Release { which } => {
                if let Some(turn) = self.running(*which) {
                    self.counter.release(turn);
                    self.model.running.remove(&turn);
                }
            }
            Step::Die { which } => {
                if let Some(turn) = self.running(*which) {
                    self.model.now = self.model.now.max(self.model.running[&turn].expires_at);
                    self.wake();
                    assert_eq!(self.counter.hold(turn), None, "no hold outlives its lease");
                }
            }
            // The desk's clock never goes back.
            Step::Wait { millis, wakes } => {
                self.model.now = Timestamp(self.model.now.0 + millis.max(&0));
                if *wakes {
                    self.wake();
                }
            }
            Step::SetLimits { limits, tells } => {
                self.model.limits = *limits;
                if *tells {
                    self.tell();
                }
            }
            Step::SetAgent { agent, allowance, tells } => {
                self.model.allowances[usize::from(*agent)] = *allowance;
                if *tells {
                    self.tell();
                }
            }
            Step::SetZone(zone) => self.model.zone = *zone,
            Step::Restart => self.restart(),
            Step::Doubt => {
                self.counter.doubt();
                self.model.known.clear();
            }
            Step::Reconcile => self.read(&self.counter.windows()),
        }
        false
    }

    /// All limits of now are read, as the desk does it.
    fn tell(&mut self) {
        let spans = self.model.zone.spans(self.model.now);
        self.counter.set_limits(spans, self.model.limits);
        let agents = (0..).zip(self.model.allowances).filter_map(|(n, allowance)| Some((crate::agent(n), allowance?)));
        self.counter.set_allowances(spans.month, agents);
        self.model.tell_all();
    }

    fn restart(&mut self) {
        let kept: Vec<_> = self.model.running.keys().map(|turn| (*turn, self.counter.hold(*turn).unwrap().clone())).collect();
        // As the rows keep them.
        let text = serde_json::to_string(&kept).unwrap();
        self.counter = Counter::with_holds(serde_json::from_str::<Vec<_>>(&text).unwrap());
        self.model.known.clear();
        self.model.begun.clear();
        self.model.closed.clear();
        self.model.told = None;
        self.model.told_of.clear();
    }

    fn stop(&mut self, turn: TurnId, is_own: bool) {
        let whose = self.model.running.get(&turn).map(|turn| turn.subject.clone());
        let subject = if is_own { whose.clone() } else { Some("somebody else".to_owned()) };
        assert_eq!(self.counter.stop(turn, subject.as_deref(), None), is_own && whose.is_some(), "who may stop it");
        if let Some(turn) = self.model.running.get_mut(&turn) {
            turn.stop |= is_own;
        }
    }
}

fn usage(input: Tokens, cached: Tokens, output: Tokens) -> Usage {
    let (cached_input_tokens, source) = (cached.min(input), UsageSource::Provider);
    Usage { input_tokens: input, cached_input_tokens, output_tokens: output, reasoning_tokens: 0, source }
}
