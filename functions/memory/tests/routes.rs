//! What each endpoint asks of the database and of whom, and what it answers; and how jobs are done.

use astra_host::testing::{FakeHost, NOW, Reply, Sent, send, send_as, token};
use astra_store::StoreError;
use memory::routes::{ROUTES, document, router};
use memory::work;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ID: &str = "0199c0de-0000-7000-8000-000000000001";

async fn as_member(host: &FakeHost, method: &str, path: &str, body: &str) -> Reply {
    send(&router::<FakeHost>(), host, method, path, Some(&token(Some("acme"), "member", None)), body).await
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = serde_json::to_value(document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone())))
        .collect();
    let routed: BTreeSet<_> = ROUTES.iter().map(|(method, pattern)| ((*method).to_owned(), (*pattern).to_owned())).collect();
    assert_eq!(described, routed);
}

fn hit(id: &str, content: &str) -> Value {
    json!({ "id": id, "source": "memory", "kind": "fact", "content": content, "pinned": false, "updatedAt": "2026-11-24T12:00:00.000Z" })
}

#[tokio::test]
async fn both_searches_make_one_order_and_a_threshold_cuts_it() {
    let (one, two, three) = (ID.to_owned(), ID.replace("001", "002"), ID.replace("001", "003"));
    let host = FakeHost::new(&[]);
    let found = json!([hit(&one, "one"), hit(&two, "two"), hit(&three, "three")]);
    host.answer("memory_search", &json!({ "outcome": "ok", "found": found, "vector": [one, two], "keyword": [two, one, three] }));
    let answer = as_member(&host, "POST", "/workspaces/acme/memories/search", r#"{"query":" what? "}"#).await.ok(200);
    let contents = |answer: &Value| answer["data"].as_array().unwrap().iter().map(|row| row["content"].clone()).collect::<Vec<_>>();
    // The words' order: what the local embedder finds weighs a hundredth.
    assert_eq!(contents(&answer), ["two", "one", "three"]);
    let score = |at: usize| answer["data"][at]["score"].as_f64().unwrap();
    assert!(
        (score(0) - (100.0 + 61.0 / 62.0) / 101.0).abs() < 1e-9 && (score(1) - (100.0 * 61.0 / 62.0 + 1.0) / 101.0).abs() < 1e-9,
        "{answer}"
    );
    let asked = host.argument("memory_search");
    assert_eq!((&asked["subject"], &asked["what"], &asked["query"]), (&json!("user-1"), &json!(["memories"]), &json!("what?")));
    let answer = as_member(&host, "POST", "/workspaces/acme/memories/search", r#"{"query":"what?","threshold":0.97}"#).await.ok(200);
    assert_eq!(contents(&answer), ["two", "one"]);
    let other = FakeHost::new(&[]);
    other.answer("memory_search", &json!({ "outcome": "ok", "found": found, "vector": [one], "keyword": [one, three] }));
    let answer = as_member(&other, "POST", "/workspaces/acme/documents/search", r#"{"query":"what?","limit":1}"#).await.ok(200);
    assert_eq!((contents(&answer), &other.argument("memory_search")["what"]), (vec![json!("one")], &json!(["documents"])));
    host.answer("memory_search", &json!({ "outcome": "not_found" }));
    as_member(&host, "POST", "/workspaces/acme/memories/search", r#"{"query":"what?"}"#).await.problem(404);
}

#[tokio::test]
async fn a_large_document_is_kept_in_parts_and_named_by_the_last() {
    let host = FakeHost::new(&[]);
    host.answer("document_part", &json!({ "outcome": "ok" })).answer("document_put", &json!({ "outcome": "late" }));
    let token = token(Some("acme"), "member", None);
    let upload = async |host: &FakeHost, body: String| {
        let ask = Sent { token: Some(&token), content_type: "text/plain", accept: "*/*", body };
        send_as(&router::<FakeHost>(), host, "PUT", "/workspaces/acme/documents/plums", ask).await
    };
    upload(&host, "plums ".repeat(400_000)).await.problem(400);
    let sent = host
        .calls()
        .into_iter()
        .filter(|(name, _)| name.starts_with("document"))
        .map(|(name, params)| (name, params.last().unwrap().clone()));
    let sent: Vec<(String, Value)> = sent.map(|(name, params)| (name, serde_json::from_str(&params).unwrap())).collect();
    let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["document_part", "document_part", "document_put"]);
    assert_eq!(
        (&sent[0].1["part"], &sent[1].1["part"], &sent[2].1["parts"], &sent[2].1["bytes"]),
        (&json!(0), &json!(1), &json!(2), &json!(2_400_000))
    );
    assert!(sent[0].1["documentId"] == sent[2].1["id"] && sent[1].1["documentId"] == sent[2].1["id"]);
    let body: String = sent.iter().map(|(_, sent)| sent["body"].as_str().unwrap()).collect();
    assert!(body == "plums ".repeat(400_000));
    // What is short goes in one call; what is larger than it may be is refused.
    let host = FakeHost::new(&[]);
    host.answer("document_put", &json!({ "outcome": "not_found" }));
    upload(&host, "plums".to_owned()).await.problem(404);
    assert_eq!(host.argument("document_put")["parts"], 0);
    host.answer("document_part", &json!({ "outcome": "ok" }));
    upload(&host, "plums ".repeat(3_500_000)).await.problem(413);
}

#[tokio::test]
async fn the_database_away_is_said_and_nothing_is_kept() {
    let host = FakeHost::new(&[]);
    for name in ["memory_write", "memory_list", "memory_search", "memory_remove", "memory_forget", "memory_status"] {
        host.fail(name, StoreError::Unreachable);
    }
    for (method, path, body) in [
        ("POST", "/workspaces/acme/memories".to_owned(), r#"{"kind":"fact","content":"x"}"#),
        ("GET", "/workspaces/acme/memories".to_owned(), ""),
        ("POST", "/workspaces/acme/memories/search".to_owned(), r#"{"query":"x"}"#),
        ("DELETE", format!("/workspaces/acme/memories/{ID}"), ""),
        ("DELETE", "/workspaces/acme/users/user-1/memory".to_owned(), ""),
        ("GET", "/workspaces/acme/memory/status".to_owned(), ""),
    ] {
        as_member(&host, method, &path, body).await.problem(503);
    }
}

/// The embedder of who has set none.
fn local() -> Value {
    json!({ "provider": "local", "dimensions": 384, "generation": 0 })
}

/// A workspace with one job, whose document says this.
fn with_job(body: &str, attempts: u32) -> FakeHost {
    let host = FakeHost::new(&[]);
    host.answer("op_jobs_due", &json!({ "outcome": "ok", "workspaces": ["acme"] }));
    let job = json!({ "id": ID, "kind": "ingest", "arg": { "documentId": ID }, "attempts": attempts });
    host.answer("job_take", &json!({ "outcome": "ok", "job": job }));
    host.answer(
        "document_read",
        &json!({ "outcome": "ok", "mediaType": "text/plain", "parts": 1, "chunks": 0, "createdBy": "user-1", "embedder": local() }),
    );
    host.answer("job_fail", &json!({ "outcome": "ok" })).answer_text("document_body", body);
    host
}

async fn once(host: &FakeHost) {
    assert_eq!(work::round(host, None).await, Ok(1));
}

#[tokio::test]
async fn a_document_is_written_in_batches_under_one_lease() {
    let host = with_job(&"A sentence about plums. ".repeat(20_000), 1);
    // Somebody else has it: no further batch, and no failure is written down.
    host.answer("document_chunks", &json!({ "outcome": "lost" }));
    once(&host).await;
    let sent = host.argument("document_chunks");
    assert_eq!(sent["chunks"].as_array().unwrap().len(), 64);
    assert_eq!((&sent["jobId"], &sent["chunks"][0]["position"], &sent["chunks"][63]["position"]), (&json!(ID), &json!(0), &json!(63)));
    let total = sent["total"].as_u64().unwrap();
    assert!(total > 64);
    assert!(host.calls().iter().all(|(name, _)| name != "job_fail"));

    let host = with_job(&"A sentence about plums. ".repeat(20_000), 1);
    host.answer("document_chunks", &json!({ "outcome": "ok" }));
    once(&host).await;
    let batches = host.calls().into_iter().filter(|(name, _)| name == "document_chunks").map(|(_, params)| params.last().unwrap().clone());
    let batches: Vec<Value> = batches.map(|batch| serde_json::from_str(&batch).unwrap()).collect();
    let places: Vec<u64> =
        batches.iter().flat_map(|batch| batch["chunks"].as_array().unwrap()).map(|chunk| chunk["position"].as_u64().unwrap()).collect();
    assert_eq!(places, (0..total).collect::<Vec<_>>());
    let leases: BTreeSet<_> = batches.iter().map(|batch| batch["lease"].to_string()).collect();
    assert_eq!(leases.len(), 1);
}

#[tokio::test]
async fn who_takes_over_goes_on_with_the_first_piece_that_is_missing() {
    let host = with_job(&"A sentence about plums. ".repeat(20_000), 2);
    host.answer(
        "document_read",
        &json!({ "outcome": "ok", "mediaType": "text/plain", "parts": 2, "chunks": 70, "createdBy": "user-1", "embedder": local() }),
    );
    host.answer("document_chunks", &json!({ "outcome": "lost" }));
    once(&host).await;
    let sent = host.argument("document_chunks");
    assert_eq!((&sent["chunks"][0]["position"], sent["total"].as_u64().unwrap() > 240), (&json!(70), true));
    // Its two parts are read to count, and again as far as they are needed: 134 pieces are of the first.
    let parts = host.calls().into_iter().filter(|(name, _)| name == "document_body").map(|(_, params)| params.last().unwrap().clone());
    let parts: Vec<Value> = parts.map(|part| serde_json::from_str::<Value>(&part).unwrap()["part"].clone()).collect();
    assert_eq!(parts, [0, 1, 0]);
    // A part that is not there: somebody else has the job, or the document is gone.
    let host = with_job("", 1);
    once(&host).await;
    assert!(host.calls().iter().all(|(name, _)| name != "document_chunks" && name != "job_fail"));
}

#[tokio::test]
async fn what_fails_is_tried_again_later_and_what_never_will_do_is_not() {
    let host = with_job("plums", 3);
    host.fail("document_chunks", StoreError::Unreachable);
    once(&host).await;
    let failed = host.argument("job_fail");
    assert_eq!(failed["runAt"], json!(NOW.plus_millis(20_000)));
    let host = with_job("plums", 8);
    host.fail("document_chunks", StoreError::Unreachable);
    once(&host).await;
    assert_eq!(host.argument("job_fail")["runAt"], Value::Null);
    let host = with_job(" ", 1);
    once(&host).await;
    let failed = host.argument("job_fail");
    assert_eq!((&failed["runAt"], &failed["error"]), (&Value::Null, &json!("There is no text in the document.")));
}

#[tokio::test]
async fn a_table_that_has_become_large_is_indexed_under_the_jobs_lease() {
    let host = with_job("", 1);
    host.answer("job_take", &json!({ "outcome": "ok", "job": { "id": ID, "kind": "index", "arg": { "table": "chunks" }, "attempts": 1 } }));
    host.answer("index_build", &json!({ "outcome": "done" }));
    once(&host).await;
    let sent = host.argument("index_build");
    assert_eq!((&sent["jobId"], &sent["table"], sent["lease"].is_string()), (&json!(ID), &json!("chunks"), true));
    assert!(host.calls().iter().all(|(name, _)| name != "job_fail"));
    // It holds up writers and may not get the table in time: then again.
    host.fail("index_build", StoreError::Unreachable);
    once(&host).await;
    assert_eq!(host.argument("job_fail")["runAt"], json!(NOW.plus_millis(5_000)));
}

#[tokio::test]
async fn what_was_embedded_for_another_embedder_is_tried_again() {
    let host = with_job("plums", 1);
    host.answer("document_chunks", &json!({ "outcome": "stale" }));
    once(&host).await;
    let failed = host.argument("job_fail");
    assert_eq!((&failed["runAt"], failed["error"].as_str().unwrap().contains("embedder")), (&json!(NOW.plus_millis(5_000)), true));
}

#[tokio::test]
async fn all_is_embedded_once_more_until_nothing_is_left_and_then_the_one_takes_the_others_place() {
    let host = with_job("", 1);
    host.answer("job_take", &json!({ "outcome": "ok", "job": { "id": ID, "kind": "reembed", "arg": {}, "attempts": 1 } }));
    host.answer("reembed_read", &json!({ "outcome": "ok", "embedder": local(), "rows": [] }));
    host.answer("reembed_switch", &json!({ "outcome": "done" }));
    once(&host).await;
    assert_eq!(host.argument("reembed_switch")["jobId"], json!(ID));
    assert!(host.calls().iter().all(|(name, _)| name != "reembed_write" && name != "job_fail"));
    // Somebody else has it.
    let rows = json!([{ "table": "memories", "id": ID, "text": "plums" }]);
    host.answer("reembed_read", &json!({ "outcome": "ok", "embedder": local(), "rows": rows }));
    host.answer("reembed_write", &json!({ "outcome": "lost" }));
    once(&host).await;
    let kept = host.argument("reembed_write");
    assert_eq!((&kept["rows"][0]["table"], kept["rows"][0]["embedding"].as_str().unwrap().starts_with('[')), (&json!("memories"), true));
    assert!(host.calls().iter().all(|(name, _)| name != "job_fail"));
}
