//! Every workspace's month, for the operator.

use crate::month;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::Unread;
use astra_host::{Call, Failure, Host};
use astra_kernel::money::usd_number;
use astra_kernel::{NanoUsd, Permission, Problem, WorkspaceId};
use astra_store::billing::{CostRow, is_costs_cursor};
use axum::Json;
use serde::{Deserialize, Serialize};

/// `?month=…&after=…&limit=…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CostsQuery {
    month: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

/// One workspace's month.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WorkspaceCost)]
pub(crate) struct CostView {
    /// The workspace.
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    /// Its name for people.
    display_name: String,
    /// What its turns cost, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_cost_usd: NanoUsd,
    /// What its turns cost, nano-dollars.
    #[schema(value_type = i64)]
    total_cost_nano_usd: NanoUsd,
    /// Input and output tokens.
    total_tokens: i64,
    /// Conversations with a turn in the month.
    sessions: i64,
}

impl From<CostRow> for CostView {
    fn from(row: CostRow) -> Self {
        let CostRow { workspace_id, display_name, total_cost_nano_usd, total_tokens, sessions } = row;
        Self { workspace_id, display_name, total_cost_usd: total_cost_nano_usd, total_cost_nano_usd, total_tokens, sessions }
    }
}

/// What every workspace's month cost, dearest first. A workspace without a turn in the month is not listed.
#[utoipa::path(
    get, path = "/billing/costs", tag = "billing", operation_id = "listCosts",
    params(
        (
            "month" = Option<String>, Query,
            description = "A calendar month in UTC; the current one unless told",
            pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$",
        ),
        (
            "after" = Option<String>, Query,
            description = "The `nextCursor` of the page before",
            max_length = 67, pattern = "^[0-9]{1,18}:[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$",
        ),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Workspaces by cost", body = PageBody<CostView>)),
)]
pub(crate) async fn list<H: Host>(call: Call<H>, request: Unread) -> Result<Json<PageBody<CostView>>, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    let CostsQuery { month, after, limit } = request.query()?;
    let month = month::parse(month.as_deref(), call.host.now())?;
    if after.as_deref().is_some_and(|after| !is_costs_cursor(after)) {
        return Err(Problem::field("after", "not a cursor of this list").into());
    }
    let page = PageQuery { after, limit };
    let costs = operator.costs(month, page.after.as_deref(), page.limit()?).await?;
    Ok(Json(PageBody::from_page(costs, CostView::from)))
}
