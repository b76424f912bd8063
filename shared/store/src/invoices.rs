//! Invoices, and the month's close that makes them. What is closed stays: what is wrong is set right by an entry in the ledger, which the next invoice has.

use crate::{Database, Listed, Operator, Page, StoreError, Tenant, operator_statement, tenant_statement};
use astra_kernel::{Month, NanoUsd, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};

/// An invoice. It covers those entries of the ledger up to `last_seq` that began before `ends_at`, less those up to `previous_last_seq` that began before `previous_ends_at`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvoiceRow {
    /// The workspace.
    pub workspace_id: WorkspaceId,
    /// What it was called then.
    pub display_name: String,
    /// The invoice's number.
    pub number: String,
    /// The month, in the workspace's time zone.
    pub month: Month,
    /// That zone.
    pub time_zone: String,
    /// Where the month ended.
    pub ends_at: Timestamp,
    /// Where the last month that was closed before had ended.
    pub previous_ends_at: Option<Timestamp>,
    /// The ledger's last entry then.
    pub previous_last_seq: i64,
    /// The first entry that it covers.
    pub first_seq: i64,
    /// The ledger's last entry when it was made.
    pub last_seq: i64,
    /// That entry's hash, hexadecimal.
    pub last_hash: Option<String>,
    /// How many entries it covers.
    pub entries: i64,
    /// What they cost.
    pub total_cost_nano_usd: NanoUsd,
    /// What is charged for them.
    pub total_charge_nano_usd: NanoUsd,
    /// When it was made.
    pub issued_at: Timestamp,
    /// Its lines; none in a list.
    pub lines: Option<Vec<LineRow>>,
}

/// A line of an invoice.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LineRow {
    /// Counts up from 1.
    pub line: i32,
    /// The month that its entries belong to: the invoice's, or an earlier one.
    pub month: Month,
    /// Their kind.
    pub kind: String,
    /// The agent; empty where it is of none.
    pub agent_id: String,
    /// The provider.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Why; empty where nobody said.
    pub reason: String,
    /// How many entries.
    pub entries: i64,
    /// Input tokens.
    pub input_tokens: i64,
    /// Those of them that the provider had cached.
    pub cached_input_tokens: i64,
    /// Output tokens.
    pub output_tokens: i64,
    /// Those of them that were not shown.
    pub reasoning_tokens: i64,
    /// Those of the input that were embedded.
    pub embedding_tokens: i64,
    /// What they cost.
    pub cost_nano_usd: NanoUsd,
    /// What is charged for them.
    pub charge_nano_usd: NanoUsd,
}

/// What is to be closed.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Closing<'a> {
    /// Each month up to this one.
    pub month: Month,
    /// The host's clock.
    pub now: Timestamp,
    /// How long a month has to be over, seconds.
    pub grace_seconds: u32,
    /// What numbers begin with: at most 20 of `A-Z a-z 0-9 . _ -`.
    pub prefix: &'a str,
    /// The `next` of the call before.
    pub after: Option<&'a str>,
    /// How many workspaces a call looks at.
    pub limit: u32,
}

/// What a call has closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Closed {
    /// Months of workspaces.
    pub closed: i64,
    /// How many of them had something to invoice.
    pub invoices: i64,
    /// Workspaces whose month has not been over for long enough.
    pub early: i64,
    /// Workspaces with a turn of the month that runs.
    pub waiting: i64,
    /// Where the next call goes on; none at the end.
    pub next: Option<String>,
}

/// Which of a workspace's invoices.
#[derive(Serialize)]
struct ListArg<'a> {
    after: Option<&'a str>,
    limit: u32,
    all: bool,
}

/// Whether a text has the form of a cursor of a list of invoices.
pub fn is_invoices_cursor(text: &str) -> bool {
    (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

impl<D: Database> Tenant<'_, D> {
    /// Invoices, the newest first; `None` when there never was such a workspace. `all`: also of who had the name before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn invoices(&self, after: Option<&str>, limit: u32, all: bool) -> Result<Option<Page<InvoiceRow>>, StoreError> {
        self.call(tenant_statement!("invoices_list"), &ListArg { after, limit, all }).await.map(Listed::found)
    }

    /// One of them, with its lines.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn invoice(&self, number: &str, all: bool) -> Result<Option<InvoiceRow>, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            number: &'a str,
            all: bool,
        }
        #[derive(Deserialize)]
        struct Answer {
            invoice: Option<InvoiceRow>,
        }
        self.call(tenant_statement!("invoice_get"), &Arg { number, all }).await.map(|Answer { invoice }| invoice)
    }
}

impl<D: Database> Operator<'_, D> {
    /// Every workspace's invoices, of a month or of all, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn invoices(&self, month: Option<Month>, after: Option<&str>, limit: u32) -> Result<Page<InvoiceRow>, StoreError> {
        #[derive(Serialize)]
        struct Arg<'a> {
            month: Option<Month>,
            after: Option<&'a str>,
            limit: u32,
        }
        self.call(operator_statement!("op_invoices_list"), &Arg { month, after, limit }).await
    }

    /// Closes months of some workspaces, in one transaction. Doing it twice changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(&self, closing: &Closing<'_>) -> Result<Closed, StoreError> {
        self.call(operator_statement!("op_month_close"), closing).await
    }
}
