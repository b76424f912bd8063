//! What a model's provider may do to us: errors, garbage, half a stream, silence.
//!
//! In every case: the user's message is saved, nothing stays held, the problem tells the provider's status, and no key is seen anywhere.

use astra_tests::scripted::{self, Act};
use astra_tests::{Aimock, Api, Db, Scripted, Workspace, aimock, api, canary, environment, sse};
use serde_json::{Value, json};
use std::time::Duration;

/// What must be so after a turn that its provider failed. Gives its ledger entry.
async fn assert_failed_cleanly(ws: &Workspace, message: &str, problem: &Value) -> Value {
    assert!(!problem.to_string().contains(canary::KEY), "no key in {problem}");
    let db = Db::connect().await;
    let messages = db.messages(&ws.id).await;
    assert_eq!(messages[0]["content"], canary::message(message).as_str(), "the user's message is saved");
    let turns = db.turns(&ws.id).await;
    assert_eq!((turns.len(), &turns[0]["status"]), (1, &json!("failed")), "{turns:?}");
    assert_eq!(turns[0]["error_code"], problem["code"]);
    assert_eq!(ws.held().await, 0, "kf05: nothing stays held");
    let ledger = db.ledger(&ws.id).await;
    assert_eq!(ledger.len(), 1, "{ledger:?}");
    ledger[0].clone()
}

async fn on(model: &Scripted) -> Workspace {
    Workspace::openai_with(&model.openai(), &json!({ "maxCostUsdPerMonth": 1 })).await
}

fn plain(status: u16, body: &str) -> Vec<Act> {
    vec![Act::Head(status, &[("content-type", "application/json")]), Act::Chunk(body.to_owned()), Act::End]
}

#[tokio::test]
async fn a_429_with_a_bearable_wait_is_tried_again_and_then_told() {
    let mock = Aimock::start().await;
    let error = json!({ "error": { "message": "slow down", "type": "rate_limit_error" }, "status": 429, "retryAfter": 1 });
    mock.fixture(&json!({ "match": { "userMessage": "busy" }, "response": error })).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let begin = tokio::time::Instant::now();
    let problem = ws.turn("busy").await.problem(502, "upstream_error");
    let calls = mock.calls("busy").await.len();
    assert!((2..=3).contains(&calls), "{calls} calls");
    let waited = u64::try_from(calls - 1).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(waited * 950), "Retry-After is obeyed: {:?} for {calls} calls", begin.elapsed());
    assert!(problem["detail"].as_str().unwrap().contains("429"), "{problem}");
    assert_eq!(assert_failed_cleanly(&ws, "busy", &problem).await["nano"], 0);
}

#[tokio::test]
async fn a_429_whose_wait_passes_the_deadline_fails_at_once_and_passes_it_on() {
    let mock = Aimock::start().await;
    let error = json!({ "error": { "message": "slow down", "type": "rate_limit_error" }, "status": 429, "retryAfter": 3600 });
    mock.fixture(&json!({ "match": { "userMessage": "very busy" }, "response": error })).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let begin = tokio::time::Instant::now();
    let reply = ws.turn("very busy").await;
    assert_eq!(reply.header("retry-after"), "3600", "{reply:?}");
    let problem = reply.problem(502, "upstream_error");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(mock.calls("very busy").await.len(), 1);
    assert_failed_cleanly(&ws, "very busy", &problem).await;
}

#[tokio::test]
async fn a_500_is_tried_again_and_then_told() {
    let mock = Aimock::start().await;
    mock.fixture(&json!({ "match": { "userMessage": "broken" }, "response": { "error": { "message": "oh", "type": "server_error" }, "status": 500 } })).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let problem = ws.turn("broken").await.problem(502, "upstream_error");
    assert!(problem["detail"].as_str().unwrap().contains("500"), "{problem}");
    let calls = mock.calls("broken").await.len();
    assert!((2..=3).contains(&calls), "{calls} calls");
    assert_eq!(assert_failed_cleanly(&ws, "broken", &problem).await["nano"], 0);
}

#[tokio::test]
async fn a_500_followed_by_an_answer_is_an_answer_charged_once() {
    let model = Scripted::start(vec![plain(500, "{}"), scripted::answer(&["well", " again"], 0, 11, 2)]).await;
    let ws = on(&model).await;
    let answer = ws.turn("try").await.ok(200);
    assert_eq!((&answer["content"], model.calls().len()), (&json!("well again"), 2));
    let ledger = Db::connect().await.ledger(&ws.id).await;
    assert_eq!((ledger.len(), &ledger[0]["nano"]), (1, &json!(aimock::gpt_4o_mini_nano(11, 2))));
}

#[tokio::test]
async fn a_refusal_is_told_by_its_status_without_its_words_and_not_tried_again() {
    for status in [400, 401, 403, 404] {
        let model =
            Scripted::directed(move |_, _| plain(status, r#"{"error":{"message":"Incorrect API key provided: sk-canary-leak"}}"#)).await;
        let ws = on(&model).await;
        let problem = ws.turn("refused").await.problem(502, "upstream_error");
        assert!(problem["detail"].as_str().unwrap().contains(&status.to_string()), "{problem}");
        assert!(!problem.to_string().contains("leak"), "{problem}");
        assert_eq!(model.calls().len(), 1, "{status} is not tried again");
        assert_failed_cleanly(&ws, "refused", &problem).await;
    }
}

#[tokio::test]
async fn garbage_is_an_upstream_error() {
    let html: &[Act] = &[Act::Head(200, &[("content-type", "text/html")]), Act::Chunk("<html>Welcome to nginx</html>".into()), Act::End];
    let noise: &[Act] = &[scripted::OK, Act::Chunk("data: {\"choices\": [{\"delta\": \n\ndata: \u{1}\u{2}{{{\n\n".into()), Act::End];
    let wrong: &[Act] = &[scripted::OK, Act::Chunk("data: {\"choices\": 7}\n\ndata: [DONE]\n\n".into()), Act::End];
    let bytes: &[Act] = &[scripted::OK, Act::Raw(b"6\r\ndata: \r\n4\r\n\xff\xfe\xc3(\r\n2\r\n\n\n\r\n0\r\n\r\n")];
    let http: &[Act] = &[Act::Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")];
    let error: &[Act] =
        &[scripted::OK, Act::Chunk("data: {\"error\":{\"message\":\"sk-canary-leak is overloaded\"}}\n\n".into()), Act::End];
    for script in [html, noise, wrong, bytes, http, error] {
        let model = Scripted::start(vec![script.to_vec()]).await;
        let ws = on(&model).await;
        let problem = ws.turn("garbage").await.problem(502, "upstream_error");
        assert!(!problem.to_string().contains("nginx"), "{problem}");
        assert_failed_cleanly(&ws, "garbage", &problem).await;
    }
}

#[tokio::test]
async fn kf18_half_a_stream_is_told_charged_for_what_came_and_never_tried_again() {
    let half = vec![
        scripted::OK,
        scripted::delta("This is half of an answer "),
        Act::Pause(Duration::from_millis(50)),
        scripted::delta("that was "),
    ];
    let model = Scripted::start(vec![half, scripted::answer(&["a second try"], 0, 1, 1)]).await;
    let ws = on(&model).await;
    let problem = ws.turn("half").await.problem(502, "upstream_error");
    assert_eq!(model.calls().len(), 1, "not tried again after the first token");
    let entry = assert_failed_cleanly(&ws, "half", &problem).await;
    assert_eq!(entry["source"], "estimated");
    let (input, output) = (entry["input_tokens"].as_i64().unwrap(), entry["output_tokens"].as_i64().unwrap());
    assert!(input > 0 && output > 0, "what was delivered is charged: {entry}");
    assert!(output <= i64::try_from("This is half of an answer that was ".len()).unwrap(), "a token is at least a byte: {entry}");
}

#[tokio::test]
async fn half_a_stream_from_the_mock_is_told_too() {
    let mock = Aimock::start().await;
    let fixture = json!({ "match": { "userMessage": "cut" }, "response": { "content": "This will be cut short, and nobody knows why." },
        "chunkSize": 6, "latency": 30, "truncateAfterChunks": 4 });
    mock.fixture(&fixture).await;
    let ws = Workspace::openai(&mock.openai()).await;
    let events = ws.stream("cut").await.rest().await;
    let failed = &events.last().unwrap().data;
    api::assert_problem(failed, 502, "upstream_error");
    assert!(sse::text(&events).starts_with("This w"), "{events:?}");
    assert_eq!(assert_failed_cleanly(&ws, "cut", failed).await["source"], "estimated");
    assert_eq!(mock.calls("cut").await.len(), 1);
}

#[tokio::test]
async fn nothing_at_all_is_an_upstream_error() {
    let closes: &[Act] = &[];
    let empty: &[Act] = &[scripted::OK, Act::End];
    let only_done: &[Act] = &[scripted::OK, Act::Chunk("data: [DONE]\n\n".into()), Act::End];
    for script in [closes, empty, only_done] {
        let model = Scripted::start(vec![script.to_vec()]).await;
        let ws = on(&model).await;
        let problem = ws.turn("nothing").await.problem(502, "upstream_error");
        assert_failed_cleanly(&ws, "nothing", &problem).await;
    }
    // Nobody listens there.
    let ws = Workspace::openai("http://127.0.0.1:9/v1").await;
    let problem = ws.turn("nobody").await.problem(502, "upstream_error");
    assert_eq!(assert_failed_cleanly(&ws, "nobody", &problem).await["nano"], 0);
}

#[tokio::test]
async fn kf18_a_model_that_hangs_ends_at_the_deadline_and_what_came_is_charged() {
    let deadline = environment::model_timeout();
    for (script, before_first_token) in [(vec![Act::Hang], true), (vec![scripted::OK, scripted::delta("one "), Act::Hang], false)] {
        let model = Scripted::start(vec![script]).await;
        let ws = on(&model).await;
        let begin = tokio::time::Instant::now();
        let problem = ws.turn("hang").await.problem(504, "upstream_timeout");
        let took = begin.elapsed();
        assert!(took >= deadline.mul_f32(0.8) && took < deadline + Duration::from_secs(5), "{took:?} at a deadline of {deadline:?}");
        let entry = assert_failed_cleanly(&ws, "hang", &problem).await;
        assert_eq!(entry["output_tokens"].as_i64().unwrap() > 0, !before_first_token, "what came is charged: {entry}");
        assert!(model.calls().iter().all(|call| call.cut), "the connection is not left open");
    }
}

#[tokio::test]
async fn kf18_a_stream_that_trickles_past_the_deadline_is_ended_and_charged() {
    let deadline = environment::model_timeout();
    let pieces: Vec<&str> = std::iter::repeat_n("drop ", 100).collect();
    let millis = u64::try_from(deadline.as_millis()).unwrap() / 20;
    let model = Scripted::start(vec![scripted::answer(&pieces, millis, 5, 100)]).await;
    let ws = on(&model).await;
    let events = ws.stream("trickle").await.rest().await;
    let last = events.last().unwrap();
    assert_eq!(last.name, "turn.failed", "{last:?}");
    api::assert_problem(&last.data, 504, "upstream_timeout");
    let entry = assert_failed_cleanly(&ws, "trickle", &last.data).await;
    assert!(entry["output_tokens"].as_i64().unwrap() >= 5 && entry["source"] == "estimated", "{entry}");
}

#[tokio::test]
async fn the_provider_gets_the_workspaces_own_key_and_a_redirect_gets_nothing() {
    let thief = Scripted::start(vec![scripted::answer(&["stolen"], 0, 1, 1)]).await;
    let location: &'static str = Box::leak(format!("{}/chat/completions", thief.openai()).into_boxed_str());
    let headers: &'static [(&str, &str)] = Box::leak(Box::new([("location", location)]));
    let redirect = Scripted::directed(move |_, _| vec![Act::Head(307, headers), Act::End]).await;
    let ws = on(&redirect).await;
    let problem = ws.turn("follow").await.problem(502, "upstream_error");
    assert!(redirect.calls()[0].head.contains(canary::KEY), "the key was sent to the one that the operator named");
    assert_eq!(thief.calls().len(), 0, "and to nobody else");
    assert_failed_cleanly(&ws, "follow", &problem).await;

    let key = canary::key();
    let mock = Aimock::start_with_key(&key).await;
    mock.answer("mine", "yours", 5, 1).await;
    let ws = Workspace::openai(&mock.openai()).await;
    ws.turn("mine").await.problem(502, "upstream_error");
    ws.put_secret("OPENAI_API_KEY", &key).await;
    ws.turn("mine").await.ok(200);
}

#[tokio::test]
async fn anthropic_is_spoken_to_in_its_own_words() {
    let mock = Aimock::start().await;
    mock.answer("bonjour", "Bonjour from another provider.", 31, 6).await;
    let agent = astra_tests::template::anthropic("assistant", &mock.anthropic());
    let ws = Workspace::with(&astra_tests::workspace::roomy(), &[agent]).await;
    ws.put_secret("ANTHROPIC_API_KEY", &canary::key()).await;
    let answer = ws.turn("bonjour").await.ok(200);
    assert_eq!(answer["content"], "Bonjour from another provider.");
    assert_eq!((&answer["usage"]["inputTokens"], &answer["usage"]["outputTokens"]), (&json!(31), &json!(6)));
    assert_eq!(answer["costNanoUsd"], 31 * 1000 + 6 * 5000);
    let journal = mock.journal().await;
    assert_eq!(journal[0]["path"], "/v1/messages", "{journal:?}");
}

#[tokio::test]
async fn kf17_a_providers_explicit_zero_is_charged_as_zero() {
    for (input, output) in [(0, 0), (0, 3), (5, 0)] {
        let model = Scripted::start(vec![scripted::answer(&["free ", "of charge"], 0, input, output)]).await;
        let ws = on(&model).await;
        let answer = ws.turn("free").await.ok(200);
        let cost = aimock::gpt_4o_mini_nano(input, output);
        assert_eq!((&answer["costNanoUsd"], &answer["usage"]["source"]), (&json!(cost), &json!("provider")), "{answer}");
        assert_eq!((&answer["usage"]["inputTokens"], &answer["usage"]["outputTokens"]), (&json!(input), &json!(output)), "{answer}");
        assert_eq!(Db::connect().await.ledger(&ws.id).await[0]["nano"], cost);
    }
}

#[tokio::test]
async fn a_provider_that_does_not_count_is_counted_here_and_says_so() {
    let mut script = scripted::answer(&["twelve ", "bytes or so"], 0, 0, 0);
    script.remove(script.len() - 3);
    let model = Scripted::start(vec![script]).await;
    let ws = on(&model).await;
    let answer = ws.turn("uncounted").await.ok(200);
    assert_eq!((&answer["usage"]["source"], &answer["content"]), (&json!("estimated"), &json!("twelve bytes or so")), "{answer}");
    assert!(answer["usage"]["outputTokens"].as_i64().unwrap() > 0 && answer["usage"]["inputTokens"].as_i64().unwrap() > 0, "{answer}");
}

#[tokio::test]
async fn a_count_that_cannot_be_is_no_fault_of_ours() {
    for (prompt, completion) in [(i64::MAX, i64::MAX), (9_000_000_000_000_000, 1), (-5, -5), (0, -1)] {
        let model = Scripted::start(vec![scripted::answer(&["absurd"], 0, prompt, completion)]).await;
        let ws = on(&model).await;
        let reply = ws.turn("count").await;
        assert!([200, 502].contains(&reply.status), "{prompt}, {completion}: {reply:?}");
        assert_eq!(Db::connect().await.ledger(&ws.id).await.len(), 1, "{prompt}, {completion}: it is in the ledger");
        assert_eq!(ws.held().await, 0, "{prompt}, {completion}");
    }
}

#[tokio::test]
async fn kf08_an_unpriced_model_is_refused_before_any_call() {
    let model = Scripted::start(vec![scripted::answer(&["never"], 0, 1, 1)]).await;
    let mut agent = astra_tests::template::openai("assistant", &model.openai());
    agent["model"]["modelId"] = "nobody-priced-this".into();
    let ws = Workspace::with(&astra_tests::workspace::roomy(), &[agent]).await;
    ws.put_secret("OPENAI_API_KEY", &canary::key()).await;
    let problem = ws.turn("how much?").await.problem(422, "model_unpriced");
    assert!(problem["detail"].as_str().unwrap().contains("nobody-priced-this"), "{problem}");
    assert_eq!((model.calls().len(), ws.held().await), (0, 0));
    assert_eq!(Db::connect().await.ledger(&ws.id).await, Vec::<Value>::new());
    // A name that only begins like a priced one is not that one.
    let mut agent = astra_tests::template::openai("assistant", &model.openai());
    agent["model"]["modelId"] = "gpt-4o-mini-and-a-half".into();
    ws.put_template(&[agent]).await;
    ws.turn("how much?").await.problem(422, "model_unpriced");
    assert!(Api::operator().get("/billing/costs").await.status == 200);
}

#[tokio::test]
async fn a_model_that_the_workspace_is_not_let_use_is_refused_before_any_call_or_hold() {
    let model = Scripted::start(vec![scripted::answer(&["fine"], 0, 9, 3)]).await;
    let ws = on(&model).await;
    let restrict = async |restrictions: Value| ws.operator.patch(&ws.path(""), &json!({ "restrictions": restrictions })).await.ok(200);
    for restrictions in [
        json!({ "allowedProviders": ["anthropic"] }),
        json!({ "allowedProviders": [] }),
        json!({ "allowedModels": ["openai/gpt-4", "anthropic/*"] }),
        json!({ "allowedProviders": ["openai"], "allowedModels": ["local/*"] }),
    ] {
        restrict(restrictions).await;
        let problem = ws.turn("may I?").await.problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("openai/"), "{problem}");
    }
    assert_eq!((model.calls().len(), ws.held().await), (0, 0));
    for restrictions in [json!({ "allowedProviders": ["openai"] }), json!({ "allowedModels": ["openai/gpt-4*"] }), json!({})] {
        restrict(restrictions).await;
        ws.turn("may I?").await.ok(200);
    }
    ws.owner.patch(&ws.path(""), &json!({ "restrictions": {} })).await.problem(403, "forbidden");
}
