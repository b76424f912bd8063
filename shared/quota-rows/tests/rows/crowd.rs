//! Many at once: from many processes, and from a few that send together what comes together.

use crate::world::{Pool, START, Way, World, begin, record, usage};
use astra_quota::words::Begin;
use astra_quota::{Answer, Ask};
use astra_quota_rows::RowsCounter;
use futures_util::future::join_all;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Each of these tests, both ways.
macro_rules! both_ways {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use crate::world::Way;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a database"]
            async fn apart() {
                super::$name(Way::Apart).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs a database"]
            async fn together() {
                super::$name(Way::Together).await;
            }
        })*
    };
}

both_ways!(
    kf01_kf02_as_many_pass_as_fit_and_the_limit_is_never_exceeded,
    the_last_of_a_budget_goes_to_one,
    an_agents_budget_holds_beside_its_workspaces,
    a_key_that_many_send_at_once_runs_once,
    a_turn_that_is_sent_many_times_at_once_holds_once,
    kf12_turns_per_minute_are_counted_over_all_processes,
    kf03_what_each_process_adds_all_others_have_counted_once,
    whatever_happens_at_once_the_sums_are_the_ledgers,
    kf01_turns_that_grow_at_once_never_pass_the_limit_together
);

/// What a turn of `begin` holds: its input bound and 64 tokens of output, at the local model's price.
async fn one(limit: i64) -> i64 {
    let world = World::new(1, json!({ "maxCostNanoUsdPerMonth": limit })).await;
    world.begun(&begin(1), START).await;
    world.used(START).await.1
}

async fn crowd(world: &World, of: impl IntoIterator<Item = Begin>) -> Vec<Answer> {
    let all = of.into_iter().map(|begin| {
        let (pool, workspace) = (world.pool.clone(), world.workspace.clone());
        tokio::spawn(async move { RowsCounter::open(&pool, workspace).ask(&Ask::Begin(Box::new(begin)), START).await })
    });
    join_all(all).await.into_iter().map(Result::unwrap).collect()
}

fn passed(answers: &[Answer]) -> usize {
    for answer in answers {
        assert!(matches!(answer, Answer::Begun(_) | Answer::Refused(_)), "{answer:?}");
    }
    answers.iter().filter(|answer| matches!(answer, Answer::Begun(_))).count()
}

async fn kf01_kf02_as_many_pass_as_fit_and_the_limit_is_never_exceeded(way: Way) {
    let one = one(1_000_000_000).await;
    let limit = 37 * one;
    // Nobody has seen this workspace before: the first requests of all connections race each other.
    let world = World::new_as(way, 12, json!({ "maxCostNanoUsdPerMonth": limit })).await;
    let going_on = Arc::new(AtomicBool::new(true));
    let watcher = {
        let (going_on, looker, workspace) = (Arc::clone(&going_on), World::new(1, json!({})).await, world.workspace.clone());
        tokio::spawn(async move {
            let (mut looks, mut most) = (0, 0);
            while going_on.load(Ordering::Relaxed) {
                let sql = format!("SELECT COALESCE((SELECT sum(cost) FROM holds WHERE workspace_id = '{workspace}' AND $1 <> ''), 0)");
                most = most.max(looker.number(&sql).await);
                looks += 1;
            }
            (looks, most)
        })
    };
    let answers = crowd(&world, (1..=200).map(begin)).await;
    going_on.store(false, Ordering::Relaxed);
    let (looks, most) = watcher.await.unwrap();
    assert_eq!(passed(&answers), 37);
    assert!(looks > 0 && most <= limit, "{most} of {limit} in {looks} looks");
    assert_eq!(world.used(START).await, (0, limit));
    world.check().await;
}

async fn the_last_of_a_budget_goes_to_one(way: Way) {
    // Room for one turn and a half: the first gets all it wants. Nobody begins with the half, for the first may give something back.
    let one = one(1_000_000_000).await;
    let world = World::new_as(way, 8, json!({ "maxCostNanoUsdPerMonth": one * 3 / 2 })).await;
    let answers = crowd(&world, (1..=40).map(begin)).await;
    assert_eq!(passed(&answers), 1);
    assert_eq!(world.used(START).await, (0, one));
    let first = answers.iter().zip(1..).find_map(|(answer, n)| matches!(answer, Answer::Begun(_)).then(|| begin(n))).unwrap();
    world.finish(record(&first, START, usage(10, 20), one, START), START).await;
    // It gave nothing back: the half is all that there will ever be, and one gets it whole.
    assert_eq!(passed(&crowd(&world, (41..=80).map(begin)).await), 1);
    let (used, held) = world.used(START).await;
    assert!(used == one && held <= one / 2 && held > one / 2 - 600, "{held}");
    world.check().await;
}

async fn an_agents_budget_holds_beside_its_workspaces(way: Way) {
    let world = World::new_as(way, 8, json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_i64 })).await;
    world.set_agent("b", 64, json!({ "maxCostUsdPerMonth": { "nano": 5 * one(1_000_000_000).await } })).await;
    let agent = |n: u128| if n.is_multiple_of(2) { "a" } else { "b" };
    let answers = crowd(&world, (1..=80).map(|n| Begin { agent_id: agent(n).to_owned().try_into().unwrap(), ..begin(n) })).await;
    assert_eq!(passed(&answers), 40 + 5);
    world.check().await;
}

async fn a_key_that_many_send_at_once_runs_once(way: Way) {
    let world = World::new_as(way, 8, json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_i64 })).await;
    let answers = crowd(&world, (1..=50).map(|n| Begin { idempotency_key: Some("k".into()), ..begin(n) })).await;
    let begun = answers.iter().filter(|a| matches!(a, Answer::Begun(_))).count();
    let running = answers.iter().filter(|a| matches!(a, Answer::Running(_))).count();
    assert_eq!((begun, running), (1, 49));
    world.check().await;
}

async fn a_turn_that_is_sent_many_times_at_once_holds_once(way: Way) {
    let world = World::new_as(way, 8, json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_i64 })).await;
    let answers = crowd(&world, (1..=50).map(|_| begin(1))).await;
    assert_eq!(passed(&answers), 50);
    assert_eq!(world.number("SELECT count(*) FROM holds WHERE workspace_id = $1").await, 1);
    world.check().await;
}

async fn kf12_turns_per_minute_are_counted_over_all_processes(way: Way) {
    let world = World::new_as(way, 8, json!({ "maxTurnsPerMinute": 13 })).await;
    assert_eq!(passed(&crowd(&world, (1..=60).map(begin)).await), 13);
}

/// Twelve processes that each know what was spent, and each add to it: what one adds, all others have counted, once.
async fn kf03_what_each_process_adds_all_others_have_counted_once(way: Way) {
    let world = World::new_as(way, 12, json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_i64 })).await;
    world.begun(&begin(1), START).await;
    world.finish(record(&begin(1), START, usage(10, 20), 13_500, START), START).await;
    let look = async || join_all((0..12).map(|_| world.used(START))).await;
    assert_eq!(look().await, vec![(13_500, 0); 12], "all of them know it");
    let life = |n: u128| {
        let (pool, workspace) = (world.pool.clone(), world.workspace.clone());
        tokio::spawn(async move { live(&pool, workspace, n * 4 + 1).await })
    };
    join_all((1..=60).map(life)).await.into_iter().for_each(|most| assert!(most.unwrap() > 0));
    assert_eq!(look().await, vec![(61 * 13_500, 0); 12]);
    world.check().await;
}

/// Begins, signs of life that grow holds, ends, double ends and expiries of 300 turns, all at once on a budget for a few.
async fn whatever_happens_at_once_the_sums_are_the_ledgers(way: Way) {
    let limit = 12 * one(1_000_000_000).await;
    let world = World::new_as(way, 12, json!({ "maxCostNanoUsdPerMonth": limit })).await;
    let life = |n: u128| {
        let (pool, workspace) = (world.pool.clone(), world.workspace.clone());
        tokio::spawn(async move { live(&pool, workspace, n).await })
    };
    let most: Vec<i64> = join_all((1..=300).map(life)).await.into_iter().map(Result::unwrap).collect();
    // Clocks a lease apart end turns that live: their settlements, which come after all, correct what is held by nobody any more.
    let corrected = world.number("SELECT count(*) FROM ledger WHERE workspace_id = $1 AND kind = 'correction'").await;
    let may_be = limit + corrected * 13_500;
    assert!(most.iter().all(|most| *most <= may_be), "{limit} was exceeded: {most:?}, {corrected} corrections");
    world.check().await;
    let over = START.plus_millis(100_000_000);
    astra_quota_rows::RowsCounter::open(&world.pool, world.workspace.clone()).expire(over).await.unwrap();
    assert_eq!(world.number("SELECT count(*) FROM holds WHERE workspace_id = $1").await, 0);
    assert_eq!(world.number("SELECT cost_held + tokens_held FROM quota_windows WHERE workspace_id = $1 AND scope = 'workspace'").await, 0);
    world.check().await;
}

async fn live(pool: &Pool, workspace: astra_kernel::WorkspaceId, n: u128) -> i64 {
    let counter = RowsCounter::open(pool, workspace);
    let now = START.plus_millis(i64::try_from(n).unwrap() * 200);
    let begin = begin(n);
    let mut most = 0;
    if let Answer::Begun(begun) = counter.ask(&Ask::Begin(Box::new(begin.clone())), now).await {
        let extend = astra_quota::words::Extend {
            turn_id: begin.turn_id,
            sequence: 1,
            progress: usage(5, 5),
            input_bound: begun.input_bound + u64::try_from(n).unwrap(),
            output: 0,
            is_urgent: false,
        };
        let extended = counter.ask(&Ask::Extend(extend), now).await;
        assert!(matches!(extended, Answer::Extended(_) | Answer::NotRunning), "{extended:?}");
        // Each fourth dies; each third sends its end twice.
        for _ in 0..if n.is_multiple_of(4) { 0 } else { 1 + usize::from(n.is_multiple_of(3)) } {
            let record = record(&begin, begun.started_at, usage(10, 20), 13_500, now);
            match counter.ask(&Ask::Finish(Box::new(record)), now).await {
                Answer::Finished(finished) => most = most.max(finished.quota.windows[0].used + finished.quota.windows[0].held),
                other => panic!("{other:?}"),
            }
        }
    }
    most
}

/// Thirty turns need more output at the same moment, and there is some for a few: what all of them decided from what they read is compared once more.
async fn kf01_turns_that_grow_at_once_never_pass_the_limit_together(way: Way) {
    let limit = 10_000_000;
    let world = World::new_as(way, 12, json!({ "maxCostNanoUsdPerMonth": limit })).await;
    world.set_agent("a", 30_000, json!({})).await;
    let begun = passed(&crowd(&world, (1..=30).map(begin)).await);
    assert_eq!(begun, 30);
    for round in 1..=5 {
        let grow = |n: u128| {
            let (pool, workspace) = (world.pool.clone(), world.workspace.clone());
            let turn_id = begin(n).turn_id;
            let (progress, output, is_urgent) = (usage(5, 5), 256 + u64::from(round) * 100, n.is_multiple_of(2));
            let extend = astra_quota::words::Extend { turn_id, sequence: round, progress, input_bound: 0, output, is_urgent };
            tokio::spawn(async move { RowsCounter::open(&pool, workspace).ask(&Ask::Extend(extend), START).await })
        };
        for answer in join_all((1..=30).map(grow)).await {
            assert!(matches!(answer.unwrap(), Answer::Extended(_)));
        }
        let (used, held) = world.used(START).await;
        assert!(used == 0 && held <= limit, "{held} of {limit} after round {round}");
        world.check().await;
    }
    let (_, held) = world.used(START).await;
    assert!(held > limit - 100_000, "and all of it is given: {held}");
}
