//! Everybody at once.

use astra_tests::{Api, Db, Scripted, Workspace, canary, db, template};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Looks at the quota as fast as it can until told to end; fails the moment that more is used and held than the limit allows.
async fn watch(ws: Workspace, limit: &'static str, over: Arc<AtomicBool>) -> (usize, i64) {
    let (mut looks, mut most_held) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let window = ws.window(limit).await;
        let number = |name: &str| window[name].as_i64().unwrap_or_else(|| panic!("{name}: {window}"));
        assert!(number("used") + number("held") <= number("max"), "more than the limit: {window}");
        assert!(number("left") >= 0, "{window}");
        most_held = most_held.max(number("held"));
        looks += 1;
    }
    (looks, most_held)
}

async fn hundred_at_once(ws: &Workspace, limit: &'static str) -> Vec<Value> {
    let over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch(ws.clone(), limit, over.clone()));
    let replies = futures_util::future::join_all((0..100).map(|n| {
        let ws = ws.clone();
        async move { ws.turn(&format!("number {n} of the rush")).await }
    }))
    .await;
    over.store(true, Ordering::Relaxed);
    let (looks, most_held) = watcher.await.expect("used + held stayed within the limit");
    assert!(looks > 0 && most_held > 0, "{looks} looks saw at most {most_held} held: it was watched while turns ran");
    let mut answers = Vec::new();
    for reply in replies {
        if reply.status == 200 {
            answers.push(reply.json());
        } else {
            let problem = reply.problem(429, "quota_exceeded");
            assert_eq!(problem["limit"], limit);
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kf01_a_hundred_turns_at_once_never_pass_the_months_cost_together() {
    let model = Scripted::obedient(60, 15).await;
    let ws = Workspace::openai_with(&model.openai(), &json!({ "maxCostUsdPerMonth": 0.001 })).await;
    let answers = hundred_at_once(&ws, "maxCostUsdPerMonth").await;
    let ledger = Db::connect().await.ledger(&ws.id).await;
    let spent = db::nano(&ledger);
    assert!(spent <= 1_000_000, "{spent}");
    assert!(!answers.is_empty(), "at least one turn went through");
    assert_eq!(answers.iter().map(|a| a["costNanoUsd"].as_i64().unwrap()).sum::<i64>(), spent, "what was told is what is in the ledger");
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!((&window["used"], &window["held"]), (&json!(spent), &json!(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_turns_at_once_never_pass_the_months_tokens_together() {
    let model = Scripted::obedient(40, 10).await;
    let ws = Workspace::openai_with(&model.openai(), &json!({ "maxTokensPerMonth": 3000 })).await;
    let answers = hundred_at_once(&ws, "maxTokensPerMonth").await;
    let spent = db::tokens(&Db::connect().await.ledger(&ws.id).await);
    assert!(spent <= 3000 && !answers.is_empty(), "{spent} tokens in {} turns", answers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kf02_the_first_turns_of_a_workspace_do_not_race_each_other() {
    let agent = template::local("assistant");
    let ws = Workspace::with(&json!({ "maxTurnsPerMinute": 7 }), &[agent]).await;
    let replies = futures_util::future::join_all((0..30).map(|_| ws.turn("first!"))).await;
    let through = replies.iter().filter(|r| r.status == 200).count();
    assert_eq!(through, 7, "{replies:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_turns_at_once_without_a_limit_all_go_through_and_are_all_in_the_ledger_once() {
    let ws = Workspace::local().await;
    let replies = futures_util::future::join_all((0..100).map(|_| ws.turn("no hurry"))).await;
    let mut told: Vec<_> = replies.into_iter().map(|r| r.ok(200)["turnId"].as_str().unwrap().to_owned()).collect();
    let ledger = Db::connect().await.ledger(&ws.id).await;
    let mut kept: Vec<_> = ledger.iter().map(|e| e["turn_id"].as_str().unwrap().to_owned()).collect();
    told.sort();
    kept.sort();
    assert_eq!(told, kept);
    let seqs: Vec<_> = ledger.iter().map(|e| e["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>(), "the ledger has no gap");
}

#[tokio::test]
async fn kf10_a_turn_is_charged_at_the_price_it_was_held_at() {
    let model = Scripted::obedient(20, 100).await;
    let name = astra_tests::workspace::unique("model");
    let price = |usd: f64| {
        json!({ "provider": "openai", "model": name, "inputUsdPerMtok": usd, "cachedInputUsdPerMtok": usd, "outputUsdPerMtok": usd,
            "validFrom": "2026-01-01T00:00:00Z" })
    };
    put_price(&price(0.1)).await;
    let mut agent = template::openai("assistant", &model.openai());
    agent["model"]["modelId"] = name.as_str().into();
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 1 }), &[agent]).await;
    ws.put_secret("OPENAI_API_KEY", &canary::key()).await;
    let mut stream = ws.stream("what is the price?").await;
    stream.next_named("content.delta").await;
    put_price(&price(100.0)).await;
    let completed = stream.next_named("turn.completed").await.data;
    let tokens = completed["usage"]["inputTokens"].as_i64().unwrap() + completed["usage"]["outputTokens"].as_i64().unwrap();
    assert_eq!(completed["costNanoUsd"], tokens * 100, "the old price: {completed}");
    let later = ws.turn("and now?").await.ok(200);
    assert!(later["costNanoUsd"].as_i64().unwrap() > tokens * 100 * 100, "the new one: {later}");
    let versions: Vec<_> = Db::connect().await.ledger(&ws.id).await.iter().map(|e| e["price_version"].clone()).collect();
    assert_eq!(versions, [1, 2]);
}

async fn put_price(price: &Value) {
    let stored = Api::operator().put("/billing/prices", price).await.ok(200);
    assert!(stored["version"].is_number(), "{stored}");
}
