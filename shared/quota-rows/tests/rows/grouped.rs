//! What comes together goes together, and nobody notices.

use crate::world::{START, Way, World, begin, record, usage};
use astra_quota::{Answer, Ask};
use astra_quota_rows::RowsCounter;
use astra_store::{Database as _, StoreError, tenant_statement};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a database"]
async fn many_turns_at_once_take_few_statements() {
    let world = World::new_as(Way::Together, 6, json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_i64 })).await;
    world.begun(&begin(1), START).await;
    let before = world.pool.sent();
    let life = |n: u128| {
        let (pool, workspace) = (world.pool.clone(), world.workspace.clone());
        tokio::spawn(async move {
            let counter = RowsCounter::open(&pool, workspace);
            let Answer::Begun(begun) = counter.ask(&Ask::Begin(Box::new(begin(n))), START).await else { panic!("refused") };
            let record = record(&begin(n), begun.started_at, usage(10, 20), 13_500, START);
            let finished = counter.ask(&Ask::Finish(Box::new(record)), START).await;
            assert!(matches!(finished, Answer::Finished(_)), "{finished:?}");
        })
    };
    join_all((2..=101).map(life)).await.into_iter().for_each(|ended| ended.unwrap());
    let sent = world.pool.sent() - before;
    assert!(sent < 150, "100 turns have 300 calls; {sent} statements were sent");
    assert_eq!(world.number("SELECT count(*) FROM ledger WHERE workspace_id = $1 AND cost_usd = 0.0000135").await, 100);
    assert_eq!(world.number("SELECT count(*) FROM turns WHERE workspace_id = $1 AND status = 'completed'").await, 100);
    assert_eq!(world.number("SELECT count(*) FROM messages WHERE workspace_id = $1").await, 200);
    world.check().await;
}

/// A call that the database refuses (and that nobody here would send) between two that it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a database"]
async fn a_call_that_fails_fails_alone() {
    let world = World::new_as(Way::Together, 3, json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_i64 })).await;
    for n in 1..=9 {
        world.begun(&begin(n), START).await;
    }
    let proof = crate::world::proof(&world.workspace);
    let finish = |n: u128| {
        let record = record(&begin(n), START, usage(10, 20), 13_500, START);
        let counter = RowsCounter::open(&world.pool, world.workspace.clone());
        async move { counter.ask(&Ask::Finish(Box::new(record)), START).await }
    };
    let broken = async || world.pool.query(tenant_statement!("hold_take"), &[&proof, r#"{"turnId":"not one"}"#]).await;
    let (ends, faults) = futures_util::join!(join_all((1..=9).map(finish)), join_all((0..6).map(|_| broken())));
    for end in ends {
        assert!(matches!(end, Answer::Finished(_)), "{end:?}");
    }
    for fault in faults {
        assert_eq!(fault, Err(StoreError::Fault("22P02".into())), "its own fault, with its own SQLSTATE");
    }
    assert_eq!(world.number("SELECT count(*) FROM ledger WHERE workspace_id = $1").await, 9);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a database"]
async fn a_caller_that_goes_takes_nobodys_answer_along() {
    let world = World::new_as(Way::Together, 1, json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_i64 })).await;
    let finish = |n: u128| {
        let record = record(&begin(n), START, usage(10, 20), 13_500, START);
        let counter = RowsCounter::open(&world.pool, world.workspace.clone());
        Box::pin(async move { counter.ask(&Ask::Finish(Box::new(record)), START).await })
    };
    for n in 1..=12 {
        world.begun(&begin(n), START).await;
    }
    let mut ends: Vec<_> = (1..=12).map(finish).collect();
    for end in &mut ends {
        assert!(end.now_or_never().is_none());
    }
    // The first of each process's line, whose statement is under way, and some of those behind it.
    drop(ends.drain(0..6));
    for end in join_all(ends).await {
        assert!(matches!(end, Answer::Finished(_)), "{end:?}");
    }
    let all = "SELECT count(*) FROM ledger WHERE workspace_id = $1";
    for _ in 0..200 {
        if world.number(all).await == 12 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(world.number(all).await, 12, "what was asked is done, whether or not anybody waits for it");
    world.check().await;
}
