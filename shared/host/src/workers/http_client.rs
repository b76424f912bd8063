//! Outgoing HTTP on Workers: the runtime's `fetch`, its body read piece by piece.
//!
//! Not through reqwest here: its wasm client follows redirects (and takes the provider's key along) without a way to turn that off.
//! Dropping a body aborts its request, which cuts the connection.
//!
//! Each read costs a pass through JavaScript, and the runtime gives one HTTP chunk to each read: a token or two of a model. So the body is split in two.
//! One branch is drained by the runtime itself, without JavaScript; what has arrived meanwhile waits in the other, which is read here at most once
//! a millisecond. A model that speaks slower than that is heard at once; one that speaks faster is heard in larger pieces.

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

    /// The runtime's own sink (Workers' Web Crypto): what is piped into it is read without JavaScript.
    #[wasm_bindgen(extends = web_sys::WritableStream)]
    type DigestStream;

    #[wasm_bindgen(constructor, js_namespace = crypto)]
    fn new(algorithm: &str) -> DigestStream;

    #[wasm_bindgen(method, getter)]
    fn digest(this: &DigestStream) -> js_sys::Promise;
}

/// An answer's body.
pub struct Incoming(SendWrapper<Option<Open>>);

/// How long, in milliseconds, a body is left alone between two reads.
const PACE: u64 = 1;

/// A body that has not ended.
struct Open {
    begun: bool,
    reader: web_sys::ReadableStreamDefaultReader,
    abort: web_sys::AbortController,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

impl ByteStream for Incoming {
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, HttpError>>> + Send {
        SendWrapper::new(async move {
            let open = self.0.as_mut()?;
            if std::mem::replace(&mut open.begun, true) {
                worker::Delay::from(Duration::from_millis(PACE)).await;
            }
            let reader = &open.reader;
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
        if let Some(open) = Option::take(&mut self.0) {
            open.abort.abort();
        }
    }
}

fn request(request: http::Request<Bytes>, abort: &web_sys::AbortController) -> Result<web_sys::Request, JsValue> {
    let (parts, body) = request.into_parts();
    let init = web_sys::RequestInit::new();
    init.set_method(parts.method.as_str());
    init.set_redirect(web_sys::RequestRedirect::Manual);
    init.set_signal(Some(&abort.signal()));
    init.set_headers(&Headers::from(&parts.headers).0);
    if !body.is_empty() {
        init.set_body(&js_sys::Uint8Array::from(&*body));
    }
    web_sys::Request::new_with_str_and_init(&parts.uri.to_string(), &init)
}

async fn send(request: web_sys::Request, abort: web_sys::AbortController) -> Result<http::Response<Incoming>, HttpError> {
    let global: web_sys::WorkerGlobalScope = js_sys::global().unchecked_into();
    let answer = JsFuture::from(global.fetch_with_request(&request)).await.map_err(|_| HttpError::Unreachable)?;
    let answer: web_sys::Response = answer.unchecked_into();
    let mut response = http::Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        *headers = (&Headers(answer.headers())).into();
    }
    let open = answer.body().map(|body| Open { begun: false, reader: split(&body), abort });
    response.body(Incoming(SendWrapper::new(open))).map_err(|_| HttpError::Broken)
}

/// Splits a body; has the runtime drain one branch; returns the other's reader.
fn split(body: &web_sys::ReadableStream) -> web_sys::ReadableStreamDefaultReader {
    let branches = body.tee();
    let [ours, drained] = [0, 1].map(|n| branches.get(n).unchecked_into::<web_sys::ReadableStream>());
    let sink = DigestStream::new("MD5");
    let ends = [JsFuture::from(drained.pipe_to(&sink)), JsFuture::from(sink.digest())];
    wasm_bindgen_futures::spawn_local(async move {
        // Our branch is told when it breaks off.
        for end in ends {
            let _ = end.await;
        }
    });
    ours.get_reader().unchecked_into()
}

impl Http for WorkersHost {
    type Body = Incoming;

    fn send(&self, outgoing: http::Request<Bytes>) -> impl Future<Output = Result<http::Response<Incoming>, HttpError>> + Send {
        SendWrapper::new(async move {
            let abort = web_sys::AbortController::new().map_err(|_| HttpError::Unreachable)?;
            send(request(outgoing, &abort).map_err(|_| HttpError::Unreachable)?, abort).await
        })
    }

    fn sleep(&self, millis: u32) -> impl Future<Output = ()> + Send {
        SendWrapper::new(worker::Delay::from(Duration::from_millis(millis.into())))
    }
}
