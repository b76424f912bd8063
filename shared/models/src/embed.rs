//! Embeddings.
//!
//! The local one is feature hashing (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"): texts that share words
//! are near each other, and that is all it knows. It needs no network and gives the same numbers on every platform.

use crate::retry::mix;
use std::fmt::Write as _;

/// The length of a local embedding, and of the `vector` columns made for it.
pub const LOCAL_DIMENSIONS: usize = 384;

/// A word counts twice as much as a pair of words: most queries share words with what they look for, fewer share phrases.
const WORD: i32 = 2;
const PAIR: i32 = 1;

/// Embeds a text as [`LOCAL_DIMENSIONS`] numbers: lower-cased words and pairs of neighbours, hashed to a place and a sign, normalised.
///
/// Always a unit vector, so that cosine distance is always a number: a text without words (empty, or only punctuation) is embedded as one
/// feature of its own, far from all others. Deterministic across platforms: whole numbers until the one division at the end.
pub fn local_embedding(text: &str) -> Vec<f32> {
    let text = text.to_lowercase();
    let mut sums = [0_i32; LOCAL_DIMENSIONS];
    let mut before = None;
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let hash = fnv1a(word.as_bytes());
        add(&mut sums, hash, WORD);
        if let Some(before) = before {
            // Not symmetric: "dog bites" is another pair than "bites dog".
            add(&mut sums, mix(before) ^ hash, PAIR);
        }
        before = Some(hash);
    }
    if sums.iter().all(|sum| *sum == 0) {
        // No words, or (as rare as it sounds) words that cancel each other.
        add(&mut sums, !fnv1a(text.trim().as_bytes()), WORD);
    }
    let norm = sums.iter().map(|sum| f64::from(*sum) * f64::from(*sum)).sum::<f64>().sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "a quotient between -1 and 1; f32 is what pgvector stores")]
    sums.iter().map(|sum| (f64::from(*sum) / norm) as f32).collect()
}

/// Writes an embedding as pgvector reads it: `[0,0.5,-0.5]`, each number as short as keeps its value.
pub fn to_pgvector(embedding: &[f32]) -> String {
    let mut text = String::with_capacity(4 * embedding.len() + 2);
    text.push('[');
    for (position, number) in embedding.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{number}");
    }
    text.push(']');
    text
}

/// Adds a feature at the place and with the sign that its hash says.
fn add(sums: &mut [i32; LOCAL_DIMENSIONS], hash: u64, weight: i32) {
    let spread = mix(hash);
    // A text is at most megabytes: a sum stays far from an i32's end, and saturates rather than panics.
    if let Some(sum) = usize::try_from((spread >> 1) % LOCAL_DIMENSIONS as u64).ok().and_then(|place| sums.get_mut(place)) {
        *sum = sum.saturating_add(if spread & 1 == 0 { weight } else { -weight });
    }
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo; <https://www.rfc-editor.org/rfc/rfc9923>).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cosine(a: &str, b: &str) -> f32 {
        local_embedding(a).iter().zip(local_embedding(b)).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn fnv_is_fnv() {
        // Vectors of RFC 9923.
        for (text, hash) in [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn the_numbers_are_the_same_everywhere() {
        // Stored vectors are compared with new ones: a change here makes all that is stored useless.
        let embedding = local_embedding("Refunds take 30 days.");
        let places: Vec<(usize, f32)> = embedding.iter().copied().enumerate().filter(|(_, number)| *number != 0.0).collect();
        insta::assert_debug_snapshot!(places);
    }

    #[test]
    fn shared_words_are_near() {
        let query = "How long do refunds take?";
        let near = cosine(query, "Refunds take 30 days.");
        let far = cosine(query, "The office is in Lisbon.");
        assert!(near > 0.2 && near > far + 0.2, "{near} {far}");
        assert!(cosine("dog bites man", "man bites dog") < 0.99);
        assert!((cosine("RÉSUMÉ, please!", "résumé please") - 1.0).abs() < 1e-6);
        assert!(cosine("", "refunds").abs() < 0.5 && cosine("???", "!!!").abs() < 0.5);
    }

    #[test]
    fn pgvector_text() {
        assert_eq!(to_pgvector(&[0.0, 0.5, -0.25, 1.0]), "[0,0.5,-0.25,1]");
        assert_eq!(to_pgvector(&[]), "[]");
    }

    proptest! {
        #[test]
        fn always_a_unit_vector_that_survives_its_text(text in "(?s).{0,200}") {
            let embedding = local_embedding(&text);
            prop_assert_eq!(embedding.len(), LOCAL_DIMENSIONS);
            let norm: f32 = embedding.iter().map(|number| number * number).sum();
            prop_assert!((norm - 1.0).abs() < 1e-4);
            let written = to_pgvector(&embedding);
            let read: Vec<f32> = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(read, embedding);
            prop_assert!(!written.contains('e'), "no exponents");
        }
    }
}
