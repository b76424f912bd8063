//! Billing: what every workspace's month costs, one workspace's usage, quota and ledger with its receipts, the price book, invoices, webhooks, and the scheduled jobs.
//!
//! Months are calendar months in UTC; dates are a workspace's own. Amounts are integer nano-dollars, exact, with a number of dollars for people beside them. Costs and usage come from
//! the database; the quota comes from the workspace's counter, which also knows what running turns hold. Either away: 503.

mod close;
mod costs;
mod invoices;
pub mod jobs;
mod ledger;
pub mod letterhead;
mod month;
mod page;
mod parts;
mod prices;
mod quota;
mod receipts;
mod reprice;
pub mod routes;
mod stripe;
mod usage;
mod webhooks;

#[cfg(not(target_arch = "wasm32"))]
pub use routes::document;

#[cfg(target_arch = "wasm32")]
mod entry {
    use astra_host::Host as _;
    use astra_host::workers::{self, WorkersHost};
    use std::sync::OnceLock;

    static ROUTER: OnceLock<axum::Router> = OnceLock::new();

    #[worker::event(fetch)]
    async fn fetch(request: web_sys::Request, env: worker::Env, context: worker::Context) -> worker::Result<web_sys::Response> {
        workers::fetch("billing", &ROUTER, crate::routes::router::<WorkersHost>, request, env, context).await
    }

    /// The cron trigger: what is due of all jobs.
    #[worker::event(scheduled)]
    async fn scheduled(_: worker::ScheduledEvent, env: worker::Env, context: worker::ScheduleContext) {
        let host = workers::scheduled(env, context);
        let until = host.now().plus_millis(crate::jobs::RUN_MILLIS);
        crate::jobs::run_due(&host, until).await;
    }
}
