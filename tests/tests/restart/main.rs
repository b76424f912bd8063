//! Parts of the stack die and come back, between turns and in the middle of them.
//!
//! These tests take the stack away from everybody, so each runs alone: .config/nextest.toml gives them all of nextest's threads.

#![expect(clippy::unwrap_used, reason = "all of this is tests, their helpers too")]

use astra_tests::scripted::{self, Act};
use astra_tests::stack::{self, PostgresAway};
use astra_tests::workspace::unique;
use astra_tests::{Api, Db, Reply, Scripted, Workspace, aimock, canary, db, environment, template, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

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
        let seen = format!("{reply:?}");
        assert_unavailable(reply);
        Err(seen)
    })
    .await
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
    let database = Db::connect().await;
    let (ledger, turns, messages) = (database.ledger(&ws.id).await, database.turns(&ws.id).await, database.messages(&ws.id).await);
    for turn in &turns {
        let entries: Vec<_> = ledger.iter().filter(|e| e["turn_id"] == turn["id"]).cloned().collect();
        assert_eq!(entries.iter().filter(|e| e["kind"] == "turn").count(), 1, "{turn}: {entries:?}");
        assert_eq!(db::nano(&entries), turn["nano"].as_i64().unwrap(), "{turn}: {entries:?}");
        let said: Vec<_> = messages.iter().filter(|m| m["turn_id"] == turn["id"]).map(|m| m["role"].as_str().unwrap()).collect();
        let expected: &[&str] = if turn["status"] == "completed" { &["user", "assistant"] } else { &["user"] };
        assert!(said.starts_with(expected), "{turn}: {said:?}");
    }
    assert!(ledger.iter().all(|e| turns.iter().any(|t| t["id"] == e["turn_id"])), "no entry without its turn");
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!((&window["used"], &window["held"]), (&json!(db::nano(&ledger)), &json!(0)), "{window}");
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

#[tokio::test]
async fn kf13_a_restart_of_workerd_between_turns_loses_nothing_and_refills_nothing() {
    a_well_stack().await;
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 1, "maxTurnsPerMinute": 1000 }), &[template::local("assistant")]).await;
    let key = unique("key");
    let first = under_key(&ws.member, &ws, &key, "before").await.ok(200);
    let before = ws.window("maxCostUsdPerMonth").await;
    stack::restart_workerd().await;
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], before["used"]);
    ws.turn_in(&first["sessionId"], "after").await.ok(200);
    assert_eq!(Db::connect().await.messages(&ws.id).await.len(), 4);
    assert_whole(&ws).await;
    let again = under_key(&ws.member, &ws, &key, "before").await.ok(200);
    assert_eq!((&again["turnId"], &again["content"]), (&first["turnId"], &first["content"]), "a key outlives a restart");
    under_key(&ws.member, &ws, &key, "another body").await.problem(422, "idempotency_key_reused");
    let other = under_key(&ws.user("other@test", "member"), &ws, &key, "before").await;
    assert!(!String::from_utf8_lossy(&other.body).contains(first["turnId"].as_str().unwrap()), "{other:?}");
    assert_whole(&ws).await;
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 0.000_000_001 })).await;
    ws.turn("too much").await.problem(429, "quota_exceeded");
    stack::restart_workerd().await;
    ws.turn("still too much").await.problem(429, "quota_exceeded");
}

#[tokio::test]
async fn a_turn_in_the_middle_of_which_workerd_dies_is_saved_and_charged_once_and_its_hold_ends() {
    let model = Scripted::start(vec![slow_answer()]).await;
    let ws = workspace_on(&model).await;
    let mut stream = ws.stream("will you finish?").await;
    let turn = stream.next_named("turn.started").await.data["turnId"].clone();
    stream.next_named("content.delta").await;
    stream.next_named("content.delta").await;
    stack::restart_workerd().await;
    let broke = async {
        while let Ok(Some(event)) = stream.try_next().await {
            assert_ne!(event.name, "turn.completed");
        }
    };
    tokio::time::timeout(SOON, broke).await.expect("the stream ended with workerd");
    // The next turn does not wait for the lost one.
    ws.turn("meanwhile").await.ok(200);
    let database = Db::connect().await;
    let patience = environment::model_timeout() + Duration::from_secs(90);
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
async fn a_retry_under_the_same_key_after_workerd_died_is_not_charged_twice() {
    let model = Scripted::start(vec![slow_answer()]).await;
    let ws = workspace_on(&model).await;
    let (key, body) = (unique("key"), Workspace::turn_body("only once, please"));
    let send = || ws.member.request(http::Method::POST, &ws.path("/turns")).json(&body).header("idempotency-key", &key).try_send();
    let first = tokio::spawn(send());
    wait::until("the model call", SOON, async || if model.calls().is_empty() { Err("none") } else { Ok(()) }).await;
    wait::millis(600).await;
    stack::restart_workerd().await;
    assert!(first.await.unwrap().map_or(true, |reply| reply.status >= 500), "the first try died with workerd");
    // While the lost turn is still taken for running, and when it has been ended.
    let database = Db::connect().await;
    let patience = environment::model_timeout() + Duration::from_secs(90);
    let retry = async || {
        let reply = send().await.expect("workerd is back");
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

#[tokio::test]
async fn a_restart_of_postgres_between_turns_is_got_over() {
    a_well_stack().await;
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 1 }), &[template::local("assistant")]).await;
    ws.turn("before").await.ok(200);
    stack::restart_postgres().await;
    until_it_works(&ws, "after").await;
    assert_whole(&ws).await;
}

#[tokio::test]
async fn kf06_without_postgres_turns_are_refused_before_any_call_and_after_it_all_is_well() {
    let model = Scripted::start(vec![scripted::answer(&["fine"], 0, 5, 1)]).await;
    let ws = workspace_on(&model).await;
    ws.turn("before").await.ok(200);
    let away = PostgresAway::now().await;
    for _ in 0..5 {
        assert_unavailable(ws.turn("is anybody there?").await);
    }
    let stream = ws
        .member
        .request(http::Method::POST, &ws.path("/turns"))
        .json(&Workspace::turn_body("stream"))
        .header("accept", "text/event-stream");
    assert_unavailable(stream.send().await);
    assert_unavailable(ws.owner.get(&ws.path("/sessions")).await);
    assert_unavailable(ws.owner.get(&ws.path("")).await);
    let body = json!({ "id": unique("t"), "displayName": "x", "plan": "p", "ownerId": "o" });
    assert_unavailable(Api::operator().post("/workspaces", &body).await);
    let health = Api::anonymous().get("/healthz").await;
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(model.calls().len(), 1, "no model call was made for a turn that could not be saved");
    away.over();
    until_it_works(&ws, "after").await;
    assert_eq!(Db::connect().await.ledger(&ws.id).await.len(), 2, "what was refused is not there");
    assert_whole(&ws).await;
    wait::until("a healthy /healthz", SOON, async || match Api::anonymous().get("/healthz").await.status {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
}

#[tokio::test]
async fn kf07_a_turn_that_ends_while_postgres_is_away_is_in_the_ledger_when_it_is_back() {
    let model = Scripted::start(vec![slow_answer()]).await;
    let ws = workspace_on(&model).await;
    let mut stream = ws.stream("hold on").await;
    let turn = stream.next_named("turn.started").await.data["turnId"].clone();
    stream.next_named("content.delta").await;
    let away = PostgresAway::now().await;
    let events = stream.rest().await;
    let last = events.last().expect("the stream says how it ended");
    assert!(["turn.completed", "turn.failed"].contains(&last.name.as_str()), "{last:?}");
    away.over();
    let database = Db::connect().await;
    let ledger = database.settled(&ws.id, 1, Duration::from_secs(90)).await;
    assert_eq!(
        (&ledger[0]["turn_id"], &ledger[0]["nano"], &ledger[0]["source"]),
        (&turn, &json!(aimock::gpt_4o_mini_nano(20, 8)), &json!("provider"))
    );
    let messages = database.messages(&ws.id).await;
    assert_eq!(messages.last().unwrap()["content"], "one two three four five six seven eight");
    assert_whole(&ws).await;
}

#[tokio::test]
async fn a_restart_of_postgres_in_the_middle_of_many_turns_leaves_none_half_saved() {
    let model = Scripted::obedient(10, 60).await;
    let ws = workspace_on(&model).await;
    ws.turn("warm").await.ok(200);
    let turns = (0..40).map(|n| {
        let ws = ws.clone();
        tokio::spawn(async move {
            wait::millis(n * 50).await;
            ws.turn(&format!("number {n}")).await
        })
    });
    let turns: Vec<_> = turns.collect();
    wait::millis(700).await;
    stack::restart_postgres().await;
    let mut told = Vec::new();
    for turn in turns {
        let reply = turn.await.unwrap();
        if reply.status == 200 {
            told.push(reply.json());
        } else {
            assert_unavailable(reply);
        }
    }
    until_it_works(&ws, "after").await;
    let database = Db::connect().await;
    for answer in &told {
        let id = answer["turnId"].as_str().unwrap();
        let entry = wait::until("an acknowledged turn", Duration::from_secs(90), async || {
            database.ledger(&ws.id).await.into_iter().find(|entry| entry["turn_id"] == id).ok_or(id)
        })
        .await;
        assert_eq!(entry["nano"], answer["costNanoUsd"]);
    }
    wait::until("all holds to end", environment::model_timeout() + Duration::from_secs(90), async || match ws.held().await {
        0 => Ok(()),
        held => Err(held),
    })
    .await;
    assert!(told.len() >= 10, "most went through: {}", told.len());
    assert_whole(&ws).await;
}
