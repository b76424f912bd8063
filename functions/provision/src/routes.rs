//! The function's routes.

use crate::{agents, members, plans, secrets, tokens, workspaces};

astra_host::routes! {
    GET "/workspaces" => workspaces::list,
    POST "/workspaces" => workspaces::create,
    GET "/workspaces/{workspaceId}" => workspaces::read,
    PATCH "/workspaces/{workspaceId}" => workspaces::change,
    DELETE "/workspaces/{workspaceId}" => workspaces::delete,
    GET "/workspaces/{workspaceId}/export" => workspaces::export,

    GET "/workspaces/{workspaceId}/members" => members::list,
    PUT "/workspaces/{workspaceId}/members/{userId}" => members::put,
    DELETE "/workspaces/{workspaceId}/members/{userId}" => members::delete,
    POST "/workspaces/{workspaceId}/tokens" => tokens::issue,
    DELETE "/workspaces/{workspaceId}/tokens/{jti}" => tokens::revoke,

    GET "/workspaces/{workspaceId}/secrets" => secrets::list,
    GET "/workspaces/{workspaceId}/secrets/{secretName}" => secrets::read,
    PUT "/workspaces/{workspaceId}/secrets/{secretName}" => secrets::put,
    DELETE "/workspaces/{workspaceId}/secrets/{secretName}" => secrets::delete,

    GET "/workspaces/{workspaceId}/agents" => agents::list,
    PUT "/workspaces/{workspaceId}/agents/{agentId}" => agents::put,
    DELETE "/workspaces/{workspaceId}/agents/{agentId}" => agents::delete,

    PUT "/plans/{plan}" => plans::put_settings,
    GET "/plans/{plan}" => plans::read_settings,
    GET "/plans/{plan}/template" => plans::read,
    PUT "/plans/{plan}/template" => plans::put,
}
