//! What the checks of other issuers' tokens need of the runtime: its `fetch` for their keys, and its cryptography.
//!
//! The Rust crates for the three algorithms would add 31 KB (gzipped) to each function, and take 2.7 ms of CPU time for one ES256 signature in wasm built for
//! size; the runtime does it in a tenth of that. A key is imported for each token: it belongs to the request that imported it.

use crate::NotFetched;
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
