//! Reading what a model answered. Strict: all of it is as was asked for, or none of it is taken.
//!
//! An error says what is wrong and where, in our words only: nothing of the answer is in it, as it goes into logs and dead letters.
//! One thing is let pass, since models that take no schema do it: a Markdown fence around the whole.

use super::{Extracted, MAX_CONTENT, MAX_MEMORIES};
use crate::{Kind, Scope};
use serde_json::{Map, Value};

/// How many bytes an answer may have: as many as the longest memories could take, each character escaped.
pub const MAX_ANSWER: usize = MAX_MEMORIES * (2 * MAX_CONTENT * 12 + 200);

/// Why an answer was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// It is longer than [`MAX_ANSWER`].
    #[error("the answer has {0} bytes, {MAX_ANSWER} are allowed")]
    TooLong(usize),
    /// It is no JSON.
    #[error("the answer is no JSON at line {line}, column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It is JSON of another form.
    #[error("the answer {0}")]
    Form(&'static str),
    /// There are more than [`MAX_MEMORIES`].
    #[error("the answer has {0} memories, {MAX_MEMORIES} are allowed")]
    TooMany(usize),
    /// One memory is not as it has to be.
    #[error("memory {number} {what}")]
    Memory {
        /// Which, from 1.
        number: usize,
        /// What about it.
        what: &'static str,
    },
}

/// Reads an answer to [`super::prompt`].
///
/// # Errors
/// [`BadAnswer`].
pub fn parse(answer: &str) -> Result<Vec<Extracted>, BadAnswer> {
    if answer.len() > MAX_ANSWER {
        return Err(BadAnswer::TooLong(answer.len()));
    }
    let document: Value =
        serde_json::from_str(unfenced(answer)).map_err(|error| BadAnswer::NotJson { line: error.line(), column: error.column() })?;
    let Value::Object(mut document) = document else { return Err(BadAnswer::Form("is no object")) };
    let Some(memories) = document.remove("memories") else { return Err(BadAnswer::Form("has no field memories")) };
    if !document.is_empty() {
        return Err(BadAnswer::Form("has a field that is unknown"));
    }
    let Value::Array(memories) = memories else { return Err(BadAnswer::Form("has memories that are no array")) };
    if memories.len() > MAX_MEMORIES {
        return Err(BadAnswer::TooMany(memories.len()));
    }
    memories.into_iter().zip(1..).map(|(value, number)| memory(value).map_err(|what| BadAnswer::Memory { number, what })).collect()
}

/// Without a fence of three backticks around it, and the word `json` after the first.
fn unfenced(answer: &str) -> &str {
    let answer = answer.trim();
    let inner = answer.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(answer, |inner| inner.strip_prefix("json").unwrap_or(inner))
}

fn memory(value: Value) -> Result<Extracted, &'static str> {
    let Value::Object(mut fields) = value else { return Err("is no object") };
    let kind = string(&mut fields, "kind").ok_or("has a kind that is missing or no string")?;
    let kind = kind.parse::<Kind>().map_err(|_| "has a kind that is none of fact, preference, decision, note")?;
    let content = string(&mut fields, "content").ok_or("has a content that is missing or no string")?;
    let content = sized(&content).ok_or("has a content that is empty, longer than 2,000 characters, or holds NUL")?;
    let scope = match string(&mut fields, "scope").as_deref() {
        Some("user") => Scope::User,
        Some("workspace") => Scope::Workspace,
        _ => return Err("has a scope that is neither user nor workspace"),
    };
    let replaces = match fields.remove("replaces") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(sized(&text).ok_or("has a replaces that is empty, longer than 2,000 characters, or holds NUL")?),
        Some(_) => return Err("has a replaces that is no string"),
    };
    if fields.is_empty() { Ok(Extracted { kind, content, scope, replaces }) } else { Err("has a field that is unknown") }
}

fn string(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// A text as a memory may have it.
pub(super) fn sized(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = !text.is_empty() && !text.contains('\0') && text.chars().nth(MAX_CONTENT).is_none();
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = r#"{"memories":[{"kind":"fact","content":" Refunds take 30 days. ","scope":"workspace","replaces":null},
        {"kind":"preference","content":"Anna prefers tea.","scope":"user","replaces":"Anna prefers coffee."}, {"scope":"user","kind":"note","content":"x"}]}"#;

    #[test]
    fn what_was_asked_for_is_read() {
        let read = parse(GOOD).unwrap();
        assert_eq!(read.len(), 3);
        assert_eq!((read[0].kind, read[0].scope, read[0].content.as_str()), (Kind::Fact, Scope::Workspace, "Refunds take 30 days."));
        assert_eq!(read[1].replaces.as_deref(), Some("Anna prefers coffee."));
        assert!(read[0].replaces.is_none() && read[2].replaces.is_none());
        for fenced in [format!("```json\n{GOOD}\n```"), format!("\n```\n{GOOD}```\n")] {
            assert_eq!(parse(&fenced), Ok(read.clone()));
        }
        assert_eq!(parse(r#"{"memories":[]}"#), Ok(vec![]));
        assert!(!format!("{read:?}").contains("tea"), "no text in logs");
    }

    #[test]
    fn whatever_is_malformed_is_an_error_that_says_what() {
        let with = |field: &str, value: &str| {
            let mut memory = serde_json::json!({ "kind": "fact", "content": "c", "scope": "user", "replaces": null });
            memory[field] = serde_json::from_str(value).unwrap();
            serde_json::json!({ "memories": [{ "kind": "fact", "content": "c", "scope": "user" }, memory] }).to_string()
        };
        let long = format!("\"{}\"", "ü".repeat(2_001));
        for (answer, error) in [
            ("", "the answer is no JSON at line 1, column 0"),
            ("I found nothing.", "the answer is no JSON at line 1, column 1"),
            ("{\"memories\":[]} x", "the answer is no JSON at line 1, column 17"),
            ("[]", "the answer is no object"),
            ("{}", "the answer has no field memories"),
            ("{\"memories\":{}}", "the answer has memories that are no array"),
            ("{\"memories\":[],\"secret\":1}", "the answer has a field that is unknown"),
            ("{\"memories\":[1]}", "memory 1 is no object"),
            (&with("kind", "\"secret\""), "memory 2 has a kind that is none of fact, preference, decision, note"),
            (&with("kind", "1"), "memory 2 has a kind that is missing or no string"),
            (&with("content", "\" \""), "memory 2 has a content that is empty, longer than 2,000 characters, or holds NUL"),
            (&with("content", "\"a\\u0000b\""), "memory 2 has a content that is empty, longer than 2,000 characters, or holds NUL"),
            (&with("content", &long), "memory 2 has a content that is empty, longer than 2,000 characters, or holds NUL"),
            (&with("content", "[\"secret\"]"), "memory 2 has a content that is missing or no string"),
            (&with("scope", "\"all\""), "memory 2 has a scope that is neither user nor workspace"),
            (&with("replaces", "7"), "memory 2 has a replaces that is no string"),
            (&with("replaces", "\"\""), "memory 2 has a replaces that is empty, longer than 2,000 characters, or holds NUL"),
            (&with("secret", "7"), "memory 2 has a field that is unknown"),
        ] {
            assert_eq!(parse(answer).unwrap_err().to_string(), error, "{answer}");
        }
        assert!(parse(&with("content", &format!("\"{}\"", "ü".repeat(2_000)))).is_ok());
    }

    #[test]
    fn numbers_and_depth_are_bounded() {
        let memories = |number: usize| {
            let memory = r#"{"kind":"fact","content":"c","scope":"user"}"#;
            format!("{{\"memories\":[{}]}}", vec![memory; number].join(","))
        };
        assert_eq!(parse(&memories(20)).map(|read| read.len()), Ok(20));
        assert_eq!(parse(&memories(21)), Err(BadAnswer::TooMany(21)));
        assert!(matches!(parse(&"[".repeat(100_000)), Err(BadAnswer::NotJson { .. })));
        assert_eq!(parse(&" ".repeat(MAX_ANSWER + 1)), Err(BadAnswer::TooLong(MAX_ANSWER + 1)));
        // The longest that is allowed, written the longest way.
        let longest = format!("\"{}\"", "\\ud83d\\ude00".repeat(MAX_CONTENT));
        let memory = format!(r#"{{"kind":"preference","content":{longest},"scope":"workspace","replaces":{longest}}}"#);
        assert_eq!(parse(&format!("{{\"memories\":[{}]}}", vec![memory; 20].join(","))).map(|read| read.len()), Ok(20));
    }

    proptest! {
        #[test]
        fn nothing_panics(answer in "[\\[\\]{}\":,a-z0 `\\\\]{0,60}", at in 0..GOOD.len(), byte in proptest::char::any()) {
            let _ = parse(&answer);
            let mut broken = GOOD.to_owned();
            broken.insert(at, byte);
            let _ = parse(&broken);
            let _ = parse(&GOOD[..at]);
        }
    }
}
