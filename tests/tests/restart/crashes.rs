//! kill -9 of the functions at any step of a turn, again and again, while turns run.
//!
//! `CRASHES` is how often; `scripts/prove crash` does it 200 times. They come in rounds, each with a workspace of its own, which is looked over when the round
//! is done. The moment of each kill is left to chance, and the clients are never in step, so each round meets other steps.

use crate::{assert_unavailable, assert_whole, until_it_works, workspace_on};
use astra_tests::{Db, Reply, Scripted, Stream, Workspace, environment, scripted, stack, wait};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CLIENTS: usize = 12;
/// Crashes of one round at most.
const ROUND: usize = 20;
/// A kill comes within so many milliseconds after the functions are back.
const MOMENTS: u128 = 1000;

/// What clients were told: the answers that were read whole, and the turns whose first event was read.
#[derive(Default)]
struct Told {
    whole: Vec<Value>,
    begun: Vec<String>,
}

/// What a client does with one turn. None when the functions died or were away.
async fn one_turn(ws: &Workspace, streamed: bool, told: &mut Told) -> Option<()> {
    let request = ws.member.request(http::Method::POST, &ws.path("/turns")).json(&Workspace::turn_body("again"));
    if !streamed {
        let reply = request.try_send().await.ok()?;
        if reply.status == 200 {
            told.whole.push(reply.json());
            return Some(());
        }
        return away(reply);
    }
    let response = request.header("accept", "text/event-stream").open().await.ok()?;
    if response.status() != 200 {
        assert_eq!(response.status(), 503);
        return None;
    }
    let mut stream = Stream::of(response);
    while let Some(event) = stream.try_next().await.ok()? {
        match event.name.as_str() {
            "turn.started" => told.begun.push(event.data["turnId"].as_str().unwrap().to_owned()),
            "turn.completed" => told.whole.push(event.data),
            _ => {}
        }
    }
    Some(())
}

fn away(reply: Reply) -> Option<()> {
    assert_unavailable(reply);
    None
}

async fn keep_asking(ws: Workspace, number: usize, over: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut turns = number;
    while !over.load(Ordering::Relaxed) {
        turns += 1;
        let turn = one_turn(&ws, turns.is_multiple_of(2), &mut told);
        let patience = environment::model_timeout() + Duration::from_secs(30);
        if tokio::time::timeout(patience, turn).await.expect("a turn hangs").is_none() {
            wait::millis(20).await;
        }
    }
    told
}

/// Waits for nothing but the moment of a kill.
async fn any_moment() {
    wait::millis(u64::try_from(uuid::Uuid::new_v4().as_u128() % MOMENTS).unwrap()).await;
}

/// So many crashes while clients ask; then all must be as if each turn had either been whole or died.
async fn round(model: &Scripted, crashes: usize) -> String {
    let ws = workspace_on(model).await;
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 1000 })).await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(keep_asking(ws.clone(), n, over.clone()))).collect();
    for _ in 0..crashes {
        any_moment().await;
        stack::restart_functions().await;
    }
    any_moment().await;
    over.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for client in clients {
        let Told { whole, begun } = client.await.expect("no client waits in vain");
        told.whole.extend(whole);
        told.begun.extend(begun);
    }
    told.whole.push(until_it_works(&ws, "after").await);
    // Who counts on rows ends what has expired when somebody asks, an object at its alarm.
    let patience = environment::hold_lease() + Duration::from_secs(15);
    wait::until("all holds to end with their leases", patience, async || match ws.held().await {
        0 => Ok(()),
        held => Err(held),
    })
    .await;
    assert_whole(&ws).await;
    let ledger = Db::connect().await.ledger(&ws.id).await;
    assert_told(&ledger, &told);
    let lost = ledger.iter().filter(|entry| entry["source"] == "estimated").count();
    assert!(told.whole.len() > crashes, "{} turns around {crashes} crashes", told.whole.len());
    format!("{crashes} crashes: {} turns told whole, {} entries, {lost} of them of turns that died", told.whole.len(), ledger.len())
}

/// Each answer that was read whole is entered once, with the usage it told, and never corrected; each turn that was said to have begun is entered once.
fn assert_told(ledger: &[Value], told: &Told) {
    let mut entries = HashMap::<&str, Vec<&Value>>::new();
    for entry in ledger {
        entries.entry(entry["turn_id"].as_str().unwrap()).or_default().push(entry);
    }
    for answer in &told.whole {
        let usage = &answer["usage"];
        match entries.get(answer["turnId"].as_str().unwrap()).map(Vec::as_slice) {
            Some([entry]) => assert_eq!(
                [&entry["kind"], &entry["input_tokens"], &entry["output_tokens"], &entry["source"], &entry["nano"]],
                [&json!("turn"), &usage["inputTokens"], &usage["outputTokens"], &usage["source"], &answer["costNanoUsd"]]
            ),
            other => panic!("{answer} is entered as {other:?}"),
        }
    }
    for turn in &told.begun {
        let entered = entries.get(turn.as_str()).map_or(0, |found| found.iter().filter(|entry| entry["kind"] == "turn").count());
        assert_eq!(entered, 1, "turn {turn}, which had begun");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kf05_kf07_functions_that_are_killed_at_any_step_lose_and_double_nothing_and_leave_nothing_held() {
    // Most turns are short, so that many are just beginning or ending at any moment; some are long enough to have given a sign of life.
    let model = Scripted::directed(|number, body| {
        let (words, millis) = if number.is_multiple_of(6) { (40, 40) } else { (5, 15) };
        scripted::obey(body, words, 1, millis)
    })
    .await;
    let mut left = environment::scale("CRASHES", 8);
    while left > 0 {
        let crashes = left.min(ROUND);
        println!("{}", round(&model, crashes).await);
        left -= crashes;
    }
}
