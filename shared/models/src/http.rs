//! Outgoing HTTP as the host gives it.

use bytes::Bytes;
use std::future::Future;

/// Outgoing HTTP. The host upholds: redirects are not followed (a key would go to another address), and no request or header is logged.
pub trait Http: Clone + Send + Sync + 'static {
    /// A response's body.
    type Body: ByteStream;

    /// Sends a request; ready when status and headers are there. Dropping the future cuts the connection.
    ///
    /// # Errors
    /// [`HttpError::Unreachable`] when no connection came about: the request is sent again then. [`HttpError::Broken`] when it ended later,
    /// as far as the host can tell: the provider may be at work and will charge, so it is not sent again.
    fn send(&self, request: http::Request<Bytes>) -> impl Future<Output = Result<http::Response<Self::Body>, HttpError>> + Send;

    /// Waits so many milliseconds; for backoff.
    fn sleep(&self, millis: u32) -> impl Future<Output = ()> + Send;
}

/// A body read piece by piece; dropping it cuts the connection.
pub trait ByteStream: Send + 'static {
    /// The next bytes as they came from the network; `None` at the end.
    ///
    /// The implementor upholds: it is cancel-safe. A future dropped before it was ready has taken nothing.
    ///
    /// # Errors
    /// [`HttpError::Broken`].
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, HttpError>>> + Send;
}

/// Why there is no (further) answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No connection came about.
    #[error("could not be reached")]
    Unreachable,
    /// The connection ended before its time.
    #[error("broke off")]
    Broken,
}
