//! Who may see what is billed, what each endpoint asks, and what it answers.

#![expect(clippy::unwrap_used, reason = "all of this is tests, their helpers too")]

use astra_host::testing::{FakeHost, Reply, operator, send, token};
use astra_kernel::Timestamp;
use astra_quota::words::{Answer, Ask};
use astra_quota::{QuotaView, Window};
use billing::jobs::{Job, Ran, run};
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
    ("POST", "/billing/reprice", "operator"),
    ("GET", "/workspaces/{workspaceId}/usage", "admin"),
    ("GET", "/workspaces/{workspaceId}/quota", "viewer"),
    ("GET", "/workspaces/{workspaceId}/quota/events", "viewer"),
    ("POST", "/billing/reconcile", "operator"),
    ("GET", "/workspaces/{workspaceId}/ledger", "admin"),
    ("GET", "/workspaces/{workspaceId}/ledger/verify", "admin"),
    ("POST", "/workspaces/{workspaceId}/ledger/credits", "operator"),
    ("POST", "/workspaces/{workspaceId}/ledger/corrections", "operator"),
    ("GET", "/workspaces/{workspaceId}/receipts", "admin"),
    ("GET", "/billing/jobs", "operator"),
    ("POST", "/billing/jobs/{jobName}/run", "operator"),
    ("GET", "/workspaces/{workspaceId}/webhooks", "admin"),
    ("PUT", "/workspaces/{workspaceId}/webhooks/{webhookName}", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/webhooks/{webhookName}", "admin"),
    ("POST", "/workspaces/{workspaceId}/webhooks/{webhookName}/rotate", "admin"),
    ("GET", "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries", "admin"),
    ("POST", "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries/{deliveryId}/replay", "admin"),
    ("GET", "/billing/stripe/customers", "operator"),
    ("PUT", "/billing/stripe/customers/{workspaceId}", "operator"),
    ("GET", "/billing/stripe/refusals", "operator"),
    ("POST", "/billing/stripe/refusals/{workspaceId}/retry", "operator"),
    ("POST", "/billing/close", "operator"),
    ("GET", "/billing/invoices", "operator"),
    ("GET", "/workspaces/{workspaceId}/invoices", "admin"),
    ("GET", "/workspaces/{workspaceId}/invoices/{invoiceNumber}", "admin"),
];

/// What needs no token.
const OPEN: (&str, &str) = ("GET", "/.well-known/jwks.json");

#[tokio::test]
async fn each_route_asks_for_its_role() {
    const RANKS: [&str; 5] = ["viewer", "member", "admin", "owner", "operator"];
    let named: BTreeSet<_> = LEAST.iter().map(|(method, pattern, _)| (*method, *pattern)).chain([OPEN]).collect();
    assert_eq!(named, ROUTES.iter().copied().collect());
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
    let row = json!({ "workspaceId": "acme", "displayName": "=ACME Corp", "totalCostNanoUsd": 1_234_567_890_123_i64, "totalChargeNanoUsd": -5, "totalTokens": 5, "sessions": 2 });
    host.answer("op_costs", &json!({ "outcome": "ok", "data": [row], "next": "1234567890123:acme", "notRolledUp": 3 }));
    let reply = as_operator(&host, "GET", "/billing/costs?limit=1&after=99:b&month=2026-10", "").await;
    assert!(reply.body.contains(r#""totalCostUsd":1234.567890123,"totalCostNanoUsd":1234567890123"#), "{reply:?}");
    assert!(reply.body.contains(r#""totalChargeUsd":-0.000000005,"totalChargeNanoUsd":-5"#), "{reply:?}");
    assert_eq!(reply.ok(200)["nextCursor"], "1234567890123:acme");
    assert_eq!(reply.ok(200)["notRolledUp"], 3);
    assert_eq!(host.argument("op_costs"), json!({ "month": "2026-10", "after": "99:b", "limit": 1 }));
    let csv = as_operator(&host, "GET", "/billing/costs?month=2026-10&format=csv", "").await;
    assert_eq!(csv.headers["next-cursor"], "1234567890123:acme");
    let line = "acme,'=ACME Corp,1234.567890123,1234567890123,-0.000000005,-5,5,2\r\n";
    assert!(csv.status == 200 && csv.body.ends_with(line), "{csv:?}");
    for (query, named) in [
        ("month=2026-13", "month"),
        ("month=26-1", "month"),
        ("month=", "month"),
        ("after=x", "after"),
        ("after=1:A", "after"),
        ("limit=0", "limit"),
        ("months=2026-11", "months"),
        ("from=2026-11-01", "from"),
        ("format=xml", "format"),
    ] {
        let reply = as_operator(&host, "GET", &format!("/billing/costs?{query}"), "").await;
        assert!(reply.problem(422).contains(named), "{query}: {reply:?}");
    }
}

#[tokio::test]
async fn sums_are_by_one_thing_within_dates() {
    let host = FakeHost::new(&[]);
    let part = json!({
        "key": "openai/gpt-4o", "turns": 2, "inputTokens": 10, "cachedInputTokens": 4, "outputTokens": 7, "reasoningTokens": 1, "embeddingTokens": 3,
        "costNanoUsd": 1_500_000_000, "chargeNanoUsd": 3_000_000_001_i64,
    });
    let page = json!({ "outcome": "ok", "data": [part], "next": "-1500000000:openai/gpt-4o", "notRolledUp": 0 });
    host.answer("op_usage_by", &page).answer("usage_by", &page);
    let said = as_operator(&host, "GET", "/billing/costs?by=model&from=2026-10-01&to=2026-10-31&limit=2", "").await;
    assert!(said.body.contains(r#""totalTokens":17"#) && said.body.contains(r#""totalChargeUsd":3.000000001"#), "{said:?}");
    assert_eq!((&said.ok(200)["by"], &said.ok(200)["nextCursor"]), (&json!("model"), &json!("-1500000000:openai/gpt-4o")));
    let asked =
        json!({ "by": "model", "from": "2026-10-01", "to": "2026-10-31", "now": "2026-11-24T12:00:00.000Z", "after": null, "limit": 2 });
    assert_eq!(host.argument("op_usage_by"), asked);
    let admin = token(Some("acme"), "admin", None);
    let own =
        async |query: &str| send(&router::<FakeHost>(), &host, "GET", &format!("/workspaces/acme/usage?{query}"), Some(&admin), "").await;
    assert_eq!(own("by=model&from=2026-10-01&to=2026-10-31&limit=2").await.ok(200), said.ok(200));
    assert_eq!(host.argument("usage_by"), asked);
    let csv = own("by=model&format=csv").await;
    assert!(csv.body.ends_with("\r\nopenai/gpt-4o,2,17,10,4,7,1,3,1500000000,1.50,3000000001,3.000000001\r\n"), "{csv:?}");
    for (query, named) in [
        ("by=colour", "by"),
        ("by=workspace", "by"),
        ("by=day&month=2026-10", "month"),
        ("by=day&from=2026-10-32", "from"),
        ("by=day&from=2026-10-02&to=2026-10-01", "to"),
        ("by=day&after=x", "after"),
        ("by=day&limit=201", "limit"),
        ("to=2026-10-01", "to"),
        ("limit=1", "limit"),
        ("format=csv", "format"),
    ] {
        let reply = own(query).await;
        assert!(reply.problem(422).contains(named), "{query}: {reply:?}");
    }
    host.answer("usage_by", &json!({ "outcome": "not_found" }));
    own("by=day").await.problem(404);
}

/// Runs a job that is due.
async fn job(host: &FakeHost, job: Job) {
    host.answer("op_job_take", &json!({ "outcome": "ok", "taken": true, "cursor": null }));
    host.answer("op_job_step", &json!({ "outcome": "ok", "held": true })).answer("op_job_end", &json!({ "outcome": "ok", "held": true }));
    assert_eq!(run(host, job, astra_host::testing::NOW.plus_millis(25_000), false).await.unwrap(), Ran::Mine);
}

#[tokio::test]
async fn the_ledger_is_rolled_up_until_nothing_is_left_or_another_run_is_at_it() {
    let host = FakeHost::new(&[]);
    let calls = |host: &FakeHost| host.calls().iter().filter(|(name, _)| name == "op_usage_roll").count();
    host.answer("op_usage_roll", &json!({ "outcome": "ok", "rolledUp": 0, "workspaces": 0, "left": 7 }));
    job(&host, Job::RollUp).await;
    assert_eq!(calls(&host), 1, "another run is at it: this one ends");
    host.answer("op_usage_roll", &json!({ "outcome": "ok", "rolledUp": 5, "workspaces": 1, "left": 0 }));
    job(&host, Job::RollUp).await;
    assert_eq!(calls(&host), 2);
}

#[tokio::test]
async fn usage_is_this_months_unless_told() {
    let host = FakeHost::new(&[]);
    let counts = json!({ "turns": 3, "sessions": 2, "totalTokens": 30, "inputTokens": 20, "outputTokens": 10, "totalCostNanoUsd": 150, "totalChargeNanoUsd": 300 });
    let with = |more: Value| {
        let mut all = counts.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let month = with(json!({
        "outcome": "ok", "workspaceId": "acme", "month": "2026-11", "cachedInputTokens": 5, "reasoningTokens": 1, "embeddingTokens": 0, "notRolledUp": 0,
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
        "tier": "standard", "holdsMaximum": false, "longContext": null, "source": null, "validFrom": "2026-11-24T12:00:00.000Z",
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

#[tokio::test]
async fn receipts_are_signed_by_the_first_key_and_verified_with_those_that_are_published() {
    let keys = "r2:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4,r1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    let host = FakeHost::new(&[("RECEIPT_KEYS", keys)]);
    let row = json!({ "seq": 1, "turnId": "0199c0de-0000-7000-8000-000000000000", "kind": "turn", "text": "{\"a\":1}" });
    host.answer("receipts_list", &json!({ "outcome": "ok", "data": [row], "next": "1" }));
    let page = as_operator(&host, "GET", "/workspaces/acme/receipts?month=2026-11&after=0&limit=1", "").await.ok(200);
    assert_eq!(host.argument("receipts_list"), json!({ "after": 0, "limit": 1, "month": "2026-11" }));
    let published = send(&router::<FakeHost>(), &host, "GET", OPEN.1, None, "").await;
    assert_eq!(published.headers["cache-control"], "public, max-age=300");
    assert!(!published.body.contains(&keys[3..20]) && !published.body.contains("\"d\""), "{published:?}");
    let set = astra_kernel::jwk::KeySet::parse(&published.body).unwrap();
    let jws = astra_kernel::jws::Jws::parse(page["data"][0]["receipt"].as_str().unwrap()).unwrap();
    assert_eq!((jws.kid(), jws.payload.as_slice()), (Ok("r2"), &b"{\"a\":1}"[..]));
    let signed = async |kid: &str| astra_host::Host::verify_signature(&host, set.get(kid).unwrap(), jws.signed, &jws.signature).await;
    assert_eq!((signed("r2").await, signed("r1").await), (true, false));
    // RFC 8032's own key and signature, section 7.1, TEST 1: what is signed here is Ed25519.
    let seed: [u8; 32] = std::array::from_fn(|at| {
        u8::from_str_radix(&"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"[2 * at..2 * at + 2], 16).unwrap()
    });
    let signature = astra_host::Host::sign(&host, &seed, b"").await.unwrap();
    assert_eq!((signature.len(), signature[0], signature[63]), (64, 0xe5, 0x0b));
    assert_eq!(astra_host::Host::public_key(&host, &seed).await.unwrap(), "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    let without = FakeHost::new(&[("RECEIPT_KEYS", "r1:AAAA")]);
    let problem = send(&router::<FakeHost>(), &without, "GET", OPEN.1, None, "").await.problem(503);
    assert!(problem.contains("RECEIPT_KEYS") && !problem.contains("AAAA"), "{problem}");
}

/// The argument of the last call of an SQL function.
fn last(host: &FakeHost, name: &str) -> Value {
    let calls = host.calls();
    let (_, params) = calls.iter().rev().find(|(called, _)| called == name).unwrap();
    serde_json::from_str(params.last().unwrap()).unwrap()
}

fn invoice(lines: Option<Value>) -> Value {
    let mut invoice = json!({
        "workspaceId": "acme", "displayName": "ACME <b>Corp</b>", "number": "INV-000007", "month": "2026-10", "timeZone": "Europe/Berlin", "endsAt": "2026-10-31T23:00:00.000Z",
        "previousEndsAt": "2026-09-30T22:00:00.000Z", "previousLastSeq": 40, "firstSeq": 38, "lastSeq": 90, "lastHash": "ab12", "entries": 1_234,
        "totalCostNanoUsd": 20_000_000, "totalChargeNanoUsd": 25_000_000, "issuedAt": "2026-11-01T05:00:00.000Z",
    });
    if let Some(lines) = lines {
        invoice["lines"] = lines;
    }
    invoice
}

fn invoice_line(line: i32, kind: &str, charge: i64, more: &Value) -> Value {
    let mut all = json!({
        "line": line, "month": "2026-10", "kind": kind, "agentId": "assistant", "provider": "openai", "model": "gpt-4o", "reason": "", "entries": 1_200, "inputTokens": 1_234_567,
        "cachedInputTokens": 0, "outputTokens": 9, "reasoningTokens": 0, "embeddingTokens": 0, "costNanoUsd": 1, "chargeNanoUsd": charge,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

#[tokio::test]
async fn an_invoice_adds_up_as_printed_and_its_page_holds_nothing_that_runs() {
    let logo = "data:image/png;base64,AAAA";
    let host = FakeHost::new(&[("INVOICE_FROM", "Operator & Sons; Main St 1"), ("INVOICE_LOGO", logo)]);
    let lines = json!([
        invoice_line(1, "turn", 33_333_333, &json!({})),
        invoice_line(2, "turn", 13_333_333, &json!({ "model": "gpt-4o-mini" })),
        invoice_line(3, "correction", -8_333_333, &json!({ "month": "2026-09", "reason": "priced <script>alert(1)</script> anew" })),
        invoice_line(
            4,
            "credit",
            -13_333_333,
            &json!({ "agentId": "", "provider": "", "model": "", "reason": "goodwill", "inputTokens": 0 })
        ),
    ]);
    host.answer("invoice_get", &json!({ "outcome": "ok", "invoice": invoice(Some(lines)) }));
    let admin = token(Some("acme"), "admin", None);
    let own =
        async |path: &str| send(&router::<FakeHost>(), &host, "GET", &format!("/workspaces/acme/invoices/{path}"), Some(&admin), "").await;
    let reply = own("INV-000007").await;
    assert_eq!(last(&host, "invoice_get"), json!({ "number": "INV-000007", "all": false }));
    let shown = reply.ok(200);
    let cents: Vec<i64> = shown["lines"].as_array().unwrap().iter().map(|line| line["amountCents"].as_i64().unwrap()).collect();
    assert_eq!(
        (cents, &shown["totalCents"]),
        (vec![4, 1, -1, -1], &json!(3)),
        "half a cent is rounded up, and given to who has most left over: {shown}"
    );
    assert!(
        shown.get("totalCostNanoUsd").is_none() && shown["lines"][0].get("costNanoUsd").is_none(),
        "the operator's cost is the operator's to know"
    );
    let all = as_operator(&host, "GET", "/workspaces/acme/invoices/INV-000007", "").await;
    assert_eq!(
        (&all.ok(200)["totalCostNanoUsd"], last(&host, "invoice_get")),
        (&json!(20_000_000), json!({ "number": "INV-000007", "all": true }))
    );

    let page = own("INV-000007.html").await;
    assert_eq!((page.status, &page.headers["content-type"]), (200, &http::HeaderValue::from_static("text/html; charset=utf-8")));
    assert!(page.headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    for part in [
        "<strong>Operator &amp; Sons</strong><br>",
        "ACME &lt;b&gt;Corp&lt;&#x2f;b&gt; (acme)",
        "Correction of 2026-09",
        "&lt;script&gt;",
        "<td class=\"n\">1,234,567</td>",
        "<td class=\"n\">-0.01</td>",
        "<td colspan=\"4\">Total</td><td class=\"n\">0.03</td>",
        "The exact sum is 0.025 USD",
        "1,234 entries of the ledger, 38 to 90; hash of the last: ab12.",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    assert!(page.body.contains("src=\"data:image") && !page.body.contains("<script") && !page.body.contains("<b>"), "{}", page.body);
    host.answer("invoice_get", &json!({ "outcome": "not_found" }));
    own("INV-000008").await.problem(404);
    own(".html").await.problem(404);

    let malformed = FakeHost::new(&[("INVOICE_LOGO", "http://plain.test/logo.png")]);
    malformed.answer(
        "invoice_get",
        &json!({ "outcome": "ok", "invoice": invoice(Some(json!([invoice_line(1, "turn", 25_000_000, &json!({}))]))) }),
    );
    let reply = send(&router::<FakeHost>(), &malformed, "GET", "/workspaces/acme/invoices/INV-000007.html", Some(&admin), "").await;
    reply.problem(503);
    assert!(reply.body.contains("INVOICE_LOGO"), "{reply:?}");
}

#[tokio::test]
async fn invoices_are_listed_and_months_are_closed() {
    let host = FakeHost::new(&[("INVOICE_PREFIX", "A-"), ("INVOICE_GRACE_HOURS", "2")]);
    let page = json!({ "outcome": "ok", "data": [invoice(None)], "next": "7" });
    host.answer("op_invoices_list", &page).answer("invoices_list", &page);
    let all = as_operator(&host, "GET", "/billing/invoices?month=2026-10&after=9&limit=1", "").await.ok(200);
    assert_eq!(last(&host, "op_invoices_list"), json!({ "month": "2026-10", "after": "9", "limit": 1 }));
    assert_eq!((&all["data"][0]["totalCents"], &all["nextCursor"], all["data"][0].get("lines")), (&json!(3), &json!("7"), None));
    let own =
        send(&router::<FakeHost>(), &host, "GET", "/workspaces/acme/invoices", Some(&token(Some("acme"), "owner", None)), "").await.ok(200);
    assert_eq!(last(&host, "invoices_list"), json!({ "after": null, "limit": 50, "all": false }));
    assert!(own["data"][0].get("totalCostNanoUsd").is_none());
    for query in ["month=2026-13", "after=x", "limit=0", "by=day"] {
        as_operator(&host, "GET", &format!("/billing/invoices?{query}"), "").await.problem(422);
    }

    host.answer("op_month_close", &json!({ "outcome": "ok", "closed": 3, "invoices": 2, "early": 1, "waiting": 0, "next": null }));
    let closed = as_operator(&host, "POST", "/billing/close", r#"{"month":"2026-10"}"#).await.ok(200);
    assert_eq!(closed, json!({ "closed": 3, "invoices": 2, "early": 1, "waiting": 0, "isDone": true }));
    let asked =
        json!({ "month": "2026-10", "now": "2026-11-24T12:00:00.000Z", "graceSeconds": 7200, "prefix": "A-", "after": null, "limit": 50 });
    assert_eq!(last(&host, "op_month_close"), asked);
    for (body, pointer) in [(r#"{"month":"2026-1"}"#, "/month"), ("{}", "/"), (r#"{"month":"2026-10","force":true}"#, "/force")] {
        assert_eq!(as_operator(&host, "POST", "/billing/close", body).await.problem(422), pointer);
    }
    // The job: the month that has ended wherever it has.
    job(&host, Job::CloseMonth).await;
    assert_eq!(last(&host, "op_month_close")["month"], "2026-10");
    // 2026-11-30T10:00Z.
    host.pass(5 * 24 * 3_600_000 + 22 * 3_600_000);
    job(&host, Job::CloseMonth).await;
    assert_eq!(last(&host, "op_month_close")["month"], "2026-11", "in Kiribati it is December");
}
