//! Turns, sessions and their messages, stop, and the smoke test.
//!
//! A turn's work is a background task from the moment its budget is held: the client that hangs up loses the text, not the accounting.

pub mod routes;
pub mod sessions;
pub mod smoke;
pub mod turns;

#[cfg(target_arch = "wasm32")]
mod entry {
    use crate::routes;
    use astra_host::workers::{WorkersHost, fetch as serve};
    use std::sync::OnceLock;

    static ROUTER: OnceLock<axum::Router> = OnceLock::new();

    #[worker::event(fetch)]
    async fn fetch(request: web_sys::Request, env: worker::Env, context: worker::Context) -> worker::Result<web_sys::Response> {
        serve("invoke-turn", &ROUTER, routes::router::<WorkersHost>, request, env, context).await
    }
}
