//! A document's pieces, as its job takes them.
//!
//! Text is read part by part and forgotten when its pieces are taken, so that a document of 20 MiB takes a megabyte or two of memory; it is read once to count its pieces, and once to
//! have them. A page of HTML and a PDF are read as a whole: their tokens and objects go where they like.

use crate::upload;
use crate::work::Undone;
use astra_host::NotConverted;
use astra_host::stream::TurnHost;
use astra_kernel::json;
use astra_memory::html;
use astra_memory::pdf::{self, Answer, Refusal};
use astra_memory::split::{Chunk, Format, Splitter};
use astra_store::Tenant;
use astra_store::documents::ToSplit;
use astra_store::jobs::Lease;
use uuid::Uuid;

/// After so many tries over which its reader ended a PDF is not read.
const READINGS: u32 = 3;

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
    /// All of them.
    Read(std::vec::IntoIter<Chunk>),
    /// Those of a text, of which some parts were read.
    Text(Box<Splitter>, usize),
}

impl<H: TurnHost> Source<'_, H> {
    /// How many pieces there are, and none of them taken.
    pub(crate) async fn pieces(&self, document: &ToSplit, attempts: u32) -> Result<(usize, Pieces), Undone> {
        let all = match document.media_type.as_str() {
            "text/html" => self.page().await?,
            pdf::MEDIA_TYPE => self.pages(attempts).await?,
            media_type => {
                let format = if media_type == "text/markdown" { Format::Markdown } else { Format::Text };
                let begun = || Pieces::Text(Box::new(Splitter::new(format)), 0);
                let (mut counted, mut total) = (begun(), 0);
                while self.take(&mut counted).await?.is_some() {
                    total += 1;
                }
                return Ok((total, begun()));
            }
        };
        Ok((all.len(), Pieces::Read(all.into_iter())))
    }

    /// Takes the next piece.
    pub(crate) async fn take(&self, pieces: &mut Pieces) -> Result<Option<Chunk>, Undone> {
        match pieces {
            Pieces::Read(rest) => Ok(rest.next()),
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
        html::read(&page, |part| {
            splitter.push(part);
            chunks.extend(std::iter::from_fn(|| splitter.chunk()));
        });
        splitter.end();
        chunks.extend(std::iter::from_fn(|| splitter.chunk()));
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
