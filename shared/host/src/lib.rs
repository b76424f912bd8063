//! What differs by host, in one trait, and the web glue that every function shares.
//!
//! Domain code is generic over [`Host`] and knows no host's name. The adapters are modules of this crate: `workers`, and `native` for a plain process.
//! What is not `Send` on wasm is wrapped at the leaf, inside the adapter.

use crate::outgoing::{Answered, NotAnswered, Outgoing};
use astra_kernel::jwk::PublicKey;
use astra_kernel::{ConfigError, ReceiptKeys, SecretsKey, Settings, TenantKeys, Timestamp, TokenKeys, WorkspaceId, ids};
use astra_quota::words::{Answer, Ask};
use std::future::Future;
use std::sync::{Arc, OnceLock};

pub mod csv;
pub mod denials;
#[cfg(feature = "http-client")]
pub mod embedder;
pub mod fields;
pub mod guard;
pub mod issuers;
#[cfg(all(feature = "lambda", not(target_arch = "wasm32")))]
pub mod lambda;
#[cfg(all(feature = "native", not(target_arch = "wasm32")))]
pub mod native;
pub mod outgoing;
pub mod paging;
#[cfg(any(all(feature = "native", not(target_arch = "wasm32")), all(feature = "workers", feature = "database", target_arch = "wasm32")))]
mod postgres;
#[cfg(feature = "http-client")]
pub mod provider;
pub mod receipts;
pub mod routes;
#[cfg(feature = "http-client")]
pub mod settle;
#[cfg(all(any(feature = "native", feature = "testing"), not(target_arch = "wasm32")))]
mod signatures;
#[cfg(feature = "http-client")]
pub mod stream;
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
pub mod testing;
pub mod trace;
#[cfg(feature = "http-client")]
pub mod uses;
pub mod web;
#[cfg(all(feature = "workers", target_arch = "wasm32"))]
pub mod workers;

pub use trace::Trace;
pub use web::{Allowed, Call, Failure, StrictJson, serve, with_limits};

/// The counter gave no answer. What was asked may or may not have been done; every ask may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the quota counter cannot be reached")]
pub struct CounterUnreachable;

/// Why a text at an address was not had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFetched {
    /// No answer in time.
    #[error("it does not answer")]
    Unreachable,
    /// Another answer than 200; a redirect too.
    #[error("it answers {0}")]
    Status(u16),
    /// It is too large.
    #[error("its answer is too large")]
    TooLarge,
    /// It is not UTF-8, or broke off.
    #[error("its answer broke off or is no text")]
    Broken,
}

/// Why a file was not converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotConverted {
    /// Whoever reads it did not begin.
    #[error("files cannot be converted just now")]
    Away,
    /// Whoever reads it ended before its answer: it crashed, or needed more memory or time than it may have.
    #[error("its reader crashed, or needed more memory or time than it may have")]
    Ended,
}

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

    /// Whether a signature of these bytes is the key's, by the algorithm that the key is for.
    fn verify_signature(&self, key: &PublicKey, signed: &[u8], signature: &[u8]) -> impl Future<Output = bool> + Send;

    /// Signs these bytes by Ed25519 with the key of a seed (RFC 8032's private key). None where the host's cryptography does not.
    fn sign(&self, seed: &[u8; 32], bytes: &[u8]) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// A seed's public key, in base64url without padding. None as above.
    fn public_key(&self, seed: &[u8; 32]) -> impl Future<Output = Option<String>> + Send;

    /// Gets a text of at most `limit` bytes, in at most so many milliseconds. The host upholds: redirects are not followed.
    fn fetch_text(&self, url: &str, limit: usize, millis: u32) -> impl Future<Output = Result<String, NotFetched>> + Send;

    /// Calls an address that a tenant or an operator named. The host upholds: redirects are not followed, and where it resolves names itself it connects to public
    /// addresses only.
    fn call_out(&self, call: Outgoing) -> impl Future<Output = Result<Answered, NotAnswered>> + Send;

    /// Has a file that may do harm read apart from this process, by what `functions/convert` is on this host: what it says of the file, as JSON. The host upholds: however that ends,
    /// it ends nothing else. Where nobody reads files it is [`NotConverted::Away`].
    fn convert(&self, file: Vec<u8>) -> impl Future<Output = Result<String, NotConverted>> + Send {
        drop(file);
        std::future::ready(Err(NotConverted::Away))
    }

    /// Waits so many milliseconds, for what another request has begun.
    fn pause(&self, millis: u32) -> impl Future<Output = ()> + Send;

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
    receipt_keys: OnceLock<Result<ReceiptKeys, ConfigError>>,
    issuers: OnceLock<Result<issuers::KnownIssuers, ConfigError>>,
    guard: OnceLock<guard::Guard>,
    denials: denials::Denials,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Configuration from a host's settings. Nothing is parsed until it is needed.
    pub fn new(settings: Box<dyn Settings + Send + Sync>) -> Self {
        Self {
            settings,
            token_keys: OnceLock::new(),
            secrets_key: OnceLock::new(),
            tenant_keys: OnceLock::new(),
            receipt_keys: OnceLock::new(),
            issuers: OnceLock::new(),
            guard: OnceLock::new(),
            denials: denials::Denials::default(),
        }
    }

    /// Who was refused what within the last minute.
    pub fn denials(&self) -> &denials::Denials {
        &self.denials
    }

    /// Which addresses that somebody names are called.
    pub fn guard(&self) -> &guard::Guard {
        self.guard.get_or_init(|| guard::Guard::read(|name| self.settings.get(name)))
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

    /// Other issuers of tokens, from `TOKEN_ISSUERS`; none when it is not set. With `ALLOW_HTTP_ISSUERS=1` their keys may be at an http address of
    /// this machine.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn issuers(&self) -> Result<&issuers::KnownIssuers, ConfigError> {
        let parse = || {
            let allow_http = self.settings.get("ALLOW_HTTP_ISSUERS").as_deref() == Some("1");
            issuers::KnownIssuers::parse(self.settings.get("TOKEN_ISSUERS").as_deref(), allow_http)
        };
        self.issuers.get_or_init(parse).as_ref().map_err(Clone::clone)
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

    /// The keys that sign receipts, from `RECEIPT_KEYS`.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn receipt_keys(&self) -> Result<&ReceiptKeys, ConfigError> {
        let parse = || {
            let text = self.settings.require("RECEIPT_KEYS", "the keys that sign receipts, kid:base64url of 32 bytes[,…]")?;
            ReceiptKeys::parse(&text)
        };
        self.receipt_keys.get_or_init(parse).as_ref().map_err(Clone::clone)
    }
}
