//! Parts of the stack die and come back, between turns and in the middle of them.
//!
//! These tests take the stack away from everybody, so each runs alone: .config/nextest.toml gives them all of nextest's threads.

#![expect(clippy::unwrap_used, reason = "all of this is tests, their helpers too")]

mod crashes;
mod functions;
mod jobs;
mod our_budgets;
mod postgres;

use astra_tests::scripted::{self, Act};
use astra_tests::{Api, Db, Reply, Scripted, Workspace, db, stack, wait};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// For what the counter does by itself: a lost turn's lease has to end, and a record that the database did not take is sent again after
/// waits that grow to a minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// A turn that did not go through says so in one way only: 503, and nothing was done.
fn assert_unavailable(reply: Reply) {
    let problem = reply.problem(503, "unavailable");
    assert!(!problem.to_string().contains("postgres://"), "{problem}");
}

/// Asks until it goes through. Every refusal meanwhile has to be an honest one.
async fn until_it_works(ws: &Workspace, message: &str) -> Value {
    wait::until("a turn that goes through", SOON, async || {
        let reply = ws.turn(message).await;
        if reply.status == 200 {
            return Ok(reply.json());
        }
        refused_for_now(reply)
    })
    .await
}

/// The same for the workspace's quota: it is another function's, whose own role the pooler may not have let in yet.
async fn until_quota_is_told(ws: &Workspace) {
    wait::until("a quota that is told", SOON, async || {
        let reply = ws.owner.get(&ws.path("/quota")).await;
        if reply.status == 200 { Ok(()) } else { refused_for_now(reply) }
    })
    .await;
}

fn refused_for_now<T>(reply: Reply) -> Result<T, String> {
    let seen = format!("{reply:?}");
    assert_unavailable(reply);
    Err(seen)
}

/// Starts what a test before this one may have left away, and waits until turns go through: a pooler remembers for a while that a login failed.
async fn a_well_stack() {
    stack::whole().await;
    wait::until("a healthy /healthz", SOON, async || match Api::anonymous().request(http::Method::GET, "/healthz").try_send().await {
        Ok(reply) if reply.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let ws = Workspace::local().await;
    wait::until("a turn that goes through", SOON, async || match ws.turn("is all well?").await.status {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
}

/// What must be so of a workspace at rest, whatever happened to it: each turn has one entry of the same cost and the user's words; the
/// counter agrees with the ledger; nothing is held.
async fn assert_whole(ws: &Workspace) {
    until_quota_is_told(ws).await;
    let database = Db::connect().await;
    let (ledger, turns, messages) = (database.ledger(&ws.id).await, database.turns(&ws.id).await, database.messages(&ws.id).await);
    // By turn: after a rush there are thousands, and a long search in between lets the client's idle connections go stale.
    let (entries, said) = (by_turn(&ledger), by_turn(&messages));
    for turn in &turns {
        let id = turn["id"].as_str().unwrap();
        let entries: Vec<_> = entries.get(id).into_iter().flatten().copied().cloned().collect();
        assert_eq!(entries.iter().filter(|e| e["kind"] == "turn").count(), 1, "{turn}: {entries:?}");
        assert_eq!(db::nano(&entries), turn["nano"].as_i64().unwrap(), "{turn}: {entries:?}");
        let said: Vec<_> = said.get(id).into_iter().flatten().map(|m| m["role"].as_str().unwrap()).collect();
        let expected: &[&str] = if turn["status"] == "completed" { &["user", "assistant"] } else { &["user"] };
        assert!(said.starts_with(expected), "{turn}: {said:?}");
    }
    let known: HashSet<_> = turns.iter().map(|t| t["id"].as_str().unwrap()).collect();
    assert!(entries.keys().all(|turn| known.contains(turn)), "no entry without its turn");
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!((&window["used"], &window["held"]), (&json!(db::nano(&ledger)), &json!(0)), "{window}");
}

fn by_turn(rows: &[Value]) -> HashMap<&str, Vec<&Value>> {
    let mut turns = HashMap::<_, Vec<_>>::new();
    for row in rows {
        turns.entry(row["turn_id"].as_str().unwrap_or_default()).or_default().push(row);
    }
    turns
}

async fn workspace_on(model: &Scripted) -> Workspace {
    a_well_stack().await;
    Workspace::openai_with(&model.openai(), &json!({ "maxCostUsdPerMonth": 1 })).await
}

async fn under_key(api: &Api, ws: &Workspace, key: &str, message: &str) -> Reply {
    let request = api.request(http::Method::POST, &ws.path("/turns")).json(&Workspace::turn_body(message));
    request.header("idempotency-key", key).send().await
}

fn slow_answer() -> Vec<Act> {
    scripted::answer(&["one ", "two ", "three ", "four ", "five ", "six ", "seven ", "eight"], 250, 20, 8)
}
