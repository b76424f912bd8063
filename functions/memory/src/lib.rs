//! Memory: what a workspace remembers and knows, and the jobs that make documents searchable.
//!
//! Everything is in the workspace's own schema; what belongs to one member is for that member alone. The database away: 503. A document is kept before its upload is answered (202);
//! a job splits it afterwards, and if that process ends, another one goes on where it was.

mod documents;
mod extract;
mod forms;
mod index;
mod jobs;
mod memories;
mod people;
mod pieces;
pub mod routes;
mod search;
mod settings;
mod upload;
pub mod words;
pub mod work;

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
        workers::fetch("memory", &ROUTER, crate::routes::router::<WorkersHost>, request, env, context).await
    }

    /// The cron trigger: jobs that were left behind.
    #[worker::event(scheduled)]
    async fn scheduled(_: worker::ScheduledEvent, env: worker::Env, context: worker::ScheduleContext) {
        let host = workers::scheduled(env, context);
        let until = host.now().plus_millis(crate::work::RUN_MILLIS);
        if let Err(error) = crate::work::due(&host, Some(until)).await {
            host.log(&format!(r#"{{"event":"jobs","error":"{error}"}}"#));
        }
    }
}
