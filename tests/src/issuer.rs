//! An issuer of tokens as a customer's own would be: keys, tokens signed with them, and a key set served over HTTP on loopback.
//!
//! `TOKEN_ISSUERS` names the issuers that the stack knows, each with an address of its own; a test takes one of them by its name and is the only one to do so.

use crate::{environment, jwt};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A key of an issuer.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name.
    pub kid: String,
    algorithm: Algorithm,
    signing: EncodingKey,
}

impl Key {
    fn random() -> [u8; 32] {
        let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        halves.map(uuid::Uuid::into_bytes).concat().try_into().expect("two times sixteen bytes")
    }

    fn new(kid: &str, algorithm: Algorithm, signing: EncodingKey) -> Self {
        Self { kid: kid.to_owned(), algorithm, signing }
    }

    /// A new key on Ed25519.
    pub fn ed(kid: &str) -> Self {
        // PKCS #8 around a seed: RFC 8410 section 7.
        let der = [&b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..], &Self::random()].concat();
        Self::new(kid, Algorithm::EdDSA, EncodingKey::from_ed_der(&der))
    }

    /// A new key on P-256.
    pub fn ec(kid: &str) -> Self {
        // PKCS #8 around RFC 5915's form, without the public key.
        let head = b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x27\x30\x25\x02\x01\x01\x04\x20";
        let mut number = Self::random();
        // Below the group's order, whatever was drawn.
        number[0] &= 0x7f;
        Self::new(kid, Algorithm::ES256, EncodingKey::from_ec_der(&[&head[..], &number].concat()))
    }

    /// The RSA key of RFC 7515 section A.2, which everybody has: making one takes a minute.
    pub fn rsa(kid: &str) -> Self {
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
        let der = BASE64_URL_SAFE_NO_PAD.decode(include_str!("../fixtures/rfc7515-a2.der.txt").trim()).expect("the fixture is base64url");
        Self::new(kid, Algorithm::RS256, EncodingKey::from_rsa_der(&der))
    }

    /// Its public half.
    pub fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signing, self.algorithm).expect("the key has a public half");
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).expect("a JWK is JSON")
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing).expect("claims are signed")
    }
}

/// A key set of these.
pub fn set(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// What is at an issuer's address: the head's status line and further headers, and the body.
type Page = (String, String);

/// A running issuer. It is away when this is dropped.
#[derive(Debug)]
pub struct Issuer {
    /// Its name in tokens.
    pub name: String,
    page: Arc<Mutex<Page>>,
    asked: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name of the stack's issuer of this short name, and where its keys are looked for.
fn entry(short: &str) -> (String, String) {
    let name = format!("https://{short}.example.com");
    let entries = environment::token_issuers();
    let found = entries.as_array().and_then(|all| all.iter().find(|entry| entry["issuer"] == name.as_str()));
    let url = found.and_then(|entry| entry["jwksUrl"].as_str()).unwrap_or_else(|| panic!("TOKEN_ISSUERS has no {name}: {entries}"));
    (name, url.to_owned())
}

/// Claims of a token of an issuer of the stack, which need not run.
pub fn claims(short: &str, workspace: &str, subject: &str, role: &str) -> Value {
    let mut claims = jwt::member_claims(workspace, subject, role);
    claims["iss"] = entry(short).0.into();
    claims
}

impl Issuer {
    /// Starts the stack's issuer of this name, with these keys.
    pub async fn start(short: &str, keys: &[&Key]) -> Self {
        Self::start_with(short, "200 OK", &set(keys)).await
    }

    /// Starts one that answers this.
    pub async fn start_with(short: &str, head: &str, body: &str) -> Self {
        let (name, url) = entry(short);
        let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind(&address).await.unwrap_or_else(|error| panic!("{address}, where {name} is: {error}"));
        let page = Arc::new(Mutex::new((head.to_owned(), body.to_owned())));
        let asked = Arc::new(Mutex::new(0));
        let task = tokio::spawn({
            let (page, asked) = (page.clone(), asked.clone());
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(answer(socket, page.clone(), asked.clone()));
                }
            }
        });
        Self { name, page, asked, task }
    }

    /// Has these keys from now on.
    pub fn rotate(&self, keys: &[&Key]) {
        *self.page.lock().expect("no test panics while it holds this") = ("200 OK".into(), set(keys));
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        *self.asked.lock().expect("no test panics while it holds this")
    }

    /// It is away from here on, until it is started again.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

async fn answer(mut socket: TcpStream, page: Arc<Mutex<Page>>, asked: Arc<Mutex<usize>>) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        if !socket.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
            return;
        }
    }
    *asked.lock().expect("no test panics while it holds this") += 1;
    let (head, body) = page.lock().expect("no test panics while it holds this").clone();
    let answer =
        format!("HTTP/1.1 {head}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let _ = socket.write_all(answer.as_bytes()).await;
    let _ = socket.shutdown().await;
}
