//! Receipts: what an entry of the ledger says, signed by the deployment, so that a customer can prove later what was charged and when.
//!
//! A receipt is a compact JWS (RFC 7515) by Ed25519 (RFC 8037), whose payload is the database's text (`astra_kernel::ledger`). Ed25519 is deterministic: the same entry and key have the same
//! receipt, whenever it is made. It is signed by the host's cryptography ([`ReceiptKeys::seed`]), not here.

use crate::ConfigError;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

/// The deployment's keys for receipts, `RECEIPT_KEYS`: the first one signs, the others are published with it, so that older receipts can be verified.
pub struct ReceiptKeys(Vec<(String, [u8; 32])>);

impl std::fmt::Debug for ReceiptKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(kid, _)| kid)).finish()
    }
}

impl ReceiptKeys {
    /// Reads `kid:seed` pairs with commas between them, a seed (RFC 8032's private key) of 32 bytes in base64url without padding.
    ///
    /// # Errors
    /// Says which pair is wrong, never its seed.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let of_length = |(kid, seed): (String, Vec<u8>)| match seed.try_into() {
            Ok(seed) => Ok((kid, seed)),
            Err(_) => Err(ConfigError::malformed("RECEIPT_KEYS", format!("key {kid} is not of 32 bytes"))),
        };
        // There is one at least: a text without a pair is malformed.
        crate::config::key_list("RECEIPT_KEYS", text)?.into_iter().map(of_length).collect::<Result<_, _>>().map(Self)
    }

    /// The key that signs: its name and its seed.
    pub fn signing(&self) -> Option<(&str, &[u8; 32])> {
        self.0.first().map(|(kid, seed)| (kid.as_str(), seed))
    }

    /// All keys.
    pub fn all(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        self.0.iter().map(|(kid, seed)| (kid.as_str(), seed))
    }
}

/// What is signed of a receipt: header and payload.
pub fn signed_part(kid: &str, text: &str) -> String {
    // A kid needs no escapes (config::key_list).
    let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"{kid}","typ":"receipt+jwt"}}"#));
    format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(text))
}

/// A receipt, from what was signed and the signature.
pub fn compact(signed: &str, signature: &[u8]) -> String {
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    #[test]
    fn the_first_key_signs_and_wrong_ones_are_named() {
        let keys = ReceiptKeys::parse(&format!("r2:{SEED}, r1:{SEED}")).unwrap();
        assert_eq!(keys.signing().unwrap().0, "r2");
        assert_eq!(keys.all().map(|(kid, _)| kid).collect::<Vec<_>>(), ["r2", "r1"]);
        assert_eq!(format!("{keys:?}"), r#"["r2", "r1"]"#);
        for (text, says) in [("", "entry 1"), ("r1:AAAA", "key r1"), (&format!("r1:{SEED},r2:AAAAAAAA"), "key r2")] {
            let error = ReceiptKeys::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("RECEIPT_KEYS is malformed") && error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_receipt_is_a_compact_jws() {
        let receipt = compact(&signed_part("r1", r#"{"a":1}"#), &[1, 2]);
        let jws = crate::jws::Jws::parse(&receipt).unwrap();
        assert_eq!((jws.kid(), jws.algorithm), (Ok("r1"), crate::jws::Algorithm::EdDSA));
        assert_eq!((jws.payload, jws.signature), (br#"{"a":1}"#.to_vec(), vec![1, 2]));
    }
}
