//! What each endpoint asks of the database and the counter, and what it answers.

use astra_host::CounterUnreachable;
use astra_host::testing::{self, FakeHost, Reply, Sent, operator, send, send_as, token};
use astra_kernel::{Sealed, SecretsKey};
use astra_quota::words::Answer;
use astra_store::StoreError;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use provision::routes::router;
use serde_json::{Value, json};

async fn as_operator(host: &FakeHost, method: &str, path: &str, body: &str) -> Reply {
    send(&router::<FakeHost>(), host, method, path, Some(&operator()), body).await
}

async fn as_role(host: &FakeHost, role: &str, method: &str, path: &str, body: &str) -> Reply {
    send(&router::<FakeHost>(), host, method, path, Some(&token(Some("acme"), role, None)), body).await
}

fn workspace() -> Value {
    json!({
        "id": "acme", "displayName": "ACME Corp", "plan": "pro", "ownerId": "user_acme_admin", "timeZone": "UTC", "status": "active",
        "limits": { "maxAgents": 10, "maxCostNanoUsdPerMonth": 50_000_000_000_i64 },
        "createdAt": "2026-11-24T12:00:00.000Z", "updatedAt": "2026-11-24T12:00:00.000Z",
    })
}

const BODY: &str = r#"{"id":"acme","displayName":"ACME Corp","plan":"pro","ownerId":"user_acme_admin","limits":{"maxAgents":10,"maxTokensPerMonth":5000000,"maxCostUsdPerMonth":50.00}}"#;

#[tokio::test]
async fn creating_says_where_the_workspace_is() {
    let host = FakeHost::new(&[]);
    host.answer("workspace_create", &json!({ "outcome": "created", "workspace": workspace() }));
    let reply = as_operator(&host, "POST", "/workspaces", BODY).await;
    let shown = reply.ok(201);
    assert_eq!(reply.headers["location"], "/workspaces/acme");
    assert_eq!(shown["limits"], json!({ "maxAgents": 10, "maxCostUsdPerMonth": 50.00 }));
    assert!(reply.body.contains(r#""maxCostUsdPerMonth":50.00"#), "{reply:?}");
    host.answer("workspace_create", &json!({ "outcome": "same", "workspace": workspace() }));
    assert!(!as_operator(&host, "POST", "/workspaces", BODY).await.headers.contains_key("location"));
    host.answer("workspace_create", &json!({ "outcome": "conflict", "workspace": null }));
    as_operator(&host, "POST", "/workspaces", BODY).await.problem(409);
}

#[tokio::test]
async fn the_canonical_body_is_what_the_body_means() {
    let mut seen = Vec::new();
    for body in [
        BODY.to_owned(),
        r#"{"limits":{"maxCostUsdPerMonth":50,"maxTokensPerMonth":5000000,"maxAgents":10},"ownerId":"user_acme_admin","plan":" pro ","displayName":"ACME Corp","id":"acme"}"#.to_owned(),
        BODY.replace("ACME", "\\u0041CME").replace("50.00", "50.000000000"),
        BODY.replace("50.00", "50.01"),
    ] {
        let host = FakeHost::new(&[]);
        host.answer("workspace_create", &json!({ "outcome": "same", "workspace": workspace() }));
        as_operator(&host, "POST", "/workspaces", &body).await.ok(200);
        seen.push(host.argument("workspace_create")["body"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], seen[2]);
    assert_ne!(seen[0], seen[3]);
    insta::assert_snapshot!(seen[0]);
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_named() {
    let host = FakeHost::new(&[]);
    let cases = [
        (BODY.replace("\"plan\"", "\"plam\""), "/plam"),
        (BODY.replace("maxAgents", "maxAgentz"), "/limits/maxAgentz"),
        (BODY.replace("50.00", "\"50\""), "/limits/maxCostUsdPerMonth"),
        (BODY.replace("50.00", "-1"), "/limits/maxCostUsdPerMonth"),
        (BODY.replace("50.00", "null"), "/limits/maxCostUsdPerMonth"),
        (BODY.replace("50.00", "0.0000000001"), "/limits/maxCostUsdPerMonth"),
        (BODY.replace(":10,", ":-1,"), "/limits/maxAgents"),
        (BODY.replace("\"acme\"", "\"Acme\""), "/id"),
        (BODY.replace("ACME Corp", "  "), "/displayName"),
        (BODY.replace("ACME Corp", "a\\u0000b"), "/displayName"),
        (BODY.replace("\"ACME Corp\"", "7"), "/displayName"),
        (BODY.replace("\"ownerId\":\"user_acme_admin\",", ""), "/"),
        (BODY.replace("\"plan\":\"pro\",", "\"plan\":\"pro\",\"plan\":\"pro\","), "/"),
        ("[]".to_owned(), "/"),
        (r#"["acme","ACME Corp","pro","user_acme_admin",{}]"#.to_owned(), "/"),
        (BODY.replace(r#"{"maxAgents":10,"maxTokensPerMonth":5000000,"maxCostUsdPerMonth":50.00}"#, "[10]"), "/limits"),
    ];
    for (body, pointer) in cases {
        assert_eq!(as_operator(&host, "POST", "/workspaces", &body).await.problem(422), pointer, "{body}");
    }
    as_operator(&host, "POST", "/workspaces", "{").await.problem(400);
    let xml = Sent { token: Some(&operator()), content_type: "text/xml", accept: "", body: BODY.to_owned() };
    send_as(&router::<FakeHost>(), &host, "POST", "/workspaces", xml).await.problem(415);
    as_operator(&host, "POST", "/workspaces", &format!("{}{BODY}", " ".repeat(1 << 20))).await.problem(413);
    assert!(host.calls().is_empty());
}

#[tokio::test]
async fn a_patch_names_what_changes() {
    let host = FakeHost::new(&[]);
    host.answer("workspace_patch", &json!({ "outcome": "ok", "workspace": workspace() }));
    let body = r#"{"limits":{"maxAgents":null,"maxCostUsdPerMonth":0.25}}"#;
    as_operator(&host, "PATCH", "/workspaces/acme", body).await.ok(200);
    let expected = json!({ "limits": { "maxAgents": null, "maxCostNanoUsdPerMonth": 250_000_000 }, "now": "2026-11-24T12:00:00.000Z" });
    assert_eq!(host.argument("workspace_patch"), expected);
    for (body, status) in [
        ("{}", 422),
        (r#"{"displayName":null}"#, 422),
        (r#"{"plan":""}"#, 422),
        (r#"{"limits":null}"#, 422),
        (r#"{"limits":[null,null]}"#, 422),
        (r#"{"id":"x"}"#, 422),
    ] {
        as_operator(&host, "PATCH", "/workspaces/acme", body).await.problem(status);
    }
    for role in ["owner", "admin"] {
        as_role(&host, role, "PATCH", "/workspaces/acme", r#"{"displayName":"A"}"#).await.ok(200);
        for body in [r#"{"displayName":"A","plan":"pro"}"#, r#"{"limits":{}}"#] {
            as_role(&host, role, "PATCH", "/workspaces/acme", body).await.problem(403);
        }
    }
    host.answer("workspace_patch", &json!({ "outcome": "not_found", "workspace": null }));
    as_operator(&host, "PATCH", "/workspaces/acme", body).await.problem(404);
}

#[tokio::test]
async fn deleting_makes_the_counter_forget_and_a_retry_finishes_it() {
    let host = FakeHost::new(&[]);
    host.answer("workspace_delete", &erased());
    let reply = as_operator(&host, "DELETE", "/workspaces/acme", "").await;
    reply.problem(503);
    assert_eq!(reply.headers["retry-after"], "1");
    host.counter(|_| Ok(Answer::Unavailable));
    as_operator(&host, "DELETE", "/workspaces/acme", "").await.problem(503);
    host.answer("workspace_delete", &json!({ "outcome": "not_found" }));
    as_operator(&host, "DELETE", "/workspaces/acme", "").await.problem(503);
    host.counter(|_| Ok(Answer::Forgotten));
    as_operator(&host, "DELETE", "/workspaces/acme", "").await.problem(404);
    host.answer("workspace_delete", &erased());
    let said = as_operator(&host, "DELETE", "/workspaces/acme", "").await.ok(200);
    assert_eq!((&said["workspaceId"], &said["removed"]["turns"], &said["kept"]["ledgerEntries"]), (&json!("acme"), &json!(3), &json!(3)));
    assert_eq!(host.asked(), ["acme Forget"; 5]);
    // Not before the database is done: what is not deleted must not lose what it has spent.
    let host = FakeHost::new(&[]);
    host.counter(|_| Err(CounterUnreachable));
    as_operator(&host, "DELETE", "/workspaces/acme", "").await.problem(503);
    assert!(host.asked().is_empty());
}

/// `workspace_delete`'s answer.
fn erased() -> Value {
    let removed = json!({ "members": 1, "roles": 0, "agents": 0, "secrets": 0, "sessions": 2, "messages": 6, "turns": 3, "memories": 0, "grants": 0 });
    json!({ "outcome": "ok", "removed": removed, "kept": { "ledgerEntries": 3 } })
}

/// `role_get`'s answer for a role with its defaults.
fn role(name: &str) -> Value {
    json!({ "outcome": "ok", "access": { "role": name, "rules": null, "source": "default" } })
}

#[tokio::test]
async fn nobody_gives_a_role_that_may_do_more_than_they() {
    let host = FakeHost::new(&[]);
    let strong = json!({ "outcome": "ok", "access": { "role": "strong", "rules": { "allow": ["workspace:*"], "deny": [] }, "source": "workspace" } });
    host.answer("role_get", &strong);
    let refused = as_role(&host, "admin", "PUT", "/workspaces/acme/members/bob", r#"{"role":"strong"}"#).await.problem(403);
    assert!(refused.contains("workspace:delete"), "{refused}");
    let refused = as_role(&host, "admin", "POST", "/workspaces/acme/tokens", r#"{"subject":"bob","role":"strong"}"#).await.problem(403);
    assert!(refused.contains("workspace:delete"), "{refused}");
    assert!(host.calls().iter().all(|(name, _)| name == "role_get"), "nothing was done");
    host.answer("role_get", &json!({ "outcome": "not_found" }))
        .answer("workspace_get", &json!({ "outcome": "ok", "workspace": workspace() }));
    assert_eq!(as_role(&host, "owner", "PUT", "/workspaces/acme/members/bob", r#"{"role":"stronger"}"#).await.problem(422), "/role");
}

#[tokio::test]
async fn members_and_who_may_make_owners() {
    let host = FakeHost::new(&[]);
    let member = json!({ "userId": "bob", "role": "admin", "createdAt": "2026-11-24T12:00:00.000Z" });
    host.answer("member_put", &json!({ "outcome": "ok", "member": member })).answer("role_get", &role("admin"));
    assert_eq!(as_role(&host, "owner", "PUT", "/workspaces/acme/members/bob", r#"{"role":"admin"}"#).await.ok(200), member);
    assert_eq!(host.argument("member_put")["byOwner"], true);
    as_role(&host, "admin", "PUT", "/workspaces/acme/members/bob", r#"{"role":"owner"}"#).await.problem(403);
    as_role(&host, "owner", "PUT", "/workspaces/acme/members/bob", r#"{"role":"operator"}"#).await.problem(422);
    let not_a_word = as_role(&host, "owner", "PUT", "/workspaces/acme/members/bob", r#"{"role":{"admin":null}}"#).await;
    assert_eq!(not_a_word.problem(422), "/role");
    as_role(&host, "owner", "PUT", "/workspaces/acme/members/%20", r#"{"role":"admin"}"#).await.problem(422);
    as_role(&host, "owner", "PUT", "/workspaces/acme/members/%FF", r#"{"role":"admin"}"#).await.problem(400);
    for (outcome, put, delete) in [("last_owner", 409, 409), ("owners_only", 403, 403), ("not_found", 404, 404)] {
        let host = FakeHost::new(&[]);
        host.answer("member_put", &json!({ "outcome": outcome })).answer("member_delete", &json!({ "outcome": outcome }));
        host.answer("role_get", &role("viewer"));
        as_role(&host, "admin", "PUT", "/workspaces/acme/members/bob", r#"{"role":"viewer"}"#).await.problem(put);
        as_role(&host, "admin", "DELETE", "/workspaces/acme/members/b%2Fb", "").await.problem(delete);
        assert_eq!(host.argument("member_put")["byOwner"], false);
        assert_eq!(host.argument("member_delete"), json!({ "userId": "b/b", "byOwner": false }));
    }
}

#[tokio::test]
async fn lists_page_and_refuse_what_they_do_not_know() {
    let host = FakeHost::new(&[]);
    host.answer("members_list", &json!({ "outcome": "ok", "data": [], "next": "bob" }));
    let page = as_role(&host, "owner", "GET", "/workspaces/acme/members?limit=2&after=al%20ice", "").await.ok(200);
    assert_eq!(page, json!({ "data": [], "nextCursor": "bob" }));
    assert_eq!(host.argument("members_list"), json!({ "after": "al ice", "limit": 2 }));
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("color=red", "color"),
        ("after=", "after"),
        ("after=%00", "after"),
    ] {
        let reply = as_role(&host, "owner", "GET", &format!("/workspaces/acme/members?{query}"), "").await;
        assert!(reply.problem(422).contains(named), "{query}: {reply:?}");
    }
    for path in ["/workspaces?after=A", "/workspaces/acme/secrets?after=a", "/workspaces/acme/members?after=%0A"] {
        assert_eq!(as_operator(&host, "GET", path, "").await.problem(422), "after", "{path}");
    }
    for (function, path) in [("members_list", "members"), ("secrets_list", "secrets")] {
        host.answer(function, &json!({ "outcome": "not_found", "data": [], "next": null }));
        as_operator(&host, "GET", &format!("/workspaces/acme/{path}"), "").await.problem(404);
    }
}

#[tokio::test]
async fn an_issued_token_verifies_and_says_what_was_asked() {
    let host = FakeHost::new(&[]);
    host.answer("workspace_get", &json!({ "outcome": "ok", "workspace": workspace() }));
    host.answer("role_get", &role("member"));
    let anna = json!({ "userId": "anna", "role": "member", "createdAt": "2026-11-24T12:00:00.000Z" });
    host.answer("member_add", &json!({ "outcome": "ok", "member": anna }));
    let body = r#"{"subject":"anna","role":"member","scope":["agent:*"],"expiresInSeconds":60}"#;
    let reply = as_role(&host, "owner", "POST", "/workspaces/acme/tokens", body).await;
    let issued = reply.ok(201);
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!((&issued["tokenType"], &issued["expiresAt"]), (&json!("Bearer"), &json!("2026-11-24T12:01:00.000Z")));
    let keys = astra_host::Host::shared(&host).token_keys().unwrap();
    let claims = keys.verify(issued["token"].as_str().unwrap(), testing::NOW).unwrap();
    assert_eq!((claims.sub.as_str(), claims.role.as_str(), claims.ws.unwrap().as_str()), ("anna", "member", "acme"));
    assert_eq!((claims.scope.unwrap(), claims.exp - claims.iat), (vec!["agent:*".to_owned()], 60));
    assert_eq!(claims.jti, issued["jti"].as_str().unwrap());
    assert!(!host.logged().join("").contains(issued["token"].as_str().unwrap()));

    assert_eq!(host.argument("member_add")["role"], "member");
    let detail = json!({ "role": "member", "jti": claims.jti, "scope": "agent:*", "expiresAt": issued["expiresAt"] });
    assert_eq!(host.audited(), [json!({ "action": "token.issue", "target": "anna", "outcome": "allowed", "detail": detail })]);
    let owner = json!({ "userId": "a", "role": "owner", "createdAt": "2026-11-24T12:00:00.000Z" });
    host.answer("role_get", &role("owner")).answer("member_add", &json!({ "outcome": "ok", "member": owner }));
    let default = as_operator(&host, "POST", "/workspaces/acme/tokens", r#"{"subject":"a","role":"owner"}"#).await.ok(201);
    assert_eq!(default["expiresAt"], "2026-11-24T12:15:00.000Z");
    for body in [
        r#"{"subject":"a","role":"operator"}"#,
        r#"{"subject":"a","role":{"member":null}}"#,
        r#"{"subject":"","role":"member"}"#,
        r#"{"role":"member"}"#,
        r#"{"subject":"a","role":"member","scope":[]}"#,
        r#"{"subject":"a","role":"member","scope":["all"]}"#,
        r#"{"subject":"a","role":"member","expiresInSeconds":0}"#,
        r#"{"subject":"a","role":"member","expiresInSeconds":86401}"#,
        r#"{"subject":"a","role":"member","ws":"other"}"#,
    ] {
        as_operator(&host, "POST", "/workspaces/acme/tokens", body).await.problem(422);
    }
    as_role(&host, "admin", "POST", "/workspaces/acme/tokens", r#"{"subject":"a","role":"owner"}"#).await.problem(403);
    host.fail("audit_add", StoreError::Unreachable);
    let unwritten = as_operator(&host, "POST", "/workspaces/acme/tokens", r#"{"subject":"a","role":"owner"}"#).await;
    assert!(
        unwritten.status == 503 && unwritten.json().get("token").is_none(),
        "a token that the log does not know is not given: {unwritten:?}"
    );
    host.answer("workspace_get", &json!({ "outcome": "not_found", "workspace": null }))
        .answer("role_get", &json!({ "outcome": "not_found" }));
    as_operator(&host, "POST", "/workspaces/acme/tokens", body).await.problem(404);
}

#[tokio::test]
async fn a_secret_is_sealed_for_its_workspace_and_name() {
    let host = FakeHost::new(&[]);
    host.answer("secret_put", &json!({ "outcome": "ok" }));
    let path = "/workspaces/acme/secrets/OPENAI_API_KEY";
    assert_eq!(as_role(&host, "owner", "PUT", path, r#"{"value":"sk-canary"}"#).await.ok(204), Value::Null);
    let stored = host.argument("secret_put");
    let bytes = |name: &str| BASE64_STANDARD.decode(stored[name].as_str().unwrap()).unwrap();
    let sealed = Sealed { key_id: stored["keyId"].as_str().unwrap().into(), nonce: bytes("nonce"), ciphertext: bytes("ciphertext") };
    let keys: &SecretsKey = astra_host::Host::shared(&host).secrets_key().unwrap();
    let open = |workspace: &str, name: &str| keys.open(&workspace.to_owned().try_into().unwrap(), name, &sealed);
    assert_eq!(open("acme", "OPENAI_API_KEY").unwrap(), b"sk-canary");
    assert!(open("other", "OPENAI_API_KEY").is_err() && open("acme", "OTHER").is_err());
    assert!(!format!("{:?}{:?}", host.calls(), host.logged()).contains("canary"));

    for body in
        [r#"{"value":""}"#, r#"{"value":7}"#, "{}", r#"{"value":"x","name":"Y"}"#, &format!(r#"{{"value":"{}"}}"#, "x".repeat(8193))]
    {
        as_role(&host, "owner", "PUT", path, body).await.problem(422);
    }
    for name in ["lower", "1X", "_X", "X-Y", "%C3%84", &"X".repeat(65)] {
        for method in ["PUT", "GET", "DELETE"] {
            as_role(&host, "owner", method, &format!("/workspaces/acme/secrets/{name}"), r#"{"value":"x"}"#).await.problem(422);
        }
    }
    host.answer("secret_get", &json!({ "outcome": "not_found", "secret": null }))
        .answer("secret_delete", &json!({ "outcome": "not_found" }));
    as_role(&host, "owner", "GET", path, "").await.problem(404);
    as_role(&host, "owner", "DELETE", path, "").await.problem(404);
}

const YAML: &str = "agents:\n- id: a\n  displayName: '{{workspace.displayName}} A'\n  model: {provider: openai, modelId: m, endpoint: 'https://m.example/v1'}\n  systemPromptTemplate: Hi.\n  budget: {maxTokensPerTurn: 10, maxCostUsdPerMonth: '{{ workspace.limits.maxCostUsdPerMonth }}'}\n";

fn definition() -> Value {
    json!({
        "id": "a", "displayName": "{{workspace.displayName}} A", "model": { "provider": "openai", "modelId": "m", "endpoint": "https://m.example/v1" },
        "systemPromptTemplate": "Hi.", "budget": { "maxTokensPerTurn": 10, "maxCostUsdPerMonth": { "ref": "maxCostNanoUsdPerMonth" } },
    })
}

#[tokio::test]
async fn a_template_goes_in_as_yaml_and_comes_out_as_either() {
    let host = FakeHost::new(&[]);
    host.answer("op_plan_put", &json!({ "outcome": "ok", "version": 3 }));
    let put = async |content_type: &'static str, body: String| {
        let sent = Sent { token: Some(&operator()), content_type, accept: "*/*", body };
        send_as(&router::<FakeHost>(), &host, "PUT", "/plans/pro/template", sent).await
    };
    assert_eq!(put("application/yaml", YAML.to_owned()).await.ok(200), json!({ "plan": "pro", "version": 3, "agents": ["a"] }));
    let stored = host.argument("op_plan_put");
    assert_eq!((&stored["template"]["agents"][0], &stored["sourceYaml"]), (&definition(), &json!(YAML)));
    for content_type in ["text/yaml; charset=utf-8", "application/x-yaml"] {
        put(content_type, YAML.to_owned()).await.ok(200);
    }
    put("application/json", YAML.to_owned()).await.problem(415);
    put("", YAML.to_owned()).await.problem(415);
    put("application/yaml", format!("{YAML}{}", " ".repeat(256 * 1024))).await.problem(413);
    assert_eq!(put("application/yaml", YAML.replace("Hi.", "'{{ nope }}'")).await.problem(422), "/agents/0/systemPromptTemplate");

    let template = json!({ "outcome": "ok", "plan": "pro", "version": 3, "template": { "agents": [definition()] }, "sourceYaml": YAML });
    host.answer("op_plan_get", &template);
    let get = async |accept: &'static str| {
        let sent = Sent { token: Some(&operator()), content_type: "", accept, body: String::new() };
        send_as(&router::<FakeHost>(), &host, "GET", "/plans/pro/template", sent).await
    };
    let yaml = get("application/yaml").await;
    assert_eq!((yaml.headers["content-type"].as_bytes(), yaml.body.as_str()), (&b"application/yaml"[..], YAML));
    let shown = get("*/*").await.ok(200);
    assert_eq!(shown["agents"][0]["budget"]["maxCostUsdPerMonth"], "{{workspace.limits.maxCostUsdPerMonth}}");
    host.answer("op_plan_get", &json!({ "outcome": "not_found" }));
    get("*/*").await.problem(404);
}

#[tokio::test]
async fn agents_are_shown_as_they_are_for_this_workspace() {
    let host = FakeHost::new(&[]);
    let own = json!({ "id": "b", "displayName": "B", "model": { "provider": "local", "modelId": "echo-1" }, "systemPromptTemplate": "Hi.",
                      "budget": { "maxCostUsdPerMonth": { "nano": 100_000_000 } } });
    let rows = json!([{ "id": "a", "source": "template", "definition": definition() }, { "id": "b", "source": "own", "definition": own }]);
    host.answer("workspace_get", &json!({ "outcome": "ok", "workspace": workspace() }));
    host.answer("agents_list", &json!({ "outcome": "ok", "data": rows }));
    let shown = as_role(&host, "viewer", "GET", "/workspaces/acme/agents", "").await.ok(200);
    insta::assert_json_snapshot!(shown);
    let operators = as_operator(&host, "GET", "/workspaces/acme/agents", "").await.ok(200);
    assert_eq!(operators["data"][0]["model"]["endpoint"], "https://m.example/v1");
}

const AGENT: &str = r#"{"displayName":"{{workspace.displayName}} B","model":{"provider":"local","modelId":"echo-1"},"systemPromptTemplate":"Hi.","budget":{"maxCostUsdPerMonth":0.1}}"#;

#[tokio::test]
async fn an_own_agent_is_written_checked() {
    let host = FakeHost::new(&[]);
    host.answer("workspace_get", &json!({ "outcome": "ok", "workspace": workspace() })).answer("agent_put", &json!({ "outcome": "ok" }));
    let path = "/workspaces/acme/agents/b";
    let shown = as_role(&host, "admin", "PUT", path, AGENT).await.ok(200);
    assert_eq!(
        (&shown["displayName"], &shown["source"], &shown["budget"]["maxCostNanoUsdPerMonth"]),
        (&json!("ACME Corp B"), &json!("own"), &json!(100_000_000))
    );
    assert_eq!(host.argument("agent_put")["definition"]["budget"]["maxCostUsdPerMonth"], json!({ "nano": 100_000_000 }));

    let with_endpoint = AGENT.replace("\"echo-1\"", "\"echo-1\",\"endpoint\":\"https://m.example/v1\"");
    as_role(&host, "owner", "PUT", path, &with_endpoint).await.problem(403);
    as_operator(&host, "PUT", path, &with_endpoint).await.ok(200);
    let on_this_machine = with_endpoint.replace("https://m.example", "http://127.0.0.1:9");
    assert_eq!(as_operator(&host, "PUT", path, &on_this_machine).await.problem(422), "/model/endpoint");
    let local = FakeHost::new(&[("ALLOW_HTTP_ENDPOINTS", "1")]);
    local.answer("workspace_get", &json!({ "outcome": "ok", "workspace": workspace() })).answer("agent_put", &json!({ "outcome": "ok" }));
    as_operator(&local, "PUT", path, &on_this_machine).await.ok(200);

    for (from, to, pointer) in [
        ("{\"displayName", "{\"id\":\"c\",\"displayName", "/id"),
        ("{\"displayName", "{\"id\":null,\"displayName", "/id"),
        ("Hi.", "{{ workspace.secret }}", "/systemPromptTemplate"),
        ("Hi.", "\\u0000", "/systemPromptTemplate"),
        ("Hi.", "", "/systemPromptTemplate"),
        ("\"local\"", "\"bedrock\"", "/model/provider"),
        ("\"local\"", "{\"local\":null}", "/model/provider"),
        ("0.1", "[]", "/budget/maxCostUsdPerMonth"),
        (r#"{"maxCostUsdPerMonth":0.1}"#, "[10]", "/budget"),
        (r#"{"provider":"local","modelId":"echo-1"}"#, r#"["local","echo-1"]"#, "/model"),
        ("\"budget\"", "\"permissions\":{\"workspaceId\":\"other\"},\"budget\"", "/permissions/workspaceId"),
    ] {
        assert!(AGENT.contains(from));
        assert_eq!(as_role(&host, "admin", "PUT", path, &AGENT.replacen(from, to, 1)).await.problem(422), pointer, "{to}");
    }
    as_role(&host, "admin", "PUT", path, &AGENT.replacen("{\"displayName", "{\"id\":\"b\",\"displayName", 1)).await.ok(200);
    as_role(&host, "admin", "PUT", "/workspaces/acme/agents/-b", AGENT).await.problem(422);

    host.answer("agent_put", &json!({ "outcome": "limit", "limit": "maxAgents", "max": 10, "used": 10 }));
    let refused = as_role(&host, "admin", "PUT", path, AGENT).await.ok(429);
    assert_eq!((&refused["code"], &refused["limit"], &refused["used"]), (&json!("quota_exceeded"), &json!("maxAgents"), &json!(10)));
    host.answer("agent_delete", &json!({ "outcome": "not_found" }));
    as_role(&host, "admin", "DELETE", path, "").await.problem(404);
}

#[tokio::test]
async fn a_database_that_is_away_or_busy_is_503_and_a_fault_says_nothing() {
    let host = FakeHost::new(&[]);
    for (error, status) in [
        (StoreError::Unreachable, 503),
        (StoreError::Fault("40001".into()), 503),
        (StoreError::Fault("53300".into()), 503),
        (StoreError::Fault("22P05".into()), 500),
        (StoreError::Shape("x"), 500),
    ] {
        host.fail("workspace_get", error);
        let reply = as_role(&host, "viewer", "GET", "/workspaces/acme", "").await;
        reply.problem(status);
        assert!(!reply.body.contains("22P05"));
    }
}

#[tokio::test]
async fn an_unknown_method_is_405_and_names_the_others() {
    let host = FakeHost::new(&[]);
    let reply = as_operator(&host, "POST", "/workspaces/acme", "").await;
    reply.problem(405);
    assert!(reply.headers["allow"].to_str().unwrap().contains("PATCH"), "{reply:?}");
    as_operator(&host, "GET", "/workspaces/", "").await.problem(404);
}
