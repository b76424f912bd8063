//! The function's routes.

use crate::{costs, prices, quota, usage};

astra_host::routes! {
    GET "/billing/costs" => costs::list,
    GET "/billing/prices" => prices::list,
    PUT "/billing/prices" => prices::put,
    GET "/workspaces/{workspaceId}/usage" => usage::read,
    GET "/workspaces/{workspaceId}/quota" => quota::read,
    GET "/workspaces/{workspaceId}/quota/events" => quota::events,
    POST "/billing/reconcile" => quota::reconcile,
}
