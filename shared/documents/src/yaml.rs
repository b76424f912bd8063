//! YAML as JSON: the one form that types are read from, so that a template's agents are read by the same code as an agent of `PUT …/agents/{agentId}`.
//!
//! A number keeps the characters it was written with: amounts must not pass through a float. Plain scalars are resolved as in YAML 1.2's core
//! schema where that has a JSON spelling; all others are text. Tags are refused. Aliases are expanded within a bound on the result's size, which is
//! what stops a document that expands without end; nesting is bounded by the parser.

use astra_kernel::Problem;
use granit_parser::{Event, Marker, Parser, ScalarStyle};
use std::collections::HashMap;
use std::ops::Range;

/// How deep collections may nest. A template has cause to four levels.
const MAX_DEPTH: usize = 16;

/// YAML's media types: RFC 9512's and the two before it.
pub const MEDIA_TYPES: [&str; 3] = ["application/yaml", "text/yaml", "application/x-yaml"];

/// Translates one document.
///
/// # Errors
/// `422` with the line where it is no YAML, or more than `max_bytes` of JSON.
pub fn to_json(yaml: &str, max_bytes: usize) -> Result<String, Problem> {
    // Postgres' text holds no U+0000, and YAML allows none.
    if yaml.contains('\0') {
        return Err(Problem::field("/", "YAML holds no U+0000"));
    }
    let options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    let mut json = Writer { out: String::with_capacity(yaml.len()), max_bytes, open: Vec::new(), anchors: HashMap::new() };
    let mut documents = 0;
    for event in Parser::new_from_str_with_options(yaml, options) {
        let (event, span) = event.map_err(|error| refused(&error.info(), *error.marker()))?;
        if matches!(event, Event::DocumentStart(..)) {
            documents += 1;
        }
        if documents > 1 {
            return Err(refused("a second document begins here", span.start));
        }
        json.event(event).map_err(|why| refused(why, span.start))?;
    }
    if json.out.is_empty() { Err(Problem::field("/", "the document is empty")) } else { Ok(json.out) }
}

fn refused(why: &str, at: Marker) -> Problem {
    Problem::field("/", format!("{why} (line {}, column {})", at.line(), at.col() + 1))
}

/// A collection that is being written.
struct Open {
    /// Where it begins in the output, and its anchor (0 for none).
    begins: usize,
    anchor: usize,
    kind: Kind,
    /// Nothing is in it yet.
    empty: bool,
}

#[derive(PartialEq)]
enum Kind {
    Sequence,
    /// The next node is a key.
    Key,
    /// The next node is a value.
    Value,
}

struct Writer {
    out: String,
    max_bytes: usize,
    open: Vec<Open>,
    /// What an anchor stands for: part of the output.
    anchors: HashMap<usize, Range<usize>>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) -> Result<(), &'static str> {
        match event {
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, _, Some(_)) | Event::MappingStart(_, _, Some(_)) => {
                return Err("tags are not taken here");
            }
            Event::Scalar(text, style, anchor, None) => {
                let key = self.begin_node();
                let begins = self.out.len();
                if key || style != ScalarStyle::Plain {
                    self.text(&text);
                } else {
                    self.plain(&text);
                }
                self.end_node(anchor, begins);
            }
            Event::Alias(anchor) => {
                if self.begin_node() {
                    return Err("an alias cannot be a key here");
                }
                let of = self.anchors.get(&anchor).cloned().ok_or("an alias within what it stands for")?;
                if self.out.len() + of.len() > self.max_bytes {
                    return Err("too large when its aliases are expanded");
                }
                self.out.extend_from_within(of);
                self.end_node(0, 0);
            }
            Event::SequenceStart(_, anchor, None) => self.open(anchor, Kind::Sequence, '[')?,
            Event::MappingStart(_, anchor, None) => self.open(anchor, Kind::Key, '{')?,
            Event::SequenceEnd => self.close(']'),
            Event::MappingEnd => self.close('}'),
            _ => {}
        }
        if self.out.len() > self.max_bytes { Err("too large") } else { Ok(()) }
    }

    /// Writes what stands before a node. True for a mapping's key.
    fn begin_node(&mut self) -> bool {
        let Some(open) = self.open.last_mut() else { return false };
        match open.kind {
            Kind::Sequence | Kind::Key if !open.empty => self.out.push(','),
            Kind::Value => self.out.push(':'),
            _ => {}
        }
        open.empty = false;
        open.kind == Kind::Key
    }

    fn end_node(&mut self, anchor: usize, begins: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, begins..self.out.len());
        }
        if let Some(open) = self.open.last_mut() {
            match open.kind {
                Kind::Key => open.kind = Kind::Value,
                Kind::Value => open.kind = Kind::Key,
                Kind::Sequence => {}
            }
        }
    }

    fn open(&mut self, anchor: usize, kind: Kind, bracket: char) -> Result<(), &'static str> {
        if self.begin_node() {
            return Err("a key is a text");
        }
        self.open.push(Open { begins: self.out.len(), anchor, kind, empty: true });
        self.out.push(bracket);
        Ok(())
    }

    fn close(&mut self, bracket: char) {
        self.out.push(bracket);
        if let Some(Open { begins, anchor, .. }) = self.open.pop() {
            self.end_node(anchor, begins);
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }

    fn plain(&mut self, text: &str) {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => self.out.push_str("null"),
            "true" | "True" | "TRUE" => self.out.push_str("true"),
            "false" | "False" | "FALSE" => self.out.push_str("false"),
            number if is_json_number(number) => self.out.push_str(number),
            _ => self.text(text),
        }
    }
}

/// Whether a text is a number as JSON writes it (RFC 8259 section 6).
fn is_json_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(yaml: &str) -> String {
        to_json(yaml, 10_000).unwrap_or_else(|problem| problem.detail)
    }

    #[test]
    fn scalars_are_resolved_and_numbers_keep_their_characters() {
        let yaml = "[50.00, 8999999.123456789, 1e3, -7, 007, +1, .5, 1_000, 0x1F, true, True, yes, null, ~, '5', \"a\\tb\", x y, 2026-11-24, .nan]";
        assert_eq!(
            json(yaml),
            r#"[50.00,8999999.123456789,1e3,-7,"007","+1",".5","1_000","0x1F",true,true,"yes",null,null,"5","a\tb","x y","2026-11-24",".nan"]"#
        );
        assert_eq!(json("a: |\n  one\n  two\nb: >-\n  one\n  two\n1: {}\nc:\n"), r#"{"a":"one\ntwo\n","b":"one two","1":{},"c":null}"#);
        assert_eq!(json(r#"{"a":[{"b":"ü\"","c":[]}]}"#), r#"{"a":[{"b":"ü\"","c":[]}]}"#);
    }

    #[test]
    fn aliases_are_expanded() {
        assert_eq!(json("a: &x {k: [1]}\nb: *x\nc: [*x, &y 2, *y]"), r#"{"a":{"k":[1]},"b":{"k":[1]},"c":[{"k":[1]},2,2]}"#);
        assert_eq!(json("<<: &x {a: 1}\n"), r#"{"<<":{"a":1}}"#);
    }

    #[test]
    fn what_is_refused_says_where() {
        let laughs: Vec<_> =
            (1..9).map(|n| format!("l{n}: &l{n} [*l{0}, *l{0}, *l{0}, *l{0}, *l{0}, *l{0}, *l{0}, *l{0}]\n", n - 1)).collect();
        let refused: Vec<_> = [
            "",
            "# only a comment",
            "---\n...\n",
            "a: [",
            "a: b: c",
            "\ta: b",
            "a: *unknown",
            "a: &x [*x]",
            "? [a]\n: b",
            "&x a: 1\n*x : 2",
            "a: !!binary AAAA",
            "!foo {a: 1}",
            "a: 1\n---\nb: 2",
            "a\0",
            "%YAML 3.0\n---\na",
            &"[".repeat(40),
            &format!("l0: &l0 [lol]\n{}", laughs.concat()),
            &format!("[{}]", "x,".repeat(5_000)),
        ]
        .map(|yaml| format!("{:?} -> {}", yaml.chars().take(24).collect::<String>(), json(yaml)))
        .into();
        insta::assert_snapshot!(refused.join("\n"));
    }
}
