//! What those who run the process ask it, at an address of its own that clients do not reach.
//!
//! - `GET /livez`: 200 as long as the process answers at all.
//! - `GET /readyz`: 200 when requests may be sent; 503 from the moment that the end is asked for.
//! - `GET /metrics`: for Prometheus.

use astra_host::native::{Pool, metrics};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::task::TaskTracker;

/// What is told about.
#[derive(Debug)]
pub struct Told {
    /// The end was asked for.
    pub stopping: AtomicBool,
    /// Requests and background work.
    pub tasks: TaskTracker,
    /// Connections to the database.
    pub pools: Vec<Pool>,
}

/// The routes.
pub fn router(told: Arc<Told>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(async |State(told): State<Arc<Told>>| ready(&told)))
        .route("/metrics", get(async |State(told): State<Arc<Told>>| text(&told)))
        .with_state(told)
}

fn ready(told: &Told) -> Response {
    if told.stopping.load(Ordering::Relaxed) { (StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response() } else { "ok".into_response() }
}

fn text(told: &Told) -> Response {
    metrics().tasks.set(i64::try_from(told.tasks.len()).unwrap_or(i64::MAX));
    told.pools.iter().for_each(Pool::note);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], metrics().text()).into_response()
}
