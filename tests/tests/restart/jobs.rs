//! kill -9 of the functions at any step of a job, again and again, while documents are put and conversations go on.
//!
//! `CRASHES` is how often; `scripts/prove crash` does it 200 times. Each job's effect is there once: a document's pieces, in order, a conversation's memories. A job that met so
//! many deaths that it is dead is the operator's to try again, and is tried again here.

use crate::{a_well_stack, refused_for_now};
use astra_tests::{Api, Db, Reply, Workspace, environment, stack, wait};
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::Duration;

/// A job that nobody has is taken up within its lease, a minute, and what its tries wait for.
const PATIENCE: Duration = Duration::from_mins(4);

/// Crashes of one round at most.
const ROUND: usize = 25;

/// Sections of a document: each is a piece of its own.
const SECTIONS: usize = 12;

/// A document of a version: each section says which it is.
fn document(slug: usize, version: usize) -> String {
    let section = |n| format!("# Section {n}\n\n{}\n\n", format!("Of document {slug} version {version} this is part {n}. ").repeat(40));
    (0..SECTIONS).map(section).collect()
}

/// Sends until it is taken.
async fn until_taken(what: &str, send: impl AsyncFn() -> Result<Reply, reqwest::Error>) -> Value {
    wait::until(what, PATIENCE, async || match send().await {
        Ok(reply) if [200, 202].contains(&reply.status) => Ok(reply.json()),
        Ok(reply) if reply.status == 409 => Err(reply.problem(409, "conflict").to_string()),
        Ok(reply) => refused_for_now(reply),
        Err(error) => Err(error.to_string()),
    })
    .await
}

/// Puts documents, of two versions each, and says what is to be remembered, until told to end. How many of each.
async fn keep_writing(ws: &Workspace, over: &Cell<bool>) -> usize {
    let mut count = 0;
    while !over.get() {
        for version in 1..=2 {
            let path = ws.path(&format!("/documents/page-{count}"));
            let put = async || ws.owner.request(http::Method::PUT, &path).body("text/markdown", document(count, version)).try_send().await;
            until_taken("a document that is taken", put).await;
        }
        // Under a key: who hears nothing asks again, and it is one turn. One that died is not run again: it gets a new key.
        // Nothing in what is said is like what is said in another.
        let said = format!("Remember that a{count} b{count} c{count} d{count} are in box e{count}.");
        let body = json!({ "agentId": "assistant", "message": said });
        let died = Cell::new(0);
        let turn = async || {
            let key = format!("fact-{count}-{}", died.get());
            let asked =
                ws.member.request(http::Method::POST, &ws.path("/turns")).header("idempotency-key", &key).json(&body).try_send().await;
            if asked.as_ref().is_ok_and(|reply| reply.status == 409) {
                died.set(died.get() + 1);
            }
            asked
        };
        until_taken("a turn", turn).await;
        count += 1;
    }
    count
}

/// Waits until no job is left; dead ones are tried again.
async fn all_done(ws: &Workspace) -> usize {
    let db = Db::connect().await;
    let (mut replayed, mut looks) = (0, 0);
    wait::until("all jobs", PATIENCE, async || {
        let jobs = db.rows("SELECT id, dead_at IS NOT NULL AS dead FROM jobs WHERE workspace_id = $1 AND kind <> 'words'", &[&ws.id]).await;
        for job in jobs.iter().filter(|job| job["dead"] == true) {
            let path = ws.path(&format!("/memory/jobs/{}/replay", job["id"].as_str().unwrap()));
            replayed += usize::from(Api::operator().request(http::Method::POST, &path).send().await.status == 202);
        }
        if jobs.is_empty() {
            return Ok(());
        }
        looks += 1;
        if looks % 40 == 0 {
            // Where no process looks by itself, somebody has to come by.
            let path = ws.path(&format!("/documents/{}", astra_tests::workspace::unique("kick")));
            ws.owner.request(http::Method::PUT, &path).body("text/plain", path.clone()).send().await.ok(202);
        }
        Err(jobs)
    })
    .await;
    replayed
}

async fn round(crashes: usize) -> String {
    a_well_stack().await;
    let ws = Workspace::local().await;
    let over = Cell::new(false);
    let kill = async {
        for _ in 0..crashes {
            wait::millis(u64::try_from(uuid::Uuid::new_v4().as_u128() % 700).unwrap()).await;
            stack::restart_functions().await;
        }
        over.set(true);
    };
    let ((), count) = futures_util::join!(kill, keep_writing(&ws, &over));
    let replayed = all_done(&ws).await;
    let db = Db::connect().await;
    let schema = format!("\"mem_{}\"", ws.id);
    let versions = db
        .rows(&format!("SELECT slug, version, status, is_current FROM {schema}.documents WHERE $1 <> '' ORDER BY slug, version"), &[&ws.id])
        .await;
    for slug in 0..count {
        let of: Vec<_> = versions.iter().filter(|row| row["slug"] == format!("page-{slug}").as_str()).collect();
        let last = of.last().unwrap();
        assert_eq!((&last["status"], &last["is_current"]), (&json!("ready"), &json!(true)), "{last}");
        assert_eq!(of.iter().filter(|row| row["is_current"] == true).count(), 1, "{of:?}");
        let pieces = db
            .rows(
                &format!("SELECT c.position, c.content FROM {schema}.chunks c JOIN {schema}.documents d ON d.id = c.document_id WHERE d.slug = $1 AND d.is_current ORDER BY c.position"),
                &[&format!("page-{slug}")],
            )
            .await;
        let places: Vec<_> = pieces.iter().map(|piece| piece["position"].as_i64().unwrap()).collect();
        assert_eq!(places, (0..).take(pieces.len()).collect::<Vec<_>>(), "the pieces of document {slug} are in their places");
        let whole: String = pieces.iter().map(|piece| piece["content"].as_str().unwrap()).collect();
        for n in 0..SECTIONS {
            let said = format!("Of document {slug} version 2 this is part {n}. ");
            assert_eq!(whole.matches(said.trim_end()).count(), 40, "part {n} of document {slug} is searched once");
            let before = whole.rfind(&format!("this is part {}.", n.max(1) - 1));
            assert!(n == 0 || before < whole.find(said.trim_end()), "part {n} of document {slug} comes after the one before");
        }
        assert!(!whole.contains("version 1"), "of document {slug} an old version is searched");
    }
    let mut remembered: Vec<_> = db
        .rows(&format!("SELECT content FROM {schema}.memories WHERE $1 <> '' AND content LIKE '%are in box%'"), &[&ws.id])
        .await
        .iter()
        .map(|row| row["content"].as_str().unwrap().to_owned())
        .collect();
    remembered.sort();
    let all = remembered.len();
    remembered.dedup();
    assert_eq!((all, remembered.len()), (count, count), "each fact is remembered once: {remembered:?}");
    format!("{crashes} crashes: {count} documents of two versions, {count} facts, each once; {replayed} jobs were dead and tried again")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_whose_consumer_is_killed_at_any_step_have_their_effect_once() {
    let mut left = environment::scale("CRASHES", 4);
    while left > 0 {
        let crashes = left.min(ROUND);
        println!("{}", round(crashes).await);
        left -= crashes;
    }
}
