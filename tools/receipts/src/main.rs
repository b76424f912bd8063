//! Verifies receipts, and an invoice by them, with no database and no deployment at hand.
//!
//! Each receipt's signature is checked with the deployment's public keys, its entry's hash is made anew, and each entry has to follow the one before: none was changed, left out or put in. Then
//! what they say is added up, and compared with what an invoice says. docs/ledger.md tells how to do the same with other tools.
//!
//! What receipts cannot show by themselves is that the newest of them are there: an invoice says up to which entry it goes.

mod invoice;

use astra_kernel::chain::verify;
use astra_kernel::jwk::{KeySet, PublicKey};
use astra_kernel::jws::{Algorithm, Jws};
use astra_kernel::ledger::Entry;
use clap::Parser;
use invoice::Invoice;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// Verifies receipts of a ledger, and an invoice by them. Exit code 1, with what is wrong, when something is.
#[derive(Parser)]
#[command(name = "astra-receipts")]
struct Arguments {
    /// The deployment's public keys: a file with what GET /.well-known/jwks.json answers.
    #[arg(long)]
    keys: String,
    /// An invoice (JSON) whose total is to be the sum of these receipts.
    #[arg(long)]
    invoice: Option<String>,
    /// Receipts: pages of GET /workspaces/{id}/receipts, answers of turns, or receipts one a line; in any order.
    #[arg(required = true)]
    files: Vec<String>,
}

/// What has a receipt.
#[derive(Deserialize)]
#[serde(untagged)]
enum Piece {
    Page { data: Vec<Holder> },
    One(Holder),
}

/// An entry of a page, or a turn's answer.
#[derive(Deserialize)]
struct Holder {
    receipt: String,
}

fn receipts(text: &str) -> Result<Vec<String>, String> {
    if !text.trim_start().starts_with('{') {
        return Ok(text.split_whitespace().map(str::to_owned).collect());
    }
    let mut found = Vec::new();
    for piece in serde_json::Deserializer::from_str(text).into_iter() {
        match piece.map_err(|error| format!("there are no receipts in it: {error}"))? {
            Piece::Page { data } => found.extend(data.into_iter().map(|holder| holder.receipt)),
            Piece::One(Holder { receipt }) => found.push(receipt),
        }
    }
    Ok(found)
}

/// What a receipt says, once it is known to be the deployment's.
fn entry(receipt: &str, keys: &KeySet) -> Result<Entry, String> {
    let jws = Jws::parse(receipt).map_err(|error| format!("a receipt cannot be read: {error}"))?;
    if jws.algorithm != Algorithm::EdDSA {
        return Err("a receipt is signed by another algorithm than EdDSA".to_owned());
    }
    let kid = jws.kid().map_err(|error| format!("a receipt cannot be read: {error}"))?;
    let Some(PublicKey::Ed25519 { x }) = keys.get(kid) else {
        return Err(format!("a receipt is signed with key {kid}, which is not among the keys"));
    };
    if UnparsedPublicKey::new(&ED25519, x).verify(jws.signed, &jws.signature).is_err() {
        return Err(format!("a receipt's signature is not that of key {kid}: it was changed, or is not the deployment's"));
    }
    let text = String::from_utf8(jws.payload).map_err(|_| "a receipt says nothing that can be read".to_owned())?;
    let entry: Entry = astra_kernel::json::from_str(&text).map_err(|error| format!("a receipt does not say what receipts say: {error}"))?;
    if entry.receipt().ok().as_ref() != Some(&text) {
        return Err(format!("the receipt of entry {} is not written as receipts are", entry.seq));
    }
    Ok(entry)
}

/// Receipts that hold: each signed, each entry as it was entered, none missing between the first and the last. The same receipt may be there more than once.
fn entries(texts: &[String], keys: &KeySet) -> Result<Vec<Entry>, String> {
    let mut by_seq: BTreeMap<u64, Entry> = BTreeMap::new();
    for text in texts {
        for receipt in receipts(text)? {
            let entry = entry(&receipt, keys)?;
            let seq = entry.seq;
            if by_seq.insert(seq, entry.clone()).is_some_and(|other| other != entry) {
                return Err(format!("there are two entries {seq}"));
            }
        }
    }
    let mut entries: Vec<_> = by_seq.into_values().collect();
    verify(&mut entries).map_err(|broken| broken.to_string())?;
    Ok(entries)
}

/// Sums of what receipts say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    entries: usize,
    tokens: [i128; 5],
    cost: i128,
    charge: i128,
}

impl Sums {
    fn of<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        entries.fold(Self::default(), |sums, entry| {
            let tokens =
                [entry.input_tokens, entry.cached_input_tokens, entry.output_tokens, entry.reasoning_tokens, entry.embedding_tokens];
            Self {
                entries: sums.entries + 1,
                tokens: std::array::from_fn(|class| sums.tokens[class] + i128::from(tokens[class])),
                cost: sums.cost + i128::from(entry.cost_nano_usd.0),
                charge: sums.charge + i128::from(entry.charge_nano_usd.0),
            }
        })
    }

    fn lines(&self) -> String {
        let Self { entries, tokens: [input, cached, output, reasoning, embedding], cost, charge } = self;
        format!(
            "{entries} entries\ninput tokens {input} (cached {cached})\noutput tokens {output} (reasoning {reasoning})\nembedding tokens {embedding}\ncost {cost} nano-dollars\ncharge {charge} nano-dollars"
        )
    }
}

/// What is said of good receipts.
fn check(keys: &str, invoice: Option<&str>, files: &[String]) -> Result<String, String> {
    let keys = KeySet::parse(keys).map_err(|error| format!("--keys: {error}"))?;
    let entries = entries(files, &keys)?;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Err("there is no receipt in it".to_owned()) };
    let begin = format!(
        "{}: receipts {} to {} are as they were signed, and none between them is missing\n",
        last.workspace_id, first.seq, last.seq
    );
    let Some(text) = invoice else { return Ok(begin + &Sums::of(entries.iter()).lines()) };
    let invoice: Invoice = serde_json::from_str(text).map_err(|error| format!("--invoice: it is no invoice: {error}"))?;
    let sums = invoice.check(&entries)?;
    Ok(format!("{begin}the invoice of {} is the sum of these receipts\n{}", invoice.month, sums.lines()))
}

fn main() -> ExitCode {
    let Arguments { keys, invoice, files } = Arguments::parse();
    let read = |file: &String| match file.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| format!("standard input: {error}")),
        _ => std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}")),
    };
    let all = || {
        let files = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let invoice = invoice.as_ref().map(read).transpose()?;
        check(&read(&keys)?, invoice.as_deref(), &files)
    };
    match all() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests;
