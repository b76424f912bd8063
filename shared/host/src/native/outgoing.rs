//! Small texts from elsewhere (issuers' keys), and calls of addresses that somebody names: no redirects, no proxy.

use crate::NotFetched;
use crate::outgoing::{Answered, NotAnswered, Outgoing};
use std::time::Duration;

/// Gets a text of at most `limit` bytes within so many milliseconds, its body included.
pub(super) async fn text(client: &reqwest::Client, url: &str, limit: usize, millis: u32) -> Result<String, NotFetched> {
    let ask = client.get(url).header(http::header::ACCEPT, "application/json").timeout(Duration::from_millis(millis.into()));
    let mut answer = ask.send().await.map_err(|_| NotFetched::Unreachable)?;
    if answer.status() != http::StatusCode::OK {
        return Err(NotFetched::Status(answer.status().as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|_| NotFetched::Broken)? {
        if bytes.len() + piece.len() > limit {
            return Err(NotFetched::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    String::from_utf8(bytes).map_err(|_| NotFetched::Broken)
}

/// Calls an address that the guard has let pass, by the client whose resolver goes on with that.
pub(super) async fn call(client: &reqwest::Client, call: Outgoing) -> Result<Answered, NotAnswered> {
    let mut ask = client.request(call.method.clone(), call.url()).timeout(Duration::from_millis(call.millis.into())).body(call.body);
    for (name, value) in call.headers {
        ask = ask.header(name, value);
    }
    let failed = |error: &reqwest::Error| match () {
        () if error.is_connect() || error.is_builder() => NotAnswered::Unreachable,
        () if error.is_timeout() => NotAnswered::TimedOut,
        () => NotAnswered::Broken,
    };
    let mut answer = ask.send().await.map_err(|error| failed(&error))?;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    while bytes.len() < call.limit {
        let Some(piece) = answer.chunk().await.map_err(|error| failed(&error))? else { break };
        bytes.extend_from_slice(&piece[..piece.len().min(call.limit - bytes.len())]);
    }
    Ok(Answered { status, body: String::from_utf8_lossy(&bytes).into_owned() })
}
