//! The adapter for a plain process, against servers made for it on loopback. No test waits for time to pass: clocks are paused or events awaited.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod database;
mod models;
mod outgoing;
mod postgres;
mod stream;

use astra_host::native::{Counter, NativeHost, Pool, Process, tls};
use astra_host::{CounterUnreachable, Shared};
use astra_kernel::{Settings, TenantKeys, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpSocket;
use tokio_util::task::TaskTracker;

/// No variable is set.
struct Nothing;

impl Settings for Nothing {
    fn get(&self, _: &str) -> Option<String> {
        None
    }
}

/// Loopback may be called by name of its address.
struct Loopback;

impl Settings for Loopback {
    fn get(&self, name: &str) -> Option<String> {
        (name == "OUTGOING_INTERNAL").then(|| "127.0.0.1".to_owned())
    }
}

struct NoCounter;

impl Counter for NoCounter {
    async fn ask(&self, _: &WorkspaceId, _: &Ask) -> Result<Answer, CounterUnreachable> {
        Err(CounterUnreachable)
    }
}

fn pool(address: SocketAddr) -> Pool {
    let keys = Arc::new(TenantKeys::parse("k:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap());
    let url = format!("postgres://app:p@{address}/astra?sslmode=disable");
    Pool::open("DATABASE_URL", &url, 2, tls::client(None).unwrap(), keys).unwrap()
}

fn host() -> NativeHost<impl Counter> {
    host_with(Box::new(Nothing))
}

fn host_with(settings: Box<dyn Settings + Send + Sync>) -> NativeHost<impl Counter> {
    let process = Process::new(Shared::new(settings), NoCounter, TaskTracker::new()).unwrap();
    NativeHost::new(process, pool(([127, 0, 0, 1], 1).into()))
}

/// An address where nobody listens, for as long as the socket is kept.
fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
