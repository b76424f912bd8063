//! Documents into chunks that are embedded, found and cited by themselves.
//!
//! A chunk is at most [`CHUNK_TOKENS`] long and ends where the text does best: before a heading, else between paragraphs, sentences, lines,
//! words. It begins with up to [`OVERLAP_TOKENS`] of what came before, so that what stands across a cut is whole in one of the two; nothing
//! is repeated across a heading. It knows the headings that it stands under.
//!
//! 1. Nothing is lost: every character but blanks is in a chunk. (NUL, which Postgres cannot store, counts as a blank.)
//! 2. Time is linear in the text, memory is the chunks and a few kilobytes, whatever the text is: one line of megabytes, a million headings.
//! 3. A token is taken as four bytes, as in `astra-models`: no tokenizer here, and every embedder takes far longer texts.
//!
//! Why not a crate: text-splitter brings ICU's segmentation data along, 2.3 MB gzipped in a wasm where this is 15 KB, and looks through
//! all that is left of a document for each chunk.

mod lines;

use lines::{Line, Lines, Path};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

/// How long a chunk is at most.
pub const CHUNK_TOKENS: usize = 1_000;

/// How much of what came before a chunk repeats at most.
pub const OVERLAP_TOKENS: usize = 200;

const BYTES_PER_TOKEN: usize = 4;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Headings and code count.
    Markdown,
    /// Plain text: no headings.
    Text,
}

/// A part of a document. Its `Debug` shows sizes, no text.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its place among the document's chunks, from 0.
    pub position: usize,
    /// The headings that all of it (but what it repeats) stands under, the outermost first; of each the first 200 bytes.
    pub heading: Vec<String>,
    /// What it says, as the document has it.
    pub text: String,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { position, heading, text } = self;
        write!(f, "Chunk({position}, {} headings, {} bytes)", heading.len(), text.len())
    }
}

impl Chunk {
    /// The headings as one line, for citations: `Handbook > Refunds`.
    pub fn path(&self) -> String {
        self.heading.join(" > ")
    }

    /// What to embed: the headings, then the text, so that "30 days" is found under "Refunds".
    pub fn to_embed(&self) -> String {
        if self.heading.is_empty() { self.text.clone() } else { format!("{}\n\n{}", self.path(), self.text) }
    }
}

/// Splits a document.
pub fn split(text: &str, format: Format) -> Vec<Chunk> {
    split_by(text, format, CHUNK_TOKENS * BYTES_PER_TOKEN, OVERLAP_TOKENS * BYTES_PER_TOKEN)
}

fn split_by(text: &str, format: Format, size: usize, overlap: usize) -> Vec<Chunk> {
    let text = if text.contains('\0') { Cow::Owned(text.replace('\0', " ")) } else { Cow::Borrowed(text) };
    let markdown = format == Format::Markdown;
    let mut path = Path::new(&text, markdown);
    let mut said = 0;
    parts(&text, markdown, size, overlap)
        .enumerate()
        .map(|(position, part)| {
            let heading = path.of(&(part.start.max(said)..part.end));
            said = part.end;
            Chunk { position, heading, text: text[part].to_owned() }
        })
        .collect()
}

/// Where a text may be cut, the better the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Char,
    Word,
    Line,
    Sentence,
    Paragraph,
    Heading,
}

/// The parts of a text. `size` is at least 16 and `overlap` less than half of it, so that each part says something new.
fn parts(text: &str, markdown: bool, size: usize, overlap: usize) -> impl Iterator<Item = Range<usize>> {
    let mut breaks = Breaks { lines: Lines::new(text, markdown), found: VecDeque::new(), seen: 0, before: Line::Blank };
    let mut from = 0;
    let mut said = 0;
    std::iter::from_fn(move || {
        loop {
            let start = begin(text, from, size / 8)?;
            breaks.look(start, start + size);
            let (end, rank) = if text.len() - start <= size { (text.len(), Rank::Heading) } else { cut(text, start, size, &breaks) };
            let part = start..start + text[start..end].trim_end().len();
            from = if rank == Rank::Heading { end } else { repeat(text, end, overlap, &breaks) };
            // All of a part may have been said when only blanks came after it.
            if part.end > said {
                said = part.end;
                return Some(part);
            }
            from = from.max(end);
        }
    })
}

/// The next text from a place on, with up to so many blanks before it on its line: indentation means something in Markdown.
fn begin(text: &str, from: usize, indent: usize) -> Option<usize> {
    let start = from + text[from..].find(|c: char| !c.is_whitespace())?;
    let line = text[from..start].rfind('\n').map_or(from, |end| from + end + 1);
    let whole = line == 0 || text.as_bytes()[line - 1] == b'\n';
    Some(if whole && start - line <= indent { line } else { start })
}

/// The beginnings of lines as places to cut, only those that are looked at.
struct Breaks<'a> {
    lines: Lines<'a>,
    found: VecDeque<(usize, Rank)>,
    /// Where the lines that were read end.
    seen: usize,
    before: Line,
}

impl Breaks<'_> {
    /// Reads to a place and forgets what lies before another.
    fn look(&mut self, from: usize, to: usize) {
        while self.seen <= to
            && let Some((place, line)) = self.lines.next()
        {
            self.seen = place.end;
            let rank = match (&self.before, &line) {
                // A heading stays with what follows it.
                (_, Line::Blank) | (Line::Heading(..), _) => None,
                (_, Line::Heading(..)) => Some(Rank::Heading),
                (Line::Blank, Line::Text(_)) => Some(Rank::Paragraph),
                (Line::Text(_), Line::Text(_)) => Some(Rank::Line),
            };
            self.found.extend(rank.map(|rank| (place.start, rank)));
            // Blank lines after a heading do not part it from its text.
            if line != Line::Blank || !matches!(self.before, Line::Heading(..)) {
                self.before = line;
            }
        }
        while self.found.front().is_some_and(|(place, _)| *place < from) {
            self.found.pop_front();
        }
    }

    fn within(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = (usize, Rank)> {
        self.found.iter().copied().filter(move |(place, _)| range.contains(place))
    }
}

/// Where to end a part that is longer than `size`: at the last of the best places in its second half.
fn cut(text: &str, start: usize, size: usize, breaks: &Breaks<'_>) -> (usize, Rank) {
    let (least, most) = (text.ceil_char_boundary(start + size / 2), text.floor_char_boundary(start + size));
    let mut best = (most, Rank::Char);
    let lines = breaks.within(least + 1..most + 1);
    for (place, rank) in lines.chain(inner(text, least..most)) {
        if rank > best.1 || (rank == best.1 && place > best.0) {
            best = (place, rank);
        }
    }
    best
}

/// Where to begin after a cut so that what came before is repeated: at the last heading, else at the first paragraph, line or sentence,
/// else at the first word within `overlap` bytes; at the cut when there is none.
fn repeat(text: &str, end: usize, overlap: usize, breaks: &Breaks<'_>) -> usize {
    let least = text.ceil_char_boundary(end - overlap);
    let heading = breaks.within(least..end).rev().find(|(_, rank)| *rank == Rank::Heading);
    let whole = || breaks.within(least..end).chain(inner(text, least..end)).filter(|(place, rank)| *rank > Rank::Word && *place < end);
    let word = || inner(text, least..end).next();
    heading.or_else(|| whole().min()).or_else(word).map_or(end, |(place, _)| place)
}

/// The ends of sentences and words in a part of a text: where the blank after them begins, or after the mark where no blank is needed.
fn inner(text: &str, range: Range<usize>) -> impl Iterator<Item = (usize, Rank)> {
    // Two characters before, if there are any: "30." is the number of an item, not the end of a sentence.
    let mut earlier = text[..range.start].chars().rev();
    let mut last = earlier.next();
    let mut ended = ends(earlier.next(), last);
    text[range.clone()].char_indices().filter_map(move |(at, c)| {
        let place = range.start + at;
        let rank = if c.is_whitespace() && last.is_some_and(|last| !last.is_whitespace()) {
            Some(if ended { Rank::Sentence } else { Rank::Word })
        } else if last.is_some_and(|last| "。！？".contains(last)) {
            Some(Rank::Sentence)
        } else {
            None
        };
        // Closing quotes and brackets belong to the sentence.
        ended = ends(last, Some(c)) || (ended && "\"'”’)]»".contains(c));
        last = Some(c);
        rank.map(|rank| (place, rank))
    })
}

/// Whether a character ends a sentence, with the one before it.
fn ends(before: Option<char>, c: Option<char>) -> bool {
    match c {
        Some('.') => !before.is_some_and(|before| before.is_ascii_digit()),
        Some('!' | '?' | '…' | '。' | '！' | '？') => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
