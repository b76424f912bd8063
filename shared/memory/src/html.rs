//! HTML to Markdown, as far as search and citations need it: headings, paragraphs, lists, rows of tables, code. Scripts, styles, templates
//! and comments are gone; emphasis and the targets of links too.
//!
//! It works on tokens (WHATWG's tokenizer, as html5gum has it) and builds no tree. A tree is where hostile HTML bites: converters that walk
//! one by recursion end with the stack, and building one is quadratic in the depth of open elements by the standard itself. Here time is
//! linear, memory a small multiple of the input, and depth a counter. What that costs: an element that hides its content by style is read
//! like any other, and misnested tags are taken in the order in which they stand.

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use std::convert::Infallible;

/// Deeper lists are indented no further.
const MAX_INDENT: usize = 8;

/// So many bytes are handed on at a time.
const PART: usize = 1 << 16;

/// Reads a page, and hands on what it says as Markdown without NUL, part by part. Whatever it holds, it is read to the end.
pub fn read(html: &str, hand_on: impl FnMut(&str)) {
    let mut writer = Writer::new(hand_on);
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<Infallible> {
        writer.event(&event);
        None
    });
    // Scripts and styles are read as the raw text that they are.
    emitter.naively_switch_states(true);
    let Ok(()) = Tokenizer::new_with_emitter(html, emitter).finish();
    writer.finish();
}

/// What has to be between what was written and what comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Line,
    Paragraph,
}

struct Writer<F> {
    hand_on: F,
    /// What was written and not handed on.
    out: String,
    /// How many bytes were handed on.
    handed_on: usize,
    /// At how many bytes something is handed on next.
    due: usize,
    gap: Gap,
    /// What the next line begins with: a heading's or a list item's mark. Written with the first word, so that empty ones leave nothing.
    mark: String,
    /// Inside an element whose raw text is not content.
    raw: bool,
    /// Open templates: their content is on no page.
    templates: usize,
    /// Open `pre`s. Only the outermost opens a fence.
    pres: usize,
    fence: Fence,
    /// The open lists: the number of the last item, if they are numbered.
    lists: Vec<Option<u32>>,
    tag: Tag,
    /// Whether this row of a table has text already.
    row_begun: bool,
    /// Inside a heading, which has one line only.
    heading: bool,
}

/// The tag that is being read.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Tag {
    #[default]
    Other,
    Image,
    /// An image, at its description.
    Alt,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Fence {
    #[default]
    None,
    /// A `pre` has begun and has no text yet.
    Due,
    Open,
}

impl<F: FnMut(&str)> Writer<F> {
    fn new(hand_on: F) -> Self {
        Self {
            hand_on,
            out: String::new(),
            handed_on: 0,
            due: PART,
            gap: Gap::None,
            mark: String::new(),
            raw: false,
            templates: 0,
            pres: 0,
            fence: Fence::None,
            lists: Vec::new(),
            tag: Tag::Other,
            row_begun: false,
            heading: false,
        }
    }

    fn event(&mut self, event: &CallbackEvent<'_>) {
        match *event {
            CallbackEvent::OpenStartTag { name } => self.start(name),
            CallbackEvent::AttributeName { name } if self.tag != Tag::Other => {
                self.tag = if name == b"alt" { Tag::Alt } else { Tag::Image }
            }
            CallbackEvent::AttributeValue { value } if self.tag == Tag::Alt => self.text(&String::from_utf8_lossy(value)),
            CallbackEvent::CloseStartTag { .. } => self.tag = Tag::Other,
            CallbackEvent::EndTag { name } => self.end(name),
            CallbackEvent::String { value } => self.text(&String::from_utf8_lossy(value)),
            _ => {}
        }
    }

    fn start(&mut self, name: &[u8]) {
        match name {
            b"title" | b"script" | b"style" | b"noscript" | b"iframe" | b"noembed" | b"noframes" => self.raw = true,
            b"template" => self.templates += 1,
            b"img" => self.tag = Tag::Image,
            b"br" if self.pres > 0 => self.text("\n"),
            b"br" => self.want(if self.heading { Gap::Space } else { Gap::Line }),
            b"pre" => {
                self.want(Gap::Paragraph);
                if self.pres == 0 {
                    self.fence = Fence::Due;
                }
                self.pres += 1;
            }
            b"ul" | b"menu" => self.list(None),
            b"ol" => self.list(Some(0)),
            b"li" => self.item(),
            b"td" | b"th" if self.row_begun => {
                self.gap = Gap::Space;
                "| ".clone_into(&mut self.mark);
            }
            [b'h', level @ b'1'..=b'6'] => {
                self.want(Gap::Paragraph);
                self.heading = true;
                self.mark = format!("{} ", "#".repeat(usize::from(level - b'0')));
            }
            _ => self.block(name, false),
        }
    }

    fn end(&mut self, name: &[u8]) {
        match name {
            b"title" | b"script" | b"style" | b"noscript" | b"iframe" | b"noembed" | b"noframes" => self.raw = false,
            b"template" => self.templates = self.templates.saturating_sub(1),
            b"pre" => {
                self.pres = self.pres.saturating_sub(1);
                if self.pres == 0 {
                    self.close_fence();
                }
                self.want(Gap::Paragraph);
            }
            b"ul" | b"menu" | b"ol" => {
                self.lists.pop();
                self.mark.clear();
                self.want(if self.lists.is_empty() { Gap::Paragraph } else { Gap::Line });
            }
            b"li" => {
                self.mark.clear();
                self.want(Gap::Line);
            }
            [b'h', b'1'..=b'6'] => {
                self.mark.clear();
                self.heading = false;
                self.want(Gap::Paragraph);
            }
            _ => self.block(name, true),
        }
    }

    /// Elements that stand apart from what is around them, at their begin and their end.
    fn block(&mut self, name: &[u8], ends: bool) {
        match name {
            b"table" | b"tr" => {
                self.want(if name == b"tr" { Gap::Line } else { Gap::Paragraph });
                self.row_begun = false;
                if ends {
                    self.mark.clear();
                }
            }
            b"p" | b"div" | b"section" | b"article" | b"header" | b"footer" | b"main" | b"aside" | b"nav" | b"address" | b"blockquote"
            | b"figure" | b"figcaption" | b"form" | b"fieldset" | b"legend" | b"details" | b"summary" | b"dl" | b"caption" | b"hr"
            | b"body" | b"head" | b"html" | b"search" | b"dialog" | b"center" => self.want(Gap::Paragraph),
            b"dt" | b"dd" | b"option" | b"textarea" | b"xmp" => self.want(Gap::Line),
            _ => {}
        }
    }

    fn list(&mut self, numbered: Option<u32>) {
        self.want(if self.lists.is_empty() { Gap::Paragraph } else { Gap::Line });
        self.lists.push(numbered);
    }

    fn item(&mut self) {
        self.want(Gap::Line);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1).min(MAX_INDENT));
        self.mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number = number.saturating_add(1);
                format!("{indent}{number}. ")
            }
            _ => format!("{indent}- "),
        };
    }

    fn want(&mut self, gap: Gap) {
        self.heading &= gap <= Gap::Space || !self.mark.is_empty();
        self.gap = self.gap.max(gap);
    }

    fn text(&mut self, text: &str) {
        if self.raw || self.templates > 0 {
            return;
        }
        if self.pres > 0 {
            self.code(text);
            return;
        }
        for (number, word) in text.split(|c: char| c.is_ascii_whitespace() || c == '\u{a0}' || c == '\0').enumerate() {
            if number > 0 {
                self.want(Gap::Space);
            }
            if !word.is_empty() {
                self.word(word);
            }
        }
    }

    fn word(&mut self, word: &str) {
        let new_line = self.bridge();
        self.out.push_str(&self.mark);
        self.mark.clear();
        // Text that would be read as a heading or as the beginning of code.
        if new_line && word.starts_with(['#', '`', '~']) {
            self.out.push('\\');
        }
        self.out.push_str(word);
        self.row_begun = true;
    }

    fn code(&mut self, text: &str) {
        let mut text = text;
        if self.fence == Fence::Due {
            // The standard drops one line break at the beginning.
            text = text.strip_prefix('\n').unwrap_or(text);
            if text.trim().is_empty() {
                return;
            }
            self.bridge();
            self.mark.clear();
            self.out.push_str("```\n");
            self.fence = Fence::Open;
        }
        self.gap = Gap::None;
        self.out.extend(text.chars().filter(|c| *c != '\0'));
        if self.out.len() > self.due {
            self.flush();
        }
    }

    fn close_fence(&mut self) {
        if self.fence == Fence::Open {
            self.out.truncate(self.out.trim_end().len());
            self.out.push_str("\n```");
        }
        self.fence = Fence::None;
    }

    /// Writes the gap; true when a line begins.
    fn bridge(&mut self) -> bool {
        let gap = std::mem::take(&mut self.gap);
        if self.out.is_empty() && self.handed_on == 0 {
            return true;
        }
        if self.out.len() > self.due {
            self.flush();
        }
        self.out.push_str(match gap {
            Gap::None => "",
            Gap::Space => " ",
            Gap::Line => "\n",
            Gap::Paragraph => "\n\n",
        });
        gap >= Gap::Line
    }

    /// Hands on what is written, but for the blanks at its end, which a fence's end takes back.
    fn flush(&mut self) {
        let end = self.out.trim_end().len();
        (self.hand_on)(&self.out[..end]);
        self.handed_on += end;
        self.out.drain(..end);
        // So that many blanks are not looked through again and again.
        self.due = PART.max(2 * self.out.len());
    }

    fn finish(mut self) {
        self.close_fence();
        (self.hand_on)(&self.out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn markdown(html: &str) -> String {
        let mut markdown = String::new();
        read(html, |part| markdown.push_str(part));
        markdown
    }

    #[test]
    fn structure_is_kept() {
        let page = markdown(
            "<!doctype html><html><head><title> ACME\n Handbook </title><style>p { color: red }</style></head><body>
            <h1>Refunds &amp; <em>returns</em></h1><p>They take <b>30</b> days,<br>not&nbsp;more.</p>
            <ul><li>Cash<ul><li>Euro</li></ul></li><li></li><li><p>Card</p></li></ul><ol><li>Ask<li>Wait</ol>
            <table><tr><th>Plan</th><th>Days</th></tr><tr><td>Basic</td><td>30</td></tr></table>
            <pre>\n# comment\n  x = 1;\n</pre><p># no heading</p><h2></h2><img alt='A chart'><script>alert('x')</script></body></html>",
        );
        assert_eq!(
            page,
            "# Refunds & returns\n\nThey take 30 days,\nnot more.\n\n- Cash\n  - Euro\n\n- Card\n\n1. Ask\n2. Wait\n\n\
             Plan | Days\nBasic | 30\n\n```\n# comment\n  x = 1;\n```\n\n\\# no heading\n\nA chart"
        );
    }

    #[test]
    fn what_is_no_content_is_gone() {
        for html in [
            "<script>secret</script>",
            "<SCRIPT type=x>if (a < b) { '<p>secret' }</SCRIPT >",
            "<style>secret</style>",
            "<script>x = '</style><p>secret'</script>",
            "<style>a::before { content: '</script>secret' }</style>",
            "<noscript><p>secret</p></noscript>",
            "<template><p>secret<template>secret</template>secret</p></template>",
            "<!-- secret --><!-- secret",
            "<p title=secret data-x='secret'></p>",
            "<script>secret",
            "<svg><style>secret</style></svg>",
        ] {
            assert_eq!(markdown(&format!("<p>before</p>{html}")), "before", "{html}");
        }
        assert_eq!(markdown("a<script>b</script>c<style>d</style> e"), "ac e");
    }

    #[test]
    fn soup_is_eaten() {
        for (html, text) in [
            ("", ""),
            ("plain", "plain"),
            ("a</p></div></ul></pre></template>b", "a\n\nb"),
            ("<h1>Title<p>text", "# Title\n\ntext"),
            ("<pre><pre>a</pre>b</pre>c", "```\nab\n```\n\nc"),
            ("<h1><div>One<br>line</div></h1>", "# One line"),
            ("<pre>a<br>b", "```\na\nb\n```"),
            ("<p>a</p><table><tr><td>b</td><td></td></tr></table>c", "a\n\nb\n\nc"),
            ("<pre>a ``` b", "```\na ``` b\n```"),
            ("<li>a<li>b", "- a\n- b"),
            ("<td>a<td>b", "a | b"),
            ("&lt;p&gt; &#x41; &notanentity; &#0; &#xD800;", "<p> A ¬anentity; \u{fffd} \u{fffd}"),
            ("a\0b", "a b"),
            ("<p>a<p>b<div>c</div>d", "a\n\nb\n\nc\n\nd"),
        ] {
            assert_eq!(markdown(html), text, "{html:?}");
        }
    }

    #[test]
    fn depth_is_no_danger() {
        for open in ["<div>", "<b>", "<ul><li>", "<table><tr><td>", "<blockquote>", "<pre>", "<font size=1>", "<svg><g>", "<template>x"] {
            let text = markdown(&format!("{}deep", open.repeat(100_000)));
            assert!(text.len() < 40 && (text.contains("deep") || open == "<template>x"), "{open}: {}", text.len());
        }
        assert_eq!(markdown(&format!("{}deep{}", "<div>".repeat(100_000), "</div>".repeat(100_000))), "deep");
    }

    #[test]
    fn output_is_a_small_multiple_of_input() {
        for piece in ["<li>a", "<ul><li>a", "<h6>a</h6>", "<pre>a</pre>", "<td>a", "<p>#", "<img alt=a>", "<br>a", "<ol><li>a"] {
            let html = piece.repeat(10_000);
            assert!(markdown(&html).len() <= 4 * html.len(), "{piece}: {}", markdown(&html).len() / html.len());
        }
    }

    #[test]
    fn a_long_page_is_handed_on_in_parts() {
        for (html, text) in [("<p>word ", "\n\nword"), ("<pre>code\n\n\n</pre>", "\n\n```\ncode\n```"), ("<p>a<pre>\n \n</pre>", "\n\na")] {
            let mut parts = Vec::new();
            read(&html.repeat(100_000), |part| parts.push(part.to_owned()));
            assert_eq!(parts.concat(), text.repeat(100_000).trim_start());
            assert!(parts.len() > 2 && parts.iter().all(|part| part.len() < 2 * PART), "{html}");
        }
        // Many blanks that come one by one: this takes no time.
        assert_eq!(markdown(&format!("<pre>a{}", " <b>".repeat(200_000))), "```\na\n```");
        // Code in one piece, with blanks that are content only because something follows them.
        assert_eq!(
            markdown(&format!("<pre>{}\nb{}</pre>", " ".repeat(200_000), " ".repeat(200_000))),
            format!("```\n{}\nb\n```", " ".repeat(200_000))
        );
    }

    proptest! {
        #[test]
        fn words_outside_of_tags_are_all_there_in_order(words in proptest::collection::vec("[a-zé]{1,5}", 1..20), tags in proptest::collection::vec(0_usize..12, 20)) {
            const TAGS: [&str; 12] = ["<p>", "</p>", "<div>", "<li>", "<ul>", "</ul>", "<h2>", "</h2>", "<br>", "<td>", "<pre>", "</pre>"];
            let html: String = words.iter().zip(&tags).flat_map(|(word, tag)| [TAGS[*tag], " ", word, " "]).collect();
            let read = markdown(&html);
            let found: Vec<&str> = read.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).collect();
            prop_assert_eq!(found, words.iter().map(String::as_str).collect::<Vec<_>>());
        }

        #[test]
        fn nothing_panics(html in "(?s)(<[/!]?[a-z]{0,6}[ =\"'>]?|[&#;x0-9]{1,4}|.){0,60}") {
            prop_assert!(!markdown(&html).contains('\0'));
        }
    }
}
