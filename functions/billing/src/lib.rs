//! Billing: what every workspace's month costs, one workspace's usage and quota, and the price book.
//!
//! Months are calendar months in UTC. Amounts are integer nano-dollars, exact, with a number of dollars for people beside them. Costs and usage come from
//! the database; the quota comes from the workspace's counter, which also knows what running turns hold. Either away: 503.

mod costs;
mod month;
mod prices;
mod quota;
pub mod routes;
mod usage;

#[cfg(not(target_arch = "wasm32"))]
pub use routes::document;

#[cfg(target_arch = "wasm32")]
mod entry {
    use astra_host::workers::{self, WorkersHost};
    use std::sync::OnceLock;

    static ROUTER: OnceLock<axum::Router> = OnceLock::new();

    #[worker::event(fetch)]
    async fn fetch(request: web_sys::Request, env: worker::Env, context: worker::Context) -> worker::Result<web_sys::Response> {
        workers::fetch("billing", &ROUTER, crate::routes::router::<WorkersHost>, request, env, context).await
    }
}
