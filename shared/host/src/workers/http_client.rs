//! Outgoing HTTP on Workers: the runtime's `fetch`, its body read piece by piece.
//!
//! Not through reqwest here: its wasm client follows redirects (and takes the provider's key along) without a way to turn that off.
//! Dropping a body aborts its request, which cuts the connection.
//!
//! Each read costs a pass through JavaScript, and the runtime gives one HTTP chunk to each read: a token or two of a model. So the body is split in
//! two branches. After the first piece the whole rest is asked of one branch at once; the runtime gathers it without JavaScript, and a model that
//! answers in a burst is read in three passes. If the rest takes longer than [`GATHER_MILLIS`], the model speaks at its own pace: from then on each
//! piece is taken from the other branch as it comes, and the first is left to the runtime.

use super::WorkersHost;
use astra_models::{ByteStream, Http, HttpError};
use bytes::Bytes;
use futures_util::future::{Either, select};
use send_wrapper::SendWrapper;
use std::future::Future;
use std::time::Duration;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast as _, JsValue};
use wasm_bindgen_futures::JsFuture;
use worker::Headers;

/// How long the rest of an answer is waited for before it is read piece by piece. A client waits so much longer for a slow model's second piece.
const GATHER_MILLIS: u64 = 40;

/// The most that is gathered at once, in bytes.
const GATHER_BYTES: u32 = 16 * 1024;

#[wasm_bindgen]
extern "C" {
    /// What a read gives.
    type Read;

    #[wasm_bindgen(method, getter)]
    fn done(this: &Read) -> bool;

    /// Absent from a default reader's last answer.
    #[wasm_bindgen(method, getter)]
    fn value(this: &Read) -> Option<js_sys::Uint8Array>;

    /// The runtime's own pipe: what is piped into it passes without JavaScript.
    type IdentityTransformStream;

    #[wasm_bindgen(constructor)]
    fn new() -> IdentityTransformStream;

    #[wasm_bindgen(method, getter)]
    fn readable(this: &IdentityTransformStream) -> Readable;

    #[wasm_bindgen(method, getter)]
    fn writable(this: &IdentityTransformStream) -> web_sys::WritableStream;

    type Readable;

    #[wasm_bindgen(method, js_name = getReader)]
    fn get_byob_reader(this: &Readable, options: &js_sys::Object) -> Gatherer;

    /// Workers' reader that fills a view before it answers.
    type Gatherer;

    #[wasm_bindgen(method, js_name = readAtLeast)]
    fn read_at_least(this: &Gatherer, bytes: u32, view: &js_sys::Uint8Array) -> js_sys::Promise;
}

/// An answer's body.
pub struct Incoming(SendWrapper<Option<Open>>);

/// A body that has not ended.
struct Open {
    pieces: web_sys::ReadableStreamDefaultReader,
    rest: Gatherer,
    /// A read that is under way. It outlives a dropped [`ByteStream::next`], so that nothing which was read is lost.
    reading: Option<JsFuture>,
    way: Way,
    /// How many bytes `pieces` is ahead of `rest`: negative when it is behind. The one that is behind gives them a second time.
    ahead: i64,
    abort: web_sys::AbortController,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The first piece, as soon as it is there.
    First,
    /// The whole rest at once.
    Gather,
    /// Piece by piece.
    Pieces,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

impl ByteStream for Incoming {
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, HttpError>>> + Send {
        SendWrapper::new(async move {
            let next = self.0.as_mut()?.next().await;
            if !matches!(next, Some(Ok(_))) {
                *self.0 = None;
            }
            next
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

impl Open {
    /// Splits a body.
    fn new(body: &web_sys::ReadableStream, abort: web_sys::AbortController) -> Result<Self, JsValue> {
        let branches = body.tee();
        let [pieces, rest] = [0, 1].map(|n| branches.get(n).unchecked_into::<web_sys::ReadableStream>());
        let pipe = IdentityTransformStream::new();
        let piped = JsFuture::from(rest.pipe_to(&pipe.writable()));
        wasm_bindgen_futures::spawn_local(async move {
            // Whoever reads is told when it breaks off.
            let _ = piped.await;
        });
        let options = js_sys::Object::new();
        js_sys::Reflect::set(&options, &"mode".into(), &"byob".into())?;
        let (pieces, rest) = (pieces.get_reader().unchecked_into(), pipe.readable().get_byob_reader(&options));
        Ok(Self { pieces, rest, reading: None, way: Way::First, ahead: 0, abort })
    }

    async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        loop {
            let reading = self.reading.get_or_insert_with(|| match self.way {
                Way::First | Way::Pieces => self.pieces.read().into(),
                Way::Gather => self.rest.read_at_least(GATHER_BYTES, &js_sys::Uint8Array::new_with_length(GATHER_BYTES)).into(),
            });
            let read = if self.way == Way::Gather {
                let patience = std::pin::pin!(worker::Delay::from(Duration::from_millis(GATHER_MILLIS)));
                match select(reading, patience).await {
                    Either::Left((Ok(read), _)) => Ok(read),
                    // What came before it broke off is in the other branch.
                    Either::Left((Err(_), _)) | Either::Right(_) => {
                        self.reading = None;
                        self.way = Way::Pieces;
                        continue;
                    }
                }
            } else {
                reading.await
            };
            self.reading = None;
            let Ok(read) = read.map(Read::unchecked_from_js) else { return Some(Err(HttpError::Broken)) };
            let bytes = read.value().filter(|_| !read.done())?;
            let length = i64::from(bytes.length());
            let twice = match self.way {
                Way::First | Way::Pieces => {
                    let twice = -self.ahead;
                    self.ahead += length;
                    twice
                }
                Way::Gather => {
                    let twice = self.ahead;
                    self.ahead -= length;
                    twice
                }
            };
            if self.way == Way::First {
                self.way = Way::Gather;
            }
            let new = bytes.subarray(u32::try_from(twice.clamp(0, length)).unwrap_or(0), bytes.length());
            if new.length() > 0 {
                return Some(Ok(new.to_vec().into()));
            }
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
    let open = answer.body().map(|body| Open::new(&body, abort)).transpose().map_err(|_| HttpError::Broken)?;
    response.body(Incoming(SendWrapper::new(open))).map_err(|_| HttpError::Broken)
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
