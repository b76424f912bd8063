//! Postgres over a Worker's socket.
//!
//! A connection lives for one request: a kept one hangs on the next. (Inside a Durable Object it can be kept; `functions/quota` does.)
//! The task that drives it is handed to the runtime's `waitUntil`, because a task of a request that has ended is never polled
//! again and its memory never freed.

use crate::{Shared, postgres};
use astra_store::StoreError;
use send_wrapper::SendWrapper;
use std::future::Future;
use std::str::FromStr as _;
use std::sync::{Arc, OnceLock};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use worker::postgres_tls::PassthroughTls;
use worker::{SecureTransport, Socket};

/// Where the database is, from `DATABASE_URL`.
struct Address {
    config: Config,
    host: String,
    port: u16,
}

/// Parsed once per isolate.
fn address(shared: &Shared) -> Result<&'static Address, StoreError> {
    static ADDRESS: OnceLock<Option<Address>> = OnceLock::new();
    let parse = || {
        let config = Config::from_str(&shared.setting("DATABASE_URL")?).ok()?;
        let host = config.get_hosts().iter().find_map(|host| match host {
            Host::Tcp(name) => Some(name.clone()),
            #[expect(unreachable_patterns, reason = "Unix sockets exist on other targets")]
            _ => None,
        })?;
        let port = config.get_ports().first().copied().unwrap_or(5432);
        Some(Address { config, host, port })
    };
    ADDRESS.get_or_init(parse).as_ref().ok_or_else(|| {
        worker::console_error!(
            "{}",
            r#"{"event":"config","error":"DATABASE_URL is not set or malformed: postgres://user:password@host:port/database"}"#
        );
        StoreError::Unreachable
    })
}

/// Opens a connection. `drive` takes the task that must be polled for as long as the connection is used.
///
/// # Errors
/// [`StoreError::Unreachable`]; the cause is logged without anything that the server said of rows.
pub async fn connect(shared: &Shared, drive: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()>>>)) -> Result<Client, StoreError> {
    let Address { config, host, port } = address(shared)?;
    let secure = match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => SecureTransport::Off,
        _ => SecureTransport::StartTls,
    };
    let socket = Socket::builder().secure_transport(secure.clone()).connect(host, *port).map_err(|e| unreachable(&e.to_string()))?;
    let mut config = config.clone();
    if matches!(secure, SecureTransport::Off) {
        // No server of ours answers an SSL request on a socket that cannot be upgraded.
        config.ssl_mode(SslMode::Disable);
    }
    let (client, connection) = config.connect_raw(socket, PassthroughTls).await.map_err(|e| unreachable(&postgres::cause(&e)))?;
    drive(Box::pin(async move {
        // A broken connection is reported by the query that was waiting on it.
        let _ = connection.await;
    }));
    Ok(client)
}

fn log(line: &str) {
    worker::console_error!("{line}");
}

fn unreachable(cause: &str) -> StoreError {
    postgres::unreachable(cause, log)
}

/// Runs one statement with text parameters: one round trip, no prepared statement.
///
/// # Errors
/// [`StoreError`].
pub async fn run(client: &Client, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
    postgres::run(client, statement, params, log).await
}

/// A request's one connection, opened when it is first needed.
#[derive(Default)]
pub(super) struct RequestConnection(OnceLock<SendWrapper<Arc<Client>>>);

impl RequestConnection {
    pub(super) async fn open(
        &self,
        shared: &Shared,
        drive: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()>>>),
    ) -> Result<Arc<Client>, StoreError> {
        if let Some(client) = self.0.get().filter(|c| !c.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(connect(shared, drive).await?);
        // Two statements at once on a new request: the second connection serves its one statement and goes.
        let _ = self.0.set(SendWrapper::new(Arc::clone(&client)));
        Ok(client)
    }
}
