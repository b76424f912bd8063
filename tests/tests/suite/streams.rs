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

/// A model's answer in bursts, with a pause before each: each burst's pieces are written one by one without waiting.
fn bursts(bursts: &[(u64, usize)]) -> (Vec<scripted::Act>, String) {
    let (mut acts, mut text) = (vec![scripted::OK], String::new());
    for (pause, pieces) in bursts {
        acts.push(scripted::Act::Pause(std::time::Duration::from_millis(*pause)));
        for _ in 0..*pieces {
            let piece = format!("{:05} ", text.len());
            acts.push(scripted::delta(&piece));
            text.push_str(&piece);
        }
    }
    acts.extend([scripted::finish("stop"), scripted::usage(10, 20)]);
    acts.extend(scripted::done());
    (acts, text)
}

#[tokio::test]
async fn however_a_model_cuts_its_answer_the_text_is_whole() {
    // Pauses shorter and longer than the host gathers for; bursts smaller and larger than it gathers at once.
    let answers = [
        bursts(&[(0, 1)]),
        bursts(&[(0, 20)]),
        bursts(&[(0, 500)]),
        bursts(&[(0, 1), (10, 300), (10, 1)]),
        bursts(&[(0, 1), (200, 300)]),
        bursts(&[(0, 200), (200, 3), (5, 200), (200, 1)]),
        bursts(&[(100, 2), (60, 2), (60, 2), (60, 2)]),
    ];
    let model = Scripted::start(answers.iter().map(|(acts, _)| acts.clone()).collect()).await;
    let ws = Workspace::openai(&model.openai()).await;
    for (number, (_, text)) in answers.iter().enumerate() {
        let events = ws.stream("go on").await.rest().await;
        assert_eq!(sse::text(&events), *text, "answer {number}");
        assert_eq!(events.last().unwrap().name, "turn.completed", "answer {number}");
    }
    let model = Scripted::start(answers.iter().map(|(acts, _)| acts.clone()).collect()).await;
    let ws = Workspace::openai(&model.openai()).await;
    for (number, (_, text)) in answers.iter().enumerate() {
        assert_eq!(ws.turn("go on").await.ok(200)["content"], text.as_str(), "answer {number} as JSON");
    }
}

#[tokio::test]
async fn a_burst_that_breaks_off_is_delivered_as_far_as_it_came() {
    for pause in [0, 200] {
        let (mut acts, text) = bursts(&[(0, 1), (pause, 400)]);
        // Past the last delta the connection ends without the chunked body's end.
        acts.truncate(acts.len() - 4);
        let model = Scripted::start(vec![acts]).await;
        let ws = Workspace::openai(&model.openai()).await;
        let events = ws.stream("go on").await.rest().await;
        assert_eq!(events.last().unwrap().name, "turn.failed");
        let told = sse::text(&events);
        assert!(text.starts_with(&told) && !told.is_empty(), "{} of {} bytes", told.len(), text.len());
        assert_eq!(told, text, "all that came was told");
    }
}
