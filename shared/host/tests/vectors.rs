//! Tokens and keys that nobody here wrote: Wycheproof's sets (`wycheproof/NOTICE.md`) and the RFCs' examples, through what a request goes through: the key by
//! its `kid`, the algorithm by the key, the signature by the host. (Workers check signatures with the runtime's cryptography; tests/tests/suite/issuers.rs
//! sees that.)
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use astra_host::Host as _;
use astra_host::testing::FakeHost;
use astra_kernel::TokenKeys;
use astra_kernel::jwk::{self, KeySet, PublicKey};
use astra_kernel::jws::Jws;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

/// Whether a token is signed with a key of the set: of secrets, as `TOKEN_KEYS` is, or of public keys, as an issuer has them.
fn accepts(keys: &[Value], token: &str) -> bool {
    let Ok(jws) = Jws::parse(token) else { return false };
    if keys.iter().all(|key| key["kty"] == "oct") {
        let is_ours = |key: &&Value| key["kty"] == "oct" && key["alg"] == "HS256";
        let text: Vec<_> = keys.iter().filter(is_ours).map(|key| format!("{}:{}", text(key, "kid"), text(key, "k"))).collect();
        return TokenKeys::parse(&text.join(",")).is_ok_and(|keys| keys.check_signature(&jws).is_ok());
    }
    let set = KeySet::parse(&json!({ "keys": keys }).to_string()).unwrap();
    let Some(key) = jws.kid.as_deref().and_then(|kid| set.get(kid)) else { return false };
    key.algorithm() == jws.algorithm && has_signed(key, &jws)
}

fn has_signed(key: &PublicKey, jws: &Jws<'_>) -> bool {
    FakeHost::new(&[]).verify_signature(key, jws.signed, &jws.signature).now_or_never().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[derive(Debug, Default, PartialEq)]
struct Count {
    accepted: usize,
    refused: usize,
    not_ours: usize,
}

/// Plays a set. What is called valid and is none of ours is in `not_ours` with its reason, and is refused.
fn play(document: &str, keys_of: fn(&Value) -> Vec<Value>, not_ours: fn(&Value, &Value) -> Option<&'static str>) -> Count {
    let document: Value = serde_json::from_str(document).unwrap();
    let mut count = Count::default();
    for group in document["testGroups"].as_array().unwrap() {
        let keys = keys_of(group);
        for case in group["tests"].as_array().unwrap() {
            let accepted = accepts(&keys, text(case, "jws"));
            let name = format!("{} {} in {}", case["tcId"], text(case, "comment"), text(group, "comment"));
            if let Some(why) = not_ours(group, case) {
                println!("not for us: {name}: {why}");
                count.not_ours += 1;
                // One of the two is why it is listed; none is a token that we take by mistake.
                assert_eq!(accepted, case["result"] == "invalid", "{name}");
            } else if case["result"] == "valid" {
                assert!(accepted, "{name}");
                count.accepted += 1;
            } else {
                assert_eq!(case["result"], "invalid", "{name}");
                assert!(!accepted, "{name}");
                count.refused += 1;
            }
        }
    }
    assert_eq!(document["numberOfTests"], count.accepted + count.refused + count.not_ours);
    println!("{count:?}");
    count
}

#[test]
fn wycheproofs_signatures() {
    let count = play(
        include_str!("wycheproof/json_web_signature_test.json"),
        |group| vec![group.get("public").unwrap_or(&group["private"]).clone()],
        |group, case| match (text(&group["private"], "alg"), text(case, "comment"), text(case, "result")) {
            ("RS384" | "RS512" | "PS256" | "PS384" | "PS512" | "ES521", _, "valid") => Some("an algorithm that is not offered"),
            (_, "InvalidCharacterInsertedInHeader" | "InvalidCharacterInsertedInPayload", "valid") => {
                Some("base64url has no such character, RFC 7515 section 2; here it is refused")
            }
            (_, "invalidBase64Padding" | "invalidBase64PaddingInPayload", "invalid") => {
                Some("to the byte the token of case 357, which is valid: the padding that it is named after is not in it")
            }
            _ => None,
        },
    );
    assert_eq!(count, Count { accepted: 18, refused: 353, not_ours: 30 });
}

#[test]
fn wycheproofs_key_sets() {
    let count = play(
        include_str!("wycheproof/json_web_key_test.json"),
        |group| group.get("public").unwrap_or(&group["private"])["keys"].as_array().unwrap().clone(),
        |group, case| match (text(group, "comment"), text(case, "comment"), text(case, "result")) {
            ("HS384" | "HS512", _, "valid") => Some("an algorithm that is not offered"),
            ("jws_rsa_roca_key", ..) => Some("how an issuer came by its key is not looked at"),
            _ => None,
        },
    );
    assert_eq!(count, Count { accepted: 3, refused: 20, not_ours: 3 });
}

/// The sets of tokens have none of `EdDSA`: these are bare signatures.
#[test]
fn wycheproofs_ed25519() {
    let document: Value = serde_json::from_str(include_str!("wycheproof/ed25519_test.json")).unwrap();
    let mut count = Count::default();
    for group in document["testGroups"].as_array().unwrap() {
        let key = PublicKey::Ed25519 { x: bytes(&group["publicKey"], "pk").try_into().unwrap() };
        for case in group["tests"].as_array().unwrap() {
            let (signed, signature) = (bytes(case, "msg"), bytes(case, "sig"));
            let is_signed = FakeHost::new(&[]).verify_signature(&key, &signed, &signature).now_or_never().unwrap();
            assert_eq!(is_signed, case["result"] == "valid", "{case}");
            if is_signed { count.accepted += 1 } else { count.refused += 1 }
        }
    }
    assert_eq!(count, Count { accepted: 88, refused: 63, not_ours: 0 });
}

fn bytes(value: &Value, name: &str) -> Vec<u8> {
    let text = text(value, name).as_bytes();
    text.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Key, token, and what the token says.
const EXAMPLES: [(&str, &str, &str); 3] = [
    // RFC 7515 A.2
    (
        r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        "joe",
    ),
    // RFC 7515 A.3
    (
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        "joe",
    ),
    // RFC 8037 A.4
    (
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        "Example of Ed25519 signing",
    ),
];

#[test]
fn the_examples_of_the_rfcs() {
    for (key, token, says) in EXAMPLES {
        let (_, key) = jwk::key(key).unwrap();
        let jws = Jws::parse(token).unwrap();
        assert_eq!(key.algorithm(), jws.algorithm);
        assert!(has_signed(&key, &jws), "{token}");
        assert!(String::from_utf8(jws.payload.clone()).unwrap().contains(says));
        for (_, other, _) in EXAMPLES.iter().filter(|example| example.1 != token) {
            assert!(!has_signed(&key, &Jws::parse(other).unwrap()), "another's");
        }
        let (signed, signature) = token.rsplit_once('.').unwrap();
        assert!(!has_signed(
            &key,
            &Jws::parse(&format!("{}.{signature}", signed.replacen("RX", "SX", 1).replacen("eyJp", "eyJq", 1))).unwrap()
        ));
    }
    // RFC 7519 section 6.1: a JWT that is not secured.
    let unsecured = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
    assert!(Jws::parse(unsecured).is_err());
}
