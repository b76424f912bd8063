//! One call of a provider, begun again as [`Retry`] says, to the point where a body of the promised kind begins.

use crate::retry::retry_after;
use crate::{Http, HttpError, ModelError, Retry};
use bytes::Bytes;
use http::header::CONTENT_TYPE;

/// What a provider was asked for. Some servers name no type or a wrong one, so only what it never is is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Events,
    Json,
}

/// Sends a request until it is answered. Nothing of the body was read yet.
///
/// # Errors
/// [`ModelError`] of the last call.
pub(crate) async fn begin<H: Http>(
    http: &H,
    request: &http::Request<Bytes>,
    wanted: Wanted,
    retry: Retry<'_>,
) -> Result<H::Body, ModelError> {
    let mut made = 0;
    loop {
        made += 1;
        (retry.asking)(true);
        let error = match call(http, request.clone(), wanted).await {
            Ok(body) => return Ok(body),
            Err(error) => error,
        };
        (retry.asking)(false);
        match retry.wait(&error, made) {
            Some(wait) => http.sleep(wait).await,
            None => return Err(error),
        }
    }
}

async fn call<H: Http>(http: &H, request: http::Request<Bytes>, wanted: Wanted) -> Result<H::Body, ModelError> {
    let response = http.send(request).await.map_err(|error| match error {
        HttpError::Unreachable => ModelError::Unreachable,
        HttpError::Broken => ModelError::Broken,
    })?;
    if !response.status().is_success() {
        // The body is dropped unread: it may repeat the prompt or part of the key.
        return Err(ModelError::Status { status: response.status().as_u16(), retry_after: retry_after(response.headers()) });
    }
    let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes()).to_ascii_lowercase();
    match wanted {
        Wanted::Events if kind.starts_with(b"text/html") => {
            Err(ModelError::Garbage("it answered with a page where a stream of events was asked for"))
        }
        Wanted::Events if kind.starts_with(b"application/json") => {
            Err(ModelError::Garbage("it answered with JSON where a stream of events was asked for"))
        }
        Wanted::Json if kind.starts_with(b"text/html") => Err(ModelError::Garbage("it answered with a page where JSON was asked for")),
        _ => Ok(response.into_body()),
    }
}
