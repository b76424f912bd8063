//! Documents: kept at once, searched when they are split, by versions; and the jobs that split them.

use crate::workspaces;
use astra_tests::{Api, Db, Workspace, wait};
use serde_json::{Value, json};
use std::time::Duration;

const HANDBOOK: &str = "# Handbook\n\n## Refunds\n\nRefunds are paid within 30 days.\n\n## Holidays\n\nEverybody has 25 days a year.\n";

/// How long a document may take until it is searched.
const PATIENCE: Duration = Duration::from_secs(20);

fn path(ws: &Workspace, slug: &str) -> String {
    ws.path(&format!("/documents/{slug}"))
}

/// The newest version, when it is split.
pub(crate) async fn ready(api: &Api, ws: &Workspace, slug: &str) -> Value {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let newest = api.get(&path(ws, slug)).await.ok(200)["data"][0].clone();
        if newest["status"] != "pending" {
            return newest;
        }
        assert!(tokio::time::Instant::now() < until, "it is not split yet: {newest}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends markdown.
pub(crate) async fn put(api: &Api, ws: &Workspace, slug: &str, text: &str) {
    api.request(http::Method::PUT, &path(ws, slug)).body("text/markdown", text.to_owned()).send().await.ok(202);
}

/// Sends markdown and waits until it is searched.
pub(crate) async fn upload(api: &Api, ws: &Workspace, slug: &str, text: &str) -> Value {
    put(api, ws, slug, text).await;
    ready(api, ws, slug).await
}

async fn search(api: &Api, ws: &Workspace, query: &str) -> Vec<Value> {
    let found = api.post(&ws.path("/documents/search"), &json!({ "query": query })).await.ok(200);
    found["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_document_is_kept_split_and_found_with_where_it_stands() {
    let ws = Workspace::local().await;
    let put = ws.member.request(http::Method::PUT, &format!("{}?title=The%20handbook&tags=hr,rules", path(&ws, "handbook")));
    let kept = put.body("text/markdown; charset=utf-8", HANDBOOK).send().await.ok(202);
    assert_eq!((&kept["slug"], &kept["version"], &kept["title"]), (&json!("handbook"), &json!(1), &json!("The handbook")));
    assert_eq!((&kept["tags"], &kept["bytes"]), (&json!(["hr", "rules"]), &json!(HANDBOOK.len())));
    let done = ready(&ws.member, &ws, "handbook").await;
    assert_eq!((&done["status"], &done["isCurrent"]), (&json!("ready"), &json!(true)));
    assert_eq!(done["chunks"], done["totalChunks"]);

    let found = search(&ws.member, &ws, "when are refunds paid?").await;
    let citation = &found[0]["citation"];
    assert!(found[0]["content"].as_str().unwrap().contains("within 30 days"), "{found:?}");
    assert_eq!((&citation["slug"], &citation["title"], &citation["version"]), (&json!("handbook"), &json!("The handbook"), &json!(1)));
    assert_eq!((&citation["heading"], &citation["documentId"]), (&json!("Handbook"), &kept["id"]));
    // Memories are searched for themselves.
    assert_eq!(ws.member.post(&ws.path("/memories/search"), &json!({ "query": "refunds" })).await.ok(200)["data"], json!([]));

    // The same again is no new version.
    let same =
        ws.member.request(http::Method::PUT, &path(&ws, "handbook")).body("text/markdown", format!("{HANDBOOK}\n")).send().await.ok(200);
    assert_eq!((&same["id"], &same["version"]), (&kept["id"], &json!(1)));
    let status = ws.member.get(&ws.path("/memory/status")).await.ok(200);
    assert_eq!((&status["documents"], &status["pendingDocuments"]), (&json!(1), &json!(0)));
    assert_eq!((&status["chunks"], &status["jobs"]), (&done["chunks"], &json!({ "waiting": 0, "dead": 0, "lagSeconds": null })));
}

#[tokio::test]
async fn a_turn_is_told_what_documents_say_and_cites_them() {
    let ws = Workspace::local().await;
    let done = upload(&ws.owner, &ws, "handbook", HANDBOOK).await;
    let answer = ws.turn("When are refunds paid?").await.ok(200);
    let said = answer["content"].as_str().unwrap();
    assert!(said.contains("[handbook, version 1: Handbook]") && said.contains("within 30 days"), "{said}");
    let citation =
        json!({ "documentId": done["id"], "slug": "handbook", "title": "handbook", "version": 1, "position": 0, "heading": "Handbook" });
    assert_eq!(answer["citations"], json!([citation]));
    // The same, when it is asked for again by its key; and as an event.
    let body = json!({ "agentId": "assistant", "message": "When are refunds paid?" });
    let ask = || ws.member.request(http::Method::POST, &ws.path("/turns")).header("idempotency-key", "again").json(&body);
    let first = ask().send().await.ok(200);
    assert_eq!((&first["citations"], ask().send().await.ok(200)["citations"].clone()), (&json!([citation]), json!([citation])));
    // What is about something else is not told: the best of nothing is nothing.
    let answer = ws.turn("zebra giraffe elephant").await.ok(200);
    assert_eq!(answer["citations"], json!([]));
    assert!(!answer["content"].as_str().unwrap().contains("30 days"));
    // Nor what somebody remembers for themselves, to somebody else.
    let anna = ws.user("anna", "member").await;
    anna.post(&ws.path("/memories"), &json!({ "kind": "note", "content": "Refunds are paid to my cat.", "personal": true })).await.ok(201);
    assert!(!ws.turn("When are refunds paid?").await.ok(200)["content"].as_str().unwrap().contains("cat"));
    assert!(anna.post(&ws.path("/turns"), &body).await.ok(200)["content"].as_str().unwrap().contains("cat"));
}

#[tokio::test]
async fn a_new_version_takes_the_place_of_the_one_before() {
    let ws = Workspace::local().await;
    upload(&ws.member, &ws, "handbook", HANDBOOK).await;
    upload(&ws.member, &ws, "other", "# Other\n\nNothing about money.").await;
    let second = upload(&ws.member, &ws, "handbook", &HANDBOOK.replace("30 days", "14 days")).await;
    assert_eq!((&second["version"], &second["isCurrent"]), (&json!(2), &json!(true)));
    let found = json!(search(&ws.member, &ws, "when are refunds paid?").await).to_string();
    assert!(found.contains("14 days") && !found.contains("30 days"), "{found}");
    let versions = ws.member.get(&path(&ws, "handbook")).await.ok(200);
    let shown: Vec<_> = versions["data"].as_array().unwrap().iter().map(|v| (v["version"].clone(), v["isCurrent"].clone())).collect();
    assert_eq!(shown, [(json!(2), json!(true)), (json!(1), json!(false))]);
    let list = ws.member.get(&ws.path("/documents?limit=1")).await.ok(200);
    assert_eq!(
        (&list["data"][0]["slug"], &list["data"][0]["version"], &list["nextCursor"]),
        (&json!("handbook"), &json!(2), &json!("handbook"))
    );
    assert_eq!(ws.member.get(&ws.path("/documents?after=handbook")).await.ok(200)["data"][0]["slug"], "other");

    assert_eq!(ws.member.delete(&path(&ws, "handbook")).await.ok(200)["versions"], 2);
    ws.member.delete(&path(&ws, "handbook")).await.problem(404, "not_found");
    ws.member.get(&path(&ws, "handbook")).await.problem(404, "not_found");
    assert!(!json!(search(&ws.member, &ws, "refunds").await).to_string().contains("14 days"));
}

#[tokio::test]
async fn html_is_read_without_its_scripts_and_a_long_text_is_searched_as_a_whole() {
    let ws = Workspace::local().await;
    let page = "<html><head><title>x</title><script>var hidden = 'plum';</script></head><body><h1>Prices</h1><p>A seat is <b>9</b> dollars.</p></body></html>";
    ws.owner.request(http::Method::PUT, &path(&ws, "prices")).body("text/html", page).send().await.ok(202);
    ready(&ws.owner, &ws, "prices").await;
    let found = search(&ws.owner, &ws, "what does a seat cost in dollars?").await;
    assert_eq!(found[0]["citation"]["heading"], "Prices");
    assert!(found[0]["content"].as_str().unwrap().contains("A seat is 9 dollars."), "{found:?}");
    assert!(!json!(found).to_string().contains("plum"));

    let paragraphs: Vec<_> = (0..4000).map(|n| format!("Paragraph {n} says that number {n} is here.\n\n")).collect();
    ws.owner.request(http::Method::PUT, &path(&ws, "long")).body("text/plain", paragraphs.concat()).send().await.ok(202);
    let done = ready(&ws.owner, &ws, "long").await;
    assert!(done["chunks"].as_i64().unwrap() > 40, "{done}");
    // Where words are searched in an index of their own, it follows.
    wait::until("the index", PATIENCE, async || match &ws.owner.get(&ws.path("/memory/status")).await.ok(200)["index"] {
        Value::Null => Ok(()),
        index if index["ready"] == true && index["waiting"] == 0 => Ok(()),
        index => Err(index.clone()),
    })
    .await;
    for n in ["0", "2718", "3999"] {
        let found = search(&ws.owner, &ws, &format!("number {n}")).await;
        // Others have the word "number" as well, and may be as near by meaning.
        let is_it = |hit: &&Value| hit["content"].as_str().unwrap().contains(&format!("number {n} is here"));
        assert!(found.iter().take(3).any(|hit| is_it(&hit)), "{n}");
    }
}

/// How many parts of bodies are kept that fulfil this.
async fn parts(db: &Db, ws: &Workspace, which: &str) -> i64 {
    db.number(&format!("SELECT count(*) FROM \"mem_{}\".bodies WHERE $1 <> '' AND {which}", ws.id), &[&ws.id]).await
}

/// All lines of the workspace's export of a type.
async fn exported(ws: &Workspace, kind: &str) -> Vec<Value> {
    workspaces::exported(ws, 1000).await.into_iter().filter(|line| line["type"] == kind).collect()
}

#[tokio::test]
async fn a_large_document_is_kept_in_parts_and_exported_in_them() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    // Characters of two bytes, so that a megabyte may end within one.
    let text = |beside: &str| -> String {
        (0..6_000)
            .map(|n| format!("Absatz {n}: {}{beside}\n\n", "ä ö ü ß ".repeat(n % 31)))
            .chain(["The last word is plum.\n".to_owned()])
            .collect()
    };
    let send = async |slug: &str, text: &str| {
        ws.owner.request(http::Method::PUT, &path(&ws, slug)).body("text/plain", text.to_owned()).send().await
    };
    let first = text("");
    let count = i64::try_from(first.len().div_ceil(1 << 20)).unwrap();
    let kept = send("long", &first).await.ok(202);
    assert_eq!((&kept["bytes"], count), (&json!(first.len()), 2));
    let done = ready(&ws.owner, &ws, "long").await;
    assert_eq!((&done["status"], &done["chunks"]), (&json!("ready"), &done["totalChunks"]));
    assert_eq!(parts(&db, &ws, "uploaded_at IS NULL").await, count);
    assert!(search(&ws.owner, &ws, "the last word is plum").await[0]["content"].as_str().unwrap().ends_with("The last word is plum."));
    // The same again is kept once.
    assert_eq!(send("long", &first).await.ok(200)["id"], kept["id"]);
    assert_eq!(parts(&db, &ws, "true").await, count);
    // Nor does the very call that kept it take anything away when it comes twice, whatever is the newest by then.
    let hash = db.rows(&format!("SELECT hash FROM \"mem_{}\".documents", ws.id), &[]).await[0]["hash"].take();
    let put = async |hash: &Value| {
        let put = json!({ "id": kept["id"], "slug": "long", "title": "long", "mediaType": "text/plain", "tags": [], "hash": hash, "bytes": 9, "parts": 1, "body": "x",
            "createdBy": "owner@test", "jobId": "0199c0de-0000-7000-8000-00000000000e", "now": "2026-11-29T00:00:00Z" });
        let sql = "SELECT astra.document_put(astra.enter($1), $2) AS said";
        let said = db.rows(sql, &[&astra_tests::proof::of(&ws.id), &put.to_string()]).await[0]["said"].take();
        serde_json::from_str::<Value>(said.as_str().unwrap()).unwrap()["outcome"].take()
    };
    assert_eq!((put(&hash).await, put(&json!("another")).await), (json!("known"), json!("late")));
    assert_eq!(parts(&db, &ws, "uploaded_at IS NULL").await, count);
    // An export has a part to a line, and not many of them to a page.
    assert_eq!(send("other", &text("!")).await.ok(202)["version"], 1);
    let page = ws.owner.get(&ws.path("/export?limit=1000")).await.expect(200);
    assert!(page.body.len() < 4_000_000 && !page.header("next-cursor").is_empty());
    let mut lines = exported(&ws, "documentPart").await;
    lines.sort_by_key(|line| line["part"].as_i64());
    let body: String = lines.iter().filter(|line| line["document_id"] == kept["id"]).map(|line| line["body"].as_str().unwrap()).collect();
    assert!(body == first && lines.len() == 4, "{}", lines.len());
    let documents = exported(&ws, "document").await;
    assert!(
        documents.len() == 2 && documents.iter().all(|document| document["body"].is_null() && document["bytes"].is_i64()),
        "{documents:?}"
    );
    ready(&ws.owner, &ws, "other").await;
    for slug in ["long", "other"] {
        ws.owner.delete(&path(&ws, slug)).await.ok(200);
    }
    assert_eq!(parts(&db, &ws, "true").await, 0);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_no_document_and_is_cleared_away() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    let send = async |body: Vec<u8>| ws.owner.request(http::Method::PUT, &path(&ws, "long")).body("text/plain", body).send().await;
    let long = "A plum. ".repeat(300_000).into_bytes();
    send([&long[..], b"\xff"].concat()).await.problem(422, "unprocessable");
    assert_eq!(parts(&db, &ws, "uploaded_at IS NOT NULL").await, 2);
    assert_eq!(ws.owner.get(&ws.path("/documents")).await.ok(200)["data"], json!([]));
    assert_eq!(ws.owner.get(&ws.path("/memory/status")).await.ok(200)["documents"], 0);
    assert!(exported(&ws, "documentPart").await.is_empty());
    // Of an upload that is under way nothing is taken; what is older than an hour is.
    send([&long[..], b"\xff"].concat()).await.problem(422, "unprocessable");
    assert_eq!(parts(&db, &ws, "true").await, 4);
    db.run(&format!("UPDATE \"mem_{}\".bodies SET uploaded_at = uploaded_at - interval '61 minutes'", ws.id)).await;
    send([&long[..], b"\xff"].concat()).await.problem(422, "unprocessable");
    assert_eq!(parts(&db, &ws, "true").await, 2);

    // Who has lost a part has no document, whether all are gone or one.
    let rows = db.rows(&format!("SELECT id FROM \"mem_{}\".bodies", ws.id), &[]).await;
    for id in [&rows[0]["id"], &json!("0199c0de-0000-7000-8000-00000000000d")] {
        let put = json!({ "id": id, "slug": "long", "title": "x", "mediaType": "text/plain", "tags": [], "hash": "x", "bytes": 9, "parts": 3, "body": "x",
            "createdBy": "owner@test", "jobId": "0199c0de-0000-7000-8000-00000000000e", "now": "2026-11-29T00:00:00Z" });
        let said =
            db.rows("SELECT astra.document_put(astra.enter($1), $2) AS said", &[&astra_tests::proof::of(&ws.id), &put.to_string()]).await;
        assert_eq!(said[0]["said"], r#"{"outcome":"late"}"#);
    }
    assert_eq!((parts(&db, &ws, "true").await, ws.owner.get(&ws.path("/documents")).await.ok(200)["data"].clone()), (0, json!([])));
}

#[tokio::test]
async fn what_is_no_document_is_refused_and_nothing_is_kept() {
    let ws = Workspace::local().await;
    let put = |slug: &str| ws.owner.request(http::Method::PUT, &path(&ws, slug));
    put("a").body("application/msword", "a").send().await.problem(415, "unsupported_media_type");
    put("a").body("application/pdf", "a").send().await.problem(422, "unprocessable");
    put("a").body("text/plain", b"\xff\xfe".to_vec()).send().await.problem(422, "unprocessable");
    put("a").body("text/plain", "a\0b").send().await.problem(422, "unprocessable");
    put("a").body("text/plain", " \n ").send().await.problem(422, "unprocessable");
    put("A").body("text/plain", "a").send().await.problem(422, "unprocessable");
    put("a?tags=B").body("text/plain", "a").send().await.problem(422, "unprocessable");
    put("a?color=red").body("text/plain", "a").undocumented().send().await.problem(422, "unprocessable");
    put("..%2f..%2fplans").body("text/plain", "a").undocumented().send().await.problem(422, "unprocessable");
    assert_eq!(ws.owner.get(&ws.path("/documents")).await.ok(200)["data"], json!([]));
    let viewer = ws.user("vera", "viewer").await;
    viewer.request(http::Method::PUT, &path(&ws, "a")).body("text/plain", "a").send().await.problem(403, "forbidden");
    // A page with nothing to read is kept, and says why it is not searched.
    put("empty").body("text/html", "<script>1</script>").send().await.ok(202);
    let empty = ready(&ws.owner, &ws, "empty").await;
    assert_eq!((&empty["status"], &empty["error"]), (&json!("failed"), &json!("There is no text in the document.")));
}

/// A document whose job nobody has done, as a process that ended leaves it.
async fn left_behind(db: &Db, ws: &Workspace, slug: &str, job: &str) {
    let id = &ws.id;
    let sql = format!(
        "WITH d AS (INSERT INTO \"mem_{id}\".documents (id, slug, version, title, media_type, tags, hash, bytes, status, created_by, created_at)
                    VALUES (gen_random_uuid(), '{slug}', 1, '{slug}', 'text/plain', '{{}}', '', 9, 'pending', 'owner@test', now()) RETURNING id),
           b AS (INSERT INTO \"mem_{id}\".bodies (id, part, body) SELECT d.id, p.n, p.body FROM d, (VALUES (1, 'purple.'), (0, 'Plums are ')) p(n, body))
         INSERT INTO jobs (workspace_id, id, kind, ordering, arg, run_at, created_at, {job})
         SELECT '{id}', '0199c0de-0000-7000-8000-000000000009', 'ingest', 'document {slug}', jsonb_build_object('documentId', d.id), now(), now(), ",
        job = job.split('=').next().unwrap()
    );
    db.run(&format!("{sql}{} FROM d", job.split('=').nth(1).unwrap())).await;
}

#[tokio::test]
async fn what_a_process_that_ended_left_behind_is_done_by_the_next() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    left_behind(&db, &ws, "plums", "leased_until=now() - interval '1 second'").await;
    // Any other job of the workspace brings it along; a server looks by itself.
    upload(&ws.owner, &ws, "other", "# Other").await;
    assert_eq!(ready(&ws.owner, &ws, "plums").await["status"], "ready");
    assert_eq!(search(&ws.owner, &ws, "plums").await[0]["content"], "Plums are purple.");
    assert_eq!(db.number("SELECT count(*) FROM jobs WHERE workspace_id = $1 AND kind <> 'words'", &[&ws.id]).await, 0);
}

#[tokio::test]
async fn a_step_without_the_lease_does_nothing() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    left_behind(&db, &ws, "plums", "leased_until=now() + interval '1 hour'").await;
    let zeros = vec!["0"; 384].join(",");
    let chunk = json!({ "id": "0199c0de-0000-7000-8000-00000000000a", "position": 0, "heading": "", "content": "forged", "embedding": format!("[{zeros}]") });
    let document = db.rows(&format!("SELECT id FROM \"mem_{}\".documents", ws.id), &[]).await[0]["id"].clone();
    let mut step = json!({
        "jobId": "0199c0de-0000-7000-8000-000000000009", "lease": "0199c0de-0000-7000-8000-00000000000b", "documentId": document, "total": 1,
        "chunks": [chunk], "leasedUntil": "2026-11-28T00:00:00Z", "now": "2026-11-28T00:00:00Z"
    });
    let call = async |function: &str, step: &Value| {
        let sql = format!("SELECT astra.{function}(astra.enter($1), $2) AS said");
        db.rows(&sql, &[&astra_tests::proof::of(&ws.id), &step.to_string()]).await[0]["said"].as_str().unwrap().to_owned()
    };
    let run = async |step: &Value| call("document_chunks", step).await;
    assert_eq!(run(&step).await, r#"{"outcome":"lost"}"#);
    let part = json!({ "jobId": step["jobId"], "lease": step["lease"], "documentId": document, "part": 0 });
    assert_eq!(call("document_body", &part).await, "");
    let index = json!({ "jobId": step["jobId"], "lease": step["lease"], "table": "chunks" });
    for function in ["index_build", "reembed_read", "reembed_write", "reembed_switch"] {
        assert_eq!(call(function, &index).await, r#"{"outcome":"lost"}"#, "{function}");
    }
    assert_eq!(db.number(&format!("SELECT count(*) FROM \"mem_{}\".chunks WHERE $1 <> ''", ws.id), &[&ws.id]).await, 0);
    db.run(&format!("UPDATE jobs SET lease = '0199c0de-0000-7000-8000-00000000000c' WHERE workspace_id = '{}'", ws.id)).await;
    step["lease"] = json!("0199c0de-0000-7000-8000-00000000000c");
    let mut part = part;
    part["lease"] = step["lease"].clone();
    assert_eq!(call("document_body", &part).await, "Plums are ");
    assert_eq!(run(&step).await, r#"{"outcome":"done"}"#);
    // Twice is once.
    assert_eq!(run(&step).await, r#"{"outcome":"lost"}"#);
    assert_eq!(search(&ws.owner, &ws, "forged").await[0]["content"], "forged");
}

#[tokio::test]
async fn a_dead_job_is_the_operators_to_see_and_to_try_again() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    left_behind(&db, &ws, "plums", "dead_at=now()").await;
    let jobs = ws.path("/memory/jobs");
    ws.owner.get(&jobs).await.problem(403, "forbidden");
    // A role of the workspace's own may have any permission, and is no operator.
    ws.owner.put(&ws.path("/roles/lister"), &json!({ "allow": ["workspace:list", "memory:*"] })).await.problem(403, "forbidden");
    ws.operator.put(&ws.path("/roles/lister"), &json!({ "allow": ["workspace:list", "memory:*"] })).await.ok(200);
    ws.user("lea", "lister").await.get(&jobs).await.problem(403, "forbidden");
    let list = ws.operator.get(&jobs).await.ok(200);
    let job = &list["data"][0];
    assert_eq!((&job["kind"], &job["about"]), (&json!("ingest"), &json!("document plums")));
    assert_eq!(ws.operator.get(&format!("{jobs}?state=waiting")).await.ok(200)["data"], json!([]));
    assert_eq!(ws.owner.get(&ws.path("/memory/status")).await.ok(200)["jobs"]["dead"], 1);
    let replay = format!("{jobs}/{}/replay", job["id"].as_str().unwrap());
    ws.owner.post(&replay, &json!({})).await.problem(403, "forbidden");
    let _ = ws.operator.request(http::Method::POST, &replay).send().await.expect(202);
    assert_eq!(ready(&ws.owner, &ws, "plums").await["status"], "ready");
    ws.operator.request(http::Method::POST, &replay).send().await.problem(404, "not_found");
}

#[tokio::test]
async fn an_old_version_that_is_done_late_takes_nobodys_place() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    left_behind(&db, &ws, "plums", "dead_at=now()").await;
    let second = upload(&ws.owner, &ws, "plums", "Plums are yellow.").await;
    assert_eq!((&second["version"], &second["isCurrent"]), (&json!(2), &json!(true)));
    let job = ws.operator.get(&ws.path("/memory/jobs")).await.ok(200)["data"][0]["id"].as_str().unwrap().to_owned();
    let _ = ws.operator.request(http::Method::POST, &ws.path(&format!("/memory/jobs/{job}/replay"))).send().await.expect(202);
    let gone = async || match db.number("SELECT count(*) FROM jobs WHERE workspace_id = $1 AND kind <> 'words'", &[&ws.id]).await {
        0 => Ok(()),
        jobs => Err(jobs),
    };
    astra_tests::wait::until("the job is done", PATIENCE, gone).await;
    let versions = ws.owner.get(&path(&ws, "plums")).await.ok(200);
    let shown: Vec<_> = versions["data"].as_array().unwrap().iter().map(|v| (v["status"].clone(), v["isCurrent"].clone())).collect();
    assert_eq!(shown, [(json!("ready"), json!(true)), (json!("ready"), json!(false))]);
    let found = json!(search(&ws.owner, &ws, "plums").await).to_string();
    assert!(found.contains("yellow") && !found.contains("purple"), "{found}");
}

#[tokio::test]
async fn a_document_removed_while_its_job_waits_leaves_nothing() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    left_behind(&db, &ws, "plums", "leased_until=now() + interval '1 hour'").await;
    assert_eq!(ws.owner.delete(&path(&ws, "plums")).await.ok(200), json!({ "versions": 1, "chunks": 0 }));
    assert_eq!(db.number("SELECT count(*) FROM jobs WHERE workspace_id = $1 AND kind <> 'words'", &[&ws.id]).await, 0);
}

#[tokio::test]
async fn a_version_that_is_being_split_is_not_found() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    upload(&ws.member, &ws, "handbook", HANDBOOK).await;
    // As it is between two steps of the job: some pieces are there, the same as those that are searched.
    db.run(&format!(
        "WITH d AS (INSERT INTO \"mem_{0}\".documents (id, slug, version, title, media_type, tags, hash, bytes, status, created_by, created_at)
                    VALUES (gen_random_uuid(), 'handbook', 2, 'half', 'text/plain', '{{}}', '', 4, 'pending', 'member@test', now()) RETURNING id)
         INSERT INTO \"mem_{0}\".chunks (id, document_id, position, heading, content, embedding)
         SELECT gen_random_uuid(), d.id, c.position, c.heading, c.content, c.embedding FROM d, \"mem_{0}\".chunks c",
        ws.id
    ))
    .await;
    let found = search(&ws.member, &ws, "when are refunds paid?").await;
    let versions: Vec<_> = found.iter().map(|hit| hit["citation"]["version"].clone()).collect();
    assert_eq!(versions, vec![json!(1); versions.len()]);
    assert!((found[0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "no place is lost to it: {found:?}");
}
