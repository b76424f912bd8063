//! Embedders of providers: a workspace's memory is of one of them, another one takes its place when all is embedded by it, and what each call cost is in the ledger.

use astra_tests::scripted::Act;
use astra_tests::{Api, Db, Scripted, Workspace, wait, workspace};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a job may take, a second try after five seconds included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server counts for each text.
const TOKENS: usize = 7;

/// An embedder that knows some synonyms, which no search by words does. `down`: it answers 503. `numbers`: how many a vector of its has.
struct Embedder {
    server: Scripted,
    down: Arc<AtomicBool>,
    numbers: Arc<AtomicUsize>,
    model: String,
}

fn vector(text: &str, numbers: usize) -> Vec<f64> {
    let means = [["plum", "prune"], ["train", "railway"], ["holiday", "vacation"]];
    let mut vector = vec![0.001; numbers];
    for (at, words) in means.iter().enumerate() {
        if words.iter().any(|word| text.to_lowercase().contains(word)) {
            vector[at] = 1.0;
        }
    }
    vector
}

impl Embedder {
    async fn start() -> Self {
        let (down, numbers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(8)));
        let server = Scripted::directed({
            let (down, numbers) = (down.clone(), numbers.clone());
            move |_, body| {
                if down.load(Ordering::SeqCst) {
                    return vec![Act::Head(503, &[]), Act::End];
                }
                let texts: Vec<&str> = body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
                let data: Vec<Value> = texts
                    .iter()
                    .enumerate()
                    .map(|(at, text)| json!({ "index": at, "embedding": vector(text, numbers.load(Ordering::SeqCst)) }))
                    .collect();
                let answer = json!({ "object": "list", "data": data, "usage": { "prompt_tokens": TOKENS * texts.len() } });
                vec![Act::Head(200, &[("content-type", "application/json")]), Act::Chunk(answer.to_string()), Act::End]
            }
        })
        .await;
        let model = workspace::unique("embedder");
        let price =
            json!({ "provider": "openai", "model": model, "inputUsdPerMtok": 1.0, "cachedInputUsdPerMtok": 1.0, "outputUsdPerMtok": 0.0 });
        Api::operator().put("/billing/prices", &price).await.ok(200);
        Self { server, down, numbers, model }
    }

    fn settings(&self) -> Value {
        json!({ "embedder": { "provider": "openai", "model": self.model, "dimensions": 8, "endpoint": self.server.openai() } })
    }

    fn fails(&self, is: bool) {
        self.down.store(is, Ordering::SeqCst);
    }
}

async fn settings(ws: &Workspace) -> Value {
    ws.member.get(&ws.path("/memory/settings")).await.ok(200)
}

/// A workspace whose memory is the embedder's.
async fn embedded_by(embedder: &Embedder) -> Workspace {
    let ws = Workspace::local().await;
    ws.put_secret("OPENAI_API_KEY", "sk-embedder").await;
    ws.operator.put(&ws.path("/memory/settings"), &embedder.settings()).await.ok(200);
    in_force(&ws, embedder).await;
    ws
}

async fn in_force(ws: &Workspace, embedder: &Embedder) {
    wait::until("the embedder", PATIENCE, async || {
        let now = settings(ws).await;
        if now["embedder"]["model"] == embedder.model.as_str() { Ok(()) } else { Err(now) }
    })
    .await;
}

async fn write(ws: &Workspace, content: &str) {
    ws.member.post(&ws.path("/memories"), &json!({ "kind": "fact", "content": content })).await.ok(201);
}

async fn search(ws: &Workspace, query: &str) -> Value {
    ws.member.post(&ws.path("/memories/search"), &json!({ "query": query, "threshold": 0.4 })).await.ok(200)
}

fn contents(found: &Value) -> Vec<&str> {
    found["data"].as_array().unwrap().iter().map(|hit| hit["content"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_search_is_by_the_embedders_vectors_and_the_ledger_has_what_it_counted() {
    let embedder = Embedder::start().await;
    let ws = embedded_by(&embedder).await;
    write(&ws, "Plum cake is on the menu.").await;
    write(&ws, "The office is in Lisbon.").await;
    let upload = ws.member.request(http::Method::PUT, &ws.path("/documents/travel")).body("text/markdown", "# Travel\n\nWe go by train.\n");
    upload.send().await.ok(202);
    assert_eq!(crate::knowledge::ready(&ws.member, &ws, "travel").await["status"], "ready");

    // Not one word in common.
    assert_eq!(contents(&search(&ws, "prunes").await)[0], "Plum cake is on the menu.");
    let found = ws.member.post(&ws.path("/documents/search"), &json!({ "query": "railways", "limit": 1 })).await.ok(200);
    assert!(contents(&found)[0].contains("by train"), "{found}");

    // Two memories, a piece of a document, two queries: a call and an entry each, by what the server counted.
    let entries: Vec<Value> = Db::connect().await.ledger(&ws.id).await;
    assert_eq!(embedder.server.calls().len(), 5);
    assert_eq!(entries.len(), 5, "{entries:?}");
    for entry in &entries {
        assert_eq!((&entry["kind"], &entry["source"], &entry["model"]), (&json!("embedding"), &json!("provider"), &json!(embedder.model)));
        assert_eq!((&entry["embedding_tokens"], &entry["nano"]), (&json!(TOKENS), &json!(TOKENS * 1000)));
    }
    // The same piece in another document costs nothing; what is new does.
    for slug in ["travel-2", "travel"] {
        let more = format!("# Travel\n\nWe go by train.\n{}", if slug == "travel" { "\n# More\n\nOr by bus.\n" } else { "" });
        ws.member.request(http::Method::PUT, &ws.path(&format!("/documents/{slug}"))).body("text/markdown", more).send().await.ok(202);
        assert_eq!(crate::knowledge::ready(&ws.member, &ws, slug).await["status"], "ready");
    }
    let calls = embedder.server.calls();
    assert_eq!(calls.len(), 6, "{calls:?}");
    assert_eq!(ws.held().await, 0);
    assert!(embedder.server.calls()[0].head.contains("sk-embedder"));
}

#[tokio::test]
async fn without_the_embedder_the_words_are_searched_and_the_answer_says_so() {
    let embedder = Embedder::start().await;
    let ws = embedded_by(&embedder).await;
    write(&ws, "Plum cake is on the menu.").await;
    let whole = search(&ws, "plum").await;
    assert_eq!((contents(&whole), &whole["legs"]), (vec!["Plum cake is on the menu."], &Value::Null));
    embedder.fails(true);
    let began = tokio::time::Instant::now();
    let by_words = search(&ws, "plum").await;
    assert_eq!(
        (contents(&by_words), &by_words["legs"]),
        (vec!["Plum cake is on the menu."], &json!({ "vector": "failed", "keyword": "ok" }))
    );
    assert!((by_words["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "first in all that answered: {by_words}");
    assert!(began.elapsed() < Duration::from_secs(6));
    assert_eq!(contents(&search(&ws, "prune").await), Vec::<&str>::new());
    // What cannot be embedded is not kept either, and costs nothing.
    ws.member.post(&ws.path("/memories"), &json!({ "kind": "fact", "content": "More plums." })).await.problem(503, "unavailable");
    let db = Db::connect().await;
    wait::until("nothing held", PATIENCE, async || if ws.held().await == 0 { Ok(()) } else { Err("held") }).await;
    let charged = db.ledger(&ws.id).await.iter().filter(|entry| entry["nano"] != 0).count();
    assert_eq!(charged, 2, "the memory and the first query");
    // A turn's message is embedded locally: it is told what its words find, and says so.
    let answer = ws.turn("What is on the menu, plum cake?").await.ok(200);
    assert!(answer["content"].as_str().unwrap().contains("Plum cake is on the menu."), "{answer}");
    assert_eq!(answer["leftOut"], json!(["vector"]));
}

#[tokio::test]
async fn what_there_was_is_searched_until_all_is_embedded_once_more() {
    let embedder = Embedder::start().await;
    let ws = Workspace::local().await;
    ws.put_secret("OPENAI_API_KEY", "sk-embedder").await;
    write(&ws, "Plum cake is on the menu.").await;
    write(&ws, "The office is in Lisbon.").await;
    embedder.fails(true);
    let set = ws.operator.put(&ws.path("/memory/settings"), &embedder.settings()).await.ok(200);
    assert_eq!(
        (&set["embedder"]["provider"], &set["nextEmbedder"]["model"], &set["toEmbed"]),
        (&json!("local"), &json!(embedder.model), &json!(2))
    );
    // Both searches answer, by the local vectors: what is first in both is there.
    let found = search(&ws, "plum cake").await;
    assert_eq!((contents(&found)[0], &found["legs"]), ("Plum cake is on the menu.", &Value::Null));
    assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{found}");
    assert_eq!(contents(&search(&ws, "prune").await).len(), 2, "near to nothing, and the best there is");
    // What is written meanwhile is searched at once and embedded with the rest.
    write(&ws, "Vacations are in August.").await;
    embedder.fails(false);
    in_force(&ws, &embedder).await;
    let now = settings(&ws).await;
    assert_eq!((&now["nextEmbedder"], &now["toEmbed"]), (&Value::Null, &json!(0)));
    assert_eq!(contents(&search(&ws, "prune").await)[0], "Plum cake is on the menu.");
    assert_eq!(contents(&search(&ws, "holiday").await)[0], "Vacations are in August.");
    // Each text once, whatever failed before: three memories and two queries.
    let counted: i64 = Db::connect().await.ledger(&ws.id).await.iter().map(|entry| entry["embedding_tokens"].as_i64().unwrap()).sum();
    assert_eq!(counted, 5 * i64::try_from(TOKENS).unwrap());
    // And back.
    let local = json!({ "embedder": { "provider": "local", "dimensions": 384 } });
    ws.operator.put(&ws.path("/memory/settings"), &local).await.ok(200);
    wait::until("the local embedder", PATIENCE, async || {
        let now = settings(&ws).await;
        if now["embedder"]["provider"] == "local" { Ok(()) } else { Err(now) }
    })
    .await;
    let found = search(&ws, "plum cake").await;
    assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{found}");
}

#[tokio::test]
async fn vectors_of_another_length_are_refused_and_nothing_changes() {
    let embedder = Embedder::start().await;
    let ws = Workspace::local().await;
    ws.put_secret("OPENAI_API_KEY", "sk-embedder").await;
    write(&ws, "Plum cake is on the menu.").await;
    embedder.numbers.store(7, Ordering::SeqCst);
    ws.operator.put(&ws.path("/memory/settings"), &embedder.settings()).await.ok(200);
    let error = wait::until("the job's failure", PATIENCE, async || {
        let jobs = ws.operator.get(&ws.path("/memory/jobs?state=waiting")).await.ok(200);
        jobs["data"][0]["error"].as_str().map(str::to_owned).ok_or(jobs)
    })
    .await;
    assert!(error.contains("another length"), "{error}");
    assert_eq!(settings(&ws).await["embedder"]["provider"], "local");
    assert_eq!(contents(&search(&ws, "plum cake").await)[0], "Plum cake is on the menu.");
}

#[tokio::test]
async fn who_searches_or_writes_in_the_moment_of_the_change_is_of_the_one_or_the_other() {
    let embedder = Embedder::start().await;
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    ws.put_secret("OPENAI_API_KEY", "sk-embedder").await;
    write(&ws, "Plum cake is on the menu.").await;
    // As the job does it, but slowly: both wait for it, with vectors of the local embedder in hand.
    let id = &ws.id;
    db.run(&format!("BEGIN; LOCK TABLE \"mem_{id}\".memories, \"mem_{id}\".chunks IN ACCESS EXCLUSIVE MODE")).await;
    let change = async {
        wait::millis(500).await;
        let set = json!({ "provider": "openai", "model": embedder.model, "dimensions": 8, "endpoint": embedder.server.openai() });
        db.run(&format!(
            "ALTER TABLE \"mem_{id}\".memories DROP COLUMN embedding, ADD COLUMN embedding vector(8);
             ALTER TABLE \"mem_{id}\".chunks DROP COLUMN embedding, ADD COLUMN embedding vector(8);
             INSERT INTO memory_settings (workspace_id, embedder, generation, updated_at) VALUES ('{id}', '{set}', 1, now()); COMMIT"
        ))
        .await;
    };
    let plums = json!({ "kind": "fact", "content": "Plums are blue." });
    let (path, turn) = (ws.path("/memories"), ws.turn("What is on the menu, plum cake?"));
    let (found, written, turn, ()) = tokio::join!(search(&ws, "plum cake"), ws.member.post(&path, &plums), turn, change);
    assert!(contents(&found).contains(&"Plum cake is on the menu."), "{found}");
    written.ok(201);
    assert!(turn.ok(200)["content"].as_str().unwrap().contains("Plum cake is on the menu."));
    assert_eq!(contents(&search(&ws, "prune").await)[0], "Plums are blue.");
}

#[tokio::test]
async fn settings_are_the_operators_and_what_is_none_is_named() {
    let ws = Workspace::local().await;
    let path = ws.path("/memory/settings");
    let local = json!({ "embedder": { "provider": "local", "dimensions": 384 }, "fade": { "weight": 0.5, "halfLifeDays": 30 } });
    ws.owner.put(&path, &local).await.problem(403, "forbidden");
    let set = ws.operator.put(&path, &local).await.ok(200);
    assert_eq!(
        (&set["fade"], &set["embedder"], &set["toEmbed"]),
        (&json!({ "weight": 0.5, "halfLifeDays": 30.0 }), &local["embedder"], &json!(0))
    );
    let of = |embedder: Value| json!({ "embedder": embedder });
    for (body, pointer) in [
        (of(json!({ "provider": "anthropic", "model": "m", "dimensions": 8 })), "/embedder/provider"),
        (of(json!({ "provider": "local", "dimensions": 8 })), "/embedder/dimensions"),
        (of(json!({ "provider": "local", "model": "m", "dimensions": 384 })), "/embedder/model"),
        (of(json!({ "provider": "openai", "dimensions": 8 })), "/embedder/model"),
        (of(json!({ "provider": "openai", "model": "m", "dimensions": 2001 })), "/embedder/dimensions"),
        (of(json!({ "provider": "openai", "model": "m", "dimensions": 0 })), "/embedder/dimensions"),
        (of(json!({ "provider": "openai", "model": "m", "dimensions": 8, "endpoint": "http://169.254.169.254/v1" })), "/embedder/endpoint"),
        (json!({ "embedder": local["embedder"], "fade": { "weight": 2, "halfLifeDays": 1 } }), "/fade"),
    ] {
        let problem = ws.operator.put(&path, &body).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert_eq!(settings(&ws).await["fade"]["weight"], 0.5);
}

#[tokio::test]
async fn what_is_old_loses_and_what_is_pinned_does_not() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    write(&ws, "Plum cake was on the old menu.").await;
    ws.member
        .post(&ws.path("/memories"), &json!({ "kind": "fact", "content": "Pear cake is on every menu.", "pinned": true }))
        .await
        .ok(201);
    db.run(&format!("UPDATE \"mem_{0}\".memories SET updated_at = updated_at - interval '30 days'", ws.id)).await;
    let score = async |content: &str| {
        let query = json!({ "query": "pear cake on every menu" });
        let found = ws.member.post(&ws.path("/memories/search"), &query).await.ok(200);
        let hit = found["data"].as_array().unwrap().iter().find(|hit| hit["content"] == content).unwrap().clone();
        hit["score"].as_f64().unwrap()
    };
    let first_of_a_turn = async || {
        let answer = ws.turn("plum cake on the old menu").await.ok(200);
        let said = answer["content"].as_str().unwrap();
        if said.find("Plum cake was").unwrap() < said.find("Pear cake is").unwrap() { "plum" } else { "pear" }
    };
    let (old, pinned) = (score("Plum cake was on the old menu.").await, score("Pear cake is on every menu.").await);
    assert_eq!(first_of_a_turn().await, "plum");
    let body = json!({ "embedder": { "provider": "local", "dimensions": 384 }, "fade": { "weight": 1.0, "halfLifeDays": 30 } });
    ws.operator.put(&ws.path("/memory/settings"), &body).await.ok(200);
    let faded = score("Plum cake was on the old menu.").await;
    assert!((faded - old / 2.0).abs() < 0.01, "{faded} of {old}");
    assert!((score("Pear cake is on every menu.").await - pinned).abs() < 1e-9);
    assert_eq!(first_of_a_turn().await, "pear");
}
