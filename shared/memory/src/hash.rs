//! What makes two texts the same content.
//!
//! Line ends, blanks at a line's end and blank lines around a text are not content: editors and transports change them. Everything else is,
//! indentation and case included. Unicode's forms are not made equal (the tables would weigh more than the rest of this crate).
//!
//! The trap: a hash of a content alone is no key of an embedding. Its model and its dimensions belong to the key as well.

use sha2::{Digest, Sha256};

/// SHA-256 of a text's content, as 64 lower-case hexadecimal digits.
pub fn content_hash(text: &str) -> String {
    let mut hash = ContentHash::default();
    hash.push(text);
    hash.finish()
}

/// The [`content_hash`] of a text that comes piece by piece.
#[derive(Debug, Clone, Default)]
pub struct ContentHash {
    hasher: Sha256,
    /// Anything has come.
    begun: bool,
    /// Anything has come that is content.
    said: bool,
    /// Lines that have ended since.
    breaks: usize,
    /// Blanks since, on the line that has not ended.
    blanks: String,
}

impl ContentHash {
    /// What comes next.
    pub fn push(&mut self, text: &str) {
        let begun = self.begun;
        self.begun |= !text.is_empty();
        let text = if begun { text } else { text.strip_prefix('\u{feff}').unwrap_or(text) };
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                self.breaks += 1;
                self.blanks.clear();
            }
            let content = line.trim_end();
            if !content.is_empty() {
                // Breaks are written when something follows them, and after something: so none stand around the text.
                for _ in 0..if self.said { self.breaks } else { 0 } {
                    self.hasher.update(b"\n");
                }
                self.hasher.update(self.blanks.as_bytes());
                self.hasher.update(content.as_bytes());
                (self.said, self.breaks) = (true, 0);
                self.blanks.clear();
            }
            self.blanks.push_str(&line[content.len()..]);
        }
    }

    /// Whether it is nothing but blanks so far.
    pub fn is_blank(&self) -> bool {
        !self.said
    }

    /// The hash of what has come.
    pub fn finish(self) -> String {
        hex::encode(self.hasher.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_sha_256() {
        // FIPS 180-2, appendix B.1, and the empty text.
        assert_eq!(content_hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        for empty in ["", "\n", " \r\n\t\n", "\u{feff}"] {
            assert_eq!(content_hash(empty), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        }
    }

    #[test]
    fn what_editors_change_is_not_content() {
        for same in ["a\n  b\n\nc", "\u{feff}a\n  b\n\nc", "a\r\n  b\r\n\r\nc\r\n", "\n\n\na  \n  b\t\n \nc\n\n"] {
            assert_eq!(content_hash(same), content_hash("a\n  b\n\nc"), "{same:?}");
        }
        for other in ["a\nb\n\nc", "a\n  b\nc", "A\n  b\n\nc", "a b\n\nc", "  a\n  b\n\nc"] {
            assert_ne!(content_hash(other), content_hash("a\n  b\n\nc"), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn a_normalised_text_has_the_same_hash(text in "[ab \t\r\n]{0,40}") {
            let lines: Vec<&str> = text.split('\n').map(str::trim_end).collect();
            let normalised = lines.join("\n");
            let normalised = normalised.trim_matches('\n');
            prop_assert_eq!(content_hash(normalised), content_hash(&text));
            prop_assert_eq!(content_hash(&text), hex::encode(Sha256::digest(normalised.as_bytes())));
        }

        #[test]
        fn it_does_not_matter_how_a_text_comes(pieces in proptest::collection::vec("[ab \u{a0}\u{feff}\t\r\n]{0,6}", 0..8)) {
            let mut hash = ContentHash::default();
            for piece in &pieces {
                hash.push(piece);
            }
            let text = pieces.concat();
            prop_assert_eq!(hash.is_blank(), text.strip_prefix('\u{feff}').unwrap_or(&text).trim().is_empty());
            prop_assert_eq!(hash.finish(), content_hash(&text));
            // As it was before it could come in pieces.
            let lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(&text).split('\n').map(str::trim_end).collect();
            let normalised = lines.join("\n");
            prop_assert_eq!(content_hash(&text), hex::encode(Sha256::digest(normalised.trim_matches('\n').as_bytes())));
        }
    }
}
