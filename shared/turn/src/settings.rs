//! What of the configuration concerns turns.

use astra_host::{Shared, provider};
use astra_kernel::ConfigError;
use astra_quota::words::ModelRef;
use astra_typesense::Searches;

/// Configuration of turns.
#[derive(Debug, Clone)]
pub struct TurnSettings {
    /// `MODEL_TIMEOUT_SECONDS`: how long a turn may take in all, 1 to 900 seconds; 120 unless set.
    pub deadline_millis: i64,
    /// `HOLD_LEASE_SECONDS`: how long a budget is held without a sign of life, 3 to 600 seconds; 30 unless set.
    pub lease_millis: i64,
    /// `DEFAULT_MODEL`: the model of agents whose provider has no key, `provider/model`.
    pub default_model: Option<ModelRef>,
    /// Providers for which the deployment has a key: `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`.
    pub host_providers: Vec<String>,
    /// `TYPESENSE_URL`, `TYPESENSE_SEARCH_KEY`, `TYPESENSE_PREFIX`: where words are looked for, if the deployment has a Typesense.
    pub typesense: Option<Searches>,
}

impl TurnSettings {
    /// Reads them. `RECEIPT_KEYS` are looked at here, so that no turn runs whose receipt cannot be signed.
    ///
    /// # Errors
    /// When one is malformed; names it.
    pub fn read(shared: &Shared) -> Result<Self, ConfigError> {
        shared.receipt_keys()?;
        Ok(Self {
            deadline_millis: seconds(shared, "MODEL_TIMEOUT_SECONDS", 120, 1, 900)? * 1000,
            lease_millis: seconds(shared, "HOLD_LEASE_SECONDS", 30, 3, 600)? * 1000,
            default_model: provider::default_model(shared)?,
            host_providers: provider::host_providers(shared),
            typesense: Searches::read(|name| shared.setting(name))?,
        })
    }
}

fn seconds(shared: &Shared, name: &'static str, default: i64, least: i64, most: i64) -> Result<i64, ConfigError> {
    let Some(text) = shared.setting(name) else { return Ok(default) };
    text.parse()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| ConfigError::Malformed(name, format!("it is a whole number of seconds from {least} to {most}")))
}
