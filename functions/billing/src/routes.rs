//! The function's routes.

use crate::jobs::routes as jobs;
use crate::{close, costs, invoices, ledger, prices, quota, receipts, reprice, stripe, usage, webhooks};

astra_host::routes! {
    GET "/billing/costs" => costs::list,
    GET "/billing/prices" => prices::list,
    PUT "/billing/prices" => prices::put,
    POST "/billing/reprice" => reprice::reprice,
    GET "/workspaces/{workspaceId}/usage" => usage::read,
    GET "/workspaces/{workspaceId}/quota" => quota::read,
    GET "/workspaces/{workspaceId}/quota/events" => quota::events,
    POST "/billing/reconcile" => quota::reconcile,
    GET "/workspaces/{workspaceId}/ledger" => ledger::list,
    GET "/workspaces/{workspaceId}/ledger/verify" => ledger::verify,
    POST "/workspaces/{workspaceId}/ledger/credits" => ledger::credit,
    POST "/workspaces/{workspaceId}/ledger/corrections" => ledger::correct,
    GET "/workspaces/{workspaceId}/receipts" => receipts::list,
    GET "/.well-known/jwks.json" => receipts::keys,

    GET "/billing/jobs" => jobs::list,
    POST "/billing/jobs/{jobName}/run" => jobs::start,

    GET "/workspaces/{workspaceId}/webhooks" => webhooks::list,
    PUT "/workspaces/{workspaceId}/webhooks/{webhookName}" => webhooks::put,
    DELETE "/workspaces/{workspaceId}/webhooks/{webhookName}" => webhooks::delete,
    POST "/workspaces/{workspaceId}/webhooks/{webhookName}/rotate" => webhooks::rotate,
    GET "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries" => webhooks::deliveries,
    POST "/workspaces/{workspaceId}/webhooks/{webhookName}/deliveries/{deliveryId}/replay" => webhooks::replay,

    GET "/billing/stripe/customers" => stripe::customers,
    PUT "/billing/stripe/customers/{workspaceId}" => stripe::put_customer,
    GET "/billing/stripe/refusals" => stripe::refusals,
    POST "/billing/stripe/refusals/{workspaceId}/retry" => stripe::retry,
    POST "/billing/close" => close::close,
    GET "/billing/invoices" => invoices::list_all,
    GET "/workspaces/{workspaceId}/invoices" => invoices::list,
    GET "/workspaces/{workspaceId}/invoices/{invoiceNumber}" => invoices::read,
}
