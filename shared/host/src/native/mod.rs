//! A plain process on tokio: one [`Process`], and a host for each function in it, which differ by the role they log in to the database with.
//!
//! What goes on after a response is a task of the process's [`TaskTracker`]; whoever ends the process waits for it, as long as is bearable. A task
//! that is cut off is a turn that died: its hold expires and is charged what was last reported.
//!
//! When the counter is away no turn begins; when the database is away every call says so at once or within [`database`]'s limits. Both are 503.

use crate::outgoing::{Answered, NotAnswered, Outgoing};
use crate::{CounterUnreachable, Host, NotConverted, NotFetched, Shared, signatures};
use astra_kernel::jwk::PublicKey;
use astra_kernel::{ConfigError, Settings, Timestamp, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use astra_store::StoreError;
pub use astra_tls as tls;
use astra_tls::TlsError;
use std::future::Future;
use std::io::Write as _;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

mod addresses;
mod convert;
mod counter;
pub mod database;
mod event_stream;
mod http_client;
mod metrics;
mod outgoing;
mod resolver;

pub use addresses::Addresses;
pub use convert::CONVERT;
pub use counter::Rows;
pub use database::Pool;
pub use event_stream::{EventBody, Sink, StreamCut};
pub use http_client::Incoming;
pub use metrics::{Metrics, RequestLabels, metrics};

/// The workspaces' counters, wherever they are kept. Every ask may be sent again.
pub trait Counter: Send + Sync + 'static {
    /// Asks a workspace's counter.
    fn ask(&self, workspace: &WorkspaceId, ask: &Ask) -> impl Future<Output = Result<Answer, CounterUnreachable>> + Send;
}

/// Why the process cannot serve. Says what to set, never a value.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A variable is missing or malformed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Http(#[from] reqwest::Error),
}

/// Configuration from the process's environment.
struct Environment;

impl Settings for Environment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

/// Configuration from the process's environment. A variable that is empty or not UTF-8 counts as not set.
pub fn environment() -> Shared {
    Shared::new(Box::new(Environment))
}

/// Milliseconds since 1970.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is where the host's clock comes from; there is no wasm here")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Fills a buffer from the operating system's cryptographic randomness.
///
/// # Panics
/// When the system has none, which it always has once it has started.
#[expect(clippy::expect_used, reason = "without randomness nothing here may go on")]
pub fn fill_random(buffer: &mut [u8]) {
    getrandom::fill(buffer).expect("the system's randomness");
}

/// Writes one line to standard output, whole: lines of several threads do not mix. When nobody reads it any more the work goes on.
pub fn log(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{line}\n").as_bytes());
}

/// What all functions of a process share.
#[derive(Debug)]
pub struct Process<C> {
    shared: Shared,
    counter: C,
    models: reqwest::Client,
    /// For addresses that somebody names.
    guarded: reqwest::Client,
    tasks: TaskTracker,
}

impl<C: Counter> Process<C> {
    /// A process with its configuration and counter. Background work is spawned on `tasks`.
    ///
    /// # Errors
    /// When TLS or the HTTP client cannot be set up.
    pub fn new(shared: Shared, counter: C, tasks: TaskTracker) -> Result<Arc<Self>, SetupError> {
        let models = http_client::client(tls::client(None)?)?;
        let guarded = http_client::guarded(tls::client(None)?, shared.guard().clone())?;
        Ok(Arc::new(Self { shared, counter, models, guarded, tasks }))
    }
}

/// A function's host: the process, and the function's own way into the database. Clones share both.
#[derive(Debug)]
pub struct NativeHost<C> {
    process: Arc<Process<C>>,
    database: Pool,
}

impl<C> Clone for NativeHost<C> {
    fn clone(&self) -> Self {
        Self { process: Arc::clone(&self.process), database: self.database.clone() }
    }
}

impl<C: Counter> NativeHost<C> {
    /// A function's host.
    pub fn new(process: Arc<Process<C>>, database: Pool) -> Self {
        Self { process, database }
    }
}

impl<C: Counter> Host for NativeHost<C> {
    fn now(&self) -> Timestamp {
        now()
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        fill_random(buffer);
    }

    fn shared(&self) -> &Shared {
        &self.process.shared
    }

    fn ask(&self, workspace: &WorkspaceId, ask: &Ask) -> impl Future<Output = Result<Answer, CounterUnreachable>> + Send {
        self.process.counter.ask(workspace, ask)
    }

    fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.process.tasks.spawn(work);
    }

    fn log(&self, line: &str) {
        log(line);
    }

    async fn verify_signature(&self, key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
        signatures::is_signed(key, signed, signature)
    }

    async fn sign(&self, seed: &[u8; 32], bytes: &[u8]) -> Option<Vec<u8>> {
        signatures::sign(seed, bytes)
    }

    async fn public_key(&self, seed: &[u8; 32]) -> Option<String> {
        signatures::public_key(seed)
    }

    fn fetch_text(&self, url: &str, limit: usize, millis: u32) -> impl Future<Output = Result<String, NotFetched>> + Send {
        outgoing::text(&self.process.models, url, limit, millis)
    }

    fn call_out(&self, call: Outgoing) -> impl Future<Output = Result<Answered, NotAnswered>> + Send {
        outgoing::call(&self.process.guarded, call)
    }

    fn convert(&self, file: Vec<u8>) -> impl Future<Output = Result<String, NotConverted>> + Send {
        convert::apart(file)
    }

    fn pause(&self, millis: u32) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(std::time::Duration::from_millis(millis.into()))
    }
}

impl<C: Counter> astra_store::Database for NativeHost<C> {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, astra_store::StoreError> {
        self.database.proof(workspace, actor)
    }

    fn query(&self, statement: &'static str, params: &[&str]) -> impl Future<Output = Result<String, StoreError>> + Send {
        self.database.query(statement, params)
    }
}

impl<C: Counter> crate::stream::TurnHost for NativeHost<C> {
    type Sink = Sink;

    fn stream(&self) -> (Sink, axum::response::Response) {
        event_stream::open()
    }
}
