//! Limits and time zones that change while turns run: what these hold is counted, and they keep to what is true now.

use crate::world::{Pool, START, World, begin, proof, record, turn, usage};
use astra_kernel::{Timestamp, WorkspaceId};
use astra_quota::words::{Begin, Extend};
use astra_quota::{Answer, Ask};
use astra_quota_rows::RowsCounter;
use astra_store::{Database, StoreError};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

const HOUR: i64 = 3_600_000;

fn of_agent(n: u128, agent: &str) -> Begin {
    Begin { agent_id: agent.to_owned().try_into().unwrap(), ..begin(n) }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_limit_over_an_hour_that_is_new_counts_what_runs_and_holds_for_it() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 1_000_000 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let begun = world.begun(&begin(1), START).await;
    let held = begun.input_bound + begun.output;
    world.set_limits(json!({ "maxTokensPerHour": held + 300, "maxTokensPerMonth": 1_000_000 })).await;
    let refusal = world.refused(&Begin { message: "x".repeat(300), ..begin(2) }, START).await;
    assert_eq!((refusal.limit.as_str(), refusal.held.unsigned_abs(), refusal.retry_after), ("maxTokensPerHour", held, Some(1)));
    world.check().await;
    // What grows while the hour's row is there, and another agent's, is in it.
    let other = world.begun(&of_agent(3, "b"), START).await;
    world.check().await;
    let left = 300 - other.input_bound - other.output;
    let grown = world.needs(1, 1, begun.output + left, START).await;
    assert_eq!((grown.covered, grown.output), (true, begun.output + left));
    world.check().await;
    let more = world.needs(1, 2, begun.output + left + 1, START).await;
    assert_eq!((more.covered, more.wait, more.output), (false, true, begun.output + left), "the other may give some back");
    let finished = world.finish(record(&begin(1), START, usage(10, 20), 700, START), START).await;
    let shown: Vec<_> = finished.quota.windows.iter().map(|window| (window.limit.as_str(), window.used)).collect();
    assert_eq!(shown, [("maxTokensPerMonth", 30), ("maxTokensPerHour", 30)], "it is told of the limits that it kept to");
    world.check().await;
    // The hour's row has counted all of it, so nothing has to be built.
    assert_eq!(world.number("SELECT count(*) FROM quota_windows w, ledger_heads h WHERE w.workspace_id = $1 AND h.workspace_id = $1 AND w.scope = 'workspace' AND w.ledger_seq = h.seq").await, 2);
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_time_zone_that_is_changed_counts_what_runs_in_its_days() {
    // At midnight UTC it is 05:45 in Kathmandu.
    let world = World::new(1, json!({ "maxTokensPerDay": 1_000 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let before = START.plus_millis(-10_000);
    let first = world.begun(&begin(1), before).await;
    let held = first.input_bound + first.output;
    // In UTC another day has begun; in Kathmandu it is the same.
    assert_eq!(world.used(START).await, (0, 0));
    world.set_zone("Asia/Kathmandu").await;
    let (used, now_held) = world.used(START).await;
    assert_eq!((used, now_held.unsigned_abs()), (0, held));
    world.check().await;
    let second = world.begun(&begin(2), START).await;
    let left = 1_000 - held - second.input_bound - second.output;
    let grown = world.needs(1, 1, first.output + left + 1, START).await;
    assert_eq!((grown.covered, grown.wait, grown.output), (false, true, first.output), "it keeps to the day that it is in now");
    world.check().await;
    world.finish(record(&begin(2), START, usage(10, 20), 700, START), START).await;
    let grown = world.needs(1, 2, 1_000 - 30 - first.input_bound, START).await;
    assert!(grown.covered, "{grown:?}");
    assert_eq!(world.used(START).await, (30, 970));
    world.finish(record(&begin(1), before, usage(10, 40), 700, START), START).await;
    assert_eq!(world.used(START).await, (80, 0));
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn months_that_begin_together_and_end_apart_are_two() {
    // 2026-03-31T22:00Z: in Berlin it is April, as clocks there have gone forward; in Lagos it is March for another hour. Both months of March began together.
    let april: Timestamp = "2026-03-31T22:00:00.000Z".parse().unwrap();
    let world = World::new(1, json!({ "maxTokensPerMonth": 10_000 })).await;
    world.set_zone("Europe/Berlin").await;
    for (n, at) in [(1, april.plus_millis(-1)), (2, april)] {
        world.begun(&begin(n), at).await;
        world.finish(record(&begin(n), at, usage(100 * u64::try_from(n).unwrap(), 20), 700, at), at).await;
    }
    assert_eq!((world.used(april.plus_millis(-1)).await.0, world.used(april).await.0), (120, 220));
    world.set_zone("Africa/Lagos").await;
    assert_eq!(world.used(april.plus_millis(1)).await.0, 340, "both are in March");
    assert_eq!(world.used(april.plus_millis(HOUR)).await.0, 0);
    world.set_zone("Europe/Berlin").await;
    assert_eq!((world.used(april.plus_millis(-1)).await.0, world.used(april).await.0), (120, 220));
    world.check().await;
}

/// Changes the workspace's limits, or an agent's, just before a decision is written down.
struct Between<'a> {
    world: &'a World,
    before: &'static str,
    limits: Value,
    of_agent: bool,
    times: AtomicUsize,
}

impl Database for Between<'_> {
    fn proof(&self, workspace: &WorkspaceId, _: &str) -> Result<String, StoreError> {
        Ok(proof(workspace))
    }

    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        if statement.contains(self.before) && self.times.fetch_add(1, Ordering::Relaxed) == 0 {
            if self.of_agent {
                self.world.set_agent("a", 30_000, self.limits.clone()).await;
            } else {
                self.world.set_limits(self.limits.clone()).await;
            }
        }
        let pool: &Pool = &self.world.pool;
        pool.query(statement, params).await
    }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn what_was_decided_by_limits_that_have_changed_is_decided_anew() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 1_000_000 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let between = |before, limits| Between { world: &world, before, limits, of_agent: false, times: AtomicUsize::new(0) };
    let database = between("hold_take", json!({ "maxTokensPerHour": 200 }));
    let counter = RowsCounter::open(&database, world.workspace.clone());
    let Answer::Begun(begun) = counter.ask(&Ask::Begin(Box::new(begin(1))), START).await else { panic!("refused") };
    assert_eq!(begun.input_bound + begun.output, 200, "it begins by the limit of now");
    assert_eq!(database.times.load(Ordering::Relaxed), 2);
    world.set_limits(json!({ "maxTokensPerHour": 2_000 })).await;
    let begun = world.begun(&begin(2), START).await;
    let database = between("hold_grow", json!({ "maxTokensPerHour": 1_000 }));
    let counter = RowsCounter::open(&database, world.workspace.clone());
    let ask = Extend { turn_id: turn(2), sequence: 1, progress: usage(5, 5), input_bound: 0, output: 1_500, is_urgent: false };
    let Answer::Extended(extended) = counter.ask(&Ask::Extend(ask), START).await else { panic!("gone") };
    assert_eq!(extended.output, 1_000 - 200 - begun.input_bound, "it grows by the limit of now");
    assert_eq!(database.times.load(Ordering::Relaxed), 2);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn who_waits_for_a_limit_that_is_raised_and_then_lowered_below_what_is_held_ends() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 300 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let first = world.begun(&begin(1), START).await;
    world.set_limits(json!({ "maxTokensPerMonth": 560 })).await;
    world.begun(&begin(2), START).await;
    // It waits, and was told of the first limit alone, which by now would not pay for what is held.
    let most = first.max_output;
    assert!(world.needs(1, 1, most, START).await.wait);
    world.set_limits(json!({ "maxTokensPerMonth": 100 })).await;
    let ended = world.needs(1, 2, most, START).await;
    assert_eq!((ended.covered, ended.wait, ended.output), (false, false, first.output));
    assert_eq!(world.number("SELECT count(*) FROM holds WHERE workspace_id = $1 AND waits IS NOT NULL").await, 0);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn what_was_decided_by_limits_of_an_agent_that_have_changed_is_decided_anew() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 1_000_000 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let between = |before, limits| Between { world: &world, before, limits, of_agent: true, times: AtomicUsize::new(0) };
    let database = between("hold_take", json!({ "maxTokensPerHour": 200 }));
    let counter = RowsCounter::open(&database, world.workspace.clone());
    let Answer::Begun(begun) = counter.ask(&Ask::Begin(Box::new(begin(1))), START).await else { panic!("refused") };
    assert_eq!(begun.input_bound + begun.output, 200, "it begins by the limit of now");
    assert_eq!(database.times.load(Ordering::Relaxed), 2);
    world.set_agent("a", 30_000, json!({ "maxTokensPerHour": 2_000 })).await;
    let begun = world.begun(&begin(2), START).await;
    let database = between("hold_grow", json!({ "maxTokensPerHour": 1_000 }));
    let counter = RowsCounter::open(&database, world.workspace.clone());
    let ask = Extend { turn_id: turn(2), sequence: 1, progress: usage(5, 5), input_bound: 0, output: 1_500, is_urgent: false };
    let Answer::Extended(extended) = counter.ask(&Ask::Extend(ask), START).await else { panic!("gone") };
    assert_eq!(extended.output, 1_000 - 200 - begun.input_bound, "it grows by the limit of now");
    assert_eq!(database.times.load(Ordering::Relaxed), 2);
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_turn_keeps_to_its_agents_limits_of_now_the_workspaces_own_or_its_plans() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 1_000_000, "maxCostNanoUsdPerMonth": 1_000_000_000 })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let begun = world.begun(&begin(1), START).await;
    let (held, mut sequence) = (begun.input_bound + begun.output, 0);
    let mut grows = async |to: u64| {
        sequence += 1;
        let extended = world.needs(1, sequence, to - begun.input_bound, START).await;
        world.check().await;
        (extended.covered, extended.output + begun.input_bound)
    };
    // New and lowered.
    world.set_agent("a", 30_000, json!({ "maxTokensPerDay": held + 300 })).await;
    assert_eq!(grows(held + 301).await, (false, held + 300));
    // Whatever the workspace's limit is, of which this is the agent's too.
    world.set_agent("a", 30_000, json!({ "maxCostUsdPerMonth": { "ref": "maxCostNanoUsdPerMonth" } })).await;
    world.set_limits(json!({ "maxTokensPerMonth": 1_000_000, "maxCostNanoUsdPerMonth": 1 })).await;
    assert_eq!(grows(held + 301).await, (false, held + 300));
    world.set_limits(json!({ "maxTokensPerMonth": 1_000_000, "maxCostNanoUsdPerMonth": 1_000_000_000 })).await;
    // The plan's stands in where the workspace's own is gone.
    world.set_plan("a", json!({ "maxTokensPerDay": held + 310 })).await;
    world.remove_agent("a").await;
    assert_eq!(grows(held + 311).await, (false, held + 310));
    world.set_plan("a", json!({ "maxTokensPerDay": held + 320 })).await;
    assert_eq!(grows(held + 321).await, (false, held + 320));
    // No such agent any more: as they were.
    world.set_plan("b", json!({})).await;
    assert_eq!(grows(held + 321).await, (false, held + 320));
    world.set_plan("a", json!({})).await;
    assert!(grows(held + 321).await.0);
}
