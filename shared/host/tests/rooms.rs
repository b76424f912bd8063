//! What ARCHITECTURE.md says of the rooms: what the product does knows of no host. A host's name, or a library that only one host has, is in
//! `shared/host/src/HOST` and in the functions' entries, and nowhere else.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

/// Where no host may be known.
const ROOMS: [&str; 15] = [
    "shared/documents",
    "shared/kernel",
    "shared/memory",
    "shared/models",
    "shared/quota",
    "shared/quota-rows",
    "shared/store",
    "shared/turn",
    "shared/typesense",
    "functions/provision",
    "functions/invoke-turn",
    "functions/billing",
    "functions/grants",
    "functions/memory",
    "functions/convert",
];

/// A function's files that are for one host: its Workers entry and its Lambda entry.
const ENTRIES: [&str; 2] = ["src/lib.rs", "src/main.rs"];

/// What only hosts have.
const WORDS: [&str; 18] = [
    "worker",
    "workers",
    "cloudflare",
    "lambda",
    "lambda_http",
    "lambda_runtime",
    "aws",
    "native",
    "nativehost",
    "workershost",
    "tokio",
    "hyper",
    "reqwest",
    "deadpool_postgres",
    "wasm_bindgen",
    "js_sys",
    "web_sys",
    "target_arch",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The words of a line of code that only hosts have.
fn hosts_in(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| WORDS.contains(&word.to_lowercase().as_str()))
}

#[test]
fn what_the_product_does_knows_of_no_host() {
    let mut known = Vec::new();
    for room in ROOMS {
        let folder = root().join(room);
        let mut files = Vec::new();
        sources(&folder.join("src"), &mut files);
        assert!(!files.is_empty(), "{room} has no sources");
        for file in files {
            if room.starts_with("functions/") && ENTRIES.iter().any(|entry| file.ends_with(entry)) {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            // Tests of a module stand at its end and may use what they need.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                known.extend(hosts_in(line).map(|word| format!("{}:{}: {word}", file.display(), number + 1)));
            }
        }
    }
    assert!(known.is_empty(), "a host is known outside of its adapter: {known:#?}");
}

#[test]
fn a_word_is_found_where_it_is_code() {
    for (line, words) in [
        ("use tokio::time;", vec!["tokio"]),
        ("#[cfg(target_arch = \"wasm32\")]", vec!["target_arch"]),
        ("let x = worker::Fetch; // tokio", vec!["worker"]),
        ("/// What Cloudflare does.", vec![]),
        ("let coworkers = 1;", vec![]),
    ] {
        assert_eq!(hosts_in(line).collect::<Vec<_>>(), words, "{line}");
    }
}
