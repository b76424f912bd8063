//! Other issuers' tokens, through a router as a request comes: what is taken, what is refused, and how the keys are kept. The clock goes on when it is told to.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use astra_host::testing::{FakeHost, NOW, Reply, send, token};
use astra_host::{Call, Failure, NotFetched, web};
use astra_kernel::Permission;
use astra_kernel::key_cache::{AWAY_MILLIS, FETCHING_MILLIS, FRESH_MILLIS, STALE_MILLIS, UNKNOWN_MILLIS};
use axum::Router;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

const ISSUER: &str = "https://id.example.com/";
const JWKS: &str = "https://id.example.com/jwks.json";
const ISSUERS: &str = r#"[
    {"issuer":"https://id.example.com/","jwksUrl":"https://id.example.com/jwks.json"},
    {"issuer":"acme-only","jwksUrl":"https://acme.example.com/jwks","algorithms":["EdDSA"],"workspaces":["acme"],"audience":"api"},
    {"issuer":"ops","jwksUrl":"https://ops.example.com/jwks","operators":true}]"#;

fn host() -> FakeHost {
    knows_anna(FakeHost::new(&[("TOKEN_ISSUERS", ISSUERS)]))
}

/// As far as the database is asked, whoever asks is a member.
fn knows_anna(host: FakeHost) -> FakeHost {
    host.answer("access", &json!({ "outcome": "ok", "access": { "role": "member" } }));
    host
}

/// An issuer's key.
enum Key {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

impl Key {
    fn ed(seed: u8) -> Self {
        Self::Ed(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    fn ec() -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap())
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Ed(pair) => json!({ "kid": kid, "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) }),
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kid": kid, "kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..]), "use": "sig" })
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        signed_by(header, claims, |bytes| match self {
            Self::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
        })
    }

    /// A member's token of the first issuer.
    fn token(&self, kid: &str) -> String {
        let alg = if matches!(self, Self::Ed(_)) { "EdDSA" } else { "ES256" };
        self.sign(&json!({ "alg": alg, "kid": kid }), &claims())
    }
}

fn signed_by(header: &Value, claims: &Value, signature: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}", part(header.to_string().as_bytes()), part(claims.to_string().as_bytes()));
    format!("{text}.{}", part(&signature(text.as_bytes())))
}

fn claims() -> Value {
    let exp = NOW.unix_seconds() + 10 * 24 * 3600;
    json!({ "sub": "anna", "ws": "acme", "role": "member", "jti": "t-1", "iss": ISSUER, "aud": "astra-edge", "exp": exp })
}

fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() { claims.as_object_mut().unwrap().remove(name).map(drop).unwrap() } else { claims[name] = value.clone() }
    }
    claims
}

fn set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

async fn who(call: Call<FakeHost>) -> Result<String, Failure> {
    let allowed = call.tenant("acme", Permission::AgentInvoke).await?;
    Ok(format!("{} {}", allowed.claims.sub, allowed.claims.role))
}

async fn everything(call: Call<FakeHost>) -> Result<String, Failure> {
    call.operator(Permission::WorkspaceList).await?;
    Ok("the operator".into())
}

fn router() -> Router {
    let routes = Router::new().route("/who", axum::routing::get(who)).route("/everything", axum::routing::get(everything));
    web::finish::<FakeHost>(routes)
}

async fn ask(host: &FakeHost, token: &str) -> Reply {
    send(&router(), host, "GET", "/who", Some(token), "").await
}

#[track_caller]
fn is_away(reply: &Reply) {
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!((&reply.json()["code"], reply.headers["retry-after"].to_str().unwrap()), (&json!("unavailable"), "5"));
    assert!(reply.problem(503).contains("issuer"));
}

#[tokio::test]
async fn tokens_of_an_issuer_are_taken_and_ours_still_are() {
    let (host, ed, ec) = (host(), Key::ed(1), Key::ec());
    host.page(JWKS, Ok(&set(&[ed.jwk("e"), ec.jwk("c")])));
    for token in [ed.token("e"), ec.token("c"), ed.sign(&json!({ "alg": "Ed25519", "kid": "e", "typ": "at+jwt" }), &claims())] {
        let reply = ask(&host, &token).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, "anna member"));
    }
    assert_eq!(ask(&host, &token(Some("acme"), "member", None)).await.status, 200);
    assert_eq!(host.fetched(), [JWKS], "once for all");
}

#[tokio::test]
async fn ours_need_no_issuer() {
    let host = knows_anna(FakeHost::new(&[]));
    assert_eq!(ask(&host, &token(Some("acme"), "member", None)).await.status, 200);
    assert_eq!(ask(&host, &Key::ed(1).token("e")).await.status, 401);
    let host = knows_anna(FakeHost::new(&[("TOKEN_ISSUERS", "[{}]")]));
    assert_eq!(ask(&host, &token(Some("acme"), "member", None)).await.status, 200);
    assert!(ask(&host, &Key::ed(1).token("e")).await.problem(503).contains("TOKEN_ISSUERS is malformed: entry 1"));
    assert!(host.fetched().is_empty());
}

#[tokio::test]
async fn what_does_not_verify_is_refused() {
    let (host, ed, ec, other) = (host(), Key::ed(1), Key::ec(), Key::ed(2));
    host.page(JWKS, Ok(&set(&[ed.jwk("e"), ec.jwk("c")])));
    let head = json!({ "alg": "EdDSA", "kid": "e" });
    assert_eq!(ask(&host, &ed.sign(&head, &claims())).await.status, 200);
    // The public key as an HMAC secret: its bytes, and the text of its JWK.
    let public = BASE64_URL_SAFE_NO_PAD.decode(ed.jwk("e")["x"].as_str().unwrap()).unwrap();
    let mac = |secret: &[u8], bytes: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), bytes).as_ref().to_vec();
    let hs256 = json!({ "alg": "HS256", "kid": "e" });
    // A good token of ours under an issuer's name, and an issuer's under ours.
    let ours = json!({ "iss": "astra-edge" });
    let mut refused = vec![
        signed_by(&hs256, &claims(), |bytes| mac(&public, bytes)),
        signed_by(&hs256, &claims(), |bytes| mac(ed.jwk("e").to_string().as_bytes(), bytes)),
        signed_by(&json!({ "alg": "EdDSA", "kid": "e" }), &claims(), |bytes| mac(&public, bytes)),
        signed_by(&json!({ "alg": "HS256", "kid": "k1" }), &claims(), |bytes| mac(&(0..32).collect::<Vec<u8>>(), bytes)),
        signed_by(&json!({ "alg": "EdDSA", "kid": "k1" }), &with(&ours), |bytes| mac(&(0..32).collect::<Vec<u8>>(), bytes)),
        ed.sign(&head, &with(&ours)),
        ed.sign(&json!({ "alg": "EdDSA", "kid": "k1" }), &with(&ours)),
        ed.sign(&json!({ "alg": "EdDSA", "kid": "c" }), &claims()),
        ed.sign(&json!({ "alg": "ES256", "kid": "e" }), &claims()),
        ed.sign(&json!({ "alg": "EdDSA" }), &claims()),
        ed.sign(&json!({ "alg": "EdDSA", "kid": "made up" }), &claims()),
        ed.sign(&json!({ "alg": "EdDSA", "kid": "e", "crit": ["b64"], "b64": false }), &claims()),
        other.token("e"),
        other.sign(&json!({ "alg": "EdDSA", "kid": "e", "jwk": other.jwk("e"), "jku": "https://evil.example.com/" }), &claims()),
        signed_by(&json!({ "alg": "none", "kid": "e" }), &claims(), |_| Vec::new()),
        ed.sign(&head, &with(&json!({ "filler": "x".repeat(8 * 1024) }))),
    ];
    for changes in [
        json!({ "exp": null }),
        json!({ "exp": NOW.unix_seconds() - 5 }),
        json!({ "nbf": NOW.unix_seconds() + 60 }),
        json!({ "aud": "other" }),
        json!({ "iss": "https://id.example.com" }),
        json!({ "iss": "nobody" }),
        json!({ "iss": "acme-only", "aud": "api" }),
        json!({ "jti": null }),
        json!({ "ws": null }),
        json!({ "role": "operator", "ws": null }),
    ] {
        refused.push(ed.sign(&head, &with(&changes)));
    }
    host.page("https://acme.example.com/jwks", Ok(&set(&[other.jwk("e")])));
    for token in refused {
        let reply = ask(&host, &token).await;
        assert_eq!(reply.status, 401, "{reply:?} for {token}");
        assert_eq!(reply.headers["www-authenticate"], "Bearer");
    }
    assert!(host.fetched().iter().all(|url| url.ends_with("jwks.json") || url.starts_with("https://acme.")), "{:?}", host.fetched());
}

#[tokio::test]
async fn an_entry_bounds_its_issuer() {
    let (host, ed, ec) = (host(), Key::ed(1), Key::ec());
    for url in [JWKS, "https://acme.example.com/jwks", "https://ops.example.com/jwks"] {
        host.page(url, Ok(&set(&[ed.jwk("e"), ec.jwk("c")])));
    }
    let by = |issuer: &str, aud: &str, key: &Key, alg: &str, kid: &str, ws: Option<&str>, role: &str| {
        key.sign(&json!({ "alg": alg, "kid": kid }), &with(&json!({ "iss": issuer, "aud": aud, "ws": ws, "role": role })))
    };
    assert_eq!(ask(&host, &by("acme-only", "api", &ed, "EdDSA", "e", Some("acme"), "owner")).await.body, "anna owner");
    for (what, token) in [
        ("audience", by("acme-only", "astra-edge", &ed, "EdDSA", "e", Some("acme"), "owner")),
        ("algorithm", by("acme-only", "api", &ec, "ES256", "c", Some("acme"), "owner")),
        ("workspace", by("acme-only", "api", &ed, "EdDSA", "e", Some("other"), "owner")),
        ("operator", by("acme-only", "api", &ed, "EdDSA", "e", None, "operator")),
    ] {
        assert_eq!(ask(&host, &token).await.status, 401, "{what}");
    }
    let everything = async |token: &str| send(&router(), &host, "GET", "/everything", Some(token), "").await;
    assert_eq!(everything(&by("ops", "astra-edge", &ed, "EdDSA", "e", None, "operator")).await.body, "the operator");
    assert_eq!(everything(&by(ISSUER, "astra-edge", &ed, "EdDSA", "e", None, "operator")).await.status, 401);
    assert_eq!(everything(&by("ops", "astra-edge", &ed, "EdDSA", "e", Some("acme"), "owner")).await.status, 403);
    // Nobody else's.
    let elsewhere = by(ISSUER, "astra-edge", &ed, "EdDSA", "e", Some("other"), "owner");
    assert_eq!(ask(&host, &elsewhere).await.status, 403);
}

#[tokio::test]
async fn keys_are_used_while_the_issuer_is_away_and_not_for_ever() {
    let (host, ed) = (host(), Key::ed(1));
    host.page(JWKS, Ok(&set(&[ed.jwk("e")])));
    let token = ed.token("e");
    assert_eq!(ask(&host, &token).await.status, 200);
    host.page(JWKS, Err(NotFetched::Unreachable));
    host.pass(FRESH_MILLIS);
    for n in 0..10 {
        assert_eq!(ask(&host, &token).await.status, 200);
        assert_eq!(host.fetched().len(), 2 + n / 5, "at most every thirty seconds");
        host.pass(UNKNOWN_MILLIS / 5);
    }
    assert!(
        host.logged().iter().any(|line| line.contains(r#""event":"issuer""#) && line.contains("does not answer")),
        "{:?}",
        host.logged()
    );
    host.pass(STALE_MILLIS - FRESH_MILLIS - 2 * UNKNOWN_MILLIS - 1);
    assert_eq!(ask(&host, &token).await.status, 200);
    host.pass(1);
    // Not a 401: the token may be good.
    is_away(&ask(&host, &token).await);
    let asked = host.fetched().len();
    is_away(&ask(&host, &token).await);
    assert_eq!(host.fetched().len(), asked, "not again at once");
    host.page(JWKS, Ok(&set(&[ed.jwk("e")])));
    host.pass(AWAY_MILLIS);
    assert_eq!(ask(&host, &token).await.status, 200);
}

#[tokio::test]
async fn an_issuer_that_was_never_there_is_unavailable() {
    let host = host();
    is_away(&ask(&host, &Key::ed(1).token("e")).await);
    for page in [
        Err(NotFetched::Status(302)),
        Ok("<html>"),
        Ok(r#"{"error":"no"}"#),
        Ok(&*format!(r#"{{"keys":[],"filler":"{}"}}"#, "x".repeat(2_000_000))),
        Ok(&*set(&vec![Key::ed(1).jwk("e"); 101])),
    ] {
        host.page(JWKS, page).pass(AWAY_MILLIS);
        is_away(&ask(&host, &Key::ed(1).token("e")).await);
    }
    assert_eq!(host.fetched().len(), 6);
}

#[tokio::test]
async fn keys_rotate() {
    let (host, old, new) = (host(), Key::ed(1), Key::ed(2));
    host.page(JWKS, Ok(&set(&[old.jwk("old")])));
    assert_eq!(ask(&host, &old.token("old")).await.status, 200);
    // The new one is found at once; the old one holds until it is no longer listed.
    host.page(JWKS, Ok(&set(&[new.jwk("new"), old.jwk("old")])));
    assert_eq!(ask(&host, &new.token("new")).await.status, 200);
    assert_eq!(ask(&host, &old.token("old")).await.status, 200);
    assert_eq!(host.fetched().len(), 2);
    host.page(JWKS, Ok(&set(&[new.jwk("new")])));
    host.pass(FRESH_MILLIS);
    assert_eq!(ask(&host, &new.token("new")).await.status, 200);
    host.pass(UNKNOWN_MILLIS);
    assert_eq!(ask(&host, &old.token("old")).await.status, 401);
    // The same name, another key.
    host.page(JWKS, Ok(&set(&[old.jwk("new")]))).pass(FRESH_MILLIS);
    assert_eq!(ask(&host, &new.token("new")).await.status, 200, "while it is asked for behind it");
    assert_eq!(ask(&host, &new.token("new")).await.status, 401);
}

#[tokio::test]
async fn made_up_names_do_not_make_us_ask() {
    let (host, ed) = (host(), Key::ed(1));
    host.page(JWKS, Ok(&set(&[ed.jwk("e")])));
    for n in 0..200 {
        assert_eq!(ask(&host, &ed.token(&format!("made up {n}"))).await.status, 401);
    }
    assert_eq!(host.fetched().len(), 2, "for the keys, and for a name that may be new");
    host.pass(UNKNOWN_MILLIS);
    for n in 0..200 {
        assert_eq!(ask(&host, &ed.token(&format!("made up {n}"))).await.status, 401);
    }
    assert_eq!(host.fetched().len(), 3);
    // It may be new: when that cannot be found out it is not refused.
    host.page(JWKS, Err(NotFetched::Status(500))).pass(UNKNOWN_MILLIS);
    is_away(&ask(&host, &ed.token("made up")).await);
    assert_eq!(ask(&host, &ed.token("e")).await.status, 200);
}

#[tokio::test]
async fn many_at_once_ask_once() {
    let (host, ed) = (host(), Key::ed(1));
    host.page(JWKS, Ok(&set(&[ed.jwk("e")]))).slow_pages(20);
    let token = ed.token("e");
    let replies = futures_util::future::join_all((0..100).map(|_| ask(&host, &token))).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(host.fetched().len(), 1);
}

#[tokio::test]
async fn one_that_hangs_up_while_it_asks_does_not_stop_the_others() {
    let (host, ed) = (host(), Key::ed(1));
    host.page(JWKS, Ok(&set(&[ed.jwk("e")]))).slow_pages(usize::MAX);
    let token = ed.token("e");
    assert!(futures_util::FutureExt::now_or_never(ask(&host, &token)).is_none());
    host.slow_pages(0);
    // What it began is waited for, and given up in the end.
    is_away(&ask(&host, &token).await);
    host.pass(FETCHING_MILLIS);
    assert_eq!(ask(&host, &token).await.status, 200);
    assert_eq!(host.fetched().len(), 2);
}
