//! Workspaces: made once, changed with care, deleted whole.

use astra_tests::workspace::unique;
use astra_tests::{Api, Db, Workspace, guide, template};
use http::Method;
use serde_json::{Value, json};

async fn create(body: &str) -> astra_tests::Reply {
    Api::operator().request(Method::POST, "/workspaces").body("application/json", body.to_owned()).send().await
}

#[tokio::test]
async fn creating_twice_with_the_same_body_gives_the_same_workspace() {
    let (id, plan) = (unique("t"), unique("plan"));
    let body = guide::workspace_body(&id, &plan);
    let first = create(&body).await.ok(201);
    assert_eq!(create(&body).await.ok(200), first);
}

#[tokio::test]
async fn neither_key_order_nor_the_way_a_number_is_written_makes_another_body() {
    let (id, plan) = (unique("t"), unique("plan"));
    let first = create(&guide::workspace_body(&id, &plan)).await.ok(201);
    for limit in ["50", "50.0", "50.000000000", "5e1", "5.0E+1"] {
        let body = format!(
            r#"{{"ownerId":"user_acme_admin","limits":{{"maxCostUsdPerMonth":{limit},"maxTokensPerMonth":5000000,"maxAgents":10}},"plan":"{plan}","displayName":"ACME Corp","id":"{id}"}}"#
        );
        assert_eq!(create(&body).await.ok(200)["createdAt"], first["createdAt"], "{body}");
    }
}

#[tokio::test]
async fn another_body_under_a_known_id_is_a_conflict() {
    let (id, plan) = (unique("t"), unique("plan"));
    let body = guide::workspace_body(&id, &plan);
    create(&body).await.ok(201);
    for (from, to) in [("50.00", "50.01"), ("ACME Corp", "ACME"), ("user_acme_admin", "user_other"), ("\"maxAgents\": 10,", "")] {
        create(&body.replace(from, to)).await.problem(409, "conflict");
    }
    assert_eq!(create(&body).await.ok(200)["displayName"], "ACME Corp", "a conflict changes nothing");
}

#[tokio::test]
async fn creating_at_the_same_moment_makes_one_workspace() {
    let body = guide::workspace_body(&unique("t"), &unique("plan"));
    let replies = futures_util::future::join_all((0..8).map(|_| create(&body))).await;
    let mut statuses: Vec<_> = replies.iter().map(|r| r.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201], "{replies:?}");
}

#[tokio::test]
async fn an_unknown_or_missing_or_misfit_field_is_refused_by_name() {
    let good: Value = serde_json::from_str(&guide::workspace_body(&unique("t"), "p")).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        body.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        body
    };
    let cases = [
        (with("/color", json!("red")), "/color"),
        (with("/limits/maxAgentz", json!(1)), "/limits/maxAgentz"),
        (with("/limits/maxAgents", json!(-1)), "/limits/maxAgents"),
        (with("/limits/maxAgents", json!("10")), "/limits/maxAgents"),
        (with("/limits/maxTokensPerMonth", json!(1.5)), "/limits/maxTokensPerMonth"),
        (with("/limits/maxCostUsdPerMonth", json!(-1)), "/limits/maxCostUsdPerMonth"),
        (with("/limits/maxCostUsdPerMonth", json!("50")), "/limits/maxCostUsdPerMonth"),
        (with("/id", json!("No Such Form")), "/id"),
        (with("/id", json!("")), "/id"),
    ];
    for (body, pointer) in cases {
        let problem = Api::operator().post("/workspaces", &body).await.problem(422, "unprocessable");
        let pointers: Vec<_> = problem["errors"].as_array().into_iter().flatten().map(|e| e["pointer"].clone()).collect();
        assert_eq!(pointers, [json!(pointer)], "{body} -> {problem}");
    }
    let mut missing = good.clone();
    missing.as_object_mut().unwrap().remove("ownerId");
    let problem = Api::operator().post("/workspaces", &missing).await.problem(422, "unprocessable");
    assert!(problem.to_string().contains("ownerId"), "{problem}");
    Api::operator().get(&format!("/workspaces/{}", good["id"].as_str().unwrap())).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_null_removes_a_limit() {
    let ws = Workspace::named(&unique("t"), &json!({ "maxAgents": 3, "maxTokensPerMonth": 1000 })).await;
    let changed = ws.patch_limits(&json!({ "maxAgents": null, "maxCostUsdPerMonth": 0.25 })).await;
    let expected = json!({ "maxTokensPerMonth": 1000, "maxCostUsdPerMonth": 0.25 });
    assert_eq!(without_nulls(&changed["limits"]), expected, "{changed}");
    let read = ws.owner.get(&ws.path("")).await.ok(200);
    assert_eq!(read, changed);
    assert!(read["updatedAt"].as_str() >= read["createdAt"].as_str());
    let renamed = ws.operator.patch(&ws.path(""), &json!({ "displayName": "New Name" })).await.ok(200);
    assert_eq!(renamed["displayName"], "New Name");
    assert_eq!(without_nulls(&renamed["limits"]), expected, "limits stay");
    let problem = ws.operator.patch(&ws.path(""), &json!({ "limits": { "maxAgentz": 1 } })).await.problem(422, "unprocessable");
    assert_eq!(problem["errors"][0]["pointer"], "/limits/maxAgentz", "{problem}");
}

fn without_nulls(limits: &Value) -> Value {
    limits
        .as_object()
        .expect("limits are an object")
        .iter()
        .filter(|(name, v)| !v.is_null() && !name.contains("Nano"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[tokio::test]
async fn a_budget_is_the_operators_to_change() {
    let ws = Workspace::named(&unique("t"), &json!({ "maxAgents": 3 })).await;
    for who in [&ws.owner, &ws.user("a", "admin").await, &ws.member, &ws.user("v", "viewer").await] {
        who.patch(&ws.path(""), &json!({ "limits": { "maxAgents": 99 } })).await.problem(403, "forbidden");
        who.patch(&ws.path(""), &json!({ "plan": "enterprise" })).await.problem(403, "forbidden");
    }
    assert_eq!(ws.owner.get(&ws.path("")).await.ok(200)["limits"]["maxAgents"], 3);
}

#[tokio::test]
async fn deleting_removes_everything_but_the_bill_and_the_audit_log() {
    let ws = Workspace::local().await;
    ws.put_secret("OPENAI_API_KEY", &astra_tests::canary::key()).await;
    let _ = ws.owner.put(&ws.path("/agents/extra"), &agent_body("extra")).await;
    ws.turn("soon gone").await.ok(200);
    let db = Db::connect().await;
    assert_eq!(db.ledger(&ws.id).await.len(), 1);
    let said = ws.operator.delete(&ws.path("")).await.ok(200);
    assert_eq!(
        said["removed"],
        json!({ "members": 2, "roles": 0, "agents": 1, "secrets": 1, "sessions": 1, "messages": 2, "turns": 1, "memories": 0, "grants": 0 })
    );
    assert_eq!((&said["workspaceId"], &said["kept"]), (&json!(ws.id), &json!({ "ledgerEntries": 1 })));
    let entry = &db.ledger(&ws.id).await[0];
    assert_eq!(entry["user_id"], "", "the bill's record stays, without who asked: {entry}");

    // Found in the catalogue, so that a table that comes later is looked at too.
    let tables = "SELECT table_name AS name, column_name AS col FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'workspace_id'";
    let tables = db.rows(tables, &[]).await;
    assert!(tables.len() >= 8, "{tables:?}");
    for table in tables {
        let name = table["name"].as_str().unwrap();
        let left = db.number(&format!("SELECT count(*) FROM public.{name} WHERE workspace_id = $1"), &[&ws.id]).await;
        let stays = ["ledger", "ledger_heads", "invoice_heads", "audit_log", "audit_heads"].contains(&name);
        assert!(if name == "audit_log" { left > 1 } else { left == i64::from(stays) }, "{left} rows left in {name}");
    }
    assert_eq!(db.number("SELECT count(*) FROM workspaces WHERE id = $1", &[&ws.id]).await, 0);
    assert_eq!(db.number("SELECT count(*) FROM pg_namespace WHERE nspname = 'mem_' || $1", &[&ws.id]).await, 0);

    ws.operator.delete(&ws.path("")).await.problem(404, "not_found");
    ws.operator.get(&ws.path("")).await.problem(404, "not_found");
    // A token that outlives its workspace gets nothing.
    let turn = ws.turn("are you there?").await;
    assert!([403, 404].contains(&turn.status), "{turn:?}");
}

/// All lines of an export, read in pages of so many.
pub(crate) async fn exported(ws: &Workspace, limit: u32) -> Vec<Value> {
    let (mut lines, mut after) = (Vec::new(), String::new());
    loop {
        let page = ws.owner.get(&ws.path(&format!("/export?limit={limit}{after}"))).await.expect(200);
        assert_eq!(page.header("content-type"), "application/x-ndjson");
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"))));
        match page.header("next-cursor") {
            "" => return lines,
            next => after = format!("&after={next}"),
        }
    }
}

#[tokio::test]
async fn an_export_is_all_of_a_workspace_and_nothing_of_another() {
    let (ws, other) = (Workspace::local().await, Workspace::local().await);
    // Nothing changes while it is read.
    ws.no_extraction().await;
    let key = astra_tests::canary::key();
    ws.put_secret("OPENAI_API_KEY", &key).await;
    let _ = ws.owner.put(&ws.path("/agents/extra"), &agent_body("extra")).await.expect(200);
    ws.user("ärger & söhne", "viewer").await;
    for n in 0..3 {
        ws.turn(&format!("to take along {n}")).await.ok(200);
    }
    other.turn("not yours").await.ok(200);
    let settings = json!({ "embedder": { "provider": "local", "dimensions": 384 }, "fade": { "weight": 0.5, "halfLifeDays": 30 } });
    ws.operator.put(&ws.path("/memory/settings"), &settings).await.ok(200);
    let hook = ws.owner.put(&ws.path("/webhooks/mine"), &json!({ "url": "https://hooks.example.com/astra" })).await.ok(201);
    let lines = exported(&ws, 1000).await;
    for limit in [1, 2, 7] {
        assert_eq!(exported(&ws, limit).await, lines, "in pages of {limit}");
    }
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    let counts = ["workspace", "member", "role", "agent", "secret", "session", "message", "turn", "ledgerEntry", "grant"].map(of);
    assert_eq!(counts, [1, 3, 0, 1, 1, 3, 6, 3, 3, 0], "{lines:#?}");
    let one = |kind: &str| lines.iter().find(|line| line["type"] == kind).unwrap();
    assert_eq!((of("webhook"), &one("webhook")["url"]), (1, &json!("https://hooks.example.com/astra")));
    assert_eq!((of("memorySettings"), &one("memorySettings")["fade"]["halfLifeDays"]), (1, &json!(30.0)));
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains(hook["secret"].as_str().unwrap()) && !text.contains("ciphertext"));
    assert!(text.contains("to take along 2") && !text.contains(&key) && !text.contains(&other.id) && !text.contains("not yours"));
    for who in [&ws.member, &ws.operator, &ws.user("ad", "admin").await, &other.owner] {
        who.get(&ws.path("/export")).await.problem(403, "forbidden");
    }
    for bad in ["limit=0", "limit=1001", "after=zz", "after=392078", "after=36206e6f2d75756964", "color=red"] {
        ws.owner.get(&ws.path(&format!("/export?{bad}"))).await.problem(422, "unprocessable");
    }
}

fn agent_body(id: &str) -> Value {
    let mut agent = template::local(id);
    agent.as_object_mut().unwrap().remove("id");
    agent
}

#[tokio::test]
async fn a_workspace_made_again_under_its_old_name_starts_clean() {
    let ws = Workspace::local().await;
    ws.turn("first life").await.ok(200);
    let _ = ws.operator.delete(&ws.path("")).await.expect(200);
    let again = Workspace::named(&ws.id, &json!({})).await;
    again.put_template(&[template::local("assistant")]).await;
    let sessions = again.owner.get(&again.path("/sessions")).await.ok(200);
    assert_eq!(sessions["data"], json!([]));
    again.turn("second life").await.ok(200);
    assert_eq!(Db::connect().await.ledger(&ws.id).await.len(), 2, "the ledger goes on where it was");
}

#[tokio::test]
async fn the_operator_lists_workspaces_page_by_page_and_nobody_else_does() {
    // An order of their own: ids sort together under a common prefix.
    let prefix = unique("list");
    for n in 0..3 {
        Workspace::named(&format!("{prefix}-{n}"), &json!({})).await;
    }
    let mut after = prefix.clone();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let page = Api::operator().get(&format!("/workspaces?limit=1&after={after}")).await.ok(200);
        assert_eq!(page["data"].as_array().unwrap().len(), 1, "{page}");
        seen.push(page["data"][0]["id"].as_str().unwrap().to_owned());
        after = page["nextCursor"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(seen, [format!("{prefix}-0"), format!("{prefix}-1"), format!("{prefix}-2")]);
    let ws = Workspace::named(&unique("t"), &json!({})).await;
    for who in [&ws.owner, &ws.user("a", "admin").await, &ws.member, &ws.user("v", "viewer").await] {
        who.get("/workspaces").await.problem(403, "forbidden");
        who.post("/workspaces", &json!({ "id": unique("t"), "displayName": "x", "plan": "p", "ownerId": "o" }))
            .await
            .problem(403, "forbidden");
    }
}
