//! Paths, and the forms of fields.

use astra_documents::config::RoleName;
use astra_kernel::Problem;
use serde::{Deserialize, Deserializer};

/// The path of what belongs to a workspace.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct WorkspacePath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub(crate) workspace_id: String,
}

/// A role's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct RolePath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    pub(crate) workspace_id: String,
    /// The role's name.
    #[param(value_type = RoleName)]
    role: String,
}

impl RolePath {
    /// The role's name.
    ///
    /// # Errors
    /// `422` when no role can have it.
    pub(crate) fn role(&self) -> Result<RoleName, Problem> {
        RoleName::try_from(self.role.clone()).map_err(|rule| Problem::field("role", rule))
    }
}

/// A user's id, as members have it: 1 to 200 characters, not blank, no control characters. Spaces around it are dropped.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Subject(String);

impl Subject {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Subject {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let trimmed = text.trim();
        let fits = !trimmed.is_empty() && text.chars().count() <= 200 && !text.chars().any(char::is_control);
        if fits { Ok(Self(trimmed.to_owned())) } else { Err("a text of 1 to 200 characters, not blank and without control characters") }
    }
}

/// For optional fields that are absent or have a value: null is refused.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
