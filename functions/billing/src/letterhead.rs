//! What the operator has said of its invoices.
//!
//! | variable | what |
//! |---|---|
//! | `INVOICE_FROM` | who sends them: name, address and so on, lines with `;` between them; 1,000 bytes at most. Nothing unless set |
//! | `INVOICE_LOGO` | a picture: an `https` address, or `data:image/png;base64,…` (also jpeg, gif, webp, svg+xml), 65,536 bytes at most. None unless set |
//! | `INVOICE_PREFIX` | what numbers begin with: at most 20 of `A-Z a-z 0-9 . _ -`; `INV-` unless set |
//! | `INVOICE_GRACE_HOURS` | how long a month has to be over before it is closed, 0 to 240; 6 unless set |

use astra_host::Shared;
use astra_kernel::{ConfigError, Problem};

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letterhead {
    /// Lines of who sends it.
    pub(crate) from: Vec<String>,
    /// The address of a picture.
    pub(crate) logo: Option<String>,
    /// What numbers begin with.
    pub(crate) prefix: String,
    /// Seconds.
    pub(crate) grace_seconds: u32,
}

const KINDS: [&str; 5] = ["png", "jpeg", "gif", "webp", "svg+xml"];

impl Letterhead {
    /// Reads them.
    ///
    /// # Errors
    /// Names the variable that is malformed.
    pub fn read(shared: &Shared) -> Result<Self, ConfigError> {
        Self::of(|name| shared.setting(name))
    }

    fn of(setting: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let from = setting("INVOICE_FROM").unwrap_or_default();
        if from.len() > 1000 || from.chars().any(char::is_control) {
            return Err(ConfigError::Malformed("INVOICE_FROM", "it is at most 1,000 bytes, lines with ';' between them".into()));
        }
        let logo = setting("INVOICE_LOGO");
        if logo.as_deref().is_some_and(|logo| !is_picture(logo)) {
            let rule = "it is an https address, or data:image/…;base64,… of a png, jpeg, gif, webp or svg+xml, at most 65,536 bytes";
            return Err(ConfigError::Malformed("INVOICE_LOGO", rule.into()));
        }
        let prefix = setting("INVOICE_PREFIX").unwrap_or_else(|| "INV-".to_owned());
        if prefix.len() > 20 || !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err(ConfigError::Malformed("INVOICE_PREFIX", "it is at most 20 of A-Z a-z 0-9 . _ -".into()));
        }
        let hours = setting("INVOICE_GRACE_HOURS").map_or(Ok(6), |text| text.parse::<u32>());
        let hours = hours.ok().filter(|hours| *hours <= 240);
        let hours = hours.ok_or_else(|| ConfigError::Malformed("INVOICE_GRACE_HOURS", "it is a whole number from 0 to 240".into()))?;
        let from = from.split(';').map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Ok(Self { from, logo, prefix, grace_seconds: hours * 3600 })
    }
}

/// Settings that are malformed make a function that cannot answer.
pub(crate) fn unconfigured(error: &ConfigError) -> Problem {
    Problem::new(astra_kernel::Code::Unavailable, format!("This deployment is not configured: {error}."))
}

fn is_picture(text: &str) -> bool {
    if text.len() > 65_536 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return false;
    }
    if let Some(rest) = text.strip_prefix("https://") {
        return !rest.is_empty() && !rest.starts_with('/') && !rest.bytes().any(|b| matches!(b, b'"' | b'\'' | b'<' | b'>' | b'\\'));
    }
    text.strip_prefix("data:image/").and_then(|rest| rest.split_once(";base64,")).is_some_and(|(kind, data)| {
        KINDS.contains(&kind) && !data.is_empty() && data.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_named() {
        let read = |name: &'static str, value: &str| Letterhead::of(|asked| (asked == name).then(|| value.to_owned()));
        let unset = Letterhead::of(|_| None).unwrap();
        assert_eq!(unset, Letterhead { from: vec![], logo: None, prefix: "INV-".into(), grace_seconds: 21_600 });
        assert_eq!(read("INVOICE_FROM", "ACME GmbH; Main St 1;;Berlin ").unwrap().from, ["ACME GmbH", "Main St 1", "Berlin"]);
        assert_eq!(read("INVOICE_GRACE_HOURS", "0").unwrap().grace_seconds, 0);
        for good in ["https://acme.test/logo.png?size=2", "data:image/png;base64,AAAA", "data:image/svg+xml;base64,PHN2Zz4="] {
            assert_eq!(read("INVOICE_LOGO", good).unwrap().logo.as_deref(), Some(good));
        }
        for (name, bad) in [
            ("INVOICE_FROM", "a\nb"),
            ("INVOICE_LOGO", "http://acme.test/logo.png"),
            ("INVOICE_LOGO", "https://"),
            ("INVOICE_LOGO", "https://a\"onload=x"),
            ("INVOICE_LOGO", "javascript:alert(1)"),
            ("INVOICE_LOGO", "data:text/html;base64,AAAA"),
            ("INVOICE_LOGO", "data:image/png,<x>"),
            ("INVOICE_LOGO", "data:image/png;base64,"),
            ("INVOICE_PREFIX", "a/b"),
            ("INVOICE_PREFIX", "a-prefix-of-more-than-twenty"),
            ("INVOICE_GRACE_HOURS", "241"),
            ("INVOICE_GRACE_HOURS", "-1"),
        ] {
            let error = read(name, bad).unwrap_err().to_string();
            assert!(error.contains(name), "{bad}: {error}");
        }
    }
}
