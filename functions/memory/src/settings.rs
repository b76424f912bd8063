//! Whose embeddings a workspace's memory is of, and how its memories lose by age.

use crate::work;
use astra_host::fields::WorkspacePath;
use astra_host::routes::{Params, Unread};
use astra_host::stream::TurnHost;
use astra_host::{Call, Failure, Host};
use astra_kernel::{Permission, Problem};
use astra_memory::fuse::Fade;
use astra_models::embed::LOCAL_DIMENSIONS;
use astra_store::memory::{Embedder, Fading, MemorySettings};
use axum::Json;
use serde::{Deserialize, Serialize};

/// The most numbers that an index of vectors takes.
const MOST_DIMENSIONS: usize = 2_000;

/// An embedder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = Embedder)]
pub(crate) struct EmbedderBody {
    /// `local`, or `openai` and whoever speaks its API, Workers AI too.
    #[schema(pattern = "^(local|openai)$")]
    provider: String,
    /// The model's id there; none for `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    model: Option<String>,
    /// How many numbers a vector has: 1 to 2,000; 384 for `local`.
    #[schema(minimum = 1, maximum = 2000)]
    dimensions: usize,
    /// Another base URL than the provider's own, such as `https://models.example.com/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048)]
    endpoint: Option<String>,
}

/// How memories lose by age: their score in a search and in a turn. Pinned ones and documents never do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = Fading)]
pub(crate) struct FadingBody {
    /// By how much at most, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    weight: f64,
    /// After how many days by half of that, 0.01 to 36,500.
    #[schema(minimum = 0.01, maximum = 36500)]
    half_life_days: f64,
}

/// How a memory is to be set.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = MemorySettingsBody)]
pub(crate) struct SettingsBody {
    /// The embedder.
    embedder: EmbedderBody,
    /// How memories lose by age; none: they do not.
    #[serde(default)]
    fade: Option<FadingBody>,
}

/// How a memory is set.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MemorySettings)]
pub(crate) struct SettingsView {
    /// The embedder whose vectors are searched.
    embedder: EmbedderBody,
    /// The one that takes its place when all is embedded by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_embedder: Option<EmbedderBody>,
    /// How many are to be embedded before it does.
    to_embed: i64,
    /// How memories lose by age.
    fade: Option<FadingBody>,
}

impl From<Embedder> for EmbedderBody {
    fn from(embedder: Embedder) -> Self {
        let Embedder { provider, model, dimensions, endpoint, generation: _ } = embedder;
        Self { provider, model, dimensions, endpoint }
    }
}

impl From<MemorySettings> for SettingsView {
    fn from(settings: MemorySettings) -> Self {
        let MemorySettings { embedder, next, fade, left } = settings;
        let fade = fade.map(|Fading { weight, half_life_days }| FadingBody { weight, half_life_days });
        Self { embedder: embedder.into(), next_embedder: next.map(EmbedderBody::from), to_embed: left, fade }
    }
}

impl EmbedderBody {
    fn checked(self, allow_http: bool) -> Result<Embedder, Problem> {
        let Self { provider, model, dimensions, endpoint } = self;
        match (provider.as_str(), &model) {
            ("local", None) if endpoint.is_some() => return Err(Problem::field("/embedder/endpoint", "local has none")),
            ("local", None) if dimensions != LOCAL_DIMENSIONS => return Err(Problem::field("/embedder/dimensions", "local makes 384")),
            ("local", None) => {}
            ("local", Some(_)) => return Err(Problem::field("/embedder/model", "local has none")),
            ("openai", Some(model)) if !model.trim().is_empty() && model.chars().count() <= 200 && !model.contains('\0') => {}
            ("openai", _) => return Err(Problem::field("/embedder/model", "the model's id, 1 to 200 characters")),
            _ => return Err(Problem::field("/embedder/provider", "local or openai; whoever speaks its API is openai with an endpoint")),
        }
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(Problem::field("/embedder/dimensions", "a whole number from 1 to 2,000"));
        }
        if let Some(endpoint) = &endpoint {
            astra_host::fields::endpoint(endpoint, allow_http).map_err(|why| Problem::field("/embedder/endpoint", why))?;
        }
        Ok(Embedder { provider, model, dimensions, endpoint, generation: 0 })
    }
}

/// How the workspace's memory is set.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/memory/settings", tag = "memory", operation_id = "readMemorySettings", params(WorkspacePath),
    responses((status = 200, description = "As it is", body = SettingsView)),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<SettingsView>, Failure> {
    let allowed = call.tenant(&path.workspace_id, Permission::MemoryRead).await?;
    let settings = allowed.data.memory_settings().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    Ok(Json(settings.into()))
}

/// Sets the workspace's embedder and how its memories lose by age. With another embedder all is embedded once more by a job, and what there was is searched until that is done. The
/// operator's.
#[utoipa::path(
    put, path = "/workspaces/{workspaceId}/memory/settings", tag = "memory", operation_id = "writeMemorySettings", params(WorkspacePath), request_body = SettingsBody,
    responses((status = 200, description = "As it is now", body = SettingsView)),
)]
pub(crate) async fn write<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<Json<SettingsView>, Failure> {
    call.operator(Permission::WorkspaceList).await?;
    let allowed = call.tenant(&path.workspace_id, Permission::WorkspaceList).await?;
    let SettingsBody { embedder, fade } = request.json().await?;
    let allow_http = call.host.shared().setting("ALLOW_HTTP_ENDPOINTS").as_deref() == Some("1");
    let embedder = embedder.checked(allow_http)?;
    let fade = fade.map(|FadingBody { weight, half_life_days }| Fading { weight, half_life_days });
    if let Some(fade) = fade {
        Fade::new(fade.weight, fade.half_life_days).map_err(|error| Problem::field("/fade", error.to_string()))?;
    }
    let (job, now) = (call.host.new_id(), call.host.now());
    let unknown = || Problem::not_found("workspace");
    if !(allowed.data.set_fading(fade, now).await? && allowed.data.set_embedder(&embedder, job, now).await?) {
        return Err(unknown().into());
    }
    work::soon(&call.host, allowed.data.workspace());
    let settings = allowed.data.memory_settings().await?.ok_or_else(unknown)?;
    Ok(Json(settings.into()))
}
