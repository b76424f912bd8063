//! PDF: what whoever reads one says of it, and its pages as pieces. The reading itself is done elsewhere and apart (`functions/convert`).

use crate::split::{Chunk, Format, split};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The media type.
pub const MEDIA_TYPE: &str = "application/pdf";

/// What is in a PDF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The text of each page, from the first on.
    Pages(Vec<String>),
    /// It is not read.
    Refused(Refusal),
}

/// Why a PDF is not read. Reading it again would say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// It needs a password.
    #[error("it is encrypted; upload it without a password")]
    Encrypted,
    /// It has no text.
    #[error("it has no text; where its pages are pictures, as a scanner makes them, have their text recognised (OCR) before the upload")]
    NoText,
    /// It is no PDF, or a broken one.
    #[error("it is damaged")]
    Broken,
    /// It asks for too much.
    #[error("its text is larger than 8 MiB, or reading it is too much work")]
    TooLarge,
}

/// Whether a file begins as a PDF does: within its first kilobyte, as viewers take it.
pub fn is_pdf(file: &[u8]) -> bool {
    file.get(..1024).unwrap_or(file).windows(5).any(|bytes| bytes == b"%PDF-")
}

/// A file is kept as text, which is base64; in parts of so many bytes, or it has padding in the middle.
pub const PART: usize = 3 << 18;

/// A file, or a part of it, as text.
pub fn to_body(file: &[u8]) -> String {
    STANDARD.encode(file)
}

/// Adds what a part of such a text says to what came before it; false when it is none.
#[must_use]
pub fn of_body(part: &str, file: &mut Vec<u8>) -> bool {
    STANDARD.decode_vec(part, file).is_ok()
}

/// Pages into pieces: each is of one page, and says which.
pub fn pieces(pages: &[String]) -> Vec<Chunk> {
    let of_page = |(n, page): (usize, &String)| {
        split(page, Format::Text).into_iter().map(move |chunk| Chunk { heading: vec![format!("Page {}", n + 1)], ..chunk })
    };
    pages.iter().enumerate().flat_map(of_page).enumerate().map(|(position, chunk)| Chunk { position, ..chunk }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_is_of_one_page_and_says_which() {
        let pages = ["Refunds take 30 days.", "", "# no heading", &"A sentence. ".repeat(1000)].map(str::to_owned);
        let pieces = pieces(&pages);
        assert_eq!(pieces.iter().map(|piece| piece.position).collect::<Vec<_>>(), (0..pieces.len()).collect::<Vec<_>>());
        let paths: Vec<_> = pieces.iter().map(Chunk::path).collect();
        assert_eq!(paths[..3], ["Page 1", "Page 3", "Page 4"]);
        assert!(paths.len() > 4 && paths[3..].iter().all(|path| path == "Page 4"), "{paths:?}");
        assert_eq!(pieces[1].text, "# no heading");
    }

    #[test]
    fn a_pdf_is_told_by_its_beginning_and_kept_as_text() {
        assert!(is_pdf(b"%PDF-1.7\n") && is_pdf(&[&[0; 1000][..], b"%PDF-1.7"].concat()));
        assert!(!is_pdf(b"") && !is_pdf(b"%PDF") && !is_pdf(&[&[0; 1024][..], b"%PDF-1.7"].concat()));
        let file: Vec<u8> = (0..=255).cycle().take(PART + 100).collect();
        let mut read = Vec::new();
        assert!(file.chunks(PART).all(|part| of_body(&to_body(part), &mut read)));
        assert!(file == read && to_body(&file) == file.chunks(PART).map(to_body).collect::<String>());
        assert!(!of_body("%PDF-", &mut read));
    }

    #[test]
    fn an_answer_has_one_form() {
        for (answer, form) in
            [(Answer::Pages(vec!["a".to_owned()]), r#"{"pages":["a"]}"#), (Answer::Refused(Refusal::NoText), r#"{"refused":"noText"}"#)]
        {
            assert_eq!(serde_json::to_string(&answer).unwrap(), form);
            assert_eq!(serde_json::from_str::<Answer>(form).unwrap(), answer);
        }
    }
}
