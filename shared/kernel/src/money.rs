//! Money as integers: nano-dollars, tokens, and the price that turns one into the other.
//!
//! No float takes part. A conversion that does not fit is an error, never 0 and never clamped.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A number of model tokens.
pub type Tokens = u64;

/// Why an amount could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a decimal number of dollars.
    #[error("an amount in dollars is a decimal number such as 50.00")]
    NotANumber,
    /// More than nine decimals: less than a nano-dollar would be lost.
    #[error("an amount in dollars has at most 9 decimals")]
    TooPrecise,
    /// Outside what 64 bits of nano-dollars hold.
    #[error("an amount is at most 9 million dollars")]
    TooLarge,
}

/// An amount in nano-dollars (1 USD = 1,000,000,000). At most ±9 million dollars, so that it is exact in a JavaScript number too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

/// The largest amount: 2^53 - 1 nano-dollars, which every JSON number carries exactly.
pub const MAX_NANO: i64 = (1 << 53) - 1;

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Reads dollars as people, the guide and JSON write them (`50`, `50.00`, `0.000000001`, `1e-9`), exactly.
    ///
    /// # Errors
    /// When it is no decimal number, has more than nine decimals, or is too large.
    pub fn from_usd_text(text: &str) -> Result<Self, MoneyError> {
        // No amount has so many digits; a longer text is not worth looking at.
        const LONGEST: usize = 40;
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| MoneyError::NotANumber)?),
            None => (digits, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || mantissa.ends_with('.') {
            return Err(MoneyError::NotANumber);
        }
        // digits * 10^power nano-dollars.
        let fraction = fraction.trim_end_matches('0');
        let mut number = format!("{whole}{fraction}");
        let mut power = i64::from(exponent) - i64::try_from(fraction.len()).map_err(|_| MoneyError::TooPrecise)? + 9;
        while power < 0 && number.ends_with('0') {
            number.pop();
            power += 1;
        }
        let number = number.trim_start_matches('0');
        if number.is_empty() {
            return Ok(Self::ZERO);
        }
        if power < 0 {
            return Err(MoneyError::TooPrecise);
        }
        let zeros = usize::try_from(power).ok().filter(|zeros| number.len() + zeros <= LONGEST).ok_or(MoneyError::TooLarge)?;
        let nano: i64 = format!("{number}{:0<zeros$}", "").parse().map_err(|_| MoneyError::TooLarge)?;
        Self(if negative { -nano } else { nano }).checked()
    }

    fn checked(self) -> Result<Self, MoneyError> {
        if self.0.abs() <= MAX_NANO { Ok(self) } else { Err(MoneyError::TooLarge) }
    }

    /// The sum, or an error where it does not fit.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`].
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).ok_or(MoneyError::TooLarge).and_then(|n| Self(n).checked())
    }

    /// Dollars as decimal text, exact, at least two decimals: `50.00`, `0.000000150`.
    pub fn to_usd_text(self) -> String {
        let (sign, nano) = if self.0 < 0 { ("-", self.0.unsigned_abs()) } else { ("", self.0.unsigned_abs()) };
        let mut fraction = format!("{:09}", nano % 1_000_000_000);
        while fraction.len() > 2 && fraction.ends_with('0') {
            fraction.pop();
        }
        format!("{sign}{}.{fraction}", nano / 1_000_000_000)
    }

    /// The amount as a JSON number of dollars for people, written from the exact text.
    ///
    /// # Errors
    /// Never in practice: the text is a valid JSON number.
    pub fn to_usd_json(self) -> Result<Box<RawValue>, serde_json::Error> {
        RawValue::from_string(self.to_usd_text())
    }
}

/// Reads a dollar amount from a JSON number without passing through a float. For `#[serde(deserialize_with)]` or as a field type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsdAmount(pub NanoUsd);

impl<'de> Deserialize<'de> for UsdAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        NanoUsd::from_usd_text(raw.get()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Writes an amount as a JSON number of dollars. For `#[serde(serialize_with = "usd_number")]`.
///
/// # Errors
/// Those of the serializer.
pub fn usd_number<S: serde::Serializer>(amount: &NanoUsd, serializer: S) -> Result<S::Ok, S::Error> {
    amount.to_usd_json().map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// Where a usage figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageSource {
    /// The provider counted: exact.
    Provider,
    /// The provider could not say (stopped, cut off): what was delivered was counted here.
    Estimated,
}

/// What a model call used, by class. `input` includes `cached_input`; `output` includes `reasoning` (the providers' own convention).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// All prompt tokens.
    pub input_tokens: Tokens,
    /// Those of the prompt that were read from the provider's cache.
    pub cached_input_tokens: Tokens,
    /// All generated tokens.
    pub output_tokens: Tokens,
    /// Those generated that were not shown.
    pub reasoning_tokens: Tokens,
    /// Who counted.
    pub source: UsageSource,
}

impl Usage {
    /// Nothing used, and known to be nothing.
    pub const NONE: Self =
        Self { input_tokens: 0, cached_input_tokens: 0, output_tokens: 0, reasoning_tokens: 0, source: UsageSource::Provider };

    /// Input and output together: what token limits count.
    pub fn total_tokens(&self) -> Tokens {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// One version of a model's price, in nano-dollars per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Which version of the price book's row this is; a turn records it.
    pub version: i32,
    /// Per million input tokens.
    pub input_nano_per_mtok: i64,
    /// Per million input tokens read from the provider's cache.
    pub cached_input_nano_per_mtok: i64,
    /// Per million output tokens.
    pub output_nano_per_mtok: i64,
    /// The model bills tokens that it does not stream (reasoning): a hold takes its whole maximum.
    #[serde(default)]
    pub holds_maximum: bool,
}

impl Price {
    /// What the usage costs, rounded up to a whole nano-dollar once, at the end.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`].
    pub fn cost(&self, usage: &Usage) -> Result<NanoUsd, MoneyError> {
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let fresh = usage.input_tokens - cached;
        let sum = i128::from(fresh) * i128::from(self.input_nano_per_mtok)
            + i128::from(cached) * i128::from(self.cached_input_nano_per_mtok)
            + i128::from(usage.output_tokens) * i128::from(self.output_nano_per_mtok);
        let nano = (sum + 999_999).div_euclid(1_000_000);
        i64::try_from(nano).map_err(|_| MoneyError::TooLarge).and_then(|n| NanoUsd(n).checked())
    }

    /// An upper bound for so many tokens in and out: the dearer of the two input prices.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`].
    pub fn at_most(&self, input: Tokens, output: Tokens) -> Result<NanoUsd, MoneyError> {
        let dearest = Self { input_nano_per_mtok: self.input_nano_per_mtok.max(self.cached_input_nano_per_mtok), ..*self };
        dearest.cost(&Usage { input_tokens: input, output_tokens: output, ..Usage::NONE })
    }

    /// How many output tokens so much money buys after so much input; `None` when not even the input is covered.
    pub fn affordable_output(&self, money: NanoUsd, input: Tokens) -> Option<Tokens> {
        let input_price = i128::from(self.input_nano_per_mtok.max(self.cached_input_nano_per_mtok));
        let left = i128::from(money.0) * 1_000_000 - i128::from(input) * input_price;
        if left < 0 {
            return None;
        }
        if self.output_nano_per_mtok <= 0 {
            return Some(Tokens::MAX);
        }
        Some(Tokens::try_from(left / i128::from(self.output_nano_per_mtok)).unwrap_or(Tokens::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINI: Price = Price {
        version: 1,
        input_nano_per_mtok: 150_000_000,
        cached_input_nano_per_mtok: 75_000_000,
        output_nano_per_mtok: 600_000_000,
        holds_maximum: false,
    };

    #[test]
    fn dollars_are_read_exactly() {
        for (text, nano) in [
            ("50.00", 50_000_000_000),
            ("0.1", 100_000_000),
            ("0.000000001", 1),
            ("0", 0),
            ("-1.5", -1_500_000_000),
            ("1.1000000000000", 1_100_000_000),
            ("1e-9", 1),
            ("5e1", 50_000_000_000),
            ("5E+0", 5_000_000_000),
            ("12.5e-1", 1_250_000_000),
            ("0e999999", 0),
            ("100e-2", 1_000_000_000),
        ] {
            assert_eq!(NanoUsd::from_usd_text(text), Ok(NanoUsd(nano)), "{text}");
        }
        for text in ["", ".", "1.", ".5", "1e", "e5", "1e1.5", "1e99999999999", "abc", "1,5", "--1", "+1", "NaN", "\"5\""] {
            assert_eq!(NanoUsd::from_usd_text(text), Err(MoneyError::NotANumber), "{text}");
        }
        assert_eq!(NanoUsd::from_usd_text("0.0000000001"), Err(MoneyError::TooPrecise));
        assert_eq!(NanoUsd::from_usd_text("1e-10"), Err(MoneyError::TooPrecise));
        assert_eq!(NanoUsd::from_usd_text("1e999999"), Err(MoneyError::TooLarge));
        assert_eq!(NanoUsd::from_usd_text("99999999999999999999"), Err(MoneyError::TooLarge));
        assert_eq!(NanoUsd::from_usd_text("9007199.254740992"), Err(MoneyError::TooLarge));
    }

    #[test]
    fn a_json_number_of_dollars_never_becomes_a_float() {
        let amount: UsdAmount = serde_json::from_str("9007199.254740991").unwrap();
        assert_eq!(amount.0, NanoUsd(9_007_199_254_740_991));
    }

    #[test]
    fn an_explicit_zero_costs_nothing() {
        assert_eq!(MINI.cost(&Usage::NONE), Ok(NanoUsd::ZERO));
    }

    #[test]
    fn cached_input_is_cheaper() {
        let usage = Usage { input_tokens: 1_000_000, cached_input_tokens: 400_000, ..Usage::NONE };
        assert_eq!(MINI.cost(&usage), Ok(NanoUsd(90_000_000 + 30_000_000)));
    }

    proptest! {
        #[test]
        fn text_round_trips(nano in -MAX_NANO..=MAX_NANO) {
            prop_assert_eq!(NanoUsd::from_usd_text(&NanoUsd(nano).to_usd_text()), Ok(NanoUsd(nano)));
        }

        #[test]
        fn what_is_affordable_is_paid_for(money in 0_i64..10_000_000_000, input in 0_u64..100_000) {
            if let Some(output) = MINI.affordable_output(NanoUsd(money), input) {
                prop_assert!(MINI.at_most(input, output).unwrap() <= NanoUsd(money));
                prop_assert!(MINI.at_most(input, output + 2).unwrap() > NanoUsd(money));
            } else {
                prop_assert!(MINI.at_most(input, 0).unwrap() > NanoUsd(money));
            }
        }

        #[test]
        fn a_bound_is_a_bound(input in 0_u64..1_000_000, cached in 0_u64..1_000_000, output in 0_u64..1_000_000) {
            let usage = Usage { input_tokens: input, cached_input_tokens: cached, output_tokens: output, ..Usage::NONE };
            prop_assert!(MINI.cost(&usage).unwrap() <= MINI.at_most(input, output).unwrap());
        }
    }
}
