//! What the rules promise, computed once more and in another way: sums over everything that was ever charged and everything that runs, and amounts that
//! are tried (by halving), never solved for. Nothing here is taken from the crate but its words.
//!
//! [`begin`](crate::begin), [`extend`](crate::extend) and [`end`](crate::end) say what each step must answer; [`check`](crate::check) compares all that
//! the counter holds with all that is here.

use crate::zone::Zone;
use astra_kernel::{Allowance, Limits, Price, Timestamp, Tokens, TurnId, Usage};
use astra_quota::words::{Extend, Extended};
use astra_quota::{Period, Span, Spans};
use std::collections::{BTreeMap, BTreeSet};

/// As good as no end of tokens: more than any limit here pays for.
const NO_END: Tokens = 1 << 30;

/// One limit of one window: of the workspace, or of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) is_cost: bool,
    pub(crate) agent: Option<u8>,
    pub(crate) window: Span,
    pub(crate) max: i64,
}

/// The limits that are set, in the order in which they are named to who is refused.
pub(crate) fn limits_of(agent: Option<u8>, set: &Allowance, window: impl Fn(Period) -> Option<Span>) -> Vec<Limit> {
    let limits = [
        ("maxTokensPerMonth", false, Period::Month, set.max_tokens_per_month),
        ("maxCostUsdPerMonth", true, Period::Month, set.max_cost_nano_usd_per_month.map(|cost| cost.0)),
        ("maxTokensPerDay", false, Period::Day, set.max_tokens_per_day),
        ("maxCostUsdPerDay", true, Period::Day, set.max_cost_nano_usd_per_day.map(|cost| cost.0)),
        ("maxTokensPerHour", false, Period::Hour, set.max_tokens_per_hour),
        ("maxCostUsdPerHour", true, Period::Hour, set.max_cost_nano_usd_per_hour.map(|cost| cost.0)),
    ];
    let limit =
        |(name, is_cost, period, max): (_, _, _, Option<i64>)| Some(Limit { name, is_cost, agent, window: window(period)?, max: max? });
    limits.into_iter().filter_map(limit).collect()
}

/// What a turn that runs must hold, and all that must be known of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    pub(crate) agent: u8,
    pub(crate) subject: String,
    pub(crate) key: Option<(String, String)>,
    pub(crate) started_at: Timestamp,
    /// The windows in which it began, its month first.
    pub(crate) windows: [Span; 3],
    pub(crate) limits: Vec<Limit>,
    /// Of this turn alone.
    pub(crate) max_tokens: Option<i64>,
    /// It is no turn.
    pub(crate) is_use: bool,
    pub(crate) per_minute: Option<i64>,
    pub(crate) price: Price,
    pub(crate) input: Tokens,
    pub(crate) output: Tokens,
    pub(crate) max_output: Tokens,
    pub(crate) is_bounded: bool,
    pub(crate) expires_at: Timestamp,
    pub(crate) sequence: u32,
    pub(crate) progress: Usage,
    pub(crate) stop: bool,
    /// What it stands still for.
    pub(crate) waits: Option<Waits>,
}

/// The limit that a turn waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) name: &'static str,
    pub(crate) agent: Option<u8>,
    pub(crate) window: Span,
}

/// Whether a moment is one of a window's.
pub(crate) fn is_in(window: &Span, at: Timestamp) -> bool {
    (window.starts_at.0..window.ends_at.0).contains(&at.0)
}

impl Turn {
    pub(crate) fn covers(&self, extend: &Extend) -> bool {
        self.input >= extend.input_bound && (self.output >= extend.output || self.output >= self.max_output)
    }

    pub(crate) fn answer(&self, extend: &Extend, wait: bool) -> Extended {
        Extended { stop: self.stop, covered: self.covers(extend), wait, output: self.output, max_output: self.max_output }
    }
}

/// A turn in the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) agent: u8,
    pub(crate) started_at: Timestamp,
    pub(crate) charge: Sum,
    /// It was charged what it had last reported.
    pub(crate) is_expired: bool,
}

/// An ended turn's idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) at: Timestamp,
    pub(crate) turn: TurnId,
    pub(crate) subject: String,
    pub(crate) key: (String, String),
    pub(crate) month: Span,
}

/// An amount that cannot overflow here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) cost: i128,
    pub(crate) tokens: i128,
}

impl Sum {
    pub(crate) fn of(self, is_cost: bool) -> i128 {
        if is_cost { self.cost } else { self.tokens }
    }

    fn add(self, other: Self) -> Self {
        Self { cost: self.cost + other.cost, tokens: self.tokens + other.tokens }
    }
}

/// What so much can cost at most: every input token at its dearest, rounded up.
pub(crate) fn amount(price: &Price, input: Tokens, output: Tokens) -> Sum {
    let dearest = price.input_nano_per_mtok.max(price.cached_input_nano_per_mtok);
    let millionths = i128::from(input) * i128::from(dearest) + i128::from(output) * i128::from(price.output_nano_per_mtok);
    Sum { cost: (millionths + 999_999) / 1_000_000, tokens: i128::from(input) + i128::from(output) }
}

/// One limit as a decision sees it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) is_cost: bool,
    pub(crate) agent: Option<u8>,
    pub(crate) window: Option<Span>,
    pub(crate) max: i128,
    pub(crate) used: i128,
    pub(crate) held: i128,
}

/// Beside what others hold, or as if they gave all of it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    Now,
    Ever,
}

impl Line {
    fn pays(&self, room: Room, amount: Sum) -> bool {
        self.used + if room == Room::Now { self.held } else { 0 } + amount.of(self.is_cost) <= self.max
    }
}

pub(crate) fn all_pay(lines: &[Line], room: Room, amount: Sum) -> bool {
    lines.iter().all(|line| line.pays(room, amount))
}

/// The largest number up to an end that is good: all below it are, too. 0 when none is.
pub(crate) fn largest(end: Tokens, is_good: impl Fn(Tokens) -> bool) -> Tokens {
    let (mut good, mut bad) = (0, 1);
    while bad <= end && is_good(bad) {
        (good, bad) = (bad, bad * 2);
    }
    bad = bad.min(end + 1);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if is_good(middle) { good = middle } else { bad = middle }
    }
    good
}

/// How much output all of them pay for after so much input; 0 when not one token.
pub(crate) fn output_for(lines: &[Line], room: Room, price: &Price, input: Tokens) -> Tokens {
    largest(NO_END, |output| all_pay(lines, room, amount(price, input, output)))
}

/// docs/limits.md: a 256th of what is left of the limits that turns share, at least 256; far from all of them 8,192, or as much as is held. Never more than is left.
pub(crate) fn slice(held: Tokens, left: Tokens, shared: Tokens) -> Tokens {
    (shared / 256).min(held.max(8_192)).max(256).min(left)
}

/// How much output those of them pay for that turns share.
pub(crate) fn of_shared(lines: &[Line], price: &Price, input: Tokens) -> Tokens {
    let shared: Vec<_> = lines.iter().filter(|line| line.window.is_some()).cloned().collect();
    output_for(&shared, Room::Now, price, input)
}

/// All that there is, as the database and the counter should have it.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) now: Timestamp,
    pub(crate) zone: Zone,
    /// As the database has them.
    pub(crate) limits: Limits,
    /// What each agent may use, as the database has it. None: there is no such agent.
    pub(crate) allowances: [Option<Allowance>; 4],
    /// As the counter was last told, and which windows were those of that moment.
    pub(crate) told: Option<(Spans, Limits)>,
    /// What it was last told of agents, and in which month.
    pub(crate) told_of: BTreeMap<u8, (Span, Allowance)>,
    /// The windows of which the counter knows what was spent.
    pub(crate) known: BTreeSet<Span>,
    pub(crate) running: BTreeMap<TurnId, Turn>,
    pub(crate) ledger: BTreeMap<TurnId, Entry>,
    /// When turns began while turns a minute were limited.
    pub(crate) begun: Vec<Timestamp>,
    pub(crate) closed: Vec<Closed>,
}

impl Model {
    pub(crate) fn new(zone: Zone, limits: Limits) -> Self {
        Self {
            now: zone.start(),
            zone,
            limits,
            allowances: [0, 1, 2, 3].map(|agent| Some(crate::world::allowance(agent))),
            told: None,
            told_of: BTreeMap::new(),
            known: BTreeSet::new(),
            running: BTreeMap::new(),
            ledger: BTreeMap::new(),
            begun: vec![],
            closed: vec![],
        }
    }

    /// The counter is told of all limits of now: also which agents there are.
    pub(crate) fn tell_all(&mut self) {
        self.told_of.clear();
        for agent in 0..4 {
            self.tell(agent);
        }
    }

    /// The counter is told of the limits and the windows of now, and of one agent's limits. Who runs began in these windows, too.
    pub(crate) fn tell(&mut self, agent: u8) {
        let spans = self.zone.spans(self.now);
        self.told = Some((spans, self.limits));
        self.told_of.extend(self.allowances[usize::from(agent)].map(|allowance| (agent, (spans.month, allowance))));
        for turn in self.running.values_mut() {
            for (window, now) in turn.windows.iter_mut().zip([spans.month, spans.day, spans.hour]) {
                if is_in(&now, turn.started_at) {
                    *window = now;
                }
            }
        }
    }

    /// All limits of now over windows in which a turn began, as the counter was told of them: whatever the turn itself was told.
    pub(crate) fn limits_over(&self, turn: &Turn) -> Vec<Limit> {
        let Some((spans, limits)) = self.told else { return vec![] };
        let window = |period| Some(spans.of(period)).filter(|window| is_in(window, turn.started_at));
        let mut all = limits_of(None, &limits.allowance(), window);
        if let Some((month, allowance)) = self.told_of.get(&turn.agent) {
            let is_known = |period| period != Period::Month || is_in(month, turn.started_at);
            all.extend(limits_of(Some(turn.agent), allowance, |period| window(period).filter(|_| is_known(period))));
        }
        all
    }

    /// What the ledger says was spent in a window.
    pub(crate) fn used(&self, window: &Span, agent: Option<u8>) -> Sum {
        let entries = self.ledger.values().filter(|e| is_in(window, e.started_at) && agent.is_none_or(|a| a == e.agent));
        entries.fold(Sum::default(), |sum, e| sum.add(e.charge))
    }

    /// What running turns hold in it, beside one of them.
    pub(crate) fn held(&self, window: &Span, agent: Option<u8>, without: Option<TurnId>) -> Sum {
        let counted = self
            .running
            .iter()
            .filter(|(id, turn)| Some(**id) != without && is_in(window, turn.started_at) && agent.is_none_or(|a| a == turn.agent));
        counted.fold(Sum::default(), |sum, (_, turn)| sum.add(amount(&turn.price, turn.input, turn.output)))
    }

    /// The limit of one turn, if there is one, and these as they stand.
    pub(crate) fn lines(&self, limits: &[Limit], max_tokens: Option<i64>, without: Option<TurnId>) -> Vec<Line> {
        let turn =
            |max: i64| Line { name: "maxTokensPerTurn", is_cost: false, agent: None, window: None, max: max.into(), used: 0, held: 0 };
        let line = |limit: &Limit| Line {
            name: limit.name,
            is_cost: limit.is_cost,
            agent: limit.agent,
            window: Some(limit.window),
            max: limit.max.into(),
            used: self.used(&limit.window, limit.agent).of(limit.is_cost),
            held: self.held(&limit.window, limit.agent, without).of(limit.is_cost),
        };
        max_tokens.map(turn).into_iter().chain(limits.iter().map(line)).collect()
    }
}
