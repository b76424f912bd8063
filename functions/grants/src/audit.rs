//! The audit log: who did what to what, allowed or denied. As JSON, page by page, or the same page as CSV.
//!
//! A workspace that was deleted keeps its log, for the operator. Entries hold ids and names, never a secret's value or a text; docs/security.md says what is written down.

use crate::export::as_csv;
use astra_host::fields::WorkspacePath;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host, csv};
use astra_kernel::audit::{Entry, Word};
use astra_kernel::{Permission, Problem, Timestamp};
use astra_store::audit::{AuditFilter, Verified};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header::{ACCEPT, VARY};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest name or id that is looked for, in bytes.
const LONGEST: usize = 512;

/// An entry.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub(crate) struct EntryView {
    /// The workspace whose log it is in.
    workspace_id: String,
    /// Its place there: 1, 2, 3 and so on, without a gap.
    seq: u64,
    /// When, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Who; null when it was the deployment's own work.
    #[schema(required = true, value_type = Option<Actor>)]
    actor: Option<BTreeMap<String, Word>>,
    /// What: `workspace.create`, `member.add`, `access.denied` and so on.
    action: String,
    /// To what: an id or a name; what was asked for, when it was denied.
    target: String,
    /// `allowed` or `denied`.
    #[schema(value_type = Outcome)]
    outcome: String,
    /// What else there is to say: what was changed, and what it was before (`role`, `role.was`).
    detail: BTreeMap<String, String>,
    /// The hash of the entry before, 64 zeros for the first.
    prev_hash: String,
    /// The entry's hash.
    hash: String,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        let Entry { workspace_id, seq, at, actor, action, target, outcome, detail, prev_hash, hash } = entry;
        Self { workspace_id: workspace_id.to_string(), seq, at, actor, action, target, outcome, detail, prev_hash, hash }
    }
}

/// Who did it.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only described")]
pub(crate) struct Actor {
    /// The subject of the token.
    sub: String,
    /// True for the operator.
    operator: Option<bool>,
    /// The token's id.
    jti: String,
    /// The request's id.
    request: String,
}

/// Whether it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It was.
    Allowed,
    /// Who asked may not.
    Denied,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    after: Option<String>,
    limit: Option<u32>,
    action: Option<String>,
    actor: Option<String>,
    target: Option<String>,
    outcome: Option<Outcome>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filter {
    fn checked(&self) -> Result<AuditFilter<'_>, Problem> {
        let text = |name: &'static str, value: &'_ Option<String>| match value {
            Some(value) if value.len() > LONGEST || value.contains('\0') => {
                Err(Problem::field(name, "no entry has it: it is too long or holds a NUL"))
            }
            _ => Ok(()),
        };
        text("action", &self.action)?;
        text("actor", &self.actor)?;
        text("target", &self.target)?;
        let is_cursor = |after: &String| (1..=18).contains(&after.len()) && after.bytes().all(|b| b.is_ascii_digit());
        let after = match &self.after {
            Some(after) if is_cursor(after) => after.parse().ok(),
            Some(_) => return Err(Problem::field("after", "not a cursor of this list")),
            None => None,
        };
        Ok(AuditFilter {
            after,
            limit: PageQuery { after: None, limit: self.limit }.limit()?,
            action: self.action.as_deref(),
            actor: self.actor.as_deref(),
            target: self.target.as_deref(),
            outcome: self.outcome.map(Outcome::as_str),
            since: self.since,
            until: self.until,
        })
    }
}

/// Who did what to what in this workspace, and what was denied. Latest first.
///
/// With `Accept: text/csv` the same page as CSV (RFC 4180, header line first), the next page's `after` in the header `next-cursor`. A text that a spreadsheet would take for a formula
/// begins with an apostrophe there, so an export that is to be verified is one of JSON.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/audit", tag = "audit", operation_id = "listAudit",
    params(
        WorkspacePath,
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", max_length = 18, pattern = "^[0-9]{1,18}$"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
        ("action" = Option<String>, Query, description = "Only this action; `member.*`: all that begin so", max_length = 512),
        ("actor" = Option<String>, Query, description = "Only what this user did: the `sub` of their token", max_length = 512),
        ("target" = Option<String>, Query, description = "Only what was done to this", max_length = 512),
        ("outcome" = Option<Outcome>, Query, description = "Only what was allowed, or only what was denied"),
        ("since" = Option<String>, Query, description = "Not before this time", format = DateTime),
        ("until" = Option<String>, Query, description = "Only before this time", format = DateTime),
    ),
    responses((status = 200, description = "Entries, latest first", content(
        (PageBody<EntryView> = "application/json"),
        (String = "text/csv"),
    ))),
)]
pub(crate) async fn list<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::AuditRead).await?;
    let filter: Filter = request.query()?;
    let page = data.list_audit(&filter.checked()?).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    if csv::is_wanted(request.header(&ACCEPT)) {
        return Ok(csv::answer("attachment; filename=\"audit.csv\"", as_csv(&page.data)?, page.next));
    }
    Ok(([(VARY, "accept")], Json(PageBody::from_page(page, EntryView::from))).into_response())
}

/// Whether a log is as it was written.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditVerification)]
pub(crate) struct VerifiedView {
    /// Whether every entry is there and as it was written.
    ok: bool,
    /// How many entries there are.
    entries: u64,
    /// The first entry that is not as it was written, or is missing.
    #[schema(required = true)]
    broken_at: Option<u64>,
}

/// Makes every entry's hash anew, in the database, and compares.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/audit/verify", tag = "audit", operation_id = "verifyAudit", params(WorkspacePath),
    responses((status = 200, description = "Whether the log is as it was written", body = VerifiedView)),
)]
pub(crate) async fn verify<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<VerifiedView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::AuditRead).await?;
    let Verified { entries, broken_at } = data.verify_audit().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(VerifiedView { ok: broken_at.is_none(), entries, broken_at }))
}
