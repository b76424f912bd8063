//! Turns: what is asked, what is answered, what is kept.

use astra_tests::{Aimock, Db, Workspace, aimock, canary, sse};
use serde_json::{Value, json};

#[tokio::test]
async fn a_turn_answers_in_the_specs_shape() {
    let mock = Aimock::start().await;
    mock.answer("shape", "As agreed.", 40, 3).await;
    let ws = Workspace::openai_with(&mock.openai(), &json!({ "maxTokensPerMonth": 1_000_000, "maxCostUsdPerMonth": 5 })).await;
    let answer = ws.turn("the shape, please").await.ok(200);
    let turn_id: uuid::Uuid = answer["turnId"].as_str().unwrap().parse().unwrap();
    let session_id: uuid::Uuid = answer["sessionId"].as_str().unwrap().parse().unwrap();
    assert_eq!((turn_id.get_version_num(), session_id.get_version_num()), (7, 7));
    assert_eq!(answer["agentId"], "assistant");
    assert_eq!(answer["content"], "As agreed.");
    assert_eq!(answer["finishReason"], "stop");
    let usage = json!({ "inputTokens": 40, "cachedInputTokens": 0, "outputTokens": 3, "reasoningTokens": 0, "source": "provider" });
    assert_eq!(answer["usage"], usage);
    let nano = aimock::gpt_4o_mini_nano(40, 3);
    assert_eq!(answer["costNanoUsd"], nano);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let usd = nano as f64 / 1e9;
    assert!((answer["costUsd"].as_f64().unwrap() - usd).abs() < 1e-12, "{answer}");
    assert!(answer["quota"].is_object(), "{answer}");
    assert!(answer["citations"].is_array(), "{answer}");

    let db = Db::connect().await;
    let (ledger, turns) = (db.ledger(&ws.id).await, db.turns(&ws.id).await);
    assert_eq!((ledger.len(), turns.len()), (1, 1));
    assert_eq!((&ledger[0]["turn_id"], &ledger[0]["nano"], &ledger[0]["kind"]), (&answer["turnId"], &json!(nano), &json!("turn")));
    assert_eq!((&turns[0]["id"], &turns[0]["nano"], &turns[0]["status"]), (&answer["turnId"], &json!(nano), &json!("completed")));
    assert_eq!(ws.held().await, 0);
}

/// What must be equal of two ledger rows or turns of the same question.
fn comparable(row: &Value) -> Value {
    let mut row = row.clone();
    for own in [
        "id",
        "seq",
        "turn_id",
        "session_id",
        "created_at",
        "ended_at",
        "turn_started_at",
        "answer",
        "request_hash",
        "user_salt",
        "user_hash",
        "prev_hash",
        "hash",
    ] {
        row.as_object_mut().unwrap().remove(own);
    }
    row
}

#[tokio::test]
async fn a_turn_by_json_and_by_sse_give_the_same_ledger() {
    let mock = Aimock::start().await;
    mock.answer("twice", "The same thing, said in a few pieces.", 50, 9).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let by_json = ws.turn("twice").await.ok(200);
    let events = ws.stream("twice").await.rest().await;
    let mut body = Workspace::turn_body("twice");
    body["stream"] = true.into();
    let by_flag = sse::Stream::open(&ws.member, &ws.path("/turns"), &body).await.rest().await;
    let completed = sse::only(&events, "turn.completed");
    assert_eq!(sse::text(&events), by_json["content"].as_str().unwrap());
    assert_eq!(sse::text(&by_flag), by_json["content"].as_str().unwrap());
    for member in ["agentId", "finishReason", "usage", "costNanoUsd", "costUsd", "citations"] {
        assert_eq!(completed[member], by_json[member], "{member}");
    }
    let db = Db::connect().await;
    for rows in [db.ledger(&ws.id).await, db.turns(&ws.id).await] {
        assert_eq!(rows.len(), 3);
        assert_eq!(comparable(&rows[0]), comparable(&rows[1]));
        assert_eq!(comparable(&rows[0]), comparable(&rows[2]));
    }
    let roles: Vec<_> = db.messages(&ws.id).await.iter().map(|m| m["role"].clone()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user", "assistant"]);
}

#[tokio::test]
async fn the_model_sees_the_history_of_the_session_and_of_no_other() {
    let mock = Aimock::start().await;
    mock.answer("colour", "Noted: blue.", 20, 4).await;
    mock.answer("remember", "You said blue.", 40, 4).await;
    let ws = Workspace::openai(&mock.openai()).await;
    ws.turn("another colour, elsewhere: red").await.ok(200);
    let first = ws.turn("my colour is blue").await.ok(200);
    ws.turn_in(&first["sessionId"], "what do you remember?").await.ok(200);
    let call = &mock.calls("remember").await[0];
    let said: Vec<(String, String)> = call["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["role"].as_str().unwrap().into(), m["content"].as_str().unwrap().into()))
        .collect();
    let expected = [
        ("user".to_owned(), canary::message("my colour is blue")),
        ("assistant".to_owned(), "Noted: blue.".to_owned()),
        ("user".to_owned(), canary::message("what do you remember?")),
    ];
    assert_eq!(said[0].0, "system");
    assert_eq!(said[1..], expected);
}

#[tokio::test]
async fn sessions_and_their_messages_are_there_to_read_and_to_delete() {
    let ws = Workspace::local().await;
    let session = ws.turn("one").await.ok(200)["sessionId"].clone();
    ws.turn_in(&session, "two").await.ok(200);
    ws.turn("elsewhere").await.ok(200);
    let sessions = ws.member.get(&ws.path("/sessions")).await.ok(200);
    assert_eq!(sessions["data"].as_array().unwrap().len(), 2, "{sessions}");
    let path = ws.path(&format!("/sessions/{}", session.as_str().unwrap()));
    let shown = ws.member.get(&path).await.ok(200);
    assert_eq!((&shown["id"], &shown["agentId"], &shown["userId"]), (&session, &json!("assistant"), &json!("member@test")));
    let messages = ws.member.get(&format!("{path}/messages")).await.ok(200);
    let said: Vec<_> = messages["data"].as_array().unwrap().iter().map(|m| (m["role"].clone(), m["seq"].clone())).collect();
    assert_eq!(
        said,
        [(json!("user"), json!(1)), (json!("assistant"), json!(2)), (json!("user"), json!(3)), (json!("assistant"), json!(4))]
    );
    assert_eq!(messages["data"][2]["content"], canary::message("two").as_str());
    let page = ws.member.get(&format!("{path}/messages?limit=3")).await.ok(200);
    let next = ws.member.get(&format!("{path}/messages?limit=3&after={}", page["nextCursor"].as_str().unwrap())).await.ok(200);
    assert_eq!((next["data"].as_array().unwrap().len(), &next["nextCursor"]), (1, &Value::Null));

    let _ = ws.member.delete(&path).await.expect(204);
    ws.member.get(&path).await.problem(404, "not_found");
    ws.member.get(&format!("{path}/messages")).await.problem(404, "not_found");
    assert_eq!(Db::connect().await.ledger(&ws.id).await.len(), 3, "deleting a conversation does not change the bill");
}

#[tokio::test]
async fn kf25_a_session_belongs_to_its_user_and_no_filter_widens_the_list() {
    let ws = Workspace::local().await;
    let session = ws.turn("mine").await.ok(200)["sessionId"].as_str().unwrap().to_owned();
    let other = ws.user("other@test", "member").await;
    for query in ["", "?userId=member@test", "?userId=", "?userId=*", "?owner=member@test"] {
        let list = other.get(&ws.path(&format!("/sessions{query}"))).await;
        assert!(!String::from_utf8_lossy(&list.body).contains(&session), "{query}: {list:?}");
        assert!(list.status < 500, "{query}: {list:?}");
    }
    assert_eq!(other.get(&ws.path("/sessions")).await.ok(200)["data"], json!([]));
    let path = ws.path(&format!("/sessions/{session}"));
    for reply in [other.get(&path).await, other.get(&format!("{path}/messages")).await, other.delete(&path).await] {
        reply.problem(404, "not_found");
    }
    let mut body = Workspace::turn_body("let me in");
    body["sessionId"] = session.as_str().into();
    other.post(&ws.path("/turns"), &body).await.problem(404, "not_found");
    assert_eq!(Db::connect().await.messages(&ws.id).await.len(), 2, "nothing was added");
    // Who may read all of them does.
    assert!(ws.owner.get(&path).await.status == 200);
}

#[tokio::test]
async fn metadata_is_kept_with_the_turn() {
    let ws = Workspace::local().await;
    let mut body = Workspace::turn_body("with metadata");
    body["metadata"] = json!({ "ticket": "T-17", "nested": { "n": 1 } });
    ws.member.post(&ws.path("/turns"), &body).await.ok(200);
    assert_eq!(Db::connect().await.turns(&ws.id).await[0]["metadata"], body["metadata"]);
}

#[tokio::test]
async fn what_is_no_turn_is_refused_with_its_field() {
    let ws = Workspace::local().await;
    let cases = [
        (json!({ "agentId": "assistant" }), "message"),
        (json!({ "message": "x" }), "agentId"),
        (json!({ "agentId": "assistant", "message": "" }), "message"),
        (json!({ "agentId": "assistant", "message": 5 }), "message"),
        (json!({ "agentId": "assistant", "message": "x", "stream": "yes" }), "stream"),
        (json!({ "agentId": "assistant", "message": "x", "sessionId": "17" }), "sessionId"),
        (json!({ "agentId": "assistant", "message": "x", "model": "gpt-4o" }), "model"),
        (json!({ "agentId": "../etc", "message": "x" }), "agentId"),
    ];
    for (body, field) in cases {
        let problem = ws.member.post(&ws.path("/turns"), &body).await.problem(422, "unprocessable");
        assert!(problem["errors"].to_string().contains(field), "{body}: {problem}");
    }
    let unknown = json!({ "agentId": "assistant", "message": "x", "sessionId": uuid::Uuid::new_v4() });
    ws.member.post(&ws.path("/turns"), &unknown).await.problem(404, "not_found");
    assert_eq!(Db::connect().await.ledger(&ws.id).await, Vec::<Value>::new());
}

#[tokio::test]
async fn any_text_comes_through_unchanged() {
    let mock = Aimock::start().await;
    let strange =
        "Grüße 🦀 \u{202e}rtl\u{202c} \"quotes\" \\ back\tslash\nline '; DROP TABLE turns; -- {{workspace.id}} {% if %} \u{7f}\u{fffd}";
    mock.answer("Grüße", strange, 60, 30).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let answer = ws.turn(strange).await.ok(200);
    assert_eq!(answer["content"], strange);
    assert_eq!(sse::text(&ws.stream(strange).await.rest().await), strange);
    assert_eq!(mock.calls("Grüße").await[0]["messages"][1]["content"], canary::message(strange).as_str());
    assert_eq!(Db::connect().await.messages(&ws.id).await[0]["content"], canary::message(strange).as_str());
}

#[tokio::test]
async fn a_character_that_postgres_cannot_hold_is_no_fault_of_ours() {
    let ws = Workspace::local().await;
    let reply = ws.turn("a null \u{0} inside").await;
    assert!(reply.status == 200 || reply.status == 422, "{reply:?}");
    let mut body = Workspace::turn_body("metadata with a null");
    body["metadata"] = json!({ "k\u{0}": "v\u{0}" });
    let reply = ws.member.post(&ws.path("/turns"), &body).await;
    assert!(reply.status == 200 || reply.status == 422, "{reply:?}");
    assert_eq!(ws.held().await, 0);
}

#[tokio::test]
async fn a_viewer_reads_and_does_not_invoke() {
    let ws = Workspace::local().await;
    let viewer = ws.user("v", "viewer").await;
    viewer.get(&ws.path("/agents")).await.ok(200);
    viewer.post(&ws.path("/turns"), &Workspace::turn_body("hello")).await.problem(403, "forbidden");
}

#[tokio::test]
async fn the_local_model_needs_no_key_and_always_says_the_same() {
    let ws = Workspace::local().await;
    let (one, two) = (ws.turn("same question").await.ok(200), ws.turn("same question").await.ok(200));
    assert!(!one["content"].as_str().unwrap().is_empty());
    for member in ["content", "usage", "costNanoUsd", "finishReason"] {
        assert_eq!(one[member], two[member]);
    }
}
