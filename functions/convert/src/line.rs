//! Placed characters into lines of text, in the order in which the page draws them: mostly the order in which it is read.

use hayro_font::kurbo::{Affine, Point, Vec2};

/// Farther apart than this share of the type's size, two characters are of two words.
const WORD: f64 = 0.2;

/// Farther off the line than this, or as far back on it, a new line begins.
const LINE: f64 = 0.5;

/// Farther off than this, a paragraph does.
const PARAGRAPH: f64 = 1.75;

/// What has to be between what was written and what comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Gap {
    #[default]
    None,
    Space,
    Line,
    Paragraph,
}

/// A page's text, as far as it has been drawn.
#[derive(Default)]
pub(crate) struct Lines {
    text: String,
    gap: Gap,
    /// Where the last glyph ended, and its size.
    last: Option<(Point, f64)>,
}

impl Lines {
    /// Writes what one glyph says. `glyph` maps the em square to the page, `advance` is how far it takes the text in the direction of writing, in ems.
    pub(crate) fn glyph(&mut self, says: &str, glyph: Affine, advance: Vec2) {
        let to_page = |ems: Vec2| glyph * ems.to_point() - glyph * Point::ZERO;
        let (along, across) =
            if advance.y == 0.0 { (Vec2::new(1.0, 0.0), Vec2::new(0.0, 1.0)) } else { (Vec2::new(0.0, -1.0), Vec2::new(1.0, 0.0)) };
        let along = to_page(along).normalize();
        let size = to_page(across).hypot();
        if let Some((end, last)) = self.last.replace((glyph * advance.to_point(), size)) {
            let size = size.max(last);
            let moved = glyph * Point::ZERO - end;
            let (on, off) = (moved.dot(along), moved.cross(along).abs());
            self.want(if off > PARAGRAPH * size {
                Gap::Paragraph
            } else if off > LINE * size || on < -LINE * size {
                Gap::Line
            } else if on > WORD * size {
                Gap::Space
            } else {
                Gap::None
            });
        }
        for c in says.chars() {
            match c {
                // Nothing that anybody reads: a byte order mark, what a font could not name, the private use area.
                '\u{feff}' | '\u{fffd}' | '\u{e000}'..='\u{f8ff}' => {}
                c if c.is_whitespace() => self.want(Gap::Space),
                c if c.is_control() => {}
                'ﬀ' => self.write("ff"),
                'ﬁ' => self.write("fi"),
                'ﬂ' => self.write("fl"),
                'ﬃ' => self.write("ffi"),
                'ﬄ' => self.write("ffl"),
                'ﬅ' | 'ﬆ' => self.write("st"),
                c => self.write(c.encode_utf8(&mut [0; 4])),
            }
        }
    }

    fn want(&mut self, gap: Gap) {
        self.gap = self.gap.max(gap);
    }

    fn write(&mut self, letters: &str) {
        match std::mem::take(&mut self.gap) {
            _ if self.text.is_empty() => {}
            Gap::None => {}
            Gap::Space => self.text.push(' '),
            Gap::Line if letters.starts_with(char::is_lowercase) && self.is_hyphenated() => drop(self.text.pop()),
            Gap::Line => self.text.push('\n'),
            Gap::Paragraph => self.text.push_str("\n\n"),
        }
        self.text.push_str(letters);
    }

    /// Whether the line ends in the middle of a word.
    fn is_hyphenated(&self) -> bool {
        let mut back = self.text.chars().rev();
        matches!(back.next(), Some('-' | '\u{ad}' | '\u{2010}')) && back.next().is_some_and(char::is_alphabetic)
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type of 10 points, half as wide, at places on a page.
    fn lines(words: &[(f64, f64, &str)]) -> String {
        let mut lines = Lines::default();
        for (x, y, word) in words {
            for (n, c) in word.chars().enumerate() {
                let at = Affine::translate((x + 5.0 * f64::from(u32::try_from(n).unwrap()), *y)) * Affine::scale(10.0);
                lines.glyph(c.encode_utf8(&mut [0; 4]), at, Vec2::new(0.5, 0.0));
            }
        }
        lines.finish()
    }

    #[test]
    fn places_become_words_lines_and_paragraphs() {
        assert_eq!(
            lines(&[(0.0, 100.0, "Re"), (10.5, 100.0, "funds"), (40.0, 100.0, "take"), (0.0, 88.0, "30 "), (18.0, 88.0, "days")]),
            "Refunds take\n30 days"
        );
        assert_eq!(lines(&[(0.0, 100.0, "a"), (0.0, 80.0, "b"), (0.0, 100.0, "c"), (30.0, 100.0, "d")]), "a\n\nb\n\nc d");
        // Raised a little, it is the same line; two columns are two lines.
        assert_eq!(lines(&[(0.0, 100.0, "x"), (5.0, 103.0, "2")]), "x2");
        assert_eq!(lines(&[(300.0, 100.0, "right"), (0.0, 100.0, "left")]), "right\nleft");
    }

    #[test]
    fn words_are_whole() {
        assert_eq!(lines(&[(0.0, 100.0, "ﬁnd eﬃcient")]), "find efficient");
        assert_eq!(lines(&[(0.0, 100.0, "exam-"), (0.0, 88.0, "ple")]), "example");
        assert_eq!(lines(&[(0.0, 100.0, "exam\u{ad}"), (0.0, 88.0, "ple")]), "example");
        assert_eq!(lines(&[(0.0, 100.0, "2026-"), (0.0, 88.0, "a"), (0.0, 76.0, "A-"), (0.0, 64.0, "B")]), "2026-\na\nA-\nB");
        assert_eq!(lines(&[(0.0, 100.0, "\u{feff}\0 a\u{a0}\u{e001} b ")]), "a b");
    }

    #[test]
    fn a_place_may_be_any_number() {
        let mut lines = Lines::default();
        for bad in [f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, 0.0, -1e308] {
            lines.glyph("a", Affine::scale(bad), Vec2::new(bad, bad));
        }
        assert_eq!(lines.finish().chars().filter(|c| *c == 'a').count(), 5);
    }
}
