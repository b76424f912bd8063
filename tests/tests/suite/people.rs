//! Members, their tokens, and secrets.

use astra_tests::{Db, Workspace, canary, wait};
use serde_json::{Value, json};
use std::time::Duration;

fn names(list: &Value, key: &str) -> Vec<String> {
    list["data"].as_array().expect("data").iter().map(|row| row[key].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn members_come_change_role_and_go() {
    let ws = Workspace::local().await;
    let members = ws.path("/members");
    assert_eq!(names(&ws.owner.get(&members).await.ok(200), "userId"), ["member@test", "owner@test"]);
    for role in ["member", "admin"] {
        let put = ws.owner.put(&format!("{members}/anna"), &json!({ "role": role })).await;
        assert!([200, 201, 204].contains(&put.status), "{put:?}");
        let list = ws.owner.get(&members).await.ok(200);
        let anna = list["data"].as_array().unwrap().iter().find(|m| m["userId"] == "anna").expect("anna is a member");
        assert_eq!(anna["role"], role);
    }
    let _ = ws.owner.delete(&format!("{members}/anna")).await.expect(204);
    ws.owner.delete(&format!("{members}/anna")).await.problem(404, "not_found");
    ws.owner.put(&format!("{members}/anna"), &json!({ "role": "operator" })).await.problem(422, "unprocessable");
    ws.owner.put(&format!("{members}/anna"), &json!({ "role": "god" })).await.problem(422, "unprocessable");
    ws.member.put(&format!("{members}/anna"), &json!({ "role": "member" })).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_workspace_keeps_its_last_owner() {
    let ws = Workspace::local().await;
    let owner = ws.path("/members/owner@test");
    ws.operator.delete(&owner).await.problem(409, "conflict");
    ws.operator.put(&owner, &json!({ "role": "member" })).await.problem(409, "conflict");
    assert_eq!(ws.owner.get(&ws.path("/members")).await.ok(200)["data"][1]["role"], "owner");
}

#[tokio::test]
async fn who_is_an_owner_is_not_for_admins_to_say() {
    let ws = Workspace::local().await;
    ws.user("second@test", "owner").await;
    let admin = ws.user("anna", "admin").await;
    for owner in ["owner@test", "second@test"] {
        let path = ws.path(&format!("/members/{owner}"));
        admin.put(&path, &json!({ "role": "member" })).await.problem(403, "forbidden");
        admin.delete(&path).await.problem(403, "forbidden");
    }
    admin.put(&ws.path("/members/anna"), &json!({ "role": "owner" })).await.problem(403, "forbidden");
    let roles: Vec<_> = Db::connect().await.rows("SELECT role FROM members WHERE workspace_id = $1 AND role = 'owner'", &[&ws.id]).await;
    assert_eq!(roles.len(), 2);
    ws.owner.put(&ws.path("/members/second@test"), &json!({ "role": "member" })).await.ok(200);
}

#[tokio::test]
async fn members_page_by_cursor() {
    let ws = Workspace::local().await;
    for n in 0..5 {
        let put = ws.owner.put(&ws.path(&format!("/members/user-{n}")), &json!({ "role": "viewer" })).await;
        assert!(put.status < 300, "{put:?}");
    }
    let (mut seen, mut path) = (Vec::new(), ws.path("/members?limit=2"));
    loop {
        let page = ws.owner.get(&path).await.ok(200);
        seen.extend(names(&page, "userId"));
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = ws.path(&format!("/members?limit=2&after={next}"));
    }
    assert_eq!(seen, ["member@test", "owner@test", "user-0", "user-1", "user-2", "user-3", "user-4"]);
    for bad in ["limit=0", "limit=201", "limit=x", "color=red"] {
        let reply = ws.owner.get(&ws.path(&format!("/members?{bad}"))).await;
        assert!([400, 422].contains(&reply.status), "{bad}: {reply:?}");
    }
}

#[tokio::test]
async fn an_issued_token_works_says_when_it_ends_and_its_scope_only_narrows() {
    let ws = Workspace::local().await;
    let issued = ws.owner.post(&ws.path("/tokens"), &json!({ "subject": "anna", "role": "member" })).await.ok(201);
    assert_eq!(issued["tokenType"], "Bearer");
    assert!(issued["jti"].as_str().is_some_and(|jti| !jti.is_empty()));
    assert!(issued["expiresAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{issued}");
    let anna = ws.operator.with_token(issued["token"].as_str().unwrap());
    anna.post(&ws.path("/turns"), &Workspace::turn_body("hello")).await.ok(200);

    // Narrower than the role: reads, and cannot invoke. Wider than the role: gains nothing.
    let scope =
        json!({ "subject": "anna", "role": "member", "scope": ["agent:read", "member:write", "workspace:delete"], "expiresInSeconds": 60 });
    let narrow = ws.owner.post(&ws.path("/tokens"), &scope).await;
    if narrow.status == 201 {
        let narrow = ws.operator.with_token(narrow.json()["token"].as_str().unwrap());
        narrow.get(&ws.path("/agents")).await.ok(200);
        narrow.post(&ws.path("/turns"), &Workspace::turn_body("hello")).await.problem(403, "forbidden");
        narrow.put(&ws.path("/members/eve"), &json!({ "role": "member" })).await.problem(403, "forbidden");
        narrow.delete(&ws.path("")).await.problem(403, "forbidden");
    } else {
        narrow.problem(422, "unprocessable");
    }
}

#[tokio::test]
async fn what_a_token_lets_one_do_is_what_the_database_says_now() {
    let ws = Workspace::local().await;
    let anna = ws.user("anna", "member").await;
    let role = async |role: &str| ws.owner.put(&ws.path("/members/anna"), &json!({ "role": role })).await.ok(200);
    let secrets = ws.path("/secrets");
    anna.get(&secrets).await.problem(403, "forbidden");
    role("admin").await;
    anna.get(&secrets).await.ok(200);
    role("viewer").await;
    anna.get(&secrets).await.problem(403, "forbidden");
    anna.get(&ws.path("/agents")).await.ok(200);
    let turn = async || anna.post(&ws.path("/turns"), &Workspace::turn_body("may I?")).await;
    turn().await.problem(403, "forbidden");
    role("member").await;
    turn().await.ok(200);
    let _ = ws.owner.delete(&ws.path("/members/anna")).await.expect(204);
    turn().await.problem(403, "forbidden");
    for path in ["", "/agents", "/quota", "/sessions"] {
        anna.get(&ws.path(path)).await.problem(403, "forbidden");
    }
    assert_eq!(Db::connect().await.turns(&ws.id).await.len(), 1);
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_the_next_request_and_no_other_is() {
    let ws = Workspace::local().await;
    let issue = async || ws.owner.post(&ws.path("/tokens"), &json!({ "subject": "anna", "role": "member" })).await.ok(201);
    let (one, two) = (issue().await, issue().await);
    let anna = |issued: &Value| ws.operator.with_token(issued["token"].as_str().unwrap());
    anna(&one).get(&ws.path("/agents")).await.ok(200);
    let revoke = ws.path(&format!("/tokens/{}", one["jti"].as_str().unwrap()));
    ws.member.delete(&revoke).await.problem(403, "forbidden");
    for _ in 0..2 {
        let _ = ws.owner.delete(&revoke).await.expect(204);
    }
    for path in ["/agents", "/quota", "/sessions"] {
        anna(&one).get(&ws.path(path)).await.problem(401, "unauthorized");
    }
    anna(&one).post(&ws.path("/turns"), &Workspace::turn_body("still here?")).await.problem(401, "unauthorized");
    anna(&two).post(&ws.path("/turns"), &Workspace::turn_body("still here.")).await.ok(200);
    // That it was tried is written down.
    wait::until("the denial", Duration::from_secs(20), async || {
        let denied = ws.owner.get(&ws.path("/audit?outcome=denied&actor=anna")).await.ok(200);
        let is_it = |entry: &Value| entry["detail"]["because"] == "revoked" && entry["actor"]["jti"] == one["jti"];
        if denied["data"].as_array().unwrap().iter().any(is_it) { Ok(()) } else { Err(denied) }
    })
    .await;
    // Somebody else's workspace takes no notice of it.
    let other = Workspace::local().await;
    let _ = other.owner.delete(&other.path(&format!("/tokens/{}", two["jti"].as_str().unwrap()))).await.expect(204);
    anna(&two).get(&ws.path("/agents")).await.ok(200);
}

#[tokio::test]
async fn a_token_with_another_role_than_the_members_is_narrowed_to_it() {
    let ws = Workspace::local().await;
    let issued = ws.owner.post(&ws.path("/tokens"), &json!({ "subject": "owner@test", "role": "viewer" })).await.ok(201);
    let narrow = ws.operator.with_token(issued["token"].as_str().unwrap());
    narrow.get(&ws.path("/agents")).await.ok(200);
    narrow.get(&ws.path("/secrets")).await.problem(403, "forbidden");
    narrow.post(&ws.path("/turns"), &Workspace::turn_body("hello")).await.problem(403, "forbidden");
    // And one that a browser may hold: it talks to agents, and that is all.
    let chat = json!({ "subject": "guest-1", "role": "member", "scope": ["agent:invoke"], "expiresInSeconds": 60 });
    let issued = ws.owner.post(&ws.path("/tokens"), &chat).await.ok(201);
    let guest = ws.operator.with_token(issued["token"].as_str().unwrap());
    guest.post(&ws.path("/turns"), &Workspace::turn_body("hello")).await.ok(200);
    for path in ["", "/agents", "/sessions", "/members", "/quota"] {
        guest.get(&ws.path(path)).await.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn nobody_issues_a_token_above_themselves() {
    let ws = Workspace::local().await;
    let admin = ws.user("ad", "admin").await;
    admin.post(&ws.path("/tokens"), &json!({ "subject": "x", "role": "owner" })).await.problem(403, "forbidden");
    admin.post(&ws.path("/tokens"), &json!({ "subject": "x", "role": "admin" })).await.ok(201);
    for who in [&ws.member, &ws.user("v", "viewer").await] {
        who.post(&ws.path("/tokens"), &json!({ "subject": "x", "role": "viewer" })).await.problem(403, "forbidden");
    }
    for who in [&ws.owner, &ws.operator] {
        let operator = who.post(&ws.path("/tokens"), &json!({ "subject": "x", "role": "operator" })).await;
        assert!([403, 422].contains(&operator.status), "{operator:?}");
    }
    // A token that was narrowed cannot issue a wider one.
    let mut claims = astra_tests::jwt::member_claims(&ws.id, "ad", "admin");
    claims["scope"] = json!(["token:issue"]);
    let narrowed = ws.operator.with_token(astra_tests::jwt::sign(&claims));
    let wide = narrowed.post(&ws.path("/tokens"), &json!({ "subject": "ad", "role": "admin" })).await;
    if wide.status == 201 {
        let wide = ws.operator.with_token(wide.json()["token"].as_str().unwrap());
        wide.get(&ws.path("/members")).await.problem(403, "forbidden");
    } else {
        wide.problem(403, "forbidden");
    }
    for seconds in [json!(0), json!(-1), json!(1_000_000_000_i64), json!("900")] {
        let body = json!({ "subject": "x", "role": "member", "expiresInSeconds": seconds });
        ws.owner.post(&ws.path("/tokens"), &body).await.problem(422, "unprocessable");
    }
}

#[tokio::test]
async fn secrets_are_written_and_never_read() {
    let ws = Workspace::local().await;
    let (name, value) = (ws.path("/secrets/OPENAI_API_KEY"), canary::key());
    ws.owner.get(&name).await.problem(404, "not_found");
    let put = ws.owner.put(&name, &json!({ "value": value })).await.expect(204);
    assert!(put.body.is_empty());
    let shown = ws.owner.get(&name).await.ok(200);
    let mut keys: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!((keys, &shown["name"]), (vec!["createdAt", "name", "updatedAt"], &json!("OPENAI_API_KEY")));
    let list = ws.owner.get(&ws.path("/secrets")).await.expect(200);
    assert!(!String::from_utf8_lossy(&list.body).contains(&value));
    assert_eq!(names(&list.json(), "name"), ["OPENAI_API_KEY"]);

    // Nor from the database: sealed, and sealed differently each time.
    let db = Db::connect().await;
    let sealed = async || {
        let sql =
            "SELECT encode(ciphertext, 'hex') AS c, encode(nonce, 'hex') AS n, position(convert_to($2, 'UTF8') IN ciphertext) AS plain
                   FROM secrets WHERE workspace_id = $1";
        db.rows(sql, &[&ws.id, &value]).await
    };
    let first = sealed().await;
    assert_eq!(first[0]["plain"], 0);
    let _ = ws.owner.put(&name, &json!({ "value": value })).await.expect(204);
    let second = sealed().await;
    assert!(first[0]["n"] != second[0]["n"] && first[0]["c"] != second[0]["c"], "a nonce is used once");

    for who in [&ws.member, &ws.user("v", "viewer").await] {
        who.get(&name).await.problem(403, "forbidden");
        who.put(&name, &json!({ "value": "x" })).await.problem(403, "forbidden");
        who.delete(&name).await.problem(403, "forbidden");
    }
    let _ = ws.owner.delete(&name).await.expect(204);
    ws.owner.delete(&name).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_secret_moved_to_another_workspace_or_name_does_not_open() {
    let mock = astra_tests::Aimock::start().await;
    mock.answer("open", "opened", 5, 5).await;
    let (from, to) = (Workspace::openai(&mock.openai()).await, Workspace::openai(&mock.openai()).await);
    from.turn("open").await.ok(200);
    let db = Db::connect().await;
    let (from, moved) = (&from.id, &to.id);
    db.run(&format!(
        "UPDATE secrets t SET key_id = f.key_id, nonce = f.nonce, ciphertext = f.ciphertext FROM secrets f WHERE f.workspace_id = '{from}' AND t.workspace_id = '{moved}'"
    ))
    .await;
    let reply = to.turn("open").await;
    assert!(reply.status >= 400, "a sealed value is bound to its workspace: {reply:?}");
    assert_eq!(mock.calls("open").await.len(), 1, "and no key is sent that is not the workspace's own");
}
