//! What `scripts/test` sets for the suites. A missing variable is told by name with what it is for.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use std::time::Duration;

fn required(name: &str, purpose: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{name} is not set. It is {purpose}. scripts/test sets it; by hand: eval \"$(scripts/stack env)\"."),
    }
}

/// The functions' host: `workers`, `native` or `lambda`.
pub fn host() -> String {
    required("ASTRA_HOST", "the host of the functions, for what differs by it: docs/hosts.md says why")
}

/// The gateway's address, without a slash at its end.
pub fn gateway() -> String {
    required("ASTRA_URL", "the gateway's address, such as http://127.0.0.1:8787").trim_end_matches('/').to_owned()
}

/// The address of the function invoke-turn itself, past the gateway.
pub fn invoke_turn() -> String {
    required("ASTRA_INVOKE_URL", "the address of invoke-turn without the gateway, for the tests that hang up")
        .trim_end_matches('/')
        .to_owned()
}

/// Where the deployment looks for Stripe: host and port.
pub fn stripe() -> String {
    required("STRIPE_URL", "where the functions look for Stripe, http://127.0.0.1:PORT").trim_start_matches("http://").to_owned()
}

/// The deployment's first signing key: its `kid` and its secret.
pub fn token_key() -> (String, Vec<u8>) {
    first_key("ASTRA_TOKEN_KEYS", "the stack's TOKEN_KEYS, kid:base64url")
}

/// The deployment's first key for proofs of tenants: its `kid` and the key.
pub fn tenant_key() -> (String, Vec<u8>) {
    first_key("ASTRA_TENANT_KEYS", "the stack's TENANT_KEYS, kid:base64url")
}

fn first_key(name: &str, purpose: &str) -> (String, Vec<u8>) {
    let keys = required(name, purpose);
    let (kid, key) = keys.split(',').next().and_then(|first| first.split_once(':')).expect("keys are kid:base64url");
    let key = BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('=')).expect("a key is base64url");
    (kid.to_owned(), key)
}

/// The issuers that the stack takes tokens of.
pub fn token_issuers() -> serde_json::Value {
    let issuers = required("TOKEN_ISSUERS", "the stack's issuers, whose keys are on ports of this machine that the tests may have");
    serde_json::from_str(&issuers).expect("TOKEN_ISSUERS is JSON")
}

/// A superuser's connection string straight to Postgres, past the pooler.
pub fn admin_database() -> String {
    required("ASTRA_ADMIN_DATABASE_URL", "a superuser's postgres:// URL past the pooler, to look at rows and run the guide's SQL")
}

/// The connection string of a function's role, as its function has it: through the pooler. The stack gives all of them one password.
pub fn pooler(role: &str) -> String {
    required("ASTRA_POOLER_URL", "astra_quota's postgres:// URL through the pooler").replacen("astra_quota", role, 1)
}

/// The path of `scripts/stack`.
pub fn stack() -> String {
    required("ASTRA_STACK", "the path of scripts/stack, to restart parts and read logs")
}

/// The path of aimock's `cli.js`.
pub fn aimock() -> String {
    required("ASTRA_AIMOCK", "the path of dist/cli.js of npm's @copilotkit/aimock 1.43.0")
}

/// The deadline of a turn on this stack.
pub fn model_timeout() -> Duration {
    let seconds =
        required("MODEL_TIMEOUT_SECONDS", "the stack's deadline of a turn in seconds; tests wait for it to pass, so keep it near 10");
    Duration::from_secs(seconds.parse().expect("MODEL_TIMEOUT_SECONDS is a number of seconds"))
}

/// How long a turn's budget is held without a sign of life on this stack.
pub fn hold_lease() -> Duration {
    let seconds = required("HOLD_LEASE_SECONDS", "the stack's lease of a hold in seconds; tests wait for it to end, so keep it near 15");
    Duration::from_secs(seconds.parse().expect("HOLD_LEASE_SECONDS is a number of seconds"))
}

/// A number that makes a test longer than it is in a usual run. scripts/prove sets it.
pub fn scale(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// By how many seconds the functions' clock is ahead of this machine's.
pub fn clock_ahead() -> i64 {
    i64::try_from(scale("ASTRA_CLOCK_AHEAD", 0)).expect("ASTRA_CLOCK_AHEAD is a few weeks in seconds")
}

/// The address of the stack's stand-in for Typesense; none where the stack has no Typesense.
pub fn typesense() -> Option<String> {
    std::env::var("TYPESENSE_URL").ok().filter(|url| !url.is_empty())
}

/// An origin that the stack lets call from a browser: the first of `ALLOWED_ORIGINS`.
pub fn allowed_origin() -> String {
    let origins = required("ALLOWED_ORIGINS", "the stack's allowed origins; the tests need at least one, not *");
    origins.split(',').next().unwrap_or_default().trim().to_owned()
}
