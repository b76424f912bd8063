//! Secrets of a workspace: written, never read back. Sealed here under the host's key, bound to workspace and name.

use astra_host::fields::WorkspacePath;
use astra_host::paging::{PageBody, PageQuery};
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::seal::NONCE_LENGTH;
use astra_kernel::{Permission, Problem, Sealed};
use astra_store::secrets::{SealedSecret, SecretInfo};
use axum::Json;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::StatusCode;
use serde::Deserialize;

/// The longest value in bytes.
const MAX_VALUE: usize = 8192;

/// A secret's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct SecretPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The secret's name. `OPENAI_API_KEY` and `ANTHROPIC_API_KEY` are those that the providers look for.
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Z][A-Z0-9_]*$")]
    secret_name: String,
}

/// A secret to keep.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = SecretValue)]
pub(crate) struct SecretBody {
    /// The value, at most 8,192 bytes in UTF-8.
    #[schema(min_length = 1, max_length = 8192)]
    value: String,
}

fn checked_name(parameter: &str, name: String) -> Result<String, Problem> {
    let bytes = name.as_bytes();
    let fits = (1..=64).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_uppercase)
        && bytes.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_');
    if fits {
        Ok(name)
    } else {
        Err(Problem::field(parameter, "a secret's name is 1 to 64 characters of A-Z, 0-9 and '_', beginning with a letter"))
    }
}

/// Names and times of a workspace's secrets.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/secrets", tag = "secrets", operation_id = "listSecrets",
    params(
        WorkspacePath,
        (
            "after" = Option<String>, Query,
            description = "The `nextCursor` of the page before",
            min_length = 1, max_length = 64, pattern = "^[A-Z][A-Z0-9_]*$",
        ),
        ("limit" = Option<u32>, Query, description = "How many at most; 50 unless told", minimum = 1, maximum = 200),
    ),
    responses((status = 200, description = "Secrets by name", body = PageBody<SecretInfo>)),
)]
pub(crate) async fn list<H: Host>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<PageBody<SecretInfo>>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::SecretWrite).await?;
    let page: PageQuery = request.query()?;
    let after = page.after.as_ref().map(|after| checked_name("after", after.clone())).transpose()?;
    let secrets = data.list_secrets(after.as_deref(), page.limit()?).await?;
    let secrets = secrets.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(PageBody::from_page(secrets, |secret| secret)))
}

/// A secret's name and times; never its value.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/secrets/{secretName}", tag = "secrets", operation_id = "readSecret", params(SecretPath),
    responses((status = 200, description = "The secret is set", body = SecretInfo)),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<SecretPath>) -> Result<Json<SecretInfo>, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::SecretWrite).await?;
    let name = checked_name("secretName", path.secret_name)?;
    Ok(Json(data.get_secret_info(&name).await?.ok_or_else(|| Problem::not_found("secret"))?))
}

/// Sets a secret.
#[utoipa::path(
    put, path = "/workspaces/{workspaceId}/secrets/{secretName}", tag = "secrets", operation_id = "putSecret",
    params(SecretPath), request_body = SecretBody,
    responses((status = 204, description = "Set")),
)]
pub(crate) async fn put<H: Host>(call: Call<H>, Params(path): Params<SecretPath>, request: Unread) -> Result<StatusCode, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::SecretWrite).await?;
    let name = checked_name("secretName", path.secret_name)?;
    let SecretBody { value } = request.json().await?;
    if !(1..=MAX_VALUE).contains(&value.len()) {
        return Err(Problem::field("/value", format!("a text of 1 to {MAX_VALUE} bytes")).into());
    }
    let mut nonce = [0; NONCE_LENGTH];
    call.host.fill_random(&mut nonce);
    let sealed = call.host.shared().secrets_key()?.seal(data.workspace(), &name, value.as_bytes(), nonce);
    let Sealed { key_id, nonce, ciphertext } = sealed.map_err(|error| Failure::internal(error.to_string()))?;
    let sealed = SealedSecret { name, key_id, nonce: BASE64_STANDARD.encode(nonce), ciphertext: BASE64_STANDARD.encode(ciphertext) };
    if data.put_secret(&sealed, call.host.now()).await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("workspace").into()) }
}

/// Removes a secret.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/secrets/{secretName}", tag = "secrets", operation_id = "deleteSecret", params(SecretPath),
    responses((status = 204, description = "Removed")),
)]
pub(crate) async fn delete<H: Host>(call: Call<H>, Params(path): Params<SecretPath>) -> Result<StatusCode, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::SecretWrite).await?;
    let name = checked_name("secretName", path.secret_name)?;
    if data.delete_secret(&name).await? { Ok(StatusCode::NO_CONTENT) } else { Err(Problem::not_found("secret").into()) }
}
