//! Memories in the workspace's own schema, and what is found in them. (For a turn the same search runs inside `turn_begin`.)
//!
//! What belongs to one member is for that member alone: all calls name who asks.

use crate::documents::Step;
use crate::jobs::Lease;
use crate::{Database, Listed, Outcome, Page, StoreError, Tenant, parse, tenant_statement};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Whose embeddings a workspace's memory is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Embedder {
    /// `local`, or a provider of models.
    pub provider: String,
    /// The provider's model; none: local.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How many numbers a vector has.
    pub dimensions: usize,
    /// Another base URL than the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The how manieth embedder of the workspace it is.
    #[serde(default, skip_serializing)]
    pub generation: i32,
}

/// How entries lose by age.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fading {
    /// By how much at most, 0 to 1.
    pub weight: f64,
    /// After how many days by half of that.
    pub half_life_days: f64,
}

/// How a workspace's memory is set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct MemorySettings {
    /// The embedder in force.
    pub embedder: Embedder,
    /// The one that is to take its place.
    pub next: Option<Embedder>,
    /// How entries lose by age; none: they do not.
    pub fade: Option<Fading>,
    /// How many are to be embedded before it does.
    pub left: i64,
}

/// A memory to write.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMemory<'a> {
    /// Its id, a `UUIDv7`.
    pub id: Uuid,
    /// `fact`, `preference`, `decision` or `note`.
    pub kind: &'a str,
    /// What is remembered.
    pub content: &'a str,
    /// Its embedding, in pgvector's text form.
    pub embedding: &'a str,
    /// For which of the workspace's embedders it was made; none: by the local one.
    pub generation: Option<i32>,
    /// Of its content: the same, for the same people, is stored once.
    pub hash: &'a str,
    /// Whose own it is; none: the whole workspace's.
    pub user_id: Option<&'a str>,
    /// Whether it never fades.
    pub pinned: bool,
    /// The host's clock.
    pub now: Timestamp,
}

/// A memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Its id.
    pub id: Uuid,
    /// `fact`, `preference`, `decision` or `note`.
    pub kind: String,
    /// What is remembered.
    pub content: String,
    /// Whose own it is; none: the whole workspace's.
    pub user_id: Option<String>,
    /// Whether it never fades.
    pub pinned: bool,
    /// When it was written first.
    pub created_at: Timestamp,
    /// When it was written last.
    pub updated_at: Timestamp,
}

/// Whether something is new, or was there.
#[derive(Debug, Clone)]
pub enum Put<T> {
    /// It is new.
    Created(T),
    /// The same was there.
    Known(T),
}

/// What became of a memory that was to be written.
#[derive(Debug, Clone)]
pub enum Written {
    /// It is there.
    Kept(Put<Memory>),
    /// Its embedding is of another embedder than this, which is the workspace's: nothing was written.
    Stale(Embedder),
}

/// Which memories.
#[derive(Debug, Default, Serialize)]
pub struct MemoryList<'a> {
    /// Who asks.
    pub subject: &'a str,
    /// Only this one.
    pub id: Option<Uuid>,
    /// Only of this kind.
    pub kind: Option<&'a str>,
    /// Where the page begins.
    pub after: Option<Uuid>,
    /// How many.
    pub limit: u32,
}

/// How much was forgotten of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Forgotten {
    /// Memories of their own.
    pub memories: i64,
    /// Jobs that would have made more.
    pub jobs: i64,
}

/// What a memory said before.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Superseded {
    /// Its kind.
    pub kind: String,
    /// What it said.
    pub content: String,
    /// Since when.
    pub created_at: Timestamp,
    /// Until when.
    pub superseded_at: Timestamp,
}

/// What to search in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// What was remembered.
    Memories,
    /// Documents.
    Documents,
}

/// A search.
#[derive(Debug, Serialize)]
pub struct Search<'a> {
    /// Who asks.
    pub subject: &'a str,
    /// What to search in.
    pub what: &'a [Source],
    /// The query's embedding, in pgvector's text form.
    pub embedding: &'a str,
    /// For which of the workspace's embedders it was made; none: by the local one.
    pub generation: Option<i32>,
    /// The query.
    pub query: &'a str,
    /// How many each leg gives at most.
    pub limit: u32,
}

/// What a search found: entries, and the order of each leg, best first.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Recalled {
    /// Entries, each once.
    pub found: Vec<Found>,
    /// By cosine distance of embeddings.
    pub vector: Vec<Uuid>,
    /// By words.
    pub keyword: Vec<Uuid>,
    /// The workspace's embedder, when the query's embedding is of another: nothing was found by it.
    #[serde(default)]
    pub embedder: Option<Embedder>,
    /// How entries lose by age.
    #[serde(default)]
    pub fade: Option<Fading>,
}

/// An entry that was found: a memory, or a piece of a document.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// Its id.
    pub id: Uuid,
    /// The text.
    pub content: String,
    /// Whether it never fades.
    pub pinned: bool,
    /// How old it is.
    pub updated_at: Timestamp,
    /// A memory's kind.
    pub kind: Option<String>,
    /// Where in which document it stands.
    #[serde(flatten)]
    pub place: Option<Place>,
}

/// Where a piece of a document stands.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The document's version.
    pub document_id: Uuid,
    /// The document.
    pub slug: String,
    /// Its title.
    pub title: String,
    /// Which version, from 1.
    pub version: i32,
    /// Which piece, from 0.
    pub position: i32,
    /// Headings above it, ` > ` between them.
    pub heading: String,
}

/// What a workspace's memory holds.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Memories, each member's own included.
    pub memories: i64,
    /// Documents, each counted once.
    pub documents: i64,
    /// Pieces of documents that are searched.
    pub chunks: i64,
    /// Versions that are being split.
    pub pending: i64,
    /// What is to be done.
    pub jobs: JobCounts,
}

/// Jobs of a workspace.
#[derive(Debug, Clone, Deserialize)]
pub struct JobCounts {
    /// Not done yet.
    pub waiting: i64,
    /// Failed too often.
    pub dead: i64,
    /// Since when the oldest of those that are not done is there: how far behind the memory is.
    pub oldest: Option<Timestamp>,
}

/// Texts that are to be embedded once more.
#[derive(Debug, Clone, Deserialize)]
pub struct ToEmbed {
    /// By what.
    pub embedder: Embedder,
    /// Which.
    pub rows: Vec<Text>,
}

/// A text that is to be embedded once more.
#[derive(Debug, Clone, Deserialize)]
pub struct Text {
    /// `memories` or `chunks`.
    pub table: String,
    /// Its id.
    pub id: Uuid,
    /// The text.
    pub text: String,
}

/// A text's vector by the embedder to come.
#[derive(Debug, Serialize)]
pub struct Embedded<'a> {
    /// `memories` or `chunks`.
    pub table: &'a str,
    /// Its id.
    pub id: Uuid,
    /// In pgvector's text form.
    pub embedding: &'a str,
}

impl<D: Database> Tenant<'_, D> {
    /// Writes a memory; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write_memory(&self, memory: &NewMemory<'_>) -> Result<Option<Written>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            outcome: String,
            memory: Option<Memory>,
            embedder: Option<Embedder>,
        }
        let Answer { outcome, memory, embedder } = self.call(tenant_statement!("memory_write"), memory).await?;
        let kept = memory.map(|memory| Written::Kept(if outcome == "created" { Put::Created(memory) } else { Put::Known(memory) }));
        Ok(kept.or(embedder.map(Written::Stale)))
    }

    /// How the memory is set; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn memory_settings(&self) -> Result<Option<MemorySettings>, StoreError> {
        self.found(tenant_statement!("memory_settings_get"), &crate::Nothing {}).await
    }

    /// How entries lose by age from now on. False when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_fading(&self, fade: Option<Fading>, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        struct Set {
            fade: Option<Fading>,
            now: Timestamp,
        }
        let Outcome { outcome } = self.call(tenant_statement!("memory_fade_set"), &Set { fade, now }).await?;
        Ok(outcome == "ok")
    }

    /// Has all embedded once more by another embedder, in a job of this id. False when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_embedder(&self, embedder: &Embedder, job_id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Set<'a> {
            embedder: &'a Embedder,
            job_id: Uuid,
            now: Timestamp,
        }
        let Outcome { outcome } = self.call(tenant_statement!("embedder_set"), &Set { embedder, job_id, now }).await?;
        Ok(outcome == "ok")
    }

    /// Texts that are to be embedded once more, and by what; `None` when somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_to_embed(&self, lease: Lease, limit: usize) -> Result<Option<ToEmbed>, StoreError> {
        #[derive(Serialize)]
        struct Which {
            #[serde(flatten)]
            lease: Lease,
            limit: usize,
        }
        self.found(tenant_statement!("reembed_read"), &Which { lease, limit }).await
    }

    /// Keeps vectors of the embedder to come. False when somebody else has the job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_embedded(&self, lease: Lease, rows: &[Embedded<'_>], leased_until: Timestamp) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Kept<'a> {
            #[serde(flatten)]
            lease: Lease,
            rows: &'a [Embedded<'a>],
            leased_until: Timestamp,
        }
        let Outcome { outcome } = self.call(tenant_statement!("reembed_write"), &Kept { lease, rows, leased_until }).await?;
        Ok(outcome == "ok")
    }

    /// Has the embedder to come take the other's place, if nothing is left to embed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn switch_embedder(&self, lease: Lease, now: Timestamp) -> Result<Step, StoreError> {
        #[derive(Serialize)]
        struct Switch {
            #[serde(flatten)]
            lease: Lease,
            now: Timestamp,
        }
        #[derive(Deserialize)]
        struct Answer {
            outcome: Step,
        }
        self.call(tenant_statement!("reembed_switch"), &Switch { lease, now }).await.map(|Answer { outcome }| outcome)
    }

    /// Memories of the workspace and of who asks, in the order that they were made; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_memories(&self, list: &MemoryList<'_>) -> Result<Option<Page<Memory>>, StoreError> {
        self.call(tenant_statement!("memory_list"), list).await.map(Listed::found)
    }

    /// Removes a memory of the workspace or of who asks. False when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove_memory(&self, id: Uuid, subject: &str) -> Result<bool, StoreError> {
        #[derive(Serialize)]
        struct Which<'a> {
            id: Uuid,
            subject: &'a str,
        }
        let Outcome { outcome } = self.call(tenant_statement!("memory_remove"), &Which { id, subject }).await?;
        Ok(outcome == "ok")
    }

    /// Removes all that is one member's own, and what would become that; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_member(&self, user_id: &str) -> Result<Option<Forgotten>, StoreError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Whose<'a> {
            user_id: &'a str,
        }
        #[derive(Deserialize)]
        struct Answer {
            removed: Option<Forgotten>,
        }
        self.call(tenant_statement!("memory_forget"), &Whose { user_id }).await.map(|Answer { removed }| removed)
    }

    /// What a memory has taken the place of, the latest first. Of a memory that the subject may not see, nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn memory_history(&self, id: Uuid, subject: &str) -> Result<Vec<Superseded>, StoreError> {
        #[derive(Serialize)]
        struct Which<'a> {
            id: Uuid,
            subject: &'a str,
        }
        #[derive(Deserialize)]
        struct Answer {
            data: Vec<Superseded>,
        }
        self.call(tenant_statement!("memory_history"), &Which { id, subject }).await.map(|Answer { data }| data)
    }

    /// Searches; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn search(&self, search: &Search<'_>) -> Result<Option<Recalled>, StoreError> {
        self.found(tenant_statement!("memory_search"), search).await
    }

    /// What the memory holds and what is still to be done; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn memory_status(&self) -> Result<Option<Status>, StoreError> {
        self.found(tenant_statement!("memory_status"), &crate::Nothing {}).await
    }

    /// An answer that has its fields beside its outcome; `None` unless that is `ok`.
    pub(crate) async fn found<T: serde::de::DeserializeOwned>(
        &self,
        statement: &'static str,
        arg: &impl Serialize,
    ) -> Result<Option<T>, StoreError> {
        let arg = serde_json::to_string(arg).map_err(|_| StoreError::Shape(statement))?;
        let answer = self.call_text(statement, &arg).await?;
        let Outcome { outcome } = parse(statement, &answer)?;
        if outcome == "ok" { parse(statement, &answer).map(Some) } else { Ok(None) }
    }

    /// Writes a memory that has no hash, as the smoke test does.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_memory(&self, id: Uuid, kind: &str, content: &str, embedding: &str) -> Result<(), StoreError> {
        let arg = json!({ "id": id, "kind": kind, "content": content, "embedding": embedding });
        self.call::<Value>(tenant_statement!("memory_put"), &arg).await.map(|_| ())
    }

    /// Removes a memory. False when it was not there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_memory(&self, id: Uuid) -> Result<bool, StoreError> {
        self.call::<Value>(tenant_statement!("memory_delete"), &json!({ "id": id })).await.map(|answer| answer["outcome"] == "ok")
    }
}
