//! Receipts: each entry of the ledger, signed, and the keys to verify them with.
//!
//! They are made when they are asked for. Ed25519 is deterministic, so a turn's receipt here is the one that its answer had.

use crate::ledger::LedgerQuery;
use astra_host::fields::WorkspacePath;
use astra_host::paging::PageBody;
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host, receipts};
use astra_kernel::{Permission, Problem};
use astra_store::Page;
use astra_store::ledger::ReceiptRow;
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use http::header::CACHE_CONTROL;
use serde::Serialize;

/// An entry's receipt.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Receipt)]
pub(crate) struct ReceiptView {
    /// The entry's place in the ledger.
    seq: u64,
    /// Its turn.
    #[schema(format = "uuid")]
    turn_id: String,
    /// Its kind.
    kind: String,
    /// A compact JWS by a key of `/.well-known/jwks.json`.
    receipt: String,
}

/// Receipts of a workspace's ledger, first entry first. `month`: what was entered in it, in the workspace's time zone.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/receipts", tag = "billing", operation_id = "listReceipts",
    params(
        WorkspacePath,
        ("month" = Option<String>, Query, description = "Only what was entered in this month", pattern = "^(19[7-9][0-9]|[2-8][0-9]{3})-(0[1-9]|1[0-2])$"),
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", max_length = 18, pattern = "^[0-9]{1,18}$"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Receipts, first entry first", body = PageBody<ReceiptView>)),
)]
pub(crate) async fn list<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<ReceiptView>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::BillingRead).await?;
    let filter = request.query::<LedgerQuery>()?.filter(call.host.now())?;
    let Page { data: rows, next } = data.list_receipts(filter).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    let mut receipts = Vec::with_capacity(rows.len());
    for ReceiptRow { seq, turn_id, kind, text } in rows {
        let receipt = receipts::of(&call.host, &text).await?.ok_or_else(|| Failure::internal("a receipt cannot be signed"))?;
        receipts.push(ReceiptView { seq, turn_id, kind, receipt });
    }
    Ok(Json(PageBody { data: receipts, next_cursor: next }))
}

/// A public key (RFC 7517, RFC 8037).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Jwk {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    kid: String,
    x: String,
}

/// A JWK set.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = JwkSet)]
pub(crate) struct Jwks {
    keys: Vec<Jwk>,
}

/// The keys that receipts are signed with, and were. Needs no token.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "billing", operation_id = "readReceiptKeys", security(()),
    responses((status = 200, description = "Public keys", body = Jwks)),
)]
pub(crate) async fn keys<H: Host>(call: Call<H>) -> Result<Response, Failure> {
    let mut keys = Vec::new();
    for (kid, seed) in call.host.shared().receipt_keys()?.all() {
        let x = call.host.public_key(seed).await.ok_or_else(|| Failure::internal("a public key cannot be made"))?;
        keys.push(Jwk { kty: "OKP", crv: "Ed25519", alg: "EdDSA", purpose: "sig", kid: kid.to_owned(), x });
    }
    Ok(([(CACHE_CONTROL, "public, max-age=300")], Json(Jwks { keys })).into_response())
}
