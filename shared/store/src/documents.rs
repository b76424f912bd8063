//! Documents: versions by slug, and the pieces that are searched.

use crate::jobs::Lease;
use crate::memory::{Embedder, Put};
use crate::{Database, Listed, Page, StoreError, Tenant, parse, tenant_statement};
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
    /// The text.
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

/// What a job reads of a document.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// What it is.
    pub media_type: String,
    /// The text: asked for by itself, after all else.
    #[serde(skip)]
    pub body: String,
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

const PUT: &str = tenant_statement!("document_put");

/// A document as it is sent to the database: what was sent for it need not be kept any longer. (Of 20 MiB each copy counts, on Workers.)
pub struct Written(String);

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Written({} bytes)", self.0.len())
    }
}

impl NewDocument<'_> {
    /// Writes it, into a place that is large enough from the beginning.
    ///
    /// # Errors
    /// None that can come.
    pub fn write(&self) -> Result<Written, StoreError> {
        let mut json = Vec::with_capacity(self.body.len() / 16 * 17 + 4096);
        serde_json::to_writer(&mut json, self).map_err(|_| StoreError::Shape(PUT))?;
        String::from_utf8(json).map(Written).map_err(|_| StoreError::Shape(PUT))
    }
}

impl<D: Database> Tenant<'_, D> {
    /// Keeps a document as a new version, to be split by a job; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_document(&self, document: &Written) -> Result<Option<Put<Document>>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            outcome: String,
            document: Option<Document>,
        }
        let answer = self.call_text(PUT, &document.0).await?;
        let Answer { outcome, document } = parse(PUT, &answer)?;
        Ok(document.map(|document| if outcome == "created" { Put::Created(document) } else { Put::Known(document) }))
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

    /// A document's body for the job that splits it; `None` when it is gone, and the job with it, or somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_document(&self, lease: Lease, document_id: Uuid) -> Result<Option<Body>, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Which {
            #[serde(flatten)]
            lease: Lease,
            document_id: Uuid,
            apart: bool,
        }
        const BODY: &str = tenant_statement!("document_body");
        let which = Which { lease, document_id, apart: true };
        let Some(document) = self.found::<Body>(tenant_statement!("document_read"), &which).await? else { return Ok(None) };
        let which = serde_json::to_string(&which).map_err(|_| StoreError::Shape(BODY))?;
        let body = self.call_text(BODY, &which).await?;
        // None is empty: somebody else has the job by now.
        Ok((!body.is_empty()).then_some(Body { body, ..document }))
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
