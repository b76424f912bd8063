//! Documents: versions by slug, and the pieces that are searched.

use crate::jobs::Lease;
use crate::memory::{Embedder, Put};
use crate::{Database, Listed, Outcome, Page, StoreError, Tenant, tenant_statement};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A document to keep.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewDocument<'a> {
    /// Its version's id, a `UUIDv7`.
    pub id: Uuid,
    /// Its name.
    pub slug: &'a str,
    /// Its title.
    pub title: &'a str,
    /// What its body is.
    pub media_type: &'a str,
    /// Its tags.
    pub tags: &'a [String],
    /// Of its body: the same is no new version.
    pub hash: &'a str,
    /// How many bytes were sent.
    pub bytes: usize,
    /// How many parts of its text were sent before, by [`Tenant::put_document_part`].
    pub parts: usize,
    /// The text, or its last part.
    pub body: &'a str,
    /// Who sent it.
    pub created_by: &'a str,
    /// The id of the job that splits it, a `UUIDv7`.
    pub job_id: Uuid,
    /// The host's clock.
    pub now: Timestamp,
}

/// A version of a document, without its body.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Its id.
    pub id: Uuid,
    /// The document.
    pub slug: String,
    /// From 1.
    pub version: i32,
    /// Its title.
    pub title: String,
    /// What its body is.
    pub media_type: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// How many bytes were sent.
    pub bytes: i64,
    /// `pending`, `ready` or `failed`.
    pub status: String,
    /// Why it failed.
    pub error: Option<String>,
    /// How many pieces of it are there.
    pub chunks: i64,
    /// Of how many; none before that is known.
    pub total_chunks: Option<i64>,
    /// Whether it is this version that is searched.
    pub is_current: bool,
    /// Who sent it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// Since when it is searched.
    pub ready_at: Option<Timestamp>,
}

/// Which documents.
#[derive(Debug, Default, Serialize)]
pub struct DocumentList<'a> {
    /// Versions of this one, newest first; else the newest of each.
    pub slug: Option<&'a str>,
    /// Only this version.
    pub version: Option<i32>,
    /// Only those with this tag.
    pub tag: Option<&'a str>,
    /// Where the page begins.
    pub after: Option<&'a str>,
    /// How many.
    pub limit: u32,
}

/// What went with a document.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct RemovedDocument {
    /// Versions.
    pub versions: i64,
    /// Pieces.
    pub chunks: i64,
}

/// What a job reads of a document first: all but its text.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToSplit {
    /// What it is.
    pub media_type: String,
    /// How many parts its text has.
    pub parts: usize,
    /// How many pieces are there already: the first ones.
    pub chunks: usize,
    /// Who sent it.
    pub created_by: String,
    /// What embeds its pieces.
    pub embedder: Embedder,
}

/// A piece to keep.
#[derive(Debug, Serialize)]
pub struct NewChunk<'a> {
    /// Its id, a `UUIDv7`.
    pub id: Uuid,
    /// Which piece, from 0.
    pub position: usize,
    /// Headings above it.
    pub heading: &'a str,
    /// The text.
    pub content: &'a str,
    /// Its embedding, in pgvector's text form.
    pub embedding: String,
}

/// Pieces to keep.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewChunks<'a> {
    /// Under whose lease.
    #[serde(flatten)]
    pub lease: Lease,
    /// Of which version.
    pub document_id: Uuid,
    /// Of how many in all.
    pub total: usize,
    /// The pieces.
    pub chunks: &'a [NewChunk<'a>],
    /// For which of the workspace's embedders they were embedded; none: by the local one.
    pub generation: Option<i32>,
    /// The lease's new end.
    pub leased_until: Timestamp,
    /// The host's clock.
    pub now: Timestamp,
}

/// A piece's text.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Piece<'a> {
    /// Headings above it.
    pub heading: &'a str,
    /// The text.
    pub content: &'a str,
}

/// What became of a step of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// It is done; there is more to do.
    Ok,
    /// It is done, and with it the job.
    Done,
    /// Somebody else has the job: nothing was done.
    Lost,
    /// The workspace has another embedder by now: nothing was done.
    Stale,
}

/// A part of a document's text, sent before the document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewPart<'a> {
    /// The version's id to be.
    pub document_id: Uuid,
    /// Which part, from 0.
    pub part: usize,
    /// What it says.
    pub body: &'a str,
    /// The host's clock.
    pub now: Timestamp,
}

/// Of which document a job reads what.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfJob {
    #[serde(flatten)]
    lease: Lease,
    document_id: Uuid,
    /// Its text by itself.
    apart: bool,
    part: Option<usize>,
}

/// A document's first parts are there no more: they came more than an hour ago.
#[derive(Debug)]
pub struct TooLate;

impl<D: Database> Tenant<'_, D> {
    /// Keeps a part of a document that is not there yet; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_document_part(&self, part: &NewPart<'_>) -> Result<Option<()>, StoreError> {
        let Outcome { outcome } = self.call(tenant_statement!("document_part"), part).await?;
        Ok((outcome == "ok").then_some(()))
    }

    /// Keeps a document as a new version, to be split by a job; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_document(&self, document: &NewDocument<'_>) -> Result<Option<Result<Put<Document>, TooLate>>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            outcome: String,
            document: Option<Document>,
        }
        let Answer { outcome, document } = self.call(tenant_statement!("document_put"), document).await?;
        Ok(match document {
            Some(document) => Some(Ok(if outcome == "created" { Put::Created(document) } else { Put::Known(document) })),
            None => (outcome == "late").then_some(Err(TooLate)),
        })
    }

    /// Documents; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_documents(&self, list: &DocumentList<'_>) -> Result<Option<Page<Document>>, StoreError> {
        self.call(tenant_statement!("document_list"), list).await.map(Listed::found)
    }

    /// Removes a document with all its versions; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_document(&self, slug: &str) -> Result<Option<RemovedDocument>, StoreError> {
        #[derive(Serialize)]
        struct Which<'a> {
            slug: &'a str,
        }
        #[derive(Deserialize)]
        struct Answer {
            removed: Option<RemovedDocument>,
        }
        let Answer { removed } = self.call(tenant_statement!("document_remove"), &Which { slug }).await?;
        Ok(removed)
    }

    /// A document for the job that splits it; `None` when it is gone, and the job with it, or somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_document(&self, lease: Lease, document_id: Uuid) -> Result<Option<ToSplit>, StoreError> {
        self.found(tenant_statement!("document_read"), &OfJob { lease, document_id, apart: true, part: None }).await
    }

    /// A part of its text, from 0; `None` when it is gone, or somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_document_part(&self, lease: Lease, document_id: Uuid, part: usize) -> Result<Option<String>, StoreError> {
        const BODY: &str = tenant_statement!("document_body");
        let which =
            serde_json::to_string(&OfJob { lease, document_id, apart: true, part: Some(part) }).map_err(|_| StoreError::Shape(BODY))?;
        self.call_text(BODY, &which).await.map(|body| (!body.is_empty()).then_some(body))
    }

    /// Vectors of pieces that the embedder of this generation has embedded before: for each its own, in pgvector's text form, or none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_vectors(&self, generation: Option<i32>, pieces: &[Piece<'_>]) -> Result<Vec<Option<String>>, StoreError> {
        #[derive(Serialize)]
        struct Which<'a> {
            generation: Option<i32>,
            pieces: &'a [Piece<'a>],
        }
        #[derive(Deserialize)]
        struct Answer {
            known: Vec<Option<String>>,
        }
        self.call(tenant_statement!("pieces_known"), &Which { generation, pieces }).await.map(|Answer { known }| known)
    }

    /// Keeps pieces of a document. With the last of them it is searched.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_chunks(&self, chunks: &NewChunks<'_>) -> Result<Step, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            outcome: Step,
        }
        self.call(tenant_statement!("document_chunks"), chunks).await.map(|Answer { outcome }| outcome)
    }
}
