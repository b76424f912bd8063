//! `SASLprep` (RFC 4013) of ASCII, in place of the crates.io crate of this name: [patch.crates-io] in the workspace's Cargo.toml.
//!
//! `postgres-protocol` prepares a database password with it, and nothing else here does. The whole algorithm brings Unicode tables of some 100 KB gzipped into
//! every function, as much as the rest of the quota object. Of ASCII it leaves everything as it is and refuses control characters; anything else is refused
//! here, and `postgres-protocol` then sends the password as it is, as `PostgreSQL` does with one that cannot be prepared. So a password outside ASCII
//! works where it is in its normal form already (NFKC), which is how it is usually typed.

use std::borrow::Cow;

/// The text cannot be prepared here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not printable ASCII")
    }
}

impl std::error::Error for Error {}

/// Prepares a text.
///
/// # Errors
/// When it is not printable ASCII.
pub fn saslprep(text: &str) -> Result<Cow<'_, str>, Error> {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) { Ok(Cow::Borrowed(text)) } else { Err(Error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_stays_as_it_is() {
        assert_eq!(saslprep("I X-~ 1"), Ok(Cow::Borrowed("I X-~ 1")));
        for refused in ["\u{7}", "\u{7f}", "a\n", "\u{ad}", "ª", "пароль"] {
            assert_eq!(saslprep(refused), Err(Error), "{refused:?}");
        }
    }
}
