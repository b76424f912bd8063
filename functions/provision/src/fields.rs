//! Forms of fields, checked once when a request is read. Their `OpenAPI` descriptions say the same, so that what the document allows is accepted.

use astra_kernel::Problem;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

/// A name or title: 1 to 200 characters, not blank, no control characters. Spaces around it are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
#[schema(
    min_length = 1,
    max_length = 200,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
)]
pub(crate) struct Text(String);

const TEXT_RULE: &str = "a text of 1 to 200 characters, not blank and without control characters";

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// A path's parameter.
    pub(crate) fn of_path(name: &str, value: String) -> Result<Self, Problem> {
        Self::try_from(value).map_err(|rule| Problem::field(name, rule))
    }
}

impl TryFrom<String> for Text {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let trimmed = text.trim();
        let fits = !trimmed.is_empty() && text.chars().count() <= 200 && !text.chars().any(char::is_control);
        if fits { Ok(Self(trimmed.to_owned())) } else { Err(TEXT_RULE) }
    }
}

/// Defines a whole number within bounds. `36.0` is one too: that is how some languages write 36 (and JSON Schema agrees).
macro_rules! whole_number {
    ($(#[$doc:meta])* $name:ident, $min:tt ..= $max:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
        #[schema(value_type = i64, minimum = $min, maximum = $max)]
        pub(crate) struct $name(pub(crate) i64);

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let what = concat!("a whole number from ", $min, " to ", $max);
                let number = deserializer.deserialize_i64(crate::fields::WholeNumber { what })?;
                if ($min..=$max).contains(&number) { Ok(Self(number)) } else { Err(serde::de::Error::custom(what)) }
            }
        }
    };
}
pub(crate) use whole_number;

whole_number! {
    /// A whole number that every JSON number carries exactly.
    Count, 0..=9_007_199_254_740_991_i64
}

whole_number! {
    /// A whole number of at least one.
    Positive, 1..=9_007_199_254_740_991_i64
}

/// Reads a whole number, also one that is written with a fraction of zero.
pub(crate) struct WholeNumber {
    pub(crate) what: &'static str,
}

impl Visitor<'_> for WholeNumber {
    type Value = i64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what)
    }

    fn visit_i64<E>(self, number: i64) -> Result<i64, E> {
        Ok(number)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<i64, E> {
        i64::try_from(number).map_err(|_| E::custom(self.what))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<i64, E> {
        // Below 2^53 a float without a fraction is a whole number exactly.
        let exact = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
        #[expect(clippy::cast_possible_truncation, reason = "just checked")]
        if exact { Ok(number as i64) } else { Err(E::custom(self.what)) }
    }
}

/// For optional fields that are absent or have a value: null is refused, so that it cannot be taken for "no limit" by accident.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A field of a PATCH where absent and null mean different things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Change<T> {
    /// Absent: it stays.
    #[default]
    Keep,
    /// Null: it goes.
    Remove,
    /// It becomes this.
    Set(T),
}

impl<T> Change<T> {
    /// As the database takes it: nothing, null, or a value.
    #[expect(clippy::option_option, reason = "absent, null and a value are three things")]
    pub(crate) fn into_stored<U>(self, write: impl FnOnce(T) -> U) -> Option<Option<U>> {
        match self {
            Self::Keep => None,
            Self::Remove => Some(None),
            Self::Set(new) => Some(Some(write(new))),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::Remove, Self::Set))
    }
}

/// The path of what belongs to a workspace.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct WorkspacePath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub(crate) workspace_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_trimmed_and_bounded() {
        let text = |s: &str| Text::try_from(s.to_owned()).map(Text::into_string);
        assert_eq!(text(" ACME Corp ").as_deref(), Ok("ACME Corp"));
        assert!(text(&"ä".repeat(200)).is_ok());
        for bad in ["", " ", "\u{2003}", "a\0b", "a\nb", "\u{85}", &"ä".repeat(201)] {
            assert!(text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn counts_are_exact_in_json() {
        let count = |s: &str| serde_json::from_str::<Count>(s).map(|c| c.0);
        for (text, number) in [("9007199254740991", 9_007_199_254_740_991), ("0", 0), ("36.0", 36), ("1e3", 1000), ("-0.0", 0)] {
            assert_eq!(count(text).unwrap(), number, "{text}");
        }
        for bad in ["-1", "9007199254740992", "9007199254740992.0", "1e300", "1.5", "\"1\"", "null", "99999999999999999999"] {
            assert!(count(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Positive>("0").is_err());
    }
}
