//! Tokens that are not ours, not yet, not any more, or not for here.

use astra_tests::{Api, Workspace, environment, jwt};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use serde_json::{Value, json};

fn changed(base: &Value, name: &str, value: Value) -> Value {
    let mut claims = base.clone();
    claims[name] = value;
    claims
}

fn without(base: &Value, name: &str) -> Value {
    let mut claims = base.clone();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

/// HMAC-SHA256 with our key, under another algorithm's name.
fn under_another_name(algorithm: &str, kid: &str, claims: &Value, secret: &[u8]) -> String {
    let unsigned = jwt::forge(&json!({ "alg": algorithm, "kid": kid }), claims, b"");
    let signature = crypto::sign(unsigned.trim_end_matches('.').as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256);
    format!("{unsigned}{}", signature.unwrap())
}

/// Every forged token, with what it is.
fn forgeries(workspace: &str) -> Vec<(String, String)> {
    let (kid, secret) = environment::token_key();
    let claims = jwt::member_claims(workspace, "member@test", "owner");
    let hs256 = json!({ "alg": "HS256", "typ": "JWT", "kid": kid });
    let header = |alg| Header { kid: Some(kid.clone()), ..Header::new(alg) };
    let good = jwt::sign(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = signed.split_once('.').unwrap();
    let payload = |claims: &Value| BASE64_URL_SAFE_NO_PAD.encode(claims.to_string());
    let now = jwt::now();
    let mut all: Vec<(&str, String)> = vec![
        ("alg none, no signature", jwt::forge(&json!({ "alg": "none", "kid": kid }), &claims, b"")),
        ("alg None", jwt::forge(&json!({ "alg": "None", "kid": kid }), &claims, b"")),
        (
            "alg nOnE with the good signature",
            format!("{}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"nOnE","kid":"{kid}"}}"#)), payload(&claims)),
        ),
        ("HS384 with our secret", jwt::sign_with(&claims, &header(Algorithm::HS384), &secret)),
        ("HS512 with our secret", jwt::sign_with(&claims, &header(Algorithm::HS512), &secret)),
        ("RS256 by name", jwt::forge(&json!({ "alg": "RS256", "kid": kid }), &claims, &[7; 256])),
        ("EdDSA by name", jwt::forge(&json!({ "alg": "EdDSA", "kid": kid }), &claims, &[7; 64])),
        ("our own signature under RS256's name", under_another_name("RS256", &kid, &claims, &secret)),
        ("our own signature under EdDSA's name", under_another_name("EdDSA", &kid, &claims, &secret)),
        ("no alg", jwt::forge(&json!({ "kid": kid }), &claims, b"x")),
        ("an empty secret", jwt::sign_with(&claims, &header(Algorithm::HS256), b"")),
        ("the kid as secret", jwt::sign_with(&claims, &header(Algorithm::HS256), kid.as_bytes())),
        ("another secret", jwt::sign_with(&claims, &header(Algorithm::HS256), &[9; 32])),
        ("an unknown kid", jwt::sign_with(&claims, &Header { kid: Some("other".into()), ..Header::new(Algorithm::HS256) }, &secret)),
        ("no kid", jwt::sign_with(&claims, &Header::new(Algorithm::HS256), &secret)),
        ("a kid that is a path", jwt::forge(&json!({ "alg": "HS256", "kid": "../../dev/null" }), &claims, b"")),
        (
            "a key of its own in the header",
            jwt::forge(&json!({ "alg": "HS256", "kid": kid, "jwk": { "kty": "oct", "k": "AAAA" } }), &claims, b"x"),
        ),
        ("no signature", format!("{signed}.")),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{good}.x")),
        ("another's payload", format!("{head}.{}.{signature}", payload(&changed(&claims, "sub", json!("root"))))),
        ("expired", jwt::sign(&changed(&claims, "exp", json!(now - 60)))),
        ("exp as text", jwt::sign(&changed(&claims, "exp", json!((now + 60).to_string())))),
        ("no exp", jwt::sign(&without(&claims, "exp"))),
        ("another audience", jwt::sign(&changed(&claims, "aud", json!("someone-else")))),
        ("no audience", jwt::sign(&without(&claims, "aud"))),
        ("another issuer", jwt::sign(&changed(&claims, "iss", json!("https://evil.example")))),
        ("no issuer", jwt::sign(&without(&claims, "iss"))),
        ("no subject", jwt::sign(&without(&claims, "sub"))),
        ("a role that is no name", jwt::sign(&changed(&claims, "role", json!("God of all")))),
        ("an operator of one workspace", jwt::sign(&changed(&claims, "role", json!("operator")))),
        ("a role without a workspace", jwt::sign(&without(&claims, "ws"))),
        ("an empty workspace", jwt::sign(&changed(&claims, "ws", json!("")))),
        ("a list of workspaces", jwt::sign(&changed(&claims, "ws", json!([workspace])))),
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
        ("rubbish", "eyJ.eyJ.eyJ".to_owned()),
        ("very long", "e".repeat(7000)),
    ];
    let mut bits = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    bits[0] ^= 1;
    all.push(("one bit of the signature", format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(&bits))));
    all.push(("a header that only looks alike", jwt::forge(&changed(&hs256, "crit", json!(["exp"])), &claims, b"x")));
    all.into_iter().map(|(what, token)| (what.to_owned(), token)).collect()
}

#[tokio::test]
async fn no_forged_token_opens_anything() {
    let ws = Workspace::local().await;
    let _ = ws.owner.get(&ws.path("")).await.expect(200);
    for (what, token) in forgeries(&ws.id) {
        let forger = Api::anonymous().with_token(&token);
        let replies = [
            forger.get(&ws.path("")).await,
            forger.post(&ws.path("/turns"), &Workspace::turn_body("x")).await,
            forger.get(&ws.path("/usage")).await,
            forger.get("/workspaces").await,
        ];
        for reply in replies {
            assert!([401, 403].contains(&reply.status), "{what}: {reply:?}");
            let code = if reply.status == 401 { "unauthorized" } else { "forbidden" };
            if reply.status == 401 {
                assert_eq!(reply.header("www-authenticate"), "Bearer", "{what}");
            }
            let problem = reply.problem(if code == "unauthorized" { 401 } else { 403 }, code);
            assert!(token.len() < 20 || !problem.to_string().contains(&token), "{what}: the token is not repeated");
        }
    }
}

#[tokio::test]
async fn a_token_for_another_workspace_is_forbidden_here() {
    let (a, b) = (Workspace::local().await, Workspace::local().await);
    for who in [&a.owner, &a.member] {
        who.get(&b.path("")).await.problem(403, "forbidden");
    }
}

#[tokio::test]
async fn without_a_bearer_token_nothing_opens() {
    let ws = Workspace::local().await;
    let ask = async |value: Option<&str>| {
        let request = Api::anonymous().request(http::Method::GET, &ws.path(""));
        let request = if let Some(value) = value { request.header("authorization", value) } else { request };
        request.send().await.problem(401, "unauthorized")
    };
    ask(None).await;
    for value in ["", "Bearer", "Bearer ", "Basic dTpw", "Token x"] {
        ask(Some(value)).await;
    }
    // Nor in the address.
    let token = jwt::member(&ws.id, "m", "owner");
    let reply = Api::anonymous().request(http::Method::GET, &ws.path(&format!("?access_token={token}"))).send().await;
    assert!([401, 422].contains(&reply.status), "{reply:?}");
}

#[tokio::test]
async fn who_is_no_member_may_do_nothing_whatever_their_token_says() {
    let ws = Workspace::local().await;
    let stranger = Api::anonymous().with_token(jwt::member(&ws.id, "stranger", "owner"));
    stranger.get(&ws.path("/agents")).await.problem(403, "forbidden");
    stranger.post(&ws.path("/turns"), &Workspace::turn_body("let me in")).await.problem(403, "forbidden");
    let upper = Api::anonymous().with_token(jwt::member(&ws.id.to_uppercase(), "m", "owner"));
    let reply = upper.get(&ws.path("")).await;
    assert!([401, 403].contains(&reply.status), "{reply:?}");
}
