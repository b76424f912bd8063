//! Tokens of other issuers: their keys by a JWK set over HTTP, on every host with that host's own cryptography and HTTP client.
//!
//! What depends on time passing (keys that go stale, how often an issuer is asked) is tested where the clock can be set: shared/host/tests/tokens.rs. On
//! Lambda each environment has keys of its own, and one that starts while the issuer is away has none.

use astra_tests::issuer::{self, Issuer, Key};
use astra_tests::{Api, Reply, Workspace, environment, jwt};
use jsonwebtoken::{Algorithm, Header};
use serde_json::json;

/// What each function says to a token: provision, billing, invoke-turn.
async fn everywhere(ws: &Workspace, token: &str) -> [Reply; 3] {
    let caller = Api::anonymous().with_token(token);
    let paths = [ws.path(""), ws.path("/quota"), ws.path("/sessions")];
    [caller.get(&paths[0]).await, caller.get(&paths[1]).await, caller.get(&paths[2]).await]
}

async fn is_taken(ws: &Workspace, token: &str) {
    for reply in everywhere(ws, token).await {
        reply.ok(200);
    }
}

async fn is_refused(ws: &Workspace, token: &str, why: &str) {
    for reply in everywhere(ws, token).await {
        assert_eq!(reply.status, 401, "{why}: {reply:?}");
        reply.problem(401, "unauthorized");
    }
}

async fn cannot_be_told(ws: &Workspace, token: &str) {
    for reply in everywhere(ws, token).await {
        assert_eq!(reply.headers.get("retry-after").map(|value| value.to_str().unwrap()), Some("5"), "{reply:?}");
        reply.problem(503, "unavailable");
    }
}

#[tokio::test]
async fn tokens_of_all_three_algorithms_are_taken_and_forgeries_are_not() {
    let ws = Workspace::local().await;
    let (ed, ec, rsa) = (Key::ed("ed"), Key::ec("ec"), Key::rsa("rsa"));
    let issuer = Issuer::start("rotates", &[&ed, &ec, &rsa]).await;
    let claims = issuer::claims("rotates", &ws.id, "owner@test", "owner");
    for key in [&ed, &ec, &rsa] {
        is_taken(&ws, &key.sign(&claims)).await;
    }
    let turn = Api::anonymous().with_token(rsa.sign(&claims)).post(&ws.path("/turns"), &Workspace::turn_body("hello")).await;
    turn.ok(200);

    // The same, but something is wrong with it.
    for (name, value) in [
        ("aud", json!("another")),
        ("iss", json!("https://unknown.example.com")),
        ("iss", json!("astra-edge")),
        ("exp", json!(jwt::now() - 60)),
        ("jti", json!("")),
        ("role", json!("operator")),
    ] {
        let mut claims = claims.clone();
        claims[name] = value;
        is_refused(&ws, &ed.sign(&claims), name).await;
    }
    for name in ["exp", "jti", "ws"] {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        is_refused(&ws, &ec.sign(&claims), name).await;
    }
    let mut operator = claims.clone();
    operator["role"] = "operator".into();
    operator.as_object_mut().unwrap().remove("ws");
    for key in [&ed, &ec, &rsa] {
        let token = key.sign(&operator);
        is_refused(&ws, &token, "an operator").await;
        Api::anonymous().with_token(&token).get("/workspaces").await.problem(401, "unauthorized");
    }
    // Another key under the same name; another algorithm than the key's; the public key as a secret; a signature that is a bit off.
    is_refused(&ws, &Key::ed("ed").sign(&claims), "another's key").await;
    is_refused(&ws, &Key::ec("ec").sign(&claims), "another's key").await;
    is_refused(&ws, &Key::ed("rsa").sign(&claims), "another algorithm").await;
    let secret = rsa.jwk()["n"].as_str().unwrap().to_owned();
    let header = Header { kid: Some("rsa".into()), ..Header::new(Algorithm::HS256) };
    is_refused(&ws, &jwt::sign_with(&claims, &header, secret.as_bytes()), "HMAC with a public key").await;
    is_refused(&ws, &jwt::forge(&json!({ "alg": "none", "kid": "ed" }), &claims, b""), "none").await;
    is_refused(&ws, &jwt::forge(&json!({ "alg": "EdDSA", "kid": "ed", "crit": ["x"], "x": 1 }), &claims, &[0; 64]), "crit").await;
    for key in [&ed, &ec, &rsa] {
        let token = key.sign(&claims);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { 'B' } else { 'A' };
        is_refused(&ws, &format!("{signed}.{other}{}", &signature[1..]), "another signature").await;
        is_refused(&ws, &format!("{signed}.{}", &signature[..signature.len() / 4 * 2]), "half a signature").await;
    }
    // And ours are what they were.
    is_taken(&ws, &jwt::member(&ws.id, "owner@test", "owner")).await;

    // A new key is found when it is first seen.
    let new = Key::ec("new");
    issuer.rotate(&[&new, &ed]);
    is_taken(&ws, &new.sign(&claims)).await;
    if environment::host() != "lambda" {
        is_refused(&ws, &rsa.sign(&claims), "no longer listed").await;
    }
    is_taken(&ws, &ed.sign(&claims)).await;
}

#[tokio::test]
async fn keys_hold_while_the_issuer_is_away() {
    let ws = Workspace::local().await;
    let key = Key::ec("k");
    let issuer = Issuer::start("goes", &[&key]).await;
    let claims = issuer::claims("goes", &ws.id, "owner@test", "owner");
    is_taken(&ws, &key.sign(&claims)).await;
    let asked = issuer.asked();
    is_taken(&ws, &key.sign(&claims)).await;
    if environment::host() != "lambda" {
        assert_eq!(issuer.asked(), asked, "what is known is not asked for");
    }
    issuer.stop().await;
    let replies = everywhere(&ws, &key.sign(&claims)).await;
    if environment::host() == "lambda" {
        assert!(replies.iter().all(|reply| [200, 503].contains(&reply.status)), "{replies:?}");
    } else {
        for reply in replies {
            reply.ok(200);
        }
    }
    // It may be a new key of the issuer's: that cannot be told now.
    cannot_be_told(&ws, &Key::ec("perhaps").sign(&claims)).await;
}

#[tokio::test]
async fn an_issuer_whose_keys_cannot_be_had_is_no_ones_fault() {
    let ws = Workspace::local().await;
    let (key, ec) = (Key::ed("k"), Key::ec("c"));
    cannot_be_told(&ws, &key.sign(&issuer::claims("nobody", &ws.id, "owner@test", "owner"))).await;
    // Where it leads to there are keys, which are not asked for.
    let there = Issuer::start("acme", &[&key, &ec]).await;
    let location =
        environment::token_issuers().as_array().unwrap().iter().find(|entry| entry["issuer"] == there.name.as_str()).unwrap()["jwksUrl"]
            .clone();
    let redirects = Issuer::start_with("redirects", &format!("302 Found\r\nlocation: {}", location.as_str().unwrap()), "").await;
    cannot_be_told(&ws, &key.sign(&issuer::claims("redirects", &ws.id, "owner@test", "owner"))).await;
    assert!(redirects.asked() > 0);
    assert_eq!(there.asked(), 0);
    let large = format!("{}{}", issuer::set(&[&key]), " ".repeat(2_000_000));
    let large = Issuer::start_with("large", "200 OK", &large).await;
    cannot_be_told(&ws, &key.sign(&issuer::claims("large", &ws.id, "owner@test", "owner"))).await;
    assert!(large.asked() > 0);
    // That one speaks for the workspace acme, in ES256.
    let acme =
        if ws.operator.get("/workspaces/acme").await.status == 200 { None } else { Some(Workspace::named("acme", &json!({})).await) };
    let claims = |workspace: &str| issuer::claims("acme", workspace, "owner@test", "owner");
    is_refused(&ws, &ec.sign(&claims(&ws.id)), "not its workspace").await;
    let asked = async |key: &Key| Api::anonymous().with_token(key.sign(&claims("acme"))).get("/workspaces/acme").await;
    asked(&ec).await.ok(200);
    asked(&key).await.problem(401, "unauthorized");
    if let Some(acme) = acme {
        let _ = acme.operator.delete("/workspaces/acme").await.expect(200);
    }
}
