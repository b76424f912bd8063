//! The index of words, made anew: what the operator does when it is in doubt, or to move it.

use crate::jobs::of_operator;
use crate::{words, work};
use astra_host::fields::WorkspacePath;
use astra_host::routes::{Params, Unread};
use astra_host::stream::TurnHost;
use astra_host::{Call, Failure};
use astra_kernel::{Code, Problem};
use astra_store::words::{Opened, Opening};
use astra_typesense::Layout;
use http::StatusCode;
use serde::Deserialize;

/// How it is made anew.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct Rebuild {
    /// `per-workspace`, or `shared:N`: where this workspace's index is from now on, whatever the deployment's setting. As it is, unless told.
    #[serde(default)]
    #[schema(pattern = "^(per-workspace|shared:([1-9][0-9]{0,2}|1000))$")]
    collections: Option<String>,
}

/// Has a workspace's index in Typesense made anew from Postgres, elsewhere if that is said. It is searched as it is meanwhile. The operator's.
#[utoipa::path(
    post, path = "/workspaces/{workspaceId}/memory/index/rebuild", tag = "memory", operation_id = "rebuildIndex", params(WorkspacePath), request_body = Rebuild,
    responses((status = 202, description = "It is being made"), (status = 409, description = "This deployment has no Typesense")),
)]
pub(crate) async fn rebuild<H: TurnHost>(
    call: Call<H>,
    Params(path): Params<WorkspacePath>,
    request: Unread,
) -> Result<StatusCode, Failure> {
    let allowed = of_operator(&call, &path.workspace_id).await?;
    let Rebuild { collections } = request.json().await?;
    let layout =
        collections.map(|text| text.parse::<Layout>().map_err(|error| Problem::field("/collections", error.to_string()))).transpose()?;
    if words::typesense(&call.host)?.is_none() {
        return Err(
            Problem::new(Code::Conflict, "This deployment has no Typesense: set TYPESENSE_URL, or leave the words to Postgres.").into()
        );
    }
    let layout = layout.map(|layout| layout.to_string());
    match allowed.data.open_words(Opening::Anew { layout: layout.as_deref() }).await? {
        Opened::Ok => {
            work::soon(&call.host, allowed.data.workspace());
            Ok(StatusCode::ACCEPTED)
        }
        Opened::Later => {
            let detail = "What a workspace of this name has left in Typesense is being removed. Try again in two minutes.";
            Err(Problem::new(Code::Conflict, detail).with_retry_after(120).into())
        }
        Opened::NotFound => Err(Problem::not_found("workspace").into()),
    }
}
