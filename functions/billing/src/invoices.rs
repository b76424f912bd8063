//! Invoices: as JSON, and as a page that prints well.
//!
//! What is printed adds up: lines are rounded to cents so that they make the total, which is the exact sum rounded once ([`to_cents`]). What a workspace's use costs the operator is the operator's to see.

use crate::letterhead::{Letterhead, unconfigured};
use crate::month;
use crate::page;
use astra_host::fields::WorkspacePath;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host, csv};
use astra_kernel::money::{to_cents, usd_number};
use astra_kernel::{Month, NanoUsd, Permission, Problem, Timestamp, WorkspaceId};
use astra_store::invoices::{InvoiceRow, LineRow, is_invoices_cursor};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS};
use serde::{Deserialize, Serialize};

/// An invoice. It covers the ledger's entries up to `lastSeq` that began before `endsAt`, less those up to `previousLastSeq` that began before `previousEndsAt`.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Invoice)]
pub(crate) struct InvoiceView {
    /// The workspace.
    #[schema(value_type = String)]
    pub(crate) workspace_id: WorkspaceId,
    /// What it was called then.
    pub(crate) display_name: String,
    /// The invoice's number.
    pub(crate) number: String,
    /// The month, in the workspace's time zone.
    #[schema(value_type = String, pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub(crate) month: Month,
    /// That zone.
    pub(crate) time_zone: String,
    /// Where the month ended.
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    /// Where the last month that was closed before had ended; null: this is the first.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    previous_ends_at: Option<Timestamp>,
    /// The ledger's last entry when that was closed.
    previous_last_seq: i64,
    /// The first entry that it covers.
    pub(crate) first_seq: i64,
    /// The ledger's last entry when it was made.
    pub(crate) last_seq: i64,
    /// That entry's hash.
    #[schema(required = true)]
    pub(crate) last_hash: Option<String>,
    /// How many entries it covers.
    pub(crate) entries: i64,
    /// What is charged, nano-dollars: exact.
    #[schema(value_type = i64)]
    pub(crate) total_charge_nano_usd: NanoUsd,
    /// What is charged, dollars.
    #[serde(serialize_with = "usd_number")]
    #[schema(value_type = f64)]
    total_charge_usd: NanoUsd,
    /// What is charged, as it is printed: cents.
    pub(crate) total_cents: i64,
    /// What it cost, nano-dollars. For the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, nullable = false)]
    total_cost_nano_usd: Option<NanoUsd>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) issued_at: Timestamp,
    /// Its lines. Not in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) lines: Option<Vec<LineView>>,
}

/// A line of an invoice.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InvoiceLine)]
pub(crate) struct LineView {
    /// Counts up from 1.
    line: i32,
    /// The month in which its entries began: an earlier one's came after its invoice.
    #[schema(value_type = String, pattern = "^[0-9]{4}-[0-9]{2}$")]
    pub(crate) month: Month,
    /// `turn`, `embedding`, `extraction`, `tool`, `correction` or `credit`.
    pub(crate) kind: String,
    /// The agent; empty where it is of none.
    pub(crate) agent_id: String,
    /// The provider.
    pub(crate) provider: String,
    /// The model.
    pub(crate) model: String,
    /// Of a credit, or a correction by hand: why.
    pub(crate) reason: String,
    /// How many entries.
    pub(crate) entries: i64,
    /// Input tokens, the cached and the embedded included.
    pub(crate) input_tokens: i64,
    /// Those of them that the provider had cached.
    cached_input_tokens: i64,
    /// Output tokens, the reasoning included.
    pub(crate) output_tokens: i64,
    /// Those of them that were not shown.
    reasoning_tokens: i64,
    /// Those of the input that were embedded.
    embedding_tokens: i64,
    /// What is charged, nano-dollars: exact.
    #[schema(value_type = i64)]
    charge_nano_usd: NanoUsd,
    /// What is charged, as it is printed: cents. The lines' make the total's.
    pub(crate) amount_cents: i64,
    /// What it cost, nano-dollars. For the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, nullable = false)]
    cost_nano_usd: Option<NanoUsd>,
}

/// For whom it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Operator,
    Workspace,
}

pub(crate) fn view(row: InvoiceRow, reader: Reader) -> Result<InvoiceView, Failure> {
    let InvoiceRow {
        workspace_id,
        display_name,
        number,
        month,
        time_zone,
        ends_at,
        previous_ends_at,
        previous_last_seq,
        first_seq,
        last_seq,
        last_hash,
        entries,
        total_cost_nano_usd,
        total_charge_nano_usd,
        issued_at,
        lines,
    } = row;
    let of_operator = |amount: NanoUsd| (reader == Reader::Operator).then_some(amount);
    let too_large = |error| Failure::internal(format!("an invoice's sum: {error}"));
    let (_, total_cents) = to_cents(&[total_charge_nano_usd]).map_err(too_large)?;
    let lines = lines.map(|rows| {
        let amounts: Vec<NanoUsd> = rows.iter().map(|row| row.charge_nano_usd).collect();
        let (cents, sum) = to_cents(&amounts).map_err(too_large)?;
        if sum != total_cents {
            return Err(Failure::internal("an invoice's lines are not its total"));
        }
        Ok(rows.into_iter().zip(cents).map(|(row, amount_cents)| line(row, amount_cents, of_operator)).collect::<Vec<_>>())
    });
    Ok(InvoiceView {
        workspace_id,
        display_name,
        number,
        month,
        time_zone,
        ends_at,
        previous_ends_at,
        previous_last_seq,
        first_seq,
        last_seq,
        last_hash,
        entries,
        total_charge_nano_usd,
        total_charge_usd: total_charge_nano_usd,
        total_cents,
        total_cost_nano_usd: of_operator(total_cost_nano_usd),
        issued_at,
        lines: lines.transpose()?,
    })
}

fn line(row: LineRow, amount_cents: i64, of_operator: impl Fn(NanoUsd) -> Option<NanoUsd>) -> LineView {
    let LineRow {
        line,
        month,
        kind,
        agent_id,
        provider,
        model,
        reason,
        entries,
        input_tokens,
        cached_input_tokens,
        output_tokens,
        reasoning_tokens,
        embedding_tokens,
        cost_nano_usd,
        charge_nano_usd,
    } = row;
    LineView {
        line,
        month,
        kind,
        agent_id,
        provider,
        model,
        reason,
        entries,
        input_tokens,
        cached_input_tokens,
        output_tokens,
        reasoning_tokens,
        embedding_tokens,
        charge_nano_usd,
        amount_cents,
        cost_nano_usd: of_operator(cost_nano_usd),
    }
}

fn views(page: astra_store::Page<InvoiceRow>, reader: Reader) -> Result<PageBody<InvoiceView>, Failure> {
    let data = page.data.into_iter().map(|row| view(row, reader)).collect::<Result<_, _>>()?;
    Ok(PageBody { data, next_cursor: page.next })
}

/// `?month=…&after=…&limit=…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InvoicesQuery {
    month: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

fn cursor(after: Option<&str>) -> Result<Option<&str>, Problem> {
    if after.is_some_and(|after| !is_invoices_cursor(after)) {
        return Err(Problem::field("after", "not a cursor of this list"));
    }
    Ok(after)
}

/// Every workspace's invoices, the newest first; those of workspaces that were deleted, too.
#[utoipa::path(
    get, path = "/billing/invoices", tag = "billing", operation_id = "listAllInvoices",
    params(
        (
            "month" = Option<String>, Query,
            description = "Only of this month",
            pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$",
        ),
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", max_length = 18, pattern = "^[0-9]{1,18}$"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Invoices, the newest first", body = PageBody<InvoiceView>)),
)]
pub(crate) async fn list_all<H: Host>(call: Call<H>, request: Unread) -> Result<Json<PageBody<InvoiceView>>, Failure> {
    let operator = call.operator(Permission::BillingRead).await?;
    let InvoicesQuery { month, after, limit } = request.query()?;
    let month = month.map(|text| month::parse(Some(&text), call.host.now())).transpose()?;
    let limit = PageQuery { after: None, limit }.limit()?;
    let page = operator.invoices(month, cursor(after.as_deref())?, limit).await?;
    Ok(Json(views(page, Reader::Operator)?))
}

/// A workspace's invoices, the newest first.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/invoices", tag = "billing", operation_id = "listInvoices",
    params(
        WorkspacePath,
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", max_length = 18, pattern = "^[0-9]{1,18}$"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Invoices, the newest first", body = PageBody<InvoiceView>)),
)]
pub(crate) async fn list<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<InvoiceView>>, Failure> {
    let Allowed { data, claims, .. } = call.tenant(&path.workspace_id, Permission::BillingRead).await?;
    let page: PageQuery = request.query()?;
    let reader = if claims.is_operator() { Reader::Operator } else { Reader::Workspace };
    let rows = data.invoices(cursor(page.after.as_deref())?, page.limit()?, reader == Reader::Operator).await?;
    Ok(Json(views(rows.ok_or_else(|| Problem::not_found("workspace"))?, reader)?))
}

/// One of a workspace's invoices.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct InvoicePath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The invoice's number; with `.html` behind it, it is the page that is printed.
    #[param(min_length = 1, max_length = 60, pattern = "^[A-Za-z0-9._-]+$")]
    invoice_number: String,
}

/// An invoice with its lines. With `Accept: text/html`, or `.html` behind the number: as a page that prints well.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/invoices/{invoiceNumber}", tag = "billing", operation_id = "readInvoice", params(InvoicePath),
    responses((status = 200, description = "The invoice", content((InvoiceView = "application/json"), (String = "text/html")))),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<InvoicePath>, request: Unread) -> Result<Response, Failure> {
    let Allowed { data, claims, .. } = call.tenant(&path.workspace_id, Permission::BillingRead).await?;
    let reader = if claims.is_operator() { Reader::Operator } else { Reader::Workspace };
    let (number, is_page) = match path.invoice_number.strip_suffix(".html") {
        Some(number) => (number, true),
        None => (path.invoice_number.as_str(), csv::is_named(request.header(&ACCEPT), "text/html")),
    };
    let unknown = || Problem::not_found("invoice");
    if number.is_empty() || number.len() > 60 || !number.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(unknown().into());
    }
    let invoice = view(data.invoice(number, reader == Reader::Operator).await?.ok_or_else(unknown)?, reader)?;
    if !is_page {
        return Ok(([(VARY, "accept")], Json(invoice)).into_response());
    }
    let letterhead = Letterhead::read(call.host.shared()).map_err(|error| unconfigured(&error))?;
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (VARY, "accept"),
        // Nothing of it runs, and nothing is asked for but the logo.
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; img-src https: data:; base-uri 'none'; form-action 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, page::render(&invoice, &letterhead)?).into_response())
}
