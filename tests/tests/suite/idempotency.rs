//! Idempotency-Key: the same answer, no second model call, no second charge.

use astra_tests::workspace::unique;
use astra_tests::{Aimock, Api, Db, Reply, Stream, Workspace, sse};
use serde_json::{Value, json};

async fn turn(api: &Api, ws: &Workspace, key: &str, body: &Value) -> Reply {
    api.request(http::Method::POST, &ws.path("/turns")).json(body).header("idempotency-key", key).send().await
}

/// An answer without what tells of the present: what is left of the quota.
fn lasting(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("quota");
    answer
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_one_model_call_and_one_ledger_entry() {
    let mock = Aimock::start().await;
    mock.answer("once", "Only once.", 20, 3).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let (key, body) = (unique("key"), Workspace::turn_body("once"));
    let first = turn(&ws.member, &ws, &key, &body).await.ok(200);
    let second = turn(&ws.member, &ws, &key, &body).await.ok(200);
    assert_eq!(lasting(second), lasting(first.clone()));
    // Read back as events: the same turn again.
    let replayed = Stream::open_with(&ws.member, &ws.path("/turns"), &body, &[("idempotency-key", &key)]).await.rest().await;
    assert_eq!(sse::text(&replayed), "Only once.");
    assert_eq!(sse::only(&replayed, "turn.completed")["turnId"], first["turnId"]);
    assert_eq!(mock.calls("once").await.len(), 1);
    let db = Db::connect().await;
    assert_eq!((db.ledger(&ws.id).await.len(), db.messages(&ws.id).await.len()), (1, 2));
}

#[tokio::test]
async fn the_same_key_at_the_same_moment_is_one_turn() {
    let mock = Aimock::start().await;
    mock.answer_slowly("together", "All get this one answer.", (20, 6), 100).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let (key, body) = (unique("key"), Workspace::turn_body("together"));
    let replies = futures_util::future::join_all((0..6).map(|_| turn(&ws.member, &ws, &key, &body))).await;
    let answers: Vec<_> = replies.into_iter().map(|reply| lasting(reply.ok(200))).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(mock.calls("together").await.len(), 1);
    let db = Db::connect().await;
    assert_eq!((db.ledger(&ws.id).await.len(), db.messages(&ws.id).await.len()), (1, 2));
    assert_eq!(ws.held().await, 0);
}

#[tokio::test]
async fn a_key_used_with_another_body_is_refused_running_or_done() {
    let mock = Aimock::start().await;
    mock.answer_slowly("slow", "A slow answer to hold on to.", (20, 7), 150).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let key = unique("key");
    let mut running = Stream::open_with(&ws.member, &ws.path("/turns"), &Workspace::turn_body("slow"), &[("idempotency-key", &key)]).await;
    running.next_named("content.delta").await;
    turn(&ws.member, &ws, &key, &Workspace::turn_body("other")).await.problem(422, "idempotency_key_reused");
    running.next_named("turn.completed").await;
    turn(&ws.member, &ws, &key, &Workspace::turn_body("other")).await.problem(422, "idempotency_key_reused");
    assert_eq!(Db::connect().await.ledger(&ws.id).await.len(), 1);
}

#[tokio::test]
async fn another_members_key_tells_nothing_and_another_workspaces_key_is_another_key() {
    let (ws, other) = (Workspace::local().await, Workspace::local().await);
    let (key, body) = (unique("key"), Workspace::turn_body("private"));
    let first = turn(&ws.member, &ws, &key, &body).await.ok(200);
    let reply = turn(&ws.user("other@test", "member").await, &ws, &key, &body).await;
    assert!(!String::from_utf8_lossy(&reply.body).contains(first["turnId"].as_str().unwrap()), "{reply:?}");
    let elsewhere = turn(&other.member, &other, &key, &body).await.ok(200);
    assert_ne!(elsewhere["turnId"], first["turnId"]);
}

#[tokio::test]
async fn a_key_of_no_use_is_refused() {
    let ws = Workspace::local().await;
    for key in [&"k".repeat(10_000), ""] {
        let reply = turn(&ws.member, &ws, key, &Workspace::turn_body("x")).await;
        assert!([200, 400, 422].contains(&reply.status), "{reply:?}");
    }
}

#[tokio::test]
async fn a_failed_turn_under_a_key_is_charged_at_most_once() {
    let mock = Aimock::start().await;
    mock.fixture(&json!({ "match": { "userMessage": "fails" }, "response": { "error": { "message": "no", "type": "x" }, "status": 400 } }))
        .await;
    let ws = Workspace::openai(&mock.openai()).await;
    let (key, body) = (unique("key"), Workspace::turn_body("fails"));
    turn(&ws.member, &ws, &key, &body).await.problem(502, "upstream_error");
    let again = turn(&ws.member, &ws, &key, &body).await;
    assert!(again.status == 502, "{again:?}");
    let db = Db::connect().await;
    let ledger = db.ledger(&ws.id).await;
    assert_eq!(astra_tests::db::nano(&ledger), 0, "{ledger:?}");
    assert_eq!(ws.held().await, 0);
}
