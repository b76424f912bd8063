//! Provision: workspaces, their members, tokens, secrets and own agents; plans and their agent templates.
//!
//! Every write may be sent again: creating the same workspace twice gives the same one, the rest are PUTs and DELETEs. When the database is away
//! nothing is done and the answer is 503. Deleting a workspace ends by making its quota counter forget; when that fails, deleting again finishes it.

mod agents;
mod amount;
mod definition;
mod fields;
mod limits;
mod members;
mod plans;
mod prompt;
mod restrictions;
pub mod routes;
mod secrets;
mod template;
mod tokens;
mod workspaces;

#[cfg(not(target_arch = "wasm32"))]
pub use routes::document;

#[cfg(target_arch = "wasm32")]
mod entry {
    use astra_host::workers::{self, WorkersHost};
    use std::sync::OnceLock;

    static ROUTER: OnceLock<axum::Router> = OnceLock::new();

    #[worker::event(fetch)]
    async fn fetch(request: web_sys::Request, env: worker::Env, context: worker::Context) -> worker::Result<web_sys::Response> {
        workers::fetch("provision", &ROUTER, crate::routes::router::<WorkersHost>, request, env, context).await
    }
}
