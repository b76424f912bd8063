//! Case by case, what schedules do not reach: amounts that do not fit, moments that are the edge itself, and the words around the decision.

use crate::zone::Zone;
use crate::{HOUR, PRICE, START, agent, turn_id};
use astra_kernel::{Allowance, Limits, NanoUsd, Timestamp, Usage, UsageSource};
use astra_quota::alert::{self, Told};
use astra_quota::words::{Draft, Extend, Record, TurnStatus};
use astra_quota::{
    Alert, Amount, Counter, Heard, LimitName, QuotaView, Request, SaveOutcome, Scope, Size, Spent, Stand, Status, Window, headers,
};
use serde_json::json;

fn begin(counter: &mut Counter, n: u128, limits: &Limits, now: Timestamp, wanted_output: u64) -> Result<u64, astra_quota::AdmitError> {
    let spans = Zone::Utc.spans(now);
    let request = Request {
        turn: turn_id(n),
        agent: agent(0),
        subject: "u".into(),
        guest: None,
        key: Some(("k".into(), "hash".into())),
        now,
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

fn counter_at(now: Timestamp) -> Counter {
    let mut counter = Counter::default();
    counter.load(Zone::Utc.spans(now).month, Spent::default());
    counter
}

fn amount(cost: i64, tokens: i64) -> Amount {
    Amount { cost: NanoUsd(cost), tokens }
}

fn tokens_a_month(max: i64) -> Limits {
    Limits { max_tokens_per_month: Some(max), ..Limits::default() }
}

#[test]
fn a_charge_that_does_not_fit_is_no_charge_but_a_doubt() {
    let mut counter = counter_at(START);
    begin(&mut counter, 1, &Limits::default(), START, 10).unwrap();
    let most = amount((1 << 53) - 1, 1);
    counter.finish(START, turn_id(1), &agent(0), START, most, SaveOutcome::Saved).unwrap();
    counter.finish(START, turn_id(2), &agent(0), START, amount(1, 1), SaveOutcome::Saved).unwrap_err();
    assert_eq!(counter.windows(), [], "it is loaded again before anything is decided");
    begin(&mut counter, 3, &Limits::default(), START, 10).unwrap_err();
}

#[test]
fn what_is_loaded_takes_the_place_of_what_was_known() {
    let (mut counter, month) = (counter_at(START), Zone::Utc.spans(START).month);
    let mut spent = Spent::default();
    spent.add(&agent(1), amount(7, 5)).unwrap();
    counter.load(month, spent.clone());
    assert_eq!((counter.windows(), counter.spent(&month)), (vec![month], Some(&spent)));
    assert_eq!(spent.scopes().collect::<Vec<_>>(), [Scope::workspace(), Scope::agent(&agent(1))]);
    assert_eq!((spent.of(&Scope::agent(&agent(1))), spent.of(&Scope::agent(&agent(2)))), (amount(7, 5), amount(0, 0)));
}

#[test]
fn a_month_is_closed_when_nobody_runs_who_began_before_it() {
    let (last, next) = (Zone::Utc.spans(START).month.ends_at.plus_millis(-1), Zone::Utc.spans(START).month.ends_at);
    for (began, is_open) in [(last, true), (next, false)] {
        let mut counter = counter_at(began);
        begin(&mut counter, 1, &Limits::default(), began, 10).unwrap();
        assert_eq!(counter.has_begun_before(next), is_open);
    }
}

#[test]
fn what_is_given_back_can_be_used_at_once() {
    let (mut counter, limits) = (counter_at(START), tokens_a_month(400));
    assert_eq!(begin(&mut counter, 1, &limits, START, 1_000), Ok(256));
    begin(&mut counter, 2, &limits, START, 1_000).unwrap_err();
    counter.finish(START, turn_id(1), &agent(0), START, amount(1, 120), SaveOutcome::Saved).unwrap();
    assert_eq!(begin(&mut counter, 2, &limits, START, 1_000), Ok(180), "all that the first has not used");
    counter.release(turn_id(2));
    assert_eq!(begin(&mut counter, 3, &limits, START, 1_000), Ok(180));
}

#[test]
fn exactly_what_is_left_is_enough() {
    let mut counter = counter_at(START);
    begin(&mut counter, 1, &tokens_a_month(100), START, 1_000).unwrap_err();
    assert_eq!(begin(&mut counter, 1, &tokens_a_month(101), START, 1_000), Ok(1));
    counter.set_limits(Zone::Utc.spans(START), tokens_a_month(100 + 1_000));
    let mut ask = |sequence, output| {
        let extend = Extend { turn_id: turn_id(1), sequence, progress: Usage::NONE, input_bound: 0, output, is_urgent: true };
        if let Heard::Taken(extended) = counter.extend(START, &extend) { extended } else { panic!("it runs") }
    };
    assert_eq!(ask(1, 1).max_output, 1, "what it was told to stop at it stops at");
    assert!(ask(2, 2).covered, "nothing is asked of it beyond that");
}

#[test]
fn a_hold_grows_to_the_last_token_that_is_left() {
    let mut counter = counter_at(START);
    let limits = tokens_a_month(1_100);
    assert_eq!(begin(&mut counter, 1, &limits, START, 2_000), Ok(256));
    assert_eq!(begin(&mut counter, 2, &limits, START, 2_000), Ok(256));
    let mut ask = |sequence, output| {
        let extend = Extend { turn_id: turn_id(1), sequence, progress: Usage::NONE, input_bound: 0, output, is_urgent: true };
        if let Heard::Taken(extended) = counter.extend(START, &extend) { extended } else { panic!("it runs") }
    };
    // 1,100 are 100 + 100 of the prompts, 256 of the other, and 644.
    let all = ask(1, 644);
    assert_eq!((all.covered, all.wait, all.output, all.max_output), (true, false, 644, 1_000));
    let more = ask(2, 645);
    assert_eq!((more.covered, more.wait, more.output), (false, true, 644), "the other may give some back");
    // 1,000 are all that it can ever have, if the other uses nothing.
    let ever = ask(3, 1_000);
    assert_eq!((ever.covered, ever.wait), (false, true));
}

#[test]
fn who_asks_for_what_can_never_be_does_not_wait() {
    let mut counter = counter_at(START);
    assert_eq!(begin(&mut counter, 1, &tokens_a_month(2_000), START, 1_500), Ok(256));
    assert_eq!(begin(&mut counter, 2, &tokens_a_month(2_000), START, 1_500), Ok(256));
    // The month's limit is lowered: even alone the first cannot have 1,500 any more.
    counter.set_limits(Zone::Utc.spans(START), tokens_a_month(1_599));
    let ask = Extend { turn_id: turn_id(1), sequence: 1, progress: Usage::NONE, input_bound: 0, output: 1_500, is_urgent: true };
    let Heard::Taken(extended) = counter.extend(START, &ask) else { panic!("it runs") };
    assert_eq!((extended.covered, extended.wait, extended.output), (false, false, 1_599 - 100 - 356), "it has all that is left, and ends");
}

#[test]
fn a_status_shows_the_workspaces_limits_and_its_agents() {
    let spans = Zone::Utc.spans(START);
    let status = || -> Status {
        serde_json::from_value(json!({
            "limits": { "maxTokensPerMonth": 100, "maxCostNanoUsdPerDay": 7 }, "agentCount": 2, "spans": spans,
            "agents": [{ "id": "agent1", "allowance": { "maxTokensPerHour": 3 } }, { "id": "agent2", "allowance": { "maxTokensPerDay": 4 } }]
        }))
        .unwrap()
    };
    let caps = |status: &Status| status.caps().into_iter().map(|cap| (cap.limit, cap.scope, cap.window, cap.max)).collect::<Vec<_>>();
    let workspace = [
        (LimitName::MaxTokensPerMonth, Scope::workspace(), spans.month, 100),
        (LimitName::MaxCostUsdPerDay, Scope::workspace(), spans.day, 7),
    ];
    let (first, second) = (
        (LimitName::MaxTokensPerHour, Scope::agent(&agent(1)), spans.hour, 3),
        (LimitName::MaxTokensPerDay, Scope::agent(&agent(2)), spans.day, 4),
    );
    assert_eq!(caps(&status()), [&workspace[..], &[first.clone(), second][..]].concat());
    assert_eq!(status().windows(), [spans.month, spans.day, spans.hour]);
    assert_eq!(caps(&status().of(&agent(1))), [&workspace[..], &[first][..]].concat());
}

#[test]
fn a_client_is_never_told_of_less_than_nothing() {
    let mut counter = counter_at(START);
    counter.finish(START, turn_id(1), &agent(0), START, amount(9, 9), SaveOutcome::Saved).unwrap();
    let limits = tokens_a_month(5);
    let caps = astra_quota::window::caps(&limits, &agent(0), &Allowance::default(), &Zone::Utc.spans(START));
    let view = counter.view(&caps, Some(0), Some((1, 2)), START).unwrap();
    assert_eq!(view.windows.iter().map(|window| (window.max, window.left)).collect::<Vec<_>>(), [(5, 0), (0, 0), (1, 0)]);
    let below = Window { max: -1, left: -1, resets_at: Some(START.plus_millis(HOUR)), starts_at: Some(START), ..view.windows[0].clone() };
    let (policy, limit) = headers::values(&QuotaView { windows: vec![below] }, START).unwrap();
    assert_eq!((policy.as_str(), limit.as_str()), (r#""maxTokensPerMonth";q=0;qu="tokens";w=3600"#, r#""maxTokensPerMonth";r=0;t=3601"#));
}

#[test]
fn a_limit_that_just_pays_for_a_turn_is_not_used_up() {
    let caps = astra_quota::window::caps(&tokens_a_month(1_010), &agent(0), &Allowance::default(), &Zone::Utc.spans(START));
    let told = |used, input| alert::used_up(&caps, &[Stand { used: amount(0, used), held: amount(0, 0) }], input, &PRICE).len();
    // 101 are left, and 90 percent used.
    assert_eq!((told(909, 100), told(909, 101), told(910, 100)), (0, 1, 1));
    assert_eq!(told(908, 200), 0, "the turn is too large");
}

#[test]
fn the_last_mark_is_told_once_in_a_while_for_each_workspace_and_limit() {
    let (mut told, here, there) = (Told::nothing(), "here".to_owned().try_into().unwrap(), "there".to_owned().try_into().unwrap());
    let alert = |limit: &str, starts_at| Alert { limit: limit.into(), scope: "workspace".into(), starts_at, mark: 100, max: 9, used: 9 };
    let (hour, day) = (alert("maxTokensPerHour", START), alert("maxTokensPerDay", START));
    let mut news = |workspace, alerts: &[&Alert], at| {
        told.news(workspace, alerts.iter().copied().cloned().collect(), START.plus_millis(at)).map_or(vec![], |marks| marks.alerts)
    };
    assert_eq!(news(&here, &[&hour], 0), vec![hour.clone()]);
    assert_eq!(news(&here, &[&hour, &day], 1), vec![day.clone()], "what was told is no news");
    assert_eq!(news(&there, &[&hour], 2), vec![hour.clone()], "to somebody else it is");
    let next = alert("maxTokensPerHour", START.plus_millis(HOUR));
    assert_eq!(news(&here, &[&next], 3), vec![next.clone()], "of the next window it is");
    assert_eq!(
        (news(&here, &[&hour], 599_999), news(&here, &[&hour], 600_000)),
        (vec![], vec![hour.clone()]),
        "after ten minutes it may be lost"
    );
    told.forget();
    assert!(told.news(&here, vec![hour], START.plus_millis(600_001)).is_some(), "it could not be told");
}

fn record() -> Record {
    serde_json::from_value(json!({
        "turnId": turn_id(1), "sessionId": "00000000-0000-7000-8000-000000000000", "newSession": true, "agentId": "agent0", "subject": "u",
        "status": "completed", "finishReason": null, "message": "hello", "content": null, "provider": "p", "model": "m", "priceVersion": 1,
        "usage": Usage { input_tokens: 3, output_tokens: 4, ..Usage::NONE }, "costNanoUsd": 5, "idempotencyKey": null, "requestHash": "h",
        "errorCode": null, "answer": null, "metadata": null, "startedAt": START, "endedAt": START
    }))
    .unwrap()
}

#[test]
fn a_dead_turns_record_is_what_it_reported_at_the_price_of_its_hold() {
    let mut counter = counter_at(START);
    begin(&mut counter, 1, &Limits::default(), START, 1_000).unwrap();
    let progress = Usage { input_tokens: 90, output_tokens: 30, ..Usage::NONE };
    counter.extend(START, &Extend { turn_id: turn_id(1), sequence: 1, progress, input_bound: 0, output: 0, is_urgent: false });
    let (hold, died) = (counter.hold(turn_id(1)).unwrap(), START.plus_millis(30_000));
    let expired = Draft { record: record(), price: hold.price }.expired(hold, died).unwrap();
    let usage = Usage { source: UsageSource::Estimated, ..progress };
    assert_eq!((expired.status, expired.usage, expired.ended_at), (TurnStatus::Expired, usage, died));
    assert_eq!(expired.cost_nano_usd, NanoUsd(90 * 150 + 30 * 600));
    assert_eq!(record().charge(), amount(5, 7), "input and output");
}
