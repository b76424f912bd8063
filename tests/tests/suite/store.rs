//! The database gives up in the middle of a turn, of this turn only.

use astra_tests::{Db, Scripted, Workspace, aimock, db, scripted, wait};
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A workspace's ledger that takes nothing, for as long as this lives.
struct LedgerHeld {
    lock: Db,
    pid: i64,
}

impl LedgerHeld {
    async fn of(ws: &Workspace) -> Self {
        let lock = Db::connect().await;
        let pid = lock.number("SELECT pg_backend_pid()", &[]).await;
        lock.run(&format!("BEGIN; SELECT 1 FROM ledger_heads WHERE workspace_id = '{}' FOR UPDATE", ws.id)).await;
        Self { lock, pid }
    }

    /// Ends statements that wait for it, as a timeout would, until so many have been.
    async fn time_out(&self, statements: usize) {
        let database = Db::connect().await;
        let mut ended = HashSet::new();
        // First who they are, then their end: a plan might call the function for others too.
        let sql = "WITH waiting AS MATERIALIZED
                     (SELECT pid, pid || ' ' || query_start AS statement FROM pg_stat_activity WHERE $1::int = ANY (pg_blocking_pids(pid)))
                   SELECT statement, pg_cancel_backend(pid) FROM waiting";
        wait::until("statements that wait for the ledger", SOON, async || {
            let waiting = database.rows(sql, &[&self.pid.to_string()]).await;
            ended.extend(waiting.iter().map(|row| row["statement"].as_str().unwrap().to_owned()));
            if ended.len() >= statements { Ok(()) } else { Err(ended.len()) }
        })
        .await;
    }

    async fn over(self) {
        self.lock.run("ROLLBACK").await;
    }
}

#[tokio::test]
async fn kf04_a_store_that_times_out_while_a_turn_is_settled_counts_it_once() {
    let model = Scripted::start(vec![scripted::answer(&["one ", "two ", "three"], 100, 9, 3)]).await;
    let ws = Workspace::openai_with(&model.openai(), &json!({ "maxCostUsdPerMonth": 1 })).await;
    ws.turn("first").await.ok(200);
    let mut stream = ws.stream("second").await;
    stream.next_named("content.delta").await;
    let held = LedgerHeld::of(&ws).await;
    held.time_out(2).await;
    held.over().await;
    let told = stream.next_named("turn.completed").await.data;
    let ledger = Db::connect().await.settled(&ws.id, 2, SOON).await;
    let one = aimock::gpt_4o_mini_nano(9, 3);
    assert_eq!((&told["costNanoUsd"], db::nano(&ledger)), (&json!(one), 2 * one), "{ledger:?}");
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!((&window["used"], &window["held"]), (&json!(2 * one), &json!(0)), "tried again is not counted again: {window}");
}
