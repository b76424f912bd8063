//! The function's routes.

use crate::{documents, index, jobs, memories, people, settings};

astra_host::routes! {
    host = astra_host::stream::TurnHost;
    GET "/workspaces/{workspaceId}/memories" => memories::list,
    POST "/workspaces/{workspaceId}/memories" => memories::write,
    POST "/workspaces/{workspaceId}/memories/search" => memories::search,
    GET "/workspaces/{workspaceId}/memories/{memoryId}" => memories::read,
    DELETE "/workspaces/{workspaceId}/memories/{memoryId}" => memories::delete,

    GET "/workspaces/{workspaceId}/documents" => documents::list,
    POST "/workspaces/{workspaceId}/documents/search" => documents::search,
    PUT "/workspaces/{workspaceId}/documents/{slug}" => documents::upload,
    GET "/workspaces/{workspaceId}/documents/{slug}" => documents::versions,
    DELETE "/workspaces/{workspaceId}/documents/{slug}" => documents::delete,

    DELETE "/workspaces/{workspaceId}/users/{userId}/memory" => people::forget,

    GET "/workspaces/{workspaceId}/memory/settings" => settings::read,
    PUT "/workspaces/{workspaceId}/memory/settings" => settings::write,

    GET "/workspaces/{workspaceId}/memory/status" => jobs::status,
    GET "/workspaces/{workspaceId}/memory/jobs" => jobs::list,
    POST "/workspaces/{workspaceId}/memory/jobs/{jobId}/replay" => jobs::replay,
    POST "/workspaces/{workspaceId}/memory/index/rebuild" => index::rebuild,
}
