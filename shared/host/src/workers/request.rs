//! A request on its way in from the runtime.
//!
//! A body whose length is declared and small is read whole when somebody first asks for it: one pass through JavaScript. Any other is read piece by
//! piece, so that what is too large is refused before all of it is here.

use crate::web::BODY_LIMIT;
use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body::Frame;
use send_wrapper::SendWrapper;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use worker::Headers;

pub(super) fn from_runtime(request: web_sys::Request) -> worker::Result<http::Request<Body>> {
    let mut converted = http::Request::builder().method(&*request.method()).uri(request.url());
    if let Some(headers) = converted.headers_mut() {
        *headers = (&Headers(request.headers())).into();
    }
    let length = converted.headers_ref().and_then(|headers| headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<usize>().ok());
    let body = match length {
        Some(0) => Body::empty(),
        Some(length) if length <= BODY_LIMIT => Body::new(Whole(SendWrapper::new(State::Unread(request)))),
        _ => request.body().map_or_else(Body::empty, |stream| Body::new(worker::Body::new(stream))),
    };
    converted.body(body).map_err(|error| worker::Error::RustError(error.to_string()))
}

/// A body that comes in one piece.
struct Whole(SendWrapper<State>);

enum State {
    Unread(web_sys::Request),
    Reading(JsFuture),
    Read,
}

fn failed(error: &JsValue) -> worker::Error {
    worker::Error::RustError(error.as_string().unwrap_or_else(|| "the body broke off".to_owned()))
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = worker::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, worker::Error>>> {
        loop {
            *self.0 = match &mut *self.0 {
                State::Unread(request) => State::Reading(JsFuture::from(request.array_buffer().map_err(|error| failed(&error))?)),
                State::Reading(whole) => {
                    let whole = ready!(Pin::new(whole).poll(context));
                    *self.0 = State::Read;
                    let bytes = whole.map(|buffer| js_sys::Uint8Array::new(&buffer).to_vec().into());
                    return Poll::Ready(Some(bytes.map(Frame::data).map_err(|error| failed(&error))));
                }
                State::Read => return Poll::Ready(None),
            };
        }
    }
}
