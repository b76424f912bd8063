//! One process: each ask, each rule.

use crate::world::{LEASE, OUTPUT, START, World, begin, record, turn, usage};
use astra_kernel::{NanoUsd, Usage};
use astra_quota::words::{Begin, Record};
use astra_quota::{Answer, Ask};
use astra_store::{Database as _, StoreError};
use serde_json::json;

const LIMIT: i64 = 10_000_000;

/// What the output of a hold costs.
const OUTPUT_COST: i64 = 64 * 600;

fn keyed(n: u128, key: &str) -> Begin {
    Begin { idempotency_key: Some(key.into()), ..begin(n) }
}

async fn world() -> World {
    World::new(1, json!({ "maxCostNanoUsdPerMonth": LIMIT })).await
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_turn_is_held_then_paid() {
    let world = world().await;
    let begun = world.begun(&begin(1), START).await;
    assert!(!begun.bounded_by_budget && begun.max_output == OUTPUT && begun.started_at == START);
    let held = world.used(START).await.1;
    assert_eq!(held, (i64::try_from(begun.input_bound).unwrap() * 150) + OUTPUT_COST);
    let finished = world.finish(record(&begin(1), START, usage(10, 20), 700, START), START).await;
    assert!(finished.saved);
    assert_eq!((finished.quota.windows[0].used, finished.quota.windows[0].held), (700, 0));
    assert_eq!(world.used(START).await, (700, 0));
    let stored = "SELECT (answer #>> '{quota,windows,0,used}')::bigint FROM turns WHERE workspace_id = $1 AND answer ->> 'turnId' = 't'";
    assert_eq!(world.number(stored).await, 700, "what is left is a part of the answer that is stored");
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_turn_that_is_asked_for_again_keeps_its_hold() {
    let world = world().await;
    let first = world.begun(&keyed(1, "k"), START).await;
    let held = world.used(START).await;
    let again = world.begun(&keyed(1, "k"), START.plus_millis(5)).await;
    assert_eq!((again.started_at, again.input_bound, again.max_output), (first.started_at, first.input_bound, first.max_output));
    assert_eq!(world.used(START).await, held);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_key_belongs_to_one_turn() {
    let world = world().await;
    world.begun(&keyed(1, "k"), START).await;
    assert!(matches!(world.begin(&keyed(2, "k"), START).await, Answer::Running(running) if running == turn(1)));
    assert!(matches!(world.begin(&Begin { request_hash: "other".into(), ..keyed(2, "k") }, START).await, Answer::KeyReused));
    assert!(matches!(world.begin(&Begin { subject: "other".into(), ..keyed(2, "k") }, START).await, Answer::KeyReused));
    world.finish(record(&keyed(1, "k"), START, usage(1, 1), 5, START), START).await;
    let Answer::Denied(replay) = world.begin(&keyed(2, "k"), START).await else { panic!("it runs twice") };
    assert!(replay.get().contains("replay"));
    assert_eq!(world.number("SELECT count(*) FROM holds WHERE workspace_id = $1").await, 0);
}

#[tokio::test]
#[ignore = "needs a database"]
async fn finishing_twice_charges_once() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    let record = record(&begin(1), START, usage(10, 20), 700, START);
    for _ in 0..2 {
        let told = world.finish(record.clone(), START).await;
        assert_eq!((told.quota.windows[0].used, told.quota.windows[0].held), (700, 0));
    }
    assert_eq!(world.used(START).await, (700, 0));
    assert_eq!(world.number("SELECT count(*) FROM ledger WHERE workspace_id = $1").await, 1);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn kf_05_a_turn_that_dies_is_charged_what_it_reported_and_corrected_once() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    world.extend(1, 1, usage(8, 50), 0, START.plus_millis(1_000)).await;
    let late = START.plus_millis(1_000 + LEASE);
    assert!(world.used(late.plus_millis(-1)).await.1 > 0, "a sign of life makes it live longer");
    // Whoever comes next ends it.
    let begun = world.begun(&begin(2), late).await;
    let cost = 8 * 150 + 50 * 600;
    let held = i64::try_from(begun.input_bound).unwrap() * 150 + OUTPUT_COST;
    assert_eq!(world.used(late).await, (cost, held));
    assert!(matches!(world.extend(1, 2, Usage::NONE, 0, late).await, Answer::NotRunning));
    for _ in 0..2 {
        world.finish(record(&begin(1), START, usage(10, 20), 700, late), late).await;
        assert_eq!(world.used(late).await, (700, held));
    }
    assert_eq!(world.number("SELECT count(*) FROM ledger WHERE workspace_id = $1").await, 2);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn the_sweep_ends_what_nobody_comes_for() {
    let (first, second) = (world().await, world().await);
    // An hour before all others: it ends what has died in any workspace, and these tests run side by side.
    let early = START.plus_millis(-3_600_000);
    first.begun(&begin(1), early).await;
    second.begun(&begin(1), early).await;
    second.begun(&begin(2), early.plus_millis(1)).await;
    astra_quota_rows::sweep(&first.pool, early.plus_millis(LEASE)).await.unwrap();
    let running = "SELECT count(*) FROM holds WHERE workspace_id = $1";
    assert_eq!((first.number(running).await, second.number(running).await), (0, 1));
    assert_eq!(first.number("SELECT count(*) FROM turns WHERE workspace_id = $1 AND status = 'expired'").await, 1);
    first.check().await;
    second.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_turn_that_lives_after_all_is_not_ended_as_expired() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    let late = START.plus_millis(LEASE);
    // Between the look for expired holds and their end.
    let dead = world.pool_text(astra_store::tenant_statement!("holds_expired"), &json!({ "now": late }).to_string()).await;
    world.extend(1, 1, usage(8, 100), 0, late).await;
    let dead: serde_json::Value = serde_json::from_str(&dead).unwrap();
    let mut record = dead["data"][0]["draft"]["record"].clone();
    record["now"] = json!(late);
    record["onlyExpired"] = json!(true);
    let answer = world.pool_text(astra_store::tenant_statement!("hold_finish"), &record.to_string()).await;
    assert_eq!(answer, r#"{"outcome":"alive"}"#);
    assert!(world.used(late).await.1 > 0);
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_hold_grows_for_a_larger_prompt_if_it_fits() {
    let world = world().await;
    let begun = world.begun(&begin(1), START).await;
    let Answer::Extended(grown) = world.extend(1, 1, Usage::NONE, begun.input_bound + 500, START).await else { panic!("gone") };
    assert!(grown.covered && grown.max_output == OUTPUT);
    assert_eq!(world.used(START).await.1, (i64::try_from(begun.input_bound).unwrap() + 500) * 150 + OUTPUT_COST);
    let Answer::Extended(too_large) = world.extend(1, 2, Usage::NONE, 1_000_000, START).await else { panic!("gone") };
    assert!(!too_large.covered && too_large.max_output == OUTPUT);
    // Growing for input takes output where there is no room for both.
    let Answer::Extended(shrunk) = world.extend(1, 3, Usage::NONE, 66_600, START).await else { panic!("gone") };
    assert!(shrunk.covered && shrunk.max_output == (LIMIT as u64 - 66_600 * 150) / 600);
    world.check().await;
    let (used, held) = world.used(START).await;
    assert!(used + held <= LIMIT);
}

#[tokio::test]
#[ignore = "needs a database"]
async fn stop_reaches_the_turn_and_only_its_own_member() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    assert!(matches!(world.stop(1, Some("somebody else")).await, Answer::NotRunning));
    assert!(matches!(world.stop(1, Some("u")).await, Answer::Stopping));
    assert!(matches!(world.extend(1, 1, Usage::NONE, 0, START).await, Answer::Extended(e) if e.stop));
    world.finish(record(&begin(1), START, usage(1, 1), 1, START), START).await;
    assert!(matches!(world.stop(1, None).await, Answer::NotRunning));
    assert!(matches!(world.extend(1, 2, Usage::NONE, 0, START).await, Answer::NotRunning));
}

#[tokio::test]
#[ignore = "needs a database"]
async fn kf_13_limits_that_change_while_turns_run_hold_at_once_and_leave_usage_alone() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    world.finish(record(&begin(1), START, usage(10, 20), 700, START), START).await;
    let held = {
        world.begun(&begin(2), START).await;
        world.used(START).await.1
    };
    world.set_limits(json!({ "maxCostNanoUsdPerMonth": 600 })).await;
    let refusal = world.refused(&begin(3), START).await;
    assert_eq!((refusal.max, refusal.used, refusal.held), (600, 700, held));
    world.finish(record(&begin(2), START, usage(10, 20), 50, START), START).await;
    world.set_limits(json!({ "maxTurnsPerMinute": 1, "maxTokensPerMonth": 1_000_000 })).await;
    world.begun(&begin(4), START).await;
    let refusal = world.refused(&begin(5), START.plus_millis(10_000)).await;
    assert_eq!((refusal.limit.as_str(), refusal.used, refusal.retry_after), ("maxTurnsPerMinute", 1, Some(51)));
    world.set_limits(json!({ "maxCostNanoUsdPerMonth": LIMIT })).await;
    assert_eq!(world.used(START).await.0, 750);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn what_somebody_else_enters_in_the_ledger_is_counted() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    assert_eq!(world.used(START).await.0, 0);
    // Another host's counter saves a turn that the rows know nothing of.
    let mut other = serde_json::to_value(record(&begin(9), START, usage(10, 20), 9_000_000, START)).unwrap();
    other["answer"] = json!(null);
    world.pool_text(astra_store::tenant_statement!("turn_finish"), &other.to_string()).await;
    let refusal = world.refused(&Begin { message: "x".repeat(6_500), ..begin(2) }, START).await;
    assert_eq!(refusal.used, 9_000_000);
    let finished = world.finish(record(&begin(1), START, usage(10, 20), 700, START), START).await;
    assert_eq!(finished.quota.windows[0].used, 9_000_700);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn what_somebody_else_enters_while_a_turn_runs_is_in_what_it_is_told() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    let mut other = serde_json::to_value(record(&begin(9), START, usage(10, 20), 9_000_000, START)).unwrap();
    other["answer"] = json!(null);
    world.pool_text(astra_store::tenant_statement!("turn_finish"), &other.to_string()).await;
    // Nobody has looked since: the finish itself finds that its windows are behind.
    let finished = world.finish(record(&begin(1), START, usage(10, 20), 700, START), START).await;
    assert_eq!((finished.quota.windows[0].used, finished.quota.windows[0].held), (9_000_700, 0));
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_conversations_messages_are_numbered_without_gaps() {
    let world = world().await;
    for n in 1..=3 {
        world.begun(&begin(n), START).await;
        let of = record(&begin(n), START, usage(10, 20), 700, START);
        // The second has failed before it said a word.
        let content = if n == 2 { None } else { of.content.clone() };
        let session_id = record(&begin(1), START, usage(10, 20), 700, START).session_id;
        world.finish(Record { session_id, new_session: n == 1, content, ..of }, START).await;
    }
    let numbers = "SELECT string_agg(seq || ' ' || role, ', ' ORDER BY seq) FROM messages WHERE workspace_id = $1";
    assert_eq!(world.text(numbers).await, "1 user, 2 assistant, 3 user, 4 user, 5 assistant");
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn kf_24_a_turn_belongs_to_the_month_in_which_it_began() {
    let world = world().await;
    let end = START.month().resets_at();
    world.begun(&begin(1), end.plus_millis(-1)).await;
    world.begun(&begin(2), end).await;
    let held = world.used(end).await;
    let finished = world.finish(record(&begin(1), end.plus_millis(-1), usage(10, 20), 700, end), end).await;
    assert_eq!((finished.quota.windows[0].used, finished.quota.windows[0].held), (700, 0), "it is told of its own month");
    assert_eq!(world.used(end).await, held);
    world.finish(record(&begin(2), end, usage(10, 20), 30, end), end).await;
    assert_eq!(world.used(end).await, (30, 0));
    assert_eq!(world.used(end.plus_millis(-1)).await, (700, 0));
    assert!(matches!(world.extend(1, 1, Usage::NONE, 1 << 40, end).await, Answer::NotRunning));
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_deleted_workspace_leaves_nothing_but_its_ledger() {
    let world = world().await;
    world.begun(&begin(1), START).await;
    world.begun(&begin(2), START).await;
    world.admin_run("DELETE FROM workspaces WHERE id = $1", &[world.workspace.as_str()]).await;
    assert!(matches!(world.counter().ask(&Ask::Forget, START).await, Answer::Forgotten));
    let left = "SELECT (SELECT count(*) FROM holds WHERE workspace_id = $1) + (SELECT count(*) FROM quota_windows WHERE workspace_id = $1)";
    assert_eq!(world.number(left).await, 0);
    assert!(matches!(world.begin(&begin(3), START).await, Answer::Denied(_)));
    assert!(matches!(world.counter().ask(&Ask::Status, START).await, Answer::Status(None)));
    assert!(world.finish(record(&begin(1), START, usage(10, 20), 700, START), START).await.saved);
    assert_eq!(world.number("SELECT count(*) FROM ledger WHERE workspace_id = $1").await, 1);
}

#[tokio::test]
#[ignore = "needs a database"]
async fn one_workspace_cannot_reach_anothers_rows() {
    let (mine, other) = (world().await, world().await);
    other.begun(&begin(1), START).await;
    assert!(matches!(mine.stop(1, None).await, Answer::NotRunning));
    assert!(matches!(mine.extend(1, 1, Usage::NONE, 0, START).await, Answer::NotRunning));
    for table in ["holds", "quota_windows", "quota_begins"] {
        let statement = match table {
            "holds" => "SELECT count(*)::text FROM public.holds WHERE astra.enter($1::text) <> $2::text",
            "quota_windows" => "SELECT count(*)::text FROM public.quota_windows WHERE astra.enter($1::text) <> $2::text",
            _ => "SELECT count(*)::text FROM public.quota_begins WHERE astra.enter($1::text) <> $2::text",
        };
        let seen = mine.pool.query(statement, &[&crate::world::proof(&mine.workspace), ""]).await;
        assert_eq!(seen, Err(StoreError::Fault("42501".into())), "{table}: the counter's role has functions, and no rows of its own");
    }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn an_amount_that_does_not_fit_is_a_fault_and_holds_nothing() {
    let world = world().await;
    world.begun(&begin(2), START).await;
    world.finish(record(&begin(2), START, usage(1, 1), 1, START), START).await;
    world.begun(&begin(1), START).await;
    let record = record(&begin(1), START, usage(1, 1), 0, START);
    let huge = astra_quota::words::Record { cost_nano_usd: NanoUsd(i64::MAX), ..record.clone() };
    assert!(matches!(world.counter().ask(&Ask::Finish(Box::new(huge)), START).await, Answer::Fault(_)));
    assert!(world.used(START).await.1 > 0, "nothing of it was done");
    world.finish(record, START).await;
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_hold_does_not_grow_to_an_amount_that_does_not_fit() {
    let world = World::new(1, json!({})).await;
    let most = 40_000_000_000_000_000;
    world.set_agent("a", most, json!({})).await;
    let begun = world.begun(&begin(1), START).await;
    let asked = world.needs(1, 1, most, START).await;
    assert_eq!((asked.covered, asked.wait, asked.output), (false, false, begun.output));
    assert!(world.needs(1, 2, begun.output + 1, START).await.covered, "it goes on");
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_hold_grows_as_the_output_comes_and_takes_the_last_of_a_budget() {
    let world = world().await;
    world.set_agent("a", 30_000, json!({})).await;
    let begun = world.begun(&begin(1), START).await;
    assert!((256..300).contains(&begun.output) && begun.max_output > 16_000, "{begun:?}");
    let grown = world.needs(1, 1, begun.output + 1, START).await;
    assert!(grown.covered && grown.output > begun.output + 1);
    // What comes late or twice changes nothing.
    let again = world.needs(1, 1, grown.output, START).await;
    assert_eq!((again.output, again.covered), (grown.output, true));
    let last = world.needs(1, 2, 30_000, START).await;
    assert!(last.output == last.max_output && !last.wait, "{last:?}");
    let (used, held) = world.used(START).await;
    assert!(used == 0 && held <= LIMIT && held > LIMIT - 600, "{held}");
    world.check().await;
    assert_eq!(world.refused(&begin(2), START).await.retry_after, Some(1));
    world.finish(record(&begin(1), START, usage(10, 20), 13_500, START), START).await;
    world.begun(&begin(2), START).await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn who_waits_is_served_first_and_the_last_that_began_gives_up_first() {
    let world = World::new(1, json!({ "maxCostNanoUsdPerMonth": 400_000 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let (first, second) = (world.begun(&begin(1), START).await, world.begun(&begin(2), START).await);
    let asked = world.needs(1, 1, first.output + 300, START).await;
    assert!(asked.wait && !asked.covered && asked.output == first.output, "{asked:?}");
    assert_eq!(world.refused(&begin(3), START).await.retry_after, Some(1));
    let last = world.needs(2, 1, second.output + 300, START).await;
    assert!(!last.wait && !last.covered, "{last:?}");
    world.finish(record(&begin(2), START, usage(1, 1), 750, START), START).await;
    let served = world.needs(1, 2, first.output + 100, START).await;
    assert!(served.covered && !served.wait, "{served:?}");
    assert_eq!(world.number("SELECT count(*) FROM holds WHERE workspace_id = $1 AND waits IS NOT NULL").await, 0);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn who_waits_for_the_last_hours_limit_keeps_no_turn_of_the_next_hour_out() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 1_000_000, "maxCostNanoUsdPerHour": 400_000 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let end = START.plus_millis(3_600_000);
    let before = end.plus_millis(-1_000);
    let first = world.begun(&begin(1), before).await;
    world.begun(&begin(2), before).await;
    assert!(world.needs(1, 1, first.output + 300, before).await.wait);
    let refusal = world.refused(&begin(3), before).await;
    assert_eq!((refusal.limit.as_str(), refusal.scope.as_str(), refusal.retry_after), ("maxCostUsdPerHour", "workspace", Some(1)));
    world.begun(&begin(3), end).await;
    assert!(world.needs(1, 2, first.output + 300, end).await.wait, "it waits on");
    // As it was written down before: any limit of the scope is meant.
    world
        .admin_run("UPDATE holds SET waits = 'workspace' WHERE workspace_id = $1 AND waits IS NOT NULL", &[world.workspace.as_str()])
        .await;
    assert_eq!(world.refused(&begin(4), end).await.retry_after, Some(1));
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn hours_and_days_are_limits_of_their_own_and_marks_are_told_once() {
    let world = World::new(1, json!({ "maxTokensPerHour": 250, "maxCostNanoUsdPerDay": 100_000 })).await;
    world.set_agent("a", 64, json!({})).await;
    world.begun(&begin(1), START).await;
    world.finish(record(&begin(1), START, usage(100, 50), 60_000, START), START).await;
    let events = "SELECT string_agg(limit_name || ' ' || mark, ', ' ORDER BY limit_name, mark) FROM quota_events WHERE workspace_id = $1";
    assert_eq!(world.text(events).await, "maxCostUsdPerDay 50, maxTokensPerHour 50");
    let refusal = world.refused(&Begin { message: "x".repeat(200), ..begin(2) }, START).await;
    assert_eq!((refusal.limit.as_str(), refusal.used, refusal.retry_after), ("maxTokensPerHour", 150, Some(3_601)));
    let later = START.plus_millis(3_600_000);
    world.begun(&Begin { message: "x".repeat(10), ..begin(3) }, later).await;
    world.finish(record(&begin(3), later, usage(10, 5), 40_000, later), later).await;
    assert_eq!(world.text(events).await, "maxCostUsdPerDay 50, maxCostUsdPerDay 80, maxCostUsdPerDay 100, maxTokensPerHour 50");
    assert_eq!(world.refused(&begin(4), later).await.limit, "maxCostUsdPerDay");
    world.check().await;
}

/// The marks of this workspace.
const EVENTS: &str = "SELECT COALESCE(string_agg(limit_name || ' ' || mark || ' ' || used, ', ' ORDER BY limit_name, mark), '') FROM quota_events WHERE workspace_id = $1";

#[tokio::test]
#[ignore = "needs a database"]
async fn a_limit_that_refuses_because_it_is_used_up_tells_its_last_mark_once() {
    let world = World::new(1, json!({ "maxCostNanoUsdPerMonth": 1_000_000, "maxTokensPerMonth": 1_000_000 })).await;
    let input = i64::try_from(world.begun(&begin(1), START).await.input_bound).unwrap();
    world.begun(&begin(2), START).await;
    // What is left in the end pays for the prompt of a turn, and not for a token of output.
    let used = 1_000_000 - input * 150 - 600 + 1;
    world.finish(record(&begin(1), START, usage(10, 20), 899_999, START), START).await;
    world.refused(&Begin { message: "x".repeat(5_000), ..begin(3) }, START).await;
    let before = "maxCostUsdPerMonth 50 899999, maxCostUsdPerMonth 80 899999";
    assert_eq!(world.text(EVENTS).await, before, "a turn that is too large is no sign that a limit is used up");
    world.finish(record(&begin(2), START, usage(10, 20), used - 899_999, START), START).await;
    assert_eq!(world.text(EVENTS).await, before);
    world.refused(&begin(4), START).await;
    let all = format!("{before}, maxCostUsdPerMonth 100 {used}");
    assert_eq!(world.text(EVENTS).await, all);
    let sent = world.pool.sent();
    world.refused(&begin(5), START).await;
    assert_eq!(world.pool.sent(), sent + 1, "a refusal that has nothing new to tell is one statement");
    // Another process knows nothing of it.
    let marks = json!({ "now": START, "alerts": [{ "limit": "maxCostUsdPerMonth", "scope": "workspace", "startsAt": START.month().starts_at(), "mark": 100, "max": 1, "used": 1 }] });
    world.pool_text(astra_store::tenant_statement!("quota_mark"), &marks.to_string()).await;
    assert_eq!(world.text(EVENTS).await, all);
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_turn_that_a_limit_ends_tells_its_last_mark_if_the_limit_is_used_up() {
    for (more, reason, marks) in [(1, "quota", 3), (0, "quota", 2), (1, "stop", 2), (100_000, "quota", 3)] {
        let world = World::new(1, json!({ "maxCostNanoUsdPerMonth": 1_000_000 })).await;
        let input = i64::try_from(world.begun(&begin(1), START).await.input_bound).unwrap();
        let used = 1_000_000 - input * 150 - 600 + more;
        let record =
            astra_quota::words::Record { finish_reason: Some(reason.into()), ..record(&begin(1), START, usage(10, 20), used, START) };
        world.finish(record, START).await;
        assert_eq!(world.number("SELECT count(*) FROM quota_events WHERE workspace_id = $1").await, marks, "{more} {reason}");
    }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_settlement_that_comes_late_tells_the_marks_that_it_passes() {
    let world = World::new(1, json!({ "maxCostNanoUsdPerMonth": 1_000_000, "maxTokensPerHour": 100, "maxTokensPerDay": 1_000 })).await;
    world.set_agent("a", OUTPUT, json!({ "maxCostUsdPerDay": { "nano": 1_700_000 } })).await;
    world.begun(&begin(1), START).await;
    // In the next hour it is taken for dead.
    let late = START.plus_millis(3_600_000 + LEASE);
    world.counter().expire(late).await.unwrap();
    assert_eq!(world.text(EVENTS).await, "");
    for _ in 0..2 {
        world.finish(record(&begin(1), START, usage(10, 40), 850_000, late), late).await;
        assert_eq!(
            world.text(EVENTS).await,
            "maxCostUsdPerDay 50 850000, maxCostUsdPerMonth 50 850000, maxCostUsdPerMonth 80 850000, maxTokensPerHour 50 50"
        );
    }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn windows_of_time_zones_contain_their_moments_and_meet() {
    let world = world().await;
    for zone in ["UTC", "Europe/Berlin", "America/Havana", "Asia/Beirut", "Pacific/Apia", "Australia/Lord_Howe"] {
        let wrong = format!(
            "SELECT count(*) FROM (
               SELECT at, p.key, (p.value ->> 'startsAt')::timestamptz AS starts, (p.value ->> 'endsAt')::timestamptz AS ends,
                      lag((p.value ->> 'endsAt')::timestamptz) OVER (PARTITION BY p.key ORDER BY at) AS before,
                      lag((p.value ->> 'startsAt')::timestamptz) OVER (PARTITION BY p.key ORDER BY at) AS started
               FROM generate_series(timestamptz '2011-01-01Z', timestamptz '2012-02-01Z', interval '30 minutes') at,
                    jsonb_each(astra.spans_json(at, '{zone}')) p WHERE $1 <> '') w
             WHERE at < starts OR at >= ends OR (starts <> started AND starts <> before)"
        );
        assert_eq!(world.number(&wrong).await, 0, "{zone}");
    }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn what_is_left_of_a_month_is_carried_over_once_where_the_plan_says_so() {
    let world = world().await;
    let plan = world.workspace.to_string();
    world.admin_run("INSERT INTO plan_settings VALUES ($1, true, now())", &[&plan]).await;
    world.admin_run("UPDATE workspaces SET plan = id, created_at = '2025-06-01Z' WHERE id = $1", &[&plan]).await;
    let (end, next) = (START.month().resets_at(), START.month().resets_at().month().resets_at());
    world.admin_run("INSERT INTO quota_carries VALUES ($1, '2026-01-01Z', 0, 0)", &[&plan]).await;
    world.begun(&begin(1), START).await;
    world.finish(record(&begin(1), START, usage(10, 20), 4_000_000, START), START).await;
    world.begun(&begin(2), end.plus_millis(-1)).await;
    let early = world.begun(&begin(3), end).await;
    assert_eq!(early.quota.windows[0].max, LIMIT, "a turn of the month before still runs");
    world.finish(record(&begin(2), end.plus_millis(-1), usage(10, 20), 1_000_000, end), end).await;
    world.finish(record(&begin(3), end, usage(10, 20), 0, end), end).await;
    let begun = world.begun(&begin(4), end).await;
    assert_eq!(begun.quota.windows[0].max, LIMIT + 5_000_000);
    // What was carried is used first, so all of the month's own is left.
    world.finish(record(&begin(4), end, usage(10, 20), 5_000_000, end), end).await;
    assert_eq!(world.begun(&begin(5), next).await.quota.windows[0].max, 2 * LIMIT);
    world.check().await;
}
