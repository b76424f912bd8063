//! One client: one connection that is kept alive, one request at a time, every answer read to its end.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What is asked, again and again.
pub(crate) struct Question {
    pub(crate) address: SocketAddr,
    pub(crate) uri: Uri,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The status of a right answer.
    pub(crate) status: u16,
    /// What a right answer's body holds; empty takes any.
    pub(crate) expect: Bytes,
    /// What a chunk holds whose distance to the one before is measured; empty measures none.
    pub(crate) chunk: Bytes,
    /// An answer that takes longer is an error.
    pub(crate) deadline: Duration,
}

/// A right answer.
pub(crate) struct Answer {
    pub(crate) first_byte: Duration,
    pub(crate) whole: Duration,
    pub(crate) bytes: usize,
    /// Time between two chunks.
    pub(crate) gaps: Vec<Duration>,
}

/// Why an answer does not count. `Display` is what the table shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub(crate) enum Miss {
    #[error("no connection")]
    Connect,
    #[error("broke off")]
    Broken,
    #[error("too slow")]
    Slow,
    #[error("status {0}")]
    Status(u16),
    #[error("not the whole answer")]
    Content,
}

/// A client of one address.
pub(crate) struct Client<'a> {
    question: &'a Question,
    connection: Option<SendRequest<Full<Bytes>>>,
    read: BytesMut,
}

impl<'a> Client<'a> {
    pub(crate) fn new(question: &'a Question) -> Self {
        Self { question, connection: None, read: BytesMut::with_capacity(16 * 1024) }
    }

    /// Asks once. After a miss the next question opens a new connection.
    pub(crate) async fn ask(&mut self) -> Result<Answer, Miss> {
        let outcome = match tokio::time::timeout(self.question.deadline, self.try_ask()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Miss::Slow),
        };
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    async fn try_ask(&mut self) -> Result<Answer, Miss> {
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            self.connection = Some(connect(self.question.address).await?);
        }
        let connection = self.connection.as_mut().ok_or(Miss::Connect)?;
        let mut request = Request::new(Full::new(self.question.body.clone()));
        *request.method_mut() = self.question.method.clone();
        *request.uri_mut() = self.question.uri.clone();
        *request.headers_mut() = self.question.headers.clone();
        let began = Instant::now();
        connection.ready().await.map_err(|_| Miss::Broken)?;
        let mut response = connection.send_request(request).await.map_err(|_| Miss::Broken)?;
        self.read.clear();
        let mut first_byte = None;
        let mut gaps = Gaps::new(&self.question.chunk);
        while let Some(frame) = response.frame().await {
            let frame = frame.map_err(|_| Miss::Broken)?;
            if let Some(data) = frame.data_ref() {
                first_byte.get_or_insert_with(|| began.elapsed());
                gaps.read(data, began.elapsed());
                self.read.extend_from_slice(data);
            }
        }
        let whole = began.elapsed();
        if response.status().as_u16() != self.question.status {
            return Err(Miss::Status(response.status().as_u16()));
        }
        let expect = &self.question.expect;
        if !expect.is_empty() && !self.read.windows(expect.len()).rev().any(|window| window == expect) {
            return Err(Miss::Content);
        }
        Ok(Answer { first_byte: first_byte.unwrap_or(whole), whole, bytes: self.read.len(), gaps: gaps.between })
    }
}

/// Time between the chunks of one answer. What holds no such chunk (an answer's head, its usage) is read over.
struct Gaps<'a> {
    chunk: &'a [u8],
    last: Option<Duration>,
    between: Vec<Duration>,
}

impl<'a> Gaps<'a> {
    fn new(chunk: &'a [u8]) -> Self {
        Self { chunk, last: None, between: Vec::new() }
    }

    /// What came in one read is one chunk: who waits for text gets nothing sooner because two pieces of it came at once.
    fn read(&mut self, data: &[u8], at: Duration) {
        if self.chunk.is_empty() || !data.windows(self.chunk.len()).any(|window| window == self.chunk) {
            return;
        }
        if let Some(last) = self.last.replace(at) {
            self.between.push(at.saturating_sub(last));
        }
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Miss> {
    let stream = TcpStream::connect(address).await.map_err(|_| Miss::Connect)?;
    stream.set_nodelay(true).map_err(|_| Miss::Connect)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| Miss::Connect)?;
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(chunk: &str, reads: &[(&str, u64)]) -> Vec<u128> {
        let mut gaps = Gaps::new(chunk.as_bytes());
        for (data, at) in reads {
            gaps.read(data.as_bytes(), Duration::from_millis(*at));
        }
        gaps.between.iter().map(Duration::as_millis).collect()
    }

    #[test]
    fn gaps_are_between_reads_that_hold_the_chunk() {
        let reads = [("begun", 0), ("text: a", 50), ("text: b", 70), ("text: c text: d", 110), ("usage", 400)];
        assert_eq!(gaps("text:", &reads), [20, 40]);
        assert_eq!(gaps("", &reads), [0; 0]);
        assert_eq!(gaps("text:", &reads[..2]), [0; 0]);
    }
}
