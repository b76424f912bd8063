//! Nothing that a workspace sees depends on another one: the same script of requests is played twice, alone, and beside a neighbour that is busy and hostile. All
//! that comes back is compared byte by byte (ids, times and what is made from them normalised): statuses, headers, bodies, counts, order, error texts.
//!
//! The script has every operation of `/openapi.json`: a new one that is not in it fails the test.

use astra_tests::workspace::unique;
use astra_tests::{Api, Reply, Workspace, openapi, template};
use http::Method;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// One request: method, path as described, query, body.
type Step = (&'static str, &'static str, &'static str, Option<Value>);

fn agent(id: &str) -> Value {
    let mut agent = template::local(id);
    agent.as_object_mut().unwrap().remove("id");
    agent
}

/// What A does, in this order. Ids that the product gives are taken from the answers: `turnId`, `sessionId`, `jti`, `grantId`.
fn script() -> Vec<Step> {
    let turn = |message: &str| Some(json!({ "agentId": "assistant", "message": message }));
    vec![
        ("GET", "/openapi.json", "", None),
        ("GET", "/workspaces/{workspaceId}", "", None),
        ("PATCH", "/workspaces/{workspaceId}", "", Some(json!({ "displayName": "Still A" }))),
        ("GET", "/workspaces/{workspaceId}/sessions", "", None),
        ("GET", "/workspaces/{workspaceId}/quota", "", None),
        ("PUT", "/workspaces/{workspaceId}/members/{userId}", "", Some(json!({ "role": "viewer" }))),
        ("GET", "/workspaces/{workspaceId}/members", "?limit=2", None),
        ("PUT", "/workspaces/{workspaceId}/secrets/{secretName}", "", Some(json!({ "value": "only here" }))),
        ("GET", "/workspaces/{workspaceId}/secrets/{secretName}", "", None),
        ("GET", "/workspaces/{workspaceId}/secrets", "", None),
        ("PUT", "/workspaces/{workspaceId}/agents/{agentId}", "", Some(agent("mine"))),
        ("GET", "/workspaces/{workspaceId}/agents", "", None),
        ("PUT", "/workspaces/{workspaceId}/roles/{role}", "", Some(json!({ "allow": ["agent:*"], "deny": ["agent:write"] }))),
        ("GET", "/workspaces/{workspaceId}/roles/{role}", "", None),
        ("GET", "/workspaces/{workspaceId}/roles", "", None),
        ("POST", "/workspaces/{workspaceId}/authorize", "", Some(json!({ "permission": "agent:write", "role": "helper" }))),
        ("POST", "/workspaces/{workspaceId}/tokens", "", Some(json!({ "subject": "pal", "role": "viewer" }))),
        ("DELETE", "/workspaces/{workspaceId}/tokens/{jti}", "", None),
        ("POST", "/workspaces/{workspaceId}/turns", "", turn("what do you know?")),
        ("POST", "/workspaces/{workspaceId}/turns", "", turn("and now?")),
        ("POST", "/workspaces/{workspaceId}/turns/{turnId}/stop", "", None),
        ("GET", "/workspaces/{workspaceId}/sessions", "?limit=1", None),
        ("GET", "/workspaces/{workspaceId}/sessions/{sessionId}", "", None),
        ("GET", "/workspaces/{workspaceId}/sessions/{sessionId}/messages", "", None),
        ("POST", "/workspaces/{workspaceId}/smoke-test", "", Some(json!({ "agentId": "assistant" }))),
        ("POST", "/workspaces/{workspaceId}/memories", "", Some(json!({ "kind": "fact", "content": "Refunds take 30 days." }))),
        (
            "POST",
            "/workspaces/{workspaceId}/memories",
            "",
            Some(json!({ "kind": "preference", "content": "Short answers.", "personal": true })),
        ),
        ("GET", "/workspaces/{workspaceId}/memories", "", None),
        ("GET", "/workspaces/{workspaceId}/memories/{memoryId}", "", None),
        ("PUT", "/workspaces/{workspaceId}/documents/{slug}", "?title=The%20handbook", Some(json!("# Refunds\n\nWithin 30 days."))),
        ("GET", "/workspaces/{workspaceId}/documents/{slug}", "", None),
        ("GET", "/workspaces/{workspaceId}/documents", "", None),
        ("POST", "/workspaces/{workspaceId}/memories/search", "", Some(json!({ "query": "how long do refunds take?" }))),
        ("POST", "/workspaces/{workspaceId}/documents/search", "", Some(json!({ "query": "refunds" }))),
        ("POST", "/workspaces/{workspaceId}/turns", "", turn("how long do refunds take?")),
        ("GET", "/workspaces/{workspaceId}/memory/settings", "", None),
        ("PUT", "/workspaces/{workspaceId}/memory/settings", "", Some(json!({ "embedder": { "provider": "local", "dimensions": 384 } }))),
        ("GET", "/workspaces/{workspaceId}/memory/status", "", None),
        ("GET", "/workspaces/{workspaceId}/memory/jobs", "", None),
        ("POST", "/workspaces/{workspaceId}/memory/jobs/{jobId}/replay", "", None),
        ("POST", "/workspaces/{workspaceId}/memory/index/rebuild", "", Some(json!({}))),
        ("GET", "/workspaces/{workspaceId}/usage", "", None),
        ("GET", "/workspaces/{workspaceId}/quota", "", None),
        ("GET", "/workspaces/{workspaceId}/quota/events", "", None),
        ("GET", "/workspaces/{workspaceId}/ledger", "", None),
        ("GET", "/workspaces/{workspaceId}/ledger/verify", "", None),
        ("GET", "/workspaces/{workspaceId}/receipts", "", None),
        ("GET", "/.well-known/jwks.json", "", None),
        ("PUT", "/workspaces/{workspaceId}/webhooks/{webhookName}", "", Some(json!({ "url": "https://hooks.example.com/a" }))),
        ("PUT", "/workspaces/{workspaceId}/webhooks/{webhookName}", "", Some(json!({ "url": "https://hooks.example.com/b" }))),
        ("POST", "/workspaces/{workspaceId}/webhooks/{webhookName}/rotate", "", None),
        ("GET", "/workspaces/{workspaceId}/webhooks", "", None),
        ("GET", "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries", "", None),
        ("POST", "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries/{deliveryId}/replay", "", None),
        ("GET", "/workspaces/{workspaceId}/invoices", "", None),
        ("GET", "/workspaces/{workspaceId}/invoices/{invoiceNumber}", "", None),
        ("POST", "/workspaces/{workspaceId}/grants", "", Some(json!({ "receivingWorkspaceId": "nobody-at-all", "agentId": "mine" }))),
        ("GET", "/workspaces/{workspaceId}/grants", "", None),
        ("GET", "/workspaces/{workspaceId}/grants", "?direction=received", None),
        ("POST", "/workspaces/{workspaceId}/grants/{grantId}/accept", "", None),
        ("DELETE", "/workspaces/{workspaceId}/grants/{grantId}", "", None),
        ("GET", "/workspaces/{workspaceId}/audit", "?limit=200", None),
        ("GET", "/workspaces/{workspaceId}/audit/verify", "", None),
        ("GET", "/workspaces/{workspaceId}/export", "", None),
        ("DELETE", "/workspaces/{workspaceId}/sessions/{sessionId}", "", None),
        ("DELETE", "/workspaces/{workspaceId}/memories/{memoryId}", "", None),
        ("DELETE", "/workspaces/{workspaceId}/documents/{slug}", "", None),
        ("DELETE", "/workspaces/{workspaceId}/users/{userId}/memory", "", None),
        ("DELETE", "/workspaces/{workspaceId}/webhooks/{webhookName}", "", None),
        ("DELETE", "/workspaces/{workspaceId}/members/{userId}", "", None),
        ("DELETE", "/workspaces/{workspaceId}/secrets/{secretName}", "", None),
        ("DELETE", "/workspaces/{workspaceId}/roles/{role}", "", None),
        ("DELETE", "/workspaces/{workspaceId}/agents/{agentId}", "", None),
    ]
}

/// What is the operator's, and the end.
fn the_operators() -> Vec<Step> {
    vec![
        ("GET", "/workspaces", "", None),
        ("POST", "/workspaces", "", Some(json!({ "id": "x", "displayName": "x", "plan": "x", "ownerId": "x" }))),
        ("PUT", "/plans/{plan}", "", Some(json!({ "carryOver": true }))),
        ("GET", "/plans/{plan}", "", None),
        ("GET", "/plans/{plan}/template", "", None),
        ("PUT", "/plans/{plan}/template", "", Some(json!({}))),
        ("GET", "/billing/costs", "", None),
        ("GET", "/billing/prices", "", None),
        ("PUT", "/billing/prices", "", Some(json!({}))),
        ("POST", "/billing/reprice", "", Some(json!({}))),
        ("POST", "/billing/reconcile", "", None),
        ("POST", "/workspaces/{workspaceId}/ledger/credits", "", Some(json!({ "amountNanoUsd": 1, "reason": "x" }))),
        ("POST", "/workspaces/{workspaceId}/ledger/corrections", "", Some(json!({ "turnId": "x", "reason": "x" }))),
        ("GET", "/billing/jobs", "", None),
        ("POST", "/billing/jobs/{jobName}/run", "", None),
        ("GET", "/billing/stripe/customers", "", None),
        ("PUT", "/billing/stripe/customers/{workspaceId}", "", Some(json!({ "customerId": "cus_x" }))),
        ("GET", "/billing/stripe/refusals", "", None),
        ("POST", "/billing/stripe/refusals/{workspaceId}/retry", "", None),
        ("POST", "/billing/close", "", Some(json!({ "month": "2020-01" }))),
        ("GET", "/billing/invoices", "", None),
        ("GET", "/healthz", "", None),
        ("DELETE", "/workspaces/{workspaceId}", "", None),
        ("GET", "/workspaces/{workspaceId}", "", None),
    ]
}

/// Plays the script as A's owner; what came back, normalised.
async fn play(a: &Workspace) -> Vec<String> {
    let mut ids = HashMap::from([
        ("workspaceId", a.id.clone()),
        ("plan", a.plan.clone()),
        ("userId", "pal".to_owned()),
        ("secretName", "MY_KEY".to_owned()),
        ("agentId", "mine".to_owned()),
        ("role", "helper".to_owned()),
        ("slug", "handbook".to_owned()),
        ("jobId", "0199c0de-0000-7000-8000-000000000002".to_owned()),
        ("jobName", "reconcile".to_owned()),
        ("webhookName", "hook".to_owned()),
        ("deliveryId", "0199c0de-0000-7000-8000-000000000003".to_owned()),
        ("invoiceNumber", "INV-999999".to_owned()),
    ]);
    let mut normal = Normal::new(a);
    let mut seen = Vec::new();
    for (method, described, query, body) in script().into_iter().chain(the_operators()) {
        let path = ids.iter().fold(described.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id)) + query;
        let request = a.owner.request(method.parse::<Method>().unwrap(), &path).header("idempotency-key", "the-same-for-all");
        let reply = match body {
            Some(body) if described.ends_with("/template") => request.body("application/yaml", body.to_string()),
            Some(Value::String(text)) => request.body("text/markdown", text),
            // Each turn has a key of its own; the neighbour uses the same ones.
            Some(body) => request.header("idempotency-key", format!("key-{}", seen.len())).json(&body),
            None => request,
        };
        let reply = reply.send().await;
        let answer = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
        if reply.status == 202 && described.ends_with("/documents/{slug}") {
            crate::knowledge::ready(&a.owner, a, "handbook").await;
        }
        for (name, key) in [("turnId", "turnId"), ("sessionId", "sessionId"), ("jti", "jti"), ("grantId", "id"), ("memoryId", "id")] {
            if let Some(id) = answer[key].as_str().filter(|_| match name {
                "grantId" => described.ends_with("/grants"),
                "memoryId" => described.ends_with("/memories"),
                _ => true,
            }) {
                ids.entry(name).or_insert_with(|| id.to_owned());
            }
        }
        seen.push(format!("{method} {described}{query}: {}", normal.face(&reply)));
    }
    seen
}

/// Writes answers so that two lives of one script can be compared: what names a workspace, a request or a moment is numbered in the order that it comes.
struct Normal {
    names: Vec<(String, &'static str)>,
    ids: HashMap<String, usize>,
}

impl Normal {
    fn new(a: &Workspace) -> Self {
        Self { names: vec![(a.id.clone(), "WORKSPACE"), (a.plan.clone(), "PLAN")], ids: HashMap::new() }
    }

    fn face(&mut self, reply: &Reply) -> String {
        let mut headers: Vec<_> =
            reply.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or("?").to_owned())).collect();
        // When it was sent, and how long what is normalised was.
        headers.retain(|(name, _)| !["date", "content-length"].contains(&name.as_str()));
        for (_, value) in headers.iter_mut().filter(|(name, _)| name == "ratelimit") {
            // Seconds until the month ends.
            let parts = value.split(";t=").map(|part| part.trim_start_matches(|c: char| c.is_ascii_digit()));
            *value = parts.collect::<Vec<_>>().join(";t=");
        }
        headers.sort();
        let mut body = String::from_utf8_lossy(&reply.body).into_owned();
        if let Ok(mut document) = serde_json::from_str::<Value>(&body) {
            // How fast it goes depends on how fast the test goes.
            if document.get("forecast").is_some() {
                document["forecast"] = "FORECAST".into();
            }
            // Shown once, and random.
            if document.get("secret").is_some() {
                document["secret"] = "SECRET".into();
            }
            // So does how far an index is that is made meanwhile.
            if document.get("index").is_some_and(|index| index["lagSeconds"].is_null() || index["lagSeconds"] == 0) {
                document["index"] = "INDEX".into();
            }
            body = document.to_string();
        }
        self.normal(&format!("{} {headers:?} {body}", reply.status))
    }

    fn normal(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, word) in &self.names {
            text = text.replace(name.as_str(), word);
        }
        let mut out = String::new();
        // Words of letters, digits and what stands in ids, times and tokens.
        let is_inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.' | '_' | '+');
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let end = rest.find(|c| !is_inside(c)).unwrap_or(rest.len());
            let (word, after) = if end == 0 { rest.split_at(first.len_utf8()) } else { rest.split_at(end) };
            out.push_str(&self.word(word));
            rest = after;
        }
        out
    }

    fn word(&mut self, word: &str) -> String {
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        let is_uuid = word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && word.split('-').all(is_hex);
        let is_time = word.len() >= 20 && word.as_bytes()[4] == b'-' && word.contains('T') && word.starts_with("20");
        if is_time {
            return "TIME".to_owned();
        }
        if is_uuid || (word.len() >= 64 && is_hex(word)) {
            let next = self.ids.len();
            return format!("ID-{}", self.ids.entry(word.to_owned()).or_insert(next));
        }
        if word.starts_with("eyJ") && word.matches('.').count() == 2 {
            return "TOKEN".to_owned();
        }
        word.to_owned()
    }
}

/// B, whose name begins as A's: it works, with A's names for its own things, and tries A's at the same time, until it is told to stop. How many requests it made.
async fn neighbour(a: &Workspace, b: &Workspace, stop: &AtomicBool) -> usize {
    let count = AtomicUsize::new(0);
    let go_on = || {
        count.fetch_add(1, Ordering::Relaxed);
        !stop.load(Ordering::Relaxed)
    };
    let turn = json!({ "agentId": "assistant", "message": "what do you know?" });
    let busy = async {
        let mut n = 0;
        while go_on() {
            let key = format!("key-{}", n % 60);
            let _ = b.owner.request(Method::POST, &b.path("/turns")).header("idempotency-key", &key).json(&turn).send().await;
            let _ = b.owner.put(&b.path("/secrets/MY_KEY"), &json!({ "value": "of b" })).await;
            let _ = b.owner.put(&b.path("/members/pal"), &json!({ "role": "admin" })).await;
            let _ = b.owner.put(&b.path("/roles/helper"), &json!({ "allow": ["memory:*"] })).await;
            let _ = b.owner.put(&b.path("/agents/mine"), &agent("mine")).await;
            let _ = b.owner.post(&b.path("/grants"), &json!({ "receivingWorkspaceId": "nobody-at-all", "agentId": "mine" })).await;
            n += 1;
        }
    };
    let hostile = async {
        let operations = openapi::operations().await;
        while go_on() {
            for operation in operations.iter().filter(|operation| operation.path.starts_with("/workspaces/{")) {
                let path = operation.path.replace("{workspaceId}", &a.id);
                let path =
                    path.split('/').map(|segment| if segment.starts_with('{') { "mine" } else { segment }).collect::<Vec<_>>().join("/");
                let reply = b.owner.request(operation.method.clone(), &path).json(&json!({})).send().await;
                assert_eq!(reply.status, 403, "{reply:?}");
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    };
    futures_util::future::join(busy, hostile).await;
    count.load(Ordering::Relaxed)
}

async fn workspace(id: &str) -> Workspace {
    let ws = Workspace::named(id, &json!({ "maxCostUsdPerMonth": 10, "maxTokensPerMonth": 1_000_000 })).await;
    ws.put_template(&[template::local("assistant")]).await;
    ws
}

#[tokio::test]
async fn the_script_has_every_operation() {
    let described: BTreeSet<_> =
        openapi::operations().await.into_iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
    let played: BTreeSet<_> = script().into_iter().chain(the_operators()).map(|(method, path, ..)| format!("{method} {path}")).collect();
    assert_eq!(described.difference(&played).collect::<Vec<_>>(), Vec::<&String>::new(), "add it to the script");
}

#[tokio::test]
async fn a_workspace_sees_the_same_alone_and_beside_a_hostile_neighbour() {
    let alone = workspace(&unique("t")).await;
    let expected = play(&alone).await;
    let (a, stop) = (workspace(&unique("t")).await, AtomicBool::new(false));
    let b = workspace(&format!("{}-b", a.id)).await;
    let script = async {
        let seen = play(&a).await;
        stop.store(true, Ordering::Relaxed);
        seen
    };
    let (seen, requests) = futures_util::future::join(script, neighbour(&a, &b, &stop)).await;
    assert!(requests > 3, "the neighbour was there: {requests}");
    for (seen, expected) in seen.iter().zip(&expected) {
        assert_eq!(seen, expected);
    }
    assert_eq!(seen.len(), expected.len());
}

#[tokio::test]
async fn a_difference_of_one_byte_would_be_seen() {
    let (one, two) = (workspace(&unique("t")).await, workspace(&unique("t")).await);
    let look = async |ws: &Workspace, api: &Api| Normal::new(ws).face(&api.get(&ws.path("/secrets")).await);
    assert_eq!(look(&one, &one.owner).await, look(&two, &two.owner).await);
    two.put_secret("X", "x").await;
    assert_ne!(look(&one, &one.owner).await, look(&two, &two.owner).await);
}
