//! Webhooks' signatures, by Standard Webhooks (standardwebhooks.com, specification 1.0.0): HMAC-SHA256 over `ID.TIMESTAMP.BODY`, so that a receiver knows who sent what
//! and when, and that it has had it before.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What a secret as text begins with.
const PREFIX: &str = "whsec_";

/// How long a new secret is, in bytes; the specification says 24 to 64.
pub const SECRET_LENGTH: usize = 32;

/// A secret that a sender and a receiver share.
pub struct WebhookSecret(Vec<u8>);

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl WebhookSecret {
    /// A secret of these bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Its bytes, for who seals it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As its receiver gets it: `whsec_` and base64.
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", BASE64_STANDARD.encode(&self.0))
    }

    /// The value of `webhook-signature` for one secret. `timestamp` is in seconds since 1970, as `webhook-timestamp` says it.
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        let mac = mac.chain_update(format!("{id}.{timestamp}.{body}")).finalize().into_bytes();
        format!("v1,{}", BASE64_STANDARD.encode(mac))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> WebhookSecret {
        WebhookSecret::from_bytes(BASE64_STANDARD.decode(text.trim_start_matches(PREFIX)).unwrap())
    }

    #[test]
    fn signs_as_the_reference_libraries_do() {
        // Of the test suites of the reference libraries (npm and PyPI `standardwebhooks`).
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.to_text(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        for (id, timestamp, body) in
            [("msg_q", 1_614_265_330, "{}"), ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_331, r#"{"test": 2432232314}"#)]
        {
            assert_ne!(secret.sign(id, timestamp, body), signature);
        }
    }

    #[test]
    fn signs_what_npms_and_pypis_libraries_sign() {
        let fixture: serde_json::Value = serde_json::from_str(include_str!("../tests/fixtures/standard-webhooks.json")).unwrap();
        let vectors = fixture["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 5);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap();
            let signed = secret(text("secret")).sign(text("id"), vector["timestamp"].as_i64().unwrap(), text("body"));
            assert_eq!(signed, text("signature"), "{}", text("id"));
        }
    }
}
