//! What is always true, whatever happened before.

use crate::agent;
use crate::model::{Limit, Model, Sum, Turn, Waits, amount, limits_of};
use crate::world::{AGENT_COUNT, LEASE, World};
use astra_kernel::{Timestamp, TurnId};
use astra_quota::{Amount, Cap, Hold, LimitName, QuotaView, Scope, Span, Stand, Window};
use std::collections::BTreeMap;

const AGENTS: [&str; 4] = ["agent0", "agent1", "agent2", "agent3"];

/// Whose, as the API writes it.
pub(crate) fn scope_name(agent: Option<u8>) -> &'static str {
    agent.map_or("workspace", |agent| ["agent:agent0", "agent:agent1", "agent:agent2", "agent:agent3"][usize::from(agent)])
}

/// As it is written down: whose, over which window, which limit.
fn wait(waits: &Waits) -> String {
    let period = format!("{:?}", waits.window.period).to_lowercase();
    format!("{} {period}:{}/{} {}", scope_name(waits.agent), waits.window.starts_at, waits.window.ends_at, waits.name)
}

fn is_same(cap: &Cap, limit: &Limit) -> bool {
    (cap.limit.as_str(), cap.window, cap.max) == (limit.name, limit.window, limit.max) && cap.scope.as_str() == scope_name(limit.agent)
}

fn cap(limit: &Limit) -> Cap {
    let limit_name = match limit.name {
        "maxTokensPerMonth" => LimitName::MaxTokensPerMonth,
        "maxCostUsdPerMonth" => LimitName::MaxCostUsdPerMonth,
        "maxTokensPerDay" => LimitName::MaxTokensPerDay,
        "maxCostUsdPerDay" => LimitName::MaxCostUsdPerDay,
        "maxTokensPerHour" => LimitName::MaxTokensPerHour,
        "maxCostUsdPerHour" => LimitName::MaxCostUsdPerHour,
        other => panic!("{other}"),
    };
    let scope = limit.agent.map_or_else(Scope::workspace, |n| Scope::agent(&agent(n)));
    Cap { limit: limit_name, scope, window: limit.window, max: limit.max }
}

/// Everything of a hold is as it must be. (A new field has to be thought about here.)
fn check_hold(hold: &Hold, turn: &Turn) {
    let Hold {
        agent,
        subject,
        guest,
        key,
        started_at,
        spans,
        caps,
        max_tokens_per_turn,
        max_turns_per_minute,
        input_bound,
        output,
        max_output,
        bounded_by_budget,
        cost,
        price,
        lease_millis,
        expires_at,
        sequence,
        progress,
        stop,
        until,
        waits,
    } = hold;
    assert_eq!((*input_bound, *output, *max_output), (turn.input, turn.output, turn.max_output), "how much is held: {turn:?}");
    assert_eq!(i128::from(cost.0), amount(&turn.price, turn.input, turn.output).cost, "the cost of all that is covered");
    assert_eq!(hold.amount(), Amount { cost: *cost, tokens: i64::try_from(turn.input + turn.output).unwrap() }, "prompt and output");
    assert_eq!(
        (*bounded_by_budget, *expires_at, *sequence, *progress),
        (turn.is_bounded, turn.expires_at, turn.sequence, turn.progress),
        "what was reported, and until when it lives"
    );
    assert_eq!(
        (*started_at, spans.as_slice(), *stop, *lease_millis),
        (turn.started_at, turn.windows.as_slice(), turn.stop, LEASE),
        "the windows that it began in"
    );
    assert_eq!((*max_tokens_per_turn, *max_turns_per_minute, *until, guest), (turn.max_tokens, turn.per_minute, None, &None), "its limits");
    assert_eq!(
        (agent.as_str(), subject, key, price),
        (AGENTS[usize::from(turn.agent)], &turn.subject, &turn.key, &turn.price),
        "whose it is"
    );
    assert!(
        caps.len() == turn.limits.len() && caps.iter().zip(&turn.limits).all(|(cap, limit)| is_same(cap, limit)),
        "its limits: {caps:?} {turn:?}"
    );
    assert_eq!(
        waits.as_ref().map(|waits| serde_json::to_value(waits).unwrap()),
        turn.waits.map(|waits| wait(&waits).into()),
        "what it waits for"
    );
    // Whatever the numbers are.
    assert!((turn.is_use || turn.output >= 1) && turn.output <= turn.max_output, "some output, and no more than its maximum");
    assert!(turn.max_tokens.is_none_or(|max| turn.input + turn.max_output <= max.unsigned_abs()), "the limit of one turn");
    assert!(!turn.price.holds_maximum || turn.output == turn.max_output, "what a model does not stream is held whole");
}

impl Model {
    /// All limits that a decision can look at now, and those of turns that run on from windows that are over.
    fn watched(&self) -> Vec<Limit> {
        let spans = self.zone.spans(self.now);
        let mut limits = limits_of(None, &self.limits.allowance(), |period| Some(spans.of(period)));
        for (n, allowance) in (0..).zip(&self.allowances) {
            limits.extend(limits_of(Some(n), &allowance.unwrap_or_default(), |period| Some(spans.of(period))));
        }
        for limit in self.running.values().flat_map(|turn| &turn.limits) {
            if !limits.contains(limit) {
                limits.push(*limit);
            }
        }
        limits
    }

    /// Used and held in a window.
    fn stood(&self, window: &Span, agent: Option<u8>) -> Sum {
        let (used, held) = (self.used(window, agent), self.held(window, agent, None));
        Sum { cost: used.cost + held.cost, tokens: used.tokens + held.tokens }
    }

    fn view(&self, limits: &[Limit]) -> QuotaView {
        let small = |number| i64::try_from(number).unwrap();
        let window = |limit: &Limit| {
            let used = small(self.used(&limit.window, limit.agent).of(limit.is_cost));
            let held = small(self.held(&limit.window, limit.agent, None).of(limit.is_cost));
            let (limit_name, scope, left) = (limit.name.into(), scope_name(limit.agent).into(), (limit.max - used - held).max(0));
            let (starts_at, resets_at) = (Some(limit.window.starts_at), Some(limit.window.ends_at));
            Window { limit: limit_name, scope, max: limit.max, used, held, left, starts_at, resets_at }
        };
        let count = |limit: &str, max: i64, used: i64, resets_at| Window {
            limit: limit.into(),
            scope: "workspace".into(),
            max,
            used,
            held: 0,
            left: (max - used).max(0),
            starts_at: None,
            resets_at,
        };
        let (recent, first) = self.last_minute();
        let turns = |max| count("maxTurnsPerMinute", max, recent, first.map(|at| Timestamp(at.0 + 60_000)));
        let agents = |max| count("maxAgents", max, AGENT_COUNT, None);
        let counts = self.limits.max_turns_per_minute.map(turns).into_iter().chain(self.limits.max_agents.map(agents));
        QuotaView { windows: limits.iter().map(window).chain(counts).collect() }
    }
}

impl World {
    /// A decision that holds more leaves `spent + held <= limit` with every limit that it is about, and with every limit of now over the windows in which its turn began:
    /// also with one that is newer than the turn.
    pub(crate) fn check_decision(&self, turn: TurnId) {
        let turn = &self.model.running[&turn];
        for limit in turn.limits.iter().chain(&self.model.limits_over(turn)) {
            let (used, held) = (self.model.used(&limit.window, limit.agent), self.model.held(&limit.window, limit.agent, None));
            let (used, held) = (used.of(limit.is_cost), held.of(limit.is_cost));
            assert!(used + held <= limit.max.into(), "spent + held > limit: {limit:?}: {used} used, {held} held");
        }
    }

    /// `may_exceed`: the step has charged more than was held.
    pub(crate) fn check(&mut self, may_exceed: bool) {
        self.check_running();
        self.check_shown();
        let limits = self.model.watched();
        let stood: BTreeMap<_, _> = limits.iter().map(|l| ((l.window, l.agent), self.model.stood(&l.window, l.agent))).collect();
        for (key, now) in &stood {
            let before = self.stood.get(key).copied().unwrap_or(Sum { cost: i128::MAX, tokens: i128::MAX });
            assert!(
                may_exceed || (now.cost <= before.cost && now.tokens <= before.tokens),
                "more is used or held without a decision: {key:?}"
            );
        }
        self.stood = stood;
    }

    fn check_running(&self) {
        let (counter, model) = (&self.counter, &self.model);
        assert_eq!(counter.running(), model.running.len(), "how many run");
        for (turn, expected) in &model.running {
            check_hold(counter.hold(*turn).unwrap(), expected);
        }
        let dead = model.running.iter().filter(|(_, turn)| turn.expires_at <= model.now).map(|(id, _)| *id);
        assert_eq!(counter.expired(model.now), dead.collect::<Vec<_>>(), "which are dead");
        assert_eq!(counter.next_expiry(), model.running.values().map(|turn| turn.expires_at).min(), "when the alarm is due");
        let month = model.zone.spans(model.now).month.starts_at;
        assert_eq!(counter.has_begun_before(month), model.running.values().any(|turn| turn.started_at < month), "whether a month is open");
        let mut windows = counter.windows();
        windows.sort_unstable();
        assert!(windows.iter().eq(&model.known), "the windows of which it is known what was spent: {windows:?}");
    }

    /// What is used, held and left of each limit is what was charged and what runs.
    fn check_shown(&self) {
        let model = &self.model;
        let (known, unknown): (Vec<_>, Vec<_>) = model.watched().into_iter().partition(|limit| model.known.contains(&limit.window));
        for limit in unknown {
            assert_eq!(self.counter.stands(&[cap(&limit)]), None, "what nobody has loaded is not known");
        }
        let caps: Vec<_> = known.iter().map(cap).collect();
        let stands = self.counter.stands(&caps).unwrap();
        for (limit, Stand { used, held }) in known.iter().zip(stands) {
            let sum = |amount: Amount| Sum { cost: amount.cost.0.into(), tokens: amount.tokens.into() };
            assert_eq!(sum(used), model.used(&limit.window, limit.agent), "the counter says what the ledger says");
            assert_eq!(sum(held), model.held(&limit.window, limit.agent, None), "all that runs is held, and nothing else");
        }
        let agents = model.limits.max_agents.map(|max| (max, AGENT_COUNT));
        let view = self.counter.view(&caps, model.limits.max_turns_per_minute, agents, model.now);
        assert_eq!(view, Some(model.view(&known)), "what is shown");
    }
}
