//! A document's pieces, as its job takes them.
//!
//! Text is read part by part and forgotten when its pieces are taken, so that a document of 20 MiB takes a megabyte or two of memory; it is read once to count its pieces, and once to
//! have them. A page of HTML and a PDF are read as a whole: their tokens and objects go where they like. Large ones come one after the other in a process ([`Alone`]), or several at once
//! would take more memory than a Worker has, and take it again whenever they are tried again.

use crate::upload;
use crate::work::Undone;
use astra_host::NotConverted;
use astra_host::stream::TurnHost;
use astra_kernel::{Timestamp, json};
use astra_memory::html;
use astra_memory::pdf::{self, Answer, Refusal};
use astra_memory::split::{Chunk, Format, Splitter};
use astra_store::Tenant;
use astra_store::documents::ToSplit;
use astra_store::jobs::Lease;
use std::sync::atomic::{AtomicI64, Ordering};
use uuid::Uuid;

/// After so many tries over which its reader ended a PDF is not read.
const READINGS: u32 = 3;

/// Of more parts than these a document is large where it is read as a whole.
const SMALL: usize = 4;

/// How long a large document keeps others waiting without a step, in milliseconds: a Worker may be stopped at any moment, and says nothing then.
const ALONE_MILLIS: i64 = 60_000;

/// How long another one waits until it is tried again, in milliseconds.
const PATIENCE_MILLIS: i64 = 5_000;

/// Until when a large document is read here.
static READ_UNTIL: AtomicI64 = AtomicI64::new(0);

/// The one large document that is being read as a whole in this process, until this is dropped or nothing was heard of it for [`ALONE_MILLIS`].
pub(crate) struct Alone<'a> {
    place: &'a AtomicI64,
    until: i64,
}

impl<'a> Alone<'a> {
    fn claim(place: &'a AtomicI64, now: Timestamp) -> Option<Self> {
        let until = now.0 + ALONE_MILLIS;
        let claimed = place.fetch_update(Ordering::AcqRel, Ordering::Acquire, |other| (other <= now.0).then_some(until));
        // Made only where it is claimed: one that is dropped gives back.
        claimed.is_ok().then(|| Self { place, until })
    }

    fn step(&mut self, now: Timestamp) {
        let until = now.0 + ALONE_MILLIS;
        if self.place.compare_exchange(self.until, until, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.until = until;
        }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // What was taken over is somebody else's.
        let _ = self.place.compare_exchange(self.until, 0, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// A document's text, part by part.
pub(crate) struct Source<'a, H> {
    pub(crate) host: &'a H,
    pub(crate) tenant: &'a Tenant<'a, H>,
    pub(crate) lease: Lease,
    pub(crate) document_id: Uuid,
    pub(crate) parts: usize,
}

/// Pieces that were not taken yet.
pub(crate) enum Pieces {
    /// All of them, of a large document with its claim.
    Read(std::vec::IntoIter<Chunk>, Option<Alone<'static>>),
    /// Those of a text, of which some parts were read.
    Text(Box<Splitter>, usize),
}

impl<H: TurnHost> Source<'_, H> {
    /// How many pieces there are, and none of them taken.
    pub(crate) async fn pieces(&self, document: &ToSplit, attempts: u32) -> Result<(usize, Pieces), Undone> {
        let format = match document.media_type.as_str() {
            media_type @ ("text/html" | pdf::MEDIA_TYPE) => {
                let alone = self.alone()?;
                let all = if media_type == pdf::MEDIA_TYPE { self.pages(attempts).await? } else { self.page().await? };
                return Ok((all.len(), Pieces::Read(all.into_iter(), alone)));
            }
            "text/markdown" => Format::Markdown,
            _ => Format::Text,
        };
        let begun = || Pieces::Text(Box::new(Splitter::new(format)), 0);
        Ok((self.skip(&mut begun(), usize::MAX).await?, begun()))
    }

    /// Takes so many pieces for nothing; how many there were.
    pub(crate) async fn skip(&self, pieces: &mut Pieces, at_most: usize) -> Result<usize, Undone> {
        let mut skipped = 0;
        while skipped < at_most && self.take(pieces).await?.is_some() {
            skipped += 1;
        }
        Ok(skipped)
    }

    fn alone(&self) -> Result<Option<Alone<'static>>, Undone> {
        if self.parts <= SMALL {
            return Ok(None);
        }
        let now = self.host.now();
        let wait = || Undone::Wait("Another large document is being read.".to_owned(), now.plus_millis(PATIENCE_MILLIS));
        Alone::claim(&READ_UNTIL, now).map(Some).ok_or_else(wait)
    }

    /// Takes the next piece.
    pub(crate) async fn take(&self, pieces: &mut Pieces) -> Result<Option<Chunk>, Undone> {
        match pieces {
            Pieces::Read(rest, alone) => {
                if let Some(alone) = alone {
                    alone.step(self.host.now());
                }
                Ok(rest.next())
            }
            Pieces::Text(splitter, next) => loop {
                if let Some(chunk) = splitter.chunk() {
                    return Ok(Some(chunk));
                }
                if *next > self.parts {
                    return Ok(None);
                }
                if *next == self.parts {
                    splitter.end();
                } else {
                    splitter.push(&self.part(*next).await?);
                }
                *next += 1;
            },
        }
    }

    async fn part(&self, part: usize) -> Result<String, Undone> {
        self.tenant.read_document_part(self.lease, self.document_id, part).await?.ok_or(Undone::Lost)
    }

    /// A page's pieces.
    async fn page(&self) -> Result<Vec<Chunk>, Undone> {
        // A place of the right size at once: one that grows is there twice while it does.
        let mut page = String::with_capacity(self.parts * upload::PART);
        for part in 0..self.parts {
            page.push_str(&self.part(part).await?);
        }
        let (mut splitter, mut chunks) = (Splitter::new(Format::Markdown), Vec::new());
        let mut all = |part: Option<&str>| {
            match part {
                Some(part) => splitter.push(part),
                None => splitter.end(),
            }
            while let Some(chunk) = splitter.chunk() {
                chunks.push(chunk);
            }
        };
        html::read(&page, |part| all(Some(part)));
        all(None);
        Ok(chunks)
    }

    /// A PDF's pieces. Its reader may also have ended over somebody else's file at the same moment, so that it is asked again, but not for ever.
    async fn pages(&self, attempts: u32) -> Result<Vec<Chunk>, Undone> {
        let never = |why: &dyn std::fmt::Display| Undone::Never(format!("The PDF cannot be read: {why}."));
        let mut file = Vec::with_capacity(self.parts * pdf::PART);
        for part in 0..self.parts {
            if !pdf::of_body(&self.part(part).await?, &mut file) {
                return Err(never(&Refusal::Broken));
            }
        }
        let said = self.host.convert(file).await.and_then(|said| json::from_str(&said).map_err(|_| NotConverted::Ended));
        match said {
            Ok(Answer::Pages(pages)) => Ok(pdf::pieces(&pages)),
            Ok(Answer::Refused(refusal)) => Err(never(&refusal)),
            Err(NotConverted::Ended) if attempts >= READINGS => Err(never(&NotConverted::Ended)),
            Err(error) => Err(Undone::Later(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_host::testing::{FakeHost, NOW};
    use serde_json::{Value, json};

    const ID: &str = "0199c0de-0000-7000-8000-000000000001";

    /// What becomes of the job of a document of so many parts.
    async fn job(media_type: &str, parts: usize) -> FakeHost {
        let host = FakeHost::new(&[]);
        host.answer("op_jobs_due", &json!({ "outcome": "ok", "workspaces": ["acme"] }));
        let job = json!({ "id": ID, "kind": "ingest", "arg": { "documentId": ID }, "attempts": 1 });
        host.answer("job_take", &json!({ "outcome": "ok", "job": job })).answer_text("document_body", "plums");
        let embedder = json!({ "provider": "local", "dimensions": 384, "generation": 0 });
        let document =
            json!({ "outcome": "ok", "mediaType": media_type, "parts": parts, "chunks": 0, "createdBy": "user-1", "embedder": embedder });
        host.answer("document_read", &document)
            .answer("document_chunks", &json!({ "outcome": "done" }))
            .answer("job_wait", &json!({ "outcome": "ok" }));
        assert_eq!(crate::work::round(&host, None).await, Ok(1));
        host
    }

    #[tokio::test]
    async fn a_large_page_waits_for_another_and_nothing_else_does() {
        let other = Alone::claim(&READ_UNTIL, NOW).unwrap();
        let is_done = |host: &FakeHost| host.calls().iter().any(|(name, _)| name == "document_chunks");
        for (media_type, parts) in [("text/html", SMALL), ("text/markdown", SMALL + 1), ("text/plain", SMALL + 1)] {
            assert!(is_done(&job(media_type, parts).await), "{media_type}");
        }
        for media_type in ["text/html", pdf::MEDIA_TYPE] {
            let host = job(media_type, SMALL + 1).await;
            let waits: Value = host.argument("job_wait");
            assert_eq!((&waits["runAt"], is_done(&host)), (&json!(NOW.plus_millis(PATIENCE_MILLIS)), false), "{media_type}");
        }
        drop(other);
        assert!(is_done(&job("text/html", SMALL + 1).await));
        // It is given back with the job's end.
        assert!(Alone::claim(&READ_UNTIL, NOW).is_some());
    }

    #[test]
    fn one_is_read_at_a_time_and_one_that_says_nothing_more_keeps_nobody_for_ever() {
        let place = AtomicI64::new(0);
        let at = |millis: i64| Timestamp(1_000_000 + millis);
        let mut one = Alone::claim(&place, at(0)).unwrap();
        assert!(Alone::claim(&place, at(0)).is_none());
        assert!(Alone::claim(&place, at(59_999)).is_none());
        one.step(at(30_000));
        assert!(Alone::claim(&place, at(60_000)).is_none());
        drop(one);
        let mut gone = Alone::claim(&place, at(60_000)).unwrap();
        // It was stopped, or so it seems: another one takes its place, and neither its steps nor its end take that away.
        let other = Alone::claim(&place, at(120_000)).unwrap();
        gone.step(at(120_001));
        drop(gone);
        assert!(Alone::claim(&place, at(120_002)).is_none());
        drop(other);
        assert!(Alone::claim(&place, at(120_003)).is_some());
    }
}
