//! Who may do what, for every route: no token, another workspace's token, each role, a token narrowed to nothing. What is refused never reaches
//! the database, and a refusal comes before anything that was sent is read.

use astra_host::testing::{FakeHost, operator, send, token};
use provision::routes::{ROUTES, router};

/// The least role of each route; `operator` where no tenant's role is enough.
const LEAST: &[(&str, &str, &str)] = &[
    ("GET", "/workspaces", "operator"),
    ("POST", "/workspaces", "operator"),
    ("GET", "/workspaces/{workspaceId}", "viewer"),
    ("PATCH", "/workspaces/{workspaceId}", "admin"),
    ("DELETE", "/workspaces/{workspaceId}", "owner"),
    ("GET", "/workspaces/{workspaceId}/export", "owner alone"),
    ("GET", "/workspaces/{workspaceId}/members", "admin"),
    ("PUT", "/workspaces/{workspaceId}/members/{userId}", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/members/{userId}", "admin"),
    ("POST", "/workspaces/{workspaceId}/tokens", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/tokens/{jti}", "admin"),
    ("GET", "/workspaces/{workspaceId}/secrets", "admin"),
    ("GET", "/workspaces/{workspaceId}/secrets/{secretName}", "admin"),
    ("PUT", "/workspaces/{workspaceId}/secrets/{secretName}", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/secrets/{secretName}", "admin"),
    ("GET", "/workspaces/{workspaceId}/agents", "viewer"),
    ("PUT", "/workspaces/{workspaceId}/agents/{agentId}", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/agents/{agentId}", "admin"),
    ("PUT", "/plans/{plan}", "operator"),
    ("GET", "/plans/{plan}", "operator"),
    ("GET", "/plans/{plan}/template", "operator"),
    ("PUT", "/plans/{plan}/template", "operator"),
];

const RANKS: [&str; 5] = ["viewer", "member", "admin", "owner", "operator"];

fn path(pattern: &str) -> String {
    let with = [
        ("{workspaceId}", "acme"),
        ("{userId}", "bob"),
        ("{jti}", "j-1"),
        ("{secretName}", "A_KEY"),
        ("{agentId}", "assistant"),
        ("{plan}", "pro"),
    ];
    with.iter().fold(pattern.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[test]
fn every_route_is_in_the_table() {
    let table: Vec<_> = LEAST.iter().map(|(method, pattern, _)| (*method, *pattern)).collect();
    assert_eq!(table, ROUTES);
}

#[tokio::test]
async fn each_route_asks_for_its_role() {
    let router = router::<FakeHost>();
    for (method, pattern, least) in LEAST {
        let path = path(pattern);
        // What the operator of the deployment must not read is nobody's but the owner's.
        let alone = least.strip_suffix(" alone");
        let least = RANKS.iter().position(|role| *role == alone.unwrap_or(least)).unwrap();
        for (rank, role) in RANKS.iter().enumerate() {
            let host = FakeHost::new(&[]);
            let workspace = (*role != "operator").then_some("acme");
            // The body is no JSON: who may not do it does not hear about that.
            let reply = send(&router, &host, method, &path, Some(&token(workspace, role, None)), "{").await;
            if if alone.is_some() { rank == least } else { rank >= least } {
                assert!(![401, 403].contains(&reply.status), "{role}: {method} {path}: {reply:?}");
            } else {
                assert_eq!(reply.problem(403), reply.json()["detail"], "{role}: {method} {path}");
                assert!(host.calls().is_empty(), "{role}: {method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn no_token_another_workspaces_and_a_narrowed_one_do_nothing() {
    let router = router::<FakeHost>();
    for (method, pattern) in ROUTES {
        let path = path(pattern);
        let foreign = token(Some("other"), "owner", None);
        let narrowed = token(Some("acme"), "owner", Some(&["memory:read"]));
        let narrowed_operator = token(None, "operator", Some(&["memory:*"]));
        let forged = operator().replace('.', ".A");
        for (token, status) in
            [(None, 401), (Some(&foreign), 403), (Some(&narrowed), 403), (Some(&narrowed_operator), 403), (Some(&forged), 401)]
        {
            let host = FakeHost::new(&[]);
            let reply = send(&router, &host, method, &path, token.map(String::as_str), "{").await;
            reply.problem(status);
            assert_eq!(reply.headers.contains_key("www-authenticate"), status == 401);
            assert!(host.calls().is_empty() && host.asked().is_empty(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn an_operators_unknown_workspace_is_not_found() {
    let router = router::<FakeHost>();
    for id in ["Not-A-Name", "%00", "a%2Fb", "..%2Fadmin"] {
        let host = FakeHost::new(&[]);
        send(&router, &host, "GET", &format!("/workspaces/{id}"), Some(&operator()), "").await.problem(404);
        assert!(host.calls().is_empty());
    }
}
