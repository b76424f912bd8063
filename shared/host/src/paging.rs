//! Lists page by cursor: `?after=…&limit=…`.

use astra_kernel::Problem;
use serde::{Deserialize, Serialize};

/// The query of every list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PageQuery {
    /// Where the page begins: the `nextCursor` of the one before.
    pub after: Option<String>,
    /// How many entries, 1 to 200; 50 unless told.
    pub limit: Option<u32>,
}

impl PageQuery {
    /// The checked limit.
    ///
    /// # Errors
    /// `422` outside 1 to 200.
    pub fn limit(&self) -> Result<u32, Problem> {
        match self.limit.unwrap_or(50) {
            limit @ 1..=200 => Ok(limit),
            _ => Err(Problem::field("limit", "a whole number from 1 to 200")),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Page)]
pub struct PageBody<T> {
    /// The entries.
    pub data: Vec<T>,
    /// What `after` is for the next page; null on the last.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

impl<T> PageBody<T> {
    /// From the store's page, entry by entry.
    pub fn from_page<U>(page: astra_store::Page<U>, show: impl FnMut(U) -> T) -> Self {
        Self { data: page.data.into_iter().map(show).collect(), next_cursor: page.next }
    }
}
