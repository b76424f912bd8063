//! A turn is held, then paid: over restarts, with a database that is away, deaf or slow.

use crate::world::{LEASE, NOW, World, begin, extend, finished, told, turn};
use astra_kernel::{Usage, UsageSource};
use astra_quota::words::{Extend, Record, Stop};
use astra_quota::{Answer, Ask};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use quota::desk::{Row, Rows as _};
use serde_json::{Value, json};

#[test]
fn what_is_left_is_added_to_the_answer_that_is_stored() {
    let world = World::new();
    for (n, answer) in [(1, "{}"), (2, r#"{"content":"}","usage":{}}"#)] {
        assert!(matches!(world.begin(n, None), Answer::Begun(_)));
        let answer = serde_json::value::RawValue::from_string(answer.to_owned()).unwrap();
        assert!(world.finish(Record { answer: Some(answer.clone()), ..world.record(n, 700) }));
        let mut stored = world.entry(n)["answer"].take();
        let quota = stored.as_object_mut().unwrap().remove("quota").unwrap();
        assert_eq!(quota["windows"][0]["used"], 700 * i64::try_from(n).unwrap());
        assert_eq!(stored, serde_json::from_str::<Value>(answer.get()).unwrap());
    }
}

#[test]
fn a_turn_is_held_then_paid() {
    let world = World::new();
    let Answer::Begun(begun) = world.begin(1, None) else { panic!("refused") };
    assert!(!begun.bounded_by_budget && begun.max_output == 4096);
    assert!(world.used().1 > 0);
    assert!(world.finish(world.record(1, 700)));
    assert_eq!(world.used(), (700, 0));
    assert!(world.desk.sweep() && world.rows.all().is_empty());
}

#[test]
fn what_the_receipt_says_comes_with_what_is_saved_and_not_before() {
    let world = World::new();
    let receipt = |record: &Record| finished(world.ask(Ask::Finish(Box::new(record.clone())), NOW)).receipt;
    world.begin(1, None);
    let one = world.record(1, 700);
    let said = Some(format!("of {}", turn(1)));
    assert_eq!(receipt(&one), said);
    assert_eq!(receipt(&one), said, "sent again");
    world.begin(2, None);
    let two = world.record(2, 700);
    world.set(|db| db.away = true);
    assert_eq!(receipt(&two), None);
}

#[test]
fn kf_07_a_record_that_the_database_does_not_take_is_kept_and_delivered_once() {
    let mut world = World::new();
    world.begin(1, Some("k"));
    let record = world.record(1, 700);
    world.set(|db| db.away = true);
    assert!(!world.finish(record), "acknowledged, not saved yet");
    world.restart();
    assert!(matches!(world.begin(2, None), Answer::Unavailable), "without the ledger nothing begins");
    assert!(matches!(world.begin(3, Some("k")), Answer::Running(_)), "its key is still its own");
    world.set(|db| db.away = false);
    world.desk.wake(NOW).now_or_never().unwrap();
    assert_eq!(world.db.0.lock().unwrap().ledger.len(), 1);
    assert_eq!(world.used(), (700, 0));
    assert!(world.rows.all().is_empty());
}

#[test]
fn a_save_whose_answer_is_lost_is_not_counted_twice() {
    let mut world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.set(|db| db.deaf = true);
    assert!(!world.finish(record));
    world.set(|db| db.deaf = false);
    assert_eq!(world.used(), (700, 0));
    world.desk.wake(NOW).now_or_never().unwrap();
    assert_eq!(world.used(), (700, 0));
    world.restart();
    assert_eq!(world.used(), (700, 0));
}

#[test]
fn kf_05_a_turn_that_dies_is_charged_what_it_reported_and_frees_its_hold() {
    let mut world = World::new();
    world.begin(1, None);
    let progress = Usage { input_tokens: 8, output_tokens: 100, source: UsageSource::Estimated, ..Usage::NONE };
    world.extended(Extend { progress, output: 100, ..extend(1, 1) }, NOW);
    world.restart();
    assert!(world.used().1 > 0, "the hold outlives the object");
    let late = NOW.plus_millis(LEASE);
    assert_eq!(world.desk.wake_at(NOW), Some(late));
    world.desk.wake(late).now_or_never().unwrap();
    let cost = 8 * 150 + 100 * 600;
    assert_eq!(world.used(), (cost, 0));
    let ledger = world.db.0.lock().unwrap().ledger.clone();
    assert_eq!(ledger.values().next().unwrap()["status"], "expired");
}

#[test]
fn a_record_that_neither_the_database_nor_its_row_takes_is_counted_once_when_it_comes_again() {
    let world = World::new();
    (1..=2).for_each(|n| drop(world.begin(n, None)));
    let (first, second) = (world.record(1, 700), world.record(2, 30));
    let held = world.used().1;
    world.set(|db| db.fails = Some("turn_finish"));
    world.rows.fail(true);
    for _ in 0..3 {
        assert!(matches!(world.ask(Ask::Finish(Box::new(first.clone())), NOW), Answer::Unavailable));
        assert_eq!(world.used(), (0, held), "nothing was done: it holds what it held");
    }
    world.set(|db| db.fails = None);
    world.rows.fail(false);
    assert_eq!(world.told(first), [(700, held / 2)]);
    assert_eq!(world.told(second), [(730, 0)]);
    assert_eq!(world.used(), (730, 0));
}

#[test]
fn a_record_that_is_kept_and_comes_again_is_counted_once() {
    for comes_back in [false, true] {
        let world = World::new();
        world.begin(1, None);
        let record = world.record(1, 700);
        world.set(|db| db.away = true);
        assert!(!world.finish(record.clone()), "acknowledged, not saved yet");
        world.set(|db| db.away = !comes_back);
        assert_eq!(world.finish(record), comes_back);
        world.set(|db| db.away = false);
        assert_eq!(world.used(), (700, 0), "{comes_back}");
    }
}

#[test]
fn a_turn_that_gives_a_sign_of_life_while_others_are_ended_lives_on() {
    let mut world = World::new();
    (1..=2).for_each(|n| drop(world.begin(n, None)));
    let late = NOW.plus_millis(LEASE);
    world.set(|db| db.slow = true);
    let mut wake = Box::pin(world.desk.wake(late));
    assert!((&mut wake).now_or_never().is_none(), "the first is being saved");
    world.extended(extend(2, 1), late);
    while (&mut wake).now_or_never().is_none() {}
    drop(wake);
    assert_eq!(world.db.0.lock().unwrap().ledger.len(), 1, "the first");
    assert_eq!(world.hold(2).expires_at, late.plus_millis(LEASE));
    // The same, while it is looked up what was spent.
    world.restart();
    let later = late.plus_millis(LEASE);
    let mut wake = Box::pin(world.desk.wake(later));
    assert!((&mut wake).now_or_never().is_none(), "the ledger is read");
    world.extended(extend(2, 2), later);
    while (&mut wake).now_or_never().is_none() {}
    drop(wake);
    assert_eq!(world.db.0.lock().unwrap().ledger.len(), 1);
    world.set(|db| db.slow = false);
    world.desk.wake(later.plus_millis(LEASE)).now_or_never().unwrap();
    assert_eq!(world.entry(2)["status"], "expired", "of which nothing is heard any more");
}

#[test]
fn a_late_settlement_corrects_a_dead_turn_once() {
    let world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.desk.wake(NOW.plus_millis(LEASE)).now_or_never().unwrap();
    assert_eq!(world.used(), (0, 0));
    assert!(world.finish(record.clone()));
    assert_eq!(world.used(), (700, 0));
    assert!(world.finish(record));
    assert_eq!(world.used(), (700, 0));
}

#[test]
fn a_turn_in_whose_course_the_counter_forgot_is_told_true_figures() {
    let mut world = World::new();
    world.begin(1, None);
    assert_eq!(world.told(world.record(1, 400)), [(400, 0)]);
    world.begin(2, None);
    world.begin(3, None);
    let (second, third) = (world.record(2, 700), world.record(3, 50));
    world.restart();
    let Some(Row::Running { hold, .. }) = world.rows.get(third.turn_id) else { panic!("turn 3 is not running") };
    assert_eq!(world.told(second), [(1100, hold.cost.0)]);
    let calls = world.db.0.lock().unwrap().calls;
    assert_eq!(world.told(third), [(1150, 0)]);
    assert_eq!(world.db.0.lock().unwrap().calls, calls + 1, "without a doubt a turn is saved and that is all");
}

#[test]
fn a_late_settlement_is_told_what_the_ledger_says() {
    let world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.desk.wake(NOW.plus_millis(LEASE)).now_or_never().unwrap();
    world.set(|db| db.agents = ["a", "b"].map(|id| (id.to_owned(), json!({ "maxCostNanoUsdPerMonth": 1_000 }))).into());
    assert_eq!(world.told(record.clone()), [(700, 0), (700, 0)], "the workspace's limit and this agent's");
    assert_eq!(world.told(record), [(700, 0), (700, 0)], "nor is it counted twice");
}

#[test]
fn a_turn_that_is_saved_has_ended_even_if_its_figures_cannot_be_had() {
    let mut world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.restart();
    world.set(|db| db.fails = Some("quota_spent"));
    let Answer::Finished(finished) = world.ask(Ask::Finish(Box::new(record)), NOW) else { panic!("it is not acknowledged") };
    assert!(finished.saved && finished.quota.windows.is_empty());
}

#[test]
fn turns_that_end_together_after_a_doubt_do_not_wait_for_each_other() {
    let mut world = World::new();
    (1..=3).for_each(|n| drop(world.begin(n, None)));
    let records = [world.record(1, 100), world.record(2, 20), world.record(3, 3)];
    world.restart();
    world.set(|db| db.slow = true);
    let mut all = join_all(records.map(|record| world.desk.answer(Ask::Finish(Box::new(record)), NOW)));
    let answers = (0..100).find_map(|_| (&mut all).now_or_never()).expect("none waits for ever");
    let ended: Vec<_> = answers.into_iter().map(finished).collect();
    assert!(ended.iter().all(|ended| ended.saved && told(ended)[0].0 <= 123), "{ended:?}");
    assert!(ended.iter().any(|ended| told(ended) == [(123, 0)]), "{ended:?}");
}

#[test]
fn kf_06_kf_03_an_empty_counter_loads_once_and_without_the_ledger_refuses() {
    let mut world = World::new();
    world.begin(1, None);
    assert!(world.finish(world.record(1, 400)) && world.desk.sweep());
    world.restart();
    world.set(|db| db.away = true);
    assert!(matches!(world.begin(2, None), Answer::Unavailable));
    world.set(|db| db.away = false);
    let loads = world.db.0.lock().unwrap().loads;
    assert!(matches!(world.begin(2, None), Answer::Begun(_)));
    assert!(matches!(world.begin(3, None), Answer::Begun(_)));
    assert_eq!(world.db.0.lock().unwrap().loads, loads + 1);
    assert_eq!(world.used().0, 400);
}

#[test]
fn the_limit_refuses_and_a_key_belongs_to_one_turn() {
    let world = World::new();
    assert!(matches!(world.begin(1, Some("k")), Answer::Begun(_)));
    assert!(matches!(world.begin(2, Some("k")), Answer::Running(running) if running == turn(1)));
    assert!(world.finish(world.record(1, 9_999_999)));
    assert!(matches!(world.begin(3, Some("k")), Answer::Denied(_)), "the database has its answer");
    let Answer::Refused(refusal) = world.begin(4, None) else { panic!("admitted") };
    assert_eq!((refusal.limit.as_str(), refusal.used), ("maxCostUsdPerMonth", 9_999_999));
}

#[test]
fn stop_reaches_the_turn_with_its_next_sign_of_life_and_only_its_own_member() {
    let world = World::new();
    world.begin(1, None);
    let turn_id = turn(1);
    let stop = |subject: Option<&str>| world.ask(Ask::Stop(Stop { turn_id, subject: subject.map(str::to_owned), guest: None }), NOW);
    assert!(matches!(stop(Some("somebody else")), Answer::NotRunning));
    assert!(matches!(stop(Some("u")), Answer::Stopping));
    let alive = |sequence| world.ask(Ask::Extend(extend(1, sequence)), NOW);
    assert!(matches!(alive(1), Answer::Extended(e) if e.stop));
    assert!(world.finish(world.record(1, 1)));
    assert!(matches!(alive(2), Answer::NotRunning));
    assert!(matches!(stop(None), Answer::NotRunning));
}

#[test]
fn a_turn_whose_grant_is_taken_back_while_it_begins_reads_again() {
    let world = World::new();
    world.set(|db| db.slow = true);
    let mut beginning = Box::pin(world.desk.answer(Ask::Begin(Box::new(begin(1))), NOW));
    assert!((&mut beginning).now_or_never().is_none(), "it has read that the agent is granted");
    world.set(|db| (db.denial, db.slow) = (Some("agent_denied"), false));
    assert!(matches!(world.ask(Ask::Withdraw("a".to_owned().try_into().unwrap()), NOW), Answer::Withdrawn));
    let answer = beginning.now_or_never();
    assert!(matches!(answer, Some(Answer::Denied(_))), "{answer:?}");
    // One that runs already is told to stop.
    world.set(|db| db.denial = None);
    assert!(matches!(world.begin(2, None), Answer::Begun(_)));
    assert!(matches!(world.ask(Ask::Withdraw("a".to_owned().try_into().unwrap()), NOW), Answer::Withdrawn));
    assert!(world.extended(extend(2, 1), NOW).stop);
}
