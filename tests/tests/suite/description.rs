//! `/openapi.json`: valid, whole, and true.

use astra_tests::{Api, openapi};
use serde_json::{Map, Value};

/// What needs no token.
const OPEN: [&str; 3] = ["/healthz", "/openapi.json", "/.well-known/jwks.json"];

#[tokio::test]
async fn the_description_is_openapi_3_1_and_holds_together() {
    let reply = Api::anonymous().get("/openapi.json").await.expect(200);
    assert!(reply.header("content-type").starts_with("application/json"));
    let document = reply.json();
    assert!(document["openapi"].as_str().is_some_and(|v| v.starts_with("3.1.")), "{}", document["openapi"]);
    for pointer in ["/info/title", "/info/version"] {
        assert!(document.pointer(pointer).is_some_and(Value::is_string), "{pointer}");
    }
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            into.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|inner| collect_references(inner, into));
        }
        Value::Array(list) => list.iter().for_each(|inner| collect_references(inner, into)),
        _ => {}
    }
}

#[tokio::test]
async fn every_operation_says_its_name_parameters_answers_and_who_may() {
    let mut names = Vec::new();
    for operation in openapi::operations().await {
        let (what, described) = (format!("{} {}", operation.method, operation.path), &operation.description);
        names.push(described["operationId"].as_str().unwrap_or_else(|| panic!("{what} has no operationId")).to_owned());
        let responses = described["responses"].as_object().unwrap_or_else(|| panic!("{what} has no responses"));
        assert!(responses.keys().any(|status| status.starts_with('2')), "{what} never succeeds");
        let parameters: Vec<_> = described["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "path").collect();
        for name in operation.path.split(['{', '}']).skip(1).step_by(2) {
            assert!(parameters.iter().any(|p| p["name"] == name && p["required"] == true), "{what} does not describe {name}");
        }
        if !OPEN.contains(&operation.path.as_str()) {
            assert!(secured(described).await, "{what} does not say that it needs a token");
            for status in ["401", "403"] {
                assert!(responses.contains_key(status) || responses.contains_key("default"), "{what} does not describe {status}");
            }
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "operationIds differ");
}

async fn secured(operation: &Value) -> bool {
    let document = openapi::document().await;
    let security = operation.get("security").or(document.get("security"));
    security
        .and_then(Value::as_array)
        .is_some_and(|list| !list.is_empty() && list.iter().all(|s| s.as_object().is_some_and(|s: &Map<_, _>| !s.is_empty())))
}

#[tokio::test]
async fn the_specs_routes_of_these_functions_are_all_described() {
    let spec = [
        ("POST", "/workspaces"),
        ("GET", "/workspaces"),
        ("GET", "/workspaces/a"),
        ("PATCH", "/workspaces/a"),
        ("DELETE", "/workspaces/a"),
        ("GET", "/workspaces/a/members"),
        ("POST", "/workspaces/a/tokens"),
        ("PUT", "/workspaces/a/secrets/X"),
        ("GET", "/workspaces/a/secrets/X"),
        ("DELETE", "/workspaces/a/secrets/X"),
        ("PUT", "/plans/pro/template"),
        ("GET", "/plans/pro/template"),
        ("GET", "/workspaces/a/agents"),
        ("POST", "/workspaces/a/smoke-test"),
        ("POST", "/workspaces/a/turns"),
        ("POST", "/workspaces/a/turns/t/stop"),
        ("GET", "/workspaces/a/sessions"),
        ("GET", "/workspaces/a/sessions/s/messages"),
        ("GET", "/billing/costs"),
        ("GET", "/workspaces/a/usage"),
        ("GET", "/workspaces/a/quota"),
        ("GET", "/workspaces/a/ledger"),
        ("GET", "/workspaces/a/receipts"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/workspaces/a/roles/member"),
        ("PUT", "/workspaces/a/roles/member"),
        ("POST", "/workspaces/a/authorize"),
        ("GET", "/healthz"),
        ("GET", "/openapi.json"),
    ];
    for (method, path) in spec {
        openapi::assert_documented(&method.parse().unwrap(), path).await;
    }
}

#[tokio::test]
async fn every_described_route_exists_and_asks_for_a_token() {
    for operation in openapi::operations().await {
        if OPEN.contains(&operation.path.as_str()) {
            continue;
        }
        let path = operation.path.replace(['{', '}'], "");
        let request = Api::anonymous().request(operation.method.clone(), &path);
        let request = if operation.description.get("requestBody").is_some() { request.body("application/json", "{}") } else { request };
        let reply = request.send().await;
        assert_eq!(reply.status, 401, "before all else, who is calling: {reply:?}");
    }
}
