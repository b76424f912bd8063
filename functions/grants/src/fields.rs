//! Paths, and the name of a role as it is sent.

use astra_kernel::Problem;
use astra_kernel::permission::is_role_name;
use serde::{Deserialize, Serialize};

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
    #[param(min_length = 1, max_length = 32, pattern = "^[a-z][a-z0-9_-]*$")]
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

/// The name of a role: one of the four that every workspace has (`owner`, `admin`, `member`, `viewer`), or one of the workspace's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct RoleName(String);

impl RoleName {
    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RoleName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if is_role_name(&name) {
            Ok(Self(name))
        } else {
            Err("a role's name: a-z, then a-z, 0-9, '-' and '_', 32 characters at most; not operator")
        }
    }
}
