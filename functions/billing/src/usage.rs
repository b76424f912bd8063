//! One workspace's use: a month, or sums by one thing within dates.

use crate::month;
use crate::parts::{Format, PartsView, as_csv, checked};
use astra_host::fields::WorkspacePath;
use astra_host::paging::PageQuery;
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::money::usd_number;
use astra_kernel::{Month, NanoUsd, Permission, Problem, WorkspaceId};
use astra_store::billing::{AgentUsage, ModelUsage, MonthUsage};
use astra_store::rollups::By;
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header::VARY;
use serde::{Deserialize, Serialize};

/// `?month=…`, or `?by=…&from=…&to=…&after=…&limit=…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageQuery {
    month: Option<String>,
    by: Option<By>,
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
    format: Option<Format>,
}

/// A workspace's month.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MonthUsage)]
pub(crate) struct UsageView {
    /// The workspace.
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    /// The calendar month in UTC.
    #[schema(value_type = String, pattern = "^[0-9]{4}-[0-9]{2}$")]
    month: Month,
    /// Input and output tokens.
    total_tokens: i64,
    /// Input tokens, the cached included.
    input_tokens: i64,
    /// Those of them that the provider had cached.
    cached_input_tokens: i64,
    /// Output tokens, the reasoning included.
    output_tokens: i64,
    /// Those of them that were not shown.
    reasoning_tokens: i64,
    /// Those of the input that were embedded.
    embedding_tokens: i64,
    /// Conversations with a turn in the month.
    sessions: i64,
    /// Turns.
    turns: i64,
    /// What they cost, nano-dollars.
    #[schema(value_type = i64)]
    total_cost_nano_usd: NanoUsd,
    /// What they cost, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_cost_usd: NanoUsd,
    /// What is charged for them, nano-dollars.
    #[schema(value_type = i64)]
    total_charge_nano_usd: NanoUsd,
    /// What is charged for them, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_charge_usd: NanoUsd,
    /// How many entries of the ledger were counted one by one, because they are not rolled up yet. They are in the sums.
    not_rolled_up: i64,
    /// By agent, dearest first.
    by_agent: Vec<AgentUsageView>,
    /// By model, dearest first.
    by_model: Vec<ModelUsageView>,
}

/// One agent's part.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentUsage)]
pub(crate) struct AgentUsageView {
    /// The agent.
    agent_id: String,
    /// Turns.
    turns: i64,
    /// Conversations with a turn in the month.
    sessions: i64,
    /// Input and output tokens.
    total_tokens: i64,
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
    /// What they cost, nano-dollars.
    #[schema(value_type = i64)]
    total_cost_nano_usd: NanoUsd,
    /// What they cost, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_cost_usd: NanoUsd,
    /// What is charged for them, nano-dollars.
    #[schema(value_type = i64)]
    total_charge_nano_usd: NanoUsd,
    /// What is charged for them, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_charge_usd: NanoUsd,
}

/// One model's part.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ModelUsage)]
pub(crate) struct ModelUsageView {
    /// The provider.
    provider: String,
    /// The model.
    model: String,
    /// Turns.
    turns: i64,
    /// Input and output tokens.
    total_tokens: i64,
    /// Input tokens.
    input_tokens: i64,
    /// Output tokens.
    output_tokens: i64,
    /// What they cost, nano-dollars.
    #[schema(value_type = i64)]
    total_cost_nano_usd: NanoUsd,
    /// What they cost, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_cost_usd: NanoUsd,
    /// What is charged for them, nano-dollars.
    #[schema(value_type = i64)]
    total_charge_nano_usd: NanoUsd,
    /// What is charged for them, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_charge_usd: NanoUsd,
}

impl From<AgentUsage> for AgentUsageView {
    fn from(usage: AgentUsage) -> Self {
        let AgentUsage { agent_id, turns, sessions, total_tokens, input_tokens, output_tokens, total_cost_nano_usd, total_charge_nano_usd } =
            usage;
        let (total_cost_usd, total_charge_usd) = (total_cost_nano_usd, total_charge_nano_usd);
        Self {
            agent_id,
            turns,
            sessions,
            total_tokens,
            input_tokens,
            output_tokens,
            total_cost_nano_usd,
            total_cost_usd,
            total_charge_nano_usd,
            total_charge_usd,
        }
    }
}

impl From<ModelUsage> for ModelUsageView {
    fn from(usage: ModelUsage) -> Self {
        let ModelUsage { provider, model, turns, total_tokens, input_tokens, output_tokens, total_cost_nano_usd, total_charge_nano_usd } =
            usage;
        let (total_cost_usd, total_charge_usd) = (total_cost_nano_usd, total_charge_nano_usd);
        Self {
            provider,
            model,
            turns,
            total_tokens,
            input_tokens,
            output_tokens,
            total_cost_nano_usd,
            total_cost_usd,
            total_charge_nano_usd,
            total_charge_usd,
        }
    }
}

impl From<MonthUsage> for UsageView {
    fn from(usage: MonthUsage) -> Self {
        let MonthUsage {
            workspace_id,
            month,
            total_tokens,
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            embedding_tokens,
            sessions,
            turns,
            total_cost_nano_usd,
            total_charge_nano_usd,
            not_rolled_up,
            by_agent,
            by_model,
        } = usage;
        Self {
            workspace_id,
            month,
            total_tokens,
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            embedding_tokens,
            sessions,
            turns,
            total_cost_nano_usd,
            total_cost_usd: total_cost_nano_usd,
            total_charge_nano_usd,
            total_charge_usd: total_charge_nano_usd,
            not_rolled_up,
            by_agent: by_agent.into_iter().map(Into::into).collect(),
            by_model: by_model.into_iter().map(Into::into).collect(),
        }
    }
}

/// What is answered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = UsageAnswer)]
pub(crate) enum UsageAnswer {
    /// A month.
    Month(UsageView),
    /// Sums by one thing.
    Parts(PartsView),
}

/// What a workspace used in a month and what it cost; or, with `by`, sums within dates of the workspace's time zone.
///
/// With `by` turns that another workspace has paid for are not in it; `Accept: text/csv` or `format=csv` makes the same page CSV, the next page's cursor in the header `next-cursor`.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/usage", tag = "billing", operation_id = "readUsage",
    params(
        WorkspacePath,
        (
            "month" = Option<String>, Query,
            description = "A calendar month in UTC; the current one unless told. Not with `by`",
            pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$",
        ),
        (
            "by" = Option<String>, Query,
            description = "Sums by this in place of a month",
            pattern = "^(agent|model|user|day|kind)$",
        ),
        (
            "from" = Option<String>, Query,
            description = "With `by`: from this day on; from the first of the month unless told",
            pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        ),
        (
            "to" = Option<String>, Query,
            description = "With `by`: to the end of this day; until now unless told",
            pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        ),
        (
            "after" = Option<String>, Query,
            description = "With `by`: the `nextCursor` of the page before",
            max_length = 1024, pattern = "^-?[0-9]{1,18}:",
        ),
        ("limit" = Option<u32>, Query, description = "With `by`: how many at most; 50 unless told", minimum = 1, maximum = 200),
        ("format" = Option<String>, Query, description = "With `by`: the form, where `accept` does not say it", pattern = "^(json|csv)$"),
    ),
    responses((status = 200, description = "The month, or sums", content((UsageAnswer = "application/json"), (String = "text/csv")))),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::BillingRead).await?;
    let UsageQuery { month, by, from, to, after, limit, format } = request.query()?;
    let unknown = || Problem::not_found("workspace");
    let Some(by) = by else {
        let others = [
            ("from", from.is_some()),
            ("to", to.is_some()),
            ("after", after.is_some()),
            ("limit", limit.is_some()),
            ("format", format.is_some()),
        ];
        if let Some((name, _)) = others.into_iter().find(|(_, is_there)| *is_there) {
            return Err(Problem::field(name, "goes with `by`").into());
        }
        let month = month::parse(month.as_deref(), call.host.now())?;
        let usage = data.usage(month).await?.ok_or_else(unknown)?;
        return Ok(([(VARY, "accept")], Json(UsageAnswer::Month(usage.into()))).into_response());
    };
    if month.is_some() {
        return Err(Problem::field("month", "goes without `by`, which goes with `from` and `to`").into());
    }
    if by == By::Workspace {
        return Err(Problem::field("by", "one of agent, model, user, day, kind: this is one workspace").into());
    }
    let limit = PageQuery { after: None, limit }.limit()?;
    let arg = checked(by, from.as_deref(), to.as_deref(), after.as_deref(), limit, call.host.now())?;
    let parts = PartsView::new(by, data.parts(&arg).await?.ok_or_else(unknown)?);
    if as_csv(format, &request) {
        return parts.into_csv();
    }
    Ok(([(VARY, "accept")], Json(UsageAnswer::Parts(parts))).into_response())
}
