//! Other issuers of tokens, from `TOKEN_ISSUERS`: whose tokens are taken, where their keys are, and what they may speak for.
//!
//! An issuer says who somebody is and what they are in a workspace. It makes an operator only where its entry says so, and with `workspaces` it speaks for
//! those alone. Its keys come from its own address; nothing in a token says where.

use crate::jws::Algorithm;
use crate::token::{AUDIENCE, TokenError, Unverified};
use crate::{Claims, ConfigError, Timestamp, WorkspaceId, json};
use serde::Deserialize;
use serde_json::value::RawValue;

const NAME: &str = "TOKEN_ISSUERS";

/// The most entries.
const MAX_ISSUERS: usize = 50;

/// One issuer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct Issuer {
    /// What its tokens say as `iss`.
    pub issuer: String,
    /// What they say as `aud`.
    #[serde(default = "our_audience")]
    audience: String,
    /// Where its JWK set is.
    pub jwks_url: String,
    /// What they may be signed with.
    #[serde(default = "all_algorithms")]
    algorithms: Vec<Algorithm>,
    /// The workspaces that it may speak for; all when absent.
    workspaces: Option<Vec<WorkspaceId>>,
    /// Whether it may make operators.
    #[serde(default)]
    operators: bool,
}

fn our_audience() -> String {
    AUDIENCE.to_owned()
}

fn all_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256]
}

impl Issuer {
    /// Whether a signature of this algorithm is one of this issuer's.
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// What a token says, if it is for here, holds at this moment and says no more than its issuer may. Its signature has been checked.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn claims(&self, token: Unverified<'_>, now: Timestamp) -> Result<Claims, TokenError> {
        let claims = token.said.into_claims(&self.issuer, &self.audience, now)?;
        if claims.is_operator() && !self.operators {
            return Err(TokenError::Invalid("this issuer makes no operators"));
        }
        match (&self.workspaces, &claims.ws) {
            (Some(allowed), Some(ws)) if !allowed.contains(ws) => Err(TokenError::Invalid("this issuer does not speak for the workspace")),
            _ => Ok(claims),
        }
    }

    fn check(&self, allow_http: bool) -> Result<(), &'static str> {
        if self.issuer.is_empty() || self.issuer.len() > 512 {
            return Err("issuer is a text of 1 to 512 bytes");
        }
        if self.issuer == AUDIENCE {
            return Err("issuer is the name of the tokens that are made here");
        }
        if self.audience.is_empty() {
            return Err("audience is empty");
        }
        if self.algorithms.is_empty() || self.takes(Algorithm::HS256) {
            return Err("algorithms are one or more of EdDSA, ES256, RS256");
        }
        if self.operators && self.workspaces.is_some() {
            return Err("an issuer with operators cannot be held to workspaces: an operator belongs to none");
        }
        check_url(&self.jwks_url, allow_http)
    }
}

fn check_url(url: &str, allow_http: bool) -> Result<(), &'static str> {
    let uri: http::Uri = url.parse().map_err(|_| "jwksUrl is not a URL")?;
    let Some((host, authority)) = uri.host().zip(uri.authority()) else { return Err("jwksUrl is not a URL") };
    if authority.as_str().contains('@') {
        return Err("jwksUrl holds a name or password");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if allow_http && matches!(host, "127.0.0.1" | "[::1]" | "localhost") => Ok(()),
        _ => Err("jwksUrl is not https"),
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Issuers(Vec<Issuer>);

impl Issuers {
    /// Reads `TOKEN_ISSUERS`: a JSON list, `[{"issuer", "audience"?, "jwksUrl", "algorithms"?, "workspaces"?, "operators"?}]`. With `allow_http` a key set
    /// may be at an http address of this machine.
    ///
    /// # Errors
    /// Says which entry is wrong, and how.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, ConfigError> {
        let entries: Vec<Box<RawValue>> =
            json::from_str(text).map_err(|_| ConfigError::malformed(NAME, "it is not a JSON list of issuers"))?;
        if entries.len() > MAX_ISSUERS {
            return Err(ConfigError::malformed(NAME, format!("it has more than {MAX_ISSUERS} entries")));
        }
        let mut issuers: Vec<Issuer> = Vec::new();
        for (position, entry) in entries.into_iter().enumerate() {
            let wrong = |how: &str| ConfigError::malformed(NAME, format!("entry {}: {how}", position + 1));
            if !entry.get().starts_with('{') {
                return Err(wrong("it is not an object"));
            }
            let issuer: Issuer = json::from_str(entry.get()).map_err(|error| wrong(&error.to_string()))?;
            issuer.check(allow_http).map_err(wrong)?;
            if issuers.iter().any(|known| known.issuer == issuer.issuer) {
                return Err(wrong("its issuer stands twice"));
            }
            issuers.push(issuer);
        }
        Ok(Self(issuers))
    }

    /// The issuer of this name, and its place.
    pub fn named(&self, name: &str) -> Option<(usize, &Issuer)> {
        self.0.iter().enumerate().find(|(_, issuer)| issuer.issuer == name)
    }

    /// The issuer at a place.
    pub fn at(&self, place: usize) -> Option<&Issuer> {
        self.0.get(place)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
    use serde_json::{Value, json};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn entry() -> Value {
        json!({ "issuer": "https://id.example.com/", "jwksUrl": "https://id.example.com/jwks.json" })
    }

    fn with(name: &str, value: impl Into<Value>) -> Value {
        let mut entry = entry();
        entry[name] = value.into();
        entry
    }

    fn one(entry: &Value) -> Result<Issuers, String> {
        Issuers::parse(&json!([entry]).to_string(), false).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_malformed_is_named() {
        assert_eq!(one(&entry()).unwrap().count(), 1);
        assert_eq!(Issuers::parse("[]", false).unwrap().count(), 0);
        assert!(one(&with("algorithms", vec!["Ed25519", "RS256"])).is_ok());
        let twice = json!([entry(), entry()]).to_string();
        assert!(Issuers::parse(&twice, false).unwrap_err().to_string().contains("entry 2: its issuer stands twice"));
        let many = json!((0..51).map(|n| with("issuer", n.to_string())).collect::<Vec<_>>()).to_string();
        assert!(Issuers::parse(&many, false).unwrap_err().to_string().contains("more than 50"));
        for (entry, says) in [
            (json!("x"), "entry 1: it is not an object"),
            (json!(["https://id.example.com/", "astra-edge", "https://id.example.com/"]), "entry 1: it is not an object"),
            (with("issuer", ""), "issuer"),
            (with("issuer", "astra-edge"), "made here"),
            (with("audience", ""), "audience"),
            (with("algorithms", Vec::<Value>::new()), "algorithms"),
            (with("algorithms", vec!["HS256"]), "algorithms"),
            (with("algorithms", vec!["none"]), "none"),
            (with("workspaces", vec!["A b"]), "entry 1"),
            (with("color", "red"), "color"),
            (with("jwksUrl", "id.example.com"), "jwksUrl"),
            (with("jwksUrl", "/jwks"), "jwksUrl"),
            (with("jwksUrl", "http://id.example.com/"), "not https"),
            (with("jwksUrl", "http://127.0.0.1/"), "not https"),
            (with("jwksUrl", "https://u:p@id.example.com/"), "password"),
            (json!({ "issuer": "x" }), "jwksUrl"),
            (json!({ "issuer": "x", "jwksUrl": "https://x/", "operators": true, "workspaces": ["a"] }), "operators"),
        ] {
            let error = one(&entry).unwrap_err();
            assert!(error.starts_with("TOKEN_ISSUERS is malformed") && error.contains(says), "{entry}: {error}");
        }
        for text in ["", "{}", "x", "https://id.example.com"] {
            assert!(Issuers::parse(text, false).unwrap_err().to_string().contains("not a JSON list"), "{text}");
        }
    }

    #[test]
    fn http_is_for_this_machine_when_it_is_allowed() {
        for (url, allowed) in [
            ("http://127.0.0.1:1/k", true),
            ("http://localhost/k", true),
            ("http://[::1]:1/k", true),
            ("http://127.0.0.1.example.com/k", false),
            ("http://id.example.com/", false),
            ("file://127.0.0.1/k", false),
        ] {
            assert_eq!(Issuers::parse(&json!([with("jwksUrl", url)]).to_string(), true).is_ok(), allowed, "{url}");
        }
    }

    fn claims(issuer: &Value, changes: &[(&str, Value)]) -> Result<Claims, TokenError> {
        let mut said = json!({ "sub": "u", "ws": "acme", "role": "member", "jti": "j", "iss": "https://id.example.com/", "aud": "astra-edge",
            "exp": NOW.unix_seconds() + 60 });
        for (name, value) in changes {
            if value.is_null() { said.as_object_mut().unwrap().remove(*name).map(drop).unwrap() } else { said[*name] = value.clone() }
        }
        let token =
            format!("{}.{}.AA", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), BASE64_URL_SAFE_NO_PAD.encode(said.to_string()));
        one(issuer).unwrap().at(0).unwrap().claims(Unverified::parse(&token)?, NOW)
    }

    #[test]
    fn what_is_not_for_here_or_not_now_is_refused() {
        assert_eq!(claims(&entry(), &[]).unwrap().sub, "u");
        assert!(claims(&entry(), &[("aud", json!(["other", "astra-edge"]))]).is_ok());
        assert!(claims(&with("audience", "api"), &[("aud", "api".into())]).is_ok());
        assert!(claims(&entry(), &[("nbf", (NOW.unix_seconds() + 4).into())]).is_ok());
        let late = NOW.unix_seconds() - 5;
        assert_eq!(claims(&entry(), &[("exp", late.into())]), Err(TokenError::Expired));
        for (name, value) in [
            ("iss", json!("https://other.example.com/")),
            ("aud", json!("other")),
            ("aud", json!(["other"])),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("exp", Value::Null),
            ("exp", json!("2030-01-01")),
            ("exp", json!(1e300)),
            ("nbf", json!(NOW.unix_seconds() + 6)),
            ("jti", Value::Null),
            ("jti", json!("")),
            ("sub", json!("")),
            ("sub", json!("a\u{0}b")),
            ("sub", json!("x".repeat(256))),
            ("sub", Value::Null),
            ("ws", Value::Null),
            ("ws", json!("A b")),
            ("role", json!("God")),
            ("role", json!("operator")),
            ("scope", json!("agent:invoke")),
        ] {
            assert!(claims(&entry(), &[(name, value.clone())]).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn an_issuer_makes_no_operator_unless_its_entry_says_so() {
        let operator = [("role", json!("operator")), ("ws", Value::Null)];
        assert_eq!(claims(&entry(), &operator), Err(TokenError::Invalid("this issuer makes no operators")));
        assert_eq!(claims(&with("operators", false), &operator), Err(TokenError::Invalid("this issuer makes no operators")));
        assert!(claims(&with("operators", true), &operator).unwrap().is_operator());
        assert_eq!(claims(&with("workspaces", vec!["acme"]), &operator), Err(TokenError::Invalid("this issuer makes no operators")));
    }

    #[test]
    fn an_issuer_speaks_for_its_workspaces_only() {
        assert!(claims(&with("workspaces", vec!["other", "acme"]), &[]).is_ok());
        for workspaces in [json!(["other"]), json!([])] {
            let refused = Err(TokenError::Invalid("this issuer does not speak for the workspace"));
            assert_eq!(claims(&with("workspaces", workspaces), &[]), refused);
        }
    }
}
