//! Memories in the workspace's own schema. (Search runs inside `turn_begin`.)

use crate::{Database, StoreError, Tenant, tenant_statement};
use serde_json::{Value, json};
use uuid::Uuid;

impl<D: Database> Tenant<'_, D> {
    /// Writes a memory with its embedding (pgvector's text form).
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
