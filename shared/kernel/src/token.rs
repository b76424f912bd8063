//! Bearer tokens: who is calling, for which workspace, as what.
//!
//! Tokens made here are HS256 with rotation by `kid`: the first key of `TOKEN_KEYS` signs, all of them verify. Tokens of other issuers ([`crate::issuer`])
//! have the same claims. Whose keys a token is checked with is chosen by its `iss`, which key by its `kid`, and the algorithm is the key's: what the header
//! says must be that, and nothing else of a token is believed before its signature is checked.

use crate::jws::{Algorithm, Jws};
use crate::permission::is_role_name;
use crate::{ConfigError, Role, Timestamp, WorkspaceId, json};
use jsonwebtoken::{DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Serialize};

/// Both issuer and audience of every token made here.
pub const AUDIENCE: &str = "astra-edge";

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 5;

/// The longest subject and id of a token, in characters.
const MAX_NAME: usize = 255;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// The workspace; absent on operator tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws: Option<WorkspaceId>,
    /// The role in that workspace when it was signed, or `operator`. What its bearer may do now is the database's to say.
    pub role: String,
    /// Permissions that the token is narrowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// What a token says, as it says it.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    sub: String,
    ws: Option<WorkspaceId>,
    role: String,
    scope: Option<Vec<String>>,
    jti: String,
    iat: Option<i64>,
    nbf: Option<i64>,
    exp: i64,
    iss: String,
    aud: Audience,
}

/// One or several (RFC 7519 section 4.1.3).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn holds(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

impl Said {
    /// The claims, when they are this issuer's, for this audience, and hold at this moment.
    pub(crate) fn into_claims(self, issuer: &str, audience: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let Self { sub, ws, role, scope, jti, iat, nbf, exp, iss, aud } = self;
        if iss != issuer {
            return Err(TokenError::Invalid("issuer"));
        }
        if !aud.holds(audience) {
            return Err(TokenError::Invalid("audience"));
        }
        if !is_name(&sub) || !is_name(&jti) {
            return Err(TokenError::Invalid("sub and jti have 1 to 255 characters, no control characters"));
        }
        let now = now.unix_seconds();
        if exp.saturating_add(LEEWAY) <= now {
            return Err(TokenError::Expired);
        }
        if nbf.is_some_and(|nbf| nbf.saturating_sub(LEEWAY) > now) {
            return Err(TokenError::Invalid("not valid yet"));
        }
        let claims = Claims { sub, ws, role, scope, jti, iat: iat.unwrap_or(0), exp, iss, aud: audience.to_owned() };
        if claims.is_whole() { Ok(claims) } else { Err(TokenError::Invalid("role and workspace do not fit")) }
    }
}

/// What goes into rows and logs.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// A token that is taken apart. Whose it is can be asked, to find the keys that it is checked with; what it says cannot.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// What is signed, how, and by which key.
    pub jws: Jws<'a>,
    pub(crate) said: Said,
}

impl<'a> Unverified<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenError::Invalid`].
    pub fn parse(token: &'a str) -> Result<Self, TokenError> {
        let jws = Jws::parse(token)?;
        let payload = std::str::from_utf8(&jws.payload).map_err(|_| TokenError::Invalid("claims"))?;
        let said = json::from_str(payload).map_err(|_| TokenError::Invalid("claims"))?;
        Ok(Self { jws, said })
    }

    /// Who is said to have issued it.
    pub fn issuer(&self) -> &str {
        &self.said.iss
    }
}

struct TokenKey {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// The deployment's signing keys.
pub struct TokenKeys(Vec<TokenKey>);

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|k| &k.kid)).finish()
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
        Ok(Self(keys))
    }

    /// Signs claims with the first key.
    ///
    /// # Errors
    /// When the claims do not serialise, which does not happen.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let key = self.0.first().ok_or(TokenError::Invalid("no key"))?;
        let header = Header { kid: Some(key.kid.clone()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &key.encoding).map_err(|_| TokenError::Invalid("claims"))
    }

    /// Verifies a token at a moment.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        self.check(Unverified::parse(token)?, now)
    }

    /// Verifies a token that is taken apart.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn check(&self, token: Unverified<'_>, now: Timestamp) -> Result<Claims, TokenError> {
        self.check_signature(&token.jws)?;
        token.said.into_claims(AUDIENCE, AUDIENCE, now)
    }

    /// Whether the key that it names has signed it.
    ///
    /// # Errors
    /// [`TokenError::Invalid`].
    pub fn check_signature(&self, jws: &Jws<'_>) -> Result<(), TokenError> {
        let kid = jws.kid()?;
        let key = self.0.iter().find(|k| k.kid == kid).ok_or(TokenError::Invalid("unknown kid"))?;
        if key.has_signed(jws) { Ok(()) } else { Err(TokenError::Invalid("signature")) }
    }
}

impl TokenKey {
    /// Whether a token is signed with it, and with HMAC.
    fn has_signed(&self, jws: &Jws<'_>) -> bool {
        jws.algorithm == Algorithm::HS256
            && jsonwebtoken::crypto::verify(jws.signature_text, jws.signed, &self.decoding, jsonwebtoken::Algorithm::HS256).unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

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
        let header = Header { kid: Some("a".into()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &json, &EncodingKey::from_secret(&[1; 32])).unwrap();
        assert!(keys.verify(&token, NOW).is_err());
    }

    #[test]
    fn the_example_of_rfc_7515_a_1_verifies() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
            dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let keys = keys(&format!("a:{secret}"));
        let jws = Jws::parse(token).unwrap();
        assert!(keys.0[0].has_signed(&jws));
        assert_eq!(keys.check_signature(&jws), Err(TokenError::Invalid("no kid")), "it is taken from nobody here");
    }

    #[test]
    fn short_secrets_are_refused_without_being_shown() {
        let error = TokenKeys::parse("a:c2hvcnQ").unwrap_err().to_string();
        assert!(error.contains("TOKEN_KEYS") && !error.contains("c2hvcnQ"), "{error}");
    }
}
