//! Memories in the workspace's own schema, and what is found in them. (For a turn the same search runs inside `turn_begin`.)
//!
//! What belongs to one member is for that member alone: all calls name who asks.

use crate::{Database, Listed, Outcome, Page, StoreError, Tenant, parse, tenant_statement};
use astra_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

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

impl<D: Database> Tenant<'_, D> {
    /// Writes a memory; `None` when the workspace does not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write_memory(&self, memory: &NewMemory<'_>) -> Result<Option<Put<Memory>>, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            outcome: String,
            memory: Option<Memory>,
        }
        let Answer { outcome, memory } = self.call(tenant_statement!("memory_write"), memory).await?;
        Ok(memory.map(|memory| if outcome == "created" { Put::Created(memory) } else { Put::Known(memory) }))
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
