//! Where what was found stands.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where a piece of a document stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Citation {
    /// The document's version.
    #[schema(value_type = String, format = "uuid")]
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
