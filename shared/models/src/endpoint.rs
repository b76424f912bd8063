//! Where a model is reached, and with which key.

use crate::ModelError;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// Who runs a model, or whose protocol its server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// `OpenAI`'s chat completions, and whoever speaks them.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// The deterministic model in this crate: no network, no key.
    Local,
}

/// Not the name of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a model's provider is openai, anthropic or local")]
pub struct UnknownProvider;

impl Provider {
    /// The name in templates, prices and turns.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Local => "local",
        }
    }

    /// The name of the workspace's secret, or of the deployment's variable, that holds the key; `None` where none is needed.
    pub fn key_name(self) -> Option<&'static str> {
        match self {
            Self::Openai => Some("OPENAI_API_KEY"),
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::Local => None,
        }
    }
}

impl std::str::FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(name: &str) -> Result<Self, UnknownProvider> {
        match name {
            "openai" => Ok(Self::Openai),
            "anthropic" => Ok(Self::Anthropic),
            "local" => Ok(Self::Local),
            _ => Err(UnknownProvider),
        }
    }
}

/// One model at one address. Its `Debug` shows no key and no address (which may hold one).
#[derive(Clone)]
pub struct Endpoint {
    /// The protocol.
    pub provider: Provider,
    /// The model's id as its provider knows it.
    pub model: String,
    /// Another address than the provider's own: what comes before `/chat/completions` (`openai`) or `/v1/messages` (`anthropic`).
    /// Whoever fills it in upholds that no tenant chose it.
    pub base_url: Option<String>,
    /// The key; servers of one's own often need none.
    pub api_key: Option<SecretString>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { provider, model, base_url: _, api_key: _ } = self;
        f.debug_struct("Endpoint").field("provider", provider).field("model", model).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// A POST of JSON that asks for a stream of events, without a key.
    ///
    /// # Errors
    /// [`ModelError::Misconfigured`] when the base URL is none.
    pub(crate) fn post(&self, default_base: &str, path: &str, body: &impl Serialize) -> Result<http::Request<Bytes>, ModelError> {
        const NO_URL: ModelError = ModelError::Misconfigured("its endpoint is not an http or https URL without a query");
        let base = self.base_url.as_deref().unwrap_or(default_base).trim_end_matches('/');
        let web = base.starts_with("https://") || base.starts_with("http://");
        if !web || base.contains(['?', '#']) {
            return Err(NO_URL);
        }
        let body = serde_json::to_vec(body).map_err(|_| ModelError::Misconfigured("the prompt does not serialise"))?;
        http::Request::post(format!("{base}{path}"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"))
            .body(body.into())
            .map_err(|_| NO_URL)
    }

    /// Puts the key, if there is one, into a header that HTTP libraries know to hide.
    ///
    /// # Errors
    /// [`ModelError::Misconfigured`] when the key holds what no header can (a line break, say).
    pub(crate) fn authorize(&self, request: &mut http::Request<Bytes>, header: HeaderName, prefix: &str) -> Result<(), ModelError> {
        if let Some(key) = &self.api_key {
            let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret()))
                .map_err(|_| ModelError::Misconfigured("its key holds characters that no HTTP header can, such as a line break"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for provider in [Provider::Openai, Provider::Anthropic, Provider::Local] {
            assert_eq!(provider.as_str().parse(), Ok(provider));
            assert_eq!(serde_json::to_string(&provider).unwrap(), format!("\"{}\"", provider.as_str()));
        }
        for name in ["", "OpenAI", "openai ", "workers-ai"] {
            assert_eq!(name.parse::<Provider>(), Err(UnknownProvider), "{name}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let endpoint = Endpoint {
            provider: Provider::Openai,
            model: "m".into(),
            base_url: Some("https://user:hunter2@host/v1".into()),
            api_key: Some("sk-secret".to_owned().into()),
        };
        let shown = format!("{endpoint:?}");
        assert!(!shown.contains("sk-secret") && !shown.contains("hunter2"), "{shown}");
        let mut request = endpoint.post("https://x", "/y", &1).unwrap();
        endpoint.authorize(&mut request, http::header::AUTHORIZATION, "Bearer ").unwrap();
        assert!(!format!("{:?}", request.headers()).contains("sk-secret"));
    }
}
