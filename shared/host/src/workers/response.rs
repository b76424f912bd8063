//! A response on its way into the runtime. A body whose length is known goes as bytes: a stream would pass through JavaScript piece by piece.

use axum::response::Response;
use http_body::Body as _;
use http_body_util::BodyExt as _;

pub(super) async fn to_runtime(response: Response) -> worker::Result<web_sys::Response> {
    #[cfg(feature = "http-client")]
    let mut response = response;
    #[cfg(feature = "http-client")]
    if let Some(readable) = response.extensions_mut().remove::<super::event_stream::Readable>() {
        let init = web_sys::ResponseInit::new();
        init.set_status(response.status().as_u16());
        init.set_headers(&worker::Headers::from(response.headers()).0);
        return Ok(web_sys::Response::new_with_opt_readable_stream_and_init(Some(&readable.0), &init)?);
    }
    if response.body().size_hint().exact().is_none() {
        return worker::response_to_wasm(response.map(Frames));
    }
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(|e| worker::Error::RustError(e.to_string()))?.to_bytes();
    let init = web_sys::ResponseInit::new();
    init.set_status(parts.status.as_u16());
    init.set_headers(&worker::Headers::from(&parts.headers).0);
    // An empty body is none: with some statuses (204) another is not allowed.
    let body = (!bytes.is_empty()).then(|| js_sys::Uint8Array::from(&*bytes));
    Ok(web_sys::Response::new_with_opt_js_u8_array_and_init(body.as_ref(), &init)?)
}

/// Gives the body the error type that the runtime's adapter wants.
struct Frames(axum::body::Body);

impl http_body::Body for Frames {
    type Data = bytes::Bytes;
    type Error = worker::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.0).poll_frame(context).map_err(|e| worker::Error::RustError(e.to_string()))
    }
}
