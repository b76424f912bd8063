//! Postgres through a pool: connections are kept, and each statement is whole in itself, so that a transaction-mode pooler may stand in between.
//!
//! The traps: 1. A kept connection may have died unnoticed; the statement is sent again on another then (all of them may be), until a connection that was
//! just made fails too. 2. A statement that was given up, for its time was over or nobody waits for it, is still under way on its connection: that one
//! is closed, not handed out again. 3. Startup parameters are those that every pooler takes; limits on the server's side are the roles' own.
//!
//! When the database is away a call fails within [`CONNECT`] (and [`ROOM`] when others wait too), when it hangs within [`STATEMENT`].

use super::metrics;
use crate::postgres;
use astra_kernel::{ConfigError, TenantKeys, WorkspaceId};
use astra_store::StoreError;
use deadpool_postgres::{Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime};
use rustls::ClientConfig;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long making a connection may take.
pub const CONNECT: Duration = Duration::from_secs(5);

/// How long a call waits for a connection when all are busy.
pub const ROOM: Duration = Duration::from_secs(5);

/// After this long a statement counts as lost and its connection as broken. The roles' own `statement_timeout` is as long.
pub const STATEMENT: Duration = Duration::from_secs(15);

/// After how long a silence the system asks whether the other end is still there: less than the idle limits of what usually stands in between.
const KEEPALIVE: Duration = Duration::from_mins(1);

/// A pool of connections to one address. Clones share it. Nothing is connected before the first call.
#[derive(Clone)]
pub struct Pool {
    name: &'static str,
    connections: deadpool_postgres::Pool,
    keys: Arc<TenantKeys>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// A pool of at most `size` connections to an address, which the variable `name` holds. With `sslmode=require` in it the server's certificate is verified.
    ///
    /// # Errors
    /// When the address is malformed; names the variable, never the address.
    pub fn open(name: &'static str, address: &str, size: usize, tls: ClientConfig, keys: Arc<TenantKeys>) -> Result<Self, ConfigError> {
        const FORM: &str = "it is postgres://user:password@host:port/database[?sslmode=require], special characters in the password as %XX";
        let malformed = || ConfigError::Malformed(name, FORM.to_owned());
        let mut config = Config::from_str(address).map_err(|_| malformed())?;
        if config.get_hosts().is_empty() || config.get_user().is_none() {
            return Err(malformed());
        }
        config.connect_timeout(CONNECT).keepalives_idle(KEEPALIVE).application_name("astra-edge");
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, MakeRustlsConnect::new(tls), recycling);
        let connections = deadpool_postgres::Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(ROOM))
            .create_timeout(Some(CONNECT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| malformed())?;
        Ok(Self { name, connections, keys })
    }

    /// Notes how many connections there are, for [`metrics`].
    pub fn note(&self) {
        let status = self.connections.status();
        metrics().pool(self.name, status.size, status.available, status.waiting);
    }

    async fn lend(&self) -> Result<Lent, StoreError> {
        let object = self.connections.get().await.map_err(|error| match error {
            PoolError::Backend(error) => unreachable(&postgres::cause(&error)),
            other => unreachable(&other.to_string()),
        })?;
        Ok(Lent(Some(object)))
    }

    async fn run(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        loop {
            let lent = self.lend().await?;
            let client = lent.0.as_ref().ok_or(StoreError::Unreachable)?;
            let kept = Object::metrics(client).recycle_count > 0;
            match tokio::time::timeout(STATEMENT, postgres::run(client, statement, params, super::log)).await {
                Ok(Err(StoreError::Unreachable)) if kept => drop(lent),
                Ok(Err(StoreError::Unreachable)) => return Err(StoreError::Unreachable),
                Ok(result) => {
                    lent.give_back();
                    return result;
                }
                Err(_) => return Err(unreachable("the statement's time was over")),
            }
        }
    }
}

fn unreachable(cause: &str) -> StoreError {
    postgres::unreachable(cause, super::log)
}

/// A connection on loan. Dropped, also by a caller that went, it is closed; only [`Lent::give_back`] returns it.
struct Lent(Option<Object>);

impl Lent {
    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl astra_store::Database for Pool {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError> {
        Ok(self.keys.prove(workspace, actor, super::now()))
    }

    fn query(&self, statement: &'static str, params: &[&str]) -> impl Future<Output = Result<String, StoreError>> + Send {
        let began = Instant::now();
        let run = self.run(statement, params);
        async move {
            let result = run.await;
            let outcome = match &result {
                Ok(_) => "ok",
                Err(StoreError::Unreachable) => "unreachable",
                Err(_) => "fault",
            };
            metrics().statement(outcome, began);
            result
        }
    }
}
