//! Bearer tokens as the operator of the deployment would sign them, and forged ones.

use crate::environment;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Seconds since 1970, by the functions' clock.
pub fn now() -> i64 {
    let elapsed = std::time::UNIX_EPOCH.elapsed().expect("the clock is after 1970");
    i64::try_from(elapsed.as_secs()).expect("the clock fits") + environment::clock_ahead()
}

/// An operator's claims, good for ten minutes.
pub fn operator_claims() -> Value {
    json!({ "sub": "operator@tests", "role": "operator", "jti": uuid::Uuid::new_v4(), "iat": now(), "exp": now() + 600, "iss": "astra-edge", "aud": "astra-edge" })
}

/// A member's claims, good for ten minutes.
pub fn member_claims(workspace: &str, subject: &str, role: &str) -> Value {
    let mut claims = operator_claims();
    claims["ws"] = workspace.into();
    claims["sub"] = subject.into();
    claims["role"] = role.into();
    claims
}

/// Signs claims with the deployment's key.
pub fn sign(claims: &Value) -> String {
    let (kid, secret) = environment::token_key();
    sign_with(claims, &Header { kid: Some(kid), ..Header::new(Algorithm::HS256) }, &secret)
}

/// Signs claims under any header with any HMAC secret.
pub fn sign_with(claims: &Value, header: &Header, secret: &[u8]) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).expect("claims are signed")
}

/// An operator's token.
pub fn operator() -> String {
    sign(&operator_claims())
}

/// A token for one user of one workspace.
pub fn member(workspace: &str, subject: &str, role: &str) -> String {
    sign(&member_claims(workspace, subject, role))
}

/// A token put together by hand: any header, any claims, any signature.
pub fn forge(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}.{}", part(header.to_string().as_bytes()), part(claims.to_string().as_bytes()), part(signature))
}
