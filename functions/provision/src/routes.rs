//! The function's routes.

use crate::{agents, members, plans, secrets, tokens, workspaces};

astra_host::routes! {
    GET "/workspaces" => workspaces::list,
    POST "/workspaces" => workspaces::create,
    GET "/workspaces/{id}" => workspaces::read,
    PATCH "/workspaces/{id}" => workspaces::change,
    DELETE "/workspaces/{id}" => workspaces::delete,

    GET "/workspaces/{id}/members" => members::list,
    PUT "/workspaces/{id}/members/{userId}" => members::put,
    DELETE "/workspaces/{id}/members/{userId}" => members::delete,
    POST "/workspaces/{id}/tokens" => tokens::issue,

    GET "/workspaces/{id}/secrets" => secrets::list,
    GET "/workspaces/{id}/secrets/{name}" => secrets::read,
    PUT "/workspaces/{id}/secrets/{name}" => secrets::put,
    DELETE "/workspaces/{id}/secrets/{name}" => secrets::delete,

    GET "/workspaces/{id}/agents" => agents::list,
    PUT "/workspaces/{id}/agents/{agentId}" => agents::put,
    DELETE "/workspaces/{id}/agents/{agentId}" => agents::delete,

    GET "/plans/{plan}/template" => plans::read,
    PUT "/plans/{plan}/template" => plans::put,
}
