//! The ledger: what was used, corrected and credited, entry by entry, each with the hash of the one before (docs/ledger.md). What the operator enters by hand.
//!
//! A workspace that was deleted keeps its ledger, for the operator. Nothing here changes an entry: no role may.

use crate::month;
use astra_host::fields::{Text, WorkspacePath, present};
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, CounterUnreachable, Failure, Host};
use astra_kernel::ledger::Entry;
use astra_kernel::money::MAX_NANO;
use astra_kernel::{Code, NanoUsd, Permission, Problem, Timestamp, TurnId, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use astra_store::audit::Verified;
use astra_store::ledger::{ByHand, Correction, Credit, EntryRow, LedgerFilter};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// An entry, and who asked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LedgerEntryAndUser)]
pub(crate) struct EntryView {
    #[serde(flatten)]
    entry: Entry,
    /// Who asked; of a granted agent's turn the workspace that did; of what was entered by hand who did that. Empty when it was forgotten with its workspace.
    user_id: String,
    /// `userHash` is SHA-256 over this UUID's 16 bytes and `userId`. Null when that was forgotten.
    #[schema(required = true, format = "uuid")]
    user_salt: Option<String>,
}

impl From<EntryRow> for EntryView {
    fn from(row: EntryRow) -> Self {
        let EntryRow { entry, user_id, user_salt } = row;
        Self { entry, user_id, user_salt }
    }
}

/// The query of lists over the ledger.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerQuery {
    month: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

impl LedgerQuery {
    pub(crate) fn filter(self, now: Timestamp) -> Result<LedgerFilter, Problem> {
        let is_cursor = |after: &String| (1..=18).contains(&after.len()) && after.bytes().all(|b| b.is_ascii_digit());
        let after = match &self.after {
            Some(after) if is_cursor(after) => after.parse().ok(),
            Some(_) => return Err(Problem::field("after", "not a cursor of this list")),
            None => None,
        };
        let month = self.month.as_deref().map(|text| month::parse(Some(text), now)).transpose()?;
        Ok(LedgerFilter { after, limit: PageQuery { after: None, limit: self.limit }.limit()?, month })
    }
}

/// A workspace's ledger, latest entry first. `month`: what was entered in it, in the workspace's time zone.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/ledger", tag = "billing", operation_id = "listLedger",
    params(
        WorkspacePath,
        ("month" = Option<String>, Query, description = "Only what was entered in this month", pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$"),
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", max_length = 18, pattern = "^[0-9]{1,18}$"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Entries, latest first", body = PageBody<EntryView>)),
)]
pub(crate) async fn list<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<EntryView>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::BillingRead).await?;
    let filter = request.query::<LedgerQuery>()?.filter(call.host.now())?;
    let page = data.list_ledger(filter).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(page, EntryView::from)))
}

/// Whether a ledger is as it was entered.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LedgerVerification)]
pub(crate) struct VerifiedView {
    /// Whether every entry is there and as it was entered.
    ok: bool,
    /// How many entries there are.
    entries: u64,
    /// The first entry that is not as it was entered, or is missing.
    #[schema(required = true)]
    broken_at: Option<u64>,
}

/// Makes every entry's hash anew, in the database, and compares.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/ledger/verify", tag = "billing", operation_id = "verifyLedger", params(WorkspacePath),
    responses((status = 200, description = "Whether the ledger is as it was entered", body = VerifiedView)),
)]
pub(crate) async fn verify<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<VerifiedView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::BillingRead).await?;
    let Verified { entries, broken_at } = data.verify_ledger().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(VerifiedView { ok: broken_at.is_none(), entries, broken_at }))
}

/// A workspace for the operator: a role of the workspace's own may have any permission and is no operator.
async fn of_operator<'a, H: Host>(call: &'a Call<H>, workspace: &str) -> Result<Allowed<'a, H>, Failure> {
    call.operator(Permission::WorkspaceList).await?;
    call.tenant(workspace, Permission::WorkspaceList).await
}

/// What is given back.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewCredit)]
pub(crate) struct CreditBody {
    /// How much, in nano-dollars.
    #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    amount_nano_usd: NanoUsd,
    /// Why; it stands on the invoice.
    reason: Text,
    /// The entry that it is for, by its `seq`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_007_199_254_740_991_u64, nullable = false)]
    corrects: Option<u64>,
}

/// Gives a workspace something back. The operator's. Sent twice with the same Idempotency-Key it is given once.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/ledger/credits", tag = "billing", operation_id = "createCredit", request_body = CreditBody,
    params(
        WorkspacePath,
        ("Idempotency-Key" = String, Header, description = "1 to 255 visible ASCII characters", min_length = 1, max_length = 255, pattern = "^[ -~]+$"),
    ),
    responses(
        (status = 201, description = "Entered", body = EntryView),
        (status = 200, description = "It had been entered with this key", body = EntryView),
        (status = 409, description = "The key is another credit's"),
    ),
)]
pub(crate) async fn credit<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let allowed = of_operator(&call, &path.workspace_id).await?;
    let key = request.idempotency_key()?;
    let CreditBody { amount_nano_usd, reason, corrects } = request.json().await?;
    let key = key.ok_or_else(|| Problem::field("Idempotency-Key", "needed here, so that a credit that is sent again is given once"))?;
    if !(1..=MAX_NANO).contains(&amount_nano_usd.0) {
        return Err(Problem::field("/amountNanoUsd", "a whole number of nano-dollars from 1 to 2^53 - 1").into());
    }
    if corrects.is_some_and(|seq| i64::try_from(seq).is_err()) {
        return Err(Problem::field("/corrects", "an entry's seq").into());
    }
    let credit = Credit { key: &key, amount_nano_usd, reason: reason.as_str(), corrects, now: call.host.now() };
    answer(allowed.data.credit(&credit).await?)
}

/// What a turn is to be; what is not said stays as it is.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = NewCorrection)]
pub(crate) struct CorrectionBody {
    /// The turn.
    #[schema(value_type = String, format = "uuid")]
    turn_id: TurnId,
    /// Why; it stands on the invoice.
    reason: Text,
    /// Input tokens, the cached included.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64, nullable = false)]
    input_tokens: Option<i64>,
    /// Those of them that the provider had cached.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64, nullable = false)]
    cached_input_tokens: Option<i64>,
    /// Output tokens, reasoning included.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64, nullable = false)]
    output_tokens: Option<i64>,
    /// Those of them that were not shown.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000_000_000_000_i64, nullable = false)]
    reasoning_tokens: Option<i64>,
    /// What it cost, in nano-dollars.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991_u64, nullable = false)]
    cost_nano_usd: Option<NanoUsd>,
    /// What is charged for it, in nano-dollars.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991_u64, nullable = false)]
    charge_nano_usd: Option<NanoUsd>,
}

/// The most tokens that a turn can be said to have.
const MOST_TOKENS: i64 = 1_000_000_000_000;

impl CorrectionBody {
    fn check(&self) -> Result<(), Problem> {
        let tokens = [
            ("/inputTokens", self.input_tokens),
            ("/cachedInputTokens", self.cached_input_tokens),
            ("/outputTokens", self.output_tokens),
            ("/reasoningTokens", self.reasoning_tokens),
        ];
        for (name, value) in tokens {
            if value.is_some_and(|tokens| !(0..=MOST_TOKENS).contains(&tokens)) {
                return Err(Problem::field(name, "a whole number of tokens, not negative"));
            }
        }
        for (name, value) in [("/costNanoUsd", self.cost_nano_usd), ("/chargeNanoUsd", self.charge_nano_usd)] {
            if value.is_some_and(|amount| !(0..=MAX_NANO).contains(&amount.0)) {
                return Err(Problem::field(name, "a whole number of nano-dollars from 0 to 2^53 - 1"));
            }
        }
        Ok(())
    }
}

/// Makes a turn what it should have been, by an entry of the difference. The operator's. Sent again it finds nothing to correct.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/ledger/corrections", tag = "billing", operation_id = "createCorrection", request_body = CorrectionBody,
    params(WorkspacePath),
    responses(
        (status = 201, description = "Entered", body = EntryView),
        (status = 204, description = "It is so already: nothing was entered"),
    ),
)]
pub(crate) async fn correct<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>, request: Unread) -> Result<Response, Failure> {
    let allowed = of_operator(&call, &path.workspace_id).await?;
    let body: CorrectionBody = request.json().await?;
    body.check()?;
    let CorrectionBody {
        turn_id,
        reason,
        input_tokens,
        cached_input_tokens,
        output_tokens,
        reasoning_tokens,
        cost_nano_usd,
        charge_nano_usd,
    } = body;
    let correction = Correction {
        turn_id,
        reason: reason.as_str(),
        input_tokens,
        cached_input_tokens,
        output_tokens,
        reasoning_tokens,
        cost_nano_usd,
        charge_nano_usd,
    };
    let made = allowed.data.correct(&correction).await?;
    if matches!(made, ByHand::Entered(_) | ByHand::AsItIs) {
        // Again when nothing was entered: the first time it may not have come so far.
        forget(&call.host, allowed.data.workspace()).await?;
    }
    answer(made)
}

/// Has the counter go by the ledger from now on: what it has counted was corrected.
pub(crate) async fn forget<H: Host>(host: &H, workspace: &WorkspaceId) -> Result<(), Failure> {
    match host.ask(workspace, &Ask::Reconcile).await? {
        Answer::Reconciled(_) => Ok(()),
        Answer::Unavailable => Err(CounterUnreachable.into()),
        _ => Err(Failure::internal("the counter's answer to Reconcile")),
    }
}

fn answer(made: ByHand) -> Result<Response, Failure> {
    let entry = |status: StatusCode, row: EntryRow| Ok((status, Json(EntryView::from(row))).into_response());
    match made {
        ByHand::Entered(row) => entry(StatusCode::CREATED, *row),
        ByHand::Before(row) => entry(StatusCode::OK, *row),
        ByHand::AsItIs => Ok(StatusCode::NO_CONTENT.into_response()),
        ByHand::NoWorkspace => Err(Problem::not_found("workspace").into()),
        ByHand::NoTurn => Err(Problem::field("/turnId", "no turn that this workspace has paid for").into()),
        ByHand::NoEntry => Err(Problem::field("/corrects", "no entry of this workspace's ledger has this seq").into()),
        ByHand::KeyReused => Err(Problem::new(Code::Conflict, "This Idempotency-Key was used for another credit. Send a new key.").into()),
        ByHand::NotSo => {
            Err(Problem::field("/cachedInputTokens", "cached input is a part of the input, and reasoning of the output").into())
        }
    }
}
