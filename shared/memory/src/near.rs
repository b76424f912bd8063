//! What becomes of a new memory, given the known ones nearest to it.
//!
//! 1. Cosine does not see a "not" or a number: "Refunds take 30 days" and "Refunds take 14 days" are nearer to each other than either is to
//!    a paraphrase. So what is nearly the same text is dropped only when its numbers and negations are the same; else it is an update.
//! 2. An update supersedes: the caller keeps the old one as history. What was superseded wrongly is found there; a contradiction that was
//!    kept as two memories is shown to the model for ever.
//! 3. The caller gives only known memories of the same owner (this user's, or the workspace's) and of the same embedder: cosines of
//!    different embedders are no numbers of one kind. A memory that a person pinned is the person's to change: it is not to be given.

use crate::Kind;
use std::collections::BTreeMap;

/// From here on two texts say the same, if their numbers and negations are the same: what differs in punctuation, case or a filler word. High,
/// as dropping what was new loses it. Chosen, not measured with a model's embedder; the local one is tested below.
pub const SAME: f64 = 0.97;

/// From here on two memories of one kind speak of one thing: what the new one says holds. Below lie memories that share a subject only
/// ("I prefer tea", "I prefer tea in the morning and coffee after lunch"): superseding those would forget what is still true.
pub const ONE_THING: f64 = 0.90;

/// How near what is said to be replaced must be to what is found for it. Low, as whoever extracted has read both; not zero, as a model may
/// speak of something that was never stored. The local embedder puts "My name is Anna" and "My name is Bo" at about 0.74.
pub const REPLACED: f64 = 0.60;

/// A known memory near a new one.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a, I> {
    /// Its id.
    pub id: I,
    /// What it is.
    pub kind: Kind,
    /// What it says.
    pub content: &'a str,
    /// Its cosine with the new one, or with what the new one says that it replaces, whichever is larger.
    pub score: f64,
}

/// What becomes of a new memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<I> {
    /// It is dropped: this one says it already.
    Same(I),
    /// It is stored and this one is history.
    Supersedes(I),
    /// It is stored.
    New,
}

/// Decides by the nearest: first whether one says the same, then whether one is superseded. Of equally near ones the lowest id counts.
///
/// `replaces`: whether the new memory says that it contradicts something ([`crate::extract::Extracted::replaces`]).
pub fn decide<I: Ord + Copy>(kind: Kind, content: &str, replaces: bool, known: &[Known<'_, I>]) -> Verdict<I> {
    let mut nearest: Vec<&Known<'_, I>> = known.iter().filter(|known| !known.score.is_nan()).collect();
    nearest.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
    let words = words(content);
    let says_the_same = |known: &&&Known<'_, I>| {
        let other = self::words(known.content);
        words == other || (known.score >= SAME && known.kind == kind && telling(&words) == telling(&other))
    };
    if let Some(same) = nearest.iter().find(says_the_same) {
        return Verdict::Same(same.id);
    }
    let least = if replaces { REPLACED } else { ONE_THING };
    nearest.iter().find(|known| known.kind == kind && known.score >= least).map_or(Verdict::New, |known| Verdict::Supersedes(known.id))
}

/// The words of a text in lower case; "don't", "3.5" and "C++" are words. A text without any is one word.
fn words(text: &str) -> Vec<String> {
    let inside = |c: char| c.is_alphanumeric() || "'’.,+#%".contains(c);
    let words = text.split(|c| !inside(c)).map(|word| word.trim_matches(|c| "'’.,".contains(c)).replace('’', "'").to_lowercase());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    if words.is_empty() { vec![text.trim().to_owned()] } else { words }
}

/// What of a text an embedder hardly sees and that turns its meaning: how often each number, and how often any negation, is in it.
fn telling(words: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        let negation =
            matches!(word.as_str(), "not" | "no" | "never" | "none" | "nobody" | "nothing" | "without" | "cannot" | "neither" | "nor");
        if negation || word.ends_with("n't") {
            *counts.entry("not").or_insert(0) += 1;
        } else if word.contains(|c: char| c.is_numeric()) {
            *counts.entry(word.as_str()).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use astra_models::embed::local_embedding;
    use proptest::prelude::*;

    fn known(id: u8, content: &str, score: f64) -> Known<'_, u8> {
        Known { id, kind: Kind::Fact, content, score }
    }

    fn decided(content: &str, known: &[Known<'_, u8>]) -> Verdict<u8> {
        decide(Kind::Fact, content, false, known)
    }

    #[test]
    fn the_same_is_dropped() {
        assert_eq!(
            decided("refunds take 30 days", &[known(1, "Refunds take 30 days.", 0.2)]),
            Verdict::Same(1),
            "the same words, however near"
        );
        assert_eq!(decided("Refunds take about 30 days.", &[known(1, "Refunds take 30 days.", 0.98)]), Verdict::Same(1));
        let note = Known { kind: Kind::Note, ..known(1, "Refunds take 30 days", 1.0) };
        assert_eq!(decided("Refunds take 30 days", &[note]), Verdict::Same(1), "whatever its kind");
    }

    #[test]
    fn a_number_or_a_not_makes_it_an_update() {
        for (new, old) in [
            ("Refunds take 14 days.", "Refunds take 30 days."),
            ("We do not ship on Fridays.", "We do ship on Fridays."),
            ("We don’t ship on Fridays.", "We do ship on Fridays."),
            ("The price is 3.5 euros.", "The price is 35 euros."),
        ] {
            assert_eq!(decided(new, &[known(1, old, 0.99)]), Verdict::Supersedes(1), "{new}");
        }
        assert_eq!(decided("We don't ship on Fridays.", &[known(1, "We do not ship on any Friday.", 0.98)]), Verdict::Same(1));
    }

    #[test]
    fn what_is_near_and_different_is_superseded() {
        let near = [
            known(3, "The office is in Porto.", 0.91),
            known(1, "The office is in Lisbon.", 0.95),
            known(2, "The office is in Faro.", 0.95),
        ];
        assert_eq!(decided("The office is in Braga.", &near), Verdict::Supersedes(1), "the nearest, the lowest id");
        assert_eq!(decided("The office is in Faro.", &near), Verdict::Same(2), "the same counts before the near");
        assert_eq!(decided("The office is in Braga.", &[known(1, "The office is in Lisbon.", 0.89)]), Verdict::New);
        assert_eq!(decided("C++ is the language.", &[known(1, "C is the language.", 0.5)]), Verdict::New);
        assert_eq!(decided("👍", &[known(1, "👎", 0.5)]), Verdict::New);
        assert_eq!(decide(Kind::Note, "The office is in Braga.", false, &near), Verdict::New, "another kind");
        assert_eq!(decided("The office is in Braga.", &[known(1, "The office is in Lisbon.", f64::NAN)]), Verdict::New);
        assert_eq!(decided("x", &[]), Verdict::New);
    }

    #[test]
    fn what_it_says_it_replaces_may_be_further_off() {
        let near = [known(1, "The office is in Lisbon.", 0.7)];
        assert_eq!(decide(Kind::Fact, "We moved to Braga.", true, &near), Verdict::Supersedes(1));
        assert_eq!(decide(Kind::Fact, "We moved to Braga.", false, &near), Verdict::New);
        assert_eq!(decide(Kind::Fact, "We moved to Braga.", true, &[known(1, "Refunds take 30 days.", 0.5)]), Verdict::New);
    }

    #[test]
    fn the_local_embedder_fits_the_thresholds() {
        let cosine = |a: &str, b: &str| -> f64 { local_embedding(a).iter().zip(local_embedding(b)).map(|(a, b)| f64::from(a * b)).sum() };
        let names = cosine("My name is Anna", "My name is Bo").max(cosine("My name is", "My name is Bo"));
        assert!(names > REPLACED, "{names}");
        let (tea, answers) = ("I prefer tea", "I prefer short answers");
        assert!(cosine(tea, answers) < REPLACED, "{}", cosine(tea, answers));
        assert!(cosine("Refunds take 30 days.", "refunds take 30 days") > SAME);
        let paraphrase = cosine("Refunds take 30 days.", "It takes 30 days to get a refund.");
        assert!(cosine("Refunds take 30 days.", "Refunds take 14 days.") > paraphrase, "a number is hardly seen");
    }

    proptest! {
        #[test]
        fn the_order_of_the_known_does_not_matter(scores in proptest::collection::vec((0_u8..4, 0.5_f64..1.0), 0..6), replaces: bool) {
            let contents = ["Refunds take 30 days.", "Refunds take 14 days.", "We ship on Fridays.", "refunds take 30 days"];
            let mut near: Vec<Known<'_, usize>> = scores
                .iter()
                .enumerate()
                .map(|(id, (which, score))| Known { id, kind: Kind::Fact, content: contents[usize::from(*which)], score: (score * 20.0).round() / 20.0 })
                .collect();
            let before = decide(Kind::Fact, contents[0], replaces, &near);
            near.reverse();
            prop_assert_eq!(before, decide(Kind::Fact, contents[0], replaces, &near));
        }

        #[test]
        fn nothing_panics(content in "(?s).{0,60}", other in "(?s).{0,60}", score: f64) {
            let _ = decided(&content, &[known(1, &other, score)]);
            prop_assert_eq!(decided(&content, &[known(1, &content, score.abs())]) == Verdict::Same(1), !score.is_nan());
        }
    }
}
