//! The month's close: each workspace's months that are over become invoices. It may run at any time, twice at once, and end anywhere: a month is closed once.

use crate::letterhead::{Letterhead, unconfigured};
use crate::month;
use astra_host::routes::Unread;
use astra_host::{Call, Failure, Host};
use astra_kernel::{Month, Permission, Problem, Timestamp};
use astra_store::invoices::{Closed, Closing};
use astra_store::{Operator, StoreError};
use axum::Json;
use serde::{Deserialize, Serialize};

/// How many workspaces a transaction closes at most.
const WORKSPACES: u32 = 50;

/// How long a request closes, milliseconds; the next one goes on.
const REQUEST_MILLIS: i64 = 15_000;

/// The zone that is the furthest ahead of UTC.
const FURTHEST_AHEAD_MILLIS: i64 = 14 * 3_600_000;

/// The month that has ended in the zone where it ends first.
pub(crate) fn over_somewhere(now: Timestamp) -> Month {
    now.plus_millis(FURTHEST_AHEAD_MILLIS).month().previous()
}

/// Closes all months up to that one, of some workspaces: those after `after`, in their order. What is closed stays closed; doing it twice changes nothing. `next`: where to go on.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn close_some<H: Host>(
    host: &H,
    letterhead: &Letterhead,
    month: Month,
    after: Option<&str>,
) -> Result<Closed, StoreError> {
    let Letterhead { prefix, grace_seconds, .. } = letterhead;
    Operator::open(host).close(&Closing { month, now: host.now(), grace_seconds: *grace_seconds, prefix, after, limit: WORKSPACES }).await
}

async fn up_to<H: Host>(host: &H, letterhead: &Letterhead, month: Month, until: Timestamp) -> Result<Closed, StoreError> {
    let mut sum = Closed::default();
    loop {
        let Closed { closed, invoices, early, waiting, next } = close_some(host, letterhead, month, sum.next.as_deref()).await?;
        sum = Closed {
            closed: sum.closed + closed,
            invoices: sum.invoices + invoices,
            early: sum.early + early,
            waiting: sum.waiting + waiting,
            next,
        };
        if sum.next.is_none() || host.now() >= until {
            return Ok(sum);
        }
    }
}

/// Which month.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = CloseMonth)]
pub(crate) struct CloseBody {
    /// Each month up to this one: a calendar month in each workspace's time zone.
    #[schema(pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$")]
    month: String,
}

/// What was closed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ClosedMonths)]
pub(crate) struct ClosedView {
    /// Months of workspaces that were closed now.
    closed: i64,
    /// How many of them had something to invoice.
    invoices: i64,
    /// Workspaces whose month has not been over for long enough: later.
    early: i64,
    /// Workspaces with a turn of the month that runs: later.
    waiting: i64,
    /// Whether all workspaces were looked at; else ask again.
    is_done: bool,
}

/// Closes months into invoices, as the hourly job does: of each workspace all that are over, up to that one. What is closed stays closed; asking again changes nothing.
#[utoipa::path(
    post, path = "/billing/close", tag = "billing", operation_id = "closeMonth", request_body = CloseBody,
    responses((status = 200, description = "What was closed", body = ClosedView)),
)]
pub(crate) async fn close<H: Host>(call: Call<H>, request: Unread) -> Result<Json<ClosedView>, Failure> {
    call.operator(Permission::BillingRead).await?;
    let CloseBody { month } = request.json().await?;
    let now = call.host.now();
    let month = month::parse(Some(&month), now).map_err(|_| Problem::field("/month", "a month is YYYY-MM, such as 2026-11"))?;
    let letterhead = Letterhead::read(call.host.shared()).map_err(|error| unconfigured(&error))?;
    let Closed { closed, invoices, early, waiting, next } = up_to(&call.host, &letterhead, month, now.plus_millis(REQUEST_MILLIS)).await?;
    Ok(Json(ClosedView { closed, invoices, early, waiting, is_done: next.is_none() }))
}
