//! Configuration: the same names on every host. Missing or malformed: one message that names it, never its value.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

/// A variable that is missing or malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not set.
    #[error("{0} is not set: {1}")]
    Missing(&'static str, &'static str),
    /// Set, but of no use.
    #[error("{0} is malformed: {1}")]
    Malformed(&'static str, String),
}

impl ConfigError {
    pub(crate) fn malformed(name: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed(name, detail.into())
    }
}

/// What the host was configured with. Secrets are read where they are used and never kept in a printable form.
pub trait Settings {
    /// The variable's value, `None` when it is not set or empty.
    fn get(&self, name: &str) -> Option<String>;

    /// The variable's value.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] with what the variable is for.
    fn require(&self, name: &'static str, purpose: &'static str) -> Result<String, ConfigError> {
        self.get(name).ok_or(ConfigError::Missing(name, purpose))
    }
}

/// Reads `kid:base64url` pairs with commas between them.
///
/// # Errors
/// Names the variable and which pair is wrong, never a secret.
pub fn key_list(name: &'static str, text: &str) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
    let mut keys: Vec<(String, Vec<u8>)> = Vec::new();
    for (position, pair) in text.split(',').map(str::trim).enumerate() {
        let number = position + 1;
        let (kid, secret) =
            pair.split_once(':').ok_or_else(|| ConfigError::malformed(name, format!("entry {number} is not of the form kid:secret")))?;
        if kid.is_empty() || !kid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(ConfigError::malformed(name, format!("the kid of entry {number} is not of a-z, A-Z, 0-9, '-', '_', '.'")));
        }
        if keys.iter().any(|(known, _)| known == kid) {
            return Err(ConfigError::malformed(name, format!("the kid of entry {number} stands twice")));
        }
        let secret = BASE64_URL_SAFE_NO_PAD
            .decode(secret.trim_end_matches('='))
            .map_err(|_| ConfigError::malformed(name, format!("the secret of entry {number} is not base64url")))?;
        keys.push((kid.to_owned(), secret));
    }
    Ok(keys)
}

/// A language model by provider and id, as `DEFAULT_MODEL` names it: `provider/model`.
///
/// # Errors
/// When there is no `/` or a side is empty.
pub fn default_model(text: &str) -> Result<(String, String), ConfigError> {
    match text.split_once('/') {
        Some((provider, model)) if !provider.is_empty() && !model.is_empty() => Ok((provider.to_owned(), model.to_owned())),
        _ => Err(ConfigError::malformed("DEFAULT_MODEL", "it is provider/model, such as local/echo-1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_keys_are_named_by_place() {
        for (text, says) in
            [("", "entry 1"), ("a", "entry 1"), ("a:AAAA,:AAAA", "entry 2"), ("a:AAAA,a:AAAA", "twice"), ("a:***", "base64url")]
        {
            let error = key_list("K", text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
