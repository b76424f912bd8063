//! From a model as the database names it to where it is reached and with which key.

use crate::{Host, Shared};
use astra_kernel::{Code, ConfigError, Problem, SealError, Sealed, WorkspaceId, config};
use astra_models::{Endpoint, Provider};
use astra_quota::words::ModelRef;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use secrecy::SecretString;
use serde::Deserialize;

/// A model that was chosen.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    /// Its provider.
    pub provider: String,
    /// Its id there.
    pub model_id: String,
    /// A base URL that the operator set.
    pub endpoint: Option<String>,
}

/// A sealed secret; the texts are standard base64.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// Which key sealed it.
    pub key_id: String,
    /// The nonce.
    pub nonce: String,
    /// Ciphertext and tag.
    pub ciphertext: String,
}

/// Providers for which the deployment has a key: `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`.
pub fn host_providers(shared: &Shared) -> Vec<String> {
    let has_key = |provider: &Provider| provider.key_name().is_some_and(|name| shared.setting(name).is_some());
    [Provider::Openai, Provider::Anthropic].iter().filter(|p| has_key(p)).map(|p| p.as_str().to_owned()).collect()
}

/// `DEFAULT_MODEL`: the model of agents whose provider has no key, `provider/model`.
///
/// # Errors
/// When it is malformed; names it.
pub fn default_model(shared: &Shared) -> Result<Option<ModelRef>, ConfigError> {
    let parsed = shared.setting("DEFAULT_MODEL").map(|text| config::default_model(&text)).transpose()?;
    Ok(parsed.map(|(provider, model_id)| ModelRef { provider, model_id }))
}

/// Where a model is reached, with the workspace's key or else the deployment's.
///
/// # Errors
/// When its provider is not known here, or the workspace's key cannot be opened.
pub fn endpoint<H: Host>(host: &H, workspace: &WorkspaceId, model: &Model, secret: Option<&Secret>) -> Result<Endpoint, Problem> {
    let provider: Provider =
        model.provider.parse().map_err(|_| Problem::new(Code::ModelUnavailable, "The model's provider is not known here."))?;
    let shared = host.shared();
    let api_key = match secret {
        Some(secret) => {
            Some(open(host, workspace, secret).map_err(|error| Problem::new(Code::Unavailable, format!("{}: {error}.", secret.name)))?)
        }
        None => provider.key_name().and_then(|name| shared.setting(name)).map(SecretString::from),
    };
    let base_setting = match provider {
        Provider::Openai => shared.setting("OPENAI_BASE_URL"),
        Provider::Anthropic => shared.setting("ANTHROPIC_BASE_URL"),
        Provider::Local => None,
    };
    Ok(Endpoint { provider, model: model.model_id.clone(), base_url: model.endpoint.clone().or(base_setting), api_key })
}

fn open<H: Host>(host: &H, workspace: &WorkspaceId, secret: &Secret) -> Result<SecretString, SealError> {
    let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| SealError);
    let sealed = Sealed { key_id: secret.key_id.clone(), nonce: decode(&secret.nonce)?, ciphertext: decode(&secret.ciphertext)? };
    let keys = host.shared().secrets_key().map_err(|_| SealError)?;
    let value = keys.open(workspace, &secret.name, &sealed)?;
    String::from_utf8(value).map(SecretString::from).map_err(|_| SealError)
}
