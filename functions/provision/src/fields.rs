//! Forms of fields, checked once when a request is read. Their `OpenAPI` descriptions say the same, so that what the document allows is accepted.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

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

/// What is charged more than what it costs, in hundredths of a percent; -10000: nothing is charged. (The macro above takes no number below zero.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(value_type = i64, minimum = -10_000, maximum = 1_000_000)]
pub(crate) struct BasisPoints(pub(crate) i64);

impl<'de> Deserialize<'de> for BasisPoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let what = "a whole number from -10000 (nothing is charged) to 1000000";
        let number = deserializer.deserialize_i64(WholeNumber { what })?;
        if (-10_000..=1_000_000).contains(&number) { Ok(Self(number)) } else { Err(serde::de::Error::custom(what)) }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
