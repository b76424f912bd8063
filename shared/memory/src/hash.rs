//! What makes two texts the same content.
//!
//! Line ends, blanks at a line's end and blank lines around a text are not content: editors and transports change them. Everything else is,
//! indentation and case included. Unicode's forms are not made equal (the tables would weigh more than the rest of this crate).
//!
//! The trap: a hash of a content alone is no key of an embedding. Its model and its dimensions belong to the key as well.

use sha2::{Digest, Sha256};

/// SHA-256 of a text's content, as 64 lower-case hexadecimal digits.
pub fn content_hash(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut hasher = Sha256::new();
    let mut breaks = 0_usize;
    let mut begun = false;
    for line in text.split('\n') {
        let line = line.trim_end();
        if !line.is_empty() {
            // Breaks are written when something follows them, and after something: so none stand around the text.
            for _ in 0..if begun { breaks } else { 0 } {
                hasher.update(b"\n");
            }
            hasher.update(line.as_bytes());
            (begun, breaks) = (true, 0);
        }
        breaks += 1;
    }
    hex::encode(hasher.finalize())
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
    }
}
