//! Who may see and say what roles allow, what each endpoint asks, and what it answers.

use astra_host::testing::{FakeHost, Reply, Sent, operator, send, send_as, token};
use grants::routes::{ROUTES, document, router};
use serde_json::{Value, json};
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

/// The least role of each route. (Anybody in the workspace may ask what they themselves may do.)
const LEAST: &[(&str, &str, &str)] = &[
    ("GET", "/workspaces/{workspaceId}/roles", "admin"),
    ("GET", "/workspaces/{workspaceId}/roles/{role}", "admin"),
    ("PUT", "/workspaces/{workspaceId}/roles/{role}", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/roles/{role}", "owner"),
    ("POST", "/workspaces/{workspaceId}/authorize", "viewer"),
    ("GET", "/workspaces/{workspaceId}/grants", "admin"),
    ("POST", "/workspaces/{workspaceId}/grants", "admin"),
    ("DELETE", "/workspaces/{workspaceId}/grants/{grantId}", "admin"),
    ("POST", "/workspaces/{workspaceId}/grants/{grantId}/accept", "admin"),
    ("GET", "/workspaces/{workspaceId}/audit", "admin"),
    ("GET", "/workspaces/{workspaceId}/audit/verify", "admin"),
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
                // An admin, too, who may write roles and not remove one that may do more than they.
                let denied = host.audited().first().map(|denied| (denied["action"].clone(), denied["target"].clone()));
                assert_eq!(denied, Some((json!("access.denied"), json!(format!("{method} {pattern}")))), "{role}");
            }
        }
        let foreign = token(Some("other"), "owner", None);
        let narrowed = token(Some("acme"), "owner", Some(&["memory:read"]));
        let narrowed = (!path.ends_with("/authorize")).then_some((Some(&narrowed), 403));
        for (token, status) in [(None, 401), (Some(&foreign), 403)].into_iter().chain(narrowed) {
            let host = FakeHost::new(&[]);
            send(&router, &host, method, &path, token.map(String::as_str), "{").await.problem(status);
            assert!(host.calls().is_empty() && host.asked().is_empty());
        }
        let stranger = FakeHost::new(&[]);
        stranger.answer("access", &json!({ "outcome": "no_member" }));
        send(&router, &stranger, method, &path, Some(&token(Some("acme"), "owner", None)), "{").await.problem(403);
        stranger.answer("access", &json!({ "outcome": "token_revoked" }));
        send(&router, &stranger, method, &path, Some(&token(Some("acme"), "owner", None)), "{").await.problem(401);
        assert!(stranger.calls().iter().all(|(name, _)| name == "access"));
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

/// The guide's workspace/grants config, as printed.
const GUIDE: &str = include_str!("../../../tests/guide/grants.yml");

fn stores() -> FakeHost {
    let host = FakeHost::new(&[]);
    host.answer("roles_list", &json!({ "outcome": "ok", "data": [] })).answer("role_put", &json!({ "outcome": "ok" }));
    host
}

async fn put(host: &FakeHost, token: &str, role: &str, content_type: &str, body: &str) -> Reply {
    let ask = Sent { token: Some(token), content_type, accept: "*/*", body: body.to_owned() };
    send_as(&router::<FakeHost>(), host, "PUT", &format!("/workspaces/acme/roles/{role}"), ask).await
}

fn owner() -> String {
    token(Some("acme"), "owner", None)
}

#[tokio::test]
async fn the_guides_config_is_taken_as_printed_and_as_json() {
    let rules =
        json!({ "allow": ["memory:read", "memory:write", "agent:invoke"], "deny": ["memory:cross-workspace-read", "workspace:list"] });
    let config = json!({ "workspace": { "grants": [{ "role": "member", "allow": rules["allow"], "deny": rules["deny"] }] } }).to_string();
    let plain = rules.to_string();
    for (content_type, body) in [
        ("application/yaml", GUIDE),
        ("text/yaml; charset=utf-8", GUIDE),
        ("application/x-yaml", GUIDE),
        ("application/json", config.as_str()),
        ("application/json; charset=utf-8", plain.as_str()),
        ("application/yaml", plain.as_str()),
    ] {
        let host = stores();
        let shown = put(&host, &owner(), "member", content_type, body).await.ok(200);
        assert_eq!(shown, json!({ "role": "member", "allow": rules["allow"], "deny": rules["deny"], "source": "workspace" }));
        let now = "2026-11-24T12:00:00.000Z";
        assert_eq!(host.argument("role_put"), json!({ "role": "member", "allow": rules["allow"], "deny": rules["deny"], "now": now }));
    }
    let host = stores();
    let twice = put(&host, &owner(), "support", "application/json", r#"{"allow":["agent:read","agent:read"]}"#).await.ok(200);
    assert_eq!(twice, json!({ "role": "support", "allow": ["agent:read"], "deny": [], "source": "workspace" }));
}

#[tokio::test]
async fn what_does_not_fit_is_named_and_nothing_is_stored() {
    let entries = |count: usize| json!({ "allow": vec!["agent:read"; count] }).to_string();
    let grants = |grants: Value| json!({ "workspace": { "grants": grants } }).to_string();
    let member = json!({ "role": "member", "allow": [] });
    for (body, pointer) in [
        ("{}".to_owned(), "/allow"),
        (r#"{"deny":[]}"#.to_owned(), "/allow"),
        (r#"{"allow":null}"#.to_owned(), "/allow"),
        (r#"{"allow":[],"deny":null}"#.to_owned(), "/deny"),
        (r#"{"allow":["agent:fly"]}"#.to_owned(), "/allow/0"),
        (r#"{"allow":[],"deny":["memory:read","*"]}"#.to_owned(), "/deny/1"),
        (r#"{"allow":[],"role":"member"}"#.to_owned(), "/role"),
        (r#"[["memory:read"],[]]"#.to_owned(), "/"),
        (entries(101), "/allow"),
        (grants(json!([])), "/workspace/grants"),
        (grants(json!([member, member])), "/workspace/grants/1/role"),
        (grants(json!([member, { "role": "viewer", "allow": [] }])), "/workspace/grants/1/role"),
        (grants(json!([{ "role": "viewer", "allow": [] }])), "/workspace/grants/0/role"),
        (grants(json!([{ "role": "member", "allow": ["memory"] }])), "/workspace/grants/0/allow/0"),
        (grants(json!([{ "role": "member" }])), "/workspace/grants/0"),
        (json!({ "workspace": { "grants": [member] }, "allow": [] }).to_string(), "/workspace"),
    ] {
        for content_type in ["application/json", "application/yaml"] {
            let host = stores();
            let found = put(&host, &owner(), "member", content_type, &body).await.problem(422);
            assert_eq!(found, pointer, "{content_type}: {body}");
            assert!(host.calls().is_empty());
        }
    }
    let host = stores();
    put(&host, &owner(), "member", "application/json", "{").await.problem(400);
    put(&host, &owner(), "member", "text/plain", "{}").await.problem(415);
    put(&host, &owner(), "member", "application/yaml", &format!("{GUIDE}{}", "#".repeat(64 * 1024))).await.problem(413);
    assert_eq!(put(&host, &owner(), "member", "application/yaml", "a: [").await.problem(422), "/");
    assert_eq!(put(&host, &owner(), "operator", "application/json", "{}").await.problem(422), "role");
    assert!(host.calls().is_empty());
    assert_eq!(put(&stores(), &owner(), "support", "application/json", &entries(100)).await.status, 200);
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let admin = token(Some("acme"), "admin", None);
    let narrowed = token(Some("acme"), "owner", Some(&["role:write", "memory:read"]));
    let narrow_operator = token(None, "operator", Some(&["role:*"]));
    for (who, role, body, named) in [
        (&admin, "support", r#"{"allow":["workspace:delete"]}"#, "workspace:delete"),
        (&admin, "support", r#"{"allow":["workspace:*"]}"#, "workspace:delete"),
        (&admin, "owner", r#"{"allow":["role:write","member:write"]}"#, "owners"),
        (&owner(), "support", r#"{"allow":["memory:*"]}"#, "memory:cross-workspace-read"),
        (&owner(), "support", r#"{"allow":["workspace:list"]}"#, "workspace:list"),
        (&owner(), "owner", r#"{"allow":["role:write","member:write","workspace:list"]}"#, "workspace:list"),
        (&narrowed, "support", r#"{"allow":["memory:read","memory:write"]}"#, "memory:write"),
        (&narrow_operator, "support", r#"{"allow":["agent:read"]}"#, "agent:read"),
    ] {
        let host = stores();
        let detail = put(&host, who, role, "application/json", body).await.problem(403);
        assert!(detail.contains(named), "{detail}");
        assert!(host.calls().is_empty());
    }
    for (who, role, body) in [
        (&admin, "support", r#"{"allow":["workspace:*"],"deny":["workspace:delete","workspace:export","workspace:list"]}"#),
        (&admin, "admin", r#"{"allow":[]}"#),
        (&owner(), "support", r#"{"allow":["memory:*"],"deny":["memory:cross-workspace-read"]}"#),
        (&owner(), "owner", r#"{"allow":["role:write","member:write"]}"#),
        (&narrowed, "support", r#"{"allow":["memory:read"]}"#),
        (&operator(), "support", r#"{"allow":["memory:*","workspace:list"]}"#),
    ] {
        assert_eq!(put(&stores(), who, role, "application/json", body).await.status, 200, "{body}");
    }
    let lost = put(&stores(), &operator(), "owner", "application/json", r#"{"allow":["role:*"]}"#).await;
    assert_eq!(lost.problem(422), "/allow");
}

#[tokio::test]
async fn a_workspace_has_so_many_roles() {
    let roles: Vec<_> = (0..100).map(|n| json!({ "role": format!("r{n}"), "rules": null, "source": "workspace" })).collect();
    let host = stores();
    host.answer("roles_list", &json!({ "outcome": "ok", "data": roles }));
    put(&host, &owner(), "one-more", "application/json", r#"{"allow":[]}"#).await.problem(409);
    assert!(host.calls().iter().all(|(name, _)| name == "roles_list"));
    assert_eq!(put(&host, &owner(), "r7", "application/json", r#"{"allow":[]}"#).await.status, 200);
    host.answer("roles_list", &json!({ "outcome": "not_found", "data": [] }));
    put(&host, &operator(), "r7", "application/json", r#"{"allow":[]}"#).await.problem(404);
    host.answer("roles_list", &json!({ "outcome": "ok", "data": [] })).answer("role_put", &json!({ "outcome": "not_found" }));
    put(&host, &operator(), "r7", "application/json", r#"{"allow":[]}"#).await.problem(404);
}

#[tokio::test]
async fn what_was_said_of_a_role_is_taken_back_by_owners() {
    let host = FakeHost::new(&[]);
    let delete = async |outcome: &str| {
        host.answer("role_delete", &json!({ "outcome": outcome }));
        as_owner(&host, "DELETE", "/workspaces/acme/roles/support", "").await
    };
    assert_eq!(delete("ok").await.status, 204);
    assert_eq!(host.argument("role_delete"), json!({ "role": "support" }));
    delete("not_found").await.problem(404);
    delete("in_use").await.problem(409);
    // An owner whose role was narrowed does not get it all back that way.
    let rules = json!({ "allow": ["role:*", "member:*"], "deny": [] });
    let narrowed = FakeHost::new(&[]);
    narrowed.answer("access", &json!({ "outcome": "ok", "access": { "role": "owner", "rules": rules, "source": "workspace" } }));
    as_owner(&narrowed, "DELETE", "/workspaces/acme/roles/owner", "").await.problem(403);
    assert!(narrowed.calls().iter().all(|(name, _)| name == "access"));
}

#[tokio::test]
async fn a_decision_says_what_decided() {
    let host = FakeHost::new(&[]);
    let rules = json!({ "allow": ["memory:*"], "deny": ["memory:write"] });
    let access = json!({ "role": "support", "rules": rules, "source": "template" });
    host.answer("role_get", &json!({ "outcome": "ok", "access": access }));
    let ask = async |body: Value| as_owner(&host, "POST", "/workspaces/acme/authorize", &body.to_string()).await;
    let said = |permission: &str, rest: Value| {
        let mut all = json!({ "permission": permission, "rule": null, "list": null });
        all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        all
    };
    let of_role = |permission: &str, rest: Value| {
        let mut all = said(permission, json!({ "role": "support", "source": "template" }));
        all.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        all
    };
    for (question, answer) in [
        (
            json!({ "permission": "memory:read", "role": "support" }),
            of_role("memory:read", json!({ "allowed": true, "decision": "allowed", "rule": "memory:*", "list": "allow" })),
        ),
        (
            json!({ "permission": "memory:write", "role": "support" }),
            of_role("memory:write", json!({ "allowed": false, "decision": "denied", "rule": "memory:write", "list": "deny" })),
        ),
        (
            json!({ "permission": "agent:read", "role": "support" }),
            of_role("agent:read", json!({ "allowed": false, "decision": "unlisted" })),
        ),
        (
            json!({ "permission": "memory:read", "role": "support", "scope": ["memory:write"] }),
            of_role("memory:read", json!({ "allowed": false, "decision": "scope" })),
        ),
        (
            json!({ "permission": "workspace:delete" }),
            said(
                "workspace:delete",
                json!({ "allowed": true, "decision": "allowed", "rule": "workspace:delete", "list": "allow", "subject": "user-1", "role": "owner", "source": "default" }),
            ),
        ),
        (
            json!({ "permission": "memory:read", "subject": "stranger" }),
            said("memory:read", json!({ "allowed": false, "decision": "no_member", "subject": "stranger", "role": null, "source": null })),
        ),
    ] {
        assert_eq!(ask(question).await.ok(200), answer);
    }
    for (question, pointer) in [
        (json!({}), "/"),
        (json!({ "permission": "memory:*" }), "/permission"),
        (json!({ "permission": "memory:fly" }), "/permission"),
        (json!({ "permission": "memory:read", "role": "Support" }), "/role"),
        (json!({ "permission": "memory:read", "role": "support", "subject": "a" }), "/role"),
        (json!({ "permission": "memory:read", "subject": " " }), "/subject"),
        (json!({ "permission": "memory:read", "subject": null }), "/subject"),
        (json!({ "permission": "memory:read", "scope": [] }), "/scope"),
        (json!({ "permission": "memory:read", "scope": ["fly"] }), "/scope/0"),
        (json!({ "permission": "memory:read", "workspaceId": "other" }), "/workspaceId"),
    ] {
        assert_eq!(ask(question.clone()).await.problem(422), pointer, "{question}");
    }
    host.answer("role_get", &json!({ "outcome": "not_found" }));
    assert_eq!(ask(json!({ "permission": "memory:read", "role": "nobody" })).await.problem(422), "/role");
}

#[tokio::test]
async fn one_may_ask_about_oneself_and_of_others_with_role_read() {
    let router = router::<FakeHost>();
    let ask = async |host: &FakeHost, token: &str, body: Value| {
        send(&router, host, "POST", "/workspaces/acme/authorize", Some(token), &body.to_string()).await
    };
    let host = FakeHost::new(&[]);
    // The token's own scope counts, and so does one that is asked with.
    let guest = token(Some("acme"), "member", Some(&["agent:invoke"]));
    for (body, decision) in [
        (json!({ "permission": "agent:invoke" }), "allowed"),
        (json!({ "permission": "agent:invoke", "subject": "user-1" }), "allowed"),
        (json!({ "permission": "agent:invoke", "scope": ["memory:*"] }), "scope"),
        (json!({ "permission": "memory:read" }), "scope"),
        (json!({ "permission": "memory:read", "scope": ["memory:*"] }), "scope"),
        (json!({ "permission": "secret:write" }), "unlisted"),
    ] {
        assert_eq!(ask(&host, &guest, body.clone()).await.ok(200)["decision"], decision, "{body}");
    }
    let narrowed = token(Some("acme"), "owner", Some(&["role:write"]));
    for who in [&guest, &narrowed, &token(Some("acme"), "member", None)] {
        for other in
            [json!({ "permission": "agent:invoke", "subject": "user-2" }), json!({ "permission": "agent:invoke", "role": "member" })]
        {
            assert!(ask(&host, who, other).await.problem(403).contains("role:read"));
        }
    }
    assert!(host.calls().is_empty());
    // The operator is nobody's member, and asks about workspaces that exist.
    let workspace = json!({
        "id": "acme", "displayName": "A", "plan": "pro", "ownerId": "o", "limits": {}, "restrictions": {}, "timeZone": "UTC", "status": "active",
        "createdAt": "2026-11-24T12:00:00.000Z", "updatedAt": "2026-11-24T12:00:00.000Z",
    });
    host.answer("workspace_get", &json!({ "outcome": "ok", "workspace": workspace }));
    let own = ask(&host, &operator(), json!({ "permission": "workspace:list" })).await.ok(200);
    assert_eq!((&own["role"], &own["allowed"]), (&json!("operator"), &json!(true)));
    host.answer("workspace_get", &json!({ "outcome": "not_found", "workspace": null }));
    ask(&host, &operator(), json!({ "permission": "workspace:list" })).await.problem(404);
}
