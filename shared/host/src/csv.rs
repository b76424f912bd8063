//! Lists as CSV (RFC 4180), for who asks for it by name. A field that a spreadsheet would run as a formula gets an apostrophe before it (OWASP, "CSV injection").

use crate::Failure;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, VARY};

/// A header line and a line for each record.
///
/// # Errors
/// None that can come: it is written into memory.
pub fn table<const N: usize>(header: [&str; N], records: impl IntoIterator<Item = [String; N]>) -> Result<Vec<u8>, Failure> {
    let failed = |error: csv::Error| Failure::internal(format!("a list as CSV: {error}"));
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(header).map_err(failed)?;
    for record in records {
        writer.write_record(record.map(harmless)).map_err(failed)?;
    }
    writer.into_inner().map_err(|error| failed(error.into_error().into()))
}

/// A number may begin with a minus.
fn harmless(field: String) -> String {
    let digits = field.strip_prefix('-').unwrap_or(&field);
    let is_number = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !is_number && field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{field}") } else { field }
}

/// Whether CSV is asked for by its name. A browser that takes anything gets JSON.
pub fn is_wanted(accept: &str) -> bool {
    is_named(accept, "text/csv")
}

/// Whether a header `accept` names this media type itself.
pub fn is_named(accept: &str, media_type: &str) -> bool {
    accept.split(',').any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type))
}

/// The answer with a page of a list; the next page's cursor is in the header `next-cursor`.
pub fn answer(file: &'static str, text: Vec<u8>, next: Option<String>) -> Response {
    let headers = [(CONTENT_TYPE, "text/csv; charset=utf-8; header=present"), (VARY, "accept"), (CONTENT_DISPOSITION, file)];
    // A header takes visible ASCII only.
    match next.map(|next| [("next-cursor", percent(&next))]) {
        Some(next) => (headers, next, text).into_response(),
        None => (headers, text).into_response(),
    }
}

/// A cursor as it goes into a URL, where it holds more than a header may.
fn percent(cursor: &str) -> String {
    let mut out = String::with_capacity(cursor.len());
    for byte in cursor.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for half in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_must_be_and_is_no_formula() {
        let text = String::from_utf8(table(["a", "b"], [["=1+1".into(), "a \"b\", c".into()], ["-12.50".into(), "@sum".into()]]).unwrap())
            .unwrap();
        assert_eq!(text, "a,b\r\n'=1+1,\"a \"\"b\"\", c\"\r\n-12.50,'@sum\r\n");
        for start in ["=", "+", "-", "@", "\t", "\r", "\n"] {
            assert_eq!(harmless(format!("{start}x")), format!("'{start}x"));
        }
        assert_eq!((harmless("a=b".into()), harmless("+1".into()), harmless("-1-1".into())), ("a=b".into(), "'+1".into(), "'-1-1".into()));
    }

    #[test]
    fn csv_is_for_who_names_it() {
        for accept in ["text/csv", "TEXT/CSV;q=0.9", "application/json, text/csv"] {
            assert!(is_wanted(accept), "{accept}");
        }
        for accept in ["", "*/*", "text/*", "application/json", "text/csvx"] {
            assert!(!is_wanted(accept), "{accept}");
        }
    }

    #[test]
    fn a_cursor_fits_into_a_header() {
        assert_eq!(percent("1:a b%é"), "1:a%20b%25%c3%a9");
    }
}
