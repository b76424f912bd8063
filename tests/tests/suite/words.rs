//! Words searched in Typesense: an index that follows Postgres through faults and moves, and shows nothing that Postgres would not. On a stack without Typesense there is nothing to test here.
//!
//! The server is a stand-in (tests/src/standin.rs); that what it is sent is what Typesense takes is shown elsewhere (shared/typesense/tests).

use astra_tests::typesense::workspace_name;
use astra_tests::{Api, Db, Typesense, Workspace, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A workspace, if the stack has a Typesense.
async fn with_typesense() -> Option<(Workspace, Typesense)> {
    let typesense = Typesense::of_stack()?;
    Some((Workspace::local().await, typesense))
}

async fn remember(api: &Api, ws: &Workspace, content: &str, personal: bool) -> String {
    let body = json!({ "kind": "fact", "content": content, "personal": personal });
    api.post(&ws.path("/memories"), &body).await.ok(201)["id"].as_str().unwrap().to_owned()
}

async fn search(api: &Api, ws: &Workspace, what: &str, query: &str) -> Value {
    api.post(&ws.path(&format!("/{what}/search")), &json!({ "query": query })).await.ok(200)
}

fn contents(found: &Value) -> Vec<&str> {
    found["data"].as_array().unwrap().iter().map(|row| row["content"].as_str().unwrap()).collect()
}

async fn index(ws: &Workspace) -> Value {
    ws.owner.get(&ws.path("/memory/status")).await.ok(200)["index"].take()
}

/// What the index should hold: what Postgres has.
async fn truth(ws: &Workspace) -> Vec<(String, String)> {
    let schema = format!("\"mem_{}\"", ws.id);
    let sql = format!(
        "SELECT id::text AS id, content FROM {schema}.memories
         UNION ALL SELECT c.id::text, c.content FROM {schema}.chunks c JOIN {schema}.documents d ON d.id = c.document_id WHERE d.is_current ORDER BY 1"
    );
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    Db::connect().await.rows(&sql, &[]).await.iter().map(|row| (text(row, "id"), text(row, "content"))).collect()
}

/// Waits until the index has caught up, and compares it with Postgres. Where it is.
async fn caught_up(ws: &Workspace, typesense: &Typesense) -> String {
    let look = async || {
        let status = index(ws).await;
        if status != json!({ "ready": true, "moving": false, "waiting": 0, "refused": 0, "lagSeconds": null }) {
            return Err(status);
        }
        let (collection, documents) = typesense.shown(&ws.id).await.ok_or(json!("no alias"))?;
        let truth = truth(ws).await;
        if documents == truth { Ok(collection) } else { Err(json!({ "index": documents, "postgres": truth })) }
    };
    wait::until("the index to hold what Postgres does", SOON, look).await
}

/// A workspace whose index is there.
async fn indexed() -> Option<(Workspace, Typesense)> {
    let (ws, typesense) = with_typesense().await?;
    search(&ws.member, &ws, "memories", "anything").await;
    caught_up(&ws, &typesense).await;
    Some((ws, typesense))
}

async fn upload(ws: &Workspace, slug: &str, text: &str) {
    let request = ws.owner.request(http::Method::PUT, &ws.path(&format!("/documents/{slug}"))).body("text/markdown", text.to_owned());
    request.send().await.ok(202);
    let ready = async || match ws.owner.get(&ws.path(&format!("/documents/{slug}"))).await.ok(200)["data"][0]["status"].as_str() {
        Some("ready") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    wait::until("the document", SOON, ready).await;
}

#[tokio::test]
async fn an_index_is_made_at_the_first_search_and_follows_what_changes() {
    let Some((ws, typesense)) = with_typesense().await else { return };
    let refunds = remember(&ws.member, &ws, "Refunds take 30 days.", false).await;
    remember(&ws.member, &ws, "My own desk is by the window.", true).await;
    upload(&ws, "handbook", "# Hours\n\nThe shop opens at nine.\n").await;
    assert_eq!(index(&ws).await["ready"], false);
    assert_eq!(typesense.shown(&ws.id).await, None, "nothing is sent before the first search");
    // Postgres is the words' leg until then, which is no failure.
    let found = search(&ws.member, &ws, "memories", "refunds").await;
    assert_eq!((contents(&found)[0], &found["legs"]), ("Refunds take 30 days.", &Value::Null));
    assert_eq!(caught_up(&ws, &typesense).await, format!("astra_own_{}_v1", ws.id));

    let found = search(&ws.member, &ws, "memories", "how long do REFUNDS take?").await;
    assert_eq!((&found["data"][0]["id"], &found["legs"]), (&json!(refunds), &Value::Null));
    assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "first in both: {found}");
    let found = search(&ws.member, &ws, "documents", "opens").await;
    assert_eq!((contents(&found), &found["data"][0]["citation"]["slug"]), (vec!["# Hours\n\nThe shop opens at nine."], &json!("handbook")));

    remember(&ws.member, &ws, "Parcels leave on Tuesdays.", false).await;
    caught_up(&ws, &typesense).await;
    upload(&ws, "handbook", "# Hours\n\nThe shop opens at ten.\n").await;
    caught_up(&ws, &typesense).await;
    let _ = ws.member.delete(&ws.path(&format!("/memories/{refunds}"))).await.expect(204);
    ws.member.delete(&ws.path("/users/member@test/memory")).await.ok(200);
    caught_up(&ws, &typesense).await;
    ws.owner.delete(&ws.path("/documents/handbook")).await.ok(200);
    caught_up(&ws, &typesense).await;
    assert_eq!(truth(&ws).await.len(), 1);
}

#[tokio::test]
async fn what_an_index_says_shows_nothing_that_postgres_would_not() {
    let (Some((ws, typesense)), other) = (indexed().await, Workspace::local().await) else { return };
    let foreign = remember(&other.member, &other, "The other workspace's plums.", false).await;
    let anna = ws.user("anna", "member").await;
    let annas = remember(&anna, &ws, "Anna's own plums.", true).await;
    let gone = remember(&ws.member, &ws, "Plums that are gone.", false).await;
    let all = remember(&ws.member, &ws, "Something else entirely.", false).await;
    let _ = ws.member.delete(&ws.path(&format!("/memories/{gone}"))).await.expect(204);
    upload(&ws, "plums", "Plums in a document.").await;
    let chunk = truth(&ws).await.into_iter().find(|(_, content)| content.contains("document")).unwrap().0;
    caught_up(&ws, &typesense).await;
    // An index that names everything there is, whoever asks: only what there is, for who asks, of what was asked for. Its order counts.
    let lie = json!({ "do": "ids", "ids": [foreign, annas, gone, chunk, all] });
    typesense.fault("search", &format!("astra_{}", ws.id), 2, lie).await;
    let found = search(&ws.member, &ws, "memories", "xyzzy").await;
    let ids: Vec<_> = found["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [all.as_str()], "{found}");
    let found = search(&ws.member, &ws, "documents", "xyzzy").await;
    assert_eq!((contents(&found), &found["legs"]), (vec!["Plums in a document."], &Value::Null));
    // It is asked in such a way that it need not lie: for Anna's own by Anna only, by a key of hers.
    assert_eq!(contents(&search(&anna, &ws, "memories", "plums").await)[0], "Anna's own plums.");
    search(&ws.member, &ws, "memories", "plums").await;
    let state = typesense.state().await;
    let mine: Vec<&Value> =
        state["searches"].as_array().unwrap().iter().filter(|one| one["collection"] == format!("astra_{}", ws.id)).collect();
    let [.., of_anna, of_member] = &mine[..] else { panic!("{mine:?}") };
    assert_eq!((&of_anna["ids"], &of_member["ids"]), (&json!([annas]), &json!([])));
    assert!(
        mine.iter().all(|one| one["filter"]
            .as_str()
            .unwrap()
            .starts_with(&format!("workspace:={} && owner:=[everybody,", workspace_name(&ws.id))))
    );
}

#[tokio::test]
async fn workspaces_that_share_a_collection_find_their_own() {
    let (Some((a, typesense)), Some((b, _))) = (indexed().await, indexed().await) else { return };
    for ws in [&a, &b] {
        remember(&ws.member, ws, &format!("A plum of {}.", ws.id), false).await;
        let body = json!({ "collections": "shared:1" });
        let _ = ws.operator.post(&ws.path("/memory/index/rebuild"), &body).await.expect(202);
    }
    for ws in [&a, &b] {
        let moved = async || match caught_up(ws, &typesense).await {
            collection if collection == "astra_shared_1_0_v1" => Ok(()),
            other => Err(other),
        };
        wait::until("the move", SOON, moved).await;
        let found = search(&ws.member, ws, "memories", "plum").await;
        assert_eq!((contents(&found), &found["legs"]), (vec![format!("A plum of {}.", ws.id).as_str()], &Value::Null));
    }
    let state = typesense.state().await;
    for (ws, other) in [(&a, &b), (&b, &a)] {
        let ids: Vec<_> = state["collections"]["astra_shared_1_0_v1"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, one)| one["workspace"] == workspace_name(&other.id))
            .collect();
        let searches = state["searches"].as_array().unwrap().iter().filter(|one| one["collection"] == format!("astra_{}", ws.id));
        for one in searches {
            assert!(ids.iter().all(|(id, _)| !one["ids"].to_string().contains(id.as_str())), "{one}");
        }
    }
    // One that goes takes its own along and leaves the other's.
    a.operator.delete(&a.path("")).await.ok(200);
    let gone = async || if typesense.places(&a.id).await.is_empty() { Ok(()) } else { Err(typesense.places(&a.id).await) };
    wait::until("what is left of a workspace to go", SOON, gone).await;
    assert_eq!(typesense.places(&b.id).await, [("astra_shared_1_0_v1".to_owned(), 1)]);
    assert_eq!(typesense.shown(&a.id).await, None);
}

#[tokio::test]
async fn a_search_goes_on_without_typesense_and_says_so() {
    let Some((ws, typesense)) = indexed().await else { return };
    remember(&ws.member, &ws, "Refunds take 30 days.", false).await;
    caught_up(&ws, &typesense).await;
    let alias = format!("astra_{}", ws.id);
    let late = json!({ "do": "hang", "millis": 1500 });
    for (what, says) in [
        (json!({ "do": "status", "status": 503 }), "failed"),
        (json!({ "do": "status", "status": 400 }), "failed"),
        (json!({ "do": "cut" }), "failed"),
        (late, "late"),
    ] {
        typesense.fault("search", &alias, 1, what).await;
        let found = search(&ws.member, &ws, "memories", "refunds").await;
        assert_eq!(found["legs"], json!({ "vector": "ok", "keyword": says }));
        assert_eq!(contents(&found), ["Refunds take 30 days."]);
        assert!((found["data"][0]["score"].as_f64().unwrap() - 1.0).abs() < 1e-9, "Postgres' words stand in: {found}");
    }
    assert_eq!(search(&ws.member, &ws, "memories", "refunds").await["legs"], Value::Null);
    // Nothing but signs asks for nothing, which is no failure.
    assert_eq!(search(&ws.member, &ws, "memories", "*").await["legs"], Value::Null);
}

async fn turn(api: &Api, ws: &Workspace, message: &str) -> Value {
    api.post(&ws.path("/turns"), &json!({ "agentId": "assistant", "message": message })).await.ok(200)
}

fn says(answer: &Value, text: &str) -> bool {
    answer["content"].as_str().unwrap().contains(text)
}

#[tokio::test]
async fn a_turn_is_told_what_typesense_names_and_goes_on_without_it() {
    let Some((ws, typesense)) = indexed().await else { return };
    upload(&ws, "handbook", "# Refunds\n\nThey take thirty days.\n").await;
    remember(&ws.member, &ws, "Parcels leave on Tuesdays.", false).await;
    caught_up(&ws, &typesense).await;
    let document = ws.owner.get(&ws.path("/documents/handbook")).await.ok(200)["data"][0]["id"].take();

    // Spelt as nobody has written it: no words and no meaning of Postgres' find that.
    let answer = turn(&ws.member, &ws, "reffunds?").await;
    assert!(says(&answer, "They take thirty days.") && !says(&answer, "Parcels"), "{answer}");
    assert_eq!((&answer["citations"][0]["documentId"], &answer["leftOut"]), (&document, &Value::Null));
    let state = typesense.state().await;
    let asked = state["searches"].as_array().unwrap().iter().rfind(|one| one["collection"] == format!("astra_{}", ws.id)).unwrap();
    let filter = asked["filter"].as_str().unwrap();
    assert!(filter.starts_with(&format!("workspace:={} && owner:=[everybody,", workspace_name(&ws.id))), "{filter}");
    assert!(filter.ends_with(" && source:=[memory,document]"), "{filter}");

    // Without it the turn is told what Postgres finds, says so, and waits no longer than it may.
    let alias = format!("astra_{}", ws.id);
    for what in [
        json!({ "do": "status", "status": 503 }),
        json!({ "do": "status", "status": 400 }),
        json!({ "do": "cut" }),
        json!({ "do": "hang", "millis": 2500 }),
    ] {
        typesense.fault("search", &alias, 2, what.clone()).await;
        let began = tokio::time::Instant::now();
        let answer = turn(&ws.member, &ws, "reffunds?").await;
        assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
        assert_eq!((says(&answer, "thirty"), &answer["leftOut"], &answer["citations"]), (false, &json!(["keyword"]), &json!([])), "{what}");
        let answer = turn(&ws.member, &ws, "refunds?").await;
        assert_eq!((says(&answer, "thirty"), &answer["leftOut"]), (true, &json!(["keyword"])), "{what}");
    }
    // An index that knows nothing: Postgres may know better.
    typesense.fault("search", &alias, 1, json!({ "do": "ids", "ids": [] })).await;
    let answer = turn(&ws.member, &ws, "refunds?").await;
    assert_eq!((says(&answer, "thirty"), &answer["leftOut"]), (true, &Value::Null));
    // Nothing but signs asks for nothing.
    assert_eq!(turn(&ws.member, &ws, "?!").await["leftOut"], Value::Null);

    // One that was removed is found to be missing, and made again.
    let own = caught_up(&ws, &typesense).await;
    typesense.lose(&own).await;
    let answer = turn(&ws.member, &ws, "refunds?").await;
    assert_eq!((says(&answer, "thirty"), &answer["leftOut"]), (true, &json!(["keyword"])));
    caught_up(&ws, &typesense).await;
    assert!(says(&turn(&ws.member, &ws, "reffunds?").await, "thirty"));
}

#[tokio::test]
async fn whatever_an_index_names_a_turn_is_told_nothing_that_postgres_would_not_tell() {
    let (Some((ws, typesense)), other) = (indexed().await, Workspace::local().await) else { return };
    let foreign = remember(&other.member, &other, "The other workspace's plums.", false).await;
    let anna = ws.user("anna", "member").await;
    let annas = remember(&anna, &ws, "Anna's own plums.", true).await;
    let gone = remember(&ws.member, &ws, "Plums that are gone.", false).await;
    let all = remember(&ws.member, &ws, "Something else entirely.", false).await;
    let _ = ws.member.delete(&ws.path(&format!("/memories/{gone}"))).await.expect(204);
    upload(&ws, "plums", "Plums in a document.").await;
    let chunk = truth(&ws).await.into_iter().find(|(_, content)| content.contains("document")).unwrap().0;
    caught_up(&ws, &typesense).await;
    let lie = json!({ "do": "ids", "ids": [foreign, annas, gone, chunk, all, chunk] });
    typesense.fault("search", &format!("astra_{}", ws.id), 2, lie).await;
    let answer = turn(&ws.member, &ws, "xyzzy").await;
    assert!(says(&answer, "Plums in a document.\"; \"Something else entirely."), "in its order: {answer}");
    assert!(!says(&answer, "workspace's plums") && !says(&answer, "Anna") && !says(&answer, "gone"), "{answer}");
    let answer = turn(&anna, &ws, "xyzzy").await;
    assert!(says(&answer, "Anna's own plums.") && !says(&answer, "workspace's plums"), "{answer}");
    // A version of a document that is searched no more, or not yet, is not named to anybody.
    let db = Db::connect().await;
    db.run(&format!("UPDATE \"mem_{}\".documents SET is_current = false, status = 'pending'", ws.id)).await;
    typesense.fault("search", &format!("astra_{}", ws.id), 1, json!({ "do": "ids", "ids": [chunk, all] })).await;
    let answer = turn(&ws.member, &ws, "xyzzy").await;
    assert!(says(&answer, "Something else entirely.") && !says(&answer, "Plums"), "{answer}");
}

#[tokio::test]
async fn a_turn_has_an_index_made_where_there_is_memory() {
    let Some((ws, typesense)) = with_typesense().await else { return };
    assert_eq!(turn(&ws.member, &ws, "anything").await["leftOut"], Value::Null);
    assert_eq!(index(&ws).await["ready"], false);
    remember(&ws.member, &ws, "Refunds take 30 days.", false).await;
    // Postgres is whole: nothing is left out, also while Typesense is away.
    typesense.fault("search", &format!("astra_{}", ws.id), 1, json!({ "do": "status", "status": 503 })).await;
    let answer = turn(&ws.member, &ws, "refunds?").await;
    assert_eq!((says(&answer, "30 days"), &answer["leftOut"]), (true, &Value::Null));
    caught_up(&ws, &typesense).await;
    assert!(says(&turn(&ws.member, &ws, "reffunds?").await, "30 days"));
}

#[tokio::test]
async fn what_could_not_be_written_is_seen_to_wait_and_nothing_is_lost() {
    let Some((ws, typesense)) = indexed().await else { return };
    let own = format!("astra_own_{}_v1", ws.id);
    for what in [
        json!({ "do": "status", "status": 503 }),
        json!({ "do": "cut" }),
        json!({ "do": "half" }),
        json!({ "do": "status", "status": 429 }),
    ] {
        typesense.fault("import", &own, 1, what.clone()).await;
        let contents: Vec<String> = (0..5).map(|n| format!("{what} {n}")).collect();
        for content in &contents {
            remember(&ws.member, &ws, content, false).await;
        }
        caught_up(&ws, &typesense).await;
    }
    // One of a batch is refused: the others are there at once, and it is tried until it is taken.
    typesense.fault("import", "a plum", 2, json!({ "do": "refuse", "document": "a plum" })).await;
    for content in ["an apple", "a plum", "a pear"] {
        remember(&ws.member, &ws, content, false).await;
    }
    let behind = async || {
        let status = index(&ws).await;
        let there: Vec<String> = typesense.shown(&ws.id).await.unwrap().1.into_iter().map(|(_, content)| content).collect();
        let has = |content: &str| there.iter().any(|one| one == content);
        if status["refused"] == 1 && status["waiting"] == 1 && has("an apple") && has("a pear") && !has("a plum") {
            Ok(status)
        } else {
            Err((status, there))
        }
    };
    let status = wait::until("one that is refused", SOON, behind).await;
    assert_eq!((&status["waiting"], status["lagSeconds"].is_i64()), (&json!(1), true));
    // Postgres has it all the while: found by meaning.
    assert!(contents(&search(&ws.member, &ws, "memories", "a plum").await).contains(&"a plum"));
    caught_up(&ws, &typesense).await;

    // Deletions wait as well.
    typesense.fault("delete", &own, 2, json!({ "do": "status", "status": 503 })).await;
    let (id, _) = truth(&ws).await.into_iter().find(|(_, content)| content == "a plum").unwrap();
    let _ = ws.member.delete(&ws.path(&format!("/memories/{id}"))).await.expect(204);
    wait::until("the lag", SOON, async || {
        let status = index(&ws).await;
        if status["waiting"] == 1 { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(
        contents(&search(&ws.member, &ws, "memories", "a plum").await).iter().all(|content| *content != "a plum"),
        "what is gone is not shown"
    );
    caught_up(&ws, &typesense).await;
}

#[tokio::test]
async fn an_index_moves_and_is_made_anew_without_a_gap() {
    let Some((ws, typesense)) = indexed().await else { return };
    let own = format!("astra_own_{}_v1", ws.id);
    for n in 0..150 {
        remember(&ws.member, &ws, &format!("A plum, number {n}."), false).await;
    }
    caught_up(&ws, &typesense).await;
    // Of a filling some fails, too.
    typesense.fault("import", "astra_shared_3_", 1, json!({ "do": "status", "status": 503 })).await;
    typesense.fault("create", "astra_shared_3_", 1, json!({ "do": "status", "status": 503 })).await;
    let mut written = 150;
    let mut check = async |collections: &str| {
        let body = if collections.is_empty() { json!({}) } else { json!({ "collections": collections }) };
        let _ = ws.operator.post(&ws.path("/memory/index/rebuild"), &body).await.expect(202);
        // Written and deleted and searched all the while: each search is answered by words, and knows what was there before.
        for _ in 0..30 {
            let id = remember(&ws.member, &ws, &format!("A plum, number {written}."), false).await;
            if written % 3 == 0 {
                let _ = ws.member.delete(&ws.path(&format!("/memories/{id}"))).await.expect(204);
            }
            written += 1;
            let found = search(&ws.member, &ws, "memories", "17").await;
            assert_eq!(found["legs"], Value::Null);
            assert_eq!(contents(&found)[0], "A plum, number 17.");
        }
        caught_up(&ws, &typesense).await
    };
    assert_eq!(check("").await, own, "made anew where it is");
    let shared = check("shared:3").await;
    assert!(shared.starts_with("astra_shared_3_"), "{shared}");
    assert_eq!(typesense.places(&ws.id).await.len(), 1, "nothing stays where it was");
    assert!(typesense.state().await["collections"][&own].is_null(), "a collection of its own goes");
    assert_eq!(check("per-workspace").await, own);
    assert_eq!(typesense.places(&ws.id).await.len(), 1);
    ws.owner.post(&ws.path("/memory/index/rebuild"), &json!({})).await.problem(403, "forbidden");
    for bad in [json!({ "collections": "shared:0" }), json!({ "collections": "own" }), json!({ "x": 1 })] {
        ws.operator.post(&ws.path("/memory/index/rebuild"), &bad).await.problem(422, "unprocessable");
    }
}

#[tokio::test]
async fn an_index_that_somebody_removed_is_made_again() {
    let Some((ws, typesense)) = indexed().await else { return };
    remember(&ws.member, &ws, "Refunds take 30 days.", false).await;
    let own = caught_up(&ws, &typesense).await;
    typesense.lose(&own).await;
    assert_eq!(search(&ws.member, &ws, "memories", "refunds").await["legs"]["keyword"], "failed");
    caught_up(&ws, &typesense).await;
    typesense.lose(&own).await;
    remember(&ws.member, &ws, "A change finds it gone as well.", false).await;
    caught_up(&ws, &typesense).await;
    // What a filling has not written is no part of it: leftovers of another time, or of somebody's hand.
    let stale = json!({ "id": "0199c0de-0000-7000-8000-0000000000ff", "workspace": workspace_name(&ws.id), "owner": "everybody", "source": "memory", "document": "none",
        "epoch": 0, "heading": "", "content": "stale" });
    typesense.put(&own, &stale).await;
    let _ = ws.operator.post(&ws.path("/memory/index/rebuild"), &json!({})).await.expect(202);
    caught_up(&ws, &typesense).await;
}

#[tokio::test]
async fn a_workspace_leaves_nothing_behind_and_its_name_begins_anew() {
    let Some((ws, typesense)) = indexed().await else { return };
    remember(&ws.member, &ws, "Refunds take 30 days.", false).await;
    let own = caught_up(&ws, &typesense).await;
    // Typesense is away at that moment.
    typesense.fault("drop", &own, 1, json!({ "do": "status", "status": 503 })).await;
    ws.operator.delete(&ws.path("")).await.ok(200);
    let again = Workspace::named(&ws.id, &json!({})).await;
    search(&again.member, &again, "memories", "refunds").await;
    let gone = async || match (typesense.places(&ws.id).await, typesense.shown(&ws.id).await) {
        (places, None) if places.is_empty() => Ok(()),
        other => Err(other),
    };
    wait::until("what is left of a workspace to go", SOON, gone).await;
    // Until it is gone for good the name has no index: Postgres answers.
    let found = search(&again.member, &again, "memories", "refunds").await;
    assert_eq!((contents(&found), &found["legs"]), (Vec::<&str>::new(), &Value::Null));
    again.operator.post(&again.path("/memory/index/rebuild"), &json!({})).await.problem(409, "conflict");
}
