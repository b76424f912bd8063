//! What is shown of limits: in headers, in the quota, as marks that were passed; and limits of hours, days and time zones.

use astra_tests::workspace::unique;
use astra_tests::{Workspace, template};
use serde_json::{Value, json};

#[tokio::test]
async fn every_answer_says_what_is_left_in_headers() {
    let ws = Workspace::with(
        &json!({ "maxCostUsdPerMonth": 1, "maxTokensPerHour": 100_000, "maxTurnsPerMinute": 1 }),
        &[template::local("assistant")],
    )
    .await;
    let reply = ws.turn("hello").await.expect(200);
    let used = reply.json()["usage"].clone();
    let left = 100_000 - used["inputTokens"].as_i64().unwrap() - used["outputTokens"].as_i64().unwrap();
    let (policy, limit) = (reply.header("ratelimit-policy").to_owned(), reply.header("ratelimit").to_owned());
    assert!(policy.contains(r#""maxTokensPerHour";q=100000;qu="tokens";w=3600"#), "{policy}");
    assert!(policy.contains(r#""maxCostUsdPerMonth";q=1000000000;qu="nano-usd";w="#), "{policy}");
    assert!(limit.contains(&format!(r#""maxTokensPerHour";r={left};t="#)), "{limit}");
    let quota = ws.owner.get(&ws.path("/quota")).await.expect(200);
    assert!(quota.header("ratelimit").contains(&format!(r#""maxTokensPerHour";r={left};t="#)), "{quota:?}");
    let refused = ws.turn("again").await.expect(429);
    assert!(refused.header("ratelimit").starts_with(r#""maxTurnsPerMinute";r=0;t="#), "{refused:?}");
}

#[tokio::test]
async fn hours_and_days_are_limits_and_their_marks_are_told_once() {
    let ws = Workspace::with(&json!({ "maxTokensPerHour": 1_000_000, "maxCostUsdPerDay": 1 }), &[template::local("assistant")]).await;
    let used = ws.turn("hello").await.ok(200)["usage"].clone();
    let used = used["inputTokens"].as_i64().unwrap() + used["outputTokens"].as_i64().unwrap();
    // Each turn uses as much; the limit is twenty of them.
    ws.patch_limits(&json!({ "maxTokensPerHour": 20 * used })).await;
    for _ in 1..16 {
        ws.turn("hello").await.ok(200);
    }
    let marks = async || {
        let page = ws.owner.get(&ws.path("/quota/events")).await.ok(200);
        let events = page["data"].as_array().unwrap().clone();
        events
            .iter()
            .map(|e| (e["limit"].as_str().unwrap().to_owned(), e["mark"].as_i64().unwrap(), e["used"].as_i64().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(marks().await, [("maxTokensPerHour".to_owned(), 80, 16 * used), ("maxTokensPerHour".to_owned(), 50, 10 * used)]);
    let problem = ws.turn(&"too much ".repeat(200)).await.problem(429, "quota_exceeded");
    assert_eq!(problem["limit"], "maxTokensPerHour", "{problem}");
    assert_eq!(marks().await.len(), 2, "each once");
    ws.patch_limits(&json!({ "maxTokensPerHour": null, "maxCostUsdPerDay": 0.000_000_001 })).await;
    assert_eq!(ws.turn("hello").await.problem(429, "quota_exceeded")["limit"], "maxCostUsdPerDay");
}

#[tokio::test]
async fn an_agents_own_hour_limits_that_agent_only() {
    let mut tight = template::local("assistant");
    tight["budget"] = json!({ "maxTokensPerHour": 1 });
    let ws = Workspace::with(&json!({}), &[tight, template::local("other")]).await;
    let problem = ws.turn("hello").await.problem(429, "quota_exceeded");
    assert_eq!(problem["limit"], "maxTokensPerHour");
    assert!(problem["detail"].as_str().unwrap().contains("agent"), "{problem}");
    ws.member.post(&ws.path("/turns"), &json!({ "agentId": "other", "message": "hello" })).await.ok(200);
}

#[tokio::test]
async fn days_and_months_are_the_time_zones() {
    let ws = Workspace::with(&json!({ "maxTokensPerDay": 1_000_000 }), &[template::local("assistant")]).await;
    let patch = async |zone: &str| ws.operator.patch(&ws.path(""), &json!({ "timeZone": zone })).await;
    for unknown in ["Mars/Olympus", "+3", "", "utc2"] {
        let problem = patch(unknown).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], "/timeZone", "{problem}");
    }
    assert_eq!(patch("Asia/Kathmandu").await.ok(200)["timeZone"], "Asia/Kathmandu");
    let starts = ws.window("maxTokensPerDay").await["startsAt"].as_str().unwrap().to_owned();
    assert!(starts.contains("T18:15:00"), "midnight there is 18:15 in UTC: {starts}");
    let forbidden = ws.owner.patch(&ws.path(""), &json!({ "timeZone": "UTC" })).await.problem(403, "forbidden");
    assert!(forbidden["detail"].as_str().unwrap().contains("timeZone"), "{forbidden}");
}

#[tokio::test]
async fn a_plans_setting_is_kept_and_a_new_workspace_has_nothing_carried_over() {
    let ws = Workspace::with(&json!({ "maxTokensPerMonth": 1_000_000 }), &[template::local("assistant")]).await;
    let path = format!("/plans/{}", ws.plan);
    let plan = ws.operator.put(&path, &json!({ "carryOver": true })).await.ok(200);
    assert_eq!((&plan["carryOver"], &plan["templateVersion"]), (&json!(true), &json!(1)));
    assert_eq!(ws.operator.get(&path).await.ok(200), plan);
    ws.turn("hello").await.ok(200);
    assert_eq!(ws.window("maxTokensPerMonth").await["max"], 1_000_000, "there was no month before");
    ws.operator.get(&format!("/plans/{}", unique("plan"))).await.problem(404, "not_found");
    ws.owner.put(&path, &json!({ "carryOver": false })).await.problem(403, "forbidden");
}

#[tokio::test]
async fn counters_are_compared_with_the_ledger() {
    let ws = Workspace::with(&json!({ "maxTokensPerMonth": 1_000_000 }), &[template::local("assistant")]).await;
    ws.turn("hello").await.ok(200);
    let mut after = String::new();
    let found: Value = loop {
        let page = ws.operator.post(&format!("/billing/reconcile?limit=50{after}"), &json!({})).await.ok(200);
        if let Some(own) = page["data"].as_array().unwrap().iter().find(|entry| entry["workspaceId"] == ws.id.as_str()) {
            break own.clone();
        }
        after = format!("&after={}", page["nextCursor"].as_str().expect("it is on some page"));
    };
    assert!(found["compared"].as_i64().unwrap() >= 2 && found["drift"] == json!([]), "{found}");
    ws.owner.post("/billing/reconcile", &json!({})).await.problem(403, "forbidden");
}
