//! The audit log: who did what to what is there, whoever did it; nobody changes it unseen; and it tells no secret and no text.

use astra_tests::{Api, Db, Workspace, canary, environment, jwt, proof, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Every role that logs in, and those as whom nobody does.
const ROLES: [&str; 8] = [
    "astra_provision",
    "astra_invoke",
    "astra_quota",
    "astra_billing",
    "astra_grants",
    "astra_quota_inside",
    "astra_operator",
    "astra_owner",
];

/// The whole log, oldest first, page by page.
async fn log(api: &Api, ws: &Workspace) -> Vec<Value> {
    let (mut entries, mut path) = (Vec::new(), ws.path("/audit?limit=200"));
    loop {
        let page = api.get(&path).await.ok(200);
        entries.extend(page["data"].as_array().expect("data").iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = ws.path(&format!("/audit?limit=200&after={next}"));
    }
    entries.reverse();
    entries
}

async fn filtered(ws: &Workspace, query: &str) -> Vec<Value> {
    ws.owner.get(&ws.path(&format!("/audit?{query}"))).await.ok(200)["data"].as_array().expect("data").clone()
}

fn said(entry: &Value) -> (String, String, Value) {
    (entry["action"].as_str().unwrap().to_owned(), entry["target"].as_str().unwrap().to_owned(), entry["detail"].clone())
}

#[tokio::test]
async fn what_is_done_is_written_down_with_who_did_it() {
    let ws = Workspace::local().await;
    let before = log(&ws.owner, &ws).await.len();
    let key = canary::key();
    let _ = ws
        .operator
        .patch(&ws.path(""), &json!({ "displayName": canary::message("a name"), "limits": { "maxAgents": 9 } }))
        .await
        .expect(200);
    for role in ["member", "admin", "admin"] {
        let _ = ws.owner.put(&ws.path("/members/anna"), &json!({ "role": role })).await.expect(200);
    }
    let _ = ws.owner.delete(&ws.path("/members/anna")).await.expect(204);
    ws.put_secret("PLUM_KEY", &key).await;
    ws.put_secret("PLUM_KEY", &canary::key()).await;
    let _ = ws.owner.delete(&ws.path("/secrets/PLUM_KEY")).await.expect(204);
    let mut agent = astra_tests::template::local("plum");
    agent.as_object_mut().unwrap().remove("id");
    for prompt in ["one", "one", "two"] {
        agent["systemPromptTemplate"] = canary::message(prompt).into();
        assert!(ws.owner.put(&ws.path("/agents/plum"), &agent).await.status < 300);
    }
    assert!(ws.owner.delete(&ws.path("/agents/plum")).await.status < 300);
    let issued = ws.owner.post(&ws.path("/tokens"), &json!({ "subject": "bob", "role": "member", "scope": ["agent:*"] })).await.ok(201);
    let jti = issued["jti"].as_str().unwrap().to_owned();
    let _ = ws.owner.delete(&ws.path(&format!("/tokens/{jti}"))).await.expect(204);
    let turn = ws.turn(&canary::message("a message")).await.ok(200);
    let session = turn["sessionId"].as_str().unwrap().to_owned();
    let _ = ws.member.delete(&ws.path(&format!("/sessions/{session}"))).await.expect(204);

    let log = log(&ws.owner, &ws).await;
    let entries: Vec<_> = log[before..].iter().map(said).collect();
    let of = |action: &str, target: &str, detail: Value| (action.to_owned(), target.to_owned(), detail);
    let changed = &entries[0].2;
    assert_eq!((entries[0].0.as_str(), changed["displayName"].as_str()), ("workspace.change", Some("changed")), "{entries:#?}");
    assert_eq!(changed["limits.maxAgents"], "9");
    let token = json!({ "role": "member", "jti": jti, "scope": "agent:*", "expiresAt": issued["expiresAt"] });
    assert_eq!(
        entries[1..],
        [
            of("member.add", "anna", json!({ "role": "member" })),
            of("member.change", "anna", json!({ "role": "admin", "role.was": "member" })),
            of("member.remove", "anna", json!({ "role.was": "admin" })),
            of("secret.put", "PLUM_KEY", json!({})),
            of("secret.put", "PLUM_KEY", json!({ "ciphertext": "changed" })),
            of("secret.delete", "PLUM_KEY", json!({})),
            of("agent.put", "plum", json!({})),
            of("agent.put", "plum", json!({ "definition.systemPromptTemplate": "changed" })),
            of("agent.delete", "plum", json!({})),
            of("member.add", "bob", json!({ "role": "member" })),
            of("token.issue", "bob", token),
            of("token.revoke", &jti, json!({})),
            of("session.delete", &session, json!({ "userId.was": "member@test" })),
        ]
    );
    let first = &log[0];
    assert_eq!(
        (first["seq"].as_u64(), first["action"].as_str(), first["target"].as_str()),
        (Some(1), Some("workspace.create"), Some(ws.id.as_str()))
    );
    assert_eq!((&first["actor"]["operator"], &first["prevHash"]), (&json!(true), &json!("0".repeat(64))));
    for entry in &log[before + 1..log.len() - 1] {
        assert_eq!(entry["actor"]["sub"], "owner@test", "{entry}");
        assert!(
            entry["actor"]["jti"].is_string() && entry["actor"]["request"].is_string() && entry["actor"]["operator"].is_null(),
            "{entry}"
        );
        assert_eq!(entry["outcome"], "allowed");
    }
    assert_eq!(log.last().unwrap()["actor"]["sub"], "member@test");
    assert_eq!(ws.owner.get(&ws.path("/audit/verify")).await.ok(200), json!({ "ok": true, "entries": log.len(), "brokenAt": null }));

    // And nothing of it is anybody's secret or text.
    let text = serde_json::to_string(&log).unwrap();
    let rows =
        serde_json::to_string(&Db::connect().await.rows("SELECT * FROM audit_log WHERE workspace_id = $1", &[&ws.id]).await).unwrap();
    for all in [text, rows] {
        assert!(!all.contains(canary::KEY) && !all.contains(canary::TEXT) && !all.contains(issued["token"].as_str().unwrap()), "{all}");
    }
}

#[tokio::test]
async fn what_is_denied_is_written_down_and_not_as_often_as_it_is_tried() {
    let ws = Workspace::local().await;
    for _ in 0..4 {
        ws.member.get(&ws.path("/secrets")).await.problem(403, "forbidden");
    }
    ws.member.get(&ws.path("/audit")).await.problem(403, "forbidden");
    ws.member.get(&ws.path("/audit/verify")).await.problem(403, "forbidden");
    let denied = wait::until("two denials", SOON, async || {
        let denied = filtered(&ws, "outcome=denied").await;
        if denied.len() >= 2 { Ok(denied) } else { Err(denied) }
    })
    .await;
    // On some hosts each function is a process of its own: one permission is denied by one of them here.
    let targets: BTreeSet<_> = denied.iter().map(|entry| said(entry).1).collect();
    if astra_tests::environment::host() == "lambda" {
        // There each environment does, and as many of them serve as there are requests at once.
        assert!(denied.len() <= 6, "{denied:#?}");
    } else {
        assert_eq!(denied.len(), 2, "{denied:#?}");
    }
    assert!(targets.contains("GET /workspaces/{workspaceId}/secrets"), "{targets:?}");
    for entry in &denied {
        assert_eq!((&entry["action"], &entry["actor"]["sub"]), (&json!("access.denied"), &json!("member@test")));
        assert_eq!(entry["detail"]["because"], "role");
    }
    // A turn is, whoever decides that it may not be: the database what a role allows and who is a member, the function what a token's scope covers.
    let role = json!({ "allow": ["memory:read"], "deny": [] });
    let _ = ws.owner.put(&ws.path("/roles/reader"), &role).await.expect(200);
    let reader = ws.user("reader@test", "reader").await;
    let gone = ws.user("gone@test", "member").await;
    let _ = ws.owner.delete(&ws.path("/members/gone@test")).await.expect(204);
    let narrow =
        ws.owner.post(&ws.path("/tokens"), &json!({ "subject": "member@test", "role": "member", "scope": ["memory:read"] })).await.ok(201);
    let narrow = ws.member.with_token(narrow["token"].as_str().unwrap());
    for (who, sub, because) in [(&reader, "reader@test", "role"), (&gone, "gone@test", "no_member"), (&narrow, "member@test", "scope")] {
        who.post(&ws.path("/turns"), &json!({ "agentId": "assistant", "message": "hello" })).await.problem(403, "forbidden");
        let denied = wait::until("a turn's denial", SOON, async || {
            let denied = filtered(&ws, &format!("outcome=denied&target={}", "POST%20/workspaces/%7BworkspaceId%7D/turns")).await;
            denied.iter().find(|entry| entry["actor"]["sub"] == sub).cloned().ok_or(denied)
        })
        .await;
        assert_eq!((&denied["detail"]["permission"], &denied["detail"]["because"]), (&json!("agent:invoke"), &json!(because)));
    }
    // What a handler refuses by rules of its own is as well: an admin who would make themselves owner.
    let admin = ws.user("admin@test", "admin").await;
    admin.put(&ws.path("/members/admin@test"), &json!({ "role": "owner" })).await.problem(403, "forbidden");
    wait::until("that denial", SOON, async || {
        let denied = filtered(&ws, "outcome=denied").await;
        let is_it =
            |entry: &&Value| said(entry).1 == "PUT /workspaces/{workspaceId}/members/{userId}" && entry["actor"]["sub"] == "admin@test";
        if denied.iter().any(|entry| is_it(&entry)) { Ok(()) } else { Err(denied) }
    })
    .await;
    // Somebody else's token is not this workspace's business, nor is this one's that of another.
    let other = Workspace::local().await;
    other.owner.get(&ws.path("/secrets")).await.problem(403, "forbidden");
    wait::millis(500).await;
    for of in [&ws, &other] {
        assert!(log(&of.owner, of).await.iter().all(|entry| entry["actor"]["sub"] != "owner@test" || entry["outcome"] == "allowed"));
    }
}

#[tokio::test]
async fn filters_and_cursors_leave_out_and_never_add() {
    let ws = Workspace::local().await;
    for n in 0..5 {
        let _ = ws.owner.put(&ws.path(&format!("/members/user-{n}")), &json!({ "role": "viewer" })).await.expect(200);
    }
    let _ = ws.operator.put(&ws.path("/members/user-0"), &json!({ "role": "member" })).await.expect(200);
    ws.put_secret("PLUM_KEY", &canary::key()).await;
    let whole = log(&ws.owner, &ws).await;
    let seqs: Vec<_> = whole.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=whole.len() as u64).collect::<Vec<_>>(), "no gap");
    // Two at a time: the same, and each once.
    let (mut seen, mut path) = (Vec::new(), ws.path("/audit?limit=2&action=member.*&actor=owner@test"));
    loop {
        let page = ws.owner.get(&path).await.ok(200);
        assert!(page["data"].as_array().unwrap().len() <= 2);
        seen.extend(page["data"].as_array().unwrap().iter().map(|entry| said(entry).1));
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = ws.path(&format!("/audit?limit=2&action=member.*&actor=owner@test&after={next}"));
    }
    assert_eq!(seen, ["user-4", "user-3", "user-2", "user-1", "user-0"]);
    let count = async |query: &str| filtered(&ws, query).await.len();
    assert_eq!(
        (count("target=user-0").await, count("target=user-0&action=member.change").await, count("action=secret.put").await),
        (2, 1, 1)
    );
    assert_eq!(
        (count("action=member").await, count("action=*").await, count("action=%25").await, count("actor=nobody").await),
        (0, 0, 0, 0)
    );
    let middle = whole[3]["at"].as_str().unwrap();
    let (before, after) = (count(&format!("until={middle}&limit=200")).await, count(&format!("since={middle}&limit=200")).await);
    assert_eq!((before + after, before <= 3), (whole.len(), true));
    for bad in ["limit=0", "limit=201", "after=x", "after=-1", "outcome=none", "since=today", "color=red"] {
        let reply = ws.owner.get(&ws.path(&format!("/audit?{bad}"))).await;
        assert!([400, 422].contains(&reply.status), "{bad}: {reply:?}");
    }
}

#[tokio::test]
async fn an_export_as_csv_runs_no_formula() {
    let ws = Workspace::local().await;
    let _ = ws.owner.put(&ws.path("/members/%3D1+1"), &json!({ "role": "viewer" })).await.expect(200);
    let reply = ws.owner.request(http::Method::GET, &ws.path("/audit?limit=1")).header("accept", "text/csv").send().await.expect(200);
    assert!(reply.header("content-type").starts_with("text/csv"), "{reply:?}");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let lines: Vec<_> = text.split("\r\n").collect();
    assert!(lines[0].starts_with("workspaceId,seq,at,sub,") && lines[1].contains(",member.add,'=1+1,allowed,"), "{text}");
    assert_eq!((lines.len(), lines[2], reply.header("next-cursor").is_empty()), (3, "", false));
}

#[tokio::test]
async fn another_workspaces_entries_are_never_shown() {
    let (a, b) = (Workspace::local().await, Workspace::local().await);
    for path in ["/audit", "/audit/verify"] {
        a.owner.get(&b.path(path)).await.problem(403, "forbidden");
    }
    for query in ["limit=200", "target=owner@test", &format!("target={}", b.id)] {
        assert!(filtered(&a, query).await.iter().all(|entry| entry["workspaceId"] == a.id.as_str()), "{query}");
    }
    // The database's word, too: as the function's role, with A's proof.
    let db = Db::connect().await;
    db.run("SET ROLE astra_grants").await;
    let sql = format!(
        "SELECT astra.audit_list(astra.enter('{}'), '{{}}'), (SELECT count(*) FROM audit_log WHERE workspace_id = '{}')",
        proof::of(&a.id),
        b.id
    );
    let seen = db.as_printed(&sql).await;
    assert!(seen[0][0].1.as_ref().is_some_and(|text| text.contains(&a.id) && !text.contains(&b.id)), "{seen:?}");
    assert_eq!(seen[0][1].1.as_deref(), Some("0"));
    let other = format!("SELECT astra.audit_list('{}', '{{}}') FROM (SELECT astra.enter('{}')) p", b.id, proof::of(&a.id));
    let seen = db.as_printed(&other).await;
    assert!(seen[0][0].1.as_ref().is_some_and(|text| text.contains("not_found")), "{seen:?}");
}

#[tokio::test]
async fn no_role_may_change_the_log_or_write_what_it_likes() {
    let ws = Workspace::local().await;
    let db = Db::connect().await;
    let before = db.rows("SELECT * FROM audit_log WHERE workspace_id = $1 ORDER BY seq", &[&ws.id]).await;
    let head = "SELECT * FROM audit_heads WHERE workspace_id = $1";
    let head_before = db.rows(head, &[&ws.id]).await;
    let proof = proof::of(&ws.id);
    let statements = [
        "UPDATE audit_log SET actor = 'x'",
        "UPDATE audit_log SET actor = 'x' WHERE false",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_heads SET seq = 0",
        "UPDATE audit_heads SET seq = seq + 1, workspace_id = 'x'",
        "DELETE FROM audit_heads",
        "TRUNCATE audit_heads",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
    ];
    // The owner of the table may switch its triggers off: nobody logs in as it. A superuser has to, first.
    for role in ROLES.into_iter().chain(["postgres"]) {
        for statement in statements {
            if statement.starts_with("ALTER") && ["astra_owner", "postgres"].contains(&role) {
                continue;
            }
            let sql = format!("BEGIN; SET LOCAL ROLE {role}; SELECT set_config('astra.proof', '{proof}', true); {statement}; COMMIT");
            refused(&sql, &format!("{role}: {statement}")).await;
        }
        if !["astra_owner", "postgres"].contains(&role) {
            let insert = "INSERT INTO audit_log SELECT workspace_id, seq + 100, at, actor, action, target, outcome, detail, hash, hash FROM audit_log LIMIT 1";
            let values = format!(
                "INSERT INTO audit_log VALUES ('{}', 1000, now(), '', 'a', 't', 'allowed', '{{}}', sha256('a'), sha256('b'))",
                ws.id
            );
            let append = format!("SELECT astra.audit_append('{}', 'a', 't', 'allowed', '{{}}')", ws.id);
            for statement in [insert, values.as_str(), append.as_str()] {
                let sql = format!("BEGIN; SET LOCAL ROLE {role}; SELECT set_config('astra.proof', '{proof}', true); {statement}; COMMIT");
                refused(&sql, &format!("{role}: {statement}")).await;
            }
        }
    }
    // By audit_add only what it is there for, and only in one's own.
    let other = Workspace::local().await;
    for (tenant, argument) in [
        (format!("astra.enter('{proof}')"), r#"{"action":"member.add","target":"x","outcome":"allowed","detail":{}}"#),
        (format!("astra.enter('{proof}')"), r#"{"action":"token.issue","target":"x","outcome":"denied","detail":{}}"#),
        (format!("astra.enter('{proof}')"), r#"{"action":"access.denied","target":"x","outcome":"allowed","detail":{}}"#),
        (
            format!("replace(astra.enter('{proof}'), '{}', '{}')", ws.id, other.id),
            r#"{"action":"token.issue","target":"x","outcome":"allowed","detail":{}}"#,
        ),
        (format!("'{}'", ws.id), r#"{"action":"token.issue","target":"x","outcome":"allowed","detail":{}}"#),
    ] {
        refused(&format!("SET ROLE astra_provision; SELECT astra.audit_add({tenant}, '{argument}')"), argument).await;
    }
    for role in ["astra_quota", "astra_operator"] {
        let argument = r#"{"action":"token.issue","target":"x","outcome":"allowed","detail":{}}"#;
        refused(&format!("SET ROLE {role}; SELECT astra.audit_add(astra.enter('{proof}'), '{argument}')"), role).await;
    }
    assert_eq!(db.rows("SELECT * FROM audit_log WHERE workspace_id = $1 ORDER BY seq", &[&ws.id]).await, before);
    assert_eq!(db.rows(head, &[&ws.id]).await, head_before);
}

/// On a connection of its own: what is refused leaves it in a failed transaction.
async fn refused(sql: &str, what: &str) {
    let (client, connection) = tokio_postgres::connect(&environment::admin_database(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(async {
        let _ = connection.await;
    });
    match client.batch_execute(sql).await {
        Ok(()) => panic!("it was let do: {what}"),
        Err(error) => {
            let state = error.code().map(tokio_postgres::error::SqlState::code);
            assert!(matches!(state, Some("42501" | "22023")), "{what}: {error:?}");
        }
    }
}

/// Runs astra-audit on an export; whether it is good, and what it says.
fn tool(export: &str, more: &[&str]) -> (bool, String) {
    use std::io::Write as _;
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(root).args(["run", "--quiet", "--package", "astra-audit", "--", "verify", "-"]).args(more);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cargo runs");
    child.stdin.take().unwrap().write_all(export.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn whoever_has_every_right_is_found_out() {
    let ws = Workspace::local().await;
    // Every kind of character that JSON escapes, and some that it does not.
    let odd = "a\"b\\c/\u{8}\u{c}\n\r\t\u{1}\u{1f}\u{7f}\u{e9}\u{2028}\u{1f600}<>&'";
    let issued = ws.operator.with_token(jwt::operator()).post(&ws.path("/tokens"), &json!({ "subject": "user-1", "role": "viewer" })).await;
    let _ = issued.expect(201);
    let db = Db::connect().await;
    let argument =
        json!({ "action": "token.issue", "target": odd, "outcome": "allowed", "detail": { odd: odd, "z": "", "A": "1", "aa": "2" } })
            .to_string();
    let (kid, key) = environment::tenant_key();
    let actor = json!({ "sub": odd, "operator": true, "jti": "j", "request": "r" });
    let proof = proof::signed(&format!("{} {} {kid} {actor}", ws.id, jwt::now() + 300), &key);
    db.rows("SELECT astra.audit_add(astra.enter($1), $2)", &[&proof, &argument]).await;

    let export = async || serde_json::to_string(&ws.owner.get(&ws.path("/audit?limit=200")).await.ok(200)).unwrap();
    let verified = async || ws.owner.get(&ws.path("/audit/verify")).await.ok(200);
    let count = verified().await["entries"].as_u64().unwrap();
    assert_eq!(verified().await["ok"], true);
    let good = export().await;
    let (ok, text) = tool(&good, &[]);
    assert!(ok && text.contains(&format!("{count} entries as they were written")), "the tool's bytes are the database's: {text}");
    let head = text.lines().nth(1).unwrap().to_owned();

    // A superuser with the triggers off: one change at a time, each undone.
    let changes = [
        ("UPDATE audit_log SET target = target || ' ' WHERE workspace_id = '{}' AND seq = 2", Some(2)),
        ("UPDATE audit_log SET detail = '{\"role\":\"viewer\"}' WHERE workspace_id = '{}' AND seq = 2", Some(2)),
        ("UPDATE audit_log SET at = at + interval '1 ms' WHERE workspace_id = '{}' AND seq = 3", Some(3)),
        ("UPDATE audit_log SET actor = '' WHERE workspace_id = '{}' AND seq = 1", Some(1)),
        ("DELETE FROM audit_log WHERE workspace_id = '{}' AND seq = 2", Some(2)),
        ("UPDATE audit_log l SET target = 'x', hash = sha256(astra.audit_bytes((l.workspace_id, l.seq, l.at, l.actor, l.action, 'x', l.outcome, l.detail, l.prev_hash, l.hash)::audit_log))
          WHERE workspace_id = '{}' AND seq = 2", Some(3)),
        ("DELETE FROM audit_log WHERE workspace_id = '{}' AND seq = (SELECT max(seq) FROM audit_log WHERE workspace_id = '{}')", None),
    ];
    for (change, broken_at) in changes {
        let kept = format!("kept_{}", uuid::Uuid::new_v4().simple());
        let change = change.replace("{}", &ws.id);
        let of = format!("WHERE workspace_id = '{}'", ws.id);
        // replica: no trigger fires, in this session.
        db.run(&format!("SET session_replication_role = replica; CREATE TEMP TABLE {kept} AS SELECT * FROM audit_log {of}; {change}"))
            .await;
        let broken_at = broken_at.unwrap_or(count);
        assert_eq!((verified().await["ok"].as_bool(), verified().await["brokenAt"].as_u64()), (Some(false), Some(broken_at)), "{change}");
        let (ok, text) = tool(&export().await, &["--head", &head]);
        assert!(!ok && text.contains(&format!("entry {broken_at} ")), "{change}: {text}");
        db.run(&format!("DELETE FROM audit_log {of}; INSERT INTO audit_log SELECT * FROM {kept}; SET session_replication_role = origin"))
            .await;
    }
    assert_eq!((verified().await["ok"].as_bool(), tool(&good, &["--head", &head]).0), (Some(true), true));
}

#[tokio::test]
async fn writers_at_once_make_one_chain() {
    let ws = Workspace::local().await;
    let before = log(&ws.owner, &ws).await.len();
    let put = |n: usize| {
        let (owner, path) = (ws.owner.clone(), ws.path(&format!("/members/user-{n}")));
        async move { owner.put(&path, &json!({ "role": "viewer" })).await.expect(200) }
    };
    let revoke = |n: usize| {
        let (owner, path) = (ws.owner.clone(), ws.path(&format!("/tokens/token-{n}")));
        async move { owner.delete(&path).await.expect(204) }
    };
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..12 {
        writers.spawn(put(n));
        writers.spawn(revoke(n));
    }
    while let Some(done) = writers.join_next().await {
        let _ = done.unwrap();
    }
    assert_eq!(ws.owner.get(&ws.path("/audit/verify")).await.ok(200), json!({ "ok": true, "entries": before + 24, "brokenAt": null }));
    let times: Vec<_> = log(&ws.owner, &ws).await.iter().map(|entry| entry["at"].as_str().unwrap().to_owned()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn a_deleted_workspace_keeps_its_log_and_one_made_again_goes_on_with_it() {
    let ws = Workspace::local().await;
    ws.turn("hello").await.ok(200);
    ws.put_secret("PLUM_KEY", &canary::key()).await;
    let before = log(&ws.operator, &ws).await;
    let _ = ws.owner.delete(&ws.path("")).await.expect(200);
    let after = log(&ws.operator, &ws).await;
    assert_eq!(after.len(), before.len() + 1, "what goes with it is not said: {after:#?}");
    assert_eq!(after[..before.len()], before);
    assert_eq!(
        (after.last().unwrap()["action"].as_str(), after.last().unwrap()["actor"]["sub"].as_str()),
        (Some("workspace.delete"), Some("owner@test"))
    );
    ws.owner.get(&ws.path("/audit")).await.problem(403, "forbidden");
    let again = Workspace::named(&ws.id, &json!({})).await;
    let now = log(&again.operator, &again).await;
    assert_eq!(now[..after.len()], after);
    assert_eq!(
        (now[after.len()]["action"].as_str(), now[after.len()]["seq"].as_u64()),
        (Some("workspace.create"), Some(after.len() as u64 + 1))
    );
    assert_eq!(again.operator.get(&again.path("/audit/verify")).await.ok(200)["ok"], true);
    again.operator.get("/workspaces/never-was-one/audit").await.problem(404, "not_found");
}

#[tokio::test]
async fn what_a_superuser_does_by_hand_is_written_down_without_a_name() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    let before = log(&ws.owner, &ws).await.len();
    db.run(&format!(
        "INSERT INTO members VALUES ('{0}', 'eve', 'owner', now());
         UPDATE members SET role = 'viewer' WHERE workspace_id = '{0}' AND user_id = 'eve';
         UPDATE workspaces SET limits = limits || '{{\"maxAgents\": 3}}', restrictions = '{{\"allowedProviders\": [\"local\"]}}' WHERE id = '{0}';
         INSERT INTO roles VALUES ('{0}', 'support', '{{memory:*}}', '{{memory:write}}', now());
         UPDATE roles SET deny = '{{}}' WHERE workspace_id = '{0}';
         UPDATE roles SET updated_at = now() WHERE workspace_id = '{0}';
         DELETE FROM roles WHERE workspace_id = '{0}';
         DELETE FROM members WHERE workspace_id = '{0}' AND user_id = 'eve'",
        ws.id
    ))
    .await;
    let log = log(&ws.owner, &ws).await;
    let entries: Vec<_> = log[before..].iter().map(said).collect();
    let of = |action: &str, target: &str, detail: Value| (action.to_owned(), target.to_owned(), detail);
    assert_eq!(entries.len(), 7, "{entries:#?}");
    assert_eq!(
        entries[..2],
        [of("member.add", "eve", json!({ "role": "owner" })), of("member.change", "eve", json!({ "role": "viewer", "role.was": "owner" }))]
    );
    assert_eq!((entries[2].0.as_str(), &entries[2].2["limits.maxAgents"]), ("workspace.change", &json!("3")));
    assert_eq!(entries[2].2["restrictions.allowedProviders"], r#"["local"]"#);
    assert_eq!(
        entries[3..],
        [
            of("role.put", "support", json!({ "allow": r#"["memory:*"]"#, "deny": r#"["memory:write"]"# })),
            of("role.put", "support", json!({ "deny": "[]", "deny.was": r#"["memory:write"]"# })),
            of("role.delete", "support", json!({ "allow.was": r#"["memory:*"]"#, "deny.was": "[]" })),
            of("member.remove", "eve", json!({ "role.was": "viewer" })),
        ]
    );
    assert!(log[before..].iter().all(|entry| entry["actor"].is_null()), "{log:#?}");
    assert_eq!(ws.owner.get(&ws.path("/audit/verify")).await.ok(200)["ok"], true);
}

#[tokio::test]
async fn a_grant_is_in_the_log_of_those_who_did_something_with_it() {
    let (a, b, c) = (Workspace::local().await, Workspace::local().await, Workspace::local().await);
    let give = async |to: &Workspace| {
        let body = json!({ "receivingWorkspaceId": to.id, "agentId": "assistant", "maxCostUsdPerMonth": 1 });
        a.owner.post(&a.path("/grants"), &body).await.ok(201)["id"].as_str().unwrap().to_owned()
    };
    let (one, two) = (give(&b).await, give(&c).await);
    let _ = b.owner.post(&b.path(&format!("/grants/{one}/accept")), &json!({})).await;
    assert!(b.owner.delete(&b.path(&format!("/grants/{one}"))).await.status < 300);
    for _ in 0..2 {
        assert!(a.owner.delete(&a.path(&format!("/grants/{two}"))).await.status < 300);
    }
    // A third goes with its workspace, which is all that is said of it.
    give(&b).await;
    let before = log(&b.operator, &b).await.len();
    let _ = b.owner.delete(&b.path("")).await.expect(200);
    assert_eq!(log(&b.operator, &b).await.len(), before + 1);
    let of = async |ws: &Workspace| {
        let entries = ws.operator.get(&ws.path("/audit?action=grant.*")).await.ok(200);
        let entries: Vec<_> = entries["data"].as_array().unwrap().iter().rev().map(said).collect();
        entries
            .into_iter()
            .map(|(action, target, detail)| (action, target, detail.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")))
            .collect::<Vec<_>>()
    };
    let entry = |action: &str, target: &str, detail: &str| (action.to_owned(), target.to_owned(), detail.to_owned());
    let (by_a, by_b) = (of(&a).await, of(&b).await);
    let given = "agentId allow maxCost payer readonly receivingWorkspaceId";
    assert_eq!(
        by_a[..3],
        [entry("grant.give", &one, given), entry("grant.give", &two, given), entry("grant.change", &two, "revokedAt")],
        "{by_a:#?}"
    );
    assert_eq!((by_a.len(), by_a[3].0.as_str()), (4, "grant.give"), "{by_a:#?}");
    assert_eq!(by_b, [entry("grant.change", &one, "acceptedAt"), entry("grant.change", &one, "revokedAt")]);
    assert_eq!(of(&c).await, []);
    for ws in [&a, &b, &c] {
        assert_eq!(ws.operator.get(&ws.path("/audit/verify")).await.ok(200)["ok"], true);
    }
}
