//! Holds begin small and grow as the output comes; near a limit turns wait for each other.

use crate::world::{HOUR, INPUT, LEASE, NOW, OUTPUT, World, begin, extend};
use astra_kernel::{Usage, UsageSource};
use astra_quota::words::{Extend, Extended};
use astra_quota::{Answer, Ask};
use futures_util::FutureExt as _;
use serde_json::json;

/// The prompt of `begin`, and what it costs.
const PROMPT: i64 = 12;
const PROMPT_COST: i64 = PROMPT * INPUT;

/// What a hold begins with where little is left.
const FIRST: i64 = 256;

fn cost(output: i64) -> i64 {
    PROMPT_COST + output * OUTPUT
}

fn wants(n: u128, sequence: u32, output: u64) -> Extend {
    Extend { output, ..extend(n, sequence) }
}

fn urgent(n: u128, sequence: u32, output: u64) -> Extend {
    Extend { is_urgent: true, ..wants(n, sequence, output) }
}

/// Two turns run, and there are prompts and 800 tokens of output for both: the first has taken 544 of them.
fn narrow() -> World {
    let world = World::with(json!({ "maxCostNanoUsdPerMonth": 2 * PROMPT_COST + 800 * OUTPUT }));
    world.begun(begin(1), NOW);
    world.begun(begin(2), NOW);
    let first = world.extended(wants(1, 1, 520), NOW);
    assert_eq!((first.covered, first.output), (true, 544), "what was asked for, and the little that is left");
    assert_eq!(world.used(), (0, cost(544) + cost(FIRST)));
    world
}

const WAIT: Extended = Extended { stop: false, covered: false, wait: true, output: 256, max_output: 803 };
const REFUSED: Extended = Extended { wait: false, ..WAIT };

#[test]
fn a_hold_grows_ahead_of_its_output_up_to_the_models_limit() {
    let world = World::new();
    let begun = world.begun(begin(1), NOW);
    assert_eq!((begun.output, begun.max_output, begun.bounded_by_budget), (256, 4_096, false));
    assert_eq!(world.used(), (0, cost(256)));
    let grown = world.extended(wants(1, 1, 257), NOW);
    assert_eq!(grown, Extended { stop: false, covered: true, wait: false, output: 257 + 256, max_output: 4_096 });
    assert_eq!(world.used(), (0, cost(257 + 256)));
    assert_eq!(world.extended(wants(1, 2, 400), NOW).output, 513, "it covers that already");
    assert_eq!(world.extended(wants(1, 3, 1 << 40), NOW).output, 4_096);
    assert_eq!(world.used(), (0, cost(4_096)));
}

#[test]
fn what_is_not_left_is_refused_and_nothing_is_taken() {
    let world = narrow();
    let held = world.used();
    assert_eq!(world.extended(wants(2, 1, 280), NOW), REFUSED, "ahead of need nobody waits");
    assert_eq!(world.used(), held);
    let end = world.extended(wants(1, 2, 800), NOW);
    assert_eq!((end.covered, end.wait, end.output), (false, false, 544));
    assert_eq!(world.used(), held);
}

#[test]
fn a_turn_waits_for_another_and_goes_on_when_that_has_ended() {
    let world = narrow();
    assert_eq!(world.extended(urgent(2, 1, 280), NOW), WAIT);
    assert_eq!(world.extended(urgent(2, 2, 280), NOW), WAIT, "asked again it waits on");
    let refusal = world.refused(begin(3), NOW);
    assert_eq!((refusal.limit.as_str(), refusal.retry_after), ("maxCostUsdPerMonth", Some(1)), "no turn begins that would take it from it");
    assert!(world.finish(world.record(1, 700)));
    let granted = world.extended(urgent(2, 3, 280), NOW);
    assert!(granted.covered && !granted.wait && granted.output >= 280, "{granted:?}");
    assert_eq!(world.hold(2).waits, None);
    world.begun(begin(3), NOW);
}

#[test]
fn two_that_wait_do_not_wait_for_each_other() {
    let world = narrow();
    assert_eq!(world.extended(urgent(2, 1, 280), NOW), WAIT);
    let first = world.extended(urgent(1, 2, 560), NOW);
    assert_eq!((first.covered, first.wait, first.output), (false, true, 544), "the other began later: it ends first");
    assert_eq!(world.extended(urgent(2, 2, 280), NOW), REFUSED);
    let first = world.extended(urgent(1, 3, 560), NOW);
    assert!(first.wait, "the other will give back what it holds");
    assert!(world.finish(world.record(2, cost(241))));
    let first = world.extended(urgent(1, 4, 560), NOW);
    assert_eq!(
        (first.covered, first.wait, first.output),
        (false, false, 559),
        "what the other did not use, and nobody is left to wait for"
    );
}

#[test]
fn who_waits_for_the_last_hours_limit_keeps_no_turn_of_the_next_hour_out() {
    let end = NOW.plus_millis(HOUR);
    let mut world = World::with(json!({ "maxTokensPerMonth": 1_000_000, "maxCostNanoUsdPerHour": 2 * PROMPT_COST + 800 * OUTPUT }));
    let before = end.plus_millis(-1_000);
    world.begun(begin(1), before);
    world.begun(begin(2), before);
    world.extended(wants(1, 1, 520), before);
    assert!(world.extended(urgent(2, 1, 280), before).wait);
    let refusal = world.refused(begin(3), before);
    assert_eq!(
        (refusal.limit.as_str(), refusal.scope.as_str(), refusal.retry_after),
        ("maxCostUsdPerHour", "workspace", Some(1)),
        "what is waited for"
    );
    world.begun(begin(3), end);
    world.restart();
    world.begun(begin(4), end);
    assert!(world.extended(urgent(2, 2, 280), end).wait, "it waits on");
    // As it was written down before: any limit of the scope is meant.
    world.rewrite(2, |hold| hold["waits"] = json!("workspace"));
    world.restart();
    assert_eq!(world.refused(begin(5), end).retry_after, Some(1));
}

#[test]
fn who_waits_is_known_after_a_restart_and_forgotten_when_it_dies() {
    let mut world = narrow();
    assert_eq!(world.extended(urgent(2, 1, 280), NOW), WAIT);
    world.restart();
    assert_eq!(world.refused(begin(3), NOW).retry_after, Some(1));
    let late = NOW.plus_millis(LEASE);
    world.extended(extend(1, 2), late.plus_millis(-1));
    world.desk.wake(late).now_or_never().unwrap();
    assert_eq!(world.entry(2)["status"], "expired");
    world.begun(begin(3), late);
}

#[test]
fn a_grown_hold_outlives_the_object_and_bounds_what_a_dead_turn_is_charged() {
    let mut world = World::new();
    world.begun(begin(1), NOW);
    let progress = Usage { input_tokens: 12, output_tokens: 5_000, source: UsageSource::Estimated, ..Usage::NONE };
    assert_eq!(world.extended(Extend { progress, ..wants(1, 1, 257) }, NOW).output, 513);
    world.restart();
    assert_eq!(world.hold(1).output, 513);
    assert_eq!(world.used(), (0, cost(513)));
    // After a restart it grows beside what was spent, which has to be loaded first.
    world.restart();
    assert_eq!(world.extended(Extend { progress, ..wants(1, 2, 514) }, NOW).output, 770);
    world.restart();
    world.desk.wake(NOW.plus_millis(LEASE)).now_or_never().unwrap();
    assert_eq!(world.entry(1)["usage"]["outputTokens"], 770);
    assert_eq!(world.used(), (cost(770), 0));
}

#[test]
fn without_the_ledger_a_hold_does_not_grow_and_its_sign_of_life_is_kept() {
    let mut world = World::new();
    world.begun(begin(1), NOW);
    world.restart();
    world.set(|db| db.away = true);
    let progress = Usage { input_tokens: 12, output_tokens: 50, source: UsageSource::Estimated, ..Usage::NONE };
    let grow = Extend { progress, ..wants(1, 1, 257) };
    let alive = NOW.plus_millis(1_000);
    assert!(matches!(world.ask(astra_quota::Ask::Extend(grow.clone()), alive), Answer::Unavailable));
    world.restart();
    assert_eq!((world.hold(1).progress, world.hold(1).expires_at), (progress, alive.plus_millis(LEASE)));
    world.set(|db| db.away = false);
    assert!(world.extended(grow, alive).covered, "the same is asked again");
}

/// How the object learns of limits that were changed.
fn learn(world: &World, how: &str) {
    match how {
        "status" => drop(world.windows(NOW)),
        "a turn that begins" => drop(world.begun(begin(2), NOW)),
        "a turn that is refused" => drop(world.refused(astra_quota::words::Begin { message: "m".repeat(9_000), ..begin(2) }, NOW)),
        other => panic!("{other}"),
    }
}

#[test]
fn limits_that_change_hold_for_running_turns_when_they_need_more() {
    for how in ["status", "a turn that begins", "a turn that is refused"] {
        let mut world = World::new();
        world.begun(begin(1), NOW);
        world.set(|db| db.limits = json!({ "maxCostNanoUsdPerMonth": cost(320) + cost(FIRST) }));
        learn(&world, how);
        let others = if how == "a turn that begins" { world.hold(2).cost.0 } else { 0 };
        let most = (cost(320) + cost(FIRST) - others - PROMPT_COST) / OUTPUT;
        let lowered = world.extended(wants(1, 1, 1_000), NOW);
        assert!(!lowered.covered && i64::try_from(lowered.output).unwrap() == most, "{how}: {lowered:?}, not {most}");
        assert!(world.used().1 <= cost(320) + cost(FIRST), "{how}");
        world.restart();
        assert!(!world.extended(wants(1, 2, 1_000), NOW).covered, "{how}: after a restart too");
        world.set(|db| db.limits = json!({ "maxCostNanoUsdPerMonth": 10_000_000 }));
        world.windows(NOW);
        assert!(world.extended(wants(1, 3, 1_000), NOW).covered, "{how}: raised");
        world.set(|db| db.limits = json!({}));
        world.windows(NOW);
        assert_eq!(world.extended(wants(1, 4, 4_096), NOW).output, 4_096, "{how}: gone");
    }
}

#[test]
fn an_agents_limits_that_change_hold_for_its_running_turns_when_they_need_more() {
    for how in ["status", "a turn that begins", "a turn that is refused"] {
        let mut world = World::new();
        world.begun(begin(1), NOW);
        world.set(|db| drop(db.agents.insert("a".into(), json!({ "maxCostNanoUsdPerDay": cost(320) + cost(FIRST) }))));
        learn(&world, how);
        let others = if how == "a turn that begins" { world.hold(2).cost.0 } else { 0 };
        let most = (cost(320) + cost(FIRST) - others - PROMPT_COST) / OUTPUT;
        let lowered = world.extended(wants(1, 1, 1_000), NOW);
        assert!(!lowered.covered && i64::try_from(lowered.output).unwrap() == most, "{how}: {lowered:?}, not {most}");
        world.restart();
        assert!(!world.extended(wants(1, 2, 1_000), NOW).covered, "{how}: after a restart too");
        world.set(|db| drop(db.agents.insert("a".into(), json!({}))));
        world.windows(NOW);
        assert_eq!(world.extended(wants(1, 3, 4_096), NOW).output, 4_096, "{how}: gone");
    }
}

#[test]
fn a_turn_that_read_its_agents_limits_before_they_changed_reads_them_again() {
    let world = World::new();
    world.set(|db| drop(db.agents.insert("a".into(), json!({ "maxCostNanoUsdPerMonth": 1_000_000 }))));
    world.windows(NOW);
    world.set(|db| db.slow = true);
    let mut first = Box::pin(world.desk.answer(Ask::Begin(Box::new(begin(1))), NOW));
    assert!((&mut first).now_or_never().is_none(), "it reads its context");
    world.set(|db| {
        db.slow = false;
        db.agents.insert("a".into(), json!({ "maxCostNanoUsdPerMonth": cost(10) }));
    });
    world.windows(NOW);
    let Some(Answer::Begun(begun)) = first.now_or_never() else { panic!("it does not begin") };
    assert_eq!(begun.output, 10, "it begins by the limit of now");
    // Nor does who shows them bring old ones back.
    world.set(|db| db.slow = true);
    let mut status = Box::pin(world.desk.answer(Ask::Status, NOW));
    assert!((&mut status).now_or_never().is_none(), "it reads the limits");
    world.set(|db| {
        db.slow = false;
        db.agents.insert("a".into(), json!({ "maxCostNanoUsdPerMonth": cost(9) }));
    });
    assert!(matches!(world.ask(Ask::Begin(Box::new(begin(2))), NOW), Answer::Refused(_)));
    let Some(Answer::Status(Some(view))) = status.now_or_never() else { panic!("it does not answer") };
    assert!(view.windows.iter().any(|window| window.scope == "agent:a" && window.max == cost(9)), "{view:?}");
}

#[test]
fn limits_that_nobody_tells_are_found_while_turns_run() {
    let mut world = World::new();
    world.begun(begin(1), NOW);
    assert!(world.desk.wants_look(NOW) && !world.desk.wants_look(NOW.plus_millis(9_999)), "every ten seconds");
    world.set(|db| drop(db.agents.insert("a".into(), json!({ "maxCostNanoUsdPerMonth": cost(600) }))));
    assert!(world.extended(wants(1, 1, 1_000), NOW).covered);
    let later = NOW.plus_millis(10_000);
    assert!(world.desk.wants_look(later));
    world.desk.look(later).now_or_never().unwrap();
    assert!(!world.extended(wants(1, 2, 1_300), later).covered);
    // The limits are told anew to an object that starts anew.
    world.restart();
    assert!(world.desk.wants_look(later));
    world.set(|db| db.away = true);
    world.desk.look(later).now_or_never().unwrap();
    world.set(|db| db.away = false);
    world.desk.look(later).now_or_never().unwrap();
    assert!(!world.extended(wants(1, 3, 1_300), later).covered);
}
