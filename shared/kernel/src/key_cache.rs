//! What is known of an issuer's keys, and what to do for a token that names one of them. Rules only: the host fetches, and has the clock.
//!
//! 1. Keys are fresh for [`FRESH_MILLIS`] after the issuer last gave them. After that they are used on, and asked for again behind the request.
//! 2. They are used for [`STALE_MILLIS`] at most: an issuer that is away for longer has no keys here, and its tokens can be neither taken nor refused.
//! 3. A name that is not among them asks the issuer once, and not again for [`UNKNOWN_MILLIS`]: tokens with made-up names cannot make us call it often.
//! 4. One fetch at a time. A fetch that never ends (its request was cut off) is given up after [`FETCHING_MILLIS`].
//! 5. What the issuer no longer lists is no longer a key, from the next fetch on.

use crate::Timestamp;
use crate::jwk::{KeySet, PublicKey};

/// Ten minutes.
pub const FRESH_MILLIS: i64 = 10 * 60 * 1000;
/// A day.
pub const STALE_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Thirty seconds: between two questions for unknown names, and between two for keys that are no longer fresh.
pub const UNKNOWN_MILLIS: i64 = 30 * 1000;
/// Five seconds: between two questions when there are no keys to use.
pub const AWAY_MILLIS: i64 = 5 * 1000;
/// Three seconds, more than a fetch may take.
pub const FETCHING_MILLIS: i64 = 3 * 1000;

/// The keys of one issuer.
#[derive(Debug, Default)]
pub struct KeyCache {
    known: Option<(KeySet, Timestamp)>,
    /// When the fetch that is under way began.
    fetching: Option<Timestamp>,
    /// When the last one began.
    tried: Option<Timestamp>,
    /// When the last one for an unknown name began.
    tried_for_unknown: Option<Timestamp>,
    failed: bool,
}

/// What to do for a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// Check it with this key.
    Use {
        /// The key.
        key: PublicKey,
        /// Ask the issuer again, behind the request.
        refresh: bool,
    },
    /// Ask the issuer, say what it answered with [`KeyCache::fetched`], and look again.
    Fetch,
    /// Another request is asking: look again in a moment.
    Wait,
    /// The issuer has no such key.
    Unknown,
    /// It cannot be known: the issuer is away, or was when last asked.
    Away,
}

impl KeyCache {
    /// Looks for a key. `has_asked` says that this request has asked the issuer already: it does so once.
    pub fn look(&mut self, kid: &str, now: Timestamp, has_asked: bool) -> Look {
        let passed = |since: Option<Timestamp>, millis: i64| since.is_none_or(|since| now.0 - since.0 >= millis);
        let is_fetching = !passed(self.fetching, FETCHING_MILLIS);
        let usable = self.known.as_ref().filter(|(_, confirmed)| now.0 - confirmed.0 < STALE_MILLIS);
        let Some((keys, confirmed)) = usable else {
            return match () {
                () if is_fetching => Look::Wait,
                () if has_asked || (self.failed && !passed(self.tried, AWAY_MILLIS)) => Look::Away,
                () => self.fetch(now),
            };
        };
        if let Some(key) = keys.get(kid) {
            let key = key.clone();
            let refresh = !is_fetching && passed(Some(*confirmed), FRESH_MILLIS) && passed(self.tried, UNKNOWN_MILLIS);
            if refresh {
                self.fetch(now);
            }
            return Look::Use { key, refresh };
        }
        match () {
            () if is_fetching => Look::Wait,
            () if !has_asked && passed(self.tried_for_unknown, UNKNOWN_MILLIS) => {
                self.tried_for_unknown = Some(now);
                self.fetch(now)
            }
            () if self.failed => Look::Away,
            () => Look::Unknown,
        }
    }

    fn fetch(&mut self, now: Timestamp) -> Look {
        (self.fetching, self.tried) = (Some(now), Some(now));
        Look::Fetch
    }

    /// What the issuer answered; nothing when it did not, or nothing of use: then what is known stays.
    pub fn fetched(&mut self, keys: Option<KeySet>, now: Timestamp) {
        self.fetching = None;
        self.failed = keys.is_none();
        if let Some(keys) = keys {
            self.known = Some((keys, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_800_000_000_000;

    fn set(kids: &[&str]) -> KeySet {
        let key = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
        let keys: Vec<_> = kids.iter().map(|kid| format!(r#"{{"kid":"{kid}",{key}}}"#)).collect();
        KeySet::parse(&format!(r#"{{"keys":[{}]}}"#, keys.join(","))).unwrap()
    }

    /// A cache, and how many milliseconds have passed.
    struct At(KeyCache, i64);

    impl At {
        fn look(&mut self, kid: &str) -> Look {
            self.0.look(kid, Timestamp(START + self.1), false)
        }

        fn look_again(&mut self, kid: &str) -> Look {
            self.0.look(kid, Timestamp(START + self.1), true)
        }

        fn fetched(&mut self, kids: &[&str]) {
            self.0.fetched(Some(set(kids)), Timestamp(START + self.1));
        }

        fn not_fetched(&mut self) {
            self.0.fetched(None, Timestamp(START + self.1));
        }

        fn knowing(kids: &[&str]) -> Self {
            let mut at = Self(KeyCache::default(), 0);
            assert_eq!(at.look(kids[0]), Look::Fetch);
            at.fetched(kids);
            at
        }
    }

    fn uses(look: &Look) -> Option<bool> {
        if let Look::Use { refresh, .. } = look { Some(*refresh) } else { None }
    }

    #[test]
    fn keys_are_fetched_once_and_again_behind_a_request() {
        let mut at = At::knowing(&["a"]);
        at.1 = FRESH_MILLIS - 1;
        assert_eq!(uses(&at.look("a")), Some(false));
        at.1 = FRESH_MILLIS;
        assert_eq!(uses(&at.look("a")), Some(true));
        assert_eq!(uses(&at.look("a")), Some(false), "one at a time");
        at.fetched(&["b"]);
        assert_eq!(uses(&at.look("b")), Some(false));
        assert_eq!(uses(&at.look("a")), None, "what is no longer listed is no key");
    }

    #[test]
    fn an_issuer_that_is_away_is_asked_now_and_then_and_its_keys_end() {
        let mut at = At::knowing(&["a"]);
        at.1 = FRESH_MILLIS;
        for _ in 0..3 {
            assert_eq!(uses(&at.look("a")), Some(true));
            at.not_fetched();
            assert_eq!(uses(&at.look("a")), Some(false));
            at.1 += UNKNOWN_MILLIS;
        }
        at.1 = STALE_MILLIS - 1;
        assert_eq!(uses(&at.look("a")), Some(true));
        at.not_fetched();
        at.1 = STALE_MILLIS + AWAY_MILLIS;
        assert_eq!(at.look("a"), Look::Fetch);
        assert_eq!(at.look("a"), Look::Wait);
        at.not_fetched();
        assert_eq!(at.look_again("a"), Look::Away);
        assert_eq!(at.look("a"), Look::Away, "not again at once");
        at.1 += AWAY_MILLIS;
        assert_eq!(at.look("a"), Look::Fetch);
        at.fetched(&["a"]);
        assert_eq!(uses(&at.look_again("a")), Some(false));
    }

    #[test]
    fn unknown_names_ask_seldom() {
        let mut at = At::knowing(&["a"]);
        assert_eq!(at.look_again("b"), Look::Unknown, "whoever has just asked does not ask again");
        assert_eq!(at.look("b"), Look::Fetch);
        at.fetched(&["a"]);
        assert_eq!(at.look_again("b"), Look::Unknown);
        at.1 = UNKNOWN_MILLIS - 1;
        for n in 0..1000 {
            assert_eq!(at.look(&format!("made up {n}")), Look::Unknown);
        }
        at.1 = UNKNOWN_MILLIS;
        assert_eq!(at.look("b"), Look::Fetch);
        at.not_fetched();
        assert_eq!(at.look_again("b"), Look::Away, "it may be a new key");
        assert_eq!(at.look("c"), Look::Away);
        assert_eq!(uses(&at.look("a")), Some(false));
        at.1 += UNKNOWN_MILLIS;
        assert_eq!(at.look("b"), Look::Fetch);
        at.fetched(&["a", "b"]);
        assert_eq!(uses(&at.look_again("b")), Some(false));
    }

    #[test]
    fn a_fetch_that_never_ends_is_given_up() {
        let mut at = At(KeyCache::default(), 0);
        assert_eq!(at.look("a"), Look::Fetch);
        at.1 = FETCHING_MILLIS - 1;
        assert_eq!(at.look("a"), Look::Wait);
        at.1 = FETCHING_MILLIS;
        assert_eq!(at.look("a"), Look::Fetch);
    }
}
