//! What a page's instructions draw, as far as it is text. Images, colours, shadings and clips are neither read nor decoded.
//!
//! A page can be small and draw for ever: forms that draw forms, contents that inflate to gigabytes. So all work is paid from one [`Fuel`], and forms nest only so deep.

use crate::line::Lines;
use hayro_font::hayro_cmap::BfString;
use hayro_font::kurbo::{Affine, Vec2};
use hayro_font::{CMapResolverFn, Font, FontCache, FontGlyph, FontResolverFn, GlyphId, UNITS_PER_EM};
use hayro_syntax::content::TypedIter;
use hayro_syntax::content::ops::TypedInstruction;
use hayro_syntax::object::dict::keys::{CONTENTS, FORM, MATRIX, RESOURCES, SUBTYPE};
use hayro_syntax::object::{Dict, Name, Object, Stream};
use hayro_syntax::page::{Page, Resources};
use std::borrow::Cow;
use std::sync::Arc;

/// How deep forms may nest.
const DEPTH: usize = 12;

/// How many graphics states may be saved.
const STATES: usize = 512;

/// A font without characters, in the place of those that are not in a file: names and widths are known without one, and nothing is drawn. (By fontTools 4's `FontBuilder`: one glyph,
/// `.notdef`. The fourteen that hayro would bring weigh 240 KB.)
const EMPTY: &[u8] = include_bytes!("empty.ttf");

/// A page asks for more than there is fuel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// What is left of the work that a document may be: a byte of content costs 1, an instruction 8, a character 32.
pub(crate) struct Fuel(pub(crate) u64);

impl Fuel {
    fn burn(&mut self, amount: u64) -> Result<(), Exhausted> {
        self.0 = self.0.checked_sub(amount).ok_or(Exhausted)?;
        Ok(())
    }
}

/// Fonts of a document, each read once.
pub(crate) struct Fonts<'a> {
    cache: FontCache<'a>,
    /// Fonts that are not in the document.
    missing: FontResolverFn,
    /// Tables of East Asian encodings that are not in the document: they are not here either.
    tables: CMapResolverFn,
}

impl Default for Fonts<'_> {
    fn default() -> Self {
        Self { cache: FontCache::new(), missing: Arc::new(|_| Some((Arc::new(EMPTY), 0))), tables: Arc::new(|_| None) }
    }
}

/// What `q` saves and `Q` brings back.
#[derive(Clone)]
struct State<'a> {
    to_page: Affine,
    font: Option<Font<'a>>,
    size: f64,
    between_characters: f64,
    between_words: f64,
    stretch: f64,
    leading: f64,
    rise: f64,
}

/// The text of a page.
pub(crate) fn read<'a>(page: &Page<'a>, fonts: &Fonts<'a>, fuel: &mut Fuel, most: usize) -> Result<String, Exhausted> {
    let state = State {
        to_page: Affine::IDENTITY,
        font: None,
        size: 1.0,
        between_characters: 0.0,
        between_words: 0.0,
        stretch: 1.0,
        leading: 0.0,
        rise: 0.0,
    };
    let mut reader = Reader { fonts, fuel, most, lines: Lines::default() };
    reader.run(&contents(page.raw()), page.resources(), state, DEPTH)?;
    Ok(reader.lines.finish())
}

/// A page's instructions. (`Page` would keep them as long as the document.)
fn contents(page: &Dict<'_>) -> Vec<u8> {
    match page.get::<Object<'_>>(CONTENTS) {
        Some(Object::Stream(stream)) => decoded(&stream),
        Some(Object::Array(streams)) => streams.iter::<Stream<'_>>().map(|stream| decoded(&stream)).collect::<Vec<_>>().join(&b'\n'),
        _ => Vec::new(),
    }
}

fn decoded(stream: &Stream<'_>) -> Vec<u8> {
    stream.decoded_data().map(Cow::into_owned).unwrap_or_default()
}

struct Reader<'r, 'a> {
    fonts: &'r Fonts<'a>,
    fuel: &'r mut Fuel,
    /// How many bytes of text the page may have.
    most: usize,
    lines: Lines,
}

impl<'a> Reader<'_, 'a> {
    fn run(&mut self, content: &[u8], resources: &Resources<'a>, mut state: State<'a>, depth: usize) -> Result<(), Exhausted> {
        self.fuel.burn(content.len() as u64)?;
        let mut saved: Vec<State<'a>> = Vec::new();
        let (mut line, mut text) = (Affine::IDENTITY, Affine::IDENTITY);
        let mut operations = TypedIter::new(content);
        while let Some(operation) = operations.next() {
            self.fuel.burn(8)?;
            match operation {
                TypedInstruction::SaveState(_) if saved.len() < STATES => saved.push(state.clone()),
                TypedInstruction::RestoreState(_) => state = saved.pop().unwrap_or(state),
                TypedInstruction::Transform(t) => {
                    state.to_page *= Affine::new([t.0, t.1, t.2, t.3, t.4, t.5].map(|number| number.as_f64()));
                }
                TypedInstruction::BeginText(_) => (line, text) = (Affine::IDENTITY, Affine::IDENTITY),
                TypedInstruction::TextFont(f) => {
                    state.size = f.1.as_f64();
                    state.font =
                        resources.get_font(f.0).and_then(|font| self.fonts.cache.font(&font, &self.fonts.missing, &self.fonts.tables));
                }
                TypedInstruction::CharacterSpacing(c) => state.between_characters = c.0.as_f64(),
                TypedInstruction::WordSpacing(w) => state.between_words = w.0.as_f64(),
                TypedInstruction::HorizontalScaling(h) => state.stretch = h.0.as_f64() / 100.0,
                TypedInstruction::TextLeading(l) => state.leading = l.0.as_f64(),
                TypedInstruction::TextRise(r) => state.rise = r.0.as_f64(),
                TypedInstruction::SetTextMatrix(m) => {
                    line = Affine::new([m.0, m.1, m.2, m.3, m.4, m.5].map(|number| number.as_f64()));
                    text = line;
                }
                TypedInstruction::NextLine(n) => next(&mut line, &mut text, n.0.as_f64(), n.1.as_f64()),
                TypedInstruction::NextLineAndSetLeading(n) => {
                    state.leading = -n.1.as_f64();
                    next(&mut line, &mut text, n.0.as_f64(), n.1.as_f64());
                }
                TypedInstruction::NextLineUsingLeading(_) => next(&mut line, &mut text, 0.0, -state.leading),
                TypedInstruction::ShowText(s) => self.show(s.0.as_bytes(), &state, &mut text)?,
                TypedInstruction::NextLineAndShowText(s) => {
                    next(&mut line, &mut text, 0.0, -state.leading);
                    self.show(s.0.as_bytes(), &state, &mut text)?;
                }
                TypedInstruction::ShowTextWithParameters(s) => {
                    (state.between_words, state.between_characters) = (s.0.as_f64(), s.1.as_f64());
                    next(&mut line, &mut text, 0.0, -state.leading);
                    self.show(s.2.as_bytes(), &state, &mut text)?;
                }
                TypedInstruction::ShowTexts(s) => {
                    for part in s.0.iter::<Object<'_>>() {
                        match part {
                            Object::String(part) => self.show(part.as_bytes(), &state, &mut text)?,
                            Object::Number(back) => text *= state.advance(-back.as_f64() / f64::from(UNITS_PER_EM), 0.0),
                            _ => {}
                        }
                    }
                }
                TypedInstruction::XObject(x) if depth > 0 => {
                    if let Some(form) = resources.get_x_object(x.0) {
                        self.form(&form, resources, &state, depth - 1)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Draws a form, in the state in which it is called.
    fn form(&mut self, form: &Stream<'a>, outer: &Resources<'a>, state: &State<'a>, depth: usize) -> Result<(), Exhausted> {
        let dict = form.dict();
        if dict.get::<Name<'_>>(SUBTYPE).as_deref() != Some(FORM) {
            return Ok(());
        }
        let matrix = dict.get::<[f64; 6]>(MATRIX).map_or(Affine::IDENTITY, Affine::new);
        let own = dict.get::<Dict<'a>>(RESOURCES).map(Resources::new);
        let state = State { to_page: state.to_page * matrix, ..state.clone() };
        self.run(&decoded(form), own.as_ref().unwrap_or(outer), state, depth)
    }

    fn show(&mut self, string: &[u8], state: &State<'a>, text: &mut Affine) -> Result<(), Exhausted> {
        let Some(font) = &state.font else { return Ok(()) };
        let mut at = 0;
        while at < string.len() {
            self.fuel.burn(32)?;
            let (code, bytes) = font.read_code(string, at);
            at += bytes.max(1);
            let advance = font.code_advance(code) / f64::from(UNITS_PER_EM);
            let says = match font.glyph(GlyphId::NOTDEF, code) {
                FontGlyph::Outline(glyph) => glyph.as_unicode(),
                FontGlyph::Type3(glyph) => glyph.as_unicode(),
            };
            if let Some(says) = says {
                let em = Affine::new([state.size * state.stretch, 0.0, 0.0, state.size, 0.0, state.rise]);
                let glyph = state.to_page * *text * em;
                match says {
                    BfString::Char(c) => self.lines.glyph(c.encode_utf8(&mut [0; 4]), glyph, advance),
                    BfString::String(says) => self.lines.glyph(&says, glyph, advance),
                }
                if self.lines.len() > self.most {
                    return Err(Exhausted);
                }
            }
            let spaced = state.between_characters + if code == 32 && bytes == 1 { state.between_words } else { 0.0 };
            let along = if font.is_horizontal() { advance.x } else { advance.y };
            *text *= state.advance(along, spaced);
        }
        Ok(())
    }
}

impl State<'_> {
    /// How text goes on after so many ems and so much space more.
    fn advance(&self, ems: f64, space: f64) -> Affine {
        let way = ems * self.size + space;
        let across = self.font.as_ref().is_none_or(Font::is_horizontal);
        Affine::translate(if across { Vec2::new(way * self.stretch, 0.0) } else { Vec2::new(0.0, way) })
    }
}

fn next(line: &mut Affine, text: &mut Affine, x: f64, y: f64) {
    *line *= Affine::translate((x, y));
    *text = *line;
}
