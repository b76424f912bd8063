//! The lines of a document and the headings that they stand under, without building a tree of it.
//!
//! Of `CommonMark` as much as headings need: `# …` to `###### …`, a lone line underlined with `===` or `---`, and fenced code, in which
//! neither is a heading. What it takes for a heading by mistake only names a chunk; no text is lost by it.

use std::ops::Range;

/// How deep headings go.
const LEVELS: usize = 6;

/// How many bytes of a heading are kept: one that is a megabyte long is no heading.
const MAX_TITLE: usize = 200;

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Its level from 1, and where its title stands.
    Heading(usize, Range<usize>),
    /// Nothing but blanks, or the line under a heading.
    Blank,
    /// Anything else; inside of fenced code when true.
    Text(bool),
}

/// Reads a document line by line.
#[derive(Clone)]
pub(super) struct Lines<'a> {
    text: &'a str,
    at: usize,
    markdown: bool,
    /// The character and the number of the fence that is open.
    fence: Option<(u8, usize)>,
    before: Before,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Blank,
    Text,
    /// A heading whose underline comes next.
    Underlined,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str, markdown: bool) -> Self {
        Self { text, at: 0, markdown, fence: None, before: Before::Blank }
    }

    /// The line at a place, without its end, and where the next one begins.
    fn line(&self, at: usize) -> (&'a str, usize) {
        let rest = &self.text[at..];
        rest.find('\n').map_or((rest, self.text.len()), |end| (&rest[..end], at + end + 1))
    }

    fn classify(&mut self, line: &'a str, next: usize) -> Line {
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
        let level = trimmed.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=LEVELS).contains(&level) && trimmed[level..].starts_with([' ', '\t']) {
            self.before = Before::Blank;
            let title = trimmed[level..].trim();
            let bare = title.trim_end_matches('#');
            let title = if bare.is_empty() || bare.ends_with([' ', '\t']) { bare.trim_end() } else { title };
            return Line::Heading(level, self.place(title));
        }
        if before == Before::Blank && next < self.text.len() {
            let under = self.line(next).0.trim_end();
            let level = match under.bytes().next() {
                Some(b'=') if under.len() > 1 && under.bytes().all(|byte| byte == b'=') => 1,
                Some(b'-') if under.len() > 2 && under.bytes().all(|byte| byte == b'-') && !trimmed.starts_with("---") => 2,
                _ => return Line::Text(false),
            };
            self.before = Before::Underlined;
            return Line::Heading(level, self.place(trimmed));
        }
        Line::Text(false)
    }

    /// Where a part of the text stands, cut to [`MAX_TITLE`].
    fn place(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr() - self.text.as_ptr().addr();
        start..start + part.floor_char_boundary(MAX_TITLE)
    }
}

impl Iterator for Lines<'_> {
    type Item = (Range<usize>, Line);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.text.len() {
            return None;
        }
        let start = self.at;
        let (line, next) = self.line(start);
        self.at = next;
        Some((start..next, self.classify(line, next)))
    }
}

/// Which headings parts of a document stand under. Asked for part after part, in their order.
pub(super) struct Path<'a> {
    text: &'a str,
    lines: Lines<'a>,
    /// The line that was read last; parts may end inside of it.
    line: Option<(Range<usize>, Line)>,
    here: [Option<Range<usize>>; LEVELS],
}

impl<'a> Path<'a> {
    pub(super) fn new(text: &'a str, markdown: bool) -> Self {
        let mut path = Self { text, lines: Lines::new(text, markdown), line: None, here: Default::default() };
        path.advance();
        path
    }

    fn advance(&mut self) {
        self.line = self.lines.next();
        if let Some((_, Line::Heading(level, title))) = &self.line {
            self.here[level - 1] = Some(title.clone());
            self.here[*level..].fill(None);
        }
    }

    /// The headings that all text of a part stands under. A part that has only headings stands under the last of them.
    pub(super) fn of(&mut self, part: &Range<usize>) -> Vec<String> {
        while self.line.as_ref().is_some_and(|(line, _)| line.end <= part.start) {
            self.advance();
        }
        let mut common: Option<Vec<Range<usize>>> = None;
        while let Some((line, kind)) = &self.line
            && line.start < part.end
        {
            if matches!(kind, Line::Text(_)) {
                let here = self.here.iter().flatten();
                common = Some(match common {
                    None => here.cloned().collect(),
                    Some(common) => common.into_iter().zip(here).take_while(|(a, b)| a == *b).map(|(a, _)| a).collect(),
                });
            }
            if line.end >= part.end {
                break;
            }
            self.advance();
        }
        let common = common.unwrap_or_else(|| self.here.iter().flatten().cloned().collect());
        common.into_iter().map(|title| self.text[title].to_owned()).filter(|title| !title.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(text: &str) -> Vec<(usize, &str)> {
        let heading = |(_, line)| if let Line::Heading(level, title) = line { Some((level, &text[title])) } else { None };
        Lines::new(text, true).filter_map(heading).collect()
    }

    #[test]
    fn headings_are_found() {
        let text = "# One\n\ntext\n## Two ##\n\nThree\n=====\ntext\n\nFour\n---\n   ###### Six\r\n# C#\n#\tTab\n# \n";
        assert_eq!(headings(text), [(1, "One"), (2, "Two"), (1, "Three"), (2, "Four"), (6, "Six"), (1, "C#"), (1, "Tab")]);
    }

    #[test]
    fn nothing_else_is_a_heading() {
        let text = "#hashtag\n####### seven\n    # code\n```\n# comment\n\nx\n===\n~~~\n# comment\n```\n~~~~ rust\n# a\n~~~\n# b\n~~~~\n\n---\ntitle: x\n---\n\
                    a\nb\n===\n\n- - -\n\n---\n---\n`` ` #\n";
        assert_eq!(headings(text), []);
        assert_eq!(headings("```\n# unclosed"), []);
        let plain: Vec<Line> = Lines::new("# a\n\n", false).map(|(_, line)| line).collect();
        assert_eq!(plain, [Line::Text(false), Line::Blank]);
        assert_eq!(headings(&format!("# {}", "é".repeat(500)))[0].1.len(), MAX_TITLE);
    }

    #[test]
    fn a_part_is_named_by_what_all_of_it_stands_under() {
        let text = "before\n# A\n## B\nb1. b2.\n### C\nc\n## D\nd\n# E\n";
        let whole = |from: &str, to: &str| text.find(from).unwrap()..text.find(to).unwrap() + to.len();
        let mut path = Path::new(text, true);
        let names: Vec<String> = [
            whole("before", "before"),
            whole("# A", "b1."),
            whole("b2.", "b2."),
            whole("b2.", "c\n"),
            whole("## D", "d\n"),
            whole("# E", "# E\n"),
        ]
        .iter()
        .map(|part| path.of(part).join(" > "))
        .collect();
        assert_eq!(names, ["", "A > B", "A > B", "A > B", "A > D", "E"]);
        assert_eq!(Path::new(text, true).of(&whole("b1.", "d\n")), ["A"]);
        assert_eq!(Path::new(text, true).of(&(0..text.len())), Vec::<String>::new());
    }
}
