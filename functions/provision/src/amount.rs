//! Amounts of dollars in requests: read exactly, never through a float. And a budget, which may point to the workspace's instead of saying one.

use astra_kernel::NanoUsd;
use astra_kernel::money::UsdAmount;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// An amount of dollars in JSON: a number that is not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(value_type = f64, minimum = 0, maximum = 9_007_199)]
pub(crate) struct Usd(pub(crate) NanoUsd);

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let UsdAmount(amount) = UsdAmount::deserialize(deserializer)?;
        not_negative(amount).map(Self).map_err(D::Error::custom)
    }
}

fn not_negative(amount: NanoUsd) -> Result<NanoUsd, &'static str> {
    if amount < NanoUsd::ZERO { Err("an amount here is not negative") } else { Ok(amount) }
}

/// An agent's monthly budget, as stored: `{"nano": 5000000000}` or `{"ref": "maxCostNanoUsdPerMonth"}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Budget {
    /// Nano-dollars.
    #[serde(rename = "nano")]
    Amount(NanoUsd),
    /// Whatever the workspace's limit is.
    #[serde(rename = "ref")]
    Workspace(WorkspaceLimit),
}

/// The workspace limit that a budget can refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkspaceLimit {
    /// In the API `workspace.limits.maxCostUsdPerMonth`.
    #[serde(rename = "maxCostNanoUsdPerMonth")]
    MaxCostPerMonth,
}

/// How the reference is written. Spaces inside the braces are free.
pub(crate) const REFERENCE: &str = "{{workspace.limits.maxCostUsdPerMonth}}";

impl Budget {
    /// Reads an amount or the reference, without quotes.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix("{{").and_then(|t| t.strip_suffix("}}")) {
            if inner.trim() == "workspace.limits.maxCostUsdPerMonth" {
                return Ok(Self::Workspace(WorkspaceLimit::MaxCostPerMonth));
            }
            return Err(format!("the one reference that can stand here is \"{REFERENCE}\""));
        }
        let amount = NanoUsd::from_usd_text(text).map_err(|error| format!("{error}, or the reference \"{REFERENCE}\""))?;
        Ok(Self::Amount(not_negative(amount)?))
    }
}

/// A budget as requests write it: a number, a decimal text, or the reference.
#[derive(Debug)]
pub(crate) struct BudgetBody(pub(crate) Budget);

impl<'de> Deserialize<'de> for BudgetBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = if raw.get().starts_with('"') {
            Cow::Owned(serde_json::from_str::<String>(raw.get()).map_err(D::Error::custom)?)
        } else {
            Cow::Borrowed(raw.get())
        };
        Budget::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Writes an amount as a number of dollars, if there is one. For `serialize_with` beside `skip_serializing_if`.
#[expect(clippy::ref_option, reason = "serde's signature")]
pub(crate) fn write_usd<S: Serializer>(amount: &Option<NanoUsd>, serializer: S) -> Result<S::Ok, S::Error> {
    match amount {
        Some(amount) => astra_kernel::money::usd_number(amount, serializer),
        None => serializer.serialize_none(),
    }
}

/// Writes a budget as the API reads it: a number of dollars, or the reference.
#[expect(clippy::ref_option, reason = "serde's signature")]
pub(crate) fn write_budget<S: Serializer>(budget: &Option<Budget>, serializer: S) -> Result<S::Ok, S::Error> {
    match budget {
        Some(Budget::Amount(amount)) => write_usd(&Some(*amount), serializer),
        Some(Budget::Workspace(WorkspaceLimit::MaxCostPerMonth)) => serializer.serialize_str(REFERENCE),
        None => serializer.serialize_none(),
    }
}

/// Dollars in a calendar month (UTC): a number, a decimal text, or the reference to the workspace's limit.
//
// For the documentation: what [`BudgetBody`] reads.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = MonthlyBudget)]
#[expect(dead_code, reason = "only described")]
pub(crate) enum BudgetForm {
    /// Dollars.
    Number(Usd),
    /// Dollars as a decimal text, or the reference to the workspace's limit.
    Text(BudgetText),
}

/// Dollars as a decimal text, or `{{workspace.limits.maxCostUsdPerMonth}}`.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, pattern = r"^([1-8]?[0-9]{1,6}(\.[0-9]{1,9})?|\{\{ *workspace\.limits\.maxCostUsdPerMonth *\}\})$")]
#[expect(dead_code, reason = "only described")]
pub(crate) struct BudgetText(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_an_amount_or_the_one_reference() {
        let json = |s: &str| serde_json::from_str::<BudgetBody>(s).map(|BudgetBody(budget)| budget).map_err(|e| e.to_string());
        for text in ["50", "50.00", "\"50\"", "\"50.000\""] {
            assert_eq!(json(text), Ok(Budget::Amount(NanoUsd(50_000_000_000))), "{text}");
        }
        for text in [r#""{{workspace.limits.maxCostUsdPerMonth}}""#, r#""{{ workspace.limits.maxCostUsdPerMonth  }}""#] {
            assert_eq!(json(text), Ok(Budget::Workspace(WorkspaceLimit::MaxCostPerMonth)), "{text}");
        }
        for text in [r#""{{workspace.limits.maxAgents}}""#, "\"\"", "\"a\"", "-1", "\"-1\"", "true", "null", "[]", "0.0000000001"] {
            assert!(json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_stored_form_is_the_contracts() {
        let shown = |budget| serde_json::to_string(&budget).unwrap();
        assert_eq!(shown(Budget::Amount(NanoUsd(5))), r#"{"nano":5}"#);
        assert_eq!(shown(Budget::Workspace(WorkspaceLimit::MaxCostPerMonth)), r#"{"ref":"maxCostNanoUsdPerMonth"}"#);
    }
}
