//! The events of a turn.

use astra_tests::{Aimock, Api, Scripted, Stream, Workspace, api, environment, scripted, sse};
use serde_json::json;

#[tokio::test]
async fn events_come_in_order_with_ids_and_the_last_has_no_content() {
    let mock = Aimock::start().await;
    mock.answer_slowly("story", "Once upon a time there was a workspace.", (30, 9), 20).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let events = ws.stream("a story").await.rest().await;
    let names: Vec<_> = events.iter().map(|e| e.name.as_str()).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("turn.started", "turn.completed"));
    assert!(names[1..names.len() - 1].iter().all(|name| *name == "content.delta"), "{names:?}");
    assert!(names.len() > 3, "a slow answer comes in pieces: {names:?}");
    let mut ids: Vec<_> = events.iter().map(|e| e.id.clone()).collect();
    assert!(ids.iter().all(|id| !id.is_empty()), "each event has an id: {ids:?}");
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids differ");

    let (started, completed) = (&events[0].data, &events[count - 1].data);
    assert_eq!((&started["turnId"], &started["sessionId"]), (&completed["turnId"], &completed["sessionId"]));
    assert!(completed.get("content").is_none(), "{completed}");
    assert_eq!(sse::text(&events), "Once upon a time there was a workspace.");
    assert_eq!(completed["usage"]["outputTokens"], 9);
    assert!(completed["quota"].is_object(), "{completed}");
}

#[tokio::test]
async fn the_first_piece_comes_before_the_model_is_done() {
    let mut script = scripted::answer(&["first"], 0, 5, 1);
    script.insert(2 + 1, scripted::Act::Pause(std::time::Duration::from_secs(3)));
    let model = Scripted::start(vec![script]).await;
    let ws = Workspace::openai(&model.openai()).await;
    let mut stream = ws.stream("hurry").await;
    let delta = stream.next_named("content.delta").await;
    assert_eq!(delta.data["text"], "first");
    assert!(!model.calls()[0].done, "the model was still at it");
    stream.next_named("turn.completed").await;
}

#[tokio::test]
async fn a_stream_past_the_gateway_is_the_same() {
    let ws = Workspace::local().await;
    let direct = ws.member.via(environment::invoke_turn());
    let events = Stream::open(&direct, &ws.path("/turns"), &Workspace::turn_body("direct")).await.rest().await;
    assert_eq!(events.last().unwrap().name, "turn.completed");
}

#[tokio::test]
async fn a_refusal_before_the_stream_is_a_problem_with_its_status() {
    let ws = Workspace::local().await;
    let request = |api: &Api, body: &serde_json::Value| {
        api.request(http::Method::POST, &ws.path("/turns")).json(body).header("accept", "text/event-stream").send()
    };
    request(&ws.member, &json!({ "agentId": "nobody", "message": "x", "stream": true })).await.problem(403, "forbidden");
    request(&Api::anonymous(), &Workspace::turn_body("x")).await.problem(401, "unauthorized");
    request(&ws.member, &json!({ "agentId": "assistant", "message": "x", "extra": 1 })).await.problem(422, "unprocessable");
}

#[tokio::test]
async fn a_failure_within_the_stream_is_an_event_with_a_problem() {
    let script = vec![scripted::OK, scripted::delta("half of "), scripted::Act::Pause(std::time::Duration::from_millis(200))];
    let model = Scripted::start(vec![script]).await;
    let ws = Workspace::openai(&model.openai()).await;
    let events = ws.stream("half").await.rest().await;
    let last = events.last().unwrap();
    assert_eq!(last.name, "turn.failed", "{events:?}");
    api::assert_problem(&last.data, 502, "upstream_error");
    assert_eq!(sse::text(&events), "half of ");
}
