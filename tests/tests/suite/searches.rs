//! The search by words: what it finds of rare words is BM25's order; what it leaves out of frequent ones is found where nothing rarer is.

use astra_tests::{Db, Session, Workspace, proof};
use serde_json::{Value, json};

/// A version with pieces, past the API: `texts` are rows of (n, content), split by nobody.
async fn pieces(db: &Db, ws: &Workspace, slug: &str, texts: &str) {
    db.run(&format!(
        "WITH d AS (INSERT INTO \"mem_{0}\".documents (id, slug, version, title, media_type, tags, hash, bytes, status, is_current, created_by, created_at)
                    VALUES (gen_random_uuid(), '{slug}', 1, '{slug}', 'text/plain', '{{}}', '', 1, 'ready', true, 'member@test', now()) RETURNING id)
         INSERT INTO \"mem_{0}\".chunks (id, document_id, position, heading, content, embedding)
         SELECT gen_random_uuid(), d.id, t.n, '', t.content, array_fill(1, ARRAY[384])::real[]::vector FROM d, ({texts}) t(n, content)",
        ws.id
    ))
    .await;
    db.run(&format!("ANALYZE \"mem_{0}\".chunks", ws.id)).await;
}

/// The contents of what these words find, best first.
async fn found(ws: &Workspace, what: &str, words: &str, limit: usize) -> Vec<String> {
    let session = Session::of_function("astra_memory").await;
    let statement = format!(
        "SELECT jsonb_agg(t.content ORDER BY w.n) FROM (SELECT f.id, f.n FROM astra.recall_words_own('{0}', 'anna', '{{{what}}}', \
         ARRAY(SELECT d.id FROM \"mem_{0}\".documents d WHERE d.slug = 'half'), '{{{words}}}', {limit}) r, unnest(r.ids) WITH ORDINALITY f(id, n)) w \
         JOIN (SELECT c.id, c.content FROM \"mem_{0}\".chunks c UNION ALL SELECT m.id, m.content FROM \"mem_{0}\".memories m) t ON t.id = w.id",
        ws.id
    );
    let answer = session.answer(&format!("SELECT astra.enter('{}')", proof::of(&ws.id)), &statement).await.unwrap();
    serde_json::from_str(&answer).unwrap_or_default()
}

/// BM25 as its formula is written, each text unfolded: what has one of these words, and its rank.
async fn by_the_formula(db: &Db, ws: &Workspace, words: &str) -> Vec<(String, f64)> {
    let sql = format!(
        "WITH terms AS (SELECT c.id, c.content, length(c.tsv) AS size, u.lexeme, cardinality(u.positions) AS times
                        FROM \"mem_{}\".chunks c, unnest(c.tsv) u(lexeme, positions, weights) WHERE u.lexeme = ANY ('{{{words}}}')),
              rows AS (SELECT DISTINCT t.id, t.size FROM terms t),
              weights AS (SELECT t.lexeme, ln(1 + ((SELECT count(*) FROM rows) - count(*) + 0.5::float8) / (count(*) + 0.5::float8)) AS weight FROM terms t GROUP BY t.lexeme)
         SELECT t.content, sum(w.weight * 2.2 * t.times / (t.times + 1.2 * (0.25 + 0.75 * t.size / (SELECT avg(r.size)::float8 FROM rows r)))) AS rank
         FROM terms t JOIN weights w ON w.lexeme = t.lexeme GROUP BY t.id, t.content ORDER BY 2 DESC",
        ws.id
    );
    let rows = db.rows(&sql, &[]).await;
    rows.iter().map(|row| (row["content"].as_str().unwrap().to_owned(), row["rank"].as_f64().unwrap())).collect()
}

#[tokio::test]
async fn rare_words_find_what_the_formula_says_in_its_order() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    // A hundred texts of sixty words, some of them said hundreds of times; each begins with a word of its own.
    pieces(
        &db,
        &ws,
        "made",
        "SELECT n, 'own' || n || ' ' || (SELECT string_agg('w' || floor(60 * random() ^ 2), ' ') FROM generate_series(1, 5 + n % 40)) || repeat(' w' || n % 7, n * n / 25) FROM generate_series(1, 100) n",
    )
    .await;
    for words in ["w3", "w0,w1,w2", "w5,w17,w40,own12", "w1,w59,nobody", "own1,own2,w6"] {
        let (found, expected) = (found(&ws, "documents", words, 50).await, by_the_formula(&db, &ws, words).await);
        assert_eq!(found.len(), expected.len().min(50), "{words}");
        assert!(found.len() > 2, "{words}");
        for (at, content) in found.iter().enumerate() {
            // Those of one rank are in no order.
            let (_, rank) = expected.iter().find(|(text, _)| text == content).unwrap();
            assert!((rank - expected[at].1).abs() < 1e-9, "{words}, {at}: {rank} in the place of {}", expected[at].1);
        }
    }
    assert_eq!(found(&ws, "documents", "nobody", 50).await, Vec::<String>::new());
}

#[tokio::test]
async fn frequent_words_are_left_out_where_rarer_ones_find_enough() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    // `common` is in all of 3,000, `former` in the first half of them, `latter` in the second, both in three alone, which are the last to have `former`.
    let texts = "SELECT n, 'common' || CASE WHEN n BETWEEN 1498 AND 1500 THEN ' former latter both' WHEN n <= 1500 THEN ' former' ELSE ' latter' END
                 || CASE WHEN n % 50 = 0 THEN ' zebra' ELSE '' END || CASE WHEN n % 1000 = 7 THEN ' quagga' ELSE '' END || ' n' || n FROM generate_series(1, 3000) n";
    pieces(&db, &ws, "many", texts).await;
    let recall = Session::of_owner("astra_recall").await;
    let of = format!(
        "SELECT ARRAY(SELECT s IS NOT NULL FROM unnest(astra.words_frequent('{}', '{{common,former,latter,zebra,nobody}}')) s)",
        ws.id
    );
    assert_eq!(recall.answer("SELECT", &of).await.unwrap(), "{t,t,t,f,f}");

    // Sixty have the rarer word.
    let zebras = found(&ws, "documents", "common,zebra", 50).await;
    assert_eq!((zebras.len(), zebras.iter().filter(|text| text.contains("zebra")).count()), (50, 50));
    // Three have it, and are before all others, which have what is left.
    let quaggas = found(&ws, "documents", "common,quagga", 50).await;
    let places: Vec<_> = quaggas.iter().map(|text| text.contains("quagga")).collect();
    assert_eq!((places.len(), &places[..3], places[3..].contains(&true)), (50, &[true; 3][..], false));
    // None is rarer: those that have all of them, and then the others. By the first thousand rows of each of the two nobody would find them.
    let both = found(&ws, "documents", "former,latter", 50).await;
    let places: Vec<_> = both.iter().map(|text| text.contains("both")).collect();
    assert_eq!((places.len(), &places[..3], places[3..].contains(&true)), (50, &[true; 3][..], false));
    assert_eq!(found(&ws, "documents", "former,latter,common", 3).await.iter().filter(|text| text.contains("both")).count(), 3);
    assert_eq!(found(&ws, "documents", "common", 50).await.len(), 50);

    // A version that is being split is not found by any of this.
    pieces(&db, &ws, "half", "SELECT n, 'common former latter zebra quagga secret' FROM generate_series(1, 20) n").await;
    for words in ["common,zebra", "common,quagga", "former,latter", "former,latter,common", "common"] {
        let found = found(&ws, "documents", words, 50).await;
        assert!(!found.is_empty() && !found.iter().any(|text| text.contains("secret")), "{words}: {found:?}");
    }
}

#[tokio::test]
async fn what_others_keep_for_themselves_leaves_no_word_out() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    db.run(&format!(
        "INSERT INTO \"mem_{0}\".memories (id, kind, content, hash, user_id, created_at, updated_at)
         SELECT gen_random_uuid(), 'note', t.content, t.n, t.whose, now(), now() FROM (
           SELECT 'crowd ' || n, 'b' || n, 'ben' FROM generate_series(1, 2500) n UNION ALL SELECT 'plum ' || n, 'p' || n, NULL FROM generate_series(1, 10) n
           UNION ALL SELECT 'crowd of everybody', 'e', NULL) t(content, n, whose);
         ANALYZE \"mem_{0}\".memories",
        ws.id
    ))
    .await;
    // What one of those she may see has is rarer than what ten have, whoever else has it.
    let found = found(&ws, "memories", "crowd,plum", 50).await;
    assert_eq!((found.len(), found[0].as_str()), (11, "crowd of everybody"), "{found:?}");
}

#[tokio::test]
async fn the_local_embedders_vectors_add_to_what_the_words_found_and_hardly_reorder_it() {
    let (ws, other, db) = (Workspace::local().await, Workspace::local().await, Db::connect().await);
    let query = "the house of plum quagga";
    let note = async |ws: &Workspace, content: &str| {
        ws.member.post(&ws.path("/memories"), &json!({ "kind": "note", "content": content })).await.ok(201);
    };
    // By meaning the houses come first, by words the plum; an address is one word, so that none of the query's is in it.
    for content in ["plum", "the house of anna", "the house of ben", "the house of carla", "anna@quagga.example"] {
        note(&ws, content).await;
    }
    let body = json!({ "query": query, "threshold": 0.46 });
    let found = ws.member.post(&ws.path("/memories/search"), &body).await.ok(200)["data"].take();
    let found: Vec<(&str, f64)> =
        found.as_array().unwrap().iter().map(|hit| (hit["content"].as_str().unwrap(), hit["score"].as_f64().unwrap())).collect();
    let is = |at: usize, content: &str, score: f64| found[at].0 == content && (found[at].1 - score).abs() < 1e-9;
    assert!(found.len() == 5 && is(0, "plum", (100.0 + 61.0 / 64.0) / 101.0) && found[3].0.starts_with("the house"), "{found:?}");
    assert!(is(4, "anna@quagga.example", 61.0 / 65.0 / 2.0), "no less than from any other search: {found:?}");

    // In a turn likewise, by the same scores. (The local model names three.)
    let said = async |message: &str| {
        let answer = ws.member.post(&ws.path("/turns"), &json!({ "agentId": "assistant", "message": message })).await.ok(200);
        answer["content"].as_str().unwrap().to_owned()
    };
    let told = said(query).await;
    assert!(told.contains(&format!(r#"memory has: "plum"; "{}""#, found[1].0)), "{told}");
    assert!(said("quagga").await.contains(r#"memory has: "anna@quagga.example""#));
    note(&other, query).await;
    let embedding = db.rows(&format!("SELECT embedding::text AS e FROM \"mem_{}\".memories", other.id), &[]).await[0]["e"].take();
    let arg = json!({ "subject": "member@test", "message": query, "embedding": embedding, "topK": 5 });
    let session = Session::of_function("astra_quota").await;
    let enter = format!("SELECT astra.enter('{}')", proof::of(&ws.id));
    let told = session.answer(&enter, &format!("SELECT astra.turn_recall('{}', $arg${arg}$arg$)", ws.id)).await.unwrap();
    let told: Vec<Value> = serde_json::from_str(&told).unwrap();
    assert_eq!(told.len(), 5);
    for (told, (content, score)) in told.iter().zip(&found) {
        assert!(told["content"] == *content && (told["score"].as_f64().unwrap() - score).abs() < 1e-9, "{told} and {content} of {score}");
    }
}

#[tokio::test]
async fn of_a_vast_table_more_candidates_are_looked_at() {
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    ws.member.post(&ws.path("/memories"), &json!({ "kind": "note", "content": "plum" })).await.ok(201);
    let kept = async || {
        let session = Session::of_function("astra_memory").await;
        let enter = format!("SELECT astra.enter('{}')", proof::of(&ws.id));
        let search = format!(
            "WITH found AS MATERIALIZED (SELECT (astra.memory_search('{0}', jsonb_build_object('subject', 'member@test', 'what', '{{memories}}'::text[], 'query', 'plum', 'limit', 9,
               'embedding', (SELECT m.embedding::text FROM \"mem_{0}\".memories m LIMIT 1))::text)) AS f)
             SELECT (SELECT count(f) FROM found)::text || ' ' || current_setting('hnsw.ef_search')",
            ws.id
        );
        session.answer(&enter, &search).await.unwrap()
    };
    assert_eq!(kept().await, "1 100");
    for (rows, candidates) in [(300_001, "1 200"), (300_000, "1 100")] {
        // As its statistics say of one of that size.
        db.run(&format!("UPDATE pg_class SET reltuples = {rows} WHERE oid = '\"mem_{}\".memories'::regclass", ws.id)).await;
        assert_eq!(kept().await, candidates, "{rows}");
    }
}

#[tokio::test]
async fn of_what_an_index_names_a_turn_is_told_what_who_asks_may_see() {
    let (ws, other, db) = (Workspace::local().await, Workspace::local().await, Db::connect().await);
    let remember = async |ws: &Workspace, content: &str, personal: bool| {
        let body = json!({ "kind": "note", "content": content, "personal": personal });
        ws.member.post(&ws.path("/memories"), &body).await.ok(201)["id"].take()
    };
    let (all, own) = (remember(&ws, "everybody's", false).await, remember(&ws, "the member's own", true).await);
    let foreign = remember(&other, "another workspace's", false).await;
    pieces(&db, &ws, "read", "SELECT 1, 'a piece'").await;
    pieces(&db, &ws, "half", "SELECT 1, 'half a document'").await;
    db.run(&format!("UPDATE \"mem_{}\".documents SET is_current = false, status = 'pending' WHERE slug = 'half'", ws.id)).await;
    let ids =
        db.rows(&format!("SELECT array_agg(c.id ORDER BY c.content) AS ids FROM \"mem_{}\".chunks c", ws.id), &[]).await[0]["ids"].take();
    let session = Session::of_function("astra_quota").await;
    let told = async |subject: &str, more: Value| {
        let said = json!([ids[1], foreign, own, ids[0], all, own, ids[0]]);
        let mut arg = json!({ "subject": subject, "message": "xyzzy", "said": said, "topK": 5 });
        arg.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let enter = format!("SELECT astra.enter('{}')", proof::of(&ws.id));
        let told = session.answer(&enter, &format!("SELECT astra.turn_recall('{}', $arg${arg}$arg$)", ws.id)).await.unwrap();
        let told: Option<Vec<Value>> = serde_json::from_str(&told).unwrap();
        told.map(|told| {
            told.iter().map(|one| (one["content"].as_str().unwrap().to_owned(), one["score"].as_f64().unwrap())).collect::<Vec<_>>()
        })
    };
    let sure = json!({ "sure": [ids[1], foreign, own, ids[0], all] });
    let first = |names: &[&str], told: &[(String, f64)]| {
        assert_eq!(told.len(), names.len(), "{told:?}");
        for (place, (name, (content, score))) in names.iter().zip(told).enumerate() {
            assert!(content.ends_with(name), "{told:?}");
            assert!(place > 0 || (score - 1.0).abs() < 1e-9, "first in the one search that there is: {told:?}");
        }
    };
    first(&["the member's own", "a piece", "everybody's"], &told("member@test", sure.clone()).await.unwrap());
    let others = told("ben", sure).await.unwrap();
    assert_eq!(others.iter().map(|(content, _)| content.rsplit("] ").next().unwrap()).collect::<Vec<_>>(), ["a piece", "everybody's"]);
    // Of what it is not sure of, what has half of the words, or is near: none of these. And a vector is of the embedder in force.
    assert_eq!(told("member@test", json!({})).await, Some(Vec::new()));
    assert_eq!(told("member@test", json!({ "embedding": "[1]", "generation": 7 })).await, None);
}
