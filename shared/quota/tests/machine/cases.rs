//! Case by case: what a rule says, in the smallest form that shows it.

use crate::zone::Zone;
use crate::{PRICE, START, agent};
use astra_kernel::{AgentId, Allowance, Limits, NanoUsd, Timestamp, TurnId, Usage, UsageSource, WorkspaceId};
use astra_quota::words::Extend;
use astra_quota::{
    AdmitError, Amount, Cap, Counter, Heard, Known, QuotaView, Request, SaveOutcome, Size, Spans, Spent, alert, plan, window,
};

fn spans(at: Timestamp) -> Spans {
    Zone::Utc.spans(at)
}

fn begin(counter: &mut Counter, n: u128, key: Option<&str>, limits: &Limits, now: Timestamp) -> Result<TurnId, AdmitError> {
    let turn = TurnId(uuid::Uuid::from_u128(n));
    let request = Request {
        turn,
        agent: agent(0),
        subject: "u".into(),
        guest: None,
        key: key.map(|k| (k.to_owned(), "hash".to_owned())),
        limits,
        now,
        spans: &spans(now),
        allowance: &Allowance::default(),
        agent_count: 3,
        max_tokens_per_turn: None,
        until: None,
        size: Size { least: 100, full: 100 },
        wanted_output: 1_000,
        presumed: None,
        price: PRICE,
        lease_millis: 30_000,
    };
    counter.admit(request).map(|_| turn)
}

fn loaded(now: Timestamp) -> Counter {
    let mut counter = Counter::default();
    counter.load(spans(now).month, Spent::default());
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
    counter.finish(START, turn, &agent(0), START, Amount { cost: NanoUsd(1), tokens: 1 }, SaveOutcome::Saved).unwrap();
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
    let month = spans(START).month;
    counter.load(month, Spent { total: Amount { cost: NanoUsd(needs), tokens: 0 }, ..Spent::default() });
    let Err(AdmitError::Refused(used)) = begin(&mut counter, 1, None, &tight(needs), START) else { panic!("admitted") };
    assert_eq!(used.retry_after, Some((month.ends_at.0 - START.0) / 1000 + 1));
    let Err(AdmitError::Refused(never)) = begin(&mut counter, 1, None, &tight(needs - 1), START) else { panic!("admitted") };
    assert_eq!(never.retry_after, None);
}

/// How the limits of a month stand.
fn view(counter: &Counter, limits: &Limits, now: Timestamp) -> QuotaView {
    counter.view(&caps(limits, now), None, None, now).unwrap()
}

fn caps(limits: &Limits, now: Timestamp) -> Vec<Cap> {
    window::caps(limits, &agent(0), &Allowance::default(), &spans(now))
}

fn monthly(nano: i64) -> Limits {
    Limits { max_cost_nano_usd_per_month: Some(NanoUsd(nano)), ..Limits::default() }
}

#[test]
fn kf_24_a_turn_belongs_to_the_month_in_which_it_began() {
    let (last, next) = (spans(START).month.ends_at.plus_millis(-1), spans(START).month.ends_at);
    let limits = monthly(1_000_000_000);
    let mut counter = loaded(START);
    let turn = begin(&mut counter, 1, None, &limits, last).unwrap();
    counter.load(spans(next).month, Spent::default());
    assert_eq!((view(&counter, &limits, next).windows[0].used, view(&counter, &limits, next).windows[0].held), (0, 0));
    assert!(view(&counter, &limits, last).windows[0].held > 0);
    // It grows on in its own month, too, while another begins in the next.
    begin(&mut counter, 2, None, &limits, next).unwrap();
    assert!(matches!(extend(&mut counter, 1, 900, next), Heard::Taken(extended) if extended.covered));
    counter.finish(next, turn, &agent(0), last, Amount { cost: NanoUsd(5), tokens: 5 }, SaveOutcome::Saved).unwrap();
    assert_eq!((view(&counter, &limits, next).windows[0].used, view(&counter, &limits, last).windows[0].used), (0, 5));
}

#[test]
fn kf_13_changed_limits_leave_usage_alone() {
    let mut counter = loaded(START);
    let turn = begin(&mut counter, 1, None, &monthly(1_000_000_000), START).unwrap();
    counter.finish(START, turn, &agent(0), START, Amount { cost: NanoUsd(700), tokens: 5 }, SaveOutcome::Saved).unwrap();
    for max in [500, 700, 5_000_000_000] {
        assert_eq!(view(&counter, &monthly(max), START).windows[0].used, 700);
    }
}

fn extend(counter: &mut Counter, n: u128, output: u64, now: Timestamp) -> Heard {
    let turn_id = TurnId(uuid::Uuid::from_u128(n));
    let sequence = counter.hold(turn_id).map_or(1, |hold| hold.sequence + 1);
    let progress = Usage { input_tokens: 7, output_tokens: output / 5, source: UsageSource::Estimated, ..Usage::NONE };
    counter.extend(now, &Extend { turn_id, sequence, progress, input_bound: 0, output, is_urgent: true })
}

fn begin_long(counter: &mut Counter, n: u128, limits: &Limits, wanted_output: u64) -> u64 {
    try_long(counter, n, limits, wanted_output).unwrap()
}

fn try_long(counter: &mut Counter, n: u128, limits: &Limits, wanted_output: u64) -> Result<u64, AdmitError> {
    let turn = TurnId(uuid::Uuid::from_u128(n));
    let spans = spans(START);
    let request = Request {
        turn,
        agent: agent(0),
        subject: "u".into(),
        guest: None,
        key: None,
        now: START,
        spans: &spans,
        limits,
        allowance: &Allowance::default(),
        agent_count: 1,
        max_tokens_per_turn: None,
        until: None,
        size: Size { least: 100, full: 100 },
        wanted_output,
        presumed: None,
        price: PRICE,
        lease_millis: 30_000,
    };
    counter.admit(request).map(|hold| hold.output)
}

#[test]
fn a_turn_of_an_agent_that_is_granted_until_then_is_told_to_stop_then() {
    let (mut counter, until) = (loaded(START), START.plus_millis(10_000));
    let turn = TurnId(uuid::Uuid::from_u128(1));
    let spans = spans(START);
    let request = Request {
        turn,
        agent: agent(0),
        subject: "u".into(),
        guest: None,
        key: None,
        now: START,
        spans: &spans,
        limits: &monthly(5_000_000_000),
        allowance: &Allowance::default(),
        agent_count: 1,
        max_tokens_per_turn: None,
        until: Some(until),
        size: Size { least: 100, full: 100 },
        wanted_output: 1_000,
        presumed: None,
        price: PRICE,
        lease_millis: 30_000,
    };
    counter.admit(request).unwrap();
    let mut is_told = |at| if let Heard::Taken(extended) = extend(&mut counter, 1, 10, at) { extended.stop } else { panic!("not taken") };
    assert!(!is_told(until.plus_millis(-1)));
    assert!(is_told(until));
}

#[test]
fn a_guests_turn_is_stopped_from_where_it_was_asked_for_and_from_nowhere_else() {
    let mut counter = loaded(START);
    let (turn, spans) = (TurnId(uuid::Uuid::from_u128(1)), spans(START));
    let workspace = |id: &str| WorkspaceId::try_from(id.to_owned()).unwrap();
    let request = Request {
        turn,
        agent: agent(0),
        subject: "u".into(),
        guest: Some(workspace("b")),
        key: None,
        now: START,
        spans: &spans,
        limits: &monthly(5_000_000_000),
        allowance: &Allowance::default(),
        agent_count: 1,
        max_tokens_per_turn: None,
        until: None,
        size: Size { least: 100, full: 100 },
        wanted_output: 1_000,
        presumed: None,
        price: PRICE,
        lease_millis: 30_000,
    };
    counter.admit(request).unwrap();
    for (subject, guest, stops) in [
        (None, None, false),
        (Some("u"), None, false),
        (Some("u"), Some("c"), false),
        (Some("v"), Some("b"), false),
        (Some("u"), Some("b"), true),
        (None, Some("b"), true),
    ] {
        assert_eq!(counter.stop(turn, subject, guest.map(workspace).as_ref()), stops, "{subject:?} of {guest:?}");
    }
    // What was written down of it, and what was written down before there were guests.
    let kept = serde_json::to_value(counter.hold(turn).unwrap()).unwrap();
    assert_eq!(kept["guest"], "b");
    let mut before = kept;
    before.as_object_mut().unwrap().remove("guest");
    assert_eq!(serde_json::from_value::<astra_quota::Hold>(before).unwrap().guest, None);
}

#[test]
fn kf_09_a_large_max_tokens_locks_up_little() {
    // 5 dollars, answers of up to 32,000 tokens that cost 2 cents each: worst-case holds would let 260 turns in.
    let limits = monthly(5_000_000_000);
    let mut counter = loaded(START);
    for n in 1..=1_000 {
        assert!(begin_long(&mut counter, n, &limits, 32_000) >= 64, "{n}");
    }
    let window = &view(&counter, &limits, START).windows[0];
    assert!(window.used + window.held <= window.max && window.used == 0, "{window:?}");
}

#[test]
fn a_long_answer_far_from_the_limit_asks_once() {
    let mut counter = loaded(START);
    // 2,000 tokens of some five bytes: the bound is by the byte.
    let bound = 2_000 * 5 + 16;
    let held = begin_long(&mut counter, 1, &monthly(50_000_000_000), 32_000);
    assert!(held < bound);
    let Heard::Taken(extended) = extend(&mut counter, 1, held + 1, START) else { panic!("not taken") };
    assert!(extended.covered && extended.output >= bound, "{extended:?}");
}

#[test]
fn who_waits_is_served_before_who_begins_and_the_last_that_began_gives_up_first() {
    let mut counter = loaded(START);
    let tight = PRICE.at_most(100, 300).unwrap().0 * 2;
    let limits = monthly(tight);
    let (first, second) = (begin_long(&mut counter, 1, &limits, 4_000), begin_long(&mut counter, 2, &limits, 4_000));
    let taken = |heard| if let Heard::Taken(extended) = heard { extended } else { panic!("{heard:?}") };
    let asked = taken(extend(&mut counter, 1, first + 500, START));
    assert!(!asked.covered && asked.wait, "the other goes on and may give something back");
    let Err(AdmitError::Refused(refusal)) = begin(&mut counter, 3, None, &limits, START) else { panic!("admitted") };
    assert_eq!(refusal.retry_after, Some(1));
    let last = taken(extend(&mut counter, 2, second + 500, START));
    assert!(!last.covered && !last.wait, "nobody goes on, and it began last");
    let turn = TurnId(uuid::Uuid::from_u128(2));
    counter.finish(START, turn, &agent(0), START, Amount { cost: NanoUsd(10), tokens: 10 }, SaveOutcome::Saved).unwrap();
    let again = taken(extend(&mut counter, 1, first + 20, START));
    assert!(again.covered && !again.wait, "{again:?}");
    let rest = taken(extend(&mut counter, 1, 4_000, START));
    assert!(!rest.covered && !rest.wait && rest.output > again.output, "alone, it gets all that is left: {rest:?}");
    let window = &view(&counter, &limits, START).windows[0];
    assert!(window.left < PRICE.at_most(0, 1).unwrap().0, "{window:?}");
}

#[test]
fn no_turn_begins_with_crumbs_while_others_give_back_and_the_last_tokens_are_for_one_alone() {
    let cost = |turns: u64, output| PRICE.at_most(100 * turns, output).unwrap().0;
    let end = |counter: &mut Counter, n, cost| {
        let turn = TurnId(uuid::Uuid::from_u128(n));
        counter.finish(START, turn, &agent(0), START, Amount { cost: NanoUsd(cost), tokens: 10 }, SaveOutcome::Saved).unwrap();
    };
    // One has 256 tokens of output, and 255 are left beside it.
    let limits = monthly(cost(2, 256 + 255));
    let mut counter = loaded(START);
    assert_eq!(begin_long(&mut counter, 1, &limits, 4_000), 256);
    let Err(AdmitError::Refused(refusal)) = try_long(&mut counter, 2, &limits, 4_000) else { panic!("it begins with crumbs") };
    assert_eq!((refusal.limit.as_str(), refusal.needs, refusal.retry_after), ("maxCostUsdPerMonth", cost(1, 256), Some(1)));
    // Who wants no more than is left begins.
    assert_eq!(begin_long(&mut counter, 3, &limits, 255), 255);
    end(&mut counter, 3, 0);
    // The other has given back what it did not use.
    end(&mut counter, 1, cost(1, 255));
    assert_eq!(begin_long(&mut counter, 4, &limits, 4_000), 256);
    end(&mut counter, 4, cost(1, 255));
    // What is left is little, but nobody will give anything back: it is used.
    assert_eq!(begin_long(&mut counter, 5, &monthly(cost(3, 255 + 255 + 1)), 4_000), 1);
    // Beside this one, too, more would never come than the one token that is asked for.
    assert_eq!(begin_long(&mut counter, 6, &monthly(cost(4, 255 + 255 + 2)), 4_000), 1);
}

#[test]
fn a_limit_that_is_lowered_holds_for_who_runs() {
    let mut counter = loaded(START);
    let held = begin_long(&mut counter, 1, &monthly(1_000_000_000), 32_000);
    counter.set_limits(spans(START), monthly(PRICE.at_most(100, held).unwrap().0));
    let Heard::Taken(extended) = extend(&mut counter, 1, held + 1, START) else { panic!("not taken") };
    assert!(!extended.covered && extended.output == held, "{extended:?}");
}

/// A turn of an agent that may use so much in a month.
fn begin_of(counter: &mut Counter, n: u128, agent: &AgentId, allowance: &Allowance) -> u64 {
    let (spans, limits) = (spans(START), Limits::default());
    let request = Request {
        turn: TurnId(uuid::Uuid::from_u128(n)),
        agent: agent.clone(),
        subject: "u".into(),
        guest: None,
        key: None,
        now: START,
        spans: &spans,
        limits: &limits,
        allowance,
        agent_count: 1,
        max_tokens_per_turn: None,
        until: None,
        size: Size { least: 100, full: 100 },
        wanted_output: 32_000,
        presumed: None,
        price: PRICE,
        lease_millis: 30_000,
    };
    counter.admit(request).unwrap().output
}

fn tokens_a_month(max: u64) -> Allowance {
    Allowance { max_tokens_per_month: i64::try_from(max).ok(), ..Allowance::default() }
}

#[test]
fn an_agents_limit_that_changes_holds_for_who_runs_until_the_agent_is_gone() {
    let mut counter = loaded(START);
    let held = begin_of(&mut counter, 1, &agent(0), &Allowance::default());
    let mut asks = |agents: Option<Vec<(AgentId, Allowance)>>, output| {
        if let Some(agents) = agents {
            counter.set_allowances(spans(START).month, agents);
        }
        let Heard::Taken(extended) = extend(&mut counter, 1, output, START) else { panic!("not taken") };
        (extended.covered, extended.output)
    };
    // New: it has what is left. Lowered below what is held: nothing is taken away. Gone: as it was. No limit any more: all.
    assert_eq!(
        asks(Some(vec![(agent(0), tokens_a_month(100 + held + 300)), (agent(1), tokens_a_month(0))]), held + 301),
        (false, held + 300)
    );
    assert_eq!(asks(Some(vec![(agent(0), tokens_a_month(100))]), held + 301), (false, held + 300));
    assert_eq!(asks(Some(vec![(agent(0), tokens_a_month(100 + held + 310))]), held + 310), (true, held + 310));
    assert_eq!(asks(Some(vec![(agent(1), Allowance::default())]), held + 311), (false, held + 310));
    assert_eq!(asks(Some(vec![(agent(0), Allowance::default())]), 32_000), (true, 32_000));
}

#[test]
fn each_turn_of_a_granted_agent_keeps_to_its_grants_cap() {
    let granted = AgentId::try_from("w/agent0".to_owned()).unwrap();
    for is_shown in [false, true] {
        let mut counter = loaded(START);
        begin_of(&mut counter, 1, &granted, &tokens_a_month(20_000));
        // Another grant of the same agent, and what is shown of both.
        begin_of(&mut counter, 2, &granted, &tokens_a_month(10_000));
        if is_shown {
            counter.set_allowances(spans(START).month, [(granted.clone(), tokens_a_month(10_000))]);
        }
        let Heard::Taken(extended) = extend(&mut counter, 1, 11_000, START) else { panic!("not taken") };
        assert!(extended.covered, "{extended:?}");
    }
}

#[test]
fn what_was_read_of_an_agents_limits_before_they_changed_is_read_again() {
    let (old, new, month) = (tokens_a_month(10_000), tokens_a_month(500), spans(START).month);
    let mut counter = loaded(START);
    counter.set_limits(spans(START), Limits::default());
    let before = counter.changes();
    let is_old =
        |counter: &Counter, allowance, changes| counter.may_be_old(&spans(START), &Limits::default(), [(&agent(0), allowance)], changes);
    // Nobody has told anything of it.
    begin_of(&mut counter, 1, &agent(1), &old);
    assert!(!is_old(&counter, &old, before));
    for tells in [true, false] {
        counter.set_allowances(month, [(agent(0), old)]);
        let changes = counter.changes();
        if tells {
            counter.set_allowances(month, [(agent(0), new)]);
        } else {
            begin_of(&mut counter, 2, &agent(0), &new);
        }
        assert!(is_old(&counter, &old, changes) && !is_old(&counter, &new, changes), "told: {tells}");
        assert!(!is_old(&counter, &old, counter.changes()), "read after that");
        // The same again is no change.
        let changes = counter.changes();
        counter.set_allowances(month, [(agent(0), new)]);
        assert_eq!(counter.changes(), changes);
    }
}

#[test]
fn kf_17_what_is_held_by_a_dead_turn_is_what_it_reported() {
    let mut counter = loaded(START);
    begin_long(&mut counter, 1, &monthly(1_000_000_000), 32_000);
    extend(&mut counter, 1, 50, START);
    let turn = TurnId(uuid::Uuid::from_u128(1));
    let late = Extend { turn_id: turn, sequence: 0, progress: Usage::NONE, input_bound: 0, output: 4_000, is_urgent: true };
    let before = counter.hold(turn).unwrap().clone();
    assert!(matches!(counter.extend(START, &late), Heard::Taken(_)));
    assert_eq!(counter.hold(turn), Some(&before), "what comes late changes nothing");
    let usage = before.charge_if_dead();
    assert_eq!((usage.input_tokens, usage.output_tokens, usage.source), (7, 10, UsageSource::Estimated));
    assert_eq!(counter.expired(START.plus_millis(30_000)), [turn]);
}

#[test]
fn each_mark_is_passed_once() {
    let limits = monthly(1_000);
    let mut counter = loaded(START);
    let mut marks = Vec::new();
    for (n, cost) in [(1, 499), (2, 1), (3, 299), (4, 201)] {
        let before = counter.stands(&caps(&limits, START)).unwrap();
        let turn = TurnId(uuid::Uuid::from_u128(n));
        counter.finish(START, turn, &agent(0), START, Amount { cost: NanoUsd(cost), tokens: 1 }, SaveOutcome::Saved).unwrap();
        let after = counter.stands(&caps(&limits, START)).unwrap();
        marks.push(alert::passed(&caps(&limits, START), &before, &after).into_iter().map(|alert| alert.mark).collect::<Vec<_>>());
    }
    assert_eq!(marks, [vec![], vec![50], vec![], vec![80, 100]]);
}

#[test]
fn a_limit_of_an_hour_starts_anew_with_the_next() {
    let limits = Limits { max_tokens_per_hour: Some(300), ..Limits::default() };
    let mut counter = loaded(START);
    let hour = spans(START).hour;
    counter.load(hour, Spent { total: Amount { cost: NanoUsd(0), tokens: 250 }, ..Spent::default() });
    let Err(AdmitError::Refused(refusal)) = begin(&mut counter, 1, None, &limits, START) else { panic!("admitted") };
    assert_eq!((refusal.limit.as_str(), refusal.resets_at, refusal.retry_after), ("maxTokensPerHour", Some(hour.ends_at), Some(3_601)));
    assert_eq!(begin(&mut counter, 1, None, &limits, hour.ends_at), Err(AdmitError::NotLoaded), "a new window is loaded first");
    counter.load(spans(hour.ends_at).hour, Spent::default());
    begin(&mut counter, 1, None, &limits, hour.ends_at).unwrap();
    assert_eq!(
        plan::caps_now(counter.hold(TurnId(uuid::Uuid::from_u128(1))).unwrap(), Some((spans(START).month, Allowance::default())), None),
        []
    );
}

fn tokens_an_hour(max: u64) -> Limits {
    Limits { max_tokens_per_hour: i64::try_from(max).ok(), ..Limits::default() }
}

#[test]
fn a_limit_over_an_hour_that_is_new_counts_what_runs_and_holds_for_it() {
    let mut counter = loaded(START);
    let held = begin_long(&mut counter, 1, &Limits::default(), 32_000);
    let limits = tokens_an_hour(100 + held + 300);
    assert_eq!(begin(&mut counter, 2, None, &limits, START), Err(AdmitError::NotLoaded));
    counter.load(spans(START).hour, Spent::default());
    let Err(AdmitError::Refused(refusal)) = begin(&mut counter, 2, None, &limits, START) else { panic!("admitted") };
    assert_eq!((refusal.limit.as_str(), refusal.held.unsigned_abs(), refusal.retry_after), ("maxTokensPerHour", 100 + held, Some(1)));
    let Heard::Taken(extended) = extend(&mut counter, 1, held + 301, START) else { panic!("not taken") };
    assert_eq!((extended.covered, extended.wait, extended.output), (false, false, held + 300), "it has what is left");
    let told = &counter.hold(TurnId(uuid::Uuid::from_u128(1))).unwrap().caps;
    assert_eq!(*told, window::caps(&limits, &agent(0), &Allowance::default(), &spans(START)), "and is told of it");
}

#[test]
fn a_hold_that_was_kept_with_its_month_alone_is_counted_and_keeps_to_the_limits_of_now() {
    let mut before = loaded(START);
    let held = begin_long(&mut before, 1, &Limits::default(), 32_000);
    let turn = TurnId(uuid::Uuid::from_u128(1));
    let mut kept = serde_json::to_value(before.hold(turn).unwrap()).unwrap();
    kept["spans"].as_array_mut().unwrap().truncate(1);
    let mut counter = Counter::with_holds([(turn, serde_json::from_value(kept).unwrap())]);
    counter.set_limits(spans(START), tokens_an_hour(100 + held + 300));
    assert_eq!(extend(&mut counter, 1, held + 301, START), Heard::NotLoaded);
    let Spans { hour, day: _, month } = spans(START);
    assert_eq!(counter.windows_now(turn), [month, hour]);
    counter.load(hour, Spent::default());
    let Heard::Taken(extended) = extend(&mut counter, 1, held + 301, START) else { panic!("not taken") };
    assert_eq!((extended.covered, extended.output), (false, held + 300));
}

#[test]
fn a_time_zone_that_is_changed_counts_what_runs_in_the_days_of_the_new_one() {
    let mut counter = loaded(START);
    let held = begin_long(&mut counter, 1, &Limits::default(), 32_000);
    let (limits, day) =
        (Limits { max_tokens_per_day: i64::try_from(100 + held + 300).ok(), ..Limits::default() }, Zone::Kathmandu.spans(START).day);
    assert!(day != spans(START).day && day.contains(START));
    counter.set_limits(Zone::Kathmandu.spans(START), limits);
    counter.load(day, Spent::default());
    let caps = window::caps(&limits, &agent(0), &Allowance::default(), &Zone::Kathmandu.spans(START));
    assert_eq!(counter.stands(&caps).unwrap()[0].held.tokens.unsigned_abs(), 100 + held, "it is held in that day");
    let Heard::Taken(extended) = extend(&mut counter, 1, held + 301, START) else { panic!("not taken") };
    assert_eq!((extended.covered, extended.output), (false, held + 300));
    assert_eq!(counter.hold(TurnId(uuid::Uuid::from_u128(1))).unwrap().caps, caps);
}

#[test]
fn a_use_takes_the_last_token_and_not_one_more() {
    let limits = Limits { max_tokens_per_month: Some(1_000), max_turns_per_minute: Some(0), max_agents: Some(0), ..Limits::default() };
    let mut counter = loaded(START);
    let mut take = |n: u128, input: u64, output: u64| {
        let request = Request {
            turn: TurnId(uuid::Uuid::from_u128(n)),
            agent: agent(0),
            subject: "u".into(),
            guest: None,
            key: None,
            limits: &limits,
            now: START,
            spans: &spans(START),
            allowance: &Allowance::default(),
            agent_count: 3,
            max_tokens_per_turn: None,
            until: None,
            size: Size { least: input, full: input },
            wanted_output: output,
            presumed: Some(Usage { input_tokens: 7, source: UsageSource::Estimated, ..Usage::NONE }),
            price: PRICE,
            lease_millis: 30_000,
        };
        counter.admit(request).map(|hold| (hold.input_bound, hold.output, hold.max_output, hold.progress.input_tokens))
    };
    let Err(AdmitError::Refused(refusal)) = take(1, 600, 401) else { panic!("it takes more than there is") };
    assert_eq!((refusal.limit.as_str(), refusal.needs, refusal.held, refusal.retry_after), ("maxTokensPerMonth", 1_001, 0, None));
    assert_eq!(take(2, 600, 150), Ok((600, 150, 150, 7)));
    assert_eq!(take(3, 250, 0), Ok((250, 0, 0, 7)));
    let Err(AdmitError::Refused(refusal)) = take(4, 1, 0) else { panic!("it takes more than there is") };
    assert_eq!((refusal.needs, refusal.held, refusal.retry_after), (1, 1_000, Some(1)));
}
