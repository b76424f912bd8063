//! Every role x permission x scope, and every role x route x scope, in one's own workspace and in another, against a model that shares no code with the product.
//!
//! The model is the spec's sentence read literally, over sets that were written down by hand: allowed is what is listed and not denied, within the scope, in the
//! workspace that the token is for. It compares no entry with a permission: each `family:*` is spelled out in it. A route that is not in the table fails the test.

use astra_host::testing::{FakeHost, send, token};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Permissions by family, as the guide and the spec spell them.
const FAMILIES: [(&str, &[&str]); 11] = [
    ("agent", &["invoke", "read", "write"]),
    ("memory", &["read", "write", "cross-workspace-read"]),
    ("session", &["read", "read-all"]),
    ("workspace", &["read", "write", "delete", "export", "list"]),
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
        // Runs the deployment and reads nobody's conversations but its own.
        "operator" => &everything() - &named(&["memory:cross-workspace-read", "session:read-all", "workspace:export"]),
        "viewer" => viewer,
        "member" => member,
        "admin" => &(&everything() - &never) - &named(&["workspace:delete", "workspace:export"]),
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

/// The document that the database would answer with.
fn access((role, said): &Said) -> Value {
    let rules = said.map(|(allow, deny, _)| json!({ "allow": allow, "deny": deny }));
    let source = said.map_or("default", |(_, _, source)| source);
    json!({ "outcome": "ok", "access": { "role": role, "rules": rules, "source": source } })
}

#[tokio::test]
async fn a_decision_is_explained_as_the_model_makes_it() {
    let router = grants::routes::router::<FakeHost>();
    let mut cases = 0;
    for said in &ROLES {
        let host = FakeHost::new(&[]);
        host.answer("access", &access(said));
        for scope in SCOPES {
            let token = token(Some("acme"), said.0, scope);
            let allowed = model(said, scope);
            for permission in everything() {
                let body = json!({ "permission": permission }).to_string();
                let what = format!("{said:?} {scope:?} {permission}");
                let own = send(&router, &host, "POST", "/workspaces/acme/authorize", Some(&token), &body).await.ok(200);
                let expected = (json!(allowed.contains(&permission)), json!(decision(said, scope, &permission)));
                assert_eq!((own["allowed"].clone(), own["decision"].clone()), expected, "{what}");
                let entry = own["rule"].as_str();
                assert_eq!(entry.is_some(), own["list"] != Value::Null, "{what}");
                assert!(entry.is_none_or(|entry| named(&[entry]).contains(&permission)), "{what}: {own}");
                send(&router, &host, "POST", "/workspaces/other/authorize", Some(&token), &body).await.problem(403);
                cases += 2;
            }
        }
    }
    println!("{cases} decisions");
    assert!(cases >= 5_000, "{cases} decisions");
}

/// What a route asks of a role.
#[derive(Clone, Copy)]
enum Asks {
    /// A permission in the workspace of the path.
    For(&'static str),
    /// Two of them.
    ForBoth(&'static str, &'static str),
    /// One, of owners and the operator only.
    OwnersFor(&'static str),
    /// One; the role is asked for where the turn begins, behind the counter, which is not here: only the token can be refused.
    TokenFor(&'static str),
    /// To be a member.
    Membership,
    /// A permission of an operator's token.
    OperatorFor(&'static str),
    /// Nothing: not even a token.
    Nothing,
}
use Asks::{For, ForBoth, Membership, Nothing, OperatorFor, OwnersFor, TokenFor};

/// Every route of every function, and what it asks.
const ASKED: &[(&str, &str, Asks)] = &[
    ("GET", "/workspaces", OperatorFor("workspace:list")),
    ("POST", "/workspaces", OperatorFor("workspace:list")),
    ("GET", "/workspaces/{workspaceId}", For("workspace:read")),
    ("PATCH", "/workspaces/{workspaceId}", For("workspace:write")),
    ("DELETE", "/workspaces/{workspaceId}", For("workspace:delete")),
    ("GET", "/workspaces/{workspaceId}/export", For("workspace:export")),
    ("GET", "/workspaces/{workspaceId}/members", For("member:read")),
    ("PUT", "/workspaces/{workspaceId}/members/{userId}", For("member:write")),
    ("DELETE", "/workspaces/{workspaceId}/members/{userId}", For("member:write")),
    ("POST", "/workspaces/{workspaceId}/tokens", For("token:issue")),
    ("DELETE", "/workspaces/{workspaceId}/tokens/{jti}", For("token:issue")),
    ("GET", "/workspaces/{workspaceId}/secrets", For("secret:write")),
    ("GET", "/workspaces/{workspaceId}/secrets/{secretName}", For("secret:write")),
    ("PUT", "/workspaces/{workspaceId}/secrets/{secretName}", For("secret:write")),
    ("DELETE", "/workspaces/{workspaceId}/secrets/{secretName}", For("secret:write")),
    ("GET", "/workspaces/{workspaceId}/agents", For("agent:read")),
    ("PUT", "/workspaces/{workspaceId}/agents/{agentId}", For("agent:write")),
    ("DELETE", "/workspaces/{workspaceId}/agents/{agentId}", For("agent:write")),
    ("PUT", "/plans/{plan}", OperatorFor("workspace:list")),
    ("GET", "/plans/{plan}", OperatorFor("workspace:list")),
    ("GET", "/plans/{plan}/template", OperatorFor("workspace:list")),
    ("PUT", "/plans/{plan}/template", OperatorFor("workspace:list")),
    ("POST", "/workspaces/{workspaceId}/turns", TokenFor("agent:invoke")),
    ("POST", "/workspaces/{workspaceId}/turns/{turnId}/stop", For("agent:invoke")),
    ("GET", "/workspaces/{workspaceId}/sessions", For("session:read")),
    ("GET", "/workspaces/{workspaceId}/sessions/{sessionId}", For("session:read")),
    ("DELETE", "/workspaces/{workspaceId}/sessions/{sessionId}", ForBoth("agent:invoke", "session:read")),
    ("GET", "/workspaces/{workspaceId}/sessions/{sessionId}/messages", For("session:read")),
    ("POST", "/workspaces/{workspaceId}/smoke-test", ForBoth("agent:invoke", "memory:write")),
    ("GET", "/billing/costs", OperatorFor("billing:read")),
    ("GET", "/billing/prices", OperatorFor("billing:read")),
    ("PUT", "/billing/prices", OperatorFor("workspace:list")),
    ("POST", "/billing/reprice", OperatorFor("workspace:list")),
    ("GET", "/workspaces/{workspaceId}/usage", For("billing:read")),
    ("GET", "/workspaces/{workspaceId}/quota", For("workspace:read")),
    ("GET", "/workspaces/{workspaceId}/quota/events", For("workspace:read")),
    ("POST", "/billing/reconcile", OperatorFor("billing:read")),
    ("GET", "/workspaces/{workspaceId}/ledger", For("billing:read")),
    ("GET", "/workspaces/{workspaceId}/ledger/verify", For("billing:read")),
    ("POST", "/workspaces/{workspaceId}/ledger/credits", OperatorFor("workspace:list")),
    ("POST", "/workspaces/{workspaceId}/ledger/corrections", OperatorFor("workspace:list")),
    ("GET", "/workspaces/{workspaceId}/receipts", For("billing:read")),
    ("GET", "/.well-known/jwks.json", Nothing),
    ("GET", "/billing/jobs", OperatorFor("billing:read")),
    ("POST", "/billing/jobs/{jobName}/run", OperatorFor("workspace:list")),
    ("GET", "/workspaces/{workspaceId}/webhooks", For("workspace:write")),
    ("PUT", "/workspaces/{workspaceId}/webhooks/{webhookName}", For("workspace:write")),
    ("DELETE", "/workspaces/{workspaceId}/webhooks/{webhookName}", For("workspace:write")),
    ("POST", "/workspaces/{workspaceId}/webhooks/{webhookName}/rotate", For("workspace:write")),
    ("GET", "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries", For("workspace:write")),
    ("POST", "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries/{deliveryId}/replay", For("workspace:write")),
    ("GET", "/billing/stripe/customers", OperatorFor("billing:read")),
    ("PUT", "/billing/stripe/customers/{workspaceId}", OperatorFor("workspace:list")),
    ("GET", "/billing/stripe/refusals", OperatorFor("billing:read")),
    ("POST", "/billing/stripe/refusals/{workspaceId}/retry", OperatorFor("workspace:list")),
    ("POST", "/billing/close", OperatorFor("billing:read")),
    ("GET", "/billing/invoices", OperatorFor("billing:read")),
    ("GET", "/workspaces/{workspaceId}/invoices", For("billing:read")),
    ("GET", "/workspaces/{workspaceId}/invoices/{invoiceNumber}", For("billing:read")),
    ("GET", "/workspaces/{workspaceId}/roles", For("role:read")),
    ("GET", "/workspaces/{workspaceId}/roles/{role}", For("role:read")),
    ("PUT", "/workspaces/{workspaceId}/roles/{role}", For("role:write")),
    ("DELETE", "/workspaces/{workspaceId}/roles/{role}", OwnersFor("role:write")),
    ("POST", "/workspaces/{workspaceId}/authorize", Membership),
    ("GET", "/workspaces/{workspaceId}/grants", For("grant:read")),
    ("POST", "/workspaces/{workspaceId}/grants", For("grant:write")),
    ("DELETE", "/workspaces/{workspaceId}/grants/{grantId}", For("grant:write")),
    ("POST", "/workspaces/{workspaceId}/grants/{grantId}/accept", For("grant:write")),
    ("GET", "/workspaces/{workspaceId}/audit", For("audit:read")),
    ("GET", "/workspaces/{workspaceId}/audit/verify", For("audit:read")),
    ("GET", "/workspaces/{workspaceId}/memories", For("memory:read")),
    ("POST", "/workspaces/{workspaceId}/memories", For("memory:write")),
    ("POST", "/workspaces/{workspaceId}/memories/search", For("memory:read")),
    ("GET", "/workspaces/{workspaceId}/memories/{memoryId}", For("memory:read")),
    ("DELETE", "/workspaces/{workspaceId}/memories/{memoryId}", For("memory:write")),
    ("GET", "/workspaces/{workspaceId}/documents", For("memory:read")),
    ("POST", "/workspaces/{workspaceId}/documents/search", For("memory:read")),
    ("PUT", "/workspaces/{workspaceId}/documents/{slug}", For("memory:write")),
    ("GET", "/workspaces/{workspaceId}/documents/{slug}", For("memory:read")),
    ("DELETE", "/workspaces/{workspaceId}/documents/{slug}", For("memory:write")),
    ("DELETE", "/workspaces/{workspaceId}/users/{userId}/memory", ForBoth("memory:write", "member:write")),
    ("GET", "/workspaces/{workspaceId}/memory/settings", For("memory:read")),
    ("PUT", "/workspaces/{workspaceId}/memory/settings", OperatorFor("workspace:list")),
    ("GET", "/workspaces/{workspaceId}/memory/status", For("memory:read")),
    ("GET", "/workspaces/{workspaceId}/memory/jobs", OperatorFor("workspace:list")),
    ("POST", "/workspaces/{workspaceId}/memory/jobs/{jobId}/replay", OperatorFor("workspace:list")),
    ("POST", "/workspaces/{workspaceId}/memory/index/rebuild", OperatorFor("workspace:list")),
];

/// The operator, beside the members.
const OPERATOR: Said = ("operator", None);

/// Whether a request is let in: from a member of `acme`, or the operator, for this workspace.
fn is_let_in(said: &Said, scope: Option<&[&str]>, asks: Asks, workspace: &str) -> bool {
    let is_operator = said.0 == "operator";
    let is_at_home = is_operator || workspace == "acme";
    let may = model(said, scope);
    match asks {
        For(permission) => is_at_home && may.contains(permission),
        ForBoth(one, other) => is_at_home && may.contains(one) && may.contains(other),
        OwnersFor(permission) => is_at_home && may.contains(permission) && ["owner", "operator"].contains(&said.0),
        TokenFor(permission) => is_at_home && scope.is_none_or(|scope| named(scope).contains(permission)),
        Membership => is_at_home,
        OperatorFor(permission) => is_operator && may.contains(permission),
        Nothing => true,
    }
}

#[tokio::test]
async fn each_route_lets_in_whom_the_model_lets_in() {
    let functions = [
        (provision::routes::ROUTES, provision::routes::router::<FakeHost>()),
        (invoke_turn::routes::ROUTES, invoke_turn::routes::router::<FakeHost>()),
        (billing::routes::ROUTES, billing::routes::router::<FakeHost>()),
        (grants::routes::ROUTES, grants::routes::router::<FakeHost>()),
        (memory::routes::ROUTES, memory::routes::router::<FakeHost>()),
    ];
    let mut cases = 0;
    for (routes, router) in &functions {
        for (method, pattern) in *routes {
            let asked = ASKED.iter().find(|(m, p, _)| (m, p) == (method, pattern));
            let asks = asked.unwrap_or_else(|| panic!("{method} {pattern} is new: say in ASKED what it asks")).2;
            for said in ROLES.iter().chain([&OPERATOR]) {
                let host = FakeHost::new(&[]);
                host.answer("access", &access(said));
                for scope in SCOPES.into_iter().step_by(2) {
                    let token = token((said.0 != "operator").then_some("acme"), said.0, scope);
                    for workspace in ["acme", "other"] {
                        let mut path = pattern.replace("{workspaceId}", workspace);
                        for name in [
                            "userId",
                            "jti",
                            "secretName",
                            "agentId",
                            "plan",
                            "turnId",
                            "sessionId",
                            "role",
                            "grantId",
                            "memoryId",
                            "slug",
                            "jobId",
                            "jobName",
                            "webhookName",
                            "deliveryId",
                            "invoiceNumber",
                        ] {
                            path = path.replace(&format!("{{{name}}}"), "x");
                        }
                        let reply = send(router, &host, method, &path, Some(&token), "{").await;
                        let what = format!("{said:?} {scope:?}: {method} {path}: {reply:?}");
                        assert_eq!(reply.status != 403, is_let_in(said, scope, asks, workspace), "{what}");
                        assert_ne!(reply.status, 401, "{what}");
                        cases += 1;
                    }
                }
                let strange = host.calls().into_iter().filter(|(name, _)| name != "access");
                let inside =
                    strange.filter(|(_, params)| params.first().is_some_and(|workspace| workspace == "other") && said.0 != "operator");
                assert_eq!(inside.count(), 0, "{said:?} {method} {pattern}: something was asked of another workspace");
            }
        }
    }
    println!("{cases} requests");
    assert!(cases >= 5_000, "{cases} requests");
}
