//! Documents that are no text, into text: PDF.
//!
//! Whoever uploads one may mean harm, and a reader of PDFs is where harm is done: a file may have it panic, loop, nest until the stack ends or inflate until the memory does. None of
//! that can be caught where it happens, so this runs apart from everything else and is given one file at a time:
//!
//! 1. On Workers it is a Worker of its own, without an address and without secrets, that `memory` calls. What ends it ends nothing else; the next file finds it as new.
//! 2. Elsewhere it is a child process of the same program ([`child`]), without the environment, whose memory and time are limited and whose end is not its parent's.
//!
//! Whatever a file asks for is paid from so much fuel ([`page`]), so that most of them end here, with an answer, and the walls are for the rest.

mod line;
mod page;

use astra_memory::pdf::{Answer, Refusal};
use hayro_syntax::{LoadPdfError, Pdf};
use page::{Fonts, Fuel};

/// What reading a document may cost ([`Fuel`]).
const FUEL: u64 = 600_000_000;

/// How many bytes of text a document may have.
const LARGEST_TEXT: usize = 8 << 20;

/// Reads a PDF.
pub fn read(file: Vec<u8>) -> Answer {
    match pages(file) {
        Ok(pages) if pages.iter().all(String::is_empty) => Answer::Refused(Refusal::NoText),
        Ok(pages) => Answer::Pages(pages),
        Err(refusal) => Answer::Refused(refusal),
    }
}

fn pages(file: Vec<u8>) -> Result<Vec<String>, Refusal> {
    let pdf = Pdf::new(file).map_err(|error| match error {
        LoadPdfError::Decryption(_) => Refusal::Encrypted,
        LoadPdfError::Invalid => Refusal::Broken,
    })?;
    let fonts = Fonts::default();
    let mut fuel = Fuel(FUEL);
    let mut left = LARGEST_TEXT;
    pdf.pages()
        .iter()
        .map(|page| {
            let text = page::read(page, &fonts, &mut fuel, left).map_err(|_| Refusal::TooLarge)?;
            left = left.saturating_sub(text.len());
            Ok(text)
        })
        .collect()
}

#[cfg(target_arch = "wasm32")]
mod entry {
    use wasm_bindgen_futures::JsFuture;

    #[worker::event(fetch)]
    async fn fetch(request: web_sys::Request, _: worker::Env, _: worker::Context) -> worker::Result<web_sys::Response> {
        // A panic's message may quote the file.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            worker::console_error!(r#"{{"event":"convert","panic":"{place}"}}"#);
        }));
        let file = JsFuture::from(request.array_buffer()?).await?;
        let answer = serde_json::to_string(&super::read(js_sys::Uint8Array::new(&file).to_vec()))?;
        Ok(web_sys::Response::new_with_opt_str(Some(&answer))?)
    }
}

/// The whole of a child process: a PDF on its standard input, what it says on its standard output.
#[cfg(unix)]
pub mod child {
    use rustix::process::{Resource, Rlimit, setrlimit};
    use std::io::{Read as _, Write as _};
    use std::process::ExitCode;

    /// How much memory it may use, in bytes.
    const MEMORY: u64 = 256 << 20;

    /// How many seconds of CPU time.
    const SECONDS: u64 = 25;

    /// Reads, and tells.
    pub fn run() -> ExitCode {
        let limit = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
        let mut file = Vec::new();
        let told = limit(Resource::Core, 0)
            .and_then(|()| limit(Resource::Data, MEMORY))
            .and_then(|()| limit(Resource::Cpu, SECONDS))
            .map_err(std::io::Error::from)
            .and_then(|()| std::io::stdin().lock().read_to_end(&mut file))
            .and_then(|_| Ok(serde_json::to_vec(&super::read(file))?))
            .and_then(|answer| std::io::stdout().lock().write_all(&answer));
        if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
