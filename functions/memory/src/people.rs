//! What a workspace remembers of one of its people, forgotten.

use crate::words;
use astra_host::fields::Text;
use astra_host::routes::Params;
use astra_host::stream::TurnHost;
use astra_host::{Call, Failure};
use astra_kernel::{Permission, Problem};
use axum::Json;
use serde::{Deserialize, Serialize};

/// A user's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct UserPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The user: a token's `sub`.
    #[param(min_length = 1, max_length = 200)]
    user_id: String,
}

/// What was forgotten.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Forgotten {
    /// How many of each.
    removed: Removed,
}

/// How many of each were removed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ForgottenCounts)]
struct Removed {
    /// Memories that were that user's own.
    memories: i64,
    /// Jobs that would have made memories of that user's conversations.
    jobs: i64,
}

/// Forgets all that is one user's own. One's own needs `memory:write`, somebody else's `member:write` as well.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/users/{userId}/memory", tag = "memory", operation_id = "forgetUser", params(UserPath),
    responses((status = 200, description = "What was removed; nothing is no error", body = Forgotten)),
)]
pub(crate) async fn forget<H: TurnHost>(call: Call<H>, Params(path): Params<UserPath>) -> Result<Json<Forgotten>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryWrite).await?;
    let user = Text::of_path("userId", path.user_id)?;
    if user.as_str() != allowed.claims.sub {
        call.require(&allowed, Permission::MemberWrite)?;
    }
    let astra_store::memory::Forgotten { memories, jobs } =
        allowed.data.forget_member(user.as_str()).await?.ok_or_else(|| Problem::not_found("workspace"))?;
    words::soon(&call.host, allowed.data.workspace());
    Ok(Json(Forgotten { removed: Removed { memories, jobs } }))
}
