//! The proof that a statement is for a workspace: what the database asks for before it shows a workspace's rows.
//!
//! The functions' keys are not in the database where an app role could read them, so SQL that somebody smuggles into a statement cannot speak for another
//! workspace, nor for another caller: `migrations/0020` checks the proof in every policy. It is good for minutes and names no secret, but it is not for logs.
//!
//! Form: `MAC WORKSPACE EXPIRES KID ACTOR`, blanks between; MAC is HMAC-SHA256 over all that follows it, in hexadecimal; EXPIRES in seconds since 1970; ACTOR is
//! who asks, JSON, empty for the counter and other work that nobody asked for.

use crate::{ConfigError, Timestamp, WorkspaceId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// How long a proof is good for at least, in seconds: the time a statement may wait, and what the clocks of a function and its database may differ by.
const GOOD_FOR: i64 = 300;

/// Proofs of one minute are the same, so that calls of one workspace may go together.
const STEP: i64 = 60;

/// The deployment's keys for proofs, `TENANT_KEYS`: the first one signs. The database knows all of them.
pub struct TenantKeys {
    kid: String,
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TenantKeys").field(&self.kid).finish()
    }
}

/// Reads `TENANT_KEYS`: `kid:key` pairs with commas between them, keys in base64url without padding, 32 to 64 bytes (RFC 2104: longer ones would be hashed
/// first, which the database does not do).
///
/// # Errors
/// Says which pair is wrong, never its key.
pub fn keys(text: &str) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
    let keys = crate::config::key_list("TENANT_KEYS", text)?;
    match keys.iter().find(|(_, key)| !(32..=64).contains(&key.len())) {
        Some((kid, _)) => Err(ConfigError::malformed("TENANT_KEYS", format!("key {kid} is not of 32 to 64 bytes"))),
        None => Ok(keys),
    }
}

impl TenantKeys {
    /// The keys of a function.
    ///
    /// # Errors
    /// As [`keys`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let missing = || ConfigError::malformed("TENANT_KEYS", "it holds no key");
        let (kid, key) = keys(text)?.into_iter().next().ok_or_else(missing)?;
        let mac = Hmac::new_from_slice(&key).map_err(|_| missing())?;
        Ok(Self { kid, mac })
    }

    /// A proof for a workspace, made at a moment; `actor` is JSON, or empty.
    pub fn prove(&self, workspace: &WorkspaceId, actor: &str, now: Timestamp) -> String {
        let expires = (now.unix_seconds().div_euclid(STEP) + 1) * STEP + GOOD_FOR;
        let said = format!("{workspace} {expires} {} {actor}", self.kid);
        let mac = self.mac.clone().chain_update(&said).finalize().into_bytes();
        format!("{} {said}", hex::encode(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_the_minutes_and_says_what_it_is_for() {
        let keys =
            TenantKeys::parse("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8,old:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4").unwrap();
        let acme = WorkspaceId::try_from("acme".to_owned()).unwrap();
        let at = |seconds: i64| keys.prove(&acme, "", Timestamp(seconds * 1000));
        assert_eq!(at(1_800_000_000), at(1_800_000_059));
        assert_ne!(at(1_800_000_000), at(1_800_000_060));
        let proof = keys.prove(&acme, r#"{"sub":"u 1"}"#, Timestamp(1_800_000_000_000));
        // By Python's hmac over the rest of the line.
        let mac = "a86a86c266b7bb60efa812f68701fc01792a6f8c61d8065bae771d5b0cd55b01";
        assert_eq!(proof, format!(r#"{mac} acme 1800000360 k1 {{"sub":"u 1"}}"#));
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        assert!(TenantKeys::parse("k1:AAAA").unwrap_err().to_string().starts_with("TENANT_KEYS is malformed: key k1"));
        assert!(TenantKeys::parse("").is_err());
    }
}
