//! One workspace's month.

use crate::month::MonthQuery;
use astra_host::fields::WorkspacePath;
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::money::usd_number;
use astra_kernel::{Month, NanoUsd, Permission, Problem, WorkspaceId};
use astra_store::billing::{AgentUsage, ModelUsage, MonthUsage};
use axum::Json;
use serde::Serialize;

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
}

impl From<AgentUsage> for AgentUsageView {
    fn from(usage: AgentUsage) -> Self {
        let AgentUsage { agent_id, turns, sessions, total_tokens, input_tokens, output_tokens, total_cost_nano_usd } = usage;
        let total_cost_usd = total_cost_nano_usd;
        Self { agent_id, turns, sessions, total_tokens, input_tokens, output_tokens, total_cost_nano_usd, total_cost_usd }
    }
}

impl From<ModelUsage> for ModelUsageView {
    fn from(usage: ModelUsage) -> Self {
        let ModelUsage { provider, model, turns, total_tokens, input_tokens, output_tokens, total_cost_nano_usd } = usage;
        let total_cost_usd = total_cost_nano_usd;
        Self { provider, model, turns, total_tokens, input_tokens, output_tokens, total_cost_nano_usd, total_cost_usd }
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
            sessions,
            turns,
            total_cost_nano_usd,
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
            sessions,
            turns,
            total_cost_nano_usd,
            total_cost_usd: total_cost_nano_usd,
            by_agent: by_agent.into_iter().map(Into::into).collect(),
            by_model: by_model.into_iter().map(Into::into).collect(),
        }
    }
}

/// What a workspace used in a month and what it cost.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/usage", tag = "billing", operation_id = "readUsage",
    params(
        WorkspacePath,
        (
            "month" = Option<String>, Query,
            description = "A calendar month in UTC; the current one unless told",
            pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$",
        ),
    ),
    responses((status = 200, description = "The month", body = UsageView)),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Json<UsageView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::BillingRead).await?;
    let month = request.query::<MonthQuery>()?.month(call.host.now())?;
    let usage = data.usage(month).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(usage.into()))
}
