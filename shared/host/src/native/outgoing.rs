//! Small texts from elsewhere (issuers' keys), by the process's one HTTP client: no redirects, no proxy.

use crate::NotFetched;
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
