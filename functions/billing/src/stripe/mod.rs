//! Stripe's meters: who a workspace is there, and what Stripe has not taken. The operator's.

pub(crate) mod client;

use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Call, Failure, Host};
use astra_kernel::{Permission, Problem, Timestamp, WorkspaceId};
use astra_store::stripe::{CustomerRow, RefusalRow, is_refusals_cursor};
use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// The path of a workspace that is somebody at Stripe.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct CustomerPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
}

/// Who a workspace is at Stripe.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = StripeCustomerBody)]
pub(crate) struct CustomerBody {
    /// The customer's id; null for nobody: nothing more is told.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true, min_length = 1, max_length = 255, pattern = "^[A-Za-z0-9_]+$")]
    customer_id: Option<String>,
}

/// A workspace at Stripe.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StripeCustomer)]
pub(crate) struct CustomerView {
    /// The workspace.
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    /// The customer's id; null when nothing more is told.
    #[schema(required = true)]
    customer_id: Option<String>,
    /// The last entry of its ledger that was put into the outbox, or before which it was no customer.
    pushed_seq: i64,
    /// When the customer was last set.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<CustomerRow> for CustomerView {
    fn from(row: CustomerRow) -> Self {
        let CustomerRow { workspace_id, customer_id, pushed_seq, updated_at } = row;
        Self { workspace_id, customer_id, pushed_seq, updated_at }
    }
}

/// An event that Stripe has not taken and that is not sent again by itself.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StripeRefusal)]
pub(crate) struct RefusalView {
    /// Whose ledger.
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    /// Its name at Stripe.
    identifier: String,
    /// From this entry of the ledger.
    first_seq: i64,
    /// To this one.
    last_seq: i64,
    /// Whose at Stripe.
    customer_id: String,
    /// The meter's.
    event_name: String,
    /// How much, in the meter's unit.
    value: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `refused` by Stripe; `uncertain`, as Stripe may have it and would no longer know that it has; `expired`, too old to be taken.
    state: String,
    /// How often it was tried.
    attempts: i64,
    /// Stripe's word for what was wrong.
    #[schema(required = true)]
    code: Option<String>,
    /// And its sentence.
    #[schema(required = true)]
    message: Option<String>,
}

impl From<RefusalRow> for RefusalView {
    fn from(row: RefusalRow) -> Self {
        let RefusalRow { workspace_id, first_seq, last_seq, customer_id, event_name, value, at, state, attempts, code, message } = row;
        let identifier = client::identifier(&workspace_id, first_seq);
        Self { workspace_id, identifier, first_seq, last_seq, customer_id, event_name, value, at, state, attempts, code, message }
    }
}

/// What is tried again.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = StripeRetry)]
pub(crate) struct RetryView {
    /// How many events.
    count: u32,
}

/// Workspaces that are, or were, customers at Stripe.
#[utoipa::path(
    get, path = "/billing/stripe/customers", tag = "billing", operation_id = "listStripeCustomers",
    params(
        (
            "after" = Option<String>, Query,
            description = "The `nextCursor` of the page before",
            min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        ),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Workspaces by id", body = PageBody<CustomerView>)),
)]
pub(crate) async fn customers<H: Host>(call: Call<H>, request: Unread) -> Result<Json<PageBody<CustomerView>>, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    let page: PageQuery = request.query()?;
    let after = page.after.as_ref().map(|after| WorkspaceId::try_from(after.clone())).transpose();
    let after = after.map_err(|rule| Problem::field("after", format!("not a cursor of this list: {rule}")))?;
    let customers = operator.stripe_customers(after.as_ref().map(WorkspaceId::as_str), page.limit()?).await?;
    Ok(Json(PageBody::from_page(customers, CustomerView::from)))
}

/// Says who a workspace is at Stripe. What is entered in its ledger from then on is told to the meter.
#[utoipa::path(
    put, path = "/billing/stripe/customers/{workspaceId}", tag = "billing", operation_id = "putStripeCustomer",
    params(CustomerPath), request_body = CustomerBody,
    responses((status = 204, description = "Set")),
)]
pub(crate) async fn put_customer<H: Host>(
    call: Call<H>,
    Params(path): Params<CustomerPath>,
    request: Unread,
) -> Result<StatusCode, Failure> {
    call.operator(Permission::WorkspaceList).await?;
    let allowed = call.tenant(&path.workspace_id, Permission::WorkspaceList).await?;
    let CustomerBody { customer_id } = request.json().await?;
    let is_id = |id: &String| (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if customer_id.as_ref().is_some_and(|id| !is_id(id)) {
        return Err(Problem::field(
            "/customerId",
            "a customer's id as Stripe gives it, cus_…: 1 to 255 letters, digits and '_'; null for nobody",
        )
        .into());
    }
    let is_there = allowed.data.put_stripe_customer(customer_id.as_deref(), call.host.now()).await?;
    if is_there { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("workspace").into()) }
}

/// Events that Stripe has not taken and that are not sent again by themselves.
#[utoipa::path(
    get, path = "/billing/stripe/refusals", tag = "billing", operation_id = "listStripeRefusals",
    params(
        (
            "after" = Option<String>, Query,
            description = "The `nextCursor` of the page before",
            max_length = 67, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?:[0-9]{1,18}$",
        ),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "By workspace", body = PageBody<RefusalView>)),
)]
pub(crate) async fn refusals<H: Host>(call: Call<H>, request: Unread) -> Result<Json<PageBody<RefusalView>>, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    let page: PageQuery = request.query()?;
    if page.after.as_ref().is_some_and(|after| !is_refusals_cursor(after)) {
        return Err(Problem::field("after", "not a cursor of this list").into());
    }
    let refusals = operator.stripe_refusals(page.after.as_deref(), page.limit()?).await?;
    Ok(Json(PageBody::from_page(refusals, RefusalView::from)))
}

/// Has what Stripe refused of a workspace tried again, for the customer that it is now. What is uncertain or expired is not: only a look at Stripe tells.
#[utoipa::path(
    post, path = "/billing/stripe/refusals/{workspaceId}/retry", tag = "billing", operation_id = "retryStripeRefusals", params(CustomerPath),
    responses((status = 200, description = "How many are tried again", body = RetryView)),
)]
pub(crate) async fn retry<H: Host>(call: Call<H>, Params(path): Params<CustomerPath>) -> Result<Json<RetryView>, Failure> {
    call.operator(Permission::WorkspaceList).await?;
    let allowed = call.tenant(&path.workspace_id, Permission::WorkspaceList).await?;
    let count = allowed.data.retry_meter_events(call.host.now()).await?;
    Ok(Json(RetryView { count }))
}
