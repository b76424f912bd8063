//! Verifies an export of a workspace's audit log, with no database and no deployment at hand.
//!
//! An export is what `GET /workspaces/{id}/audit` answers without filters: its pages, or their entries one a line, in any order. Each entry's hash is made anew, and each has to
//! follow the one before. What a chain cannot show by itself is that its newest entries are there and that it was not written anew as a whole: keep what this prints, and hold a
//! later export to it with `--head`.

use astra_kernel::audit::Entry;
use astra_kernel::chain::verify;
use clap::{Parser, Subcommand};
use serde::Deserialize;
use std::io::Read as _;
use std::process::ExitCode;

/// Verifies exports of the audit log.
#[derive(Parser)]
#[command(name = "astra-audit")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Verifies that no entry of an export was changed, left out or put in. Prints the last entry as SEQ:HASH. Exit code 1, with the entry's number, when one was.
    Verify {
        /// The export: pages of GET /workspaces/{id}/audit, or entries one a line. `-` is standard input.
        file: String,
        /// An entry that was the last of an earlier export, as it was printed then (SEQ:HASH): it has to be in this one. May be said more than once.
        #[arg(long)]
        head: Vec<String>,
    },
}

/// What may stand in an export.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Page { data: Vec<Entry> },
    Entry(Box<Entry>),
}

fn read(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for piece in serde_json::Deserializer::from_str(text).into_iter() {
        match piece.map_err(|error| format!("this is no export of an audit log: {error}"))? {
            Piece::Page { data } => entries.extend(data),
            Piece::Entry(entry) => entries.push(*entry),
        }
    }
    Ok(entries)
}

/// What is said of a good export.
fn check(text: &str, heads: &[String]) -> Result<String, String> {
    let mut entries = read(text)?;
    verify(&mut entries).map_err(|broken| broken.to_string())?;
    for head in heads {
        let (seq, hash) = head.split_once(':').ok_or_else(|| format!("--head {head}: it is SEQ:HASH"))?;
        let seq: u64 = seq.parse().map_err(|_| format!("--head {head}: it is SEQ:HASH"))?;
        match entries.iter().find(|entry| entry.seq == seq) {
            Some(entry) if entry.hash == hash => {}
            Some(_) => return Err(format!("entry {seq} is not the one of --head: the log was written anew")),
            None => return Err(format!("entry {seq} of --head is missing")),
        }
    }
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Err("there is no entry in it".to_owned());
    };
    let begin = if first.seq == 1 { String::new() } else { format!(", from entry {} on", first.seq) };
    Ok(format!("{}: {} entries as they were written{begin}\n{}:{}", last.workspace_id, entries.len(), last.seq, last.hash))
}

fn main() -> ExitCode {
    let Command::Verify { file, head } = Arguments::parse().command;
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(&file).map(|read| text = read)
    };
    match read.map_err(|error| format!("{file}: {error}")).and_then(|()| check(&text, &head)) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_kernel::Timestamp;
    use astra_kernel::audit::Word;
    use astra_kernel::chain::{BEGINNING, Link as _};
    use serde_json::json;
    use std::collections::BTreeMap;

    fn chain() -> Vec<Entry> {
        let mut before = BEGINNING.to_owned();
        let entry = |seq| {
            let mut entry = Entry {
                workspace_id: "acme".to_owned().try_into().unwrap(),
                seq,
                at: Timestamp(1_795_521_600_000),
                actor: Some(BTreeMap::from([("sub".to_owned(), Word::Text("anna".to_owned()))])),
                action: "member.add".into(),
                target: "bob".into(),
                outcome: "allowed".into(),
                detail: BTreeMap::new(),
                prev_hash: before.clone(),
                hash: String::new(),
            };
            entry.hash = entry.made_hash().unwrap();
            before.clone_from(&entry.hash);
            entry
        };
        (1..=4).map(entry).collect()
    }

    #[test]
    fn pages_and_lines_are_read_alike() {
        let entries = chain();
        let said = format!("acme: 4 entries as they were written\n4:{}", entries[3].hash);
        let lines: Vec<_> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        assert_eq!(check(&lines.join("\n"), &[]), Ok(said.clone()));
        let page = |entries: &[Entry]| serde_json::to_string_pretty(&json!({ "data": entries, "nextCursor": null })).unwrap();
        assert_eq!(check(&[page(&entries[2..]), page(&entries[..2])].concat(), &[]), Ok(said));
        assert!(check(&page(&entries[1..]), &[]).unwrap().contains("3 entries as they were written, from entry 2 on"));
    }

    #[test]
    fn what_is_broken_is_named() {
        let entries = chain();
        let lines = |entries: &[Entry]| entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect::<Vec<_>>().join("\n");
        let error = check(&lines(&entries).replacen("bob", "bop", 1), &[]).unwrap_err();
        assert!(error.contains("entry 1 is not as it was written"), "{error}");
        let error = check(&lines(&[entries[0].clone(), entries[2].clone()]), &[]).unwrap_err();
        assert!(error.contains("entry 2 is missing"), "{error}");
        for not_one in ["{}", "[]", "seq,at", "{\"data\":[{}]}"] {
            assert!(check(not_one, &[]).unwrap_err().contains("no export"), "{not_one}");
        }
        assert!(check("", &[]).unwrap_err().contains("no entry"));
    }

    #[test]
    fn a_head_that_was_kept_shows_what_is_missing_at_the_end() {
        let entries = chain();
        let text = serde_json::to_string(&json!({ "data": entries[..3] })).unwrap();
        let head = |n: usize| format!("{}:{}", entries[n].seq, entries[n].hash);
        assert!(check(&text, &[head(1), head(2)]).is_ok());
        assert!(check(&text, &[head(3)]).unwrap_err().contains("entry 4 of --head is missing"));
        assert!(check(&text, &[format!("2:{}", entries[2].hash)]).unwrap_err().contains("written anew"));
        assert!(check(&text, &["2".to_owned()]).unwrap_err().contains("SEQ:HASH"));
    }
}
