//! The compact form of a signed token (RFC 7515 section 7.1), taken apart strictly and believed in nothing yet.
//!
//! The traps: what is signed is the text as it was sent, so nothing is encoded again; base64url that has two readings (padding, stray characters, bits that
//! are left over) is refused; an extension that must be understood (`crit`, RFC 7515 section 4.1.11, and `b64`, RFC 7797) is not understood here. A key in
//! the header (`jwk`, `jku`, `x5c`) is never looked at.

use crate::json;
use crate::token::TokenError;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Deserializer};

/// The largest token that is looked at, in bytes.
pub const MAX_BYTES: usize = 8 * 1024;

/// The algorithms of this house. What is not here cannot be asked for by a token either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: tokens made here.
    HS256,
    /// Ed25519 (RFC 8037; `Ed25519` is its name in RFC 9864).
    #[serde(alias = "Ed25519")]
    EdDSA,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    RS256,
}

impl Algorithm {
    /// By the name that a header or a key says.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::HS256),
            "EdDSA" | "Ed25519" => Some(Self::EdDSA),
            "ES256" => Some(Self::ES256),
            "RS256" => Some(Self::RS256),
            _ => None,
        }
    }
}

/// A token's parts.
#[derive(Debug)]
pub struct Jws<'a> {
    /// What its header says that it is signed with.
    pub algorithm: Algorithm,
    /// The key that its header names.
    pub kid: Option<String>,
    /// What is signed.
    pub signed: &'a [u8],
    /// What it says.
    pub payload: Vec<u8>,
    /// The signature, still as text.
    pub signature_text: &'a str,
    /// The signature.
    pub signature: Vec<u8>,
}

/// What may not be there, whatever its value.
#[derive(Default)]
struct Absent;

impl<'de> Deserialize<'de> for Absent {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("not understood here"))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, rename = "crit")]
    _crit: Absent,
    #[serde(default, rename = "b64")]
    _b64: Absent,
}

impl<'a> Jws<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenError::Invalid`].
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::Invalid("too large"));
        }
        let (signed, signature_text) = token.rsplit_once('.').ok_or(TokenError::Invalid("shape"))?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Invalid("shape"))?;
        let part = |text: &str, what| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Invalid(what));
        let header = String::from_utf8(part(header, "header")?).map_err(|_| TokenError::Invalid("header"))?;
        let Header { alg, kid, .. } = json::from_str(&header).map_err(|_| TokenError::Invalid("header"))?;
        let algorithm = Algorithm::named(&alg).ok_or(TokenError::Invalid("algorithm"))?;
        let (payload, signature) = (part(payload, "payload")?, part(signature_text, "signature")?);
        Ok(Self { algorithm, kid, signed: signed.as_bytes(), payload, signature_text, signature })
    }

    /// The key that it names.
    ///
    /// # Errors
    /// When it names none.
    pub fn kid(&self) -> Result<&str, TokenError> {
        self.kid.as_deref().ok_or(TokenError::Invalid("no kid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        format!("{}.e30.AA", BASE64_URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn only_one_reading_is_taken() {
        assert_eq!(Jws::parse(&token(r#"{"alg":"EdDSA","kid":"a","typ":"JWT","jku":"https://x"}"#)).unwrap().kid.as_deref(), Some("a"));
        for header in [
            r#"{"kid":"a"}"#,
            r#"{"alg":"none"}"#,
            r#"{"alg":"ES256","alg":"HS256"}"#,
            r#"{"alg":"ES256","kid":1}"#,
            r#"{"alg":"ES256","crit":["exp"]}"#,
            r#"{"alg":"ES256","crit":null}"#,
            r#"{"alg":"ES256","b64":false}"#,
            r#"{"alg":"ES256","b64":true}"#,
            r#"{"alg":"ES256"} x"#,
            r#"["ES256","a"]"#,
            "ES256",
        ] {
            assert!(Jws::parse(&token(header)).is_err(), "{header}");
        }
        let good = token(r#"{"alg":"ES256"}"#);
        assert!(Jws::parse(&good).is_ok());
        for bad in [format!("{good}="), format!("{good}.AA"), format!(" {good}"), good.replace(".e30.", ".e31."), good.replace(".AA", ".A")]
        {
            assert!(Jws::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_too_large_is_not_looked_at() {
        let of = |length: usize| format!("{}{}", token(r#"{"alg":"ES256"}"#), "A".repeat(length));
        let room = MAX_BYTES - of(0).len();
        assert!(Jws::parse(&of(room / 4 * 4)).is_ok());
        assert_eq!(Jws::parse(&of(room + 1)).unwrap_err(), TokenError::Invalid("too large"));
    }
}
