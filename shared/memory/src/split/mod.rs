//! Documents into chunks that are embedded, found and cited by themselves.
//!
//! A chunk is at most [`CHUNK_TOKENS`] long and ends where the text does best: before a heading, else between paragraphs, sentences, lines,
//! words. It begins with up to [`OVERLAP_TOKENS`] of what came before, so that what stands across a cut is whole in one of the two; nothing
//! is repeated across a heading. It knows the headings that it stands under.
//!
//! 1. Nothing is lost: every character but blanks is in a chunk. (NUL, which Postgres cannot store, counts as a blank.)
//! 2. Time is linear in the text. A document may come piece by piece ([`Splitter`]); memory is such a piece and some twenty kilobytes, whatever the text
//!    is: one line of megabytes, a million headings. For that no line is looked at for longer than `lines` says.
//! 3. A token is taken as four bytes, as in `astra-models`: no tokenizer here, and every embedder takes far longer texts.
//!
//! Why not a crate: text-splitter brings ICU's segmentation data along, 2.3 MB gzipped in a wasm where this is 15 KB, and looks through
//! all that is left of a document for each chunk.

mod lines;
mod text;

use lines::{AHEAD, Line, Lines, Path};
use std::collections::VecDeque;
use std::ops::Range;
use text::Text;

/// How long a chunk is at most.
pub const CHUNK_TOKENS: usize = 1_000;

/// How much of what came before a chunk repeats at most.
pub const OVERLAP_TOKENS: usize = 200;

const BYTES_PER_TOKEN: usize = 4;

/// Of what is before a place two characters are looked at.
const LOOK_BACK: usize = 2 * char::MAX_LEN_UTF8;

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
    let mut splitter = Splitter::new(format);
    splitter.push(text);
    splitter.end();
    std::iter::from_fn(|| splitter.chunk()).collect()
}

/// Splits a document that comes piece by piece. Its chunks are those of [`split`], however it is cut into pieces.
///
/// Ask for chunks after each piece, and again after the end: what was asked for is forgotten.
#[derive(Debug)]
pub struct Splitter {
    text: Text,
    size: usize,
    overlap: usize,
    breaks: Breaks,
    path: Path,
    /// Where the next chunk may begin.
    from: usize,
    /// Where the last one ended.
    said: usize,
    position: usize,
}

impl Splitter {
    /// Of a document of which nothing is there yet.
    pub fn new(format: Format) -> Self {
        Self::of(format, CHUNK_TOKENS * BYTES_PER_TOKEN, OVERLAP_TOKENS * BYTES_PER_TOKEN)
    }

    /// `size` is at least 16 and `overlap` less than half of it, so that each chunk says something new.
    fn of(format: Format, size: usize, overlap: usize) -> Self {
        let markdown = format == Format::Markdown;
        Self {
            text: Text::default(),
            size,
            overlap,
            breaks: Breaks::new(markdown),
            path: Path::new(markdown),
            from: 0,
            said: 0,
            position: 0,
        }
    }

    /// What comes next of the document.
    pub fn push(&mut self, text: &str) {
        self.text.forget(self.from.saturating_sub(LOOK_BACK).min(self.breaks.lines.at).min(self.path.read()));
        self.text.push(text);
    }

    /// That was all of it.
    pub fn end(&mut self) {
        self.text.whole = true;
    }

    /// The next chunk; none as long as it depends on what is still to come, and at the end.
    pub fn chunk(&mut self) -> Option<Chunk> {
        let said = self.said;
        let part = self.part()?;
        let heading = self.path.of(&self.text, &(part.start.max(said)..part.end));
        self.position += 1;
        Some(Chunk { position: self.position - 1, heading, text: self.text.of(part).to_owned() })
    }

    /// Where the next chunk is.
    fn part(&mut self) -> Option<Range<usize>> {
        loop {
            let start = self.begin()?;
            let (is_last, size) = (self.text.end() - start <= self.size, self.size);
            if !self.text.whole && self.text.end() - start <= size + AHEAD {
                return None;
            }
            self.breaks.look(&self.text, start, start + size);
            let (end, rank) = if is_last { (self.text.end(), Rank::Heading) } else { cut(&self.text, start, size, &self.breaks) };
            let part = start..start + self.text.of(start..end).trim_end().len();
            self.from = if rank == Rank::Heading { end } else { repeat(&self.text, end, self.overlap, &self.breaks) };
            // All of a part may have been said when only blanks came after it.
            if part.end > self.said {
                self.said = part.end;
                return Some(part);
            }
            self.from = self.from.max(end);
        }
    }

    /// Where the next text begins, with up to so many blanks before it on its line: indentation means something in Markdown.
    fn begin(&mut self) -> Option<usize> {
        let (from, indent) = (self.from, self.size / 8);
        let rest = self.text.rest(from);
        let blanks = rest.find(|c: char| !c.is_whitespace());
        let line = rest[..blanks.unwrap_or(rest.len())].rfind('\n').map_or(from, |end| from + end + 1);
        let Some(blanks) = blanks else {
            // Of blanks that may be an indentation the line is still to be found.
            self.from = if self.text.end() - line > indent.max(AHEAD) { self.text.end() } else { line };
            self.breaks.look(&self.text, line, line);
            self.path.skip(&self.text, line.max(self.said));
            return None;
        };
        let start = from + blanks;
        let begins_line = self.text.before(line).next().is_none_or(|before| before == '\n');
        Some(if begins_line && start - line <= indent { line } else { start })
    }
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

/// The beginnings of lines as places to cut, only those that are looked at.
#[derive(Debug)]
struct Breaks {
    lines: Lines,
    found: VecDeque<(usize, Rank)>,
    /// The line before those that are still to be read.
    before: Line,
}

impl Breaks {
    fn new(markdown: bool) -> Self {
        Self { lines: Lines::new(markdown), found: VecDeque::new(), before: Line::Blank }
    }

    /// Reads to a place and forgets what lies before another.
    fn look(&mut self, text: &Text, from: usize, to: usize) {
        while self.lines.at <= to
            && let Some((place, line)) = self.lines.next(text)
        {
            let rank = match (&self.before, &line) {
                // A heading stays with what follows it.
                (_, Line::Blank | Line::More) | (Line::Heading(_), _) => None,
                (_, Line::Heading(_)) => Some(Rank::Heading),
                (Line::Blank, Line::Text(_)) => Some(Rank::Paragraph),
                (Line::Text(_) | Line::More, Line::Text(_)) => Some(Rank::Line),
            };
            self.found.extend(rank.map(|rank| (place.start, rank)));
            // Blank lines after a heading do not part it from its text.
            if line != Line::Blank || !matches!(self.before, Line::Heading(_)) {
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
fn cut(text: &Text, start: usize, size: usize, breaks: &Breaks) -> (usize, Rank) {
    let (least, most) = (text.ceil(start + size / 2), text.floor(start + size));
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
fn repeat(text: &Text, end: usize, overlap: usize, breaks: &Breaks) -> usize {
    let least = text.ceil(end - overlap);
    let heading = breaks.within(least..end).rev().find(|(_, rank)| *rank == Rank::Heading);
    let whole = || breaks.within(least..end).chain(inner(text, least..end)).filter(|(place, rank)| *rank > Rank::Word && *place < end);
    let word = || inner(text, least..end).next();
    heading.or_else(|| whole().min()).or_else(word).map_or(end, |(place, _)| place)
}

/// The ends of sentences and words in a part of a text: where the blank after them begins, or after the mark where no blank is needed.
fn inner(text: &Text, range: Range<usize>) -> impl Iterator<Item = (usize, Rank)> {
    // Two characters before, if there are any: "30." is the number of an item, not the end of a sentence.
    let mut earlier = text.before(range.start);
    let mut last = earlier.next();
    let mut ended = ends(earlier.next(), last);
    text.of(range.clone()).char_indices().filter_map(move |(at, c)| {
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
