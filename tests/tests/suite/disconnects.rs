//! Clients that hang up, and clients that say stop: two things.
//!
//! Hanging up loses the text, not the accounting: the model is read to its end and what the provider counted is what is billed. Stop cuts the
//! model call, and what was delivered is charged.

use astra_tests::scripted::{self, Act};
use astra_tests::{Aimock, Api, Db, Reply, Scripted, Stream, Workspace, aimock, environment, wait};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: &str = "A long answer, told in small pieces, so that there is time to go away in the middle of it, as people do.";
const SOON: Duration = Duration::from_secs(20);

/// An aimock that takes about two seconds for its answer, and a workspace on it.
async fn slow() -> (Aimock, Workspace) {
    let mock = Aimock::start().await;
    mock.answer_slowly("long", LONG, (44, 27), 100).await;
    let ws = Workspace::openai_with(&mock.openai(), &json!({ "maxCostUsdPerMonth": 1 })).await;
    (mock, ws)
}

/// Reads some pieces by way of an address and hangs up.
async fn hang_up_after(ws: &Workspace, base: &str, pieces: usize) {
    let mut stream = Stream::open(&ws.member.via(base), &ws.path("/turns"), &Workspace::turn_body("long")).await;
    for _ in 0..pieces {
        stream.next_named("content.delta").await;
    }
    drop(stream);
}

/// What was billed is the provider's count, once; the whole answer is in the conversation.
async fn assert_billed_whole_once(ws: &Workspace) {
    let db = Db::connect().await;
    let ledger = db.settled(&ws.id, 1, SOON).await;
    let entry = &ledger[0];
    assert_eq!(
        (&entry["input_tokens"], &entry["output_tokens"], &entry["source"]),
        (&json!(44), &json!(27), &json!("provider")),
        "{entry}"
    );
    assert_eq!(entry["nano"], aimock::gpt_4o_mini_nano(44, 27));
    let turns = db.turns(&ws.id).await;
    assert_eq!((turns.len(), &turns[0]["nano"], &turns[0]["status"]), (1, &entry["nano"], &json!("completed")), "{turns:?}");
    let messages = db.messages(&ws.id).await;
    assert_eq!(messages.last().unwrap()["content"], LONG);
    assert_eq!(ws.held().await, 0);
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], entry["nano"]);
}

#[tokio::test]
async fn kf15_a_client_that_hangs_up_through_the_gateway_is_billed_what_the_provider_counted() {
    let (_mock, ws) = slow().await;
    hang_up_after(&ws, &environment::gateway(), 3).await;
    assert_billed_whole_once(&ws).await;
}

#[tokio::test]
async fn kf16_a_client_that_hangs_up_directly_is_billed_what_the_provider_counted() {
    let (_mock, ws) = slow().await;
    hang_up_after(&ws, &environment::invoke_turn(), 3).await;
    assert_billed_whole_once(&ws).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_before_the_first_piece_is_billed() {
    for base in [environment::gateway(), environment::invoke_turn()] {
        let model = Scripted::start(vec![scripted::answer(&["late ", "but here"], 700, 9, 3)]).await;
        let ws = Workspace::openai(&model.openai()).await;
        let mut stream = Stream::open(&ws.member.via(base), &ws.path("/turns"), &Workspace::turn_body("early bird")).await;
        stream.next_named("turn.started").await;
        drop(stream);
        let ledger = Db::connect().await.settled(&ws.id, 1, SOON).await;
        assert_eq!((&ledger[0]["nano"], &ledger[0]["source"]), (&json!(aimock::gpt_4o_mini_nano(9, 3)), &json!("provider")));
        assert!(model.calls()[0].done, "the model was read to its end");
        assert_eq!(ws.held().await, 0);
    }
}

#[tokio::test]
async fn kf19_a_client_that_gives_up_waiting_for_json_is_billed() {
    for base in [environment::gateway(), environment::invoke_turn()] {
        let model = Scripted::start(vec![scripted::answer(&["one ", "two ", "three"], 500, 9, 3)]).await;
        let ws = Workspace::openai(&model.openai()).await;
        let request = ws.member.via(base).request(http::Method::POST, &ws.path("/turns")).json(&Workspace::turn_body("impatient"));
        assert!(tokio::time::timeout(Duration::from_millis(700), request.try_send()).await.is_err(), "the client went before the answer");
        let ledger = Db::connect().await.settled(&ws.id, 1, SOON).await;
        assert_eq!((&ledger[0]["nano"], &ledger[0]["source"]), (&json!(aimock::gpt_4o_mini_nano(9, 3)), &json!("provider")), "{ledger:?}");
        assert_eq!(ws.held().await, 0);
    }
}

#[tokio::test]
async fn twenty_clients_that_hang_up_anywhere_are_settled_once_each() {
    let (_mock, ws) = slow().await;
    let (gateway, direct) = (environment::gateway(), environment::invoke_turn());
    let clients = (0..20).map(|n| hang_up_after(&ws, if n % 2 == 0 { &gateway } else { &direct }, n % 7));
    futures_util::future::join_all(clients).await;
    let db = Db::connect().await;
    let ledger = db.settled(&ws.id, 20, SOON).await;
    assert_eq!(astra_tests::db::nano(&ledger), 20 * aimock::gpt_4o_mini_nano(44, 27), "{ledger:#?}");
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!(
        (&window["used"], &window["held"]),
        (&json!(20 * aimock::gpt_4o_mini_nano(44, 27)), &json!(0)),
        "the counter and the ledger agree"
    );
}

/// Starts a long stream on a scripted model and reads its first piece. Gives the turn's id.
async fn begin(model: &Scripted, limits: &Value) -> (Workspace, Stream, String) {
    let ws = Workspace::openai_with(&model.openai(), limits).await;
    let mut stream = ws.stream("long").await;
    let turn = stream.next_named("turn.started").await.data["turnId"].as_str().unwrap().to_owned();
    stream.next_named("content.delta").await;
    (ws, stream, turn)
}

fn endless() -> Vec<Act> {
    let pieces: Vec<&str> = std::iter::repeat_n("and so on ", 60).collect();
    scripted::answer(&pieces, 100, 12, 180)
}

async fn stop(api: &Api, ws: &Workspace, turn: &str) -> Reply {
    api.request(http::Method::POST, &ws.path(&format!("/turns/{turn}/stop"))).send().await
}

#[tokio::test]
async fn kf35_stop_cuts_the_model_call_and_charges_what_was_delivered() {
    let model = Scripted::start(vec![endless()]).await;
    let (ws, stream, turn) = begin(&model, &json!({ "maxCostUsdPerMonth": 1 })).await;
    let stopped = stop(&ws.member, &ws, &turn).await;
    assert!([200, 202, 204].contains(&stopped.status), "{stopped:?}");
    let events = stream.rest().await;
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["finishReason"]), ("turn.completed", &json!("stopped")), "{events:?}");
    assert_eq!(last.data["usage"]["source"], "estimated");
    wait::until("the cut", Duration::from_secs(5), async || {
        let call = &model.calls()[0];
        if call.cut { Ok(()) } else { Err(call.chunks) }
    })
    .await;
    let written = i64::try_from(model.calls()[0].chunks).unwrap();
    let db = Db::connect().await;
    let ledger = db.settled(&ws.id, 1, SOON).await;
    let output = ledger[0]["output_tokens"].as_i64().unwrap();
    assert!(output > 0 && output <= written * 10, "{output} tokens of {written} pieces of ten bytes");
    assert_eq!((&ledger[0]["source"], &db.turns(&ws.id).await[0]["status"]), (&json!("estimated"), &json!("stopped")));
    assert_eq!(ws.held().await, 0);

    // Again, when it has ended: nothing happens.
    let again = stop(&ws.member, &ws, &turn).await;
    assert!(again.status < 500, "{again:?}");
    assert_eq!(db.ledger(&ws.id).await.len(), 1);
}

#[tokio::test]
async fn a_stop_that_comes_while_a_retry_is_waited_for_charges_nothing() {
    let busy = [Act::Head(429, &[("content-type", "application/json"), ("retry-after", "5")]), Act::Chunk("{}".to_owned()), Act::End];
    let model = Scripted::start(vec![busy.to_vec(), endless()]).await;
    let ws = Workspace::openai_with(&model.openai(), &json!({ "maxCostUsdPerMonth": 1 })).await;
    let mut stream = ws.stream("are you busy?").await;
    let turn = stream.next_named("turn.started").await.data["turnId"].as_str().unwrap().to_owned();
    wait::until(
        "the refusal",
        SOON,
        // Read to its end or not: nobody needs a refusal's body.
        async || if model.calls().first().is_some_and(|call| call.done || call.cut) { Ok(()) } else { Err(model.calls()) },
    )
    .await;
    stop(&ws.member, &ws, &turn).await.ok(202);
    let events = stream.rest().await;
    let last = events.last().unwrap();
    assert_eq!(
        (last.name.as_str(), &last.data["finishReason"], &last.data["costNanoUsd"]),
        ("turn.completed", &json!("stopped"), &json!(0))
    );
    let ledger = Db::connect().await.settled(&ws.id, 1, SOON).await;
    assert_eq!((&ledger[0]["nano"], &ledger[0]["input_tokens"], model.calls().len()), (&json!(0), &json!(0), 1), "{ledger:?}");
    assert_eq!(ws.held().await, 0);
}

#[tokio::test]
async fn a_turn_is_stopped_by_its_user_and_by_nobody_else() {
    let model = Scripted::start(vec![scripted::answer(&["a ", "b ", "c ", "d ", "e "], 300, 9, 5)]).await;
    let (ws, stream, turn) = begin(&model, &astra_tests::workspace::roomy()).await;
    let other = Workspace::local().await;
    stop(&ws.user("other@test", "member").await, &ws, &turn).await.problem(404, "not_found");
    stop(&other.member, &other, &turn).await.problem(404, "not_found");
    stop(&other.member, &ws, &turn).await.problem(403, "forbidden");
    stop(&ws.member, &ws, &uuid::Uuid::new_v4().to_string()).await.problem(404, "not_found");
    stop(&ws.member, &ws, "not-a-turn").await.problem(404, "not_found");
    let events = stream.rest().await;
    assert_eq!(events.last().unwrap().data["finishReason"], "stop", "it went on to its end");
}

#[tokio::test]
async fn stop_works_for_a_client_that_has_hung_up_or_waits_for_json() {
    let model = Scripted::start(vec![endless()]).await;
    let (ws, stream, turn) = begin(&model, &astra_tests::workspace::roomy()).await;
    drop(stream);
    wait::millis(300).await;
    let stopped = stop(&ws.member, &ws, &turn).await;
    assert!([200, 202, 204].contains(&stopped.status), "{stopped:?}");
    let ledger = Db::connect().await.settled(&ws.id, 1, Duration::from_secs(5)).await;
    assert_eq!(ledger[0]["source"], "estimated", "{ledger:?}");
    assert!(!model.calls()[0].done, "the model call was cut");
}
