//! The functions and the counter die and come back.

use crate::{PATIENCE, SOON, a_well_stack, assert_unavailable, assert_whole, slow_answer, under_key, until_it_works, workspace_on};
use astra_tests::workspace::unique;
use astra_tests::{Db, Scripted, Workspace, aimock, canary, environment, stack, template, wait};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test]
async fn kf13_a_restart_of_the_functions_between_turns_loses_nothing_and_refills_nothing() {
    a_well_stack().await;
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 1, "maxTurnsPerMinute": 1000 }), &[template::local("assistant")]).await;
    let key = unique("key");
    let first = under_key(&ws.member, &ws, &key, "before").await.ok(200);
    let before = ws.window("maxCostUsdPerMonth").await;
    stack::restart_functions().await;
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], before["used"]);
    ws.turn_in(&first["sessionId"], "after").await.ok(200);
    assert_eq!(Db::connect().await.messages(&ws.id).await.len(), 4);
    assert_whole(&ws).await;
    let again = under_key(&ws.member, &ws, &key, "before").await.ok(200);
    assert_eq!((&again["turnId"], &again["content"]), (&first["turnId"], &first["content"]), "a key outlives a restart");
    under_key(&ws.member, &ws, &key, "another body").await.problem(422, "idempotency_key_reused");
    let other = under_key(&ws.user("other@test", "member").await, &ws, &key, "before").await;
    let refused = other.problem(422, "idempotency_key_reused");
    assert!(!refused.to_string().contains(first["turnId"].as_str().unwrap()), "{refused}");
    assert_whole(&ws).await;
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 0.000_000_001 })).await;
    ws.turn("too much").await.problem(429, "quota_exceeded");
    stack::restart_functions().await;
    ws.turn("still too much").await.problem(429, "quota_exceeded");
}

#[tokio::test]
async fn a_turn_in_the_middle_of_which_the_functions_die_is_saved_and_charged_once_and_its_hold_ends() {
    let model = Scripted::start(vec![slow_answer()]).await;
    let ws = workspace_on(&model).await;
    let mut stream = ws.stream("will you finish?").await;
    let turn = stream.next_named("turn.started").await.data["turnId"].clone();
    stream.next_named("content.delta").await;
    stream.next_named("content.delta").await;
    stack::restart_functions().await;
    let broke = async {
        while let Ok(Some(event)) = stream.try_next().await {
            assert_ne!(event.name, "turn.completed");
        }
    };
    tokio::time::timeout(SOON, broke).await.expect("the stream ended with the functions");
    // The next turn does not wait for the lost one.
    ws.turn("meanwhile").await.ok(200);
    let database = Db::connect().await;
    let patience = environment::model_timeout() + PATIENCE;
    let lost = wait::until("the lost turn's entry", patience, async || {
        let ledger = database.ledger(&ws.id).await;
        ledger.iter().find(|entry| entry["turn_id"] == turn).cloned().ok_or(ledger)
    })
    .await;
    let most = aimock::gpt_4o_mini_nano(1000, 2000);
    assert!(lost["nano"].as_i64().unwrap() <= most && lost["source"] == "estimated", "{lost}");
    let saved = database.messages(&ws.id).await;
    assert!(
        saved.iter().any(|m| m["turn_id"] == turn && m["content"] == canary::message("will you finish?").as_str()),
        "the user's words are kept"
    );
    assert_whole(&ws).await;
}

#[tokio::test]
async fn a_retry_under_the_same_key_after_the_functions_died_is_not_charged_twice() {
    let model = Scripted::start(vec![slow_answer()]).await;
    let ws = workspace_on(&model).await;
    let (key, body) = (unique("key"), Workspace::turn_body("only once, please"));
    let send = || ws.member.request(http::Method::POST, &ws.path("/turns")).json(&body).header("idempotency-key", &key).try_send();
    let first = tokio::spawn(send());
    wait::until("the model call", SOON, async || if model.calls().is_empty() { Err("none") } else { Ok(()) }).await;
    wait::millis(600).await;
    stack::restart_functions().await;
    assert!(first.await.unwrap().map_or(true, |reply| reply.status >= 500), "the first try died with the functions");
    // While the lost turn is still taken for running, and when it has been ended.
    let database = Db::connect().await;
    let patience = environment::model_timeout() + PATIENCE;
    let retry = async || {
        let reply = send().await.expect("they are back");
        assert!(reply.status != 500, "{reply:?}");
    };
    wait::until("the turn's entry", patience, async || {
        retry().await;
        if database.ledger(&ws.id).await.is_empty() { Err("none yet") } else { Ok(()) }
    })
    .await;
    retry().await;
    wait::millis(1000).await;
    let ledger = database.ledger(&ws.id).await;
    assert_eq!(ledger.iter().filter(|entry| entry["kind"] == "turn").count(), 1, "{ledger:#?}");
    assert_whole(&ws).await;
}

/// Turn after turn until told to end. A connection that breaks is to be expected; an answer that never comes is not.
async fn keep_asking(ws: Workspace, over: Arc<AtomicBool>) -> usize {
    let mut answered = 0;
    while !over.load(Ordering::Relaxed) {
        let request = ws.member.request(http::Method::POST, &ws.path("/turns")).json(&Workspace::turn_body("again"));
        match tokio::time::timeout(SOON, request.try_send()).await.expect("a turn hangs") {
            Ok(reply) if reply.status == 200 => answered += 1,
            Ok(reply) => assert_unavailable(reply),
            Err(_) => wait::millis(50).await,
        }
    }
    answered
}

#[tokio::test]
async fn a_crash_under_load_is_got_over_again_and_again() {
    a_well_stack().await;
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 1000 }), &[template::local("assistant")]).await;
    for crash in 1..=3 {
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..16).map(|_| tokio::spawn(keep_asking(ws.clone(), over.clone()))).collect();
        wait::millis(1000).await;
        stack::restart_functions().await;
        // All of them find a counter that has to be loaded first.
        wait::millis(3000).await;
        over.store(true, Ordering::Relaxed);
        let mut answered = 0;
        for client in clients {
            answered += client.await.expect("no client waits in vain");
        }
        assert!(answered > 50, "{answered} turns around crash {crash}");
    }
    until_it_works(&ws, "after").await;
    wait::until("all holds to end", environment::model_timeout() + PATIENCE, async || match ws.held().await {
        0 => Ok(()),
        held => Err(held),
    })
    .await;
    assert_whole(&ws).await;
}

#[tokio::test]
async fn functions_that_are_asked_to_end_during_a_hundred_streams_settle_all_of_them() {
    let model = Scripted::obedient(20, 100).await;
    let ws = workspace_on(&model).await;
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 100 })).await;
    let streams = (0..100).map(|n| {
        let ws = ws.clone();
        tokio::spawn(async move { ws.stream(&format!("number {n}")).await })
    });
    let mut running = Vec::new();
    for stream in streams.collect::<Vec<_>>() {
        let mut stream = stream.await.unwrap();
        let turn = stream.next_named("turn.started").await.data["turnId"].clone();
        running.push(tokio::spawn(async move {
            let mut last = String::new();
            while let Ok(Some(event)) = stream.try_next().await {
                last = event.name;
            }
            (turn, last)
        }));
    }
    stack::end_and_start_functions().await;
    let mut completed = Vec::new();
    for stream in running {
        let (turn, last) = stream.await.unwrap();
        if last == "turn.completed" {
            completed.push(turn);
        }
    }
    if environment::host() == "native" {
        assert_eq!(completed.len(), 100, "a server that is asked to end finishes what has begun");
    }
    let database = Db::connect().await;
    let patience = environment::model_timeout() + PATIENCE;
    let ledger = wait::until("all entries", patience, async || {
        // The next turn of a workspace ends those that have died.
        ws.held().await;
        let ledger = database.ledger(&ws.id).await;
        if ledger.iter().filter(|entry| entry["kind"] == "turn").count() == 100 { Ok(ledger) } else { Err(ledger.len()) }
    })
    .await;
    for turn in completed {
        let entry = ledger.iter().find(|entry| entry["turn_id"] == turn).expect("an entry for a turn that was told to be complete");
        assert_eq!((&entry["source"], &entry["output_tokens"]), (&json!("provider"), &json!(20)));
    }
    wait::until("all holds to end", patience, async || match ws.held().await {
        0 => Ok(()),
        held => Err(held),
    })
    .await;
    assert_whole(&ws).await;
}
