//! Outgoing HTTP on Workers: the runtime's `fetch`, its body read piece by piece.
//!
//! Not through reqwest here: its wasm client follows redirects (and takes the provider's key along) without a way to turn that off.
//! Dropping a body cancels it, which cuts the connection.

use super::WorkersHost;
use astra_models::{ByteStream, Http, HttpError};
use bytes::Bytes;
use send_wrapper::SendWrapper;
use std::future::Future;
use std::time::Duration;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::Headers;

#[wasm_bindgen]
extern "C" {
    /// What a read gives.
    type Read;

    #[wasm_bindgen(method, getter)]
    fn done(this: &Read) -> bool;

    #[wasm_bindgen(method, getter)]
    fn value(this: &Read) -> js_sys::Uint8Array;
}

/// An answer's body.
pub struct Incoming(SendWrapper<Option<web_sys::ReadableStreamDefaultReader>>);

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

impl ByteStream for Incoming {
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, HttpError>>> + Send {
        SendWrapper::new(async move {
            let reader = self.0.as_ref()?;
            let read = JsFuture::from(reader.read()).await.map(Read::unchecked_from_js);
            match read {
                Ok(read) if !read.done() => return Some(Ok(read.value().to_vec().into())),
                _ => *self.0 = None,
            }
            read.is_err().then_some(Err(HttpError::Broken))
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(reader) = Option::take(&mut self.0) {
            let cancelled = reader.cancel();
            // A promise that nobody waits for must not be reported when it fails.
            wasm_bindgen_futures::spawn_local(async move {
                let _ = JsFuture::from(cancelled).await;
            });
        }
    }
}

fn request(request: http::Request<Bytes>) -> Result<web_sys::Request, JsValue> {
    let (parts, body) = request.into_parts();
    let init = web_sys::RequestInit::new();
    init.set_method(parts.method.as_str());
    init.set_redirect(web_sys::RequestRedirect::Manual);
    init.set_headers(&Headers::from(&parts.headers).0);
    if !body.is_empty() {
        init.set_body(&js_sys::Uint8Array::from(&*body));
    }
    web_sys::Request::new_with_str_and_init(&parts.uri.to_string(), &init)
}

async fn send(request: web_sys::Request) -> Result<http::Response<Incoming>, HttpError> {
    let global: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
    let answer = JsFuture::from(global.fetch_with_request(&request)).await.map_err(|_| HttpError::Unreachable)?;
    let answer: web_sys::Response = answer.unchecked_into();
    let mut response = http::Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        *headers = (&Headers(answer.headers())).into();
    }
    let reader = answer.body().map(|body| body.get_reader().unchecked_into());
    response.body(Incoming(SendWrapper::new(reader))).map_err(|_| HttpError::Broken)
}

impl Http for WorkersHost {
    type Body = Incoming;

    fn send(&self, outgoing: http::Request<Bytes>) -> impl Future<Output = Result<http::Response<Incoming>, HttpError>> + Send {
        SendWrapper::new(async move { send(request(outgoing).map_err(|_| HttpError::Unreachable)?).await })
    }

    fn sleep(&self, millis: u32) -> impl Future<Output = ()> + Send {
        SendWrapper::new(worker::Delay::from(Duration::from_millis(millis.into())))
    }
}
