//! What the checks of other issuers' tokens need of the runtime: its `fetch` for their keys, and its cryptography, which signs receipts too.
//!
//! The Rust crates for the three algorithms would add 31 KB (gzipped) to each function, and take 2.7 ms of CPU time for one ES256 signature in wasm built for
//! size; the runtime does it in a tenth of that. A key is imported for each token: it belongs to the request that imported it.

use crate::NotFetched;
use crate::outgoing::{Answered, NotAnswered, Outgoing};
use astra_kernel::jwk::PublicKey;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], js_name = importKey, catch)]
    fn import_key(
        format: &str,
        key: &JsValue,
        algorithm: &JsValue,
        extractable: bool,
        uses: &js_sys::Array,
    ) -> Result<js_sys::Promise, JsValue>;

    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], js_name = verify, catch)]
    fn verify_with(
        algorithm: &JsValue,
        key: &JsValue,
        signature: &js_sys::Uint8Array,
        signed: &js_sys::Uint8Array,
    ) -> Result<js_sys::Promise, JsValue>;

    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], js_name = sign, catch)]
    fn sign_with(algorithm: &JsValue, key: &JsValue, bytes: &js_sys::Uint8Array) -> Result<js_sys::Promise, JsValue>;

    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], js_name = exportKey, catch)]
    fn export_key(format: &str, key: &JsValue) -> Result<js_sys::Promise, JsValue>;

    /// What a read gives.
    type Read;

    #[wasm_bindgen(method, getter)]
    fn done(this: &Read) -> bool;

    #[wasm_bindgen(method, getter)]
    fn value(this: &Read) -> Option<js_sys::Uint8Array>;
}

/// Whether a signature of these bytes is the key's. A key that the runtime does not take has signed nothing.
pub(super) async fn is_signed(key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
    verify(key, signed, signature).await.is_ok_and(|verified| verified.is_truthy())
}

async fn verify(key: &PublicKey, signed: &[u8], signature: &[u8]) -> Result<JsValue, JsValue> {
    // One object says what both calls want to know.
    let algorithm = js_sys::JSON::parse(match key {
        PublicKey::Ed25519 { .. } => r#"{"name":"Ed25519"}"#,
        PublicKey::P256 { .. } => r#"{"name":"ECDSA","namedCurve":"P-256","hash":"SHA-256"}"#,
        PublicKey::Rsa { .. } => r#"{"name":"RSASSA-PKCS1-v1_5","hash":"SHA-256"}"#,
    })?;
    let uses = js_sys::Array::of1(&"verify".into());
    let key = JsFuture::from(import_key("jwk", &js_sys::JSON::parse(&key.jwk())?, &algorithm, false, &uses)?).await?;
    JsFuture::from(verify_with(&algorithm, &key, &signature.into(), &signed.into())?).await
}

/// The private key of a seed, as PKCS #8 (RFC 8410 section 7), and its algorithm.
async fn private_key(seed: &[u8; 32], extractable: bool) -> Result<(JsValue, JsValue), JsValue> {
    let pkcs8 = [&b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"[..], seed].concat();
    let algorithm: JsValue = "Ed25519".into();
    let uses = js_sys::Array::of1(&"sign".into());
    let pkcs8 = js_sys::Uint8Array::from(&pkcs8[..]);
    let key = JsFuture::from(import_key("pkcs8", &pkcs8, &algorithm, extractable, &uses)?).await?;
    Ok((key, algorithm))
}

/// Signs by Ed25519. None when the runtime does not.
pub(super) async fn sign(seed: &[u8; 32], bytes: &[u8]) -> Option<Vec<u8>> {
    let (key, algorithm) = private_key(seed, false).await.ok()?;
    let signature = JsFuture::from(sign_with(&algorithm, &key, &bytes.into()).ok()?).await.ok()?;
    Some(js_sys::Uint8Array::new(&signature).to_vec())
}

/// A seed's public key, in base64url: a private key's JWK (RFC 8037) has it beside the seed.
pub(super) async fn public_key(seed: &[u8; 32]) -> Option<String> {
    let (key, _) = private_key(seed, true).await.ok()?;
    let jwk = JsFuture::from(export_key("jwk", &key).ok()?).await.ok()?;
    js_sys::Reflect::get(&jwk, &"x".into()).ok()?.as_string()
}

/// Gets a text of at most `limit` bytes within so many milliseconds, its body included.
pub(super) async fn text(url: &str, limit: usize, millis: u32) -> Result<String, NotFetched> {
    let init = web_sys::RequestInit::new();
    init.set_redirect(web_sys::RequestRedirect::Manual);
    init.set_signal(Some(&web_sys::AbortSignal::timeout_with_u32(millis)));
    let request = web_sys::Request::new_with_str_and_init(url, &init).map_err(|_| NotFetched::Unreachable)?;
    let global: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
    let answer = JsFuture::from(global.fetch_with_request(&request)).await.map_err(|_| NotFetched::Unreachable)?;
    let answer: web_sys::Response = answer.unchecked_into();
    let body = answer.body();
    if answer.status() != 200 {
        if let Some(body) = body {
            // An answer that nobody reads keeps its connection.
            let _ = body.cancel();
        }
        return Err(NotFetched::Status(answer.status()));
    }
    let Some(body) = body else { return Ok(String::new()) };
    let reader: web_sys::ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    let mut bytes = Vec::new();
    loop {
        let read: Read = JsFuture::from(reader.read()).await.map_err(|_| NotFetched::Broken)?.unchecked_into();
        let Some(piece) = read.value().filter(|_| !read.done()) else { break };
        if bytes.len() + piece.length() as usize > limit {
            let _ = reader.cancel();
            return Err(NotFetched::TooLarge);
        }
        bytes.extend_from_slice(&piece.to_vec());
    }
    String::from_utf8(bytes).map_err(|_| NotFetched::Broken)
}

/// Calls an address that the guard has let pass.
pub(super) async fn call(call: Outgoing) -> Result<Answered, NotAnswered> {
    let init = web_sys::RequestInit::new();
    init.set_method(call.method.as_str());
    init.set_redirect(web_sys::RequestRedirect::Manual);
    let signal = web_sys::AbortSignal::timeout_with_u32(call.millis);
    init.set_signal(Some(&signal));
    let headers = web_sys::Headers::new().map_err(|_| NotAnswered::Unreachable)?;
    for (name, value) in &call.headers {
        headers.set(name, value).map_err(|_| NotAnswered::Unreachable)?;
    }
    init.set_headers(&headers);
    if !call.body.is_empty() {
        init.set_body(&call.body.as_str().into());
    }
    let request = web_sys::Request::new_with_str_and_init(call.url(), &init).map_err(|_| NotAnswered::Unreachable)?;
    let global: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
    // Whether anything was sent, the runtime does not say: it counts as sent.
    let failed = |_: JsValue| if signal.aborted() { NotAnswered::TimedOut } else { NotAnswered::Broken };
    let answer = JsFuture::from(global.fetch_with_request(&request)).await.map_err(failed)?;
    let answer: web_sys::Response = answer.unchecked_into();
    let (status, mut bytes) = (answer.status(), Vec::new());
    if let Some(body) = answer.body() {
        if call.limit == 0 {
            // An answer that nobody reads keeps its connection.
            let _ = body.cancel();
        } else {
            let reader: web_sys::ReadableStreamDefaultReader = body.get_reader().unchecked_into();
            while bytes.len() < call.limit {
                let read: Read = JsFuture::from(reader.read()).await.map_err(failed)?.unchecked_into();
                let Some(piece) = read.value().filter(|_| !read.done()) else { break };
                bytes.extend_from_slice(&piece.to_vec());
            }
            bytes.truncate(call.limit);
            let _ = reader.cancel();
        }
    }
    Ok(Answered { status, body: String::from_utf8_lossy(&bytes).into_owned() })
}
