//! The function's routes.

use crate::{sessions, smoke, turns};

astra_host::routes! {
    host = astra_host::stream::TurnHost;
    POST "/workspaces/{workspaceId}/turns" => turns::create,
    POST "/workspaces/{workspaceId}/turns/{turnId}/stop" => turns::stop,
    GET "/workspaces/{workspaceId}/sessions" => sessions::list,
    GET "/workspaces/{workspaceId}/sessions/{sessionId}" => sessions::read,
    DELETE "/workspaces/{workspaceId}/sessions/{sessionId}" => sessions::delete,
    GET "/workspaces/{workspaceId}/sessions/{sessionId}/messages" => sessions::messages,
    POST "/workspaces/{workspaceId}/smoke-test" => smoke::test,
}
