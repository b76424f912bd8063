//! The proof of a tenant as a function makes it (docs/contracts/sql.md), and false ones.

use crate::{environment, jwt};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

/// A good proof of a workspace, for five minutes; nobody asks.
pub fn of(workspace: &str) -> String {
    let (kid, key) = environment::tenant_key();
    signed(&format!("{workspace} {} {kid} ", jwt::now() + 300), &key)
}

/// What is said, signed with a key.
pub fn signed(said: &str, key: &[u8]) -> String {
    let mac = crypto::sign(said.as_bytes(), &EncodingKey::from_secret(key), Algorithm::HS256).expect("it is signed");
    let mac = BASE64_URL_SAFE_NO_PAD.decode(mac).expect("a signature is base64url");
    format!("{} {said}", hex::encode(mac))
}
