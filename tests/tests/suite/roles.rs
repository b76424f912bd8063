//! Roles: what a workspace and its plan's template say that they may do, what holds because of it, and why.

use astra_tests::workspace::unique;
use astra_tests::{Api, Workspace, guide, template};
use http::Method;
use serde_json::{Value, json};

async fn put(api: &Api, ws: &Workspace, role: &str, rules: &Value) -> astra_tests::Reply {
    api.put(&ws.path(&format!("/roles/{role}")), rules).await
}

async fn put_yaml(ws: &Workspace, role: &str, yaml: &str) -> astra_tests::Reply {
    ws.owner.request(Method::PUT, &ws.path(&format!("/roles/{role}"))).body("application/yaml", yaml.to_owned()).send().await
}

/// What decides on a question, as one word and its reasons.
async fn decided(api: &Api, ws: &Workspace, question: &Value) -> Value {
    let said = api.post(&ws.path("/authorize"), question).await.ok(200);
    json!([said["decision"], said["rule"], said["list"], said["source"], said["role"]])
}

/// What the guide's member may do: chat and remember, and nothing that the defaults would allow besides.
async fn assert_the_guides_member(ws: &Workspace, source: &str) {
    ws.turn("may I?").await.ok(200);
    for path in ["/agents", "/sessions", "", "/quota", "/roles"] {
        ws.member.get(&ws.path(path)).await.problem(403, "forbidden");
    }
    let asked = async |permission: &str| decided(&ws.member, ws, &json!({ "permission": permission })).await;
    assert_eq!(asked("agent:invoke").await, json!(["allowed", "agent:invoke", "allow", source, "member"]));
    assert_eq!(asked("workspace:list").await, json!(["denied", "workspace:list", "deny", source, "member"]));
    assert_eq!(asked("session:read").await, json!(["unlisted", null, null, source, "member"]));
}

#[tokio::test]
async fn the_guides_config_holds_when_a_workspace_says_it() {
    let ws = Workspace::local().await;
    let before = decided(&ws.member, &ws, &json!({ "permission": "agent:read" })).await;
    assert_eq!(before, json!(["allowed", "agent:read", "allow", "default", "member"]));
    let shown = put_yaml(&ws, "member", guide::GRANTS_CONFIG).await.ok(200);
    let rules = json!({
        "role": "member", "source": "workspace",
        "allow": ["memory:read", "memory:write", "agent:invoke"], "deny": ["memory:cross-workspace-read", "workspace:list"],
    });
    assert_eq!(shown, rules);
    assert_eq!(ws.owner.get(&ws.path("/roles/member")).await.ok(200), rules);
    assert_the_guides_member(&ws, "workspace").await;
    // Not for others, and not for another workspace.
    ws.owner.get(&ws.path("/agents")).await.ok(200);
    let other = Workspace::local().await;
    other.member.get(&other.path("/agents")).await.ok(200);
    // Taken back, it is as it was.
    let _ = ws.owner.delete(&ws.path("/roles/member")).await.expect(204);
    ws.owner.delete(&ws.path("/roles/member")).await.problem(404, "not_found");
    ws.member.get(&ws.path("/agents")).await.ok(200);
    let after = decided(&ws.member, &ws, &json!({ "permission": "agent:read" })).await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn the_guides_two_documents_in_one_file_are_a_plans_template() {
    let ws = Workspace::named(&unique("t"), &json!({})).await;
    let yaml = format!("{}{}", guide::ASTRA_YML, guide::GRANTS_CONFIG);
    ws.try_put_template(&yaml).await.ok(200);
    let path = format!("/plans/{}/template", ws.plan);
    let shown = ws.operator.get(&path).await.ok(200);
    assert_eq!(shown["agents"][0]["id"], "assistant");
    let rules =
        json!({ "allow": ["memory:read", "memory:write", "agent:invoke"], "deny": ["memory:cross-workspace-read", "workspace:list"] });
    assert_eq!(shown["roles"], json!({ "member": rules }));
    let sent = ws.operator.request(Method::GET, &path).header("accept", "application/yaml").send().await;
    assert_eq!(String::from_utf8_lossy(&sent.body), yaml);
    // The same rules, beside an agent that needs no key.
    let local = template::of(&[template::local("assistant")]);
    let config: Value = json!({ "workspace": { "grants": [{ "role": "member", "allow": rules["allow"], "deny": rules["deny"] }] } });
    let both = json!({ "agents": serde_json::from_str::<Value>(&local).unwrap()["agents"], "workspace": config["workspace"] });
    ws.try_put_template(&both.to_string()).await.ok(200);
    assert_the_guides_member(&ws, "template").await;
    // What the workspace says comes first; taken back, the template says it again.
    put(&ws.owner, &ws, "member", &json!({ "allow": ["agent:read"] })).await.ok(200);
    ws.member.get(&ws.path("/agents")).await.ok(200);
    ws.turn("and now?").await.problem(403, "forbidden");
    let _ = ws.owner.delete(&ws.path("/roles/member")).await.expect(204);
    assert_the_guides_member(&ws, "template").await;
    // A template without it takes it back for all.
    ws.try_put_template(&local).await.ok(200);
    ws.member.get(&ws.path("/agents")).await.ok(200);
    let listed = ws.owner.get(&ws.path("/roles")).await.ok(200);
    let sources: Vec<_> = listed["data"].as_array().unwrap().iter().map(|role| (role["role"].clone(), role["source"].clone())).collect();
    assert_eq!(sources, ["admin", "member", "owner", "viewer"].map(|role| (json!(role), json!("default"))));
}

#[tokio::test]
async fn a_template_whose_rules_do_not_fit_is_refused() {
    let ws = Workspace::local().await;
    let agents = template::of(&[template::local("assistant")]);
    for (grants, named) in [
        (json!([{ "role": "member", "allow": ["memory:fly"] }]), "/workspace/grants/0/allow/0"),
        (json!([{ "role": "member", "allow": [] }, { "role": "member", "allow": [] }]), "/workspace/grants/1/role"),
        (json!([{ "role": "owner", "allow": ["agent:*"] }]), "/workspace/grants/0/allow"),
        (json!([{ "role": "operator", "allow": [] }]), "/workspace/grants/0/role"),
    ] {
        let mut both: Value = serde_json::from_str(&agents).unwrap();
        both["workspace"] = json!({ "grants": grants });
        let problem = ws.try_put_template(&both.to_string()).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], named);
    }
}

#[tokio::test]
async fn a_role_of_the_workspaces_own_is_given_and_holds_at_once() {
    let ws = Workspace::local().await;
    ws.owner.put(&ws.path("/members/anna"), &json!({ "role": "support" })).await.problem(422, "unprocessable");
    put(&ws.owner, &ws, "support", &json!({ "allow": ["session:*", "agent:read"], "deny": ["session:read-all"] })).await.ok(200);
    ws.owner.put(&ws.path("/members/anna"), &json!({ "role": "support" })).await.ok(200);
    let anna = ws.bearer("anna", "support");
    anna.get(&ws.path("/agents")).await.ok(200);
    anna.get(&ws.path("/sessions")).await.ok(200);
    let turn = async || anna.post(&ws.path("/turns"), &Workspace::turn_body("may I?")).await;
    turn().await.problem(403, "forbidden");
    anna.get(&ws.path("/secrets")).await.problem(403, "forbidden");
    let asked = async |permission: &str| decided(&ws.owner, &ws, &json!({ "permission": permission, "subject": "anna" })).await;
    assert_eq!(asked("session:read").await, json!(["allowed", "session:*", "allow", "workspace", "support"]));
    assert_eq!(
        asked("session:read-all").await,
        json!(["denied", "session:read-all", "deny", "workspace", "support"]),
        "deny beats the wildcard"
    );
    assert_eq!(asked("agent:invoke").await, json!(["unlisted", null, null, "workspace", "support"]));
    // A changed role holds for who has it, with the token that they have, and so does one that is narrowed again.
    put(&ws.owner, &ws, "support", &json!({ "allow": ["agent:*"], "deny": ["agent:write"] })).await.ok(200);
    turn().await.ok(200);
    anna.get(&ws.path("/sessions")).await.problem(403, "forbidden");
    put(&ws.owner, &ws, "support", &json!({ "allow": ["agent:*"], "deny": ["agent:invoke"] })).await.ok(200);
    turn().await.problem(403, "forbidden");
    anna.get(&ws.path("/agents")).await.ok(200);
    // While somebody has it, it stays.
    ws.owner.delete(&ws.path("/roles/support")).await.problem(409, "conflict");
    ws.owner.put(&ws.path("/members/anna"), &json!({ "role": "viewer" })).await.ok(200);
    let _ = ws.owner.delete(&ws.path("/roles/support")).await.expect(204);
    ws.owner.get(&ws.path("/roles/support")).await.problem(404, "not_found");
    let of_role = ws.owner.post(&ws.path("/authorize"), &json!({ "permission": "agent:read", "role": "support" })).await;
    of_role.problem(422, "unprocessable");
}

#[tokio::test]
async fn nobody_gives_a_role_more_than_they_have() {
    let ws = Workspace::local().await;
    let admin = ws.user("anna", "admin").await;
    for (who, role, allow) in [
        (&admin, "support", json!(["workspace:delete"])),
        (&admin, "admin", json!(["workspace:*"])),
        (&ws.owner, "support", json!(["memory:*"])),
        (&ws.owner, "owner", json!(["role:write", "member:write", "workspace:list"])),
        (&admin, "owner", json!(["role:write", "member:write"])),
        (&ws.member, "member", json!(["agent:invoke"])),
    ] {
        put(who, &ws, role, &json!({ "allow": allow })).await.problem(403, "forbidden");
    }
    admin.delete(&ws.path("/roles/member")).await.problem(403, "forbidden");
    let roles = ws.owner.get(&ws.path("/roles")).await.ok(200);
    assert!(roles["data"].as_array().unwrap().iter().all(|role| role["source"] == "default"), "{roles}");
    // An admin whose role was narrowed cannot take it back by the default or by another role.
    let narrow = json!({ "allow": ["role:*", "member:*", "agent:read"] });
    put(&ws.owner, &ws, "admin", &narrow).await.ok(200);
    admin.delete(&ws.path("/roles/admin")).await.problem(403, "forbidden");
    put(&admin, &ws, "admin", &json!({ "allow": ["role:*", "secret:write"] })).await.problem(403, "forbidden");
    admin.put(&ws.path("/members/anna"), &json!({ "role": "member" })).await.problem(403, "forbidden");
    put(&admin, &ws, "support", &json!({ "allow": ["agent:read"] })).await.ok(200);
    admin.get(&ws.path("/secrets")).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_workspace_does_not_lock_itself_out() {
    let ws = Workspace::local().await;
    for who in [&ws.owner, &ws.operator] {
        for rules in
            [json!({ "allow": [] }), json!({ "allow": ["role:*"] }), json!({ "allow": ["role:*", "member:*"], "deny": ["role:write"] })]
        {
            put(who, &ws, "owner", &rules).await.problem(422, "unprocessable");
        }
    }
    put(&ws.owner, &ws, "owner", &json!({ "allow": ["role:*", "member:*"] })).await.ok(200);
    ws.owner.get(&ws.path("/agents")).await.problem(403, "forbidden");
    ws.owner.get(&ws.path("/roles/owner")).await.ok(200);
    // More than that is now the operator's to give back.
    ws.owner.delete(&ws.path("/roles/owner")).await.problem(403, "forbidden");
    let _ = ws.operator.delete(&ws.path("/roles/owner")).await.expect(204);
    ws.owner.get(&ws.path("/agents")).await.ok(200);
}

#[tokio::test]
async fn a_decision_is_explained_to_who_may_know_it() {
    let ws = Workspace::local().await;
    let ask = json!({ "permission": "secret:write" });
    assert_eq!(decided(&ws.owner, &ws, &ask).await, json!(["allowed", "secret:write", "allow", "default", "owner"]));
    assert_eq!(decided(&ws.member, &ws, &ask).await, json!(["unlisted", null, null, "default", "member"]));
    let of_role = json!({ "permission": "agent:invoke", "role": "member", "scope": ["memory:*"] });
    assert_eq!(decided(&ws.owner, &ws, &of_role).await, json!(["scope", null, null, "default", "member"]));
    let stranger = json!({ "permission": "agent:invoke", "subject": unique("nobody") });
    assert_eq!(decided(&ws.owner, &ws, &stranger).await, json!(["no_member", null, null, null, null]));
    for other in
        [json!({ "permission": "agent:invoke", "role": "member" }), json!({ "permission": "agent:invoke", "subject": "owner@test" })]
    {
        ws.member.post(&ws.path("/authorize"), &other).await.problem(403, "forbidden");
    }
    ws.owner.post(&ws.path("/authorize"), &json!({ "permission": "memory:*" })).await.problem(422, "unprocessable");
    // A token for a browser may ask what it may do, and hears of its scope.
    let chat = json!({ "subject": "guest-1", "role": "member", "scope": ["agent:invoke"], "expiresInSeconds": 60 });
    let issued = ws.owner.post(&ws.path("/tokens"), &chat).await.ok(201);
    let guest = ws.operator.with_token(issued["token"].as_str().unwrap());
    assert_eq!(decided(&guest, &ws, &json!({ "permission": "agent:invoke" })).await[0], "allowed");
    assert_eq!(decided(&guest, &ws, &json!({ "permission": "agent:read" })).await[0], "scope");
    // Who is no member any more is told nothing.
    let _ = ws.owner.delete(&ws.path("/members/guest-1")).await.expect(204);
    guest.post(&ws.path("/authorize"), &json!({ "permission": "agent:invoke" })).await.problem(403, "forbidden");
    ws.operator.post("/workspaces/no-such-workspace-here/authorize", &ask).await.problem(404, "not_found");
}

#[tokio::test]
async fn who_may_not_make_members_issues_no_token_to_a_stranger() {
    let ws = Workspace::local().await;
    put(&ws.owner, &ws, "issuer", &json!({ "allow": ["token:issue", "agent:read", "role:read"] })).await.ok(200);
    let anna = ws.user("anna", "issuer").await;
    let issue = async |subject: &str| anna.post(&ws.path("/tokens"), &json!({ "subject": subject, "role": "issuer" })).await;
    issue("stranger").await.problem(403, "forbidden");
    issue("anna").await.ok(201);
    let members = ws.owner.get(&ws.path("/members")).await.ok(200);
    assert!(!members.to_string().contains("stranger"), "{members}");
}
