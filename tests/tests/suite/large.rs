//! Documents as large as they may be. On Workers `memory`'s wasm has 64 MiB for them here (functions/memory/build.rs): who holds one as a whole more than twice does not get to the end.

use astra_tests::{Db, Workspace, environment, wait};
use std::time::Duration;

/// How long one may take until it is split, and searched with that.
const PATIENCE: Duration = Duration::from_mins(2);

/// A document of so many bytes, whose last sentence is its own.
fn document(paragraph: impl Fn(u64) -> String, bytes: u64) -> String {
    let mut text = String::new();
    for n in 0.. {
        let next = paragraph(n);
        if (text.len() + next.len() + 100) as u64 > bytes {
            break;
        }
        text.push_str(&next);
    }
    text + "The last word is plum.\n"
}

#[tokio::test]
async fn the_largest_documents_are_kept_and_split_to_their_last_word() {
    // AWS lets no larger request through (docs/hosts.md).
    let bytes: u64 = if environment::host() == "lambda" { 4 << 20 } else { 20 << 20 };
    let (ws, db) = (Workspace::local().await, Db::connect().await);
    let markdown = |n| {
        format!(
            "## Section {n}\n\nParagraph {n} says, \"that number {n} is here\", and goes on about refunds and holidays of all kinds.\n\n"
        )
    };
    let html = |n| {
        format!(
            "<h2>Section {n}</h2><p>Paragraph {n} says that number {n} is here, and goes on about refunds &amp; holidays of all kinds.</p>\n"
        )
    };
    for (slug, media_type, body) in [("markdown", "text/markdown", document(markdown, bytes)), ("html", "text/html", document(html, bytes))]
    {
        let path = ws.path(&format!("/documents/{slug}"));
        let kept = ws.owner.request(http::Method::PUT, &path).body(media_type, body).send().await.ok(202);
        assert!(kept["bytes"].as_u64().unwrap() > bytes - 1_000);
        wait::until("it is split", PATIENCE, async || match ws.owner.get(&path).await.ok(200)["data"][0].clone() {
            document if document["status"] == "ready" => Ok(()),
            document => Err(document),
        })
        .await;
        let last = format!("SELECT count(*) FROM \"mem_{}\".chunks WHERE $1 <> '' AND content LIKE '%plum.'", ws.id);
        assert_eq!(db.number(&last, &[&ws.id]).await, 1, "{slug}");
        ws.owner.delete(&path).await.ok(200);
    }
}
