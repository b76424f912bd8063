//! How many decisions the rows take in a second. `ROWS_LOAD=seconds,workspaces` says how long and how wide; it is short unless told
//! (`scripts/prove rows`). What is asserted is that the sums are right afterwards, not how many there were.

use crate::world::{START, Way, World, begin, record, usage};
use astra_kernel::Usage;
use astra_quota::words::Extend;
use astra_quota::{Answer, Ask};
use astra_quota_rows::RowsCounter;
use futures_util::future::join_all;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const CONNECTIONS: usize = 16;

fn load() -> (Duration, usize) {
    let text = std::env::var("ROWS_LOAD").unwrap_or_else(|_| "0.5,20".into());
    let (seconds, workspaces) = text.split_once(',').expect("ROWS_LOAD=seconds,workspaces");
    (Duration::from_secs_f64(seconds.parse().unwrap()), workspaces.parse().unwrap())
}

/// Turns that only begin, that begin and end, or that begin once on each connection and then grow again and again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Begin,
    BeginAndEnd,
    Grow,
}

/// Asks on all connections at once; how many a second.
async fn run(worlds: &Arc<Vec<World>>, asks: Asks, lasts: Duration, numbers: &Arc<AtomicU64>) -> f64 {
    let start = Instant::now();
    let clients = (0..CONNECTIONS).map(|_| {
        let (worlds, numbers) = (Arc::clone(worlds), Arc::clone(numbers));
        tokio::spawn(async move {
            let mut done = 0_u32;
            while start.elapsed() < lasts {
                let n = numbers.fetch_add(1, Ordering::Relaxed);
                let world = &worlds[usize::try_from(n).unwrap() % worlds.len()];
                let counter = RowsCounter::open(&world.pool, world.workspace.clone());
                let turn = begin(n.into());
                let Answer::Begun(begun) = counter.ask(&Ask::Begin(Box::new(turn.clone())), START).await else { panic!("refused") };
                if asks == Asks::Grow {
                    for sequence in 1.. {
                        if start.elapsed() >= lasts {
                            break;
                        }
                        let output = begun.output + u64::from(sequence);
                        let extend =
                            Extend { turn_id: turn.turn_id, sequence, progress: Usage::NONE, input_bound: 0, output, is_urgent: false };
                        let Answer::Extended(extended) = counter.ask(&Ask::Extend(extend), START).await else { panic!("not extended") };
                        assert!(extended.covered);
                        done += 1;
                    }
                    break;
                }
                if asks == Asks::BeginAndEnd {
                    let record = record(&turn, begun.started_at, usage(10, 20), 13_500, START);
                    assert!(matches!(counter.ask(&Ask::Finish(Box::new(record)), START).await, Answer::Finished(_)));
                }
                done += 1;
            }
            done
        })
    });
    let done: u32 = join_all(clients).await.into_iter().map(Result::unwrap).sum();
    f64::from(done) / start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a database"]
async fn decisions_under_load_leave_the_sums_right() {
    let (lasts, wide) = load();
    let limits = json!({ "maxCostNanoUsdPerMonth": 1_000_000_000_000_000_i64, "maxTokensPerMonth": 1_000_000_000_000_i64 });
    let first = World::new(CONNECTIONS, limits.clone()).await;
    let mut many = Vec::new();
    for _ in 0..wide {
        many.push(first.beside(limits.clone()).await);
    }
    let together = World::new_as(Way::Together, CONNECTIONS, limits).await;
    let numbers = Arc::new(AtomicU64::new(1));
    let (one, together, many) = (Arc::new(vec![first]), Arc::new(vec![together]), Arc::new(many));
    for (what, worlds) in [("one workspace", &one), ("one workspace, sent together", &together), ("many workspaces", &many)] {
        for (name, asks) in [("holds", Asks::Begin), ("extensions", Asks::Grow), ("turns (hold, settle, record)", Asks::BeginAndEnd)] {
            let rate = run(worlds, asks, lasts, &numbers).await;
            println!("{what} ({}), {CONNECTIONS} connections: {rate:.0} {name} a second", worlds.len());
        }
    }
    for world in one.iter().chain(together.iter()).chain(many.iter()) {
        world.check().await;
    }
}
