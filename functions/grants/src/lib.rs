//! Grants: the roles of a workspace and what they allow; its audit log.
//!
//! What a role may do is its workspace's word, else its plan's template's, else the defaults that every workspace has ([`astra_kernel::permission`]). It is read
//! anew for each request, by every function: a change holds from the next one on. The database away: 503.

mod audit;
mod authorize;
mod export;
mod grants;
mod roles;
pub mod routes;
mod rules;

#[cfg(not(target_arch = "wasm32"))]
pub use routes::document;

#[cfg(target_arch = "wasm32")]
mod entry {
    use astra_host::workers::{self, WorkersHost};
    use std::sync::OnceLock;

    static ROUTER: OnceLock<axum::Router> = OnceLock::new();

    #[worker::event(fetch)]
    async fn fetch(request: web_sys::Request, env: worker::Env, context: worker::Context) -> worker::Result<web_sys::Response> {
        workers::fetch("grants", &ROUTER, crate::routes::router::<WorkersHost>, request, env, context).await
    }
}
