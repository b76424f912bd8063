//! A document's body as it comes: looked at, hashed, and cut into the parts in which it is kept. No more than a part of it is here at a time.

use astra_kernel::{Code, Problem};
use astra_memory::hash::ContentHash;
use astra_memory::pdf;

/// How many bytes of a text are one part: 1 MiB. A PDF's part is as long as text.
pub(crate) const PART: usize = 1 << 20;

/// A body of which some has come.
#[derive(Default)]
pub(crate) struct Upload {
    is_pdf: bool,
    /// What has come and is in no part.
    raw: Vec<u8>,
    hash: ContentHash,
    bytes: usize,
    parts: usize,
}

/// What is left when all has come.
pub(crate) struct Rest {
    /// The last part; all of the body, where it is short.
    pub(crate) body: String,
    /// Of the body's content.
    pub(crate) hash: String,
    /// How many bytes were sent.
    pub(crate) bytes: usize,
    /// How many parts come before the last.
    pub(crate) parts: usize,
}

impl Upload {
    pub(crate) fn new(media_type: &str) -> Self {
        Self { is_pdf: media_type == pdf::MEDIA_TYPE, ..Self::default() }
    }

    /// What comes next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.raw.extend_from_slice(bytes);
    }

    /// A part, with its place from 0, when there is more than one: something is left for the last. To be asked for until there is none.
    pub(crate) fn part(&mut self) -> Result<Option<(usize, String)>, Problem> {
        let most = if self.is_pdf { pdf::PART } else { PART };
        if self.raw.len() <= most {
            return Ok(None);
        }
        // A text's part ends where a character begins. (What is no UTF-8 is refused wherever it is cut.)
        let begins = |at: &usize| self.is_pdf || self.raw[*at] & 0xc0 != 0x80;
        let end = (most - 3..=most).rev().find(begins).unwrap_or(most);
        let rest = self.raw.split_off(end);
        let part = std::mem::replace(&mut self.raw, rest);
        let part = self.text(part)?;
        self.parts += 1;
        Ok(Some((self.parts - 1, part)))
    }

    /// That was all of it.
    pub(crate) fn finish(mut self) -> Result<Rest, Problem> {
        let raw = std::mem::take(&mut self.raw);
        let body = self.text(raw)?;
        if self.hash.is_blank() {
            return Err(Problem::new(Code::Unprocessable, "The document is empty."));
        }
        Ok(Rest { body, hash: self.hash.finish(), bytes: self.bytes, parts: self.parts })
    }

    /// Whether a PDF can be read is seen by the job, and said by the document.
    fn text(&mut self, part: Vec<u8>) -> Result<String, Problem> {
        let refused = |why| Err(Problem::new(Code::Unprocessable, why));
        let text = if self.is_pdf {
            if self.parts == 0 && !pdf::is_pdf(&part) {
                return refused("The document is no PDF.");
            }
            pdf::to_body(&part)
        } else {
            let Ok(text) = String::from_utf8(part) else { return refused("The document is not UTF-8.") };
            if text.contains('\0') {
                return refused("The document has a character U+0000, which is not text.");
            }
            text
        };
        self.hash.push(&text);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_memory::hash::content_hash;

    /// Parts, and what is left.
    fn sent(media_type: &str, body: &[u8], at_once: usize) -> Result<(Vec<String>, Rest), String> {
        let mut upload = Upload::new(media_type);
        let mut parts = Vec::new();
        for bytes in body.chunks(at_once) {
            upload.push(bytes);
            while let Some((place, part)) = upload.part().map_err(|problem| problem.detail.clone())? {
                assert_eq!(place, parts.len());
                parts.push(part);
            }
        }
        upload.finish().map(|rest| (parts, rest)).map_err(|problem| problem.detail.clone())
    }

    #[test]
    fn a_body_is_kept_as_it_was_sent_however_it_comes() {
        for text in ["Refunds take 30 days.\n", "é", "日本語 ", "👋 "] {
            for length in [1, PART - 1, PART, PART + 1, 2 * PART, 5 * PART / 2] {
                let text = text.repeat(length.div_ceil(text.len()));
                for at_once in [997, 65_536, 1 << 21, usize::MAX] {
                    let (parts, rest) = sent("text/plain", text.as_bytes(), at_once).unwrap();
                    assert_eq!((rest.bytes, rest.parts, rest.hash), (text.len(), parts.len(), content_hash(&text)));
                    assert!(parts.concat() + &rest.body == text && !rest.body.is_empty());
                    assert!(parts.iter().all(|part| part.len() <= PART && part.len() > PART - 4), "{at_once}");
                    assert_eq!(parts.len(), (text.len() - 1) / PART, "{at_once}");
                }
            }
        }
    }

    #[test]
    fn a_pdf_is_kept_as_base64_in_parts() {
        let file = [b"%PDF-1.7\n".to_vec(), (0..=255).cycle().take(2 * PART).collect()].concat();
        for at_once in [1_000, usize::MAX] {
            let (parts, rest) = sent(pdf::MEDIA_TYPE, &file, at_once).unwrap();
            let mut read = Vec::new();
            assert!(parts.iter().chain([&rest.body]).all(|part| part.len() <= PART && pdf::of_body(part, &mut read)));
            assert!(read == file);
            assert_eq!((rest.bytes, rest.hash), (file.len(), content_hash(&pdf::to_body(&file))));
        }
        assert_eq!(sent(pdf::MEDIA_TYPE, &vec![b'x'; 3 * PART], 1_000).err().unwrap(), "The document is no PDF.");
        assert_eq!(sent(pdf::MEDIA_TYPE, b"x", 1).err().unwrap(), "The document is no PDF.");
    }

    #[test]
    fn what_is_no_text_is_refused_wherever_it_stands() {
        let long = "a".repeat(2 * PART).into_bytes();
        for at_once in [1_001, usize::MAX] {
            for (bad, why) in
                [(&b"\xff"[..], "The document is not UTF-8."), (b"\0", "The document has a character U+0000, which is not text.")]
            {
                assert_eq!(sent("text/plain", &[bad, &long].concat(), at_once).err().unwrap(), why);
                assert_eq!(sent("text/plain", &[&long, bad].concat(), at_once).err().unwrap(), why);
            }
            // A character that is cut off, and one whose beginning is missing.
            for bad in [&"👋".as_bytes()[..3], &"👋".as_bytes()[1..]] {
                assert_eq!(sent("text/plain", &[&long, bad].concat(), at_once).err().unwrap(), "The document is not UTF-8.");
                assert_eq!(
                    sent("text/plain", &[&long[..PART - 2], bad, &long].concat(), at_once).err().unwrap(),
                    "The document is not UTF-8."
                );
            }
            assert_eq!(sent("text/plain", &vec![b' '; 2 * PART], at_once).err().unwrap(), "The document is empty.");
        }
        assert_eq!(sent("text/plain", b"", 1).err().unwrap(), "The document is empty.");
    }
}
