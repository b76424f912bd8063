//! How much of an answer was delivered, how much of it the turn's hold covers, and when more has to be asked for.
//!
//! Two sides of one task share it: the stream, which delivers nothing that is not covered ([`Meter::cover`]), and the pulse, which speaks with the counter
//! ([`Meter::wants`], [`Meter::granted`]) and tells it what was delivered. More is asked for while half of the last slice is still unused, so the stream seldom waits.
//!
//! The trap: what a provider will count of a text is not known while it comes, so the text is bounded by its bytes (a token is at least one), and
//! the bound is what has to be covered. What is charged in the end is what the provider counted.

use astra_kernel::{Tokens, Usage, UsageSource};
use astra_quota::words::Extended;
use futures_util::task::AtomicWaker;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::Poll;

/// Tokens that a provider may count beside those of the text: where it begins and ends.
pub const AROUND_ANSWER: Tokens = 16;

/// What the counter is to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Output tokens that the hold must cover.
    pub output: Tokens,
    /// The stream stands still until it does.
    pub is_urgent: bool,
}

/// See the module's head.
#[derive(Debug)]
pub struct Meter {
    max: Tokens,
    input: AtomicU64,
    delivered: AtomicU64,
    bound: AtomicU64,
    held: AtomicU64,
    slice: AtomicU64,
    needed: AtomicU64,
    is_refused: AtomicBool,
    is_refused_ahead: AtomicBool,
    written: AtomicU64,
    stands_still: AtomicBool,
    calls: AtomicU64,
    pulse: AtomicWaker,
    stream: AtomicWaker,
}

impl Meter {
    /// Of a turn whose hold covers so much output, and can grow to `max`.
    pub fn new(held: Tokens, max: Tokens) -> Self {
        Self {
            max,
            input: AtomicU64::default(),
            delivered: AtomicU64::default(),
            bound: AtomicU64::default(),
            held: AtomicU64::new(held),
            slice: AtomicU64::new(held),
            needed: AtomicU64::default(),
            is_refused: AtomicBool::default(),
            is_refused_ahead: AtomicBool::default(),
            written: AtomicU64::default(),
            stands_still: AtomicBool::default(),
            // The call that began the turn.
            calls: AtomicU64::new(1),
            pulse: AtomicWaker::new(),
            stream: AtomicWaker::new(),
        }
    }

    /// Notes what the provider has in hand, in tokens: the prompt before the request goes out, nothing when the provider has refused it.
    pub fn asked(&self, input: Tokens) {
        self.input.store(input, Relaxed);
    }

    /// Notes that the counter is called, and says how often it was since the turn began.
    pub fn called(&self) -> u64 {
        self.calls.fetch_add(1, Relaxed) + 1
    }

    /// Notes what was delivered so far, in tokens.
    pub fn delivered(&self, output: Tokens) {
        self.delivered.store(output, Relaxed);
    }

    /// What was used so far, as far as it can be known while the model answers.
    pub fn usage(&self) -> Usage {
        Usage {
            input_tokens: self.input.load(Relaxed),
            output_tokens: self.delivered.load(Relaxed),
            source: UsageSource::Estimated,
            ..Usage::NONE
        }
    }

    /// Output tokens that the hold covers.
    pub fn held(&self) -> Tokens {
        self.held.load(Relaxed)
    }

    /// Waits until a text of so many bytes is covered, or cannot be. `written` is what the provider will about have counted of it. Gives how many bytes may be delivered.
    pub async fn cover(&self, bytes: usize, written: Tokens) -> usize {
        let bytes = bytes as Tokens;
        let bound = bytes.saturating_add(AROUND_ANSWER).min(self.max);
        self.bound.store(bound, Relaxed);
        self.written.store(written, Relaxed);
        if bound > self.held() {
            self.is_refused.store(false, Relaxed);
            self.needed.store(bound, Relaxed);
            self.pulse.wake();
            poll_fn(|context| {
                self.stream.register(context.waker());
                if bound <= self.held() || self.is_refused.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            self.needed.store(0, Relaxed);
        } else if self.wants().is_some() {
            self.pulse.wake();
        }
        let covered = if bound <= self.held() { bytes } else { self.held().saturating_sub(AROUND_ANSWER) };
        usize::try_from(covered).unwrap_or(usize::MAX)
    }

    /// Others are waited for, and more is written than is held: whatever comes besides would be on the provider's bill and paid by nobody.
    pub fn is_overdrawn(&self) -> bool {
        self.stands_still.load(Relaxed) && self.written.load(Relaxed) > self.held()
    }

    /// Waits until it is.
    pub async fn overdrawn(&self) {
        poll_fn(|context| {
            self.pulse.register(context.waker());
            if self.is_overdrawn() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// What the counter is to be asked for, if anything.
    pub fn wants(&self) -> Option<Want> {
        let (held, needed) = (self.held(), self.needed.load(Relaxed));
        if needed > held {
            return (!self.is_refused.load(Relaxed)).then_some(Want { output: needed, is_urgent: true });
        }
        let ahead = self.bound.load(Relaxed).saturating_add(self.slice.load(Relaxed) / 2);
        let is_near = held < self.max && ahead >= held && !self.is_refused_ahead.load(Relaxed);
        is_near.then(|| Want { output: held + 1, is_urgent: false })
    }

    /// Whether more was delivered than was told.
    pub fn has_news(&self, told: Tokens) -> bool {
        self.delivered.load(Relaxed) > told
    }

    /// Waits until there is something to ask for, or more was delivered than `told`. For the latter the pulse is not woken: it is looked at whenever the stream has
    /// nothing to do, because both are one task.
    pub async fn wanted(&self, told: Tokens) {
        poll_fn(|context| {
            self.pulse.register(context.waker());
            if self.wants().is_some() || self.has_news(told) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes the counter's answer.
    pub fn granted(&self, want: Want, extended: &Extended) {
        let before = self.held();
        self.held.store(extended.output.max(before), Relaxed);
        if extended.output > before {
            self.slice.store(extended.output - before, Relaxed);
        }
        self.stands_still.store(extended.wait, Relaxed);
        match (extended.covered, want.is_urgent) {
            (true, _) => self.is_refused_ahead.store(false, Relaxed),
            (false, true) => self.is_refused.store(!extended.wait, Relaxed),
            // What is held may be enough; if it is not, the stream will ask itself.
            (false, false) => self.is_refused_ahead.store(true, Relaxed),
        }
        self.stream.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn answer(covered: bool, wait: bool, output: Tokens) -> Extended {
        Extended { stop: false, covered, wait, output, max_output: 1_000 }
    }

    #[test]
    fn a_text_is_covered_before_it_is_delivered() {
        let meter = Meter::new(100, 1_000);
        assert_eq!(meter.cover(30, 0).now_or_never(), Some(30));
        assert_eq!(meter.wants(), None, "more than half of the slice is left");
        assert_eq!(meter.cover(50, 0).now_or_never(), Some(50));
        assert_eq!(meter.wants(), Some(Want { output: 101, is_urgent: false }), "ahead of need");
        meter.granted(Want { output: 101, is_urgent: false }, &answer(true, false, 164));
        assert_eq!(meter.wants(), None);
        assert_eq!(meter.cover(148, 0).now_or_never(), Some(148));
        assert_eq!(meter.cover(149, 0).now_or_never(), None, "one token more than is held");
    }

    #[test]
    fn a_stream_stands_still_until_it_is_covered_or_refused() {
        let meter = Meter::new(100, 1_000);
        let mut waiting = Box::pin(meter.cover(400, 0));
        assert!((&mut waiting).now_or_never().is_none());
        let want = Want { output: 416, is_urgent: true };
        assert_eq!(meter.wants(), Some(want));
        meter.granted(want, &answer(false, true, 100));
        assert_eq!(meter.wants(), Some(want), "others may give something back: it is asked for again");
        assert!((&mut waiting).now_or_never().is_none());
        meter.granted(want, &answer(false, false, 216));
        assert_eq!(waiting.now_or_never(), Some(200), "what was left was taken");
    }

    #[test]
    fn who_stands_still_is_overdrawn_when_more_is_written_than_is_held() {
        let meter = Meter::new(100, 1_000);
        assert!(meter.cover(4_000, 1_000).now_or_never().is_none());
        assert!(!meter.is_overdrawn(), "whoever only has not asked yet waits for the answer");
        let want = meter.wants().unwrap();
        meter.granted(want, &answer(false, true, 100));
        assert!(meter.is_overdrawn());
        assert!(meter.cover(400, 100).now_or_never().is_none());
        assert!(!meter.is_overdrawn(), "what is written is paid for");
        meter.granted(want, &answer(false, false, 150));
        assert_eq!(meter.cover(130, 33).now_or_never(), Some(130), "the last that was left was taken");
    }

    #[test]
    fn a_refusal_ahead_of_need_is_not_the_last_word() {
        let meter = Meter::new(100, 1_000);
        assert_eq!(meter.cover(60, 0).now_or_never(), Some(60));
        let ahead = meter.wants().unwrap();
        meter.granted(ahead, &answer(false, false, 100));
        assert_eq!(meter.wants(), None, "it is not asked for again");
        assert_eq!(meter.cover(84, 0).now_or_never(), Some(84), "all that is held may be used");
        let mut waiting = Box::pin(meter.cover(85, 0));
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(meter.wants(), Some(Want { output: 101, is_urgent: true }));
        meter.granted(meter.wants().unwrap(), &answer(true, false, 300));
        assert_eq!(waiting.now_or_never(), Some(85));
    }

    #[test]
    fn a_hold_of_the_maximum_asks_for_nothing() {
        let meter = Meter::new(1_000, 1_000);
        assert_eq!(meter.cover(50_000, 0).now_or_never(), Some(50_000), "the model was told to stop at what is held");
        assert_eq!(meter.wants(), None);
    }
}
