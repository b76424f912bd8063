//! Hard limits: reached, told, raised, and kept.

use astra_tests::workspace::unique;
use astra_tests::{Aimock, Db, Scripted, Workspace, db, template};
use serde_json::{Value, json};

/// A message that makes the `local` model use some two hundred tokens.
fn wordy() -> String {
    "several words ".repeat(40)
}

/// Asks until a limit refuses. Gives how many turns went through, and the refusal as a problem with its Retry-After.
async fn until_refused(ws: &Workspace, message: &str) -> (usize, Value, i64) {
    for done in 0..200 {
        let reply = ws.turn(message).await;
        if reply.status != 200 {
            let retry_after = reply.header("retry-after").parse().unwrap_or_else(|_| panic!("Retry-After: {reply:?}"));
            return (done, reply.problem(429, "quota_exceeded"), retry_after);
        }
    }
    panic!("two hundred turns and no limit");
}

/// The first moment of the next month, UTC, as the product writes times.
async fn next_month() -> String {
    let sql = "SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY-MM-DD\"T\"HH24:MI:SS') AS t";
    Db::connect().await.rows(sql, &[]).await[0]["t"].as_str().unwrap().to_owned()
}

async fn assert_is_the_months_limit(problem: &Value, retry_after: i64, limit: &str) {
    assert_eq!(problem["limit"], limit, "{problem}");
    let resets = next_month().await;
    assert!(problem["resetsAt"].as_str().is_some_and(|at| at.starts_with(&resets)), "{problem} resets at {resets}");
    assert!(retry_after > 0 && retry_after <= 31 * 86_400, "{retry_after}");
}

#[tokio::test]
async fn the_months_tokens_are_a_hard_limit_and_raising_it_keeps_the_usage() {
    let ws = Workspace::with(&json!({ "maxTokensPerMonth": 3000 }), &[template::local("assistant")]).await;
    let (done, problem, retry_after) = until_refused(&ws, &wordy()).await;
    assert!(done >= 2, "{done} turns before {problem}");
    assert_is_the_months_limit(&problem, retry_after, "maxTokensPerMonth").await;
    let database = Db::connect().await;
    let used = db::tokens(&database.ledger(&ws.id).await);
    assert!(used <= 3000 && problem["used"] == used, "{used}: {problem}");
    let window = ws.window("maxTokensPerMonth").await;
    assert_eq!((&window["used"], &window["held"], &window["max"]), (&json!(used), &json!(0), &json!(3000)), "{window}");

    ws.patch_limits(&json!({ "maxTokensPerMonth": 100_000 })).await;
    ws.turn(&wordy()).await.ok(200);
    let after = ws.window("maxTokensPerMonth").await;
    let used_after = db::tokens(&database.ledger(&ws.id).await);
    assert!(used_after > used, "usage is kept");
    assert_eq!((&after["used"], &after["max"]), (&json!(used_after), &json!(100_000)));
    assert_eq!(after["left"].as_i64().unwrap(), 100_000 - used_after);
}

#[tokio::test]
async fn the_months_cost_is_a_hard_limit_and_raising_it_keeps_the_usage() {
    let max = 1_000_000;
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 0.001 }), &[template::local("assistant")]).await;
    let (done, problem, retry_after) = until_refused(&ws, &wordy()).await;
    assert!(done >= 2, "{done} turns before {problem}");
    assert_is_the_months_limit(&problem, retry_after, "maxCostUsdPerMonth").await;
    let database = Db::connect().await;
    let used = db::nano(&database.ledger(&ws.id).await);
    assert!(used <= max && problem["used"] == used, "{used}: {problem}");
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 1.5 })).await;
    let answer = ws.turn(&wordy()).await.ok(200);
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!(window["used"], used + answer["costNanoUsd"].as_i64().unwrap());
    assert_eq!(window["max"], 1_500_000_000);
}

#[tokio::test]
async fn kf13_lowering_a_limit_below_what_is_used_refuses_and_removing_it_lets_through_and_neither_resets() {
    let ws = Workspace::with(&json!({}), &[template::local("assistant")]).await;
    let first = ws.turn(&wordy()).await.ok(200)["costNanoUsd"].as_i64().unwrap();
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 0.000_000_001 })).await;
    let problem = ws.turn("more").await.problem(429, "quota_exceeded");
    assert_eq!(problem["used"], first, "usage from before there was a limit counts: {problem}");
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": null })).await;
    let second = ws.turn("more").await.ok(200)["costNanoUsd"].as_i64().unwrap();
    // Another plan is another template, not another month.
    let plan = unique("plan");
    let moved = Workspace { plan: plan.clone(), ..ws.clone() };
    let _ = ws.operator.patch(&ws.path(""), &json!({ "plan": plan, "limits": { "maxCostUsdPerMonth": 1 } })).await.expect(200);
    moved.put_template(&[template::local("assistant")]).await;
    assert_eq!(moved.window("maxCostUsdPerMonth").await["used"], first + second);
}

/// Enters a turn of this cost and start in a ledger that has none yet, as if it had been then.
async fn enter(ws: &Workspace, usd: &str, started: &str) {
    let id = &ws.id;
    Db::connect()
        .await
        .run(&format!(
            "INSERT INTO ledger SELECT l.* FROM astra.ledger_place(jsonb_populate_record(NULL::ledger, jsonb_build_object('workspace_id', '{id}', 'kind', 'turn', 'turn_id', gen_random_uuid(),
               'nth', 0, 'agent_id', 'assistant', 'user_id', 'u', 'session_id', gen_random_uuid(), 'provider', 'local', 'model', 'echo-1', 'price_version', 1, 'markup_basis_points', 0, 'input_tokens', 1,
               'cached_input_tokens', 0, 'output_tokens', 1, 'reasoning_tokens', 0, 'embedding_tokens', 0, 'cost_usd', {usd}, 'charge_usd', {usd}, 'source', 'provider',
               'turn_started_at', {started}))) l;
             INSERT INTO turns (workspace_id, id, session_id, agent_id, user_id, status, provider, model, price_version, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens,
               cost_usd, usage_source, idempotency_month, request_hash, created_at, ended_at)
             SELECT l.workspace_id, l.turn_id, l.session_id, l.agent_id, l.user_id, 'completed', l.provider, l.model, l.price_version, l.input_tokens, l.cached_input_tokens, l.output_tokens,
               l.reasoning_tokens, l.cost_usd, l.source, '2020-01-01', 'h', l.turn_started_at, l.turn_started_at FROM ledger l WHERE l.workspace_id = '{id}'"
        ))
        .await;
}

#[tokio::test]
async fn kf14_what_was_spent_in_the_months_first_moment_is_spent_until_its_end() {
    // The session's month is UTC's (Db).
    let month = "date_trunc('month', now())";
    let new = async || Workspace::with(&json!({ "maxCostUsdPerMonth": 0.01 }), &[template::local("assistant")]).await;
    let ws = new().await;
    enter(&ws, "0.01", month).await;
    for _ in 0..2 {
        let (done, problem, retry_after) = until_refused(&ws, "is it refilled?").await;
        assert_eq!((done, &problem["used"]), (0, &json!(10_000_000)), "a budget is no rate that refills: {problem}");
        assert_is_the_months_limit(&problem, retry_after, "maxCostUsdPerMonth").await;
    }
    let window = ws.window("maxCostUsdPerMonth").await;
    assert_eq!((&window["used"], &window["left"]), (&json!(10_000_000), &json!(0)), "{window}");
    // A moment before, it was another month's.
    let ws = new().await;
    enter(&ws, "0.01", &format!("{month} - interval '1 microsecond'")).await;
    let cost = ws.turn("a new month").await.ok(200)["costNanoUsd"].clone();
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], cost);
}

#[tokio::test]
async fn an_agents_months_cost_limits_that_agent_only() {
    let mut tight = template::local("assistant");
    tight["budget"] = json!({ "maxCostUsdPerMonth": 0.000_5 });
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 10 }), &[tight, template::local("other")]).await;
    let (done, problem, retry_after) = until_refused(&ws, &wordy()).await;
    assert!(done >= 1, "{done} turns before {problem}");
    assert!(problem["limit"].as_str().unwrap().contains("maxCostUsdPerMonth"), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("agent"), "it says whose limit: {problem}");
    assert!(retry_after > 0);
    assert!(db::nano(&Db::connect().await.ledger(&ws.id).await) <= 500_000);
    ws.member.post(&ws.path("/turns"), &json!({ "agentId": "other", "message": wordy() })).await.ok(200);
}

#[tokio::test]
async fn an_agents_budget_that_refers_to_the_workspaces_limit_follows_it() {
    let mut agent = template::local("assistant");
    agent["budget"] = json!({ "maxCostUsdPerMonth": "{{workspace.limits.maxCostUsdPerMonth}}" });
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 0.000_000_001 }), &[agent]).await;
    ws.turn("too dear").await.problem(429, "quota_exceeded");
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 1 })).await;
    ws.turn("now").await.ok(200);
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": null })).await;
    ws.turn("without any").await.ok(200);
}

#[tokio::test]
async fn turns_per_minute_are_limited_and_the_wait_is_told() {
    let ws = Workspace::with(&json!({ "maxTurnsPerMinute": 3 }), &[template::local("assistant")]).await;
    let (done, problem, retry_after) = until_refused(&ws, "quick").await;
    assert_eq!((done, &problem["limit"]), (3, &json!("maxTurnsPerMinute")), "{problem}");
    assert!((1..=60).contains(&retry_after), "{retry_after}");
    ws.patch_limits(&json!({ "maxTurnsPerMinute": 5 })).await;
    let (more, ..) = until_refused(&ws, "quick").await;
    assert_eq!(more, 2, "the turns of before the change count");
}

#[tokio::test]
async fn max_tokens_per_turn_bounds_what_the_model_is_let_say() {
    let model = Scripted::obedient(5000, 0).await;
    let mut agent = template::openai("assistant", &model.openai());
    agent["budget"] = json!({ "maxTokensPerTurn": 1500 });
    let ws = Workspace::with(&astra_tests::workspace::roomy(), &[agent]).await;
    ws.put_secret("OPENAI_API_KEY", &astra_tests::canary::key()).await;
    let answer = ws.turn("go on and on").await.ok(200);
    assert!(["length", "quota"].contains(&answer["finishReason"].as_str().unwrap()), "{answer}");
    let used = answer["usage"]["inputTokens"].as_i64().unwrap() + answer["usage"]["outputTokens"].as_i64().unwrap();
    assert!((200..=1500).contains(&used), "{used} of 1500");
    // A prompt that is larger by itself is refused before any call.
    let reply = ws.turn(&"x".repeat(5000)).await;
    let problem = reply.problem(429, "quota_exceeded");
    assert_eq!((&problem["limit"], model.calls().len()), (&json!("maxTokensPerTurn"), 1), "{problem}");
    assert_eq!(ws.held().await, 0);
}

#[tokio::test]
async fn nothing_is_refused_near_a_limit_that_a_precise_count_would_let_through() {
    // The prompt is some fifty tokens by anybody's count, and two hundred bytes at most.
    let model = Scripted::obedient(20, 0).await;
    let ws = Workspace::openai_with(&model.openai(), &json!({ "maxTokensPerMonth": 400 })).await;
    let answer = ws.turn("short").await.ok(200);
    assert!(answer["usage"]["outputTokens"].as_i64().unwrap() > 0, "{answer}");
}

#[tokio::test]
async fn the_model_is_never_let_say_more_than_the_budget_can_pay() {
    let model = Scripted::obedient(100_000, 0).await;
    // 0.0002 dollars pay for at most 333 output tokens of gpt-4o-mini.
    let ws = Workspace::openai_with(&model.openai(), &json!({ "maxCostUsdPerMonth": 0.000_2 })).await;
    let answer = ws.turn("everything you know").await.ok(200);
    assert!(["length", "quota"].contains(&answer["finishReason"].as_str().unwrap()), "{answer}");
    assert!(answer["costNanoUsd"].as_i64().unwrap() <= 200_000, "{answer}");
    let body = &model.calls()[0].body;
    let asked = ["max_tokens", "max_completion_tokens"].iter().find_map(|name| body[name].as_i64()).expect("max_tokens is sent");
    assert!(asked <= 333, "{asked}");
}

#[tokio::test]
async fn max_agents_limits_a_workspaces_agents() {
    let ws = Workspace::with(&json!({ "maxAgents": 2 }), &[template::local("assistant")]).await;
    let put = async |id: &str| {
        let mut agent = template::local(id);
        agent.as_object_mut().unwrap().remove("id");
        ws.owner.put(&ws.path(&format!("/agents/{id}")), &agent).await
    };
    assert!(put("second").await.status < 300);
    let problem = put("third").await.problem(429, "quota_exceeded");
    assert_eq!(problem["limit"], "maxAgents", "{problem}");
    assert!(put("second").await.status < 300, "one that is there can be changed");
    let both = futures_util::future::join_all(["x1", "x2", "x3"].map(&put)).await;
    assert!(both.iter().all(|reply| reply.status == 429), "{both:?}");
    ws.patch_limits(&json!({ "maxAgents": 3 })).await;
    assert!(put("third").await.status < 300);
}

#[tokio::test]
async fn kf11_every_limit_that_is_accepted_is_enforced_at_once() {
    for (limit, tiny) in [("maxTokensPerMonth", json!(1)), ("maxCostUsdPerMonth", json!(0.000_000_001)), ("maxTurnsPerMinute", json!(0))] {
        let ws = Workspace::local().await;
        ws.turn("before").await.ok(200);
        let patched = ws.operator.patch(&ws.path(""), &json!({ "limits": { limit: tiny } })).await;
        if patched.status == 422 && tiny == json!(0) {
            continue;
        }
        let stored = ws.owner.get(&ws.path("")).await.ok(200);
        assert!(stored["limits"].get(limit).is_some_and(|v| v.as_f64() == tiny.as_f64()), "{limit} is stored: {stored}");
        let problem = ws.turn("after").await.problem(429, "quota_exceeded");
        assert_eq!(problem["limit"], limit);
        assert!(ws.quota().await.iter().any(|w| w["limit"] == limit), "{limit} is shown");
    }
}

#[tokio::test]
async fn kf05_turns_that_fail_leave_nothing_held() {
    let mock = Aimock::start().await;
    mock.fixture(&json!({ "match": { "userMessage": "bad" }, "response": { "error": { "message": "no", "type": "x" }, "status": 400 } }))
        .await;
    mock.answer("good", "Fine.", 10, 2).await;
    // Room for one hold or two, not for thirty that stay.
    let ws = Workspace::openai_with(&mock.openai(), &json!({ "maxCostUsdPerMonth": 0.01 })).await;
    for _ in 0..30 {
        ws.turn("bad").await.problem(502, "upstream_error");
    }
    assert_eq!(ws.held().await, 0);
    ws.turn("good").await.ok(200);
}

/// A day's, not an hour's: the hour might end meanwhile.
#[tokio::test]
async fn a_limit_that_comes_while_a_turn_runs_counts_what_it_holds_and_ends_it() {
    let model = Scripted::obedient_in_bursts(20_000, 40, 15).await;
    let mut agent = template::openai("assistant", &model.openai());
    agent["model"]["maxOutputTokens"] = json!(100_000);
    let ws = Workspace::with(&json!({ "maxTokensPerMonth": 200_000 }), &[agent]).await;
    ws.put_secret("OPENAI_API_KEY", &astra_tests::canary::key()).await;
    let mut stream = ws.stream("on and on").await;
    stream.next_named("content.delta").await;
    let held = ws.window("maxTokensPerMonth").await["held"].as_i64().unwrap();
    let max = held + 6_000;
    ws.patch_limits(&json!({ "maxTokensPerDay": max })).await;
    let window = ws.window("maxTokensPerDay").await;
    let then = window["held"].as_i64().unwrap();
    assert!(then >= held, "{window}");
    let problem = ws.turn(&"x".repeat(6_100)).await.problem(429, "quota_exceeded");
    assert_eq!(problem["limit"], "maxTokensPerDay", "it would fit, but for what is held: {problem}");
    let last = stream.rest().await.pop().unwrap();
    assert_eq!((last.name.as_str(), &last.data["finishReason"]), ("turn.completed", &json!("quota")), "{last:?}");
    // What it held when the limit came it may keep.
    let used = db::tokens(&Db::connect().await.ledger(&ws.id).await);
    assert!(used <= max.max(then), "{used} of {max}");
    let windows = last.data["quota"]["windows"].as_array().unwrap().iter().map(|window| &window["limit"]).collect::<Vec<_>>();
    assert_eq!(windows, ["maxTokensPerMonth", "maxTokensPerDay"]);
    assert_eq!(ws.held().await, 0);
}

/// What one token of output costs that the model of these tests says, nano-dollars.
const OUTPUT: i64 = 600;

/// An answer is told of an agent that has room for it, two thousand bytes in a second; meanwhile `lower` gives the agent another limit, which pays for what is held by then and 4,000 bytes more.
/// To look at the quota tells the counter of its limits, so without `looks` nobody but `lower` does.
async fn lowered_while_it_is_told(looks: bool, lower: impl AsyncFn(&Workspace, Value)) {
    let model = Scripted::obedient_in_bursts(20_000, 40, 100).await;
    let mut agent = template::openai("assistant", &model.openai());
    agent["model"]["maxOutputTokens"] = json!(100_000);
    agent["budget"] = json!({ "maxCostUsdPerMonth": 0.07 });
    let ws = Workspace::with(&astra_tests::workspace::roomy(), std::slice::from_ref(&agent)).await;
    ws.put_secret("OPENAI_API_KEY", &astra_tests::canary::key()).await;
    let taken = async || {
        let windows = ws.quota().await;
        let window = windows.iter().find(|window| window["scope"] == "agent:assistant").unwrap_or_else(|| panic!("{windows:?}"));
        window["used"].as_i64().unwrap() + window["held"].as_i64().unwrap()
    };
    let mut stream = ws.stream("on and on").await;
    stream.next_named("content.delta").await;
    let max = taken().await + 4_000 * OUTPUT;
    agent["budget"]["maxCostUsdPerMonth"] = json!(format!("0.{max:09}"));
    lower(&ws, agent).await;
    let mut events = vec![];
    while let Some(event) = stream.next().await {
        events.push(event);
        if looks && events.len() % 8 == 0 {
            let now = taken().await;
            assert!(now <= max, "{now} of {max}");
        }
    }
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["finishReason"]), ("turn.completed", &json!("quota")), "{last:?}");
    // Each byte was covered by a token before it was told.
    let told = i64::try_from(astra_tests::sse::text(&events).len()).unwrap();
    assert!(told > 1_000 && told * OUTPUT <= max, "{told} bytes and {max}");
    let windows = last.data["quota"]["windows"].as_array().unwrap();
    assert!(windows.iter().any(|window| window["scope"] == "agent:assistant" && window["max"] == max), "{windows:?}");
    let used = db::nano(&Db::connect().await.ledger(&ws.id).await);
    assert!(used <= max, "{used} of {max}");
    assert_eq!(ws.held().await, 0);
}

#[tokio::test]
async fn an_agents_limit_that_is_lowered_while_its_turn_runs_ends_it() {
    lowered_while_it_is_told(false, async |ws, mut agent| {
        agent.as_object_mut().unwrap().remove("id");
        ws.operator.put(&ws.path("/agents/assistant"), &agent).await.ok(200);
    })
    .await;
}

#[tokio::test]
async fn an_agents_limit_that_is_another_plans_holds_for_its_turn_that_runs() {
    lowered_while_it_is_told(false, async |ws, agent| {
        let other = Workspace { plan: unique("plan"), ..ws.clone() };
        other.put_template(&[agent]).await;
        ws.operator.patch(&ws.path(""), &json!({ "plan": other.plan })).await.ok(200);
    })
    .await;
}

/// Nobody tells an object of it: that it looks for itself is tested beside it.
#[tokio::test]
async fn a_templates_limit_that_is_lowered_while_a_turn_runs_ends_it() {
    lowered_while_it_is_told(true, async |ws, agent| ws.put_template(&[agent]).await).await;
}
