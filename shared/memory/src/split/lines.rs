//! The lines of a document and the headings that they stand under, without building a tree of it.
//!
//! Of `CommonMark` as much as headings need: `# …` to `###### …`, a lone line underlined with `===` or `---`, and fenced code, in which
//! neither is a heading. What it takes for a heading by mistake only names a chunk; no text is lost by it.

use super::text::Text;
use std::ops::Range;

/// How deep headings go.
const LEVELS: usize = 6;

/// How many bytes of a heading are kept.
const MAX_TITLE: usize = 200;

/// A longer line is text, whatever it begins with, and comes in parts of this size.
const MAX_LINE: usize = 4_096;

/// How far a line's kind may depend on what follows its beginning: itself, and the line that may underline it, with their ends.
pub(super) const AHEAD: usize = 2 * (MAX_LINE + 1);

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A heading.
    Heading(Heading),
    /// Nothing but blanks, or the line under a heading.
    Blank,
    /// Anything else; inside of fenced code when true.
    Text(bool),
    /// A long line that goes on.
    More,
}

/// A heading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heading {
    /// From 1.
    level: usize,
    /// Where its line begins: no other heading begins there.
    at: usize,
    /// The first [`MAX_TITLE`] bytes of what it says.
    title: String,
}

/// Reads a document line by line.
#[derive(Debug)]
pub(super) struct Lines {
    /// Where the next line begins.
    pub(super) at: usize,
    markdown: bool,
    /// The character and the number of the fence that is open.
    fence: Option<(u8, usize)>,
    before: Before,
    /// Inside of a long line.
    within: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Blank,
    Text,
    /// A heading whose underline comes next.
    Underlined,
}

impl Lines {
    pub(super) fn new(markdown: bool) -> Self {
        Self { at: 0, markdown, fence: None, before: Before::Blank, within: false }
    }

    /// The next line; none at the end, and as long as too little of the text is there to tell what it is.
    pub(super) fn next(&mut self, text: &Text) -> Option<(Range<usize>, Line)> {
        let rest = text.rest(self.at);
        if rest.is_empty() || (!text.whole && rest.len() < AHEAD) {
            return None;
        }
        let start = self.at;
        let within = std::mem::take(&mut self.within);
        let (line, next) = match first(rest) {
            Ok((line, next)) => (Some(line), next),
            Err(part) => {
                self.within = true;
                (None, part)
            }
        };
        self.at = start + next;
        let kind = match line {
            _ if within => Line::More,
            Some(line) => self.classify(start, line, &rest[next..]),
            None => {
                self.before = Before::Text;
                Line::Text(self.fence.is_some())
            }
        };
        Some((start..self.at, kind))
    }

    fn classify(&mut self, at: usize, line: &str, rest: &str) -> Line {
        let trimmed = line.trim();
        if !self.markdown {
            return if trimmed.is_empty() { Line::Blank } else { Line::Text(false) };
        }
        let before = std::mem::replace(&mut self.before, if trimmed.is_empty() { Before::Blank } else { Before::Text });
        let indent = line.len() - line.trim_start_matches(' ').len();
        if let Some((mark, number)) = self.fence {
            let run = trimmed.bytes().take_while(|byte| *byte == mark).count();
            if indent < 4 && run >= number && run == trimmed.len() {
                self.fence = None;
            }
            return if trimmed.is_empty() { Line::Blank } else { Line::Text(true) };
        }
        if trimmed.is_empty() || before == Before::Underlined {
            self.before = Before::Blank;
            return Line::Blank;
        }
        if indent >= 4 {
            return Line::Text(false);
        }
        for mark in [b'`', b'~'] {
            let run = trimmed.bytes().take_while(|byte| *byte == mark).count();
            if run >= 3 && (mark == b'~' || !trimmed[run..].contains('`')) {
                self.fence = Some((mark, run));
                return Line::Text(true);
            }
        }
        let heading =
            |level, title: &str| Line::Heading(Heading { level, at, title: title[..title.floor_char_boundary(MAX_TITLE)].to_owned() });
        let level = trimmed.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=LEVELS).contains(&level) && trimmed[level..].starts_with([' ', '\t']) {
            self.before = Before::Blank;
            let title = trimmed[level..].trim();
            let bare = title.trim_end_matches('#');
            return heading(level, if bare.is_empty() || bare.ends_with([' ', '\t']) { bare.trim_end() } else { title });
        }
        if before == Before::Blank
            && let Ok((under, _)) = first(rest)
        {
            let under = under.trim_end();
            let level = match under.bytes().next() {
                Some(b'=') if under.len() > 1 && under.bytes().all(|byte| byte == b'=') => 1,
                Some(b'-') if under.len() > 2 && under.bytes().all(|byte| byte == b'-') && !trimmed.starts_with("---") => 2,
                _ => return Line::Text(false),
            };
            self.before = Before::Underlined;
            return heading(level, trimmed);
        }
        Line::Text(false)
    }
}

/// The first line of a text, without its end, and where the next one begins; of one that is too long where its first part ends.
fn first(text: &str) -> Result<(&str, usize), usize> {
    match text.bytes().take(MAX_LINE + 1).position(|byte| byte == b'\n') {
        Some(end) => Ok((&text[..end], end + 1)),
        None if text.len() <= MAX_LINE => Ok((text, text.len())),
        None => Err(text.floor_char_boundary(MAX_LINE)),
    }
}

/// Which headings parts of a document stand under. Asked for part after part, in their order.
#[derive(Debug)]
pub(super) struct Path {
    lines: Lines,
    /// The line that was read last; parts may end inside of it.
    line: Option<(Range<usize>, Line)>,
    here: [Option<Heading>; LEVELS],
}

impl Path {
    pub(super) fn new(markdown: bool) -> Self {
        Self { lines: Lines::new(markdown), line: None, here: Default::default() }
    }

    /// Before what place it has no need of the text.
    pub(super) fn read(&self) -> usize {
        self.lines.at
    }

    /// Reads the next line. False when there is none, or not yet.
    fn advance(&mut self, text: &Text) -> bool {
        let Some(line) = self.lines.next(text) else { return false };
        if let Line::Heading(heading) = &line.1 {
            self.here[heading.level - 1] = Some(heading.clone());
            self.here[heading.level..].fill(None);
        }
        self.line = Some(line);
        true
    }

    /// Reads on to the line in which a place is: no part that is asked for begins before it.
    pub(super) fn skip(&mut self, text: &Text, to: usize) {
        while self.line.as_ref().is_none_or(|(line, _)| line.end <= to) && self.advance(text) {}
    }

    /// The headings that all text of a part stands under. A part that has only headings stands under the last of them.
    pub(super) fn of(&mut self, text: &Text, part: &Range<usize>) -> Vec<String> {
        self.skip(text, part.start);
        let mut common: Option<Vec<Heading>> = None;
        while let Some((line, kind)) = &self.line
            && line.start < part.end
        {
            let here = || self.here.iter().flatten();
            match &mut common {
                _ if !matches!(kind, Line::Text(_) | Line::More) => {}
                None => common = Some(here().cloned().collect()),
                Some(common) => common.truncate(common.iter().zip(here()).take_while(|(a, b)| a.at == b.at).count()),
            }
            if line.end >= part.end || !self.advance(text) {
                break;
            }
        }
        let common = common.unwrap_or_else(|| self.here.iter().flatten().cloned().collect());
        common.into_iter().map(|heading| heading.title).filter(|title| !title.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Text {
        let mut whole = Text::default();
        whole.push(text);
        whole.whole = true;
        whole
    }

    fn lines(text: &str, markdown: bool) -> Vec<Line> {
        let (text, mut lines) = (whole(text), Lines::new(markdown));
        std::iter::from_fn(|| lines.next(&text)).map(|(_, line)| line).collect()
    }

    fn headings(text: &str) -> Vec<(usize, String)> {
        let heading = |line| if let Line::Heading(heading) = line { Some((heading.level, heading.title)) } else { None };
        lines(text, true).into_iter().filter_map(heading).collect()
    }

    #[test]
    fn headings_are_found() {
        let text = "# One\n\ntext\n## Two ##\n\nThree\n=====\ntext\n\nFour\n---\n   ###### Six\r\n# C#\n#\tTab\n# \n";
        let found = headings(text);
        let found: Vec<(usize, &str)> = found.iter().map(|(level, title)| (*level, title.as_str())).collect();
        assert_eq!(found, [(1, "One"), (2, "Two"), (1, "Three"), (2, "Four"), (6, "Six"), (1, "C#"), (1, "Tab")]);
    }

    #[test]
    fn nothing_else_is_a_heading() {
        let text = "#hashtag\n####### seven\n    # code\n```\n# comment\n\nx\n===\n~~~\n# comment\n```\n~~~~ rust\n# a\n~~~\n# b\n~~~~\n\n---\ntitle: x\n---\n\
                    a\nb\n===\n\n- - -\n\n---\n---\n`` ` #\n";
        assert_eq!(headings(text), []);
        assert_eq!(headings("```\n# unclosed"), []);
        assert_eq!(lines("# a\n\n", false), [Line::Text(false), Line::Blank]);
        assert_eq!(headings(&format!("# {}", "é".repeat(500)))[0].1.len(), MAX_TITLE);
    }

    #[test]
    fn a_part_is_named_by_what_all_of_it_stands_under() {
        let text = "before\n# A\n## B\nb1. b2.\n### C\nc\n## D\nd\n# E\n";
        let whole = |from: &str, to: &str| text.find(from).unwrap()..text.find(to).unwrap() + to.len();
        let said = super::tests::whole(text);
        let mut path = Path::new(true);
        let names: Vec<String> = [
            whole("before", "before"),
            whole("# A", "b1."),
            whole("b2.", "b2."),
            whole("b2.", "c\n"),
            whole("## D", "d\n"),
            whole("# E", "# E\n"),
        ]
        .iter()
        .map(|part| path.of(&said, part).join(" > "))
        .collect();
        assert_eq!(names, ["", "A > B", "A > B", "A > B", "A > D", "E"]);
        assert_eq!(Path::new(true).of(&said, &whole("b1.", "d\n")), ["A"]);
        assert_eq!(Path::new(true).of(&said, &(0..text.len())), Vec::<String>::new());
    }

    #[test]
    fn a_line_of_a_megabyte_is_text_in_parts() {
        let long = "# é".repeat(100_000);
        let found = lines(&format!("```\n{long}\n```\n{long}\n# A\n{}\n===\n", "b".repeat(MAX_LINE)), true);
        let expected = [Line::Text(true), Line::Text(true), Line::More];
        assert_eq!(found[..3], expected);
        let rest: Vec<&Line> = found.iter().filter(|line| **line != Line::More).skip(2).collect();
        assert!(matches!(rest[..], [Line::Text(true), Line::Text(false), Line::Heading(_), Line::Heading(_), Line::Blank]), "{rest:?}");
        assert!(found.len() < long.len() * 2 / MAX_LINE + 10);
    }
}
