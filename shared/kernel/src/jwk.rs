//! An issuer's public keys: a JWK set (RFC 7517), of which is kept what a signature can be checked with here.
//!
//! The algorithm belongs to the key, never to the token: an Ed25519 key is for `EdDSA`, one on P-256 for ES256, an RSA key for RS256, and a key that says
//! something else (`alg`, `use`, `key_ops`) is for nothing here. A secret (`kty` `oct`) in a set is not a key. Keys of kinds that are not known are skipped,
//! as RFC 7517 section 5 asks. All of this is decided here and not by the host's cryptography, so that every host takes the same keys.

use crate::json;
use crate::jws::Algorithm;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The largest set that is read, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The most keys that a set may have.
const MAX_KEYS: usize = 100;

/// A public key by its numbers, big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// A point on edwards25519.
    Ed25519 {
        /// The encoded point.
        x: [u8; 32],
    },
    /// A point on P-256.
    P256 {
        /// Its coordinates.
        x: [u8; 32],
        /// Its coordinates.
        y: [u8; 32],
    },
    /// An RSA key of 2048 to 8192 bits.
    Rsa {
        /// The modulus, without leading zeros.
        n: Vec<u8>,
        /// The exponent, without leading zeros.
        e: Vec<u8>,
    },
}

impl PublicKey {
    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519 { .. } => Algorithm::EdDSA,
            Self::P256 { .. } => Algorithm::ES256,
            Self::Rsa { .. } => Algorithm::RS256,
        }
    }

    /// A JWK with nothing in it but the key.
    pub fn jwk(&self) -> String {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed25519 { x } => format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, text(x)),
            Self::P256 { x, y } => format!(r#"{{"kty":"EC","crv":"P-256","x":"{}","y":"{}"}}"#, text(x), text(y)),
            Self::Rsa { n, e } => format!(r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#, text(n), text(e)),
        }
    }

    fn of(jwk: &Jwk) -> Option<Self> {
        if jwk.purpose.as_deref().is_some_and(|purpose| purpose != "sig")
            || jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
        {
            return None;
        }
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("OKP", Some("Ed25519")) => Self::Ed25519 { x: coordinate(jwk.x.as_ref())? },
            ("EC", Some("P-256")) => Self::P256 { x: coordinate(jwk.x.as_ref())?, y: coordinate(jwk.y.as_ref())? },
            ("RSA", _) => Self::rsa(number(jwk.n.as_ref())?, number(jwk.e.as_ref())?)?,
            _ => return None,
        };
        match jwk.alg.as_deref() {
            Some(alg) if Algorithm::named(alg) != Some(key.algorithm()) => None,
            _ => Some(key),
        }
    }

    /// A modulus that is long enough for this time and short enough to be checked in it, and an exponent that is one.
    fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Self> {
        let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let fits = (2048..=8192).contains(&bits) && is_odd(&n) && is_odd(&e) && e.len() <= 4 && e != [1];
        fits.then_some(Self::Rsa { n, e })
    }
}

fn bytes(text: Option<&String>) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text?).ok()
}

/// Of full length: RFC 7518 section 6.2.1.2.
fn coordinate(text: Option<&String>) -> Option<[u8; 32]> {
    bytes(text)?.try_into().ok()
}

fn number(text: Option<&String>) -> Option<Vec<u8>> {
    let bytes = bytes(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Some(bytes[zeros..].to_vec())
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// Reads one JWK, if it is a key that signatures can be checked with here, and its `kid`.
pub fn key(text: &str) -> Option<(Option<String>, PublicKey)> {
    let jwk: Jwk = json::from_str(text).ok()?;
    Some((jwk.kid.clone(), PublicKey::of(&jwk)?))
}

/// Why a set is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Over 64 KiB.
    #[error("the key set is larger than 64 KiB")]
    TooLarge,
    /// Over 100 keys.
    #[error("the key set has more than 100 keys")]
    TooMany,
    /// Another thing.
    #[error("it is not a JWK set")]
    NotASet,
}

/// An issuer's keys by `kid`. Keys without one are left out, and so are several with the same: which of them is meant is not said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<(String, PublicKey)>);

impl KeySet {
    /// Reads a JWK set.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        if text.len() > MAX_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let Set { keys } = serde_json::from_str(text).map_err(|_| KeySetError::NotASet)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<_> = keys.into_iter().filter_map(|raw| key(raw.get())).filter_map(|(kid, key)| Some((kid?, key))).collect();
        let is_clear = |(kid, key): &(String, PublicKey)| keys.iter().all(|(other, another)| other != kid || another == key);
        Ok(Self(keys.iter().filter(|entry| is_clear(entry)).cloned().collect()))
    }

    /// The key of this name.
    pub fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|(known, _)| known == kid).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;

    fn rsa(bits: usize, e: &str) -> String {
        let mut n = vec![0xff; bits / 8];
        if !bits.is_multiple_of(8) {
            n.insert(0, (1 << (bits % 8)) - 1);
        }
        format!(r#"{{"kty":"RSA","n":"{}","e":"{e}"}}"#, BASE64_URL_SAFE_NO_PAD.encode(n))
    }

    #[test]
    fn what_is_no_key_for_signatures_is_left_out() {
        let other_j = r#"{"kty":"OKP","crv":"Ed25519","x":"AAAYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"j"}"#;
        let set = format!(
            r#"{{"keys":[{{{ED},"kid":"a","x5c":["…"],"d":"private"}},{{{ED}}},{{"kty":"new","kid":"b"}},{{"kty":"oct","kid":"c","k":"AAAA"}},
                {{{ED},"kid":"d","alg":"HS256"}},{{{ED},"kid":"e","use":"enc"}},{{{ED},"kid":"f","key_ops":["sign"]}},
                {{{ED},"kid":"g","alg":"Ed25519","use":"sig","key_ops":["verify"]}},{{"kty":"EC","crv":"P-256","kid":"h","x":"AA","y":"AA"}},
                {{{ED},"kid":7}},"i",{{{ED},"kid":"a","alg":"EdDSA"}},{{{ED},"kid":"j"}},{other_j}],"other":1}}"#
        );
        let set = KeySet::parse(&set).unwrap();
        assert_eq!(set.0.iter().map(|(kid, _)| kid.as_str()).collect::<Vec<_>>(), ["a", "g", "a"]);
        assert!(set.get("a").is_some() && set.get("b").is_none());
        for (_, one) in set.0 {
            assert_eq!(key(&one.jwk()).unwrap().1, one);
        }
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]} x"#, "<html>"] {
            assert_eq!(KeySet::parse(text), Err(KeySetError::NotASet), "{text}");
        }
        assert_eq!(KeySet::parse(r#"{"keys":[]}"#), Ok(KeySet::default()));
    }

    #[test]
    fn sets_have_limits() {
        let of = |keys: usize| format!(r#"{{"keys":[{}]}}"#, vec!["{}"; keys].join(","));
        assert!(KeySet::parse(&of(100)).is_ok());
        assert_eq!(KeySet::parse(&of(101)), Err(KeySetError::TooMany));
        assert_eq!(KeySet::parse(&format!("{}{}", of(1), " ".repeat(MAX_BYTES))), Err(KeySetError::TooLarge));
    }

    #[test]
    fn weak_and_odd_rsa_keys_are_refused() {
        for (text, good) in [
            (rsa(2048, "AQAB"), true),
            (rsa(8192, "Aw"), true),
            (rsa(2047, "AQAB"), false),
            (rsa(1024, "AQAB"), false),
            (rsa(8200, "AQAB"), false),
            (rsa(2048, "AQ"), false),
            (rsa(2048, "AQAA"), false),
            (rsa(2048, "AQAAAAE"), false),
            (rsa(2048, ""), false),
            (rsa(0, "AQAB"), false),
        ] {
            assert_eq!(key(&text).is_some(), good, "{text}");
        }
    }
}
