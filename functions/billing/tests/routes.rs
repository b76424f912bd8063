//! Who may see what is billed, what each endpoint asks, and what it answers.

use astra_host::testing::{FakeHost, Reply, operator, send, token};
use astra_kernel::Timestamp;
use astra_quota::words::{Answer, Ask};
use astra_quota::{QuotaView, Window};
use billing::routes::{ROUTES, document, router};
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn as_operator(host: &FakeHost, method: &str, path: &str, body: &str) -> Reply {
    send(&router::<FakeHost>(), host, method, path, Some(&operator()), body).await
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = serde_json::to_value(document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone())))
        .collect();
    let routed: BTreeSet<_> = ROUTES.iter().map(|(method, pattern)| ((*method).to_owned(), (*pattern).to_owned())).collect();
    assert_eq!(described, routed);
}

/// The least role of each route; `operator` where no tenant's role is enough.
const LEAST: &[(&str, &str, &str)] = &[
    ("GET", "/billing/costs", "operator"),
    ("GET", "/billing/prices", "operator"),
    ("PUT", "/billing/prices", "operator"),
    ("GET", "/workspaces/{workspaceId}/usage", "admin"),
    ("GET", "/workspaces/{workspaceId}/quota", "viewer"),
    ("GET", "/workspaces/{workspaceId}/quota/events", "viewer"),
    ("POST", "/billing/reconcile", "operator"),
];

#[tokio::test]
async fn each_route_asks_for_its_role() {
    const RANKS: [&str; 5] = ["viewer", "member", "admin", "owner", "operator"];
    assert_eq!(LEAST.iter().map(|(method, pattern, _)| (*method, *pattern)).collect::<Vec<_>>(), ROUTES);
    let router = router::<FakeHost>();
    for (method, pattern, least) in LEAST {
        let path = pattern.replace("{workspaceId}", "acme");
        let least = RANKS.iter().position(|role| role == least).unwrap();
        for (rank, role) in RANKS.iter().enumerate() {
            let host = FakeHost::new(&[]);
            let workspace = (*role != "operator").then_some("acme");
            let reply = send(&router, &host, method, &path, Some(&token(workspace, role, None)), "{").await;
            if rank >= least {
                assert!(![401, 403].contains(&reply.status), "{role}: {method} {path}: {reply:?}");
            } else {
                reply.problem(403);
                assert!(host.calls().is_empty() && host.asked().is_empty());
            }
        }
        let (foreign, narrowed) = (token(Some("other"), "owner", None), token(Some("acme"), "owner", Some(&["memory:read"])));
        for (token, status) in [(None, 401), (Some(&foreign), 403), (Some(&narrowed), 403)] {
            let host = FakeHost::new(&[]);
            send(&router, &host, method, &path, token.map(String::as_str), "{").await.problem(status);
            assert!(host.calls().is_empty() && host.asked().is_empty());
        }
    }
}

#[tokio::test]
async fn costs_are_exact_and_for_people() {
    let host = FakeHost::new(&[]);
    let row = json!({ "workspaceId": "acme", "displayName": "ACME Corp", "totalCostNanoUsd": 1_234_567_890_123_i64, "totalTokens": 5, "sessions": 2 });
    host.answer("op_costs", &json!({ "outcome": "ok", "data": [row], "next": "1234567890123:acme" }));
    let reply = as_operator(&host, "GET", "/billing/costs?limit=1&after=99:b&month=2026-10", "").await;
    assert!(reply.body.contains(r#""totalCostUsd":1234.567890123,"totalCostNanoUsd":1234567890123"#), "{reply:?}");
    assert_eq!(reply.ok(200)["nextCursor"], "1234567890123:acme");
    assert_eq!(host.argument("op_costs"), json!({ "month": "2026-10", "after": "99:b", "limit": 1 }));
    for (query, named) in [
        ("month=2026-13", "month"),
        ("month=26-1", "month"),
        ("month=", "month"),
        ("after=x", "after"),
        ("after=1:A", "after"),
        ("limit=0", "limit"),
        ("months=2026-11", "months"),
    ] {
        let reply = as_operator(&host, "GET", &format!("/billing/costs?{query}"), "").await;
        assert!(reply.problem(422).contains(named), "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn usage_is_this_months_unless_told() {
    let host = FakeHost::new(&[]);
    let counts = json!({ "turns": 3, "sessions": 2, "totalTokens": 30, "inputTokens": 20, "outputTokens": 10, "totalCostNanoUsd": 150 });
    let with = |more: Value| {
        let mut all = counts.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let month = with(json!({
        "outcome": "ok", "workspaceId": "acme", "month": "2026-11", "cachedInputTokens": 5, "reasoningTokens": 1,
        "byAgent": [with(json!({ "agentId": "assistant" }))], "byModel": [with(json!({ "provider": "openai", "model": "gpt-4o-mini" }))],
    }));
    host.answer("usage", &month);
    let reply = send(&router::<FakeHost>(), &host, "GET", "/workspaces/acme/usage", Some(&token(Some("acme"), "owner", None)), "").await;
    let shown = reply.ok(200);
    assert_eq!(host.argument("usage"), json!({ "month": "2026-11" }));
    assert!(reply.body.contains(r#""totalCostNanoUsd":150,"totalCostUsd":0.00000015"#), "{reply:?}");
    assert_eq!((&shown["byAgent"][0]["agentId"], &shown["byModel"][0]["model"]), (&json!("assistant"), &json!("gpt-4o-mini")));
    assert!(as_operator(&host, "GET", "/workspaces/acme/usage?mnth=2026-11", "").await.problem(422).contains("mnth"));
    host.answer("usage", &json!({ "outcome": "not_found" }));
    as_operator(&host, "GET", "/workspaces/acme/usage", "").await.problem(404);
}

#[tokio::test]
async fn quota_is_what_the_counter_says() {
    let host = FakeHost::new(&[]);
    let ask = async || as_operator(&host, "GET", "/workspaces/acme/quota", "").await;
    ask().await.problem(503);
    host.counter(|ask| {
        assert!(matches!(ask, Ask::Status));
        let window = Window {
            limit: "maxTokensPerMonth".into(),
            scope: "workspace".into(),
            max: 10,
            used: 4,
            held: 1,
            left: 5,
            starts_at: None,
            resets_at: Some(Timestamp(1_796_083_200_000)),
        };
        Ok(Answer::Status(Some(QuotaView { windows: vec![window] })))
    });
    let expected = json!({ "windows": [{ "limit": "maxTokensPerMonth", "scope": "workspace", "max": 10, "used": 4, "held": 1, "left": 5, "resetsAt": "2026-12-01T00:00:00.000Z" }], "forecast": [] });
    assert_eq!(ask().await.ok(200), expected);
    host.counter(|_| Ok(Answer::Status(None)));
    ask().await.problem(404);
    host.counter(|_| Ok(Answer::Unavailable));
    ask().await.problem(503);
    host.counter(|_| Ok(Answer::Fault("42501".into())));
    assert!(!ask().await.ok(500).to_string().contains("42501"));
    assert!(host.calls().is_empty());
}

const PRICE: &str =
    r#"{"provider":"openai","model":"gpt-4o-mini","inputUsdPerMtok":0.15,"cachedInputUsdPerMtok":0.075,"outputUsdPerMtok":0.6}"#;

#[tokio::test]
async fn a_price_is_a_version_and_the_same_again_is_the_same() {
    let host = FakeHost::new(&[]);
    let stored = json!({
        "provider": "openai", "model": "gpt-4o-mini", "inputNanoPerMtok": 150_000_000, "cachedInputNanoPerMtok": 75_000_000, "outputNanoPerMtok": 600_000_000,
        "holdsMaximum": false, "validFrom": "2026-11-24T12:00:00.000Z",
    });
    host.answer("op_prices_list", &json!({ "outcome": "ok", "data": [] }))
        .answer("op_price_put", &json!({ "outcome": "ok", "version": 1 }));
    assert_eq!(as_operator(&host, "PUT", "/billing/prices", PRICE).await.ok(200), json!({ "version": 1 }));
    assert_eq!(host.argument("op_price_put"), stored);

    let mut row = stored.clone();
    row["version"] = json!(7);
    row["validFrom"] = json!("2020-01-01T00:00:00.000Z");
    host.answer("op_prices_list", &json!({ "outcome": "ok", "data": [row] }));
    assert_eq!(as_operator(&host, "PUT", "/billing/prices", PRICE).await.ok(200), json!({ "version": 7 }));
    assert_eq!(host.argument("op_price_put"), stored, "and nothing more is written");
    let shown = as_operator(&host, "GET", "/billing/prices", "").await;
    assert!(shown.body.contains(r#""cachedInputNanoUsdPerMtok":75000000,"cachedInputUsdPerMtok":0.075"#), "{shown:?}");

    for (from, to, pointer) in [
        ("0.15", "-0.15", "/inputUsdPerMtok"),
        ("0.15", "\"0.15\"", "/inputUsdPerMtok"),
        ("0.6", "null", "/outputUsdPerMtok"),
        ("openai", "acme", "/provider"),
        ("\"openai\"", "{\"openai\":null}", "/provider"),
        ("gpt-4o-mini", "gpt-*-mini", "/model"),
        ("gpt-4o-mini", "", "/model"),
        ("gpt-4o-mini", "a b", "/model"),
        ("\"model\"", "\"validFrom\":\"yesterday\",\"model\"", "/validFrom"),
        ("\"model\"", "\"validFrom\":\"0000-12-31T23:59:59Z\",\"model\"", "/validFrom"),
        ("\"model\"", "\"validFrom\":\"9999-12-31T23:59:59-23:59\",\"model\"", "/validFrom"),
        ("\"model\"", "\"color\":1,\"model\"", "/color"),
    ] {
        assert_eq!(as_operator(&host, "PUT", "/billing/prices", &PRICE.replacen(from, to, 1)).await.problem(422), pointer, "{to}");
    }
    for other in
        [r#"["openai","gpt-4o-mini",0.15,0.075,0.6]"#, r#"["openai","gpt-4o-mini",0.15,0.075,0.6,false,"2026-11-24T12:00:00Z"]"#, "[]"]
    {
        assert_eq!(as_operator(&host, "PUT", "/billing/prices", other).await.problem(422), "/", "{other}");
    }
}
