//! Webhooks: a budget's marks are told to whom the workspace names, signed; and nothing inside is called.

use astra_tests::{Api, Db, Receiver, Workspace, template, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// Has a job run now, unless it is running.
async fn start(job: &str) {
    let reply = Api::operator().post(&format!("/billing/jobs/{job}/run"), &json!(null)).await;
    assert!([200, 409].contains(&reply.status), "{reply:?}");
}

/// Waits for so many messages.
async fn messages(receiver: &Receiver, count: usize) -> Vec<astra_tests::receiver::Message> {
    wait::until(&format!("{count} messages"), Duration::from_secs(30), async || {
        start("deliver-webhooks").await;
        let messages = receiver.messages();
        if messages.len() >= count { Ok(messages) } else { Err(messages) }
    })
    .await
}

/// Uses a budget up; the marks that were passed, by the list of them.
async fn use_up(ws: &Workspace) -> Vec<i64> {
    while ws.turn("some words").await.status == 200 {}
    let events = ws.owner.get(&ws.path("/quota/events")).await.ok(200);
    let mut marks: Vec<_> = events["data"].as_array().unwrap().iter().map(|event| event["mark"].as_i64().unwrap()).collect();
    marks.sort_unstable();
    assert!(marks.len() >= 2, "{events}");
    marks
}

async fn put(ws: &Workspace, name: &str, url: &str) -> Value {
    ws.owner.put(&ws.path(&format!("/webhooks/{name}")), &json!({ "url": url })).await.ok(201)
}

#[tokio::test]
async fn a_budgets_marks_are_told_signed_and_once() {
    let receiver = Receiver::start(|_| 204).await;
    let ws = Workspace::with(&json!({ "maxTokensPerMonth": 3000 }), &[template::local("assistant")]).await;
    let made = put(&ws, "mine", &receiver.url()).await;
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() > 40);
    let listed = ws.owner.get(&ws.path("/webhooks")).await.ok(200);
    assert_eq!((&listed["data"][0]["name"], &listed["data"][0]["secret"]), (&json!("mine"), &Value::Null), "shown once");
    let expected = use_up(&ws).await;
    let told = messages(&receiver, expected.len()).await;
    wait::millis(500).await;
    assert_eq!(receiver.messages().len(), expected.len(), "each once");
    let mut marks: Vec<_> = told
        .iter()
        .map(|message| {
            assert!(message.is_signed(secret), "{message:?}");
            let body: Value = serde_json::from_str(&message.body).unwrap();
            assert_eq!((&body["type"], &body["data"]["workspaceId"]), (&json!("quota.threshold"), &json!(ws.id)));
            body["data"]["mark"].as_i64().unwrap()
        })
        .collect();
    marks.sort_unstable();
    assert_eq!(marks, expected);
    let log = ws.owner.get(&ws.path("/webhooks/mine/deliveries?limit=1")).await.ok(200);
    assert_eq!(log["data"][0]["log"][0]["status"], 204, "{log}");
    let rest = ws.owner.get(&ws.path(&format!("/webhooks/mine/deliveries?after={}", log["nextCursor"].as_str().unwrap()))).await.ok(200);
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["nextCursor"]), (expected.len() - 1, &Value::Null));
    // Sent again by its owner: under its id, and by both secrets when there are two.
    let new = ws.owner.post(&ws.path("/webhooks/mine/rotate"), &json!(null)).await.ok(200);
    let delivery = &log["data"][0];
    let again = ws.path(&format!("/webhooks/mine/deliveries/{}/replay", delivery["id"].as_str().unwrap()));
    let _ = ws.owner.post(&again, &json!(null)).await.expect(202);
    let told = messages(&receiver, expected.len() + 1).await;
    let last = told.last().unwrap();
    assert_eq!(json!(last.id), delivery["webhookId"]);
    assert!(last.is_signed(secret) && last.is_signed(new["secret"].as_str().unwrap()));
    // No secret is in the database as it is, and all goes with the workspace.
    let db = Db::connect().await;
    let rows = db.rows("SELECT * FROM webhooks WHERE workspace_id = $1", &[&ws.id]).await;
    let hex: String = base64_to_hex(secret);
    assert!(!rows[0].to_string().contains(&secret[6..]) && !rows[0].to_string().contains(&hex), "{rows:?}");
    let audit = ws.owner.get(&ws.path("/audit?action=webhook.*")).await.ok(200).to_string();
    assert!(audit.contains("webhook.put") && !audit.contains(&receiver.url()) && !audit.contains(&secret[6..]));
    let _ = ws.owner.delete(&ws.path("")).await.expect(200);
    let left =
        "(SELECT count(*) FROM webhooks WHERE workspace_id = $1) + (SELECT count(*) FROM webhook_deliveries WHERE workspace_id = $1)";
    assert_eq!(db.number(left, &[&ws.id]).await, 0);
}

fn base64_to_hex(secret: &str) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    hex::encode(BASE64_STANDARD.decode(&secret[6..]).unwrap())
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let receiver = Receiver::start(|_| 302).await;
    let ws = Workspace::with(&json!({ "maxTokensPerMonth": 3000 }), &[template::local("assistant")]).await;
    put(&ws, "mine", &receiver.url()).await;
    let marks = use_up(&ws).await;
    messages(&receiver, marks.len()).await;
    let log = wait::until("the log", Duration::from_secs(20), async || {
        let log = ws.owner.get(&ws.path("/webhooks/mine/deliveries")).await.ok(200);
        let all = log["data"].as_array().unwrap().iter().all(|delivery| delivery["log"][0]["status"] == 302);
        if all { Ok(log) } else { Err(log) }
    })
    .await;
    assert!(log["data"][0]["nextAt"].is_string() && log["data"][0]["deliveredAt"].is_null(), "{log}");
    // Each try is one call: had it been followed, it would have come here a second time.
    let tries: usize = log["data"].as_array().unwrap().iter().map(|delivery| delivery["log"].as_array().unwrap().len()).sum();
    assert!(receiver.messages().len() <= tries + 3, "{} calls", receiver.messages().len());
}

#[tokio::test]
async fn nothing_inside_is_called() {
    let ws = Workspace::local().await;
    for url in [
        "http://localhost:9000/",
        "http://127.0.0.2/",
        "http://[::1]/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/",
        "https://100.100.100.200/",
        "https://10.0.0.1/",
        "https://metadata.google.internal/",
        "https://user:password@hooks.example.com/",
        "http://user@127.0.0.1/",
        "http://hooks.example.com/",
        "https://hooks.example.com:22/",
        "file:///etc/passwd",
        "https://intranet/",
        "",
    ] {
        let refused = ws.owner.put(&ws.path("/webhooks/mine"), &json!({ "url": url })).await.problem(422, "unprocessable");
        assert_eq!(refused["errors"][0]["pointer"], "/url", "{url}: {refused}");
    }
    assert_eq!(ws.owner.get(&ws.path("/webhooks")).await.ok(200)["data"], json!([]));
}

#[tokio::test]
async fn what_is_asked_is_checked() {
    let ws = Workspace::local().await;
    let url = "https://hooks.example.com/x";
    for (name, body, pointer) in [
        ("Mine", json!({ "url": url }), "webhookName"),
        ("-", json!({ "url": url }), "webhookName"),
        ("mine", json!({ "url": url, "events": [] }), "/events"),
        ("mine", json!({ "url": url, "events": ["x"] }), "/events"),
        ("mine", json!({ "url": url, "color": 1 }), "/color"),
        ("mine", json!({}), "/"),
    ] {
        let refused = ws.owner.put(&ws.path(&format!("/webhooks/{name}")), &body).await.problem(422, "unprocessable");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}: {refused}");
    }
    for n in 0..20 {
        put(&ws, &format!("hook-{n}"), url).await;
    }
    ws.owner.put(&ws.path("/webhooks/one-more"), &json!({ "url": url })).await.problem(409, "conflict");
    ws.owner.put(&ws.path("/webhooks/hook-3"), &json!({ "url": url, "events": ["invoice.closed"] })).await.ok(200);
    ws.member.put(&ws.path("/webhooks/hook-3"), &json!({ "url": url })).await.problem(403, "forbidden");
    let _ = ws.owner.delete(&ws.path("/webhooks/hook-3")).await.expect(204);
    ws.owner.delete(&ws.path("/webhooks/hook-3")).await.problem(404, "not_found");
    ws.owner.post(&ws.path("/webhooks/hook-3/rotate"), &json!(null)).await.problem(404, "not_found");
    ws.owner.get(&ws.path("/webhooks/hook-3/deliveries")).await.problem(404, "not_found");
}

#[tokio::test]
async fn jobs_are_seen_and_started_by_the_operator() {
    let operator = Api::operator();
    start("clean-up").await;
    let jobs = operator.get("/billing/jobs").await.ok(200);
    let names: Vec<_> = jobs["data"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["deliver-webhooks", "push-usage", "reconcile", "roll-up", "close-month", "clean-up"]);
    let clean_up = &jobs["data"][5];
    assert!(clean_up["runs"].as_i64().unwrap() > 0 || clean_up["isRunning"] == true, "{clean_up}");
    operator.post("/billing/jobs/dance/run", &json!(null)).await.problem(404, "not_found");
    let ws = Workspace::local().await;
    ws.owner.get("/billing/jobs").await.problem(403, "forbidden");
    ws.owner.post("/billing/jobs/clean-up/run", &json!(null)).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_customer_at_stripe_is_the_operators_to_set() {
    let (ws, operator) = (Workspace::local().await, Api::operator());
    let path = format!("/billing/stripe/customers/{}", ws.id);
    for (body, pointer) in
        [(json!({}), "/"), (json!({ "customerId": "cus x" }), "/customerId"), (json!({ "customerId": "" }), "/customerId")]
    {
        let refused = operator.put(&path, &body).await.problem(422, "unprocessable");
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}");
    }
    let _ = operator.put(&path, &json!({ "customerId": "cus_abc" })).await.expect(204);
    operator.put("/billing/stripe/customers/nobody-at-all", &json!({ "customerId": "cus_abc" })).await.problem(404, "not_found");
    let mut after = String::new();
    let found = loop {
        let page = operator.get(&format!("/billing/stripe/customers?limit=200{after}")).await.ok(200);
        let mine = page["data"].as_array().unwrap().iter().find(|row| row["workspaceId"] == ws.id.as_str()).cloned();
        match (mine, page["nextCursor"].as_str()) {
            (Some(row), _) => break row,
            (None, Some(cursor)) => after = format!("&after={cursor}"),
            (None, None) => panic!("not listed"),
        }
    };
    assert_eq!((&found["customerId"], &found["pushedSeq"]), (&json!("cus_abc"), &json!(0)));
    let _ = operator.put(&path, &json!({ "customerId": null })).await.expect(204);
    assert_eq!(operator.post(&format!("/billing/stripe/refusals/{}/retry", ws.id), &json!(null)).await.ok(200), json!({ "count": 0 }));
    operator.get("/billing/stripe/refusals").await.ok(200);
    ws.owner.put(&path, &json!({ "customerId": "cus_mine" })).await.problem(403, "forbidden");
    ws.owner.get("/billing/stripe/refusals").await.problem(403, "forbidden");
}
