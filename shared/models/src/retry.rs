//! When a call that failed is made again. Only ever before the first token: what was delivered cannot be taken back, and is paid for.

use crate::ModelError;
use astra_kernel::Timestamp;

/// No call is made more often than this, whatever is asked for.
pub const MAX_ATTEMPTS: u32 = 3;

/// How long the first wait is at most, in milliseconds; it doubles with each.
const FIRST_WAIT: u64 = 500;

/// How often and how long to try.
#[derive(Clone, Copy)]
pub struct Retry<'a> {
    /// How many calls at most, the first included; taken as at least 1 and at most [`MAX_ATTEMPTS`].
    pub attempts: u32,
    /// No further call is begun from here on. The call that runs is not cut: race the future with the turn's deadline for that.
    pub deadline: Timestamp,
    /// The host's clock.
    pub now: &'a (dyn Fn() -> Timestamp + Send + Sync),
    /// The host's randomness: waits of many clients are spread by it.
    pub seed: u64,
    /// Told true before each call, false when the call has failed: whether the provider has the prompt in hand, and may charge for it.
    pub asking: &'a (dyn Fn(bool) + Send + Sync),
}

impl std::fmt::Debug for Retry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retry").field("attempts", &self.attempts).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Retry<'_> {
    /// How many milliseconds to wait before another call, after `made` calls of which the last failed; `None` when there shall be none.
    pub(crate) fn wait(&self, error: &ModelError, made: u32) -> Option<u32> {
        if !error.is_passing() || made >= self.attempts.min(MAX_ATTEMPTS) {
            return None;
        }
        // Half of the wait is fixed, half is chance ("equal jitter").
        let most = FIRST_WAIT << made.saturating_sub(1).min(10);
        let backoff = most / 2 + mix(self.seed.wrapping_add(u64::from(made))) % (most / 2 + 1);
        let asked = match error {
            ModelError::Status { retry_after: Some(seconds), .. } => u64::from(*seconds) * 1000,
            _ => 0,
        };
        let wait = u32::try_from(backoff.max(asked)).ok()?;
        ((self.now)().plus_millis(i64::from(wait)) < self.deadline).then_some(wait)
    }
}

/// The seconds of a Retry-After (RFC 9110 section 10.2.3). Its other form, a date, is taken as absent: providers do not send it.
pub(crate) fn retry_after(headers: &http::HeaderMap) -> Option<u32> {
    headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The finaliser of `splitmix64` (Steele, Lea, Flood 2014): spreads a number's bits evenly.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn retry(seed: u64, deadline: i64) -> Retry<'static> {
        Retry { attempts: 3, deadline: Timestamp(deadline), now: &|| Timestamp(0), seed, asking: &|_| () }
    }

    proptest! {
        #[test]
        fn waits_are_bounded_and_never_reach_the_deadline(seed: u64, made in 1_u32..5, deadline in 0_i64..5_000, after in proptest::option::of(0_u32..6)) {
            let error = ModelError::Status { status: 503, retry_after: after };
            match retry(seed, deadline).wait(&error, made) {
                Some(wait) => {
                    let most = (500_u32 << (made - 1)).max(after.unwrap_or(0) * 1000);
                    prop_assert!(made < 3 && wait <= most && wait >= after.unwrap_or(0) * 1000 && wait >= 250);
                    prop_assert!(i64::from(wait) < deadline);
                }
                None => prop_assert!(made >= 3 || deadline <= i64::from((500_u32 << (made - 1)).max(after.unwrap_or(0) * 1000))),
            }
        }
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        for error in [
            ModelError::Status { status: 400, retry_after: None },
            ModelError::Status { status: 401, retry_after: Some(1) },
            ModelError::Broken,
            ModelError::Empty,
            ModelError::Garbage(""),
            ModelError::Misconfigured(""),
        ] {
            assert_eq!(retry(0, i64::MAX).wait(&error, 1), None, "{error:?}");
        }
    }

    #[test]
    fn only_seconds_are_read() {
        for (value, seconds) in
            [("3", Some(3)), (" 3 ", Some(3)), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("-1", None), ("1.5", None), ("99999999999", None)]
        {
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, value.parse().unwrap());
            assert_eq!(retry_after(&headers), seconds, "{value}");
        }
    }
}
