//! How a deployment is set: none of it, and words are searched by Postgres.
//!
//! - `TYPESENSE_URL`: its address, https; http on this machine, or anywhere with `ALLOW_HTTP_ENDPOINTS=1`.
//! - `TYPESENSE_API_KEY`: a key that makes collections and aliases and writes documents. Secret.
//! - `TYPESENSE_SEARCH_KEY`: a key that may search (`documents:search`) and nothing else. Secret: keys for each search are derived from it.
//! - `TYPESENSE_COLLECTIONS`: `per-workspace` (unless set) or `shared:N`.
//! - `TYPESENSE_PREFIX`: what names of collections and aliases begin with, 1 to 32 of `a-z`, `0-9`, `-`; `astra` unless set. Deployments that share a Typesense have each their own.
//!
//! Who searches and writes nothing ([`Searches`]) needs the address, the search key and the prefix.

use crate::layout::{self, Layout};
use astra_kernel::{ConfigError, WorkspaceId};
use secrecy::SecretString;

/// A Typesense, as far as one searches in it. Its `Debug` shows no key and no address.
#[derive(Clone)]
pub struct Searches {
    pub(crate) url: String,
    pub(crate) search_key: SecretString,
    prefix: String,
}

/// A Typesense that is written to. Its `Debug` shows no key and no address.
#[derive(Clone)]
pub struct Typesense {
    pub(crate) searches: Searches,
    pub(crate) key: SecretString,
    layout: Layout,
}

impl std::fmt::Debug for Searches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Searches").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Typesense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { searches, key: _, layout } = self;
        f.debug_struct("Typesense").field("layout", layout).field("searches", searches).finish_non_exhaustive()
    }
}

fn malformed(name: &'static str, says: &str) -> ConfigError {
    ConfigError::Malformed(name, says.to_owned())
}

fn key(get: impl Fn(&str) -> Option<String>, name: &'static str, purpose: &'static str) -> Result<SecretString, ConfigError> {
    let key = get(name).ok_or(ConfigError::Missing(name, purpose))?;
    let fits = key.len() >= 4 && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(SecretString::from(key)) } else { Err(malformed(name, "it is a key of Typesense's: visible ASCII characters")) }
}

impl Searches {
    /// Reads them; `None` without `TYPESENSE_URL`. An empty variable counts as not set.
    ///
    /// # Errors
    /// Names the variable that is missing or malformed, never its value.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
        let Some(url) = get("TYPESENSE_URL") else { return Ok(None) };
        let url = url.trim_end_matches('/').to_owned();
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        let is_plain_allowed = matches!(host, "127.0.0.1" | "localhost") || get("ALLOW_HTTP_ENDPOINTS").as_deref() == Some("1");
        if !(scheme == "https" || scheme == "http" && is_plain_allowed) || host.is_empty() || rest.contains(['?', '#', '@', ' ']) {
            return Err(malformed("TYPESENSE_URL", "it is https://host[:port], without a query or a password"));
        }
        let prefix = get("TYPESENSE_PREFIX").unwrap_or_else(|| "astra".to_owned());
        if !(1..=32).contains(&prefix.len()) || !prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(malformed("TYPESENSE_PREFIX", "it is 1 to 32 of a-z, 0-9 and '-'"));
        }
        Ok(Some(Self { search_key: key(get, "TYPESENSE_SEARCH_KEY", "a search-only key of the Typesense of TYPESENSE_URL")?, prefix, url }))
    }

    /// The name by which a workspace is searched.
    pub fn alias(&self, workspace: &WorkspaceId) -> String {
        layout::alias(&self.prefix, workspace)
    }
}

impl Typesense {
    /// Reads them; `None` without `TYPESENSE_URL`. An empty variable counts as not set.
    ///
    /// # Errors
    /// Names the variable that is missing or malformed, never its value.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
        let Some(searches) = Searches::read(&get)? else { return Ok(None) };
        let layout = get("TYPESENSE_COLLECTIONS").map_or(Ok(Layout::PerWorkspace), |text| text.parse());
        Ok(Some(Self {
            searches,
            key: key(&get, "TYPESENSE_API_KEY", "the key that writes to the Typesense of TYPESENSE_URL")?,
            layout: layout.map_err(|error: layout::NoLayout| malformed("TYPESENSE_COLLECTIONS", &error.to_string()))?,
        }))
    }

    /// Where it is searched.
    pub fn searches(&self) -> &Searches {
        &self.searches
    }

    /// Where a workspace's documents belong, in another layout than the deployment's if one is said.
    pub fn collection(&self, workspace: &WorkspaceId, layout: Option<Layout>) -> String {
        layout::collection(&self.searches.prefix, layout.unwrap_or(self.layout), workspace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const GOOD: [(&str, &str); 3] = [
        ("TYPESENSE_URL", "https://search.example.com/"),
        ("TYPESENSE_API_KEY", "hidden-admin"),
        ("TYPESENSE_SEARCH_KEY", "hidden-search"),
    ];

    fn read(changed: &[(&'static str, &'static str)]) -> Result<Option<Typesense>, String> {
        let variables: HashMap<_, _> = GOOD.into_iter().chain(changed.iter().copied()).collect();
        let get = |name: &str| variables.get(name).filter(|value| !value.is_empty()).map(|value| (*value).to_owned());
        Typesense::read(get).map_err(|error| error.to_string())
    }

    #[test]
    fn none_of_it_or_all_of_it() {
        assert!(read(&[("TYPESENSE_URL", "")]).unwrap().is_none());
        let typesense = read(&[]).unwrap().unwrap();
        let acme = "acme".to_owned().try_into().unwrap();
        let searches = typesense.searches();
        assert_eq!((searches.url.as_str(), searches.alias(&acme).as_str()), ("https://search.example.com", "astra_acme"));
        assert_eq!(typesense.collection(&acme, None), "astra_own_acme_v1");
        assert!(!format!("{typesense:?}").contains("hidden") && !format!("{typesense:?}").contains("example"));
        let shared = read(&[("TYPESENSE_COLLECTIONS", "shared:1"), ("TYPESENSE_PREFIX", "eu")]).unwrap().unwrap();
        assert_eq!(shared.collection(&acme, None), "eu_shared_1_0_v1");
        assert_eq!(shared.collection(&acme, Some(Layout::PerWorkspace)), "eu_own_acme_v1");
        for local in ["http://127.0.0.1:8108", "http://localhost:8108"] {
            assert!(read(&[("TYPESENSE_URL", local)]).is_ok());
        }
        assert!(read(&[("TYPESENSE_URL", "http://search:8108"), ("ALLOW_HTTP_ENDPOINTS", "1")]).is_ok());
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        for (name, value) in [
            ("TYPESENSE_URL", "hidden"),
            ("TYPESENSE_URL", "http://hidden.example.com"),
            ("TYPESENSE_URL", "https://u:hidden@example.com"),
            ("TYPESENSE_URL", "https://example.com?hidden"),
            ("TYPESENSE_URL", "ftp://hidden"),
            ("TYPESENSE_URL", "https://"),
            ("TYPESENSE_API_KEY", ""),
            ("TYPESENSE_API_KEY", "hidden\nkey"),
            ("TYPESENSE_SEARCH_KEY", ""),
            ("TYPESENSE_SEARCH_KEY", "hid"),
            ("TYPESENSE_COLLECTIONS", "shared:hidden"),
            ("TYPESENSE_PREFIX", "Hidden"),
            ("TYPESENSE_PREFIX", "a_b"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name), "{name}={value}: {error}");
            assert!(!error.contains("idden"), "{error}");
        }
    }
}
