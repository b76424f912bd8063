//! Signatures of other issuers' tokens are checked, and receipts signed, by ring (which TLS brings along natively). Workers have the runtime's own cryptography for it.

use astra_kernel::jwk::PublicKey;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

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

/// Signs by Ed25519.
pub(crate) fn sign(seed: &[u8; 32], bytes: &[u8]) -> Option<Vec<u8>> {
    Ed25519KeyPair::from_seed_unchecked(seed).ok().map(|pair| pair.sign(bytes).as_ref().to_vec())
}

/// A seed's public key, in base64url.
pub(crate) fn public_key(seed: &[u8; 32]) -> Option<String> {
    Ed25519KeyPair::from_seed_unchecked(seed).ok().map(|pair| BASE64_URL_SAFE_NO_PAD.encode(pair.public_key()))
}
