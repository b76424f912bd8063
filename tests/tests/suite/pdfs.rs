//! PDFs: read apart from everything else, found and cited by their pages. What is in a file ends at most its reader.

use crate::knowledge::{ready, upload};
use astra_tests::{Reply, Workspace, wait};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::time::Duration;

const PDF: &str = "application/pdf";
const HANDBOOK: &[u8] = include_bytes!("../../fixtures/pdf/handbook.pdf");
const LETTER: &[u8] = include_bytes!("../../fixtures/pdf/letter.pdf");
const LOCKED: &[u8] = include_bytes!("../../fixtures/pdf/locked.pdf");
const SCAN: &[u8] = include_bytes!("../../fixtures/pdf/scan.pdf");
const BOMB: &[u8] = include_bytes!("../../fixtures/pdf/bomb.pdf");

/// A file that its reader does not survive is tried three times, 15 seconds apart in all.
const PATIENCE: Duration = Duration::from_secs(90);

async fn send(ws: &Workspace, slug: &str, file: &[u8]) -> Reply {
    ws.owner.request(http::Method::PUT, &ws.path(&format!("/documents/{slug}"))).body(PDF, file.to_vec()).send().await
}

/// The newest version, when it is ready or has failed. What waits to be tried again comes along with other jobs of the workspace.
async fn settled(ws: &Workspace, slug: &str) -> Value {
    let mut looked = 0;
    wait::until("the document", PATIENCE, async || {
        let newest = ws.owner.get(&ws.path(&format!("/documents/{slug}"))).await.ok(200)["data"][0].clone();
        if newest["status"] != "pending" {
            return Ok(newest);
        }
        looked += 1;
        if looked % 20 == 0 {
            upload(&ws.owner, ws, "other", &format!("Look {looked}.")).await;
        }
        Err(newest)
    })
    .await
}

async fn search(ws: &Workspace, query: &str) -> Value {
    ws.owner.post(&ws.path("/documents/search"), &json!({ "query": query })).await.ok(200)["data"][0].clone()
}

#[tokio::test]
async fn a_pdf_is_found_and_cited_by_its_page() {
    let ws = Workspace::local().await;
    let kept = send(&ws, "handbook", HANDBOOK).await.ok(202);
    assert_eq!((&kept["mediaType"], &kept["bytes"]), (&json!(PDF), &json!(HANDBOOK.len())));
    let done = ready(&ws.owner, &ws, "handbook").await;
    assert_eq!((&done["status"], &done["chunks"], &done["isCurrent"]), (&json!("ready"), &json!(2), &json!(true)), "{done}");
    for (query, page, says) in [
        ("When are refunds paid?", "Page 1", "Refunds are paid within thirty days"),
        ("Who carries parcels on Fridays?", "Page 2", "Zeppelins carry parcels on Fridays — to Café Zürich"),
    ] {
        let found = search(&ws, query).await;
        assert_eq!((&found["citation"]["heading"], &found["citation"]["slug"]), (&json!(page), &json!("handbook")), "{found}");
        assert!(found["content"].as_str().unwrap().contains(says), "{found}");
    }
    let answer = ws.turn("Who carries parcels on Fridays?").await.ok(200);
    assert_eq!(answer["citations"][0]["heading"], "Page 2");
    assert!(answer["content"].as_str().unwrap().contains("[handbook, version 1: Page 2]"), "{answer}");

    // The same again is no new version; another file is one. Ligatures are letters, and a font's own table is read.
    assert_eq!(send(&ws, "handbook", HANDBOOK).await.ok(200)["id"], kept["id"]);
    assert_eq!(send(&ws, "handbook", LETTER).await.ok(202)["version"], 2);
    ready(&ws.owner, &ws, "handbook").await;
    assert_eq!(search(&ws, "efficient fjords").await["content"], "Efficient fjords: Žluťoučký kůň, Ελληνικά, Русский.");

    // The export has the files as they were sent, in parts.
    let export = ws.owner.get(&ws.path("/export?limit=200")).await.expect(200);
    let export = String::from_utf8(export.body.to_vec()).unwrap();
    for file in [HANDBOOK, LETTER] {
        assert!(export.contains(&format!("\"{}\"", STANDARD.encode(file))), "{export}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_says_why() {
    let ws = Workspace::local().await;
    let nested =
        format!("%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj{}endobj trailer<</Root 1 0 R>>", "[<</Kids".repeat(100_000));
    for (slug, file, why) in [
        ("locked", LOCKED, "it is encrypted; upload it without a password"),
        (
            "scan",
            SCAN,
            "it has no text; where its pages are pictures, as a scanner makes them, have their text recognised (OCR) before the upload",
        ),
        ("damaged", b"%PDF-1.7\nand nothing else", "it is damaged"),
        ("nested", nested.as_bytes(), "it is damaged"),
    ] {
        send(&ws, slug, file).await.ok(202);
        let failed = ready(&ws.owner, &ws, slug).await;
        assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!(format!("The PDF cannot be read: {why}."))));
    }
    assert_eq!(ws.owner.get(&ws.path("/memory/status")).await.ok(200)["jobs"]["waiting"], 0);
}

#[tokio::test]
async fn a_bomb_ends_its_reader_and_nothing_else() {
    let (ws, others) = (Workspace::local().await, Workspace::local().await);
    send(&ws, "bomb", BOMB).await.ok(202);
    // Others, and other files of the same workspace, are read meanwhile.
    for near in [&others, &ws] {
        send(near, "handbook", HANDBOOK).await.ok(202);
        assert_eq!(settled(near, "handbook").await["status"], "ready");
    }
    others.turn("When are refunds paid?").await.ok(200);
    let failed = settled(&ws, "bomb").await;
    let why = "The PDF cannot be read: its reader crashed, or needed more memory or time than it may have.";
    assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!(why)));
    assert_eq!(send(&others, "again", HANDBOOK).await.ok(202)["status"], "pending");
    assert_eq!(settled(&others, "again").await["status"], "ready");
}

/// Three dozen files that are a good one but for a few bytes: each ends as a document does, read or not.
#[tokio::test]
async fn changed_files_harm_nobody() {
    let (ws, others) = (Workspace::local().await, Workspace::local().await);
    let mut seed = 20_261_129_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let files = (0..36).map(|n| {
        let mut file = if n % 2 == 0 { LETTER } else { HANDBOOK }.to_vec();
        for _ in 0..8 {
            let place = random(file.len() - 5) + 5;
            file[place] = u8::try_from(random(256)).unwrap();
        }
        file
    });
    for (n, file) in files.enumerate() {
        send(&ws, &format!("changed-{n}"), &file).await.ok(202);
    }
    others.turn("Hello.").await.ok(200);
    let mut ready = 0;
    for n in 0..36 {
        let done = settled(&ws, &format!("changed-{n}")).await;
        match done["status"].as_str().unwrap() {
            "ready" => ready += 1,
            _ => assert!(done["error"].as_str().unwrap().starts_with("The PDF cannot be read: "), "{done}"),
        }
    }
    assert!(ready > 5, "{ready}");
    send(&ws, "good", HANDBOOK).await.ok(202);
    assert_eq!(settled(&ws, "good").await["status"], "ready");
}
