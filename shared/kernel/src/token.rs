//! Bearer tokens: who is calling, for which workspace, as what.
//!
//! HS256 with rotation by `kid`: the first key of `TOKEN_KEYS` signs, all of them verify. The algorithm is fixed here and never
//! taken from the token; a token without `exp`, for another audience or issuer, or with an unknown `kid` does not verify.

use crate::permission::is_role_name;
use crate::{ConfigError, Role, Timestamp, WorkspaceId};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// Both issuer and audience of every token made here.
pub const AUDIENCE: &str = "astra-edge";

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 5;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// The workspace; absent on operator tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ws: Option<WorkspaceId>,
    /// The role in that workspace when it was signed, or `operator`. What its bearer may do now is the database's to say.
    pub role: String,
    /// Permissions that the token is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Vec<String>>,
    /// The token's own id.
    pub jti: String,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// Expires at, seconds since 1970.
    pub exp: i64,
    /// Issuer.
    pub iss: String,
    /// Audience.
    pub aud: String,
}

impl Claims {
    /// Whether it is an operator's: those, and no others, are for no workspace.
    pub fn is_operator(&self) -> bool {
        self.ws.is_none() && self.role == Role::Operator.as_str()
    }

    /// Whether role and workspace belong together.
    fn is_whole(&self) -> bool {
        self.is_operator() || (self.ws.is_some() && is_role_name(&self.role))
    }
}

/// Why a token is refused. One variant for the caller: which check failed is nobody's business but the log's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not verify.
    #[error("the token does not verify: {0}")]
    Invalid(&'static str),
    /// It was good once.
    #[error("the token has expired")]
    Expired,
}

struct TokenKey {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// The deployment's signing keys.
pub struct TokenKeys {
    keys: Vec<TokenKey>,
    validation: Validation,
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|k| &k.kid)).finish()
    }
}

impl TokenKeys {
    /// Reads `TOKEN_KEYS`: `kid:secret` pairs with commas between them, secrets in base64url without padding, at least 32 bytes (RFC 7518 section 3.2).
    ///
    /// # Errors
    /// Says which pair is wrong, never its secret.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        crate::hs256::install();
        let keys = crate::config::key_list("TOKEN_KEYS", text)?
            .into_iter()
            .map(|(kid, secret)| {
                if secret.len() < 32 {
                    return Err(ConfigError::malformed("TOKEN_KEYS", format!("the secret of key {kid} has less than 32 bytes")));
                }
                Ok(TokenKey { kid, encoding: EncodingKey::from_secret(&secret), decoding: DecodingKey::from_secret(&secret) })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[AUDIENCE]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The clock is the host's: `exp` is checked below.
        validation.validate_exp = false;
        Ok(Self { keys, validation })
    }

    /// Signs claims with the first key.
    ///
    /// # Errors
    /// When the claims do not serialise, which does not happen.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let key = self.keys.first().ok_or(TokenError::Invalid("no key"))?;
        let header = Header { kid: Some(key.kid.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &key.encoding).map_err(|_| TokenError::Invalid("claims"))
    }

    /// Verifies a token at a moment.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let kid = kid_of(token)?;
        let key = self.keys.iter().find(|k| k.kid == kid).ok_or(TokenError::Invalid("unknown kid"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation)
            .map_err(|_| TokenError::Invalid("signature or claims"))?
            .claims;
        if claims.exp + LEEWAY <= now.unix_seconds() {
            return Err(TokenError::Expired);
        }
        if !claims.is_whole() {
            return Err(TokenError::Invalid("role and workspace do not fit"));
        }
        Ok(claims)
    }
}

/// Reads `alg` and `kid` without believing either: the algorithm must be the one used here, the key one of ours.
fn kid_of(token: &str) -> Result<String, TokenError> {
    #[derive(Deserialize)]
    struct Unverified {
        alg: String,
        kid: Option<String>,
    }
    let header = token.split('.').next().unwrap_or_default();
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Invalid("header"))?;
    let header: Unverified = serde_json::from_slice(&header).map_err(|_| TokenError::Invalid("header"))?;
    if header.alg != "HS256" {
        return Err(TokenError::Invalid("algorithm"));
    }
    header.kid.ok_or(TokenError::Invalid("no kid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn keys(text: &str) -> TokenKeys {
        TokenKeys::parse(text).unwrap()
    }

    fn secret(byte: u8) -> String {
        BASE64_URL_SAFE_NO_PAD.encode([byte; 32])
    }

    fn claims() -> Claims {
        Claims {
            sub: "u".into(),
            ws: Some("w".to_owned().try_into().unwrap()),
            role: "member".into(),
            scope: None,
            jti: "j".into(),
            iat: NOW.unix_seconds(),
            exp: NOW.unix_seconds() + 900,
            iss: AUDIENCE.into(),
            aud: AUDIENCE.into(),
        }
    }

    #[test]
    fn signs_and_verifies_over_a_rotation() {
        let old = keys(&format!("a:{}", secret(1)));
        let new = keys(&format!("b:{},a:{}", secret(2), secret(1)));
        let token = old.sign(&claims()).unwrap();
        assert_eq!(new.verify(&token, NOW), Ok(claims()));
        let token = new.sign(&claims()).unwrap();
        assert_eq!(old.verify(&token, NOW), Err(TokenError::Invalid("unknown kid")));
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let keys = keys(&format!("a:{}", secret(1)));
        let good = keys.sign(&claims()).unwrap();
        assert!(keys.verify(&good, NOW).is_ok());
        assert_eq!(keys.verify(&good, NOW.plus_millis(906_000)), Err(TokenError::Expired));
        let mut tampered = good.clone();
        tampered.replace_range(good.len() - 2.., "xx");
        assert!(keys.verify(&tampered, NOW).is_err());
        for claims in [
            Claims { aud: "other".into(), ..claims() },
            Claims { iss: "other".into(), ..claims() },
            Claims { role: "operator".into(), ..claims() },
            Claims { ws: None, ..claims() },
            Claims { role: "God".into(), ..claims() },
        ] {
            let token = keys.sign(&claims).unwrap();
            assert!(keys.verify(&token, NOW).is_err(), "{claims:?}");
        }
        let none = format!("{}.{}.", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"a"}"#), good.split('.').nth(1).unwrap());
        assert_eq!(keys.verify(&none, NOW), Err(TokenError::Invalid("algorithm")));
        for garbage in ["", ".", "..", "a.b.c", "é"] {
            assert!(keys.verify(garbage, NOW).is_err());
        }
    }

    #[test]
    fn a_token_without_expiry_is_refused() {
        let keys = keys(&format!("a:{}", secret(1)));
        let mut json = serde_json::to_value(claims()).unwrap();
        json.as_object_mut().unwrap().remove("exp");
        let header = Header { kid: Some("a".into()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &json, &EncodingKey::from_secret(&[1; 32])).unwrap();
        assert!(keys.verify(&token, NOW).is_err());
    }

    #[test]
    fn short_secrets_are_refused_without_being_shown() {
        let error = TokenKeys::parse("a:c2hvcnQ").unwrap_err().to_string();
        assert!(error.contains("TOKEN_KEYS") && !error.contains("c2hvcnQ"), "{error}");
    }
}
