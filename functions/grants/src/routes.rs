//! The function's routes.

use crate::{audit, authorize, grants, roles};

astra_host::routes! {
    GET "/workspaces/{workspaceId}/roles" => roles::list,
    GET "/workspaces/{workspaceId}/roles/{role}" => roles::read,
    PUT "/workspaces/{workspaceId}/roles/{role}" => roles::put,
    DELETE "/workspaces/{workspaceId}/roles/{role}" => roles::delete,
    POST "/workspaces/{workspaceId}/authorize" => authorize::decide,

    GET "/workspaces/{workspaceId}/grants" => grants::list,
    POST "/workspaces/{workspaceId}/grants" => grants::give,
    DELETE "/workspaces/{workspaceId}/grants/{grantId}" => grants::revoke,
    POST "/workspaces/{workspaceId}/grants/{grantId}/accept" => grants::accept,

    GET "/workspaces/{workspaceId}/audit" => audit::list,
    GET "/workspaces/{workspaceId}/audit/verify" => audit::verify,
}
