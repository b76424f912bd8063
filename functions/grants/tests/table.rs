//! Every role x permission x scope, in one's own workspace and in another, against a model that shares no code with the product.
//!
//! The model is the spec's sentence read literally, over sets that were written down by hand: allowed is what is listed and not denied, within the scope, in the
//! workspace that the token is for. It knows no wildcards: each `family:*` is spelled out in it.

use astra_host::testing::{FakeHost, send, token};
use grants::routes::router;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Permissions by family, as the guide and the spec spell them.
const FAMILIES: [(&str, &[&str]); 11] = [
    ("agent", &["invoke", "read", "write"]),
    ("memory", &["read", "write", "cross-workspace-read"]),
    ("session", &["read", "read-all"]),
    ("workspace", &["read", "write", "delete", "list"]),
    ("member", &["read", "write"]),
    ("token", &["issue"]),
    ("secret", &["write"]),
    ("billing", &["read"]),
    ("role", &["read", "write"]),
    ("grant", &["read", "write"]),
    ("audit", &["read"]),
];

fn everything() -> BTreeSet<String> {
    FAMILIES.iter().flat_map(|(family, names)| names.iter().map(move |name| format!("{family}:{name}"))).collect()
}

/// What a list of entries names.
fn named(entries: &[&str]) -> BTreeSet<String> {
    let is_named = |permission: &String| {
        entries.iter().any(|entry| match entry.split_once(':') {
            Some((family, "*")) => permission.split_once(':').is_some_and(|(of, _)| of == family),
            _ => permission == entry,
        })
    };
    everything().into_iter().filter(is_named).collect()
}

/// What each role may do when nobody says otherwise (the spec's "roles owner, admin, member, viewer with defaults").
fn defaults(role: &str) -> BTreeSet<String> {
    let viewer = named(&["agent:read", "memory:read", "session:read", "workspace:read"]);
    let member = &viewer | &named(&["agent:invoke", "memory:write"]);
    let never = named(&["workspace:list", "memory:cross-workspace-read"]);
    match role {
        "viewer" => viewer,
        "member" => member,
        "admin" => &(&everything() - &never) - &named(&["workspace:delete"]),
        "owner" => &everything() - &never,
        _ => BTreeSet::new(),
    }
}

/// A role, and what is said of it: allow, deny, and by whom; nothing for its defaults.
type Said = (&'static str, Option<(&'static [&'static str], &'static [&'static str], &'static str)>);

const ROLES: [Said; 17] = [
    ("owner", None),
    ("admin", None),
    ("member", None),
    ("viewer", None),
    ("nothing-said", None),
    ("member", Some((&["memory:read", "memory:write", "agent:invoke"], &["memory:cross-workspace-read", "workspace:list"], "workspace"))),
    ("member", Some((&["memory:read", "memory:write", "agent:invoke"], &["memory:cross-workspace-read", "workspace:list"], "template"))),
    ("admin", Some((&[], &[], "workspace"))),
    ("viewer", Some((&["memory:*"], &[], "template"))),
    ("support", Some((&["memory:*"], &["memory:write"], "workspace"))),
    ("support", Some((&["memory:write"], &["memory:*"], "workspace"))),
    ("support", Some((&["workspace:*", "session:*"], &["workspace:list", "session:read-all"], "template"))),
    ("auditor", Some((&["audit:read", "billing:*", "grant:read", "role:read"], &[], "workspace"))),
    ("people", Some((&["member:*", "token:issue", "role:*"], &["role:write"], "workspace"))),
    ("chat", Some((&["agent:invoke"], &["agent:invoke"], "workspace"))),
    ("owner", Some((&["role:write", "member:write", "agent:*"], &["agent:*"], "workspace"))),
    (
        "all",
        Some((
            &[
                "agent:*",
                "memory:*",
                "session:*",
                "workspace:*",
                "member:*",
                "token:*",
                "secret:*",
                "billing:*",
                "role:*",
                "grant:*",
                "audit:*",
            ],
            &["secret:write"],
            "template",
        )),
    ),
];

const SCOPES: [Option<&[&str]>; 9] = [
    None,
    Some(&[]),
    Some(&["agent:invoke"]),
    Some(&["memory:*"]),
    Some(&["memory:read", "session:read", "workspace:*"]),
    Some(&["role:*", "member:read", "audit:*", "billing:read"]),
    Some(&["workspace:list", "workspace:delete", "memory:cross-workspace-read"]),
    Some(&["*", "memory", "agent", ":read"]),
    Some(&["agent:*", "session:*", "token:*", "secret:*", "grant:*", "member:*"]),
];

fn model((role, said): &Said, scope: Option<&[&str]>) -> BTreeSet<String> {
    let of_role = said.map_or_else(|| defaults(role), |(allow, deny, _)| &named(allow) - &named(deny));
    scope.map_or_else(|| of_role.clone(), |scope| &of_role & &named(scope))
}

fn decision((role, said): &Said, scope: Option<&[&str]>, permission: &str) -> &'static str {
    let denied = said.is_some_and(|(_, deny, _)| named(deny).contains(permission));
    let listed = said.map_or_else(|| defaults(role), |(allow, _, _)| named(allow)).contains(permission);
    match (denied, listed, scope.is_none_or(|scope| named(scope).contains(permission))) {
        (true, _, _) => "denied",
        (false, false, _) => "unlisted",
        (false, true, false) => "scope",
        (false, true, true) => "allowed",
    }
}

#[tokio::test]
async fn authorize_and_the_routes_agree_with_a_model_written_apart() {
    let router = router::<FakeHost>();
    let mut cases = 0;
    for said in &ROLES {
        let (role, rules) = said;
        let host = FakeHost::new(&[]);
        let rules = rules.map(|(allow, deny, source)| (json!({ "allow": allow, "deny": deny }), source));
        let access = json!({ "role": role, "rules": rules.as_ref().map(|(rules, _)| rules), "source": rules.as_ref().map_or("default", |(_, source)| *source) });
        host.answer("access", &json!({ "outcome": "ok", "access": access }));
        host.answer("roles_list", &json!({ "outcome": "ok", "data": [] }));
        for scope in SCOPES {
            let token = token(Some("acme"), role, scope);
            let allowed = model(said, scope);
            for permission in everything() {
                let body = json!({ "permission": permission }).to_string();
                let what = format!("{said:?} {scope:?} {permission}");
                let own = send(&router, &host, "POST", "/workspaces/acme/authorize", Some(&token), &body).await.ok(200);
                assert_eq!(
                    (&own["allowed"], &own["decision"]),
                    (&json!(allowed.contains(&permission)), &json!(decision(said, scope, &permission))),
                    "{what}"
                );
                let entry = own["rule"].as_str();
                assert_eq!(entry.is_some(), own["list"] != Value::Null, "{what}");
                assert!(entry.is_none_or(|entry| named(&[entry]).contains(&permission)), "{what}: {own}");
                send(&router, &host, "POST", "/workspaces/other/authorize", Some(&token), &body).await.problem(403);
                cases += 2;
            }
            // What is enforced is what was explained.
            for (method, rest, needs) in [("GET", "roles", "role:read"), ("PUT", "roles/x", "role:write")] {
                for (workspace, may) in [("acme", allowed.contains(needs)), ("other", false)] {
                    let reply = send(&router, &host, method, &format!("/workspaces/{workspace}/{rest}"), Some(&token), "{").await;
                    assert_eq!(reply.status != 403, may, "{said:?} {scope:?} {method} {rest} in {workspace}: {reply:?}");
                    cases += 1;
                }
            }
        }
    }
    assert!(cases >= 5_000, "{cases} cases");
    println!("{cases} cases");
}
