//! What becomes of a call: sent, waited for until its deadline, its answer read as far as one may.

use crate::keys::workspace_name;
use crate::requests::{Entry, Source, words};
use crate::{Filter, Searches, Typesense};
use astra_kernel::{WorkspaceId, json};
use astra_models::{ByteStream as _, Http, HttpError};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Request, StatusCode};
use serde::Deserialize;
use std::pin::pin;
use uuid::Uuid;

/// How long a call that writes may take, in milliseconds: much less than a job's lease, so that what a process sends does not arrive after another one has taken over.
const WRITE_MILLIS: u32 = 10_000;

/// The most of an answer that is read, in bytes. Answers about documents that were refused repeat them.
const ANSWER: usize = 4 << 20;

/// Why there is no answer that is of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It could not be reached, or the connection broke.
    #[error("Typesense cannot be reached")]
    Away,
    /// Its time was over.
    #[error("Typesense did not answer in time")]
    Late,
    /// There is no such collection or alias.
    #[error("Typesense has no such collection")]
    Missing,
    /// It said no.
    #[error("Typesense answered {0}")]
    Status(u16),
    /// What it said is not what it says.
    #[error("Typesense's answer is not of the agreed form")]
    Garbage,
}

/// What became of a document that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is written.
    Written,
    /// It was refused: this one, and perhaps no other.
    Refused,
    /// Nothing was said of it.
    Unknown,
}

/// Sends a request and reads its answer.
async fn call<H: Http>(http: &H, request: Request<Bytes>, millis: u32) -> Result<(StatusCode, String), IndexError> {
    let answer = async {
        let response = http.send(request).await.map_err(|error| match error {
            HttpError::Unreachable | HttpError::Broken => IndexError::Away,
        })?;
        let status = response.status();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| IndexError::Away)?;
            if bytes.len() + piece.len() > ANSWER {
                return Err(IndexError::Garbage);
            }
            bytes.extend_from_slice(&piece);
        }
        String::from_utf8(bytes).map(|text| (status, text)).map_err(|_| IndexError::Garbage)
    };
    match select(pin!(answer), pin!(http.sleep(millis))).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => Err(IndexError::Late),
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: Uuid,
    /// Whether it has half of the query's words, those counted that are spelt a little otherwise. Not known where the answer does not say how many it has.
    pub has_half: bool,
}

/// What has a query's words, best first, of what somebody of a workspace may find; `limit` at most. A query without words finds nothing.
///
/// # Errors
/// [`IndexError`].
pub async fn search<H: Http>(
    http: &H,
    searches: &Searches,
    (workspace, subject): (&WorkspaceId, &str),
    source: Option<Source>,
    query: &str,
    limit: u32,
    millis: u32,
) -> Result<Vec<Named>, IndexError> {
    let words = words(query);
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let (status, text) = call(http, searches.search(workspace, subject, source, &words, limit, millis), millis).await?;
    if !status.is_success() {
        return Err(refused(status));
    }
    let mut named = hits(&text, words.split(' ').count())?;
    named.truncate(limit as usize);
    Ok(named)
}

/// A deployment's Typesense, over a host's HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a, H> {
    http: &'a H,
    typesense: &'a Typesense,
}

impl<'a, H: Http> Client<'a, H> {
    /// It.
    pub fn new(http: &'a H, typesense: &'a Typesense) -> Self {
        Self { http, typesense }
    }

    /// A call that is done when it is answered with success, or when what it would bring about is so already.
    async fn done(&self, request: Request<Bytes>, already: StatusCode) -> Result<(), IndexError> {
        let (status, _) = call(self.http, request, WRITE_MILLIS).await?;
        if status.is_success() || status == already { Ok(()) } else { Err(refused(status)) }
    }

    /// Makes a collection unless it is there.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn create_collection(&self, name: &str) -> Result<(), IndexError> {
        self.done(self.typesense.create_collection(name), StatusCode::CONFLICT).await
    }

    /// Has a workspace's alias show a collection.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn show(&self, workspace: &WorkspaceId, collection: &str) -> Result<(), IndexError> {
        self.done(self.typesense.put_alias(&self.typesense.searches.alias(workspace), collection), StatusCode::OK).await
    }

    /// Removes a workspace's alias.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn hide(&self, workspace: &WorkspaceId) -> Result<(), IndexError> {
        self.done(self.typesense.delete_alias(&self.typesense.searches.alias(workspace)), StatusCode::NOT_FOUND).await
    }

    /// Removes all of a workspace's from a collection, and the collection where it is the workspace's own.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn clear(&self, workspace: &WorkspaceId, collection: &str) -> Result<(), IndexError> {
        if crate::layout::is_own(collection, workspace) {
            self.done(self.typesense.drop_collection(collection), StatusCode::NOT_FOUND).await
        } else {
            self.done(self.typesense.delete(collection, &Filter::of(workspace)), StatusCode::NOT_FOUND).await
        }
    }

    /// Removes documents of a collection that is there.
    ///
    /// # Errors
    /// [`IndexError`].
    pub async fn delete(&self, collection: &str, filter: &Filter) -> Result<(), IndexError> {
        self.done(self.typesense.delete(collection, filter), StatusCode::OK).await
    }

    /// Writes documents: what became of each, in their order. Nothing is sent when there are none.
    ///
    /// # Errors
    /// [`IndexError`]: nobody can tell which of them were written.
    pub async fn import(&self, collection: &str, workspace: &WorkspaceId, entries: &[Entry<'_>]) -> Result<Vec<Outcome>, IndexError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let (status, text) = call(self.http, self.typesense.import(collection, workspace, entries), WRITE_MILLIS).await?;
        if !status.is_success() {
            return Err(refused(status));
        }
        Ok(outcomes(&text, entries.len()))
    }

    /// The name of a workspace in the index; for whoever looks there by hand.
    pub fn name(workspace: &WorkspaceId) -> String {
        workspace_name(workspace)
    }
}

fn refused(status: StatusCode) -> IndexError {
    if status == StatusCode::NOT_FOUND { IndexError::Missing } else { IndexError::Status(status.as_u16()) }
}

/// One line for each document, in their order. What is not said to be written is not.
fn outcomes(text: &str, count: usize) -> Vec<Outcome> {
    #[derive(Deserialize)]
    struct Line {
        success: bool,
    }
    let mut lines = text.lines();
    let outcome = |line: Option<&str>| match line.and_then(|line| json::from_str(line).ok()) {
        Some(Line { success: true }) => Outcome::Written,
        Some(Line { success: false }) => Outcome::Refused,
        None => Outcome::Unknown,
    };
    (0..count).map(|_| outcome(lines.next())).collect()
}

fn hits(text: &str, words: usize) -> Result<Vec<Named>, IndexError> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<Found>,
    }
    #[derive(Deserialize)]
    struct Found {
        code: Option<u16>,
        hits: Option<Vec<Hit>>,
    }
    #[derive(Deserialize)]
    struct Hit {
        document: Id,
        text_match_info: Option<Matched>,
    }
    #[derive(Deserialize)]
    struct Id {
        id: Uuid,
    }
    #[derive(Deserialize)]
    struct Matched {
        tokens_matched: Option<usize>,
    }
    let Answer { results } = json::from_str(text).map_err(|_| IndexError::Garbage)?;
    match results.into_iter().next() {
        Some(Found { code: None, hits: Some(hits) }) => Ok(hits
            .into_iter()
            .map(|Hit { document, text_match_info }| {
                let has = text_match_info.and_then(|info| info.tokens_matched).unwrap_or_default();
                Named { id: document.id, has_half: 2 * has >= words }
            })
            .collect()),
        Some(Found { code: Some(code), .. }) => Err(StatusCode::from_u16(code).map_or(IndexError::Garbage, refused)),
        _ => Err(IndexError::Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_answer_is_about_half_of_the_documents() {
        use Outcome::{Refused, Unknown, Written};
        assert_eq!(outcomes("{\"success\":true}\n{\"success\":true}", 2), [Written, Written]);
        let bad = r#"{"code":400,"document":"{\"content\":\"a text\"}","error":"Bad JSON.","success":false}"#;
        assert_eq!(outcomes(&format!("{{\"success\":true}}\n{bad}\n{{\"success\":true}}"), 3), [Written, Refused, Written]);
        assert_eq!(outcomes("{\"success\":true}\n{\"succ", 3), [Written, Unknown, Unknown]);
        assert_eq!(outcomes("", 1), [Unknown]);
        assert_eq!(outcomes("<html>", 1), [Unknown]);
    }

    #[test]
    fn hits_are_ids_in_their_order() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let answer = format!(
            r#"{{"results":[{{"found":3,"hits":[{{"document":{{"id":"{b}"}},"text_match_info":{{"tokens_matched":2,"score":"9"}}}},
                {{"document":{{"id":"{a}"}},"text_match_info":{{"tokens_matched":1}}}},{{"document":{{"id":"{a}"}},"text_match":9}}],"page":1}}]}}"#
        );
        let named = |id, has_half| Named { id, has_half };
        assert_eq!(hits(&answer, 3), Ok(vec![named(b, true), named(a, false), named(a, false)]));
        assert_eq!(hits(&answer, 2).map(|named| named[1].has_half), Ok(true));
        assert_eq!(hits(r#"{"results":[{"code":404,"error":"Not found."}]}"#, 1), Err(IndexError::Missing));
        assert_eq!(hits(r#"{"results":[{"code":400,"error":"x"}]}"#, 1), Err(IndexError::Status(400)));
        for garbage in ["", "{}", r#"{"results":[]}"#, r#"{"results":[{}]}"#, r#"{"results":[{"hits":[{"document":{"id":"plum"}}]}]}"#] {
            assert_eq!(hits(garbage, 1), Err(IndexError::Garbage), "{garbage}");
        }
    }
}
