//! The function's routes.

use crate::roles;

astra_host::routes! {
    GET "/workspaces/{workspaceId}/roles" => roles::list,
    GET "/workspaces/{workspaceId}/roles/{role}" => roles::read,
}
