//! Hours, days and months: where they begin and end for a turn, and what is counted in them.

use crate::world::{DAY, HOUR, INPUT, NOW, OUTPUT, World, begin, extend, finished, told};
use astra_kernel::{NanoUsd, Timestamp, Usage};
use astra_quota::words::{Begin, Extend, Record};
use astra_quota::{Answer, Ask};
use futures_util::FutureExt as _;
use serde_json::{Value, json};

fn tokens(world: &World, n: u128, output: u64) -> Record {
    let usage = Usage { output_tokens: output, ..world.record(n, 0).usage };
    Record { usage, ..world.record(n, 0) }
}

#[test]
fn a_record_that_waits_while_the_ledger_is_read_is_counted() {
    let world = World::new();
    world.begun(begin(1), NOW);
    // A window that the counter does not know yet: the next turn has it loaded, and nothing may be saved meanwhile.
    world.set(|db| {
        db.limits = json!({ "maxCostNanoUsdPerMonth": 10_000_000, "maxCostNanoUsdPerDay": 10_000_000 });
        db.slow = true;
    });
    let mut second = Box::pin(world.desk.answer(Ask::Begin(Box::new(begin(2))), NOW));
    assert!((&mut second).now_or_never().is_none(), "it reads its context");
    assert!((&mut second).now_or_never().is_none(), "it reads what was spent in the day");
    let record = world.record(1, 700);
    let mut first = Box::pin(world.desk.answer(Ask::Finish(Box::new(record)), NOW));
    assert!((&mut first).now_or_never().is_none(), "it waits until that is read");
    assert!(world.db.0.lock().unwrap().ledger.is_empty());
    assert!(matches!(second.now_or_never(), Some(Answer::Begun(_))));
    world.set(|db| db.slow = false);
    let windows: Vec<_> = world.windows(NOW).iter().map(|w| (w.limit.clone(), w.used)).collect();
    assert_eq!(windows, [("maxCostUsdPerMonth".into(), 700), ("maxCostUsdPerDay".into(), 700)], "settled, and not in the ledger yet");
    assert!(finished(first.now_or_never().unwrap()).saved);
    assert_eq!(world.windows(NOW).iter().map(|w| w.used).collect::<Vec<_>>(), [700, 700], "nor is it counted twice");
}

#[test]
fn a_turn_of_the_old_month_goes_on_in_the_new_one_and_is_charged_to_the_old() {
    let mut world = World::new();
    let end = NOW.month().resets_at();
    let before = end.plus_millis(-1);
    // The old month has 12 tokens of prompt and 800 of output left, the new one has all.
    world.begun(begin(9), before);
    let spent = 10_000_000 - 12 * INPUT - 800 * OUTPUT;
    world.ask(Ask::Finish(Box::new(world.record(9, spent))), before);
    world.begun(begin(1), before);
    let second = world.begun(begin(2), end);
    assert_eq!(second.quota.windows[0].used, 0, "the new month");
    let grow = |world: &World, sequence, output| world.extended(Extend { output, ..extend(1, sequence) }, end.plus_millis(5));
    assert_eq!(grow(&world, 1, 257).output, 513);
    world.restart();
    let loads = world.db.0.lock().unwrap().loads;
    assert_eq!(grow(&world, 2, 600).output, 800, "the old month's limit");
    assert_eq!(world.used_at(end), (0, world.hold(2).cost.0));
    assert_eq!(world.db.0.lock().unwrap().loads, loads + 2, "both months were loaded, each once");
    let grown = world.extended(Extend { output: 1_000, ..extend(2, 1) }, end);
    assert!(grown.covered, "the new month has room: {grown:?}");
    let first = finished(world.ask(Ask::Finish(Box::new(world.record(1, 700))), end.plus_millis(10)));
    assert_eq!(told(&first), [(spent + 700, 0)]);
    assert_eq!(first.quota.windows[0].resets_at, Some(end));
    assert_eq!(world.used_at(end), (0, world.hold(2).cost.0));
    assert!(world.finish(world.record(2, 30)));
    assert_eq!(world.used_at(end), (30, 0));
    world.desk.sweep();
    world.restart();
    assert_eq!(world.used_at(end), (30, 0));
}

fn alerts(world: &World, n: u128) -> Vec<(String, String, i64)> {
    let text = |alert: &Value, name: &str| alert[name].as_str().unwrap().to_owned();
    let alerts = world.entry(n)["alerts"].take();
    let Some(alerts) = alerts.as_array() else { return vec![] };
    alerts.iter().map(|a| (text(a, "limit"), text(a, "scope"), a["mark"].as_i64().unwrap())).collect()
}

#[test]
fn marks_that_a_turn_passes_are_told_with_its_record_once() {
    let mut world = World::with(json!({ "maxCostNanoUsdPerMonth": 1_000_000 }));
    (1..=6).for_each(|n| drop(world.begun(begin(n), NOW)));
    let costs = [(1, 499_999, None), (2, 1, Some(50)), (3, 350_000, Some(80)), (4, 200_000, Some(100)), (5, 1, None)];
    for (n, cost, mark) in costs {
        let record = world.record(n, cost);
        assert!(world.finish(record));
        let expected: Vec<_> = mark.into_iter().map(|mark| ("maxCostUsdPerMonth".to_owned(), "workspace".to_owned(), mark)).collect();
        assert_eq!(alerts(&world, n), expected, "turn {n}");
        if n == 3 {
            world.desk.sweep();
            world.restart();
        }
    }
    let month = NOW.month().starts_at();
    assert_eq!(
        world.entry(3)["alerts"][0],
        json!({ "limit": "maxCostUsdPerMonth", "scope": "workspace", "startsAt": month, "mark": 80, "max": 1_000_000, "used": 850_000 })
    );
    let again = Record { alerts: vec![], ..world.record(6, 1) };
    assert!(world.finish(again.clone()) && world.finish(again));
    assert_eq!(alerts(&world, 6), []);
}

#[test]
fn a_limit_that_refuses_because_it_is_used_up_tells_its_last_mark_once() {
    // What is left pays for the prompt of a turn, and not for a token of output.
    let max = 1_000_000;
    let used = max - 12 * INPUT - OUTPUT + 1;
    let mut world = World::with(json!({ "maxCostNanoUsdPerMonth": max, "maxTokensPerMonth": 1_000_000 }));
    world.begun(begin(1), NOW);
    world.begun(begin(2), NOW);
    let first = 899_999;
    assert!(world.finish(world.record(1, first)));
    let large = Begin { message: "m".repeat(5_000), ..begin(3) };
    world.refused(large, NOW);
    assert_eq!(world.db.0.lock().unwrap().marks, [] as [Value; 0], "a turn that is too large is no sign that a limit is used up");
    world.ask(Ask::Finish(Box::new(world.record(2, used - first - 20 * OUTPUT))), NOW);
    world.begun(begin(3), NOW);
    world.refused(begin(4), NOW);
    assert_eq!(world.db.0.lock().unwrap().marks, [] as [Value; 0], "what others hold may come back");
    assert!(world.finish(world.record(3, 20 * OUTPUT)));
    world.set(|db| db.fails = Some("quota_mark"));
    world.refused(begin(4), NOW);
    world.set(|db| db.fails = None);
    world.refused(begin(4), NOW);
    let calls = world.db.0.lock().unwrap().calls;
    world.refused(begin(5), NOW);
    let expected = json!({ "limit": "maxCostUsdPerMonth", "scope": "workspace", "startsAt": NOW.month().starts_at(), "mark": 100, "max": max, "used": used });
    assert_eq!(world.db.0.lock().unwrap().marks, std::slice::from_ref(&expected));
    assert_eq!(world.db.0.lock().unwrap().calls, calls + 1, "a refusal that has nothing new to tell reads its context and that is all");
    world.restart();
    world.refused(begin(5), NOW);
    assert_eq!(world.db.0.lock().unwrap().marks, [expected.clone(), expected], "who does not know tells it again, which changes nothing");
}

#[test]
fn a_turn_that_a_limit_ends_tells_its_last_mark_if_the_limit_is_used_up() {
    let max = 1_000_000;
    let used = max - 12 * INPUT - OUTPUT + 1;
    for (used, reason, mark) in [(used, "quota", true), (used - 1, "quota", false), (used, "stop", false)] {
        let world = World::with(json!({ "maxCostNanoUsdPerMonth": max }));
        world.begun(begin(1), NOW);
        let record = Record { finish_reason: Some(reason.into()), ..world.record(1, used) };
        assert!(world.finish(record));
        let marks: Vec<_> = alerts(&world, 1).into_iter().map(|(.., mark)| mark).collect();
        assert_eq!(marks, if mark { vec![50, 80, 100] } else { vec![50, 80] }, "{used} {reason}");
    }
    let world = World::with(json!({ "maxCostNanoUsdPerMonth": max }));
    world.begun(begin(1), NOW);
    let record = Record { finish_reason: Some("quota".into()), ..world.record(1, max) };
    assert!(world.finish(record));
    assert_eq!(alerts(&world, 1).len(), 3, "a mark that is passed is told once");
}

#[test]
fn one_turn_may_pass_all_marks_of_several_limits() {
    let world = World::with(json!({ "maxCostNanoUsdPerMonth": 1_000_000 }));
    world.set(|db| drop(db.agents.insert("a".into(), json!({ "maxTokensPerDay": 1_000 }))));
    world.begun(begin(1), NOW);
    let record = Record { cost_nano_usd: NanoUsd(810_000), ..tokens(&world, 1, 990) };
    assert!(world.finish(record));
    let marks: Vec<_> = alerts(&world, 1).into_iter().map(|(_, scope, mark)| (scope, mark)).collect();
    let (all, agent) = ("workspace".to_owned(), "agent:a".to_owned());
    assert_eq!(marks, [(all.clone(), 50), (all, 80), (agent.clone(), 50), (agent.clone(), 80), (agent, 100)]);
}

#[test]
fn a_mark_is_noticed_by_an_object_that_knew_nothing_of_what_was_spent() {
    let mut world = World::with(json!({ "maxCostNanoUsdPerMonth": 1_000_000 }));
    world.begun(begin(1), NOW);
    world.begun(begin(2), NOW);
    assert!(world.finish(world.record(1, 400_000)) && world.desk.sweep());
    world.restart();
    let record = world.record(2, 450_000);
    assert_eq!(world.told(record), [(850_000, 0)]);
    assert_eq!(alerts(&world, 2).iter().map(|(.., mark)| *mark).collect::<Vec<_>>(), [50, 80]);
    assert_eq!(world.entry(2)["answer"]["quota"]["windows"][0]["used"], 850_000, "and what is stored says the same");
}

#[test]
fn hours_and_days_refuse_until_they_end() {
    let now = NOW.plus_millis(10 * HOUR + 600_000);
    for (limit, shown, end) in [
        ("maxTokensPerHour", "maxTokensPerHour", NOW.plus_millis(11 * HOUR)),
        ("maxTokensPerDay", "maxTokensPerDay", NOW.plus_millis(DAY)),
        ("maxCostNanoUsdPerHour", "maxCostUsdPerHour", NOW.plus_millis(11 * HOUR)),
        ("maxCostNanoUsdPerDay", "maxCostUsdPerDay", NOW.plus_millis(DAY)),
    ] {
        let max = if limit.starts_with("maxTokens") { 1_000 } else { 1_000 * OUTPUT };
        for of_agent in [false, true] {
            let mut world = World::with(if of_agent { json!({}) } else { json!({ limit: max }) });
            if of_agent {
                world.set(|db| drop(db.agents.insert("a".into(), json!({ limit: max }))));
            }
            world.begun(begin(1), now);
            assert_eq!(world.windows(now)[0].resets_at, Some(end));
            let record = Record { cost_nano_usd: NanoUsd(997 * OUTPUT), ..tokens(&world, 1, 985) };
            assert!(world.finish(record));
            // Nothing of it is forgotten by an object that starts anew.
            assert!(world.desk.sweep());
            world.restart();
            refuses(&world, now, shown, of_agent, end);
            refuses(&world, end.plus_millis(-1), shown, of_agent, end);
            if of_agent {
                let other = Begin { agent_id: "b".to_owned().try_into().unwrap(), ..begin(3) };
                world.begun(other, now);
            }
            world.begun(begin(2), end);
            assert_eq!(world.windows(end)[0].used, 0);
        }
    }
}

fn refuses(world: &World, at: Timestamp, limit: &str, of_agent: bool, end: Timestamp) {
    let refusal = world.refused(begin(2), at);
    assert_eq!((refusal.limit.as_str(), refusal.scope.as_str()), (limit, if of_agent { "agent" } else { "workspace" }));
    assert_eq!((refusal.resets_at, refusal.retry_after), (Some(end), Some((end.0 - at.0) / 1_000 + 1)));
}

#[test]
fn a_limit_over_an_hour_that_is_new_counts_what_runs_and_holds_for_it() {
    let mut world = World::new();
    let begun = world.begun(begin(1), NOW);
    let held = begun.input_bound + begun.output;
    world.set(|db| db.limits = json!({ "maxCostNanoUsdPerMonth": 10_000_000, "maxTokensPerHour": held + 200 }));
    let refusal = world.refused(begin(2), NOW);
    assert_eq!((refusal.limit.as_str(), refusal.held.unsigned_abs(), refusal.retry_after), ("maxTokensPerHour", held, Some(1)));
    // Also after a restart, once it is told of the limits.
    world.restart();
    assert_eq!(world.windows(NOW)[1].held.unsigned_abs(), held);
    let grown = world.extended(Extend { output: begun.output + 201, ..extend(1, 1) }, NOW);
    assert_eq!((grown.covered, grown.output), (false, begun.output + 200), "it has what is left");
    let limits: Vec<_> = world.hold(1).caps.iter().map(|cap| cap.limit.as_str()).collect();
    assert_eq!(limits, ["maxCostUsdPerMonth", "maxTokensPerHour"]);
    let told = finished(world.ask(Ask::Finish(Box::new(world.record(1, 700))), NOW)).quota;
    assert_eq!(told.windows.iter().map(|window| window.limit.as_str()).collect::<Vec<_>>(), limits);
}

#[test]
fn a_turn_that_read_its_limits_before_they_changed_reads_them_again() {
    let world = World::new();
    world.windows(NOW);
    world.set(|db| db.slow = true);
    let mut first = Box::pin(world.desk.answer(Ask::Begin(Box::new(begin(1))), NOW));
    assert!((&mut first).now_or_never().is_none(), "it reads its context");
    let limit = 12 * INPUT + 300 * OUTPUT;
    world.set(|db| {
        db.slow = false;
        db.limits = json!({ "maxCostNanoUsdPerMonth": limit });
    });
    world.begun(begin(2), NOW);
    assert!(matches!(first.now_or_never(), Some(Answer::Refused(_))), "the other has it all");
    assert!(world.used().1 <= limit);
    // Nor does who shows them bring old ones back.
    world.set(|db| db.slow = true);
    let mut status = Box::pin(world.desk.answer(Ask::Status, NOW));
    assert!((&mut status).now_or_never().is_none(), "it reads the limits");
    world.set(|db| {
        db.slow = false;
        db.limits = json!({ "maxCostNanoUsdPerMonth": limit - 1 });
    });
    assert!(matches!(world.ask(Ask::Begin(Box::new(begin(3))), NOW), Answer::Refused(_)));
    let Some(Answer::Status(Some(view))) = status.now_or_never() else { panic!("it does not answer") };
    assert_eq!(view.windows[0].max, limit - 1);
}
