//! Forms of fields, checked once when a request is read.

use astra_kernel::Problem;
use serde::Deserialize;

/// What is remembered, or looked for: 1 to 2,000 characters, not blank, without U+0000. Blanks around it are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
#[schema(min_length = 1, max_length = 2000, pattern = r"^[^\u0000]*[^\s\u0000][^\u0000]*$")]
pub(crate) struct Content(String);

impl Content {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Content {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let trimmed = text.trim();
        let fits = !trimmed.is_empty() && text.chars().count() <= 2000 && !text.contains('\0');
        if fits { Ok(Self(trimmed.to_owned())) } else { Err("a text of 1 to 2,000 characters, not blank and without U+0000") }
    }
}

/// A document's name: 1 to 128 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or digit.
pub(crate) fn slug(name: &str, value: String) -> Result<String, Problem> {
    let of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = value.as_bytes();
    let fits = (1..=128).contains(&bytes.len())
        && bytes.first().is_some_and(|first| of_name(*first))
        && bytes.iter().all(|b| of_name(*b) || matches!(b, b'.' | b'_' | b'-'));
    if fits { Ok(value) } else { Err(Problem::field(name, "1 to 128 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit")) }
}

/// Tags, commas between them: 16 at most, each formed as a document's name is, of at most 64 characters. In order, each once.
pub(crate) fn tags(name: &str, value: Option<&str>) -> Result<Vec<String>, Problem> {
    let mut tags = Vec::new();
    for tag in value.unwrap_or_default().split(',').filter(|tag| !tag.is_empty()) {
        if tag.len() > 64 {
            return Err(Problem::field(name, "a tag has 64 characters at most"));
        }
        tags.push(slug(name, tag.to_owned())?);
    }
    tags.sort_unstable();
    tags.dedup();
    if tags.len() > 16 { Err(Problem::field(name, "16 tags at most")) } else { Ok(tags) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_trimmed_and_bounded() {
        let content = |text: &str| Content::try_from(text.to_owned()).map(|content| content.0);
        assert_eq!(content(" Refunds take\n30 days. ").as_deref(), Ok("Refunds take\n30 days."));
        assert!(content(&"ä".repeat(2000)).is_ok());
        for bad in ["", " \n", "a\0b", &"a".repeat(2001)] {
            assert!(content(bad).is_err());
        }
    }

    #[test]
    fn names_are_names() {
        for good in ["handbook", "a", "2026-11.refunds_v2", &"a".repeat(128)] {
            assert_eq!(slug("slug", good.to_owned()).as_deref(), Ok(good));
        }
        for bad in ["", "-a", ".", "..", "A", "a/b", "a b", "ä", "a\0", &"a".repeat(129)] {
            assert!(slug("slug", bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_names_each_once() {
        assert_eq!(tags("tags", None), Ok(vec![]));
        assert_eq!(tags("tags", Some("b,a,,b")), Ok(vec!["a".to_owned(), "b".to_owned()]));
        for bad in ["a b", "ä", &"a".repeat(65), "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q"] {
            assert!(tags("tags", Some(bad)).is_err(), "{bad}");
        }
    }
}
