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

/// Nano-dollars in a cent.
const CENT: i64 = 10_000_000;

/// Amounts as they are printed, in whole cents: the lines add up to the total, which is the exact sum rounded once (half a cent away from zero). Each line is its exact amount rounded down or up:
/// up where most was left over (the largest remainder method), the first of equals first. What is nothing stays nothing.
///
/// # Errors
/// [`MoneyError::TooLarge`] when the sum is.
pub fn to_cents(lines: &[NanoUsd]) -> Result<(Vec<i64>, i64), MoneyError> {
    let sum = lines.iter().try_fold(NanoUsd::ZERO, |sum, line| sum.plus(*line))?.0;
    let half = if sum < 0 { -CENT / 2 } else { CENT / 2 };
    let total = (sum + half) / CENT;
    let mut cents: Vec<i64> = lines.iter().map(|line| line.0.div_euclid(CENT)).collect();
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(lines.get(*place).map_or(0, |line| line.0.rem_euclid(CENT))));
    let missing = usize::try_from(total - cents.iter().sum::<i64>()).unwrap_or(0);
    for place in order.into_iter().take(missing) {
        if let Some(line) = cents.get_mut(place) {
            *line += 1;
        }
    }
    Ok((cents, total))
}

/// Cents as dollars: `-1,234.50`.
pub fn cents_text(cents: i64) -> String {
    format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, grouped(cents.unsigned_abs() / 100), cents.unsigned_abs() % 100)
}

/// A whole number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
    /// The prices of a prompt that is long, where they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_context: Option<LongContext>,
    /// What the workspace's plan charges for what it costs: so many hundredths of a percent more. The database reckons it, as it enters what was used.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub markup_basis_points: i32,
}

/// For `skip_serializing_if`.
pub fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// The prices of a call whose prompt is longer than so many tokens: of all its tokens, not only of those above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LongContext {
    /// The longest prompt that the other prices are for.
    pub above_tokens: Tokens,
    /// Per million input tokens.
    pub input_nano_per_mtok: i64,
    /// Per million input tokens read from the provider's cache.
    pub cached_input_nano_per_mtok: i64,
    /// Per million output tokens.
    pub output_nano_per_mtok: i64,
}

/// A sum of tokens by nano-dollars per million tokens, as nano-dollars: rounded up, once.
fn nano(sum: i128) -> Result<NanoUsd, MoneyError> {
    let nano = (sum + 999_999).div_euclid(1_000_000);
    i64::try_from(nano).map_err(|_| MoneyError::TooLarge).and_then(|n| NanoUsd(n).checked())
}

impl Price {
    /// What the usage costs, rounded up to a whole nano-dollar once, at the end.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`].
    pub fn cost(&self, usage: &Usage) -> Result<NanoUsd, MoneyError> {
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let fresh = usage.input_tokens - cached;
        let [input_price, cached_price, output_price] = self.rates(usage.input_tokens);
        nano(
            i128::from(fresh) * i128::from(input_price)
                + i128::from(cached) * i128::from(cached_price)
                + i128::from(usage.output_tokens) * i128::from(output_price),
        )
    }

    /// The prices of fresh input, of cached input and of output, for a prompt of so many tokens.
    fn rates(&self, input: Tokens) -> [i64; 3] {
        match self.long_context {
            Some(long) if input > long.above_tokens => {
                [long.input_nano_per_mtok, long.cached_input_nano_per_mtok, long.output_nano_per_mtok]
            }
            _ => [self.input_nano_per_mtok, self.cached_input_nano_per_mtok, self.output_nano_per_mtok],
        }
    }

    /// Whether nothing costs more by it than by another: what was held by that pays for what it costs by this.
    pub fn is_never_above(&self, other: &Self) -> bool {
        let edges = [self, other].map(|price| price.long_context.map_or(0, |long| long.above_tokens));
        let looked_at = edges.into_iter().flat_map(|edge| [edge, edge.saturating_add(1)]).chain([0]);
        looked_at.into_iter().all(|input| self.rates(input).into_iter().zip(other.rates(input)).all(|(this, that)| this <= that))
    }

    /// The dearest prices, of input and of output, that a prompt of at most so many tokens can have: cached or not, long or not.
    fn dearest(&self, input: Tokens) -> (i128, i128) {
        let usual = (self.input_nano_per_mtok.max(self.cached_input_nano_per_mtok), self.output_nano_per_mtok);
        let (of_input, of_output) = match self.long_context {
            Some(long) if input > long.above_tokens => {
                (usual.0.max(long.input_nano_per_mtok).max(long.cached_input_nano_per_mtok), usual.1.max(long.output_nano_per_mtok))
            }
            _ => usual,
        };
        (of_input.into(), of_output.into())
    }

    /// An upper bound for at most so many tokens in and out.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`].
    pub fn at_most(&self, input: Tokens, output: Tokens) -> Result<NanoUsd, MoneyError> {
        let (input_price, output_price) = self.dearest(input);
        nano(i128::from(input) * input_price + i128::from(output) * output_price)
    }

    /// How many output tokens so much money buys after so much input; `None` when not even the input is covered.
    pub fn affordable_output(&self, money: NanoUsd, input: Tokens) -> Option<Tokens> {
        let (input_price, output_price) = self.dearest(input);
        let left = i128::from(money.0) * 1_000_000 - i128::from(input) * input_price;
        if left < 0 {
            return None;
        }
        if output_price <= 0 {
            return Some(Tokens::MAX);
        }
        Some(Tokens::try_from(left / output_price).unwrap_or(Tokens::MAX))
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
        long_context: None,
        markup_basis_points: 0,
    };

    /// Any price that may stand in the book, and some that may not (a long prompt that is cheaper).
    fn prices() -> impl Strategy<Value = Price> {
        let each = || 0_i64..100_000_000_000;
        let long = (0_u64..300_000, each(), each(), each()).prop_map(|(above_tokens, input, cached, output)| LongContext {
            above_tokens,
            input_nano_per_mtok: input,
            cached_input_nano_per_mtok: cached,
            output_nano_per_mtok: output,
        });
        (each(), each(), each(), proptest::option::of(long), -10_000_i32..100_000).prop_map(
            |(input, cached, output, long_context, markup)| Price {
                input_nano_per_mtok: input,
                cached_input_nano_per_mtok: cached,
                output_nano_per_mtok: output,
                long_context,
                markup_basis_points: markup,
                ..MINI
            },
        )
    }

    /// Usage as a provider counts it, often around the edge of a long prompt.
    fn usages(price: &Price) -> impl Strategy<Value = Usage> + use<> {
        let edge = price.long_context.map_or(1_000, |long| long.above_tokens);
        let input = prop_oneof![0_u64..400_000, edge.saturating_sub(2)..=edge + 2];
        (input, 0_u64..400_000, 0_u64..200_000).prop_map(|(input_tokens, cached, output_tokens)| Usage {
            input_tokens,
            cached_input_tokens: cached.min(input_tokens),
            output_tokens,
            ..Usage::NONE
        })
    }

    #[test]
    fn a_long_prompt_has_its_own_prices_for_all_of_it() {
        let long = LongContext {
            above_tokens: 200_000,
            input_nano_per_mtok: 300_000_000,
            cached_input_nano_per_mtok: 150_000_000,
            output_nano_per_mtok: 900_000_000,
        };
        let price = Price { long_context: Some(long), ..MINI };
        let cost = |input_tokens, cached_input_tokens| {
            price.cost(&Usage { input_tokens, cached_input_tokens, output_tokens: 1_000_000, ..Usage::NONE })
        };
        assert_eq!(cost(200_000, 0), Ok(NanoUsd(30_000_000 + 600_000_000)));
        assert_eq!(cost(200_001, 0), Ok(NanoUsd(60_000_300 + 900_000_000)));
        assert_eq!(cost(400_000, 400_000), Ok(NanoUsd(60_000_000 + 900_000_000)));
        // As it is stored with a hold; one of before has neither.
        let text = serde_json::to_string(&price).unwrap();
        assert_eq!(serde_json::from_str::<Price>(&text).unwrap(), price);
        assert!(text.contains(r#""longContext":{"aboveTokens":200000,"#), "{text}");
        assert_eq!(serde_json::from_str::<Price>(&serde_json::to_string(&MINI).unwrap()).unwrap(), MINI);
    }

    #[test]
    fn one_class_or_one_tier_that_is_dearer_is_above() {
        let long = LongContext {
            above_tokens: 1000,
            input_nano_per_mtok: 300_000_000,
            cached_input_nano_per_mtok: 150_000_000,
            output_nano_per_mtok: 900_000_000,
        };
        let tiers = Price { long_context: Some(long), ..MINI };
        assert!(MINI.is_never_above(&tiers) && !tiers.is_never_above(&MINI));
        let sooner = Price { long_context: Some(LongContext { above_tokens: 999, ..long }), ..MINI };
        assert!(tiers.is_never_above(&sooner) && !sooner.is_never_above(&tiers));
        let more: [fn(&mut Price); 3] =
            [|p| p.input_nano_per_mtok += 1, |p| p.cached_input_nano_per_mtok += 1, |p| p.output_nano_per_mtok += 1];
        for more in more {
            let mut dearer = MINI;
            more(&mut dearer);
            assert!(MINI.is_never_above(&dearer) && !dearer.is_never_above(&MINI));
        }
    }

    #[test]
    fn cents_read_as_people_write_them() {
        for (cents, text) in
            [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (123_456, "1,234.56"), (-100_000_000, "-1,000,000.00"), (99_999, "999.99")]
        {
            assert_eq!(cents_text(cents), text);
        }
        assert_eq!(
            (grouped(0), grouped(999), grouped(1000), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,000".into(), "1,234,567".into())
        );
    }

    #[test]
    fn half_a_cent_is_rounded_away_from_zero_once() {
        let of = |nanos: &[i64]| to_cents(&nanos.iter().copied().map(NanoUsd).collect::<Vec<_>>()).unwrap();
        assert_eq!(of(&[]), (vec![], 0));
        assert_eq!(of(&[4_999_999]), (vec![0], 0));
        assert_eq!(of(&[5_000_000]), (vec![1], 1));
        assert_eq!(of(&[-5_000_000]), (vec![-1], -1));
        assert_eq!(of(&[3_333_333, 3_333_333, 3_333_334]), (vec![0, 0, 1], 1), "each by itself would be nothing");
        assert_eq!(of(&[6_000_000, 6_000_000]), (vec![1, 0], 1), "each by itself would be a cent");
        assert_eq!(of(&[15_000_000, -5_000_000]), (vec![2, -1], 1));
        assert_eq!(to_cents(&[NanoUsd(MAX_NANO), NanoUsd(1)]), Err(MoneyError::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_printed_adds_up(nanos in proptest::collection::vec(prop_oneof![-20_000_000_i64..20_000_000, -1_000_000_000_000_i64..1_000_000_000_000, Just(0)], 0..40)) {
            let lines: Vec<NanoUsd> = nanos.iter().copied().map(NanoUsd).collect();
            let (cents, total) = to_cents(&lines).unwrap();
            prop_assert_eq!(cents.iter().sum::<i64>(), total);
            let exact: i64 = nanos.iter().sum();
            // Twice the distance is at most a cent, and exactly half of one goes away from zero.
            prop_assert!((2 * (total * CENT - exact)).abs() <= CENT);
            prop_assert!((total * CENT - exact).abs() * 2 < CENT || total.abs() * CENT > exact.abs());
            for (line, printed) in nanos.iter().zip(&cents) {
                prop_assert!((printed * CENT - line).abs() < CENT, "less than a cent");
                prop_assert!(*line != 0 || *printed == 0);
            }
        }

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
        fn a_bound_is_a_bound((price, usage) in prices().prop_flat_map(|price| (Just(price), usages(&price))), more in 0_u64..300_000) {
            let bound = price.at_most(usage.input_tokens, usage.output_tokens).unwrap();
            prop_assert!(price.cost(&usage).unwrap() <= bound);
            // And of any larger hold, whatever tier it reaches.
            prop_assert!(bound <= price.at_most(usage.input_tokens + more, usage.output_tokens).unwrap());
            prop_assert!(bound <= price.at_most(usage.input_tokens, usage.output_tokens + more).unwrap());
        }

        #[test]
        fn what_a_hold_can_pay_is_paid_for_in_every_tier((price, usage) in prices().prop_flat_map(|price| (Just(price), usages(&price))), money in 0_i64..100_000_000_000) {
            if let Some(output) = price.affordable_output(NanoUsd(money), usage.input_tokens) {
                let most = Usage { output_tokens: usage.output_tokens.min(output), ..usage };
                prop_assert!(price.cost(&most).unwrap() <= NanoUsd(money));
            } else {
                prop_assert!(price.at_most(usage.input_tokens, 0).unwrap() > NanoUsd(money));
            }
        }

        #[test]
        fn what_was_held_by_a_price_pays_by_one_that_is_never_above(
            (that, usage) in prices().prop_flat_map(|price| (Just(price), usages(&price))),
            (other, parts, above) in (prices(), [0_i64..=4, 0_i64..=4, 0_i64..=4], 0_u64..300_000),
        ) {
            let [i, c, o] = parts;
            let least = |long: fn(&LongContext) -> i64, usual: i64, part: i64| that.long_context.map_or(usual, |of| long(&of).min(usual)) * part / 4;
            let lower = Price {
                input_nano_per_mtok: least(|l| l.input_nano_per_mtok, that.input_nano_per_mtok, i),
                cached_input_nano_per_mtok: least(|l| l.cached_input_nano_per_mtok, that.cached_input_nano_per_mtok, c),
                output_nano_per_mtok: least(|l| l.output_nano_per_mtok, that.output_nano_per_mtok, o),
                long_context: other.long_context.map(|_| LongContext {
                    above_tokens: above,
                    input_nano_per_mtok: least(|l| l.input_nano_per_mtok, that.input_nano_per_mtok, 4),
                    cached_input_nano_per_mtok: least(|l| l.cached_input_nano_per_mtok, that.cached_input_nano_per_mtok, 4),
                    output_nano_per_mtok: least(|l| l.output_nano_per_mtok, that.output_nano_per_mtok, 4),
                }),
                ..that
            };
            prop_assert!(lower.is_never_above(&that) && that.is_never_above(&that));
            for price in [lower, other] {
                if price.is_never_above(&that) {
                    prop_assert!(price.cost(&usage).unwrap() <= that.cost(&usage).unwrap());
                }
            }
        }

        #[test]
        fn more_costs_no_less_within_a_tier((price, usage) in prices().prop_flat_map(|price| (Just(price), usages(&price)))) {
            let cost = price.cost(&usage).unwrap();
            let more = |input, output| price.cost(&Usage { input_tokens: usage.input_tokens + input, output_tokens: usage.output_tokens + output, ..usage }).unwrap();
            prop_assert!(cost <= more(0, 1));
            let tier = |tokens: Tokens| price.long_context.is_some_and(|long| tokens > long.above_tokens);
            if tier(usage.input_tokens) == tier(usage.input_tokens + 1) {
                prop_assert!(cost <= more(1, 0));
            }
        }

        #[test]
        fn a_cost_is_the_exact_amount_rounded_up((price, usage) in prices().prop_flat_map(|price| (Just(price), usages(&price)))) {
            let of = |tokens: Tokens, price: i64| i128::from(tokens) * i128::from(price);
            let (i, c, o) = match price.long_context {
                Some(l) if usage.input_tokens > l.above_tokens => (l.input_nano_per_mtok, l.cached_input_nano_per_mtok, l.output_nano_per_mtok),
                _ => (price.input_nano_per_mtok, price.cached_input_nano_per_mtok, price.output_nano_per_mtok),
            };
            let exact = of(usage.input_tokens - usage.cached_input_tokens, i) + of(usage.cached_input_tokens, c) + of(usage.output_tokens, o);
            let cost = i128::from(price.cost(&usage).unwrap().0) * 1_000_000;
            prop_assert!(cost >= exact && cost < exact + 1_000_000);
        }
    }
}
