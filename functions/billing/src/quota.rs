//! A workspace's limits and what is used of them, as its counter sees it at this moment; marks that were passed; counters compared with the ledger.

use astra_host::fields::WorkspacePath;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, CounterUnreachable, Failure, Host, with_limits};
use astra_kernel::{NanoUsd, Permission, Problem, Timestamp, WorkspaceId};
use astra_quota::words::{Answer, Ask, Compared};
use astra_quota::{QuotaView, Window};
use astra_store::billing::QuotaEventRow;
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

/// A workspace's limits and what is used of them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Quota)]
pub(crate) struct QuotaBody {
    /// One entry per limit that is set.
    windows: Vec<Window>,
    /// Those that will be used up before they start anew, if it goes on as since they began. The first to be used up comes first.
    forecast: Vec<Forecast>,
}

/// When a limit will be used up.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Forecast {
    /// The limit's name in the API.
    limit: String,
    /// `workspace`, or `agent:` and the agent's id.
    scope: String,
    /// At the pace since the window began.
    #[schema(value_type = String, format = DateTime)]
    used_up_at: Timestamp,
}

/// A workspace's limits: used, held by running turns, left, and when they will be used up.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/quota", tag = "billing", operation_id = "readQuota", params(WorkspacePath),
    responses((
        status = 200, description = "One window for each limit that is set", body = QuotaBody,
        headers(("RateLimit-Policy" = String, description = "The limits"), ("RateLimit" = String, description = "What is left of them")),
    )),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Response, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceRead).await?;
    match call.host.ask(data.workspace(), &Ask::Status).await? {
        Answer::Status(Some(quota)) => {
            let now = call.host.now();
            let view = quota.clone();
            let body = QuotaBody { forecast: forecast(&quota, now), windows: quota.windows };
            Ok(with_limits(Json(body).into_response(), &view, now))
        }
        Answer::Status(None) => Err(Problem::not_found("workspace").into()),
        // The counter is there, its database is not.
        Answer::Unavailable => Err(CounterUnreachable.into()),
        other => Err(Failure::internal(format!("the counter's answer to Status: {}", name_of(&other)))),
    }
}

/// An answer's name: its content may be a turn's.
fn name_of(answer: &Answer) -> &'static str {
    match answer {
        Answer::Fault(_) => "a database fault",
        _ => "another ask's answer",
    }
}

/// What will be used up before it starts anew. A limit that is used up already is not forecast: `left` says so.
fn forecast(quota: &QuotaView, now: Timestamp) -> Vec<Forecast> {
    let used_up = |window: &Window| {
        let (starts_at, resets_at) = (window.starts_at?, window.resets_at?);
        let (elapsed, used) = (i128::from(now.0 - starts_at.0), i128::from(window.used));
        let left = i128::from(window.max) - used;
        if elapsed <= 0 || used <= 0 || left <= 0 {
            return None;
        }
        let used_up_at = Timestamp(i64::try_from(i128::from(now.0) + left * elapsed / used).ok()?);
        (used_up_at < resets_at).then(|| Forecast { limit: window.limit.clone(), scope: window.scope.clone(), used_up_at })
    };
    let mut forecast: Vec<_> = quota.windows.iter().filter_map(used_up).collect();
    forecast.sort_by_key(|f| f.used_up_at);
    forecast
}

/// A mark of a limit that was passed: told once in a window.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = QuotaEvent)]
pub(crate) struct EventView {
    /// The limit's name in the API.
    limit: String,
    /// `workspace`, or `agent:` and the agent's id.
    scope: String,
    /// The mark in percent of the limit: 50, 80 or 100.
    mark: i64,
    /// The limit at that time.
    max: i64,
    /// What was used of it.
    used: i64,
    /// When the limit's window began.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    /// When the mark was passed.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<QuotaEventRow> for EventView {
    fn from(row: QuotaEventRow) -> Self {
        let QuotaEventRow { limit, scope, starts_at, mark, max, used, at } = row;
        Self { limit, scope, mark, max, used, starts_at, at }
    }
}

/// Marks of limits (50, 80 and 100 percent) that were passed.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/quota/events", tag = "billing", operation_id = "listQuotaEvents",
    params(
        WorkspacePath,
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", max_length = 18, pattern = "^[0-9]{1,18}$"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Marks that were passed, latest first", body = PageBody<EventView>)),
)]
pub(crate) async fn events<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<EventView>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceRead).await?;
    let page: PageQuery = request.query()?;
    let is_cursor = |after: &String| (1..=18).contains(&after.len()) && after.bytes().all(|b| b.is_ascii_digit());
    if page.after.as_ref().is_some_and(|after| !is_cursor(after)) {
        return Err(Problem::field("after", "not a cursor of this list").into());
    }
    let events = data.quota_events(page.after.as_deref(), page.limit()?).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(events, EventView::from)))
}

/// One workspace's counter, compared with the ledger.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Reconciliation)]
pub(crate) struct ReconciledView {
    /// The workspace.
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    /// How many windows and scopes were compared: none when the counter has nothing in memory, because then it loads what it needs from the ledger.
    compared: usize,
    /// Those that differed. From now on the counter goes by the ledger.
    drift: Vec<DriftView>,
}

/// A window in which the counter and the ledger differed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Drift)]
pub(crate) struct DriftView {
    /// The window: its length and its first moment.
    window: String,
    /// `workspace`, or `agent:` and the agent's id.
    scope: String,
    /// What the counter had, nano-dollars.
    #[schema(value_type = i64)]
    counter_cost_nano_usd: NanoUsd,
    /// What the ledger says, nano-dollars.
    #[schema(value_type = i64)]
    ledger_cost_nano_usd: NanoUsd,
    /// What the counter had, tokens.
    counter_tokens: i64,
    /// What the ledger says, tokens.
    ledger_tokens: i64,
}

impl From<Compared> for DriftView {
    fn from(compared: Compared) -> Self {
        let Compared { window, scope, counter, ledger } = compared;
        Self {
            window,
            scope: scope.as_str().to_owned(),
            counter_cost_nano_usd: counter.cost,
            ledger_cost_nano_usd: ledger.cost,
            counter_tokens: counter.tokens,
            ledger_tokens: ledger.tokens,
        }
    }
}

/// Compares a workspace's counter with the ledger, and sets it right.
pub(crate) async fn compare<H: Host>(host: &H, workspace: &WorkspaceId) -> Result<Vec<Compared>, Failure> {
    match host.ask(workspace, &Ask::Reconcile).await? {
        Answer::Reconciled(compared) => Ok(compared),
        Answer::Unavailable => Err(CounterUnreachable.into()),
        other => Err(Failure::internal(format!("the counter's answer to Reconcile: {}", name_of(&other)))),
    }
}

/// Compares the counters of one page of workspaces with the ledger, and sets them right.
#[utoipa::path(
    post, path = "/billing/reconcile", tag = "billing", operation_id = "reconcile",
    params(
        (
            "after" = Option<String>, Query,
            description = "The `nextCursor` of the page before",
            min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        ),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Workspaces by id", body = PageBody<ReconciledView>)),
)]
pub(crate) async fn reconcile<H: Host>(call: Call<H>, request: Unread) -> Result<Json<PageBody<ReconciledView>>, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    let page: PageQuery = request.query()?;
    let after = page.after.as_ref().map(|after| WorkspaceId::try_from(after.clone())).transpose();
    let after = after.map_err(|rule| Problem::field("after", format!("not a cursor of this list: {rule}")))?;
    let workspaces = operator.list_workspaces(after.as_ref().map(WorkspaceId::as_str), page.limit()?).await?;
    let mut data = Vec::with_capacity(workspaces.data.len());
    for workspace in workspaces.data {
        let compared = compare(&call.host, &workspace.id).await?;
        let count = compared.len();
        let drift = compared.into_iter().filter(|c| c.counter != c.ledger).map(DriftView::from).collect();
        data.push(ReconciledView { workspace_id: workspace.id, compared: count, drift });
    }
    Ok(Json(PageBody { data, next_cursor: workspaces.next }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_goes_on_as_it_went() {
        let window = |used, ends: i64| Window {
            limit: "maxTokensPerDay".into(),
            scope: "workspace".into(),
            max: 100,
            used,
            held: 0,
            left: 100 - used,
            starts_at: Some(Timestamp(0)),
            resets_at: Some(Timestamp(ends)),
        };
        let at = |used, ends| forecast(&QuotaView { windows: vec![window(used, ends)] }, Timestamp(1_000)).first().map(|f| f.used_up_at.0);
        assert_eq!(at(50, 10_000), Some(2_000));
        assert_eq!(at(10, 10_001), Some(10_000));
        assert_eq!(at(10, 10_000), None, "it starts anew in that moment");
        assert_eq!((at(0, 10_000), at(100, 10_000)), (None, None));
    }
}
