//! Every workspace's costs, for the operator: a month as the guide's query has it, or sums by one thing within dates.

use crate::month;
use crate::parts::{Format, PartsView, as_csv, checked};
use astra_host::paging::PageQuery;
use astra_host::routes::Unread;
use astra_host::{Call, Failure, Host, csv};
use astra_kernel::money::usd_number;
use astra_kernel::{NanoUsd, Permission, Problem, WorkspaceId};
use astra_store::billing::{CostRow, Costs, is_costs_cursor};
use astra_store::rollups::By;
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header::VARY;
use serde::{Deserialize, Serialize};

/// `?month=…&after=…&limit=…`, or `?by=…&from=…&to=…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CostsQuery {
    month: Option<String>,
    by: Option<By>,
    from: Option<String>,
    to: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
    format: Option<Format>,
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
    /// What the workspace is charged for it, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_charge_usd: NanoUsd,
    /// What the workspace is charged for it, nano-dollars.
    #[schema(value_type = i64)]
    total_charge_nano_usd: NanoUsd,
    /// Input and output tokens.
    total_tokens: i64,
    /// Conversations with a turn in the month.
    sessions: i64,
}

impl From<CostRow> for CostView {
    fn from(row: CostRow) -> Self {
        let CostRow { workspace_id, display_name, total_cost_nano_usd, total_charge_nano_usd, total_tokens, sessions } = row;
        Self {
            workspace_id,
            display_name,
            total_cost_usd: total_cost_nano_usd,
            total_cost_nano_usd,
            total_charge_usd: total_charge_nano_usd,
            total_charge_nano_usd,
            total_tokens,
            sessions,
        }
    }
}

/// A month of every workspace, dearest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
// No other fields: an empty page of sums is none of these.
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Costs)]
pub(crate) struct CostsView {
    /// The workspaces.
    data: Vec<CostView>,
    /// What `after` is for the next page; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// How many entries of the ledger were counted one by one, because they are not rolled up yet. They are in the sums.
    not_rolled_up: i64,
}

impl CostsView {
    fn into_csv(self) -> Result<Response, Failure> {
        const HEADER: [&str; 8] = [
            "workspaceId",
            "displayName",
            "totalCostUsd",
            "totalCostNanoUsd",
            "totalChargeUsd",
            "totalChargeNanoUsd",
            "totalTokens",
            "sessions",
        ];
        let records = self.data.into_iter().map(|row| {
            let CostView {
                workspace_id,
                display_name,
                total_cost_usd,
                total_cost_nano_usd,
                total_charge_usd,
                total_charge_nano_usd,
                total_tokens,
                sessions,
            } = row;
            [
                workspace_id.to_string(),
                display_name,
                total_cost_usd.to_usd_text(),
                total_cost_nano_usd.0.to_string(),
                total_charge_usd.to_usd_text(),
                total_charge_nano_usd.0.to_string(),
                total_tokens.to_string(),
                sessions.to_string(),
            ]
        });
        Ok(csv::answer("attachment; filename=\"costs.csv\"", csv::table(HEADER, records)?, self.next_cursor))
    }
}

/// What is answered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[schema(as = CostsAnswer)]
pub(crate) enum CostsAnswer {
    /// A month.
    Month(CostsView),
    /// Sums by one thing.
    Parts(PartsView),
}

/// What every workspace's month cost, dearest first; or, with `by`, sums of all workspaces within dates.
///
/// The month's line of a workspace is what the guide's query says: a workspace without a turn in the month is not listed. With `by` dates are each workspace's own days, in its time zone,
/// and turns that another workspace has paid for are that one's. With `Accept: text/csv` or `format=csv` the same page as CSV, the next page's cursor in the header `next-cursor`.
#[utoipa::path(
    get, path = "/billing/costs", tag = "billing", operation_id = "listCosts",
    params(
        (
            "month" = Option<String>, Query,
            description = "A calendar month in UTC; the current one unless told. Not with `by`",
            pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$",
        ),
        ("by" = Option<String>, Query, description = "Sums by this in place of a month's lines", pattern = "^(workspace|agent|model|user|day|kind)$"),
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
            description = "The `nextCursor` of the page before",
            max_length = 1024, pattern = "^-?[0-9]{1,18}:",
        ),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
        ("format" = Option<String>, Query, description = "The form, where `accept` does not say it", pattern = "^(json|csv)$"),
    ),
    responses((status = 200, description = "Workspaces by cost, or sums", content((CostsAnswer = "application/json"), (String = "text/csv")))),
)]
pub(crate) async fn list<H: Host>(call: Call<H>, request: Unread) -> Result<Response, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    let CostsQuery { month, by, from, to, after, limit, format } = request.query()?;
    let csv = as_csv(format, &request);
    let limit = PageQuery { after: None, limit }.limit()?;
    let answer = if let Some(by) = by {
        if month.is_some() {
            return Err(Problem::field("month", "goes without `by`, which goes with `from` and `to`").into());
        }
        let arg = checked(by, from.as_deref(), to.as_deref(), after.as_deref(), limit, call.host.now())?;
        CostsAnswer::Parts(PartsView::new(by, operator.parts(&arg).await?))
    } else {
        if let Some(name) = [("from", &from), ("to", &to)].into_iter().find_map(|(name, value)| value.as_ref().map(|_| name)) {
            return Err(Problem::field(name, "goes with `by`").into());
        }
        let month = month::parse(month.as_deref(), call.host.now())?;
        if after.as_deref().is_some_and(|after| !is_costs_cursor(after)) {
            return Err(Problem::field("after", "not a cursor of this list").into());
        }
        let Costs { data, next, not_rolled_up } = operator.costs(month, after.as_deref(), limit).await?;
        CostsAnswer::Month(CostsView { data: data.into_iter().map(CostView::from).collect(), next_cursor: next, not_rolled_up })
    };
    match answer {
        CostsAnswer::Month(page) if csv => page.into_csv(),
        CostsAnswer::Parts(page) if csv => page.into_csv(),
        answer => Ok(([(VARY, "accept")], Json(answer)).into_response()),
    }
}
