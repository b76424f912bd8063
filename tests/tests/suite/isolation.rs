//! Two workspaces that cannot see each other, by any route and any id.
//!
//! The routes are taken from `/openapi.json`: a new one is covered the moment it is described, and one whose body is not known here fails the test.

use astra_tests::openapi::{self, Operation};
use astra_tests::workspace::unique;
use astra_tests::{Api, Db, Reply, Workspace, proof, template};
use serde_json::{Value, json};

/// Words that stand in B's data and nowhere else.
const OURS: &str = "plum-pudding-of-b";

/// A workspace full of things to find, by the names of path parameters.
struct Full {
    ws: Workspace,
    ids: Vec<(&'static str, String)>,
}

impl Full {
    async fn new() -> Self {
        let ws = Workspace::local().await;
        ws.no_extraction().await;
        let _ = ws.operator.patch(&ws.path(""), &json!({ "displayName": OURS })).await.expect(200);
        ws.put_secret("PLUM_KEY", &astra_tests::canary::key()).await;
        let mut agent = template::local("plum");
        agent.as_object_mut().unwrap().remove("id");
        agent["systemPromptTemplate"] = OURS.into();
        assert!(ws.owner.put(&ws.path("/agents/plum"), &agent).await.status < 300);
        assert!(ws.owner.put(&ws.path("/members/plum-user"), &json!({ "role": "member" })).await.status < 300);
        ws.owner.put(&ws.path("/roles/plum-role"), &json!({ "allow": ["agent:read"] })).await.ok(200);
        ws.owner.post(&ws.path("/memories"), &json!({ "kind": "fact", "content": OURS })).await.ok(201);
        crate::knowledge::upload(&ws.owner, &ws, "plum-book", OURS).await;
        ws.owner.put(&ws.path("/webhooks/plum-hook"), &json!({ "url": format!("https://hooks.example.com/{OURS}") })).await.ok(201);
        let answer = ws.turn(OURS).await.ok(200);
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        let ids = vec![
            ("session", text("sessionId")),
            ("turn", text("turnId")),
            ("agent", "plum".to_owned()),
            ("secret", "PLUM_KEY".to_owned()),
            ("name", "PLUM_KEY".to_owned()),
            ("user", "plum-user".to_owned()),
            ("member", "plum-user".to_owned()),
            ("jti", "a-token-of-somebody".to_owned()),
            ("grant", "0199c0de-0000-7000-8000-000000000000".to_owned()),
            ("role", "viewer".to_owned()),
            ("memory", "0199c0de-0000-7000-8000-000000000001".to_owned()),
            ("slug", "plum-book".to_owned()),
            ("job", "0199c0de-0000-7000-8000-000000000002".to_owned()),
            ("webhook", "plum-hook".to_owned()),
            ("delivery", "0199c0de-0000-7000-8000-000000000003".to_owned()),
            ("invoice", "INV-000001".to_owned()),
            ("role", "plum-role".to_owned()),
        ];
        Self { ws, ids }
    }

    /// All that the administrator sees of it.
    async fn snapshot(&self) -> Value {
        let (db, id) = (Db::connect().await, self.ws.id.as_str());
        let rows = async |sql: &str| db.rows(sql, &[id]).await;
        json!([
            rows("SELECT * FROM workspaces WHERE id = $1").await,
            rows("SELECT * FROM members WHERE workspace_id = $1 ORDER BY user_id").await,
            rows("SELECT * FROM roles WHERE workspace_id = $1 ORDER BY name").await,
            rows("SELECT * FROM secrets WHERE workspace_id = $1 ORDER BY name").await,
            rows("SELECT * FROM agents WHERE workspace_id = $1 ORDER BY id").await,
            rows("SELECT * FROM sessions WHERE workspace_id = $1 ORDER BY id").await,
            rows("SELECT * FROM messages WHERE workspace_id = $1 ORDER BY session_id, seq").await,
            rows("SELECT * FROM turns WHERE workspace_id = $1 ORDER BY id").await,
            rows("SELECT * FROM ledger WHERE workspace_id = $1 ORDER BY seq").await,
            // Its own turn has had its index of words made, after the answer. What changes an index is compared below.
            rows("SELECT * FROM jobs WHERE workspace_id = $1 AND kind <> 'words' ORDER BY id").await,
            rows("SELECT * FROM webhooks WHERE workspace_id = $1 ORDER BY name").await,
            rows("SELECT * FROM webhook_deliveries WHERE workspace_id = $1 ORDER BY id").await,
            db.rows(&format!("SELECT id, kind, content, user_id FROM \"mem_{id}\".memories ORDER BY id"), &[]).await,
            db.rows(&format!("SELECT d.id, d.slug, d.version, b.body, d.status FROM \"mem_{id}\".documents d LEFT JOIN \"mem_{id}\".bodies b USING (id) ORDER BY d.id, b.part"), &[]).await,
            db.rows(&format!("SELECT id, position, content FROM \"mem_{id}\".chunks ORDER BY id"), &[]).await,
        ])
    }

    /// A described path with this workspace's ids in it, or with another workspace's.
    fn path(&self, described: &str, workspace: &str) -> String {
        let mut segments = Vec::new();
        for (n, segment) in described.split('/').enumerate() {
            let parameter = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
            segments.push(match parameter {
                None => segment.to_owned(),
                Some(_) if n == 2 => workspace.to_owned(),
                Some(name) => self.value(name),
            });
        }
        segments.join("/")
    }

    fn value(&self, parameter: &str) -> String {
        let known = self.ids.iter().find(|(word, _)| parameter.to_lowercase().contains(word));
        known.unwrap_or_else(|| panic!("the path parameter {parameter} is new: give it a value in this test")).1.clone()
    }
}

/// A body that each operation would take. A new operation with a body has to be added.
fn body(operation: &Operation) -> Option<Value> {
    operation.description.get("requestBody")?;
    let tail = operation.path.split('/').skip(3).collect::<Vec<_>>().join("/");
    let mut agent = template::local("x");
    agent.as_object_mut().unwrap().remove("id");
    Some(match (operation.method.as_str(), tail.split('/').next().unwrap_or_default(), tail.matches('/').count()) {
        ("PATCH", "", 0) => json!({ "displayName": "taken over" }),
        ("PUT", "members", _) => json!({ "role": "owner" }),
        ("POST", "tokens", _) => json!({ "subject": "eve", "role": "viewer" }),
        ("PUT", "secrets", _) => json!({ "value": "x" }),
        ("PUT", "agents", _) => agent,
        ("POST", "grants", 0) => json!({ "receivingWorkspaceId": "nobody-at-all", "agentId": "plum" }),
        ("POST", "turns", 0) => json!({ "agentId": "plum", "message": "hello" }),
        ("POST", "smoke-test", _) => json!({ "agentId": "plum" }),
        ("PUT", "roles", _) => json!({ "allow": ["workspace:read"] }),
        ("POST", "memories", 0) => json!({ "kind": "note", "content": "hello" }),
        ("POST", "memories" | "documents", 1) => json!({ "query": OURS }),
        ("PUT", "documents", _) | ("POST", "memory", 2) => json!({}),
        ("POST", "ledger", _) if tail.ends_with("credits") => json!({ "amountNanoUsd": 1, "reason": "mine" }),
        ("POST", "ledger", _) => json!({ "turnId": "0199c0de-0000-7000-8000-000000000003", "reason": "mine", "costNanoUsd": 0 }),
        ("PUT", "webhooks", 1) => json!({ "url": "https://hooks.example.com/x" }),
        ("PUT", "memory", _) => json!({ "embedder": { "provider": "local", "dimensions": 384 } }),
        ("POST", "authorize", _) => json!({ "permission": "workspace:read" }),
        _ => panic!("{} {} takes a body that this test does not know: add it here", operation.method, operation.path),
    })
}

async fn call(api: &Api, operation: &Operation, path: &str) -> Reply {
    let request = api.request(operation.method.clone(), path);
    match body(operation) {
        Some(body) => request.json(&body).send().await,
        None => request.send().await,
    }
}

/// An answer without what names the request: what a caller could tell two of them apart by.
fn face(reply: &Reply, ids: &[&str]) -> String {
    let mut text = format!("{} {} {}", reply.status, reply.header("content-type"), String::from_utf8_lossy(&reply.body));
    text = text.replace(reply.header("x-request-id"), "REQUEST");
    for id in ids {
        text = text.replace(id, "ID");
    }
    text
}

async fn workspace_operations() -> Vec<Operation> {
    let mut operations = openapi::operations().await;
    operations.retain(|operation| operation.path.starts_with("/workspaces/{"));
    assert!(operations.len() >= 15, "the description has the workspace's routes: {operations:#?}");
    operations
}

#[tokio::test]
async fn no_route_shows_another_workspace_or_that_it_exists() {
    let (a, b) = (Full::new().await, Full::new().await);
    let before = b.snapshot().await;
    let nowhere = unique("t");
    for role in ["viewer", "member", "admin", "owner"] {
        let caller = a.ws.user("eve", role).await;
        for operation in workspace_operations().await {
            let what = format!("{role}: {} {}", operation.method, operation.path);
            let reply = call(&caller, &operation, &b.path(&operation.path, &b.ws.id)).await;
            assert!([403, 404].contains(&reply.status), "{what}: {reply:?}");
            let seen = String::from_utf8_lossy(&reply.body).into_owned();
            assert!(!seen.contains(OURS), "{what}: {reply:?}");
            let missing = call(&caller, &operation, &b.path(&operation.path, &nowhere)).await;
            assert_eq!(face(&reply, &[&b.ws.id]), face(&missing, &[&nowhere]), "{what}: existing and not existing look the same");
        }
    }
    assert_eq!(b.snapshot().await, before, "nothing of B was changed");
}

#[tokio::test]
async fn kf26_an_id_of_another_workspace_is_no_id_here() {
    let (a, b) = (Full::new().await, Full::new().await);
    let before = b.snapshot().await;
    for operation in workspace_operations().await {
        let deep = operation.path.split('/').skip(3).any(|segment| segment.starts_with('{'));
        // Names that a caller chooses are free in each workspace; ids that the product gives are looked up.
        if !deep || !["session", "turn"].iter().any(|word| operation.path.to_lowercase().contains(&format!("{{{word}"))) {
            continue;
        }
        let what = format!("{} {}", operation.method, operation.path);
        let reply = call(&a.ws.owner, &operation, &b.path(&operation.path, &a.ws.id)).await;
        assert_eq!(reply.status, 404, "{what}: {reply:?}");
        let mut unknown = Full { ws: a.ws.clone(), ids: b.ids.clone() };
        unknown.ids[0].1 = uuid::Uuid::new_v4().to_string();
        unknown.ids[1].1 = uuid::Uuid::new_v4().to_string();
        let missing = call(&a.ws.owner, &operation, &unknown.path(&operation.path, &a.ws.id)).await;
        let ids = [b.ids[0].1.as_str(), b.ids[1].1.as_str(), unknown.ids[0].1.as_str(), unknown.ids[1].1.as_str()];
        assert_eq!(face(&reply, &ids), face(&missing, &ids), "{what}");
    }
    let mut turn = Workspace::turn_body("whose session?");
    turn["sessionId"] = b.ids[0].1.as_str().into();
    a.ws.member.post(&a.ws.path("/turns"), &turn).await.problem(404, "not_found");
    assert_eq!(b.snapshot().await, before);
}

#[tokio::test]
async fn kf27_the_workspace_is_never_taken_from_the_body() {
    let (a, b) = (Full::new().await, Full::new().await);
    let before = b.snapshot().await;
    for field in ["workspaceId", "workspace", "ws", "workspace_id", "tenantId"] {
        let mut turn = Workspace::turn_body("mine or theirs?");
        turn[field] = b.ws.id.as_str().into();
        a.ws.member.post(&a.ws.path("/turns"), &turn).await.problem(422, "unprocessable");
        let mut token = json!({ "subject": "eve", "role": "viewer" });
        token[field] = b.ws.id.as_str().into();
        a.ws.owner.post(&a.ws.path("/tokens"), &token).await.problem(422, "unprocessable");
        let patch = json!({ "displayName": "x", field: b.ws.id });
        a.ws.owner.patch(&a.ws.path(""), &patch).await.problem(422, "unprocessable");
        for header in ["x-workspace-id", "x-astra-workspace"] {
            let reply = a.ws.owner.request(http::Method::GET, &a.ws.path("")).header(header, &b.ws.id).send().await.ok(200);
            assert_eq!(reply["id"], a.ws.id.as_str());
        }
    }
    // A create under B's name by A's owner is refused before it is looked at.
    let body = json!({ "id": b.ws.id, "displayName": OURS, "plan": b.ws.plan, "ownerId": "owner@test" });
    a.ws.owner.post("/workspaces", &body).await.problem(403, "forbidden");
    assert_eq!(b.snapshot().await, before);
}

#[tokio::test]
async fn kf28_one_workspaces_name_may_begin_like_anothers() {
    let short = Workspace::named(&unique("t"), &json!({})).await;
    let long = Workspace::named(&format!("{}-b", short.id), &json!({})).await;
    for ws in [&short, &long] {
        ws.put_template(&[template::local("assistant")]).await;
    }
    long.put_secret("PLUM_KEY", "x").await;
    long.turn(OURS).await.ok(200);
    for path in ["/sessions", "/secrets", "/sessions?after=", "/secrets?after=", "/members?after="] {
        let reply = short.owner.get(&short.path(path)).await;
        assert!(!String::from_utf8_lossy(&reply.body).contains("PLUM") && reply.status < 500, "{path}: {reply:?}");
    }
    assert_eq!(short.owner.get(&short.path("/sessions")).await.ok(200)["data"], json!([]));
    assert_eq!(short.owner.get(&short.path("/usage")).await.ok(200)["totalTokens"], 0);
    short.owner.get(&long.path("")).await.problem(403, "forbidden");
    long.owner.get(&short.path("")).await.problem(403, "forbidden");
    for path in [
        "/workspaces/",
        "/workspaces//sessions",
        "/workspaces/%20/sessions",
        "/workspaces/*/sessions",
        "/workspaces/%25/sessions",
        "/workspaces/_/sessions",
    ] {
        let reply = short.owner.request(http::Method::GET, path).undocumented().send().await;
        assert!([400, 403, 404].contains(&reply.status), "{path}: {reply:?}");
    }
}

#[tokio::test]
async fn kf30_no_filter_of_the_clients_widens_what_it_sees() {
    let (a, b) = (Full::new().await, Full::new().await);
    let lists: Vec<_> =
        workspace_operations().await.into_iter().filter(|o| o.method == http::Method::GET && o.path.matches('{').count() == 1).collect();
    for operation in lists {
        for filter in ["workspaceId", "workspace", "ws", "userId", "filter", "prefix", "after"] {
            for value in [b.ws.id.as_str(), "*", "%25", "", "' OR '1'='1"] {
                let value = value.replace(' ', "%20");
                let path = format!("{}?{filter}={value}", a.path(&operation.path, &a.ws.id));
                let reply = a.ws.member.request(http::Method::GET, &path).send().await;
                let seen = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(reply.status < 500, "{reply:?}");
                for (_, id) in b.ids.iter().take(2) {
                    assert!(!seen.contains(id.as_str()), "{reply:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn kf29_a_tenants_setting_does_not_stay_on_the_pooled_connection() {
    // As an app role, on one connection: a call for A, then a read without a tenant. And the control that must leak, so that the test can fail.
    let (a, db) = (Workspace::local().await, Db::connect().await);
    a.turn("leave a trace").await.ok(200);
    db.run("SET ROLE astra_billing").await;
    let count = "SELECT count(*) FROM turns";
    let arg = json!({ "month": &astra_tests::guide::this_month().await }).to_string();
    let call = format!("SELECT astra.usage(astra.enter('{}'), '{arg}')", proof::of(&a.id));
    let seen = db.as_printed(&call).await;
    assert!(seen[0][0].1.as_ref().is_some_and(|text| text.contains(&a.id)), "{seen:?}");
    assert_eq!(db.number(count, &[]).await, 0, "after the call nothing of A is to be seen");
    db.run(&format!("SELECT set_config('astra.proof', '{}', false)", proof::of(&a.id))).await;
    assert_eq!(db.number(count, &[]).await, 1, "the control: a setting of the session would leak");
}
