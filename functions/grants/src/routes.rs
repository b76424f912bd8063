//! The function's routes.

use crate::{grants, roles};

astra_host::routes! {
    GET "/workspaces/{workspaceId}/roles" => roles::list,
    GET "/workspaces/{workspaceId}/roles/{role}" => roles::read,

    GET "/workspaces/{workspaceId}/grants" => grants::list,
    POST "/workspaces/{workspaceId}/grants" => grants::give,
    DELETE "/workspaces/{workspaceId}/grants/{grantId}" => grants::revoke,
    POST "/workspaces/{workspaceId}/grants/{grantId}/accept" => grants::accept,
}
