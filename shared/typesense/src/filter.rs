//! Filters: conditions joined by "and", made of names of ours and of ids.

use crate::keys;
use astra_kernel::WorkspaceId;
use uuid::Uuid;

/// Which documents of a collection. It always says of which workspace; there is no way to say all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// All of a workspace's.
    pub fn of(workspace: &WorkspaceId) -> Self {
        Self(format!("workspace:={}", keys::workspace_name(workspace)))
    }

    /// Of those, these. None of them when there are no ids.
    #[must_use]
    pub fn with_ids(self, ids: &[Uuid]) -> Self {
        self.one_of("id", ids.iter().map(Uuid::to_string))
    }

    /// Of those, the pieces of these versions of documents.
    #[must_use]
    pub fn of_documents(self, ids: &[Uuid]) -> Self {
        self.one_of("document", ids.iter().map(|id| id.simple().to_string()))
    }

    /// Of those, what an earlier filling has left behind.
    #[must_use]
    pub fn before(self, epoch: i64) -> Self {
        Self(format!("{} && epoch:<{epoch}", self.0))
    }

    fn one_of(self, field: &str, ids: impl Iterator<Item = String>) -> Self {
        // A value that nothing has: an empty list would be an error, or everything.
        let ids: Vec<String> = ids.chain([Uuid::nil().simple().to_string()]).collect();
        Self(format!("{} && {field}:=[{}]", self.0, ids.join(",")))
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
