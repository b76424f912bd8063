//! Search by meaning and by words at once, and one order made of both.

use crate::forms::Content;
use astra_host::{Allowed, Failure, Host};
use astra_kernel::{Problem, Timestamp};
use astra_memory::Citation;
use astra_memory::fuse::{Age, Cut, fuse};
use astra_models::embed::{local_embedding, to_pgvector};
use astra_store::memory::{Found, Place, Search, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many each leg gives: more than are shown, so that what is middling in both can come before what is good in one.
const LEG: u32 = 50;

/// What to look for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = SearchQuery)]
pub(crate) struct SearchBody {
    /// The question, or words.
    query: Content,
    /// How many at most, 1 to 50; 10 unless told.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 50)]
    limit: Option<u32>,
    /// What scores less is left out, 0 to 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    threshold: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SearchResult)]
pub(crate) struct Hits {
    /// The best first.
    data: Vec<Hit>,
}

/// One that was found.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = SearchHit)]
struct Hit {
    /// The memory's or the piece's id.
    #[schema(value_type = String, format = "uuid")]
    id: Uuid,
    /// From 0 to 1: 1 is first by meaning and by words.
    score: f64,
    /// The text.
    content: String,
    /// A memory's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// Where a document's piece stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    citation: Option<Citation>,
    /// When it was written.
    #[serde(rename = "updatedAt")]
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl SearchBody {
    fn cut(&self) -> Result<Cut, Problem> {
        let limit = self.limit.unwrap_or(10);
        let threshold = self.threshold.unwrap_or_default();
        if !(1..=50).contains(&limit) {
            return Err(Problem::field("/limit", "a whole number from 1 to 50"));
        }
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Problem::field("/threshold", "a number from 0 to 1"));
        }
        Ok(Cut { fade: None, threshold, limit: limit as usize })
    }

    /// Looks in one of the two.
    pub(crate) async fn run<H: Host>(self, allowed: &Allowed<'_, H>, what: Source) -> Result<Hits, Failure> {
        let cut = self.cut()?;
        let embedding = to_pgvector(&local_embedding(self.query.as_str()));
        let search = Search { subject: &allowed.claims.sub, what: &[what], embedding: &embedding, query: self.query.as_str(), limit: LEG };
        let recalled = allowed.data.search(&search).await?.ok_or_else(|| Problem::not_found("workspace"))?;
        let mut found: BTreeMap<Uuid, Found> = recalled.found.into_iter().map(|entry| (entry.id, entry)).collect();
        let ranked = cut.apply(fuse(&[Some(recalled.vector), Some(recalled.keyword)]), |_| Age::Pinned);
        let data = ranked.into_iter().filter_map(|item| found.remove(&item.id).map(|entry| hit(entry, item.score))).collect();
        Ok(Hits { data })
    }
}

fn citation(place: Place) -> Citation {
    let Place { document_id, slug, title, version, position, heading } = place;
    Citation { document_id, slug, title, version, position, heading }
}

fn hit(entry: Found, score: f64) -> Hit {
    let Found { id, content, pinned: _, updated_at, kind, place } = entry;
    Hit { id, score, content, kind, citation: place.map(citation), updated_at }
}
