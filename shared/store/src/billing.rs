//! What was used, what it cost, and the price book.

use crate::{Database, Nothing, Operator, Outcome, Page, PageArg, StoreError, Tenant, operator_statement, parse, tenant_statement};
use astra_kernel::{LongContext, Month, NanoUsd, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};

/// One workspace's line of the month, as the guide's SQL gives it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CostRow {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// For people.
    pub display_name: String,
    /// What it cost.
    pub total_cost_nano_usd: NanoUsd,
    /// What the workspace is charged for it.
    pub total_charge_nano_usd: NanoUsd,
    /// Input and output tokens.
    pub total_tokens: i64,
    /// Distinct sessions.
    pub sessions: i64,
}

/// A page of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Costs {
    /// The lines.
    pub data: Vec<CostRow>,
    /// What `after` is for the next page.
    pub next: Option<String>,
    /// How many entries of the ledger were counted one by one, because they are not rolled up yet.
    pub not_rolled_up: i64,
}

/// A workspace's month. The amounts are in nano-dollars, from the same rows as the guide's SQL.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonthUsage {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// The month.
    pub month: Month,
    /// Input and output tokens.
    pub total_tokens: i64,
    /// Input tokens, the cached included.
    pub input_tokens: i64,
    /// Those of them that the provider had cached.
    pub cached_input_tokens: i64,
    /// Output tokens, the reasoning included.
    pub output_tokens: i64,
    /// Those of them that were not shown.
    pub reasoning_tokens: i64,
    /// Those of the input that were embedded.
    pub embedding_tokens: i64,
    /// Distinct sessions.
    pub sessions: i64,
    /// Turns.
    pub turns: i64,
    /// What it cost.
    pub total_cost_nano_usd: NanoUsd,
    /// What the workspace is charged for it.
    pub total_charge_nano_usd: NanoUsd,
    /// How many entries of the ledger were counted one by one, because they are not rolled up yet.
    pub not_rolled_up: i64,
    /// By agent, dearest first.
    pub by_agent: Vec<AgentUsage>,
    /// By model, dearest first.
    pub by_model: Vec<ModelUsage>,
}

/// One agent's part of a month.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentUsage {
    /// The agent's id.
    pub agent_id: String,
    /// Turns.
    pub turns: i64,
    /// Distinct sessions.
    pub sessions: i64,
    /// Input and output tokens.
    pub total_tokens: i64,
    /// Input tokens.
    pub input_tokens: i64,
    /// Output tokens.
    pub output_tokens: i64,
    /// What they cost.
    pub total_cost_nano_usd: NanoUsd,
    /// What the workspace is charged for them.
    pub total_charge_nano_usd: NanoUsd,
}

/// One model's part of a month.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelUsage {
    /// The provider.
    pub provider: String,
    /// The model's id.
    pub model: String,
    /// Turns.
    pub turns: i64,
    /// Input and output tokens.
    pub total_tokens: i64,
    /// Input tokens.
    pub input_tokens: i64,
    /// Output tokens.
    pub output_tokens: i64,
    /// What they cost.
    pub total_cost_nano_usd: NanoUsd,
    /// What the workspace is charged for them.
    pub total_charge_nano_usd: NanoUsd,
}

/// What a price is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PriceTier)]
pub enum Tier {
    /// Calls that somebody waits for.
    #[default]
    Standard,
    /// Calls that the provider serves when that suits it, and bills so.
    Batch,
}

/// A price from a moment on, nano-dollars per million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewPrice {
    /// The provider.
    pub provider: String,
    /// The model's id. One that ends in `*` is a prefix: the exact name wins over it, a longer prefix over a shorter one.
    pub model: String,
    /// What it is the price of.
    pub tier: Tier,
    /// Per million input tokens.
    pub input_nano_per_mtok: NanoUsd,
    /// Per million input tokens from the provider's cache.
    pub cached_input_nano_per_mtok: NanoUsd,
    /// Per million output tokens.
    pub output_nano_per_mtok: NanoUsd,
    /// The model bills tokens that it does not stream.
    pub holds_maximum: bool,
    /// The prices of a prompt that is long, where they are others.
    pub long_context: Option<LongContext>,
    /// Where the price is from.
    pub source: Option<String>,
    /// From when it is used.
    pub valid_from: Timestamp,
}

/// A row of the price book, nano-dollars per million tokens.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PriceRow {
    /// The provider.
    pub provider: String,
    /// The model's id, or a prefix of ids.
    pub model: String,
    /// What it is the price of.
    pub tier: Tier,
    /// Counts up with each change.
    pub version: i32,
    /// Per million input tokens.
    pub input_nano_per_mtok: NanoUsd,
    /// Per million input tokens from the provider's cache.
    pub cached_input_nano_per_mtok: NanoUsd,
    /// Per million output tokens.
    pub output_nano_per_mtok: NanoUsd,
    /// The model bills tokens that it does not stream.
    pub holds_maximum: bool,
    /// The prices of a prompt that is long, where they are others.
    pub long_context: Option<LongContext>,
    /// Where the price is from.
    pub source: Option<String>,
    /// From when it is used.
    pub valid_from: Timestamp,
}

impl<D: Database> Tenant<'_, D> {
    /// The month's usage; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn usage(&self, month: Month) -> Result<Option<MonthUsage>, StoreError> {
        const STATEMENT: &str = tenant_statement!("usage");
        #[derive(Serialize)]
        struct Arg {
            month: Month,
        }
        let arg = serde_json::to_string(&Arg { month }).map_err(|_| StoreError::Shape(STATEMENT))?;
        let answer = self.call_text(STATEMENT, &arg).await?;
        let Outcome { outcome } = parse(STATEMENT, &answer)?;
        if outcome == "ok" { parse(STATEMENT, &answer).map(Some) } else { Ok(None) }
    }
}

impl<D: Database> Operator<'_, D> {
    /// Every workspace's month, dearest first. `after` is the `next` of a page: nothing else may be passed on from a request
    /// ([`is_costs_cursor`]).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn costs(&self, month: Month, after: Option<&str>, limit: u32) -> Result<Costs, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            month: Month,
            after: Option<&'a str>,
            limit: u32,
        }
        self.call(operator_statement!("op_costs"), &Arg { month, after, limit }).await
    }

    /// The price book: every version of every row, a model's newest first. All on one page.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_prices(&self) -> Result<Page<PriceRow>, StoreError> {
        self.call(operator_statement!("op_prices_list"), &Nothing {}).await
    }

    /// Sets a price from a moment on; the same as the newest again keeps its version. Returns the version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_price(&self, price: &NewPrice) -> Result<i32, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            version: i32,
        }
        self.call(operator_statement!("op_price_put"), price).await.map(|Answer { version }| version)
    }
}

/// Whether a text has the form of a cursor of [`Operator::costs`]: nano-dollars, a colon, a workspace.
pub fn is_costs_cursor(text: &str) -> bool {
    text.split_once(':').is_some_and(|(nano, id)| is_amount(nano) && WorkspaceId::try_from(id.to_owned()).is_ok())
}

/// At most 18 digits, a minus before them or not: what fits into 64 bits.
pub(crate) fn is_amount(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_told_from_other_texts() {
        assert!(is_costs_cursor("0:a") && is_costs_cursor("-1:a") && is_costs_cursor("999999999999999999:customer-acme"));
        for text in ["", ":", "1:", ":a", "1:A", "--1:a", "1.5:a", "1000000000000000000:a", "1:a\0", "a:1", "1:a:b"] {
            assert!(!is_costs_cursor(text), "{text}");
        }
    }
}

/// A mark of a limit that was passed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaEventRow {
    /// The limit's name in the API.
    pub limit: String,
    /// Whose.
    pub scope: String,
    /// When its window began.
    pub starts_at: Timestamp,
    /// The mark, in percent.
    pub mark: i64,
    /// The limit.
    pub max: i64,
    /// What was used of it then.
    pub used: i64,
    /// When.
    pub at: Timestamp,
}

impl<D: Database> Tenant<'_, D> {
    /// Marks of limits that were passed, latest first. None when there is no such workspace.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quota_events(&self, after: Option<&str>, limit: u32) -> Result<Option<Page<QuotaEventRow>>, StoreError> {
        #[derive(Deserialize)]
        struct Found {
            outcome: String,
            data: Vec<QuotaEventRow>,
            next: Option<String>,
        }
        let Found { outcome, data, next } = self.call(tenant_statement!("quota_events_list"), &PageArg { after, limit }).await?;
        Ok((outcome == "ok").then_some(Page { data, next }))
    }
}
