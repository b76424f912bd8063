//! What differs by host, in one trait, and the web glue that every function shares.
//!
//! Domain code is generic over [`Host`] and knows no host's name. The adapters are modules of this crate: `workers`, and `native` for a plain process.
//! What is not `Send` on wasm is wrapped at the leaf, inside the adapter.

use astra_kernel::{ConfigError, SecretsKey, Settings, TenantKeys, Timestamp, TokenKeys, WorkspaceId, ids};
use astra_quota::words::{Answer, Ask};
use std::future::Future;
use std::sync::{Arc, OnceLock};

#[cfg(all(feature = "lambda", not(target_arch = "wasm32")))]
pub mod lambda;
#[cfg(all(feature = "native", not(target_arch = "wasm32")))]
pub mod native;
pub mod paging;
#[cfg(any(all(feature = "native", not(target_arch = "wasm32")), all(feature = "workers", feature = "database", target_arch = "wasm32")))]
mod postgres;
pub mod routes;
#[cfg(feature = "http-client")]
pub mod stream;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;
pub mod trace;
pub mod web;
#[cfg(all(feature = "workers", target_arch = "wasm32"))]
pub mod workers;

pub use trace::Trace;
pub use web::{Allowed, Call, Failure, StrictJson, serve, with_limits};

/// The counter gave no answer. What was asked may or may not have been done; every ask may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota counter cannot be reached")]
pub struct CounterUnreachable;

/// The machine under a function. Cheap to clone; one per request.
pub trait Host: astra_store::Database + Clone + Send + Sync + 'static {
    /// The clock.
    fn now(&self) -> Timestamp;

    /// Fills a buffer from the host's cryptographic randomness.
    fn fill_random(&self, buffer: &mut [u8]);

    /// Configuration, read once per process.
    fn shared(&self) -> &Shared;

    /// Asks the workspace's counter.
    fn ask(&self, workspace: &WorkspaceId, ask: &Ask) -> impl Future<Output = Result<Answer, CounterUnreachable>> + Send;

    /// Goes on with work after the response (and when the client has hung up).
    fn background(&self, work: impl Future<Output = ()> + Send + 'static);

    /// Writes one line of structured log.
    fn log(&self, line: &str);

    /// A new `UUIDv7`.
    fn new_id(&self) -> uuid::Uuid {
        let mut random = [0; 10];
        self.fill_random(&mut random);
        ids::uuid_v7(u64::try_from(self.now().0).unwrap_or(0), random)
    }
}

/// A host's configuration and what is parsed from it, once per process.
pub struct Shared {
    settings: Box<dyn Settings + Send + Sync>,
    token_keys: OnceLock<Result<TokenKeys, ConfigError>>,
    secrets_key: OnceLock<Result<SecretsKey, ConfigError>>,
    tenant_keys: OnceLock<Result<Arc<TenantKeys>, ConfigError>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Configuration from a host's settings. Nothing is parsed until it is needed.
    pub fn new(settings: Box<dyn Settings + Send + Sync>) -> Self {
        Self { settings, token_keys: OnceLock::new(), secrets_key: OnceLock::new(), tenant_keys: OnceLock::new() }
    }

    /// A variable.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.get(name)
    }

    /// The keys of bearer tokens, from `TOKEN_KEYS`.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn token_keys(&self) -> Result<&TokenKeys, ConfigError> {
        let parse = || {
            let text = self.settings.require("TOKEN_KEYS", "the keys that sign and verify bearer tokens, kid:base64url[,…]")?;
            TokenKeys::parse(&text)
        };
        self.token_keys.get_or_init(parse).as_ref().map_err(Clone::clone)
    }

    /// The keys of stored secrets, from `SECRETS_KEY`.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn secrets_key(&self) -> Result<&SecretsKey, ConfigError> {
        let parse = || {
            let text = self.settings.require("SECRETS_KEY", "the keys that encrypt workspaces' secrets, kid:base64url of 32 bytes[,…]")?;
            SecretsKey::parse(&text)
        };
        self.secrets_key.get_or_init(parse).as_ref().map_err(Clone::clone)
    }

    /// The keys that prove to the database for which workspace a statement is, from `TENANT_KEYS`.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn tenant_keys(&self) -> Result<&Arc<TenantKeys>, ConfigError> {
        let parse = || {
            let text =
                self.settings.require("TENANT_KEYS", "the keys that prove to the database whose data is asked for, kid:base64url[,…]")?;
            TenantKeys::parse(&text).map(Arc::new)
        };
        self.tenant_keys.get_or_init(parse).as_ref().map_err(Clone::clone)
    }
}
