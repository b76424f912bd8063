//! Outgoing HTTP by reqwest: HTTP/1.1, so that dropping a request or its body closes its connection and the provider stops.
//!
//! Redirects are not followed and no proxy is taken from the environment: a provider's key goes to the address it is meant for or nowhere. The turn's
//! deadline limits a call as a whole; here only connecting is limited.

use super::resolver::Resolver;
use super::{Counter, NativeHost, metrics};
use crate::guard::Guard;
use astra_models::{ByteStream, Http, HttpError};
use bytes::Bytes;
use http::StatusCode;
use rustls::ClientConfig;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection is kept that nobody uses: less than providers do, so that a request does not meet one that is being closed.
const IDLE: Duration = Duration::from_secs(30);

/// The client for models; it keeps connections.
pub(super) fn client(tls: ClientConfig) -> Result<reqwest::Client, reqwest::Error> {
    builder(tls).build()
}

/// The client for addresses that somebody names: what a name stands for is checked when it is connected to.
pub(super) fn guarded(tls: ClientConfig, guard: Guard) -> Result<reqwest::Client, reqwest::Error> {
    builder(tls).dns_resolver(Resolver::new(guard)).build()
}

fn builder(tls: ClientConfig) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
}

/// A body as it comes from the network.
#[derive(Debug)]
pub struct Incoming(reqwest::Response);

impl ByteStream for Incoming {
    // Cancel-safe: what is awaited is one frame of the body, which is taken when it is there.
    async fn next(&mut self) -> Option<Result<Bytes, HttpError>> {
        self.0.chunk().await.map_err(|_| HttpError::Broken).transpose()
    }
}

async fn send(client: reqwest::Client, request: http::Request<Bytes>) -> Result<http::Response<Incoming>, HttpError> {
    // An address that is none was not reached either.
    let request = reqwest::Request::try_from(request).map_err(|_| HttpError::Unreachable)?;
    let mut answer = client.execute(request).await.map_err(|error| {
        let nothing_was_sent = error.is_connect() || error.is_builder();
        if nothing_was_sent { HttpError::Unreachable } else { HttpError::Broken }
    })?;
    let mut response = http::Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        *headers = std::mem::take(answer.headers_mut());
    }
    response.body(Incoming(answer)).map_err(|_| HttpError::Broken)
}

impl<C: Counter> Http for NativeHost<C> {
    type Body = Incoming;

    fn send(&self, request: http::Request<Bytes>) -> impl Future<Output = Result<http::Response<Incoming>, HttpError>> + Send {
        let began = Instant::now();
        let call = send(self.process.models.clone(), request);
        async move {
            let answer = call.await;
            let outcome = match &answer {
                Ok(response) if response.status().is_success() => "ok",
                Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => "too_many_requests",
                Ok(_) => "refused",
                Err(HttpError::Unreachable) => "unreachable",
                Err(HttpError::Broken) => "broken",
            };
            metrics().model(outcome, began);
            answer
        }
    }

    fn sleep(&self, millis: u32) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(Duration::from_millis(millis.into()))
    }
}
