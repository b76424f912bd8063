//! Who may see and say what roles allow, what each endpoint asks, and what it answers.

use astra_host::testing::{FakeHost, Reply, operator, send, token};
use grants::routes::{ROUTES, document, router};
use serde_json::json;
use std::collections::BTreeSet;

async fn as_owner(host: &FakeHost, method: &str, path: &str, body: &str) -> Reply {
    send(&router::<FakeHost>(), host, method, path, Some(&token(Some("acme"), "owner", None)), body).await
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

/// The least role of each route.
const LEAST: &[(&str, &str, &str)] = &[
    ("GET", "/workspaces/{workspaceId}/roles", "admin"),
    ("GET", "/workspaces/{workspaceId}/roles/{role}", "admin"),
    ("GET", "/workspaces/{workspaceId}/grants", "admin"),
    ("POST", "/workspaces/{workspaceId}/grants", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/grants/{grantId}", "admin"),
    ("POST", "/workspaces/{workspaceId}/grants/{grantId}/accept", "admin"),
];

#[tokio::test]
async fn each_route_asks_for_its_role() {
    const RANKS: [&str; 5] = ["viewer", "member", "admin", "owner", "operator"];
    assert_eq!(LEAST.iter().map(|(method, pattern, _)| (*method, *pattern)).collect::<Vec<_>>(), ROUTES);
    let router = router::<FakeHost>();
    for (method, pattern, least) in LEAST {
        let path = pattern.replace("{workspaceId}", "acme").replace("{role}", "support");
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
async fn a_role_is_shown_with_what_it_allows_and_where_that_is_said() {
    let host = FakeHost::new(&[]);
    let own = json!({ "role": "support", "rules": { "allow": ["memory:*"], "deny": ["memory:write"] }, "source": "workspace" });
    let default = json!({ "role": "viewer", "rules": null, "source": "default" });
    host.answer("roles_list", &json!({ "outcome": "ok", "data": [own, default] }));
    let shown = as_owner(&host, "GET", "/workspaces/acme/roles", "").await.ok(200);
    let viewer = json!({ "role": "viewer", "allow": ["agent:read", "memory:read", "session:read", "workspace:read"], "deny": [], "source": "default" });
    let support = json!({ "role": "support", "allow": ["memory:*"], "deny": ["memory:write"], "source": "workspace" });
    assert_eq!(shown["data"], json!([support, viewer]));
    host.answer("role_get", &json!({ "outcome": "ok", "access": own }));
    assert_eq!(as_owner(&host, "GET", "/workspaces/acme/roles/support", "").await.ok(200), support);
    assert_eq!(host.argument("role_get"), json!({ "role": "support" }));
    host.answer("role_get", &json!({ "outcome": "not_found" })).answer("roles_list", &json!({ "outcome": "not_found", "data": [] }));
    as_owner(&host, "GET", "/workspaces/acme/roles/nobody", "").await.problem(404);
    send(&router::<FakeHost>(), &host, "GET", "/workspaces/acme/roles", Some(&operator()), "").await.problem(404);
    for name in ["operator", "Owner", "a%20b", "%C3%A9", "a%2Fb"] {
        assert_eq!(as_owner(&host, "GET", &format!("/workspaces/acme/roles/{name}"), "").await.problem(422), "role", "{name}");
    }
}
