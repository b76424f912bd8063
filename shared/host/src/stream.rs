//! A response that is written while the work behind it goes on: server-sent events.

use crate::Host;
use axum::response::Response;
use std::future::Future;

/// The writing end. It never makes its writer wait: a client that reads slowly, or has gone, must not hold up the model call, whose end is billed.
pub trait EventSink: Send + Sync + 'static {
    /// Sends bytes, together with others if some are waiting. After the client has gone it does nothing.
    fn push(&self, bytes: &[u8]);

    /// Ends the response when all is sent. Resolves when the client has read everything or has gone.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A host that turns can run on: it streams, and calls models.
pub trait TurnHost: Host + astra_models::Http {
    /// The writing end of a streaming response.
    type Sink: EventSink;

    /// A new streaming response (status 200, without headers) and its writing end.
    fn stream(&self) -> (Self::Sink, Response);
}
