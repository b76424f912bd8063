//! Webhooks of a workspace: where it is told what happens to its budget, signed by Standard Webhooks. The secret is shown when it is made and never again; it is kept sealed.

use astra_host::fields::WorkspacePath;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::seal::{NONCE_LENGTH, Sealed};
use astra_kernel::webhook::{SECRET_LENGTH, WebhookSecret};
use astra_kernel::{Code, Permission, Problem, SecretsKey, Timestamp, WorkspaceId};
use astra_store::secrets::SealedSecret;
use astra_store::webhooks::{Attempt, DeliveryRow, NewWebhook, PutWebhook, Replayed, WebhookRow, WebhookSealed};
use axum::Json;
use axum::response::{IntoResponse as _, Response};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many webhooks a workspace has at most.
const MOST: u32 = 20;

/// What there is to be told.
const EVENTS: [&str; 2] = ["quota.threshold", "invoice.closed"];

/// How long a secret signs beside the one that took its place: a day.
const OLD_MILLIS: i64 = 24 * 3600 * 1000;

/// A webhook's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct WebhookPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The webhook's name.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    webhook_name: String,
}

/// A delivery's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct DeliveryPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The webhook's name.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    webhook_name: String,
    /// The delivery.
    #[param(format = "uuid")]
    delivery_id: String,
}

/// Where a workspace's events shall go.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = WebhookBody)]
pub(crate) struct PutBody {
    /// An https address. Nothing inside of a network is called.
    #[schema(min_length = 1, max_length = 2048, format = "uri")]
    url: String,
    /// Which events: `quota.threshold` (50, 80 and 100 percent of a limit), `invoice.closed`. All unless told.
    #[serde(default, deserialize_with = "astra_host::fields::present")]
    #[schema(nullable = false, min_items = 1, max_items = 2)]
    events: Option<Vec<String>>,
}

/// A webhook.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook)]
pub(crate) struct WebhookView {
    /// Its name.
    name: String,
    /// Where events are sent.
    url: String,
    /// Which.
    events: Vec<String>,
    /// Its secret, `whsec_…`: shown when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<String>,
    /// Until when the secret before this one signs too.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    old_secret_until: Option<Timestamp>,
    /// Since when nothing but failures came of it.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    failing_since: Option<Timestamp>,
    /// Since when nothing is sent: it has failed for days, or said that it is gone. Setting it again enables it.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    disabled_at: Option<Timestamp>,
    /// Why.
    #[schema(required = true)]
    disabled_why: Option<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last set.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl WebhookView {
    fn new(row: WebhookRow, secret: Option<String>) -> Self {
        let WebhookRow { name, url, events, failing_since, disabled_at, disabled_why, old_secret_until, created_at, updated_at } = row;
        Self { name, url, events, secret, old_secret_until, failing_since, disabled_at, disabled_why, created_at, updated_at }
    }
}

/// Something that was told, or is to be.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookDelivery)]
pub(crate) struct DeliveryView {
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// What `webhook-id` says, at each try.
    webhook_id: String,
    /// What happened.
    #[serde(rename = "type")]
    kind: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// How often it was tried since it was last begun.
    attempts: u32,
    /// When it is tried next.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    next_at: Option<Timestamp>,
    /// When it was taken.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    delivered_at: Option<Timestamp>,
    /// Since when it is tried no more.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    dead_at: Option<Timestamp>,
    /// Each try, oldest first.
    log: Vec<Attempt>,
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        let DeliveryRow { id, kind, created_at, attempts, next_at, delivered_at, dead_at, log } = row;
        Self { id, webhook_id: format!("msg_{}", id.simple()), kind, created_at, attempts, next_at, delivered_at, dead_at, log }
    }
}

/// Which page of deliveries.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeliveriesQuery {
    after: Option<Uuid>,
    limit: Option<u32>,
}

fn checked_name(name: String) -> Result<String, Problem> {
    // A workspace's rule.
    let fits = WorkspaceId::try_from(name.clone()).is_ok();
    if fits {
        Ok(name)
    } else {
        Err(Problem::field("webhookName", "a name is 1 to 48 characters of a-z, 0-9 and '-', not beginning or ending with '-'"))
    }
}

/// What a secret is sealed for. (A secret of the workspace's own has no blank in its name.)
fn sealed_for(webhook: &str) -> String {
    format!("webhook {webhook}")
}

/// Opens a secret.
///
/// # Errors
/// That it does not open.
pub(crate) fn open(keys: &SecretsKey, workspace: &WorkspaceId, webhook: &str, sealed: &WebhookSealed) -> Result<WebhookSecret, String> {
    const BROKEN: &str = "the stored secret is not base64";
    let bytes = |text: &str| BASE64_STANDARD.decode(text.replace('\n', "")).map_err(|_| BROKEN.to_owned());
    let sealed = Sealed { key_id: sealed.key_id.clone(), nonce: bytes(&sealed.nonce)?, ciphertext: bytes(&sealed.ciphertext)? };
    keys.open(workspace, &sealed_for(webhook), &sealed).map(WebhookSecret::from_bytes).map_err(|error| error.to_string())
}

/// A new secret, and the same sealed.
fn new_secret<H: Host>(host: &H, workspace: &WorkspaceId, webhook: &str) -> Result<(WebhookSecret, SealedSecret), Failure> {
    let (mut bytes, mut nonce) = (vec![0; SECRET_LENGTH], [0; NONCE_LENGTH]);
    host.fill_random(&mut bytes);
    host.fill_random(&mut nonce);
    let sealed = host.shared().secrets_key()?.seal(workspace, &sealed_for(webhook), &bytes, nonce);
    let Sealed { key_id, nonce, ciphertext } = sealed.map_err(|error| Failure::internal(error.to_string()))?;
    let name = webhook.to_owned();
    let sealed = SealedSecret { name, key_id, nonce: BASE64_STANDARD.encode(nonce), ciphertext: BASE64_STANDARD.encode(ciphertext) };
    Ok((WebhookSecret::from_bytes(bytes), sealed))
}

/// A workspace's webhooks, by name. All on one page.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/webhooks", tag = "webhooks", operation_id = "listWebhooks", params(WorkspacePath),
    responses((status = 200, description = "Webhooks, without their secrets", body = PageBody<WebhookView>)),
)]
pub(crate) async fn list<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<PageBody<WebhookView>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceWrite).await?;
    let webhooks = data.list_webhooks().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody { data: webhooks.into_iter().map(|row| WebhookView::new(row, None)).collect(), next_cursor: None }))
}

/// Makes a webhook, and answers its secret this once; or changes where one that is there sends what, and enables it.
#[utoipa::path(
    put, path = "/workspaces/{workspaceId}/webhooks/{webhookName}", tag = "webhooks", operation_id = "putWebhook",
    params(WebhookPath), request_body = PutBody,
    responses(
        (status = 201, description = "Made, with its secret", body = WebhookView),
        (status = 200, description = "Changed; its secret is what it was", body = WebhookView),
    ),
)]
pub(crate) async fn put<H: Host>(call: Call<H>, Params(path): Params<WebhookPath>, request: Unread) -> Result<Response, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceWrite).await?;
    let name = checked_name(path.webhook_name)?;
    let PutBody { url, events } = request.json().await?;
    call.host.shared().guard().check(&url).map_err(|why| Problem::field("/url", why))?;
    let events = events.unwrap_or_else(|| EVENTS.map(str::to_owned).into());
    if events.is_empty() || events.len() > EVENTS.len() || events.iter().any(|event| !EVENTS.contains(&event.as_str())) {
        return Err(Problem::field("/events", format!("events are some of {}", EVENTS.join(", "))).into());
    }
    let (secret, sealed) = new_secret(&call.host, data.workspace(), &name)?;
    let webhook = NewWebhook { url: &url, events: &events, most: MOST };
    match data.put_webhook(webhook, &sealed, call.host.now()).await? {
        PutWebhook::Created(row) => Ok((StatusCode::CREATED, Json(WebhookView::new(row, Some(secret.to_text())))).into_response()),
        PutWebhook::Changed(row) => Ok(Json(WebhookView::new(row, None)).into_response()),
        PutWebhook::TooMany => {
            Err(Problem::new(Code::Conflict, format!("A workspace has at most {MOST} webhooks. Delete one first.")).into())
        }
        PutWebhook::NotFound => Err(Problem::not_found("workspace").into()),
    }
}

/// Removes a webhook, its log, and what it was still to be told.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/webhooks/{webhookName}", tag = "webhooks", operation_id = "deleteWebhook", params(WebhookPath),
    responses((status = 204, description = "Removed")),
)]
pub(crate) async fn delete<H: Host>(call: Call<H>, Params(path): Params<WebhookPath>) -> Result<StatusCode, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceWrite).await?;
    let name = checked_name(path.webhook_name)?;
    if data.delete_webhook(&name).await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("webhook").into()) }
}

/// Gives a webhook a new secret and answers it this once. For a day both sign.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/webhooks/{webhookName}/rotate", tag = "webhooks", operation_id = "rotateWebhook", params(WebhookPath),
    responses((status = 200, description = "The webhook with its new secret", body = WebhookView)),
)]
pub(crate) async fn rotate<H: Host>(call: Call<H>, Params(path): Params<WebhookPath>) -> Result<Json<WebhookView>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceWrite).await?;
    let name = checked_name(path.webhook_name)?;
    let (secret, sealed) = new_secret(&call.host, data.workspace(), &name)?;
    let now = call.host.now();
    let row = data.rotate_webhook(&sealed, now.plus_millis(OLD_MILLIS), now).await?.ok_or_else(|| Problem::not_found("webhook"))?;
    Ok(Json(WebhookView::new(row, Some(secret.to_text()))))
}

/// What a webhook was told, or is to be: each try with its time and the answer's status.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries", tag = "webhooks", operation_id = "listWebhookDeliveries",
    params(
        WebhookPath,
        ("after" = Option<String>, Query, description = "The `nextCursor` of the page before", format = "uuid"),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Deliveries, newest first", body = PageBody<DeliveryView>)),
)]
pub(crate) async fn deliveries<H: Host>(
    call: Call<H>,
    Params(path): Params<WebhookPath>,
    request: Unread,
) -> Result<Json<PageBody<DeliveryView>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceWrite).await?;
    let name = checked_name(path.webhook_name)?;
    let DeliveriesQuery { after, limit } = request.query()?;
    let limit = PageQuery { after: None, limit }.limit()?;
    let page = data.list_deliveries(&name, after, limit).await?.ok_or_else(|| Problem::not_found("webhook"))?;
    Ok(Json(PageBody::from_page(page, DeliveryView::from)))
}

/// Has something sent again, under the id that it had, whatever became of it.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries/{deliveryId}/replay", tag = "webhooks",
    operation_id = "replayWebhookDelivery", params(DeliveryPath),
    responses((status = 202, description = "It is sent again")),
)]
pub(crate) async fn replay<H: Host>(call: Call<H>, Params(path): Params<DeliveryPath>) -> Result<StatusCode, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::WorkspaceWrite).await?;
    let name = checked_name(path.webhook_name)?;
    let unknown = || Problem::not_found("delivery");
    let id = path.delivery_id.parse().map_err(|_| unknown())?;
    match data.replay_delivery(&name, id, call.host.now()).await? {
        Replayed::Yes => Ok(StatusCode::ACCEPTED),
        Replayed::Disabled => Err(Problem::new(Code::Conflict, "The webhook is disabled. Set it again to enable it.").into()),
        Replayed::NotFound => Err(unknown().into()),
    }
}
