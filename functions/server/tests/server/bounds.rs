//! How much a client may take up, and what those who run the process are told.

use crate::support::{self, Server, operator};
use astra_edge::admin::{self, Told};
use astra_edge::listen::Bounds;
use axum::body::Body;
use axum::extract::Request;
use http_body_util::BodyExt as _;
use reqwest::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

const QUESTION: &[u8] = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A question on a connection that stays, and its answer.
async fn served(connection: &mut TcpStream) {
    connection.write_all(b"HEAD /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(connection.read_u8().await.unwrap());
    }
}

#[tokio::test]
async fn a_connection_more_than_may_be_waits_until_one_ends() {
    let bounds = Bounds { connections: 1, grace: Duration::from_secs(1) };
    let server = Server::start_within(support::pong, bounds).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    served(&mut first).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    second.write_all(QUESTION).await.unwrap();
    // The first is served again and again while the second waits.
    for _ in 0..50 {
        served(&mut first).await;
        assert!(second.try_read(&mut [0; 16]).is_err(), "two are served at once");
    }
    drop(first);
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The clock is nobody's: it goes on by itself whenever all wait.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for_for_ever() {
    let server = Server::start(support::pong).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /workspaces HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{{",
        operator()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("The body broke off."), "{answer}");
}

async fn admin(told: &Arc<Told>, path: &str) -> (u16, String) {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap();
    let answer = admin::router(Arc::clone(told)).call(request).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn those_who_run_it_are_told_how_it_is() {
    let server = Server::start(support::pong).await;
    let answer = server.ask(Method::GET, "/billing/costs").bearer_auth(operator()).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let told = Arc::new(Told { stopping: AtomicBool::new(false), tasks: TaskTracker::new(), pools: vec![support::no_pool()] });
    let (status, text) = admin(&told, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"astra_request_seconds_count{function="billing",status="503"} "#,
        r#"astra_statement_seconds_count{outcome="unreachable"} "#,
        r#"astra_pool_connections{pool="DATABASE_URL",state="open"} 0"#,
        "astra_tasks 0",
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} is not in\n{text}");
    }
    assert_eq!((admin(&told, "/livez").await.0, admin(&told, "/readyz").await.0), (200, 200));
    told.stopping.store(true, Ordering::Relaxed);
    assert_eq!((admin(&told, "/livez").await.0, admin(&told, "/readyz").await.0), (200, 503));
}
