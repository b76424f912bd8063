//! An invoice as a page: our own template, values escaped, no scripts.

use crate::invoices::{InvoiceView, LineView};
use crate::letterhead::Letterhead;
use astra_host::Failure;
use astra_kernel::money::{cents_text, grouped};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

const NAME: &str = "invoice.html";

#[derive(Serialize)]
struct Page<'a> {
    from: &'a [String],
    logo: Option<&'a str>,
    number: &'a str,
    display_name: &'a str,
    workspace_id: &'a str,
    month: String,
    time_zone: &'a str,
    issued: &'a str,
    lines: Vec<Line<'a>>,
    total: String,
    exact: String,
    entries: String,
    first_seq: i64,
    last_seq: i64,
    last_hash: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    what: &'static str,
    agent: &'a str,
    model: String,
    reason: &'a str,
    /// An earlier month's; empty: the invoice's own.
    month: String,
    entries: String,
    input: String,
    output: String,
    amount: String,
}

/// What people call a kind of entry.
fn what(kind: &str) -> &'static str {
    match kind {
        "turn" => "Turns",
        "embedding" => "Embeddings",
        "extraction" => "Memory extraction",
        "tool" => "Tools",
        "correction" => "Correction",
        "credit" => "Credit",
        _ => "Use",
    }
}

fn signed(number: i64) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, grouped(number.unsigned_abs()))
}

fn line<'a>(line: &'a LineView, invoice: &InvoiceView) -> Line<'a> {
    Line {
        what: what(&line.kind),
        agent: &line.agent_id,
        model: if line.model.is_empty() { String::new() } else { format!("{}/{}", line.provider, line.model) },
        reason: &line.reason,
        month: if line.month == invoice.month { String::new() } else { line.month.to_string() },
        entries: signed(line.entries),
        input: signed(line.input_tokens),
        output: signed(line.output_tokens),
        amount: cents_text(line.amount_cents),
    }
}

/// The page.
///
/// # Errors
/// None that can come: the template is ours.
pub(crate) fn render(invoice: &InvoiceView, letterhead: &Letterhead) -> Result<String, Failure> {
    let failed = |error: minijinja::Error| Failure::internal(format!("an invoice's page: {error}"));
    // Without filters and tests, which the template does without and which weigh in wasm. With them would come escaping: it is said here.
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template(NAME, include_str!("invoice.html")).map_err(failed)?;
    let issued = invoice.issued_at.to_string();
    let page = Page {
        from: &letterhead.from,
        logo: letterhead.logo.as_deref(),
        number: &invoice.number,
        display_name: &invoice.display_name,
        workspace_id: invoice.workspace_id.as_str(),
        month: invoice.month.to_string(),
        time_zone: &invoice.time_zone,
        issued: issued.get(..10).unwrap_or_default(),
        lines: invoice.lines.iter().flatten().map(|one| line(one, invoice)).collect(),
        total: cents_text(invoice.total_cents),
        exact: invoice.total_charge_nano_usd.to_usd_text(),
        entries: signed(invoice.entries),
        first_seq: invoice.first_seq,
        last_seq: invoice.last_seq,
        last_hash: invoice.last_hash.as_deref(),
    };
    environment.get_template(NAME).and_then(|template| template.render(Serde(&page))).map_err(failed)
}
