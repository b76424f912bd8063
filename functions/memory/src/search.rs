//! Search by meaning and by words at once, and one order made of both.

use crate::forms::Content;
use crate::words::{self, Leg};
use astra_host::embedder::{self, NotEmbedded, embed};
use astra_host::stream::TurnHost;
use astra_host::{Allowed, Failure};
use astra_kernel::{Problem, Timestamp};
use astra_memory::Citation;
use astra_memory::fuse::{self, Age, Cut, Fade, fuse};
use astra_models::embed::{local_embedding, to_pgvector};
use astra_store::memory::{Found, Place, Recalled, Search, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many each leg gives: more than are shown, so that what is middling in both can come before what is good in one.
const LEG: u32 = 50;

/// How long the call for a query, or for one memory, may take, in milliseconds: somebody waits.
pub(crate) const QUICK_MILLIS: u32 = 2_000;

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
    /// How each of the two searches answered; not there when both did as they should.
    #[serde(skip_serializing_if = "Option::is_none")]
    legs: Option<Legs>,
}

/// How each of the two searches answered: `ok`, `failed`, or `late`. Where the one by words did not, Postgres has searched in its place; the one by meaning is left out then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = SearchLegs)]
struct Legs {
    /// By meaning.
    #[schema(value_type = String, pattern = "^(ok|failed|late)$")]
    vector: Leg,
    /// By words.
    #[schema(value_type = String, pattern = "^(ok|failed|late)$")]
    keyword: Leg,
}

impl Legs {
    /// As they should.
    const OK: Self = Self { vector: Leg::Ok, keyword: Leg::Ok };
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
    pub(crate) async fn run<H: TurnHost>(self, host: &H, allowed: &Allowed<'_, H>, what: Source) -> Result<Hits, Failure> {
        let cut = self.cut()?;
        let (Recalled { found, vector, keyword, fade, .. }, legs, is_local) = self.recall(host, allowed, what).await?;
        let mut found: BTreeMap<Uuid, Found> = found.into_iter().map(|entry| (entry.id, entry)).collect();
        let fade = fade.and_then(|fade| Fade::new(fade.weight, fade.half_life_days).ok());
        let now = host.now();
        let age = |id: &Uuid| match found.get(id) {
            Some(entry) if !entry.pinned => Age::Millis(now.0.saturating_sub(entry.updated_at.0)),
            _ => Age::Pinned,
        };
        // The local embedder knows no more than the words do, and less well (docs/retrieval.md).
        let by_meaning = fuse::Leg { found: (legs.vector == Leg::Ok).then_some(vector), is_weak: is_local };
        let by_words = fuse::Leg { found: Some(keyword), is_weak: false };
        let ranked = Cut { fade, ..cut }.apply(fuse(&[by_meaning, by_words]), age);
        let data = ranked.into_iter().filter_map(|item| found.remove(&item.id).map(|entry| hit(entry, item.score))).collect();
        Ok(Hits { data, legs: (legs != Legs::OK).then_some(legs) })
    }

    /// Both searches by the local embedding; where the workspace's embedder is another, by meaning once more by that one's, if it is there in time. And whether it is the local one.
    async fn recall<H: TurnHost>(&self, host: &H, allowed: &Allowed<'_, H>, what: Source) -> Result<(Recalled, Legs, bool), Failure> {
        let (subject, query) = (allowed.claims.sub.as_str(), self.query.as_str());
        let unknown = || Problem::not_found("workspace");
        let local = to_pgvector(&local_embedding(query));
        let search = Search { subject, what: &[what], embedding: &local, generation: None, query, limit: LEG };
        let (first, keyword) = match words::typesense(host)? {
            Some(typesense) => words::recall(host, &typesense, allowed, &search, what).await?,
            None => (allowed.data.search(&search).await?.ok_or_else(unknown)?, Leg::Ok),
        };
        let Some(embedder) = &first.embedder else { return Ok((first, Legs { vector: Leg::Ok, keyword }, true)) };
        let vectors = match embed(host, allowed.data.workspace(), embedder, subject, &[query], QUICK_MILLIS).await {
            Ok(vectors) => vectors,
            Err(error) => {
                host.log(&format!(r#"{{"event":"search","leftOut":"vector","error":"{error}"}}"#));
                let vector = if matches!(error, NotEmbedded::Late) { Leg::Late } else { Leg::Failed };
                return Ok((first, Legs { vector, keyword }, false));
            }
        };
        let embedding = vectors.first().map_or("", String::as_str);
        let by_meaning = Search { embedding, generation: embedder::generation(embedder), query: "", ..search };
        let mut second = allowed.data.search(&by_meaning).await?.ok_or_else(unknown)?;
        // Some: the embedder was changed meanwhile, and nothing was found by meaning.
        let vector = if second.embedder.is_none() { Leg::Ok } else { Leg::Failed };
        second.found.extend(first.found);
        second.keyword = first.keyword;
        Ok((second, Legs { vector, keyword }, false))
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
