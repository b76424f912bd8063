//! Embedders of providers: a workspace's memory is of one of them, another one takes its place when all is embedded by it, and what each call cost is in the ledger.

use astra_tests::scripted::Act;
use astra_tests::{Api, Db, Scripted, Typesense, Workspace, canary, scripted, template, wait, workspace};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a job may take, a second try after five seconds included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the server counts for each text.
const TOKENS: usize = 7;

/// An embedder that knows some synonyms, which no search by words does. `down`: it answers 500. `late`: by so many milliseconds. `numbers`: how many a vector of its has.
struct Embedder {
    server: Scripted,
    down: Arc<AtomicBool>,
    late: Arc<AtomicUsize>,
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
        let (down, late, numbers) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::new(AtomicUsize::new(8)));
        let server = Scripted::directed({
            let (down, late, numbers) = (down.clone(), late.clone(), numbers.clone());
            move |_, body| {
                if down.load(Ordering::SeqCst) {
                    return vec![Act::Head(500, &[]), Act::End];
                }
                let texts: Vec<&str> = body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
                let data: Vec<Value> = texts
                    .iter()
                    .enumerate()
                    .map(|(at, text)| json!({ "index": at, "embedding": vector(text, numbers.load(Ordering::SeqCst)) }))
                    .collect();
                let answer = json!({ "object": "list", "data": data, "usage": { "prompt_tokens": TOKENS * texts.len() } });
                let pause = Act::Pause(Duration::from_millis(late.load(Ordering::SeqCst) as u64));
                vec![pause, Act::Head(200, &[("content-type", "application/json")]), Act::Chunk(answer.to_string()), Act::End]
            }
        })
        .await;
        let embedder = Self { server, down, late, numbers, model: workspace::unique("embedder") };
        embedder.costs(1.0).await;
        embedder
    }

    async fn costs(&self, usd: f64) {
        let price = json!({ "provider": "openai", "model": self.model, "inputUsdPerMtok": usd, "cachedInputUsdPerMtok": usd, "outputUsdPerMtok": 0.0 });
        Api::operator().put("/billing/prices", &price).await.ok(200);
    }

    fn settings(&self) -> Value {
        json!({ "embedder": { "provider": "openai", "model": self.model, "dimensions": 8, "endpoint": self.server.openai() } })
    }

    fn fails(&self, is: bool) {
        self.down.store(is, Ordering::SeqCst);
    }

    fn answers_after(&self, millis: usize) {
        self.late.store(millis, Ordering::SeqCst);
    }
}

async fn settings(ws: &Workspace) -> Value {
    ws.member.get(&ws.path("/memory/settings")).await.ok(200)
}

/// A workspace whose memory is the embedder's.
async fn embedded_by(embedder: &Embedder) -> Workspace {
    let ws = Workspace::local().await;
    remembers_by(&ws, embedder).await;
    ws
}

async fn remembers_by(ws: &Workspace, embedder: &Embedder) {
    ws.put_secret("OPENAI_API_KEY", "sk-embedder").await;
    ws.operator.put(&ws.path("/memory/settings"), &embedder.settings()).await.ok(200);
    in_force(ws, embedder).await;
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
}

/// The ledger's entries from a place on, as kind, nano-dollars, tokens and how the tokens were counted.
async fn entries(ws: &Workspace, from: usize, count: usize) -> Vec<Value> {
    let entries = Db::connect().await.settled(&ws.id, from + count, PATIENCE).await.split_off(from);
    assert_eq!(entries.len(), count, "{entries:#?}");
    let mut entries: Vec<Value> = entries.iter().map(|e| json!([e["kind"], e["nano"], e["embedding_tokens"], e["source"]])).collect();
    entries.sort_by_key(|entry| entry[0].to_string());
    entries
}

fn says(answer: &Value, text: &str) -> bool {
    answer["content"].as_str().unwrap().contains(text)
}

#[tokio::test]
async fn a_turn_is_told_what_its_message_means_and_pays_for_that_once() {
    let embedder = Embedder::start().await;
    let ws = embedded_by(&embedder).await;
    let (anna, ben) = (ws.user("anna", "member").await, ws.user("ben", "member").await);
    write(&ws, "Plum cake is on the menu.").await;
    let own = json!({ "kind": "preference", "content": "Anna likes every prune.", "personal": true });
    anna.post(&ws.path("/memories"), &own).await.ok(201);
    let travel = crate::knowledge::upload(&ws.member, &ws, "travel", "# Travel\n\nWe go by train.\n").await;
    let before = Db::connect().await.ledger(&ws.id).await.len();

    // Not one word in common.
    let body = json!({ "agentId": "assistant", "message": format!("prunes, railways {}", "ä".repeat(3_000)) });
    let ask = || ben.request(http::Method::POST, &ws.path("/turns")).header("Idempotency-Key", "once").json(&body).send();
    let answer = ask().await.ok(200);
    assert!(says(&answer, "Plum cake is on the menu.") && says(&answer, "We go by train."), "{answer}");
    assert!(!says(&answer, "Anna"), "somebody's own: {answer}");
    assert_eq!((&answer["citations"][0]["documentId"], &answer["leftOut"]), (&travel["id"], &Value::Null));
    let calls = embedder.server.calls();
    let asked = calls.last().unwrap().body["input"].clone();
    assert_eq!(asked[0].as_str().map(|text| text.chars().count()), Some(2_000), "as much of a message as is looked for");
    let turn = json!(["turn", answer["costNanoUsd"], 0, "provider"]);
    let embedding = json!(["embedding", TOKENS * 1000, TOKENS, "provider"]);
    assert_eq!(entries(&ws, before, 2).await, [embedding.clone(), turn]);
    let said = &Db::connect().await.ledger(&ws.id).await[before];
    assert_eq!((&said["user_id"], &said["model"]), (&json!("ben"), &json!(embedder.model)));
    assert_eq!(ws.held().await, 0);

    // The same once more is the same answer, and nothing is embedded for it.
    assert_eq!(ask().await.ok(200)["content"], answer["content"]);
    assert_eq!(embedder.server.calls().len(), calls.len());
    assert_eq!(entries(&ws, before, 2).await[0], embedding);
    // Whose own it is, is told.
    let answer = anna.post(&ws.path("/turns"), &json!({ "agentId": "assistant", "message": "prunes" })).await.ok(200);
    assert!(says(&answer, "Anna likes every prune."), "{answer}");
}

#[tokio::test]
async fn a_turn_is_told_by_meaning_and_by_typesenses_words_at_once() {
    let Some(typesense) = Typesense::of_stack() else { return };
    let embedder = Embedder::start().await;
    let ws = embedded_by(&embedder).await;
    write(&ws, "Plum cake is on the menu.").await;
    write(&ws, "Refunds for the train take 30 days.").await;
    search(&ws, "anything").await;
    wait::until("the index", PATIENCE, async || {
        let index = ws.member.get(&ws.path("/memory/status")).await.ok(200)["index"].take();
        if index["ready"] == true && index["waiting"] == 0 { Ok(()) } else { Err(index) }
    })
    .await;
    let turn = async || ws.member.post(&ws.path("/turns"), &json!({ "agentId": "assistant", "message": "prunes, reffunds" })).await.ok(200);
    let told = |answer: &Value| (says(answer, "Plum cake"), says(answer, "30 days"), answer["leftOut"].clone());
    assert_eq!(told(&turn().await), (true, true, Value::Null));
    typesense.fault("search", &format!("astra_{}", ws.id), 1, json!({ "do": "status", "status": 503 })).await;
    assert_eq!(told(&turn().await), (true, false, json!(["keyword"])));
    embedder.fails(true);
    assert_eq!(told(&turn().await), (false, true, json!(["vector"])));
    embedder.fails(false);
    embedder.answers_after(1_500);
    assert_eq!(told(&turn().await), (false, true, json!(["vector"])));
}

#[tokio::test]
async fn a_turn_goes_on_without_the_embedder_and_says_so() {
    let embedder = Embedder::start().await;
    let ws = embedded_by(&embedder).await;
    write(&ws, "Plum cake is on the menu.").await;
    let message = "What is on the menu, plum cake?";
    let without = async |ws: &Workspace| {
        let answer = ws.turn(message).await.ok(200);
        assert!(says(&answer, "Plum cake is on the menu."), "by its words: {answer}");
        assert_eq!(answer["leftOut"], json!(["vector"]));
    };
    // It fails, which costs nothing.
    embedder.fails(true);
    without(&ws).await;
    assert_eq!(entries(&ws, 1, 2).await[0], json!(["embedding", 0, 0, "estimated"]));
    embedder.fails(false);
    // It does not answer, but has the text in hand: that is charged what was presumed.
    embedder.answers_after(60_000);
    let began = tokio::time::Instant::now();
    without(&ws).await;
    assert!(began.elapsed() < Duration::from_secs(10), "not the time that a job has");
    let presumed = canary::message(message).len() / 4 + 1;
    assert_eq!(entries(&ws, 3, 2).await[0], json!(["embedding", presumed * 1000, presumed, "estimated"]));
    embedder.answers_after(0);
    // A budget pays for the turn and not for the embedding: nobody is called.
    embedder.costs(100.0).await;
    ws.patch_limits(&json!({ "maxCostUsdPerMonth": 0.003 })).await;
    let calls = embedder.server.calls().len();
    without(&ws).await;
    assert_eq!(embedder.server.calls().len(), calls);
    assert_eq!(entries(&ws, 5, 1).await[0][0], "turn");
    // There is no key any more.
    ws.patch_limits(&workspace::roomy()).await;
    let _ = ws.owner.delete(&ws.path("/secrets/OPENAI_API_KEY")).await.expect(204);
    without(&ws).await;
    assert_eq!(ws.held().await, 0);
}

#[tokio::test]
async fn a_turns_vector_of_another_embedder_finds_nothing() {
    let (embedder, db) = (Embedder::start().await, Db::connect().await);
    let ws = embedded_by(&embedder).await;
    write(&ws, "Plum cake is on the menu.").await;
    // While the message is embedded another embedder, of vectors of the same length, takes the one's place.
    embedder.answers_after(500);
    let change = async {
        wait::until("the embedder's call", PATIENCE, async || if embedder.server.calls().len() == 2 { Ok(()) } else { Err("no call") })
            .await;
        db.run(&format!("UPDATE memory_settings SET generation = generation + 1 WHERE workspace_id = '{}'", ws.id)).await;
    };
    let (answer, ()) = tokio::join!(ws.turn("prunes"), change);
    let answer = answer.ok(200);
    assert!(!says(&answer, "Plum"), "{answer}");
    assert_eq!(answer["leftOut"], json!(["vector"]));
    assert_eq!(entries(&ws, 1, 2).await[0], json!(["embedding", TOKENS * 1000, TOKENS, "provider"]));
}

#[tokio::test]
async fn what_is_found_by_meaning_takes_the_place_of_nothing_that_was_said() {
    let (embedder, model) = (Embedder::start().await, Scripted::start(vec![scripted::answer(&["yes"], 0, 9, 1)]).await);
    let ws = Workspace::openai(&model.openai()).await;
    ws.no_extraction().await;
    remembers_by(&ws, &embedder).await;
    let plums = format!("Plums: {}", "-".repeat(1_900));
    write(&ws, &plums).await;
    let first = ws.turn("hello").await.ok(200);
    let second = ws.turn_in(&first["sessionId"], "prunes").await.ok(200);
    assert_eq!(second["leftOut"], Value::Null);
    let asked = model.calls().last().unwrap().body["messages"].clone();
    assert_eq!(asked.as_array().unwrap().len(), 4, "{asked}");
    assert!(asked[0]["content"].as_str().unwrap().contains(&plums), "{asked}");
    // Nor is a turn refused for it: it goes on with what its words find.
    let mut agent = template::local("assistant");
    agent["budget"] = json!({ "maxTokensPerTurn": 1_500 });
    let ws = Workspace::with(&workspace::roomy(), &[agent]).await;
    remembers_by(&ws, &embedder).await;
    write(&ws, &plums).await;
    let answer = ws.turn("prunes").await.ok(200);
    assert!(!says(&answer, "Plums"), "{answer}");
    assert_eq!(answer["leftOut"], json!(["vector"]));
}

#[tokio::test]
async fn whoever_pays_for_a_turn_its_message_is_embedded_for_who_asks() {
    let embedder = Embedder::start().await;
    let (a, b) = (Workspace::local().await, embedded_by(&embedder).await);
    let mut helper = template::local("helper");
    helper.as_object_mut().unwrap().remove("id");
    let _ = a.owner.put(&a.path("/agents/helper"), &helper).await.expect(200);
    a.member.post(&a.path("/memories"), &json!({ "kind": "fact", "content": "Refunds take 30 days." })).await.ok(201);
    write(&b, "Plum cake is on the menu.").await;
    let grant = json!({ "receivingWorkspaceId": b.id, "agentId": "helper", "payer": "granter", "allow": ["memory:cross-workspace-read"] });
    a.owner.post(&a.path("/grants"), &grant).await.ok(201);
    b.operator.put(&b.path("/roles/partner"), &json!({ "allow": ["agent:invoke", "memory:cross-workspace-read"] })).await.ok(200);
    let partner = b.user("pat", "partner").await;
    let body = json!({ "agentId": format!("{}/helper", a.id), "message": "prunes, and how long do refunds take?" });
    let answer = partner.post(&b.path("/turns"), &body).await.ok(200);
    assert_eq!(answer["leftOut"], Value::Null, "{answer}");
    assert!(says(&answer, "Plum cake is on the menu.") && says(&answer, "Refunds take 30 days."), "{answer}");
    assert_eq!(entries(&b, 1, 1).await[0], json!(["embedding", TOKENS * 1000, TOKENS, "provider"]));
    assert_eq!(entries(&a, 0, 1).await[0][0], "turn");
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
    // A role of the workspace's own may have any permission, and is no operator.
    ws.operator.put(&ws.path("/roles/lister"), &json!({ "allow": ["workspace:list", "memory:*"] })).await.ok(200);
    ws.user("lea", "lister").await.put(&path, &local).await.problem(403, "forbidden");
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
