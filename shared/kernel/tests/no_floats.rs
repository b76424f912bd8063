//! Money is integers: in the code that reckons it no float occurs, not even on the way. (What JSON shows to people as a number of dollars is written from exact text, and only its
//! description says `f64`.)
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fs;
use std::path::{Path, PathBuf};

/// Where money is reckoned, held, stored or told.
const PATHS: [&str; 13] = [
    "shared/kernel/src/money.rs",
    "shared/kernel/src/ledger.rs",
    "shared/kernel/src/limits.rs",
    "shared/quota/src",
    "shared/quota-rows/src",
    "shared/store/src/billing.rs",
    "shared/store/src/ledger.rs",
    "shared/store/src/holds.rs",
    "shared/turn/src/finish.rs",
    "shared/turn/src/meter.rs",
    "functions/billing/src",
    "functions/quota/src",
    "tools/receipts/src",
];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// Lines of code that have a float in them: its type, a literal, a conversion. Comments, texts, descriptions of the API and unit tests have none.
fn floats(code: &str) -> Vec<&str> {
    let is_float = |line: &&str| {
        let line = line.trim();
        let code = line.split("//").next().unwrap_or_default();
        let outside: String = code.split('"').step_by(2).collect();
        // A field of a tuple in a tuple (`a.0.0`) is none.
        let digit = |at: usize| outside.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        let before = |at: usize| outside[..at].trim_end_matches(|c: char| c.is_ascii_digit() || c == '_').bytes().last();
        let literal = outside.match_indices('.').any(|(at, _)| at > 0 && digit(at - 1) && digit(at + 1) && before(at) != Some(b'.'));
        let words: Vec<&str> = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        !line.starts_with("#[schema")
            && (literal || words.iter().any(|w| matches!(*w, "f32" | "f64" | "as_f64" | "as_f32" | "from_f64" | "parse_f64")))
    };
    code.split("#[cfg(test)]").next().unwrap_or_default().lines().filter(is_float).collect()
}

#[test]
fn no_float_takes_part_in_money() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for path in PATHS {
        let before = files.len();
        sources(&root.join(path), &mut files);
        assert!(files.len() > before, "{path} is not there: say where it went");
    }
    let mut found = Vec::new();
    for file in &files {
        let code = fs::read_to_string(file).unwrap();
        found.extend(floats(&code).into_iter().map(|line| format!("{}: {}", file.display(), line.trim())));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_float_would_be_found() {
    for line in ["let x: f64 = y;", "let x = 0.5;", "value.as_f64()", "x as f32"] {
        assert_eq!(floats(line), [line]);
    }
    for line in ["// 0.5 of it", "#[schema(value_type = f64)]", "\"0.5\"", "a.0.0", "tuple.0.len()", "1..5"] {
        assert!(floats(line).is_empty(), "{line}");
    }
}
