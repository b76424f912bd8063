//! What is at hand of a text that comes piece by piece: places are those of the whole text.

use std::ops::Range;

/// A part of a text, from a place on.
#[derive(Debug, Default)]
pub(super) struct Text {
    kept: String,
    /// Where in the whole text that begins.
    base: usize,
    /// Whether nothing comes after it.
    pub(super) whole: bool,
}

impl Text {
    /// Takes what comes next. NUL, which Postgres cannot store, is a blank.
    pub(super) fn push(&mut self, text: &str) {
        for (number, part) in text.split('\0').enumerate() {
            if number > 0 {
                self.kept.push(' ');
            }
            self.kept.push_str(part);
        }
    }

    /// Forgets what lies before a place, when that is most of what is kept: so each byte is moved once or twice.
    pub(super) fn forget(&mut self, before: usize) {
        let before = self.floor(before);
        if before - self.base > self.kept.len() / 2 {
            self.kept.drain(..before - self.base);
            self.base = before;
        }
    }

    /// Where it ends, so far.
    pub(super) fn end(&self) -> usize {
        self.base + self.kept.len()
    }

    pub(super) fn of(&self, range: Range<usize>) -> &str {
        &self.kept[range.start - self.base..range.end - self.base]
    }

    /// All that is there from a place on.
    pub(super) fn rest(&self, place: usize) -> &str {
        &self.kept[place - self.base..]
    }

    /// The characters before a place, backwards.
    pub(super) fn before(&self, place: usize) -> impl Iterator<Item = char> {
        self.kept[..place - self.base].chars().rev()
    }

    /// The last place between two characters up to one.
    pub(super) fn floor(&self, place: usize) -> usize {
        self.base + self.kept.floor_char_boundary(place.saturating_sub(self.base))
    }

    /// The first place between two characters from one on.
    pub(super) fn ceil(&self, place: usize) -> usize {
        self.base + self.kept.ceil_char_boundary(place - self.base)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.kept.capacity()
    }
}
