//! Tokens of other issuers: their keys are fetched, kept in the process, and used for a while when the issuer is away ([`KeyCache`] has the rules).
//!
//! A token whose key cannot be had is neither good nor bad: that is a 503, never a 401. What is kept goes with the process (on Workers with the isolate):
//! one that starts while the issuer is away cannot check its tokens until it is back.
//!
//! No request waits for another's fetch by its future (on Workers the work of one request must not be driven by another's); it looks again in a moment.

use crate::Host;
use astra_kernel::jwk::{self, KeySet, PublicKey};
use astra_kernel::jws::Algorithm;
use astra_kernel::key_cache::{AWAY_MILLIS, KeyCache, Look};
use astra_kernel::token::{AUDIENCE, TokenError, Unverified};
use astra_kernel::{Claims, ConfigError, Issuer, Issuers, Timestamp};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How long an issuer may take for its keys.
const FETCH_MILLIS: u32 = 2_000;

/// How long until a request looks again whether another one has the keys.
const PAUSE_MILLIS: u32 = 50;

/// How often it does, before it gives up: for longer than a fetch may take.
const PAUSES: u32 = 64;

/// When a caller whose issuer is away may try again.
pub const RETRY_AFTER_SECONDS: i64 = AWAY_MILLIS / 1000;

/// Why a caller is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The token is no good.
    Token(TokenError),
    /// Whether it is good cannot be found out now.
    IssuerAway,
    /// Nor can it here.
    Config(ConfigError),
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// The issuers of a deployment, with what this process knows of their keys.
#[derive(Debug)]
pub struct KnownIssuers {
    issuers: Issuers,
    /// In the issuers' order.
    caches: Vec<Mutex<KeyCache>>,
}

impl KnownIssuers {
    /// From `TOKEN_ISSUERS`.
    ///
    /// # Errors
    /// When it is malformed.
    pub(crate) fn parse(text: Option<&str>, allow_http: bool) -> Result<Self, ConfigError> {
        let issuers = text.map(|text| Issuers::parse(text, allow_http)).transpose()?.unwrap_or_default();
        let caches = (0..issuers.count()).map(|_| Mutex::default()).collect();
        Ok(Self { issuers, caches })
    }

    /// Nothing that could panic is done under the lock.
    fn cache(&self, place: usize) -> MutexGuard<'_, KeyCache> {
        self.caches[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks a bearer token: ours with our keys, another issuer's with that issuer's.
///
/// # Errors
/// [`Refused`].
pub async fn verify<H: Host>(host: &H, token: &str) -> Result<Claims, Refused> {
    let token = Unverified::parse(token)?;
    if token.issuer() == AUDIENCE {
        return Ok(host.shared().token_keys()?.check(token, host.now())?);
    }
    let known = host.shared().issuers()?;
    let (place, issuer) = known.issuers.named(token.issuer()).ok_or(TokenError::Invalid("issuer"))?;
    // Before anything is fetched: what could not be accepted anyway makes no work.
    if token.jws.algorithm == Algorithm::HS256 || !issuer.takes(token.jws.algorithm) {
        return Err(TokenError::Invalid("algorithm").into());
    }
    let key = key(host, known, place, issuer, token.jws.kid()?).await?;
    if key.algorithm() != token.jws.algorithm {
        return Err(TokenError::Invalid("algorithm").into());
    }
    if !host.verify_signature(&key, token.jws.signed, &token.jws.signature).await {
        return Err(TokenError::Invalid("signature").into());
    }
    Ok(issuer.claims(token, host.now())?)
}

/// An issuer's key by its name.
async fn key<H: Host>(host: &H, known: &KnownIssuers, place: usize, issuer: &Issuer, kid: &str) -> Result<PublicKey, Refused> {
    let mut has_asked = false;
    for _ in 0..PAUSES {
        let look = known.cache(place).look(kid, host.now(), has_asked);
        match look {
            Look::Use { key, refresh } => {
                if refresh {
                    let behind = host.clone();
                    host.background(async move {
                        if let Ok(known) = behind.shared().issuers()
                            && let Some(issuer) = known.issuers.at(place)
                        {
                            refresh_keys(&behind, known, place, issuer).await;
                        }
                    });
                }
                return Ok(key);
            }
            Look::Fetch => {
                refresh_keys(host, known, place, issuer).await;
                has_asked = true;
            }
            Look::Wait => host.pause(PAUSE_MILLIS).await,
            Look::Unknown => return Err(TokenError::Invalid("unknown kid").into()),
            Look::Away => return Err(Refused::IssuerAway),
        }
    }
    Err(Refused::IssuerAway)
}

async fn refresh_keys<H: Host>(host: &H, known: &KnownIssuers, place: usize, issuer: &Issuer) {
    // What was true when the issuer was asked; it may take its time to answer.
    let asked: Timestamp = host.now();
    let keys = match host.fetch_text(&issuer.jwks_url, jwk::MAX_BYTES, FETCH_MILLIS).await {
        Ok(text) => KeySet::parse(&text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = &keys {
        host.log(&serde_json::json!({ "event": "issuer", "issuer": issuer.issuer, "error": error }).to_string());
    }
    known.cache(place).fetched(keys.ok(), asked);
}
