//! Prices a period again, by the book as it is now: what differs is entered as corrections, so that a price that came late, or was wrong, is set right for everybody.
//!
//! A turn's new cost is reckoned by the same [`Price`](astra_kernel::Price) as any turn's. Run twice it finds nothing more: what was corrected costs what the book says. What was corrected by hand in the
//! period is priced again too, by the tokens that it was corrected to. A model that has no price for then any more is left as it is, and counted.

use crate::ledger::forget;
use astra_host::fields::present;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::Unread;
use astra_host::{Call, Failure, Host};
use astra_kernel::{NanoUsd, Permission, Problem, Timestamp, WorkspaceId};
use astra_store::Tenant;
use astra_store::ledger::{NewCost, Period, Priced};
use axum::Json;
use serde::{Deserialize, Serialize};

/// How many turns are read at once.
const BATCH: u32 = 500;

/// What is priced again.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = Repricing)]
pub(crate) struct RepriceBody {
    /// What began from this moment on.
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    /// And before this one.
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Only of this provider.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    provider: Option<String>,
    /// Only of this model.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    model: Option<String>,
    /// Whether only to say what would differ: so unless told.
    #[serde(default = "yes")]
    #[schema(default = true)]
    dry_run: bool,
}

fn yes() -> bool {
    true
}

/// What differs for a workspace.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RepricedWorkspace)]
pub(crate) struct RepricedView {
    /// The workspace.
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    /// How many turns and other uses of the period there are.
    looked_at: usize,
    /// How many of them cost something else by the book.
    differ: usize,
    /// How many of them have no price in the book for when they began: left as they are.
    unpriced: usize,
    /// What they cost more than they did, nano-dollars; less when it is negative.
    #[schema(value_type = i64)]
    difference_nano_usd: NanoUsd,
    /// How many corrections were entered: none by a dry run.
    entered: usize,
}

/// Prices a period again, one page of workspaces at a time. A dry run, which it is unless told, says what differs; else that is entered as corrections. The operator's.
#[utoipa::path(
    post, path = "/billing/reprice", tag = "billing", operation_id = "reprice", request_body = RepriceBody,
    params(
        (
            "after" = Option<String>, Query,
            description = "The `nextCursor` of the page before",
            min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        ),
        ("limit" = Option<u32>, Query, description = "How many workspaces at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Workspaces by id", body = PageBody<RepricedView>)),
)]
pub(crate) async fn reprice<H: Host>(call: Call<H>, request: Unread) -> Result<Json<PageBody<RepricedView>>, Failure> {
    let operator = call.operator(Permission::WorkspaceList).await?;
    let page: PageQuery = request.query()?;
    let limit = page.limit()?;
    let body: RepriceBody = request.json().await?;
    if body.from >= body.to {
        return Err(Problem::field("/to", "a time after `from`").into());
    }
    let after = page.after.as_ref().map(|after| WorkspaceId::try_from(after.clone())).transpose();
    let after = after.map_err(|rule| Problem::field("after", format!("not a cursor of this list: {rule}")))?;
    let workspaces = operator.list_workspaces(after.as_ref().map(WorkspaceId::as_str), limit).await?;
    let mut data = Vec::with_capacity(workspaces.data.len());
    for workspace in workspaces.data {
        let allowed = call.tenant(workspace.id.as_str(), Permission::WorkspaceList).await?;
        if let Some(view) = one(&call.host, &allowed.data, &body).await? {
            data.push(view);
        }
    }
    Ok(Json(PageBody { data, next_cursor: workspaces.next }))
}

/// One workspace; none when it has gone meanwhile.
async fn one<H: Host>(host: &H, tenant: &Tenant<'_, H>, body: &RepriceBody) -> Result<Option<RepricedView>, Failure> {
    let workspace_id = tenant.workspace().clone();
    let mut view = RepricedView { workspace_id, looked_at: 0, differ: 0, unpriced: 0, difference_nano_usd: NanoUsd::ZERO, entered: 0 };
    let mut after: Option<String> = None;
    loop {
        let RepriceBody { from, to, provider, model, dry_run: _ } = body;
        let period =
            Period { from: *from, to: *to, provider: provider.as_deref(), model: model.as_deref(), after: after.as_deref(), limit: BATCH };
        let Some(page) = tenant.read_priced(&period).await? else { return Ok(None) };
        view.looked_at += page.data.len();
        let mut turns = Vec::new();
        for Priced { turn_id, provider: _, model: _, usage, cost_nano_usd, price } in page.data {
            let Some(price) = price else {
                view.unpriced += 1;
                continue;
            };
            let too_large = |error| Failure::internal(format!("the cost of a turn: {error}"));
            let cost = price.cost(&usage).map_err(too_large)?;
            if cost == cost_nano_usd {
                continue;
            }
            let difference = NanoUsd(cost.0 - cost_nano_usd.0);
            view.difference_nano_usd = view.difference_nano_usd.plus(difference).map_err(too_large)?;
            turns.push(NewCost { turn_id, was_nano_usd: cost_nano_usd, cost_nano_usd: cost, price_version: price.version });
        }
        view.differ += turns.len();
        if !body.dry_run && !turns.is_empty() {
            view.entered += tenant.reprice("priced again by the price book", &turns).await?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if !body.dry_run && view.looked_at > 0 {
        // Also when nothing was entered: the first time it may not have come so far.
        forget(host, tenant.workspace()).await?;
    }
    Ok(Some(view))
}
