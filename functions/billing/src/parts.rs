//! Sums by one thing, within dates: what the operator asks of all workspaces and a workspace of itself.

use astra_host::{Failure, csv};
use astra_kernel::money::usd_number;
use astra_kernel::{Day, NanoUsd, Problem, Timestamp};
use astra_store::rollups::{By, Part, Parts, PartsArg, is_parts_cursor};
use axum::response::Response;
use http::header::ACCEPT;
use serde::{Deserialize, Serialize};

/// In which form a list is answered, where `accept` does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// JSON.
    Json,
    /// CSV.
    Csv,
}

/// Whether CSV is wanted.
pub(crate) fn as_csv(format: Option<Format>, request: &astra_host::routes::Unread) -> bool {
    format.map_or_else(|| csv::is_wanted(request.header(&ACCEPT)), |format| format == Format::Csv)
}

/// One sum.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UsagePart)]
pub(crate) struct PartView {
    /// Whose it is, by what was asked: a workspace, an agent, `provider/model`, a user, a date, a kind of entry. Empty: of no agent, of nobody.
    key: String,
    /// Turns.
    turns: i64,
    /// Input and output tokens.
    total_tokens: i64,
    /// Input tokens, the cached and the embedded included.
    input_tokens: i64,
    /// Those of them that the provider had cached.
    cached_input_tokens: i64,
    /// Output tokens, the reasoning included.
    output_tokens: i64,
    /// Those of them that were not shown.
    reasoning_tokens: i64,
    /// Those of the input that were embedded.
    embedding_tokens: i64,
    /// What it cost, nano-dollars.
    #[schema(value_type = i64)]
    total_cost_nano_usd: NanoUsd,
    /// What it cost, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_cost_usd: NanoUsd,
    /// What is charged for it, nano-dollars.
    #[schema(value_type = i64)]
    total_charge_nano_usd: NanoUsd,
    /// What is charged for it, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_charge_usd: NanoUsd,
}

impl From<Part> for PartView {
    fn from(part: Part) -> Self {
        let Part {
            key,
            turns,
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            embedding_tokens,
            cost_nano_usd,
            charge_nano_usd,
        } = part;
        Self {
            key,
            turns,
            total_tokens: input_tokens.saturating_add(output_tokens),
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            embedding_tokens,
            total_cost_nano_usd: cost_nano_usd,
            total_cost_usd: cost_nano_usd,
            total_charge_nano_usd: charge_nano_usd,
            total_charge_usd: charge_nano_usd,
        }
    }
}

/// A page of sums, the dearest first; days in their order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UsageParts)]
pub(crate) struct PartsView {
    /// By what.
    #[schema(value_type = ByView)]
    by: By,
    /// The sums.
    data: Vec<PartView>,
    /// What `after` is for the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// How many entries of the ledger were counted one by one, because they are not rolled up yet. They are in the sums.
    not_rolled_up: i64,
}

/// By what sums are asked for.
#[derive(utoipa::ToSchema)]
#[schema(as = UsageBy)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only described")]
pub(crate) enum ByView {
    /// By workspace: the operator's.
    Workspace,
    /// By agent.
    Agent,
    /// By provider and model.
    Model,
    /// By who asked.
    User,
    /// By day.
    Day,
    /// By kind of entry: turns, embeddings, corrections, credits and so on.
    Kind,
}

impl PartsView {
    pub(crate) fn new(by: By, parts: Parts) -> Self {
        let Parts { data, next, not_rolled_up } = parts;
        Self { by, data: data.into_iter().map(PartView::from).collect(), next_cursor: next, not_rolled_up }
    }

    /// The same as CSV.
    pub(crate) fn into_csv(self) -> Result<Response, Failure> {
        const HEADER: [&str; 12] = [
            "key",
            "turns",
            "totalTokens",
            "inputTokens",
            "cachedInputTokens",
            "outputTokens",
            "reasoningTokens",
            "embeddingTokens",
            "totalCostNanoUsd",
            "totalCostUsd",
            "totalChargeNanoUsd",
            "totalChargeUsd",
        ];
        let records = self.data.into_iter().map(|part| {
            let PartView {
                key,
                turns,
                total_tokens,
                input_tokens,
                cached_input_tokens,
                output_tokens,
                reasoning_tokens,
                embedding_tokens,
                total_cost_nano_usd,
                total_cost_usd,
                total_charge_nano_usd,
                total_charge_usd,
            } = part;
            [
                key,
                turns.to_string(),
                total_tokens.to_string(),
                input_tokens.to_string(),
                cached_input_tokens.to_string(),
                output_tokens.to_string(),
                reasoning_tokens.to_string(),
                embedding_tokens.to_string(),
                total_cost_nano_usd.0.to_string(),
                total_cost_usd.to_usd_text(),
                total_charge_nano_usd.0.to_string(),
                total_charge_usd.to_usd_text(),
            ]
        });
        Ok(csv::answer("attachment; filename=\"usage.csv\"", csv::table(HEADER, records)?, self.next_cursor))
    }
}

/// Checks the dates and the cursor of a query.
pub(crate) fn checked<'a>(
    by: By,
    from: Option<&str>,
    to: Option<&str>,
    after: Option<&'a str>,
    limit: u32,
    now: Timestamp,
) -> Result<PartsArg<'a>, Problem> {
    let day = |name: &str, text: Option<&str>| text.map(|text| text.parse::<Day>().map_err(|rule| Problem::field(name, rule))).transpose();
    let (from, to) = (day("from", from)?, day("to", to)?);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        return Err(Problem::field("to", "not before `from`"));
    }
    if after.is_some_and(|after| !is_parts_cursor(after)) {
        return Err(Problem::field("after", "not a cursor of this list"));
    }
    Ok(PartsArg { by, from, to, now, after, limit })
}
