//! The stack's logs: enough to find a request, nothing that is secret or private. Runs last, so that it reads what all other tests have left.

use astra_tests::workspace::unique;
use astra_tests::{Aimock, Api, Typesense, Workspace, canary, environment, jwt, stack, wait};
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn zz_no_secret_token_or_text_is_in_any_log_and_each_request_is() {
    // One of each way that a word could slip into a log.
    let mock = Aimock::start().await;
    mock.answer("all is well", &canary::message("the answer"), 10, 4).await;
    mock.fixture(&json!({ "match": { "userMessage": "all is lost" }, "response": { "error": { "message": canary::TEXT, "type": "x" }, "status": 500 } })).await;
    let ws = Workspace::openai(&mock.openai()).await;
    ws.turn("all is well").await.ok(200);
    ws.stream("all is well").await.rest().await;
    ws.turn("all is lost").await.problem(502, "upstream_error");
    let odd = json!({ "agentId": "assistant", "message": canary::message("x"), "extra": canary::TEXT });
    ws.member.post(&ws.path("/turns"), &odd).await.problem(422, "unprocessable");
    let broken = format!("{{\"message\": \"{}\", ", canary::TEXT);
    ws.member.request(http::Method::POST, &ws.path("/turns")).body("application/json", broken).send().await.problem(400, "bad_request");
    ws.owner.put(&ws.path("/secrets/OPENAI_API_KEY"), &json!({ "valu": canary::key() })).await.problem(422, "unprocessable");
    let _ = ws.operator.patch(&ws.path(""), &json!({ "displayName": canary::TEXT })).await.expect(200);
    Api::anonymous().with_token(jwt::sign(&json!({ "sub": canary::TEXT }))).get(&ws.path("")).await.problem(401, "unauthorized");
    let in_address =
        ws.owner.request(http::Method::GET, &ws.path(&format!("/agents/{}?q={}", canary::TEXT, canary::KEY))).undocumented().send().await;
    assert!(in_address.status < 500);
    let null = ws.turn("a null \u{0} in the text").await;
    assert!(null.status < 500, "{null:?}");
    let id = unique("find-me");
    let _ = ws.owner.request(http::Method::GET, &ws.path("")).header("x-request-id", &id).send().await.expect(200);

    let line = wait::until("the request's line", Duration::from_secs(10), async || {
        let logs = stack::logs().await;
        logs.lines().find(|line| line.contains(&id)).map(str::to_owned).ok_or("no such line")
    })
    .await;
    let at = line.find('{').expect("a line of JSON");
    let entry: Value = serde_json::from_str(&line[at..]).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert_eq!((&entry["workspace"], &entry["status"]), (&json!(ws.id), &json!(200)), "{entry}");
    assert!(entry["requestId"] == id.as_str() && entry["function"].is_string() && entry["ms"].is_number(), "{entry}");

    let logs = stack::all_logs().await;
    let (_, secret) = environment::token_key();
    let secret = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, secret);
    for (what, word) in
        [("a provider key", canary::KEY), ("a message", canary::TEXT), ("a token", "eyJ"), ("the signing key", secret.as_str())]
    {
        let leaks: Vec<_> = logs.lines().filter(|line| line.contains(word)).take(3).collect();
        assert!(leaks.is_empty(), "{what} is in the logs: {leaks:#?}");
    }
    assert!(
        !logs.contains("panicked at"),
        "no function panicked: {:#?}",
        logs.lines().filter(|l| l.contains("panicked at")).take(3).collect::<Vec<_>>()
    );
}

/// On Lambda an environment is free again when its invocation is over, all of it: one that never asks for the next event is not missed by any caller, who
/// gets another, until there are no more.
#[tokio::test]
async fn zz_an_environment_serves_more_than_one_invocation() {
    const TURNS: usize = 8;
    if environment::host() != "lambda" {
        return;
    }
    let starts = async || stack::logs().await.matches(r#""event":"init","function":"invoke-turn""#).count();
    let ws = Workspace::local().await;
    let before = starts().await;
    for _ in 0..TURNS {
        let _ = ws.stream("once more").await.rest().await;
    }
    let started = starts().await - before;
    assert!(started < TURNS, "{started} environments were started for {TURNS} turns, one after the other");
}

#[tokio::test]
async fn zz_typesense_was_asked_nothing_that_it_would_not_do() {
    if let Some(typesense) = Typesense::of_stack() {
        assert_eq!(typesense.state().await["wrongs"], json!([]));
    }
}
