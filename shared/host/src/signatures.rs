//! Signatures of other issuers' tokens, checked by ring (which TLS brings along natively). Workers have the runtime's own cryptography for it.

use astra_kernel::jwk::PublicKey;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};

/// Whether a signature of these bytes is the key's.
pub(crate) fn is_signed(key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
    match key {
        PublicKey::Ed25519 { x } => UnparsedPublicKey::new(&ED25519, x).verify(signed, signature),
        PublicKey::P256 { x, y } => {
            let point = [&[4][..], x, y].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
        }
        PublicKey::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature),
    }
    .is_ok()
}
