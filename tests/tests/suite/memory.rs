//! Memories: what a workspace remembers, and what one of its members keeps for themselves.

use astra_tests::{Api, Db, Session, Workspace, proof, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a job may take.
const PATIENCE: Duration = Duration::from_secs(20);

async fn write(api: &Api, ws: &Workspace, content: &str, personal: bool) -> Value {
    api.post(&ws.path("/memories"), &json!({ "kind": "fact", "content": content, "personal": personal })).await.ok(201)
}

fn contents(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|row| row["content"].as_str().unwrap()).collect()
}

async fn search(api: &Api, ws: &Workspace, query: &str) -> Value {
    api.post(&ws.path("/memories/search"), &json!({ "query": query })).await.ok(200)
}

#[tokio::test]
async fn a_memory_is_written_once_listed_found_and_taken_away() {
    let ws = Workspace::local().await;
    let memory = write(&ws.member, &ws, "Refunds take 30 days.", false).await;
    assert_eq!((&memory["kind"], &memory["userId"], &memory["pinned"]), (&json!("fact"), &Value::Null, &json!(false)));
    // The same content is the same memory, however often it is sent.
    let again = json!({ "kind": "decision", "content": " Refunds take 30 days.\n", "pinned": true });
    let again = ws.owner.post(&ws.path("/memories"), &again).await.ok(200);
    assert_eq!((&again["id"], &again["kind"], &again["pinned"]), (&memory["id"], &json!("decision"), &json!(true)));
    write(&ws.member, &ws, "The office is in Lisbon.", false).await;

    let list = ws.member.get(&ws.path("/memories")).await.ok(200);
    assert_eq!(contents(&list), ["Refunds take 30 days.", "The office is in Lisbon."]);
    assert_eq!(contents(&ws.member.get(&ws.path("/memories?kind=decision")).await.ok(200)), ["Refunds take 30 days."]);
    let page = ws.member.get(&ws.path("/memories?limit=1")).await.ok(200);
    let next = ws.member.get(&ws.path(&format!("/memories?limit=1&after={}", page["nextCursor"].as_str().unwrap()))).await.ok(200);
    assert_eq!((contents(&next), &next["nextCursor"]), (vec!["The office is in Lisbon."], &Value::Null));

    let found = search(&ws.member, &ws, "How long do refunds take?").await;
    assert_eq!(found["data"][0]["id"], memory["id"]);
    assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "first by meaning and by words: {found}");
    let strict = json!({ "query": "How long do refunds take?", "threshold": 0.9, "limit": 1 });
    assert_eq!(contents(&ws.member.post(&ws.path("/memories/search"), &strict).await.ok(200)), ["Refunds take 30 days."]);

    let path = ws.path(&format!("/memories/{}", memory["id"].as_str().unwrap()));
    assert_eq!(ws.member.get(&path).await.ok(200)["content"], "Refunds take 30 days.");
    let _ = ws.member.delete(&path).await.expect(204);
    ws.member.delete(&path).await.problem(404, "not_found");
    ws.member.get(&path).await.problem(404, "not_found");
    assert_eq!(contents(&search(&ws.member, &ws, "refunds").await), ["The office is in Lisbon."]);
}

#[tokio::test]
async fn what_is_ones_own_is_for_nobody_else_not_even_the_owner() {
    let ws = Workspace::local().await;
    let anna = ws.user("anna", "member").await;
    let own = write(&anna, &ws, "Anna prefers trains.", true).await;
    assert_eq!(own["userId"], "anna");
    // The same words of the workspace are another memory, and so are another member's.
    let all = write(&ws.member, &ws, "Anna prefers trains.", false).await;
    let bens = write(&ws.member, &ws, "Anna prefers trains.", true).await;
    assert_ne!(own["id"], all["id"]);
    let path = ws.path(&format!("/memories/{}", own["id"].as_str().unwrap()));
    for other in [&ws.member, &ws.owner, &ws.operator] {
        other.get(&path).await.problem(404, "not_found");
        other.delete(&path).await.problem(404, "not_found");
        assert!(!search(other, &ws, "trains").await.to_string().contains(own["id"].as_str().unwrap()));
        assert!(!other.get(&ws.path("/memories")).await.ok(200).to_string().contains(own["id"].as_str().unwrap()));
    }
    assert_eq!(search(&anna, &ws, "trains").await["data"].as_array().unwrap().len(), 2);
    // No place is lost to what is somebody's own, which is older and as near.
    let found = search(&ws.owner, &ws, "trains").await;
    assert_eq!(contents(&found), ["Anna prefers trains."]);
    assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{found}");

    // Forgotten: one's own by oneself, another's by who looks after members.
    let forget = |user: &str| ws.path(&format!("/users/{user}/memory"));
    ws.member.delete(&forget("anna")).await.problem(403, "forbidden");
    assert_eq!(ws.member.delete(&forget("member@test")).await.ok(200), json!({ "removed": { "memories": 1, "jobs": 0 } }));
    assert_eq!(ws.owner.delete(&forget("anna")).await.ok(200), json!({ "removed": { "memories": 1, "jobs": 0 } }));
    assert_eq!(ws.owner.delete(&forget("anna")).await.ok(200), json!({ "removed": { "memories": 0, "jobs": 0 } }));
    anna.get(&path).await.problem(404, "not_found");
    ws.member.get(&ws.path(&format!("/memories/{}", bens["id"].as_str().unwrap()))).await.problem(404, "not_found");
    assert_eq!(contents(&anna.get(&ws.path("/memories")).await.ok(200)), ["Anna prefers trains."]);
}

#[tokio::test]
async fn who_reads_does_not_write_and_what_is_no_memory_is_named() {
    let ws = Workspace::local().await;
    let viewer = ws.user("vera", "viewer").await;
    viewer.post(&ws.path("/memories"), &json!({ "kind": "fact", "content": "x" })).await.problem(403, "forbidden");
    assert_eq!(contents(&viewer.get(&ws.path("/memories")).await.ok(200)), Vec::<&str>::new());
    assert_eq!(contents(&search(&viewer, &ws, "anything").await), Vec::<&str>::new());
    for (body, pointer) in [
        (json!({ "kind": "secret", "content": "x" }), "/kind"),
        (json!({ "kind": "fact", "content": " " }), "/content"),
        (json!({ "kind": "fact", "content": "a\u{0}b" }), "/content"),
        (json!({ "kind": "fact", "content": "a".repeat(2001) }), "/content"),
        (json!({ "kind": "fact", "content": "x", "userId": "anna" }), "/userId"),
        (json!({ "kind": "fact", "content": "x", "personal": "yes" }), "/personal"),
    ] {
        let problem = ws.member.post(&ws.path("/memories"), &body).await.problem(422, "unprocessable");
        assert!(problem["errors"][0]["pointer"] == pointer || problem["detail"].as_str().unwrap().contains(&pointer[1..]), "{problem}");
    }
    for (body, pointer) in [
        (json!({ "query": "" }), "/query"),
        (json!({ "query": "x", "limit": 0 }), "/limit"),
        (json!({ "query": "x", "limit": 51 }), "/limit"),
        (json!({ "query": "x", "threshold": 1.5 }), "/threshold"),
    ] {
        let problem = ws.member.post(&ws.path("/memories/search"), &body).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    for word in ["'); DROP TABLE workspaces; --", "a & b | !c <-> (d:*", "\\", "''", "🦀", "%"] {
        search(&ws.member, &ws, word).await;
    }
    assert_eq!(contents(&ws.member.get(&ws.path("/memories")).await.ok(200)), Vec::<&str>::new(), "nothing was written");
}

#[tokio::test]
async fn a_turn_knows_what_was_remembered() {
    let ws = Workspace::local().await;
    write(&ws.owner, &ws, "Refunds take 30 days.", false).await;
    write(&ws.owner, &ws, "The owner's own refunds take a year.", true).await;
    let answer = ws.turn("How long do refunds take?").await.ok(200);
    let said = answer["content"].as_str().unwrap();
    assert!(said.contains("Refunds take 30 days.") && !said.contains("a year"), "{said}");
}

/// Memories of one member, near each other, past the API: the vector of one that is there, changed a little.
async fn crowd(db: &Db, ws: &Workspace, of: &str, whose: &str, how_many: usize) {
    db.run(&format!(
        "INSERT INTO \"mem_{0}\".memories (id, kind, content, embedding, hash, user_id, created_at, updated_at)
         SELECT gen_random_uuid(), 'note', 'crowd', m.embedding + ARRAY(SELECT 0.02 * random() + 0 * n FROM generate_series(1, 384))::vector, gen_random_uuid()::text, '{whose}', now(), now()
         FROM \"mem_{0}\".memories m, generate_series(1, {how_many}) n WHERE m.id = '{of}'",
        ws.id
    ))
    .await;
}

async fn has_index(db: &Db, ws: &Workspace) -> bool {
    let sql = "SELECT count(*) FROM pg_indexes WHERE schemaname = $1 AND indexname = 'memories_embedding' AND indexdef LIKE '%hnsw%'";
    db.number(sql, &[&format!("mem_{}", ws.id)]).await == 1
}

#[tokio::test]
async fn many_vectors_are_indexed_by_a_job_and_what_is_ones_own_is_found_among_others() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    let ben = ws.user("ben", "member").await;
    let bens = write(&ben, &ws, "Plum pudding is served cold.", true).await;
    let id = bens["id"].as_str().unwrap();
    crowd(&db, &ws, id, "ben", 1_997).await;
    write(&ws.member, &ws, "The office is in Lisbon.", false).await;
    assert!(!has_index(&db, &ws).await, "1,999 are compared one by one");
    // The one that makes it 2,000; what follows is indexed as it is written.
    let plum = write(&ws.member, &ws, "Plum cake and pudding are on the menu.", false).await;
    wait::until("the index", PATIENCE, async || has_index(&db, &ws).await.then_some(()).ok_or("none")).await;
    crowd(&db, &ws, id, "ben", 500).await;
    let scans = "SELECT COALESCE(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE schemaname = $1 AND indexrelname = 'memories_embedding'";
    let schema = format!("mem_{}", ws.id);
    wait::until("a search by the index", PATIENCE, async || {
        // The nearest are Ben's, who is somebody else: the scan goes on until it has found what is everybody's. First by meaning and by words is 1.
        let found = search(&ws.member, &ws, "plum pudding").await;
        assert_eq!((&found["data"][0]["id"], found["data"].as_array().unwrap().len()), (&plum["id"], 2), "{found}");
        assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{found}");
        (db.number(scans, &[&schema]).await > 0).then_some(()).ok_or("all were compared")
    })
    .await;
    let status = ws.member.get(&ws.path("/memory/status")).await.ok(200);
    assert_eq!(status["jobs"], json!({ "waiting": 0, "dead": 0, "lagSeconds": null }));
}

#[tokio::test]
async fn the_search_by_words_is_for_the_proofs_own_workspace() {
    let (a, b) = (Workspace::local().await, Workspace::local().await);
    write(&b.member, &b, "Plums of B.", false).await;
    let session = Session::of_function("astra_memory").await;
    let opening = format!("SELECT astra.enter('{}')", proof::of(&a.id));
    let call = |function: &str, workspace: &str| {
        format!("SELECT id FROM astra.{function}('{workspace}', 'u', '{{memories}}', '{{}}', '{{plums}}', 10) w, unnest(w.ids) id")
    };
    assert_eq!(session.rows(&opening, &call("recall_words_own", &a.id)).await, Ok(0));
    for (function, workspace) in [("recall_words_own", &b.id), ("recall_words", &a.id), ("recall_words", &b.id)] {
        let refused = session.rows(&opening, &call(function, workspace)).await;
        assert_eq!(refused.map_err(|refused| refused.code), Err("42501".to_owned()), "{function} of {workspace}");
    }
}
