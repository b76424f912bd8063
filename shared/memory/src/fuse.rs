//! What several searches found, in one order: reciprocal rank fusion (Cormack, Clarke, Büttcher 2009, "Reciprocal Rank Fusion outperforms
//! Condorcet and individual rank learning methods"), normalised, then faded by age, then cut at a threshold.
//!
//! 1. Scores of different searches are not comparable; their ranks are. An item's share of a leg is 61 / (60 + rank): 1 for the first.
//! 2. An item's score is its mean share over the legs that answered: 1 means first in all of them. A leg that failed is left out, so that
//!    a threshold means the same while one is away. A leg that answered with nothing did answer.
//! 3. Shares are summed as whole numbers: a sum of floats depends on the order of the legs, and an order must not.
//! 4. A threshold is for scores as they are given out, so it comes last.
//! 5. A weak leg, which is wrong more often than the others are, changes the order of what they found hardly, and adds what they did not find: of what another leg found, it weighs a
//!    hundredth; what it found alone has the mean share that it would have from any leg. So of two legs that give up to 60 each, what the other one found comes first (from 0.503),
//!    then the rest (up to 0.5). `astra.recall_told` does the same in SQL.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How much less the first ranks count than they would alone; the paper's value, and the one that others use.
pub const K: u64 = 60;

/// A share of 1. A quarter of a `u64` is left for the sum over legs.
const ONE: u64 = 1 << 32;

/// How many times as much a leg weighs as a weak one. Below 62 a weak leg could bring what is second to the first place.
const STRENGTH: u64 = 100;

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg<I> {
    /// Ids, the best first; `None` when it failed.
    pub found: Option<Vec<I>>,
    /// Whether it counts little.
    pub is_weak: bool,
}

const MILLIS_PER_DAY: f64 = 86_400_000.0;

/// An item with its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused<I> {
    /// What was found.
    pub id: I,
    /// Between 0 and 1.
    pub score: f64,
}

/// Fuses legs. The best first; equal scores by id.
///
/// An id that a leg names twice counts where it stands first.
pub fn fuse<I: Ord + Clone>(legs: &[Leg<I>]) -> Vec<Fused<I>> {
    // The sums of shares in legs that are not weak and in weak ones, and the leg that counted last, so that none counts twice.
    let mut sums = BTreeMap::<&I, ([u64; 2], usize)>::new();
    let mut answered = [0_u64; 2];
    for (number, leg) in legs.iter().enumerate() {
        let Some(found) = &leg.found else { continue };
        let weak = usize::from(leg.is_weak);
        answered[weak] += 1;
        for (id, rank) in found.iter().zip(1_u64..) {
            let (sum, last) = sums.entry(id).or_insert(([0; 2], usize::MAX));
            if *last != number {
                sum[weak] = sum[weak].saturating_add(ONE * (K + 1) / (K + rank));
                *last = number;
            }
        }
    }
    let score = |[sum, of_weak]: [u64; 2]| {
        let strength = if sum == 0 { 1 } else { STRENGTH };
        let (sum, all) = (strength * sum + of_weak, (strength * answered[0] + answered[1]) * ONE);
        #[expect(clippy::cast_precision_loss, reason = "below 2^53 for twenty thousand legs")]
        let score = sum as f64 / all as f64;
        score
    };
    let mut fused: Vec<Fused<I>> = sums.into_iter().map(|(id, (sums, _))| Fused { id: id.clone(), score: score(sums) }).collect();
    order(&mut fused);
    fused
}

/// By score, the best first, then by id.
fn order<I: Ord>(items: &mut [Fused<I>]) {
    items.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
}

/// How age lowers a score: by `weight` at most, by half of it after `half_life_days`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawFade", rename_all = "camelCase")]
pub struct Fade {
    weight: f64,
    half_life_days: f64,
}

/// Not how age could lower a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFade {
    /// Weight.
    #[error("weight must be between 0 and 1")]
    Weight,
    /// Half-life.
    #[error("halfLifeDays must be between 0.01 and 36,500")]
    HalfLife,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFade {
    weight: f64,
    half_life_days: f64,
}

impl TryFrom<RawFade> for Fade {
    type Error = BadFade;

    fn try_from(raw: RawFade) -> Result<Self, BadFade> {
        Self::new(raw.weight, raw.half_life_days)
    }
}

impl Fade {
    /// # Errors
    /// [`BadFade`].
    pub fn new(weight: f64, half_life_days: f64) -> Result<Self, BadFade> {
        if !(0.0..=1.0).contains(&weight) {
            return Err(BadFade::Weight);
        }
        if !(0.01..=36_500.0).contains(&half_life_days) {
            return Err(BadFade::HalfLife);
        }
        Ok(Self { weight, half_life_days })
    }

    /// What a score is multiplied by: 1 for what is new, pinned, or (by a clock that is behind) not yet there.
    fn factor(self, age: Age) -> f64 {
        match age {
            Age::Pinned => 1.0,
            Age::Millis(millis) => {
                #[expect(clippy::cast_precision_loss, reason = "an age of 285,000 years is exact")]
                let days = millis.max(0) as f64 / MILLIS_PER_DAY;
                1.0 - self.weight * (1.0 - (-days / self.half_life_days).exp2())
            }
        }
    }
}

/// How old an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Of no age: it never fades.
    Pinned,
    /// Milliseconds since it was last changed.
    Millis(i64),
}

/// What of the fused is given out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// How age counts; not at all when `None`.
    pub fade: Option<Fade>,
    /// What scores less is left out.
    pub threshold: f64,
    /// How many at most.
    pub limit: usize,
}

impl Cut {
    /// Fades, orders anew, and leaves out what is below the threshold or beyond the limit.
    pub fn apply<I: Ord>(&self, mut fused: Vec<Fused<I>>, age: impl Fn(&I) -> Age) -> Vec<Fused<I>> {
        if let Some(fade) = self.fade {
            for item in &mut fused {
                item.score *= fade.factor(age(&item.id));
            }
            order(&mut fused);
        }
        fused.retain(|item| item.score >= self.threshold);
        fused.truncate(self.limit);
        fused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(fused: &[Fused<u8>]) -> Vec<u8> {
        fused.iter().map(|item| item.id).collect()
    }

    fn score(fused: &[Fused<u8>], id: u8) -> f64 {
        fused.iter().find(|item| item.id == id).map_or(0.0, |item| item.score)
    }

    fn leg(found: impl Into<Option<Vec<u8>>>) -> Leg<u8> {
        Leg { found: found.into(), is_weak: false }
    }

    fn weak(found: impl Into<Option<Vec<u8>>>) -> Leg<u8> {
        Leg { found: found.into(), is_weak: true }
    }

    #[test]
    fn first_everywhere_is_one_and_a_failed_leg_is_left_out() {
        let fused = fuse(&[leg(vec![7, 3]), leg(vec![7, 5]), leg(vec![7])]);
        assert_eq!(fused[0], Fused { id: 7, score: 1.0 });
        assert_eq!(fuse(&[leg(vec![7, 3]), leg(None)]), fuse(&[leg(vec![7, 3])]));
        assert_eq!(score(&fuse(&[leg(vec![7]), leg(None)]), 7).to_bits(), 1.0_f64.to_bits());
        // One that answered with nothing answered.
        assert!((score(&fuse(&[leg(vec![7]), leg(vec![])]), 7) - 0.5).abs() < 1e-12);
        assert!((score(&fuse(&[leg(vec![1, 7]), leg(vec![7])]), 7) - 123.0 / 124.0).abs() < 1e-9);
        assert!(fuse::<u8>(&[]).is_empty() && fuse(&[leg(None), weak(None)]).is_empty());
    }

    #[test]
    fn a_weak_leg_adds_and_hardly_reorders() {
        let words: Vec<u8> = (0..50).collect();
        let all = |found: &[Fused<u8>]| found.iter().all(|item| (0.0..=1.0).contains(&item.score));
        // What it has first does not come before what the words have first, nor before any but neighbours.
        for first in [1, 9, 17] {
            let fused = fuse(&[weak(vec![first, 99]), leg(words.clone())]);
            assert_eq!(ids(&fused)[..18], words[..18], "{first}");
            assert!(all(&fused));
        }
        let moved = ids(&fuse(&[weak(vec![49]), leg(words.clone())])).iter().position(|id| *id == 49);
        assert_eq!(moved, Some(48), "by one place, where neighbours have nearly the same share");
        // 1 is first in both; first by words alone is nearly that; what it found alone comes after all that the words found, with the score that it would have from any leg.
        let fused = fuse(&[weak((100..160).collect::<Vec<_>>()), leg((0..60).collect::<Vec<_>>())]);
        assert!((score(&fused, 0) - 100.0 / 101.0).abs() < 1e-9 && (score(&fused, 59) - 61.0 / 120.0 * 100.0 / 101.0).abs() < 1e-9);
        assert!(fused[..60].iter().all(|item| item.id < 60) && (fused[60].score - 0.5).abs() < 1e-12);
        assert_eq!(score(&fuse(&[weak(vec![7]), leg(vec![7])]), 7).to_bits(), 1.0_f64.to_bits());
        // Whether the words found nothing or something else is all the same to it. Alone it is a leg like any.
        let of = |words: Vec<u8>| score(&fuse(&[weak(vec![5, 7]), leg(words)]), 7).to_bits();
        assert_eq!((of(vec![]), of(vec![1, 2])), (of(vec![3]), score(&fuse(&[leg(vec![5, 7]), leg(vec![])]), 7).to_bits()));
        assert_eq!(fuse(&[weak(vec![5, 7]), leg(None)]), fuse(&[leg(vec![5, 7])]));
    }

    #[test]
    fn ties_are_broken_by_id() {
        assert_eq!(ids(&fuse(&[leg(vec![9, 1]), leg(vec![1, 9])])), [1, 9]);
        assert_eq!(ids(&fuse(&[leg(vec![9]), leg(vec![4]), leg(vec![6])])), [4, 6, 9]);
    }

    #[test]
    fn age_lowers_but_not_what_is_pinned() {
        let fade = Fade::new(0.5, 10.0).unwrap();
        let day = 86_400_000;
        for (age, factor) in [
            (Age::Millis(0), 1.0),
            (Age::Millis(-day), 1.0),
            (Age::Millis(10 * day), 0.75),
            (Age::Millis(20 * day), 0.625),
            (Age::Millis(i64::MAX), 0.5),
            (Age::Pinned, 1.0),
        ] {
            assert!((fade.factor(age) - factor).abs() < 1e-12, "{age:?}");
        }
        let fused = fuse(&[leg(vec![1, 2, 3])]);
        let cut = Cut { fade: Some(fade), threshold: 0.6, limit: 10 };
        let old = |id: &u8| if *id == 1 { Age::Millis(i64::MAX) } else { Age::Pinned };
        assert_eq!(ids(&cut.apply(fused.clone(), old)), [2, 3], "the threshold is for the faded score");
        assert_eq!(ids(&Cut { fade: None, ..cut }.apply(fused.clone(), old)), [1, 2, 3]);
        assert_eq!(ids(&Cut { fade: None, limit: 2, ..cut }.apply(fused, old)), [1, 2]);
    }

    #[test]
    fn settings_are_checked_when_they_are_read() {
        let read = |text: &str| serde_json::from_str::<Fade>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#"{"weight":0.3,"halfLifeDays":30}"#), Ok(Fade::new(0.3, 30.0).unwrap()));
        assert_eq!(serde_json::to_string(&Fade::new(0.3, 30.0).unwrap()).unwrap(), r#"{"weight":0.3,"halfLifeDays":30.0}"#);
        assert!(read(r#"{"weight":1.5,"halfLifeDays":30}"#).unwrap_err().contains("weight"));
        assert!(read(r#"{"weight":1,"halfLifeDays":0}"#).unwrap_err().contains("halfLifeDays"));
        assert!(read(r#"{"weight":1,"halfLifeDays":1,"x":1}"#).unwrap_err().contains("unknown field"));
        assert_eq!(Fade::new(f64::NAN, 1.0), Err(BadFade::Weight));
        assert_eq!(Fade::new(0.1, f64::INFINITY), Err(BadFade::HalfLife));
    }

    fn legs() -> impl Strategy<Value = Vec<Leg<u8>>> {
        let found = proptest::option::weighted(0.8, proptest::collection::vec(0_u8..12, 0..10));
        proptest::collection::vec((found, any::<bool>()).prop_map(|(found, is_weak)| Leg { found, is_weak }), 0..6)
    }

    proptest! {
        #[test]
        fn the_order_of_the_legs_does_not_matter(legs in legs(), turn in 0_usize..6, back: bool) {
            let mut other = legs.clone();
            if !other.is_empty() {
                let by = turn % other.len();
                other.rotate_left(by);
            }
            if back {
                other.reverse();
            }
            prop_assert_eq!(fuse(&legs), fuse(&other));
        }

        #[test]
        fn scores_are_bounded_ordered_and_each_id_is_there_once(legs in legs()) {
            let fused = fuse(&legs);
            for pair in fused.windows(2) {
                prop_assert!(pair[0].score.total_cmp(&pair[1].score).reverse().then(pair[0].id.cmp(&pair[1].id)).is_lt());
            }
            let mut found: Vec<u8> = legs.iter().filter_map(|leg| leg.found.clone()).flatten().collect();
            found.sort_unstable();
            found.dedup();
            let mut given = ids(&fused);
            given.sort_unstable();
            prop_assert_eq!(given, found);
            prop_assert!(fused.iter().all(|item| item.score > 0.0 && item.score <= 1.0));
        }

        #[test]
        fn a_better_rank_is_no_worse_score(mut legs in legs(), leg: usize, place: usize) {
            let before = fuse(&legs);
            let answered: Vec<usize> = (0..legs.len()).filter(|leg| legs[*leg].found.as_ref().is_some_and(|found| found.len() > 1)).collect();
            prop_assume!(!answered.is_empty());
            let found = legs[answered[leg % answered.len()]].found.as_mut().unwrap();
            let place = 1 + place % (found.len() - 1);
            let (up, down) = (found[place], found[place - 1]);
            found.swap(place, place - 1);
            let after = fuse(&legs);
            prop_assert!(score(&after, up) >= score(&before, up));
            prop_assert!(up == down || score(&after, down) <= score(&before, down));
        }

        #[test]
        fn fading_only_lowers_and_more_with_age(weight in 0.0_f64..=1.0, half in 0.01_f64..=36_500.0, young: i64, more in 0_i64..=i64::MAX) {
            let fade = Fade::new(weight, half).unwrap();
            let (young, old) = (fade.factor(Age::Millis(young)), fade.factor(Age::Millis(young.saturating_add(more))));
            prop_assert!(old <= young && young <= 1.0 && old >= 1.0 - weight - 1e-12 && old >= 0.0);
        }
    }
}
