//! Which providers and models a workspace may use. The operator's to say; looked at before anything is held or called.

use astra_host::fields::present;
use astra_store::workspaces::Restrictions;
use serde::{Deserialize, Serialize};

/// Restrictions of a workspace's models: what they do not list is refused. Without any, all models that have a price may be used.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = Restrictions)]
pub(crate) struct RestrictionsBody {
    /// Only these providers, such as `openai`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, nullable = false, max_items = 100)]
    allowed_providers: Option<Listed>,
    /// Only these models, `provider/model`; with `*` at the end all that begin so: `openai/gpt-4o*`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>, nullable = false, max_items = 100)]
    allowed_models: Option<Listed>,
}

/// Up to 100 names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Listed(Vec<String>);

impl TryFrom<Vec<String>> for Listed {
    type Error = &'static str;

    fn try_from(names: Vec<String>) -> Result<Self, Self::Error> {
        let is_name = |name: &String| (1..=200).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if names.len() <= 100 && names.iter().all(is_name) {
            Ok(Self(names))
        } else {
            Err("at most 100 names of 1 to 200 visible ASCII characters")
        }
    }
}

impl From<RestrictionsBody> for Restrictions {
    fn from(RestrictionsBody { allowed_providers, allowed_models }: RestrictionsBody) -> Self {
        Self { allowed_providers: allowed_providers.map(|listed| listed.0), allowed_models: allowed_models.map(|listed| listed.0) }
    }
}

impl From<Restrictions> for RestrictionsBody {
    fn from(Restrictions { allowed_providers, allowed_models }: Restrictions) -> Self {
        Self { allowed_providers: allowed_providers.map(Listed), allowed_models: allowed_models.map(Listed) }
    }
}
