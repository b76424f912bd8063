//! The same recorded day gives the same ledger on every host, byte for byte.
//!
//! `fixtures/day.jsonl` is the day, one action a line; `fixtures/day.ledger.txt` is what it leaves behind. Each host's run is compared with that one file.
//! After a change that is meant to change it: `UPDATE_DAY=1`, and read the difference.

#![expect(clippy::unwrap_used, reason = "all of this is tests, their helpers too")]

mod dump;
mod model;
mod recording;
mod replay;

use astra_tests::wait;
use replay::Day;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// For a lost turn: its lease has to end.
const AFTER: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_recorded_day_leaves_the_same_ledger_on_every_host() {
    let recording = recording::read();
    let run = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
    let day = Day::begin(run, &recording).await;
    let lanes = day.replay(&recording).await;
    // An entry too many would come in the moment after.
    wait::millis(500).await;
    let found = dump::dump(&day, &lanes).await;
    println!("the day has {} actions; sha256 of what it left: {}", recording.len(), hash(&found));
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/day.ledger.txt");
    if std::env::var_os("UPDATE_DAY").is_some() {
        std::fs::write(kept, &found).unwrap();
    }
    if let Some(difference) = difference(&std::fs::read_to_string(kept).unwrap_or_default(), &found) {
        let beside = concat!(env!("CARGO_TARGET_TMPDIR"), "/day.ledger.txt");
        std::fs::write(beside, &found).unwrap();
        panic!("the day left something else: diff tests/fixtures/day.ledger.txt {beside}\nthe first difference is in {difference}");
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// The first line that differs, as it is in both.
fn difference(expected: &str, found: &str) -> Option<String> {
    let (mut expected, mut found) = (expected.split('\n'), found.split('\n'));
    let mut line = 0;
    loop {
        line += 1;
        match (expected.next(), found.next()) {
            (None, None) => return None,
            (expected, found) if expected == found => {}
            (expected, found) => {
                return Some(format!(
                    "line {line}\n  expected {}\n  found    {}",
                    expected.unwrap_or("no more"),
                    found.unwrap_or("no more")
                ));
            }
        }
    }
}

#[test]
fn a_difference_is_seen() {
    for changed in ["a\nb", "a\nc\n", "a\nb\nb\n", "a\n", ""] {
        assert!(difference("a\nb\n", changed).is_some(), "{changed:?}");
    }
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
}
