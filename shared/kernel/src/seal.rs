//! Secrets at rest: AES-256-GCM under a key of the host's configuration, bound to workspace and name.
//!
//! Workspace and name are the associated data: a row copied to another workspace or name does not open. Rotation: the first key of
//! `SECRETS_KEY` seals, all of them open.

use crate::{ConfigError, WorkspaceId};
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};

/// Length of a nonce in bytes (NIST SP 800-38D: 96 bits).
pub const NONCE_LENGTH: usize = 12;

/// A secret does not open: another key, workspace or name, or changed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored secret does not open: SECRETS_KEY no longer holds the key it was sealed with, or the row was changed")]
pub struct SealError;

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which key sealed it.
    pub key_id: String,
    /// The nonce.
    pub nonce: Vec<u8>,
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
}

/// The deployment's keys for secrets.
pub struct SecretsKey {
    keys: Vec<(String, Aes256Gcm)>,
}

impl std::fmt::Debug for SecretsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(kid, _)| kid)).finish()
    }
}

fn associated(workspace: &WorkspaceId, name: &str) -> String {
    // Neither part can hold a NUL, so the pair is unambiguous.
    format!("{workspace}\0{name}")
}

impl SecretsKey {
    /// Reads `SECRETS_KEY`: `kid:key` pairs with commas between them, keys of 32 bytes in base64url without padding.
    ///
    /// # Errors
    /// Says which key is wrong, never its bytes.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let keys = crate::config::key_list("SECRETS_KEY", text)?
            .into_iter()
            .map(|(kid, key)| match Aes256Gcm::new_from_slice(&key) {
                Ok(cipher) => Ok((kid, cipher)),
                Err(_) => Err(ConfigError::Malformed("SECRETS_KEY", format!("key {kid} is not of 32 bytes"))),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    /// Seals a value with the first key and a fresh nonce from the host's randomness.
    ///
    /// # Errors
    /// [`SealError`], which does not happen for values of a sane size.
    pub fn seal(&self, workspace: &WorkspaceId, name: &str, value: &[u8], nonce: [u8; NONCE_LENGTH]) -> Result<Sealed, SealError> {
        let (key_id, cipher) = self.keys.first().ok_or(SealError)?;
        let aad = associated(workspace, name);
        let ciphertext = cipher.encrypt(&Nonce::from(nonce), Payload { msg: value, aad: aad.as_bytes() }).map_err(|_| SealError)?;
        Ok(Sealed { key_id: key_id.clone(), nonce: nonce.to_vec(), ciphertext })
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, workspace: &WorkspaceId, name: &str, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        let (_, cipher) = self.keys.iter().find(|(kid, _)| *kid == sealed.key_id).ok_or(SealError)?;
        let nonce: [u8; NONCE_LENGTH] = sealed.nonce.as_slice().try_into().map_err(|_| SealError)?;
        let aad = associated(workspace, name);
        cipher.decrypt(&Nonce::from(nonce), Payload { msg: &sealed.ciphertext, aad: aad.as_bytes() }).map_err(|_| SealError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

    fn workspace(id: &str) -> WorkspaceId {
        id.to_owned().try_into().unwrap()
    }

    #[test]
    fn opens_only_where_it_belongs() {
        let key = |byte| BASE64_URL_SAFE_NO_PAD.encode([byte; 32]);
        let old = SecretsKey::parse(&format!("a:{}", key(1))).unwrap();
        let new = SecretsKey::parse(&format!("b:{},a:{}", key(2), key(1))).unwrap();
        let other = SecretsKey::parse(&format!("a:{}", key(3))).unwrap();
        let sealed = old.seal(&workspace("w"), "OPENAI_API_KEY", b"sk-1", [7; 12]).unwrap();
        assert_eq!(new.open(&workspace("w"), "OPENAI_API_KEY", &sealed), Ok(b"sk-1".to_vec()));
        assert_eq!(old.open(&workspace("v"), "OPENAI_API_KEY", &sealed), Err(SealError));
        assert_eq!(old.open(&workspace("w"), "OTHER", &sealed), Err(SealError));
        assert_eq!(other.open(&workspace("w"), "OPENAI_API_KEY", &sealed), Err(SealError));
        let mut changed = sealed.clone();
        changed.ciphertext[0] ^= 1;
        assert_eq!(old.open(&workspace("w"), "OPENAI_API_KEY", &changed), Err(SealError));
        let mut short = sealed;
        short.nonce.pop();
        assert_eq!(old.open(&workspace("w"), "OPENAI_API_KEY", &short), Err(SealError));
    }

    #[test]
    fn a_wrong_length_is_named() {
        let error = SecretsKey::parse("a:AAAA").unwrap_err().to_string();
        assert!(error.contains("SECRETS_KEY") && error.contains("32 bytes"), "{error}");
    }
}
