//! An agent's definition: as requests write it, as it is stored (and read by turns), and the way between.

use crate::amount::{Budget, BudgetBody, BudgetForm, Usd, write_budget};
use crate::fields::Positive;
use crate::prompt;
use astra_host::fields::endpoint as check_endpoint;
use astra_host::fields::{Text, present};
use astra_host::routes::word;
use astra_kernel::{AgentId, IdError, Problem};
use serde::{Deserialize, Serialize};

/// The longest system prompt template, in characters.
const MAX_PROMPT: usize = 65_536;

/// Who runs the model, or whose protocol its server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// `OpenAI`'s chat completions, and whoever speaks them.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// The deterministic model that needs no network and no key.
    Local,
}

/// An agent. Its name and its system prompt are templates over `workspace`, `agent`, `user` and `memories`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = AgentDefinition)]
pub(crate) struct AgentBody {
    /// The agent's id: required in a template; elsewhere the path says it and this, if there, says the same.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, nullable = false, min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
    pub(crate) id: Option<AgentId>,
    /// Its name for people, a template.
    pub(crate) display_name: Text,
    /// Its model.
    pub(crate) model: ModelBody,
    /// What the model is told first, a template.
    #[schema(min_length = 1, max_length = 65_536, pattern = r"^[^\u0000]*$")]
    pub(crate) system_prompt_template: String,
    /// What it may use at most.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(crate) budget: Option<LimitsBody>,
    /// Its boundary.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    pub(crate) permissions: Option<PermissionsBody>,
}

/// An agent's model.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = AgentModel)]
pub(crate) struct ModelBody {
    /// The provider.
    #[serde(deserialize_with = "word")]
    provider: Provider,
    /// The model's id at the provider.
    model_id: Text,
    /// Base URL of the model's server, where it is not the provider's own. The operator's to set.
    #[serde(default, deserialize_with = "present")]
    #[schema(
        nullable = false,
        max_length = 2048,
        pattern = r"^https://[A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9](:[1-9][0-9]{0,3})?(/[A-Za-z0-9._~-]+)*/?$"
    )]
    pub(crate) endpoint: Option<String>,
    /// The longest answer in tokens.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_output_tokens: Option<Positive>,
}

/// What an agent may use at most.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = AgentBudget)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct LimitsBody {
    /// Input and output tokens of one turn.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_tokens_per_turn: Option<Positive>,
    /// Dollars in a calendar month: a number, a decimal text, or `{{workspace.limits.maxCostUsdPerMonth}}`.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<BudgetForm>, nullable = false)]
    max_cost_usd_per_month: Option<BudgetBody>,
    /// Dollars in a day.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_cost_usd_per_day: Option<Usd>,
    /// Dollars in an hour.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_cost_usd_per_hour: Option<Usd>,
    /// Input and output tokens in a calendar month.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_tokens_per_month: Option<Positive>,
    /// Input and output tokens in a day.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_tokens_per_day: Option<Positive>,
    /// Input and output tokens in an hour.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    max_tokens_per_hour: Option<Positive>,
}

/// An agent's boundary: there is one, and it cannot be widened.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = AgentPermissions)]
pub(crate) struct PermissionsBody {
    /// The workspace that asks, `{{workspace.id}}`.
    #[schema(value_type = String, pattern = r"^\{\{ *workspace\.id *\}\}$")]
    workspace_id: OwnWorkspace,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct OwnWorkspace;

impl TryFrom<String> for OwnWorkspace {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let inner = text.trim().strip_prefix("{{").and_then(|t| t.strip_suffix("}}"));
        if inner.is_some_and(|t| t.trim() == "workspace.id") {
            Ok(Self)
        } else {
            Err("an agent reaches the workspace that asks and no other: \"{{workspace.id}}\"")
        }
    }
}

impl From<OwnWorkspace> for String {
    fn from(OwnWorkspace: OwnWorkspace) -> Self {
        "{{workspace.id}}".to_owned()
    }
}

/// A checked definition, as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Definition {
    pub(crate) id: AgentId,
    pub(crate) display_name: String,
    pub(crate) model: Model,
    pub(crate) system_prompt_template: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) budget: Option<StoredBudget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) permissions: Option<PermissionsBody>,
}

/// A model, as stored and as shown.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentModelView)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct Model {
    /// The provider.
    provider: Provider,
    /// The model's id at the provider.
    model_id: String,
    /// Base URL of the model's server. Shown to the operator only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) endpoint: Option<String>,
    /// The longest answer in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_output_tokens: Option<i64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct StoredBudget {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens_per_turn: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_cost_usd_per_month: Option<Budget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_cost_usd_per_day: Option<Budget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_cost_usd_per_hour: Option<Budget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens_per_month: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens_per_day: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens_per_hour: Option<i64>,
}

impl From<LimitsBody> for StoredBudget {
    fn from(body: LimitsBody) -> Self {
        let LimitsBody {
            max_tokens_per_turn,
            max_cost_usd_per_month,
            max_cost_usd_per_day,
            max_cost_usd_per_hour,
            max_tokens_per_month,
            max_tokens_per_day,
            max_tokens_per_hour,
        } = body;
        let (count, cost) = (|count: Option<Positive>| count.map(|n| n.0), |usd: Option<Usd>| usd.map(|usd| Budget::Amount(usd.0)));
        Self {
            max_tokens_per_turn: count(max_tokens_per_turn),
            max_cost_usd_per_month: max_cost_usd_per_month.map(|BudgetBody(budget)| budget),
            max_cost_usd_per_day: cost(max_cost_usd_per_day),
            max_cost_usd_per_hour: cost(max_cost_usd_per_hour),
            max_tokens_per_month: count(max_tokens_per_month),
            max_tokens_per_day: count(max_tokens_per_day),
            max_tokens_per_hour: count(max_tokens_per_hour),
        }
    }
}

impl AgentBody {
    /// Checks what a type cannot say. `at` is the agent's JSON pointer.
    ///
    /// # Errors
    /// `422` with the pointer of what does not fit.
    pub(crate) fn check(self, id: AgentId, at: &str, allow_http: bool) -> Result<Definition, Problem> {
        let Self { id: said, display_name, model, system_prompt_template, budget, permissions } = self;
        if said.is_some_and(|said| said != id) {
            return Err(Problem::field(format!("{at}/id"), "it is not the id in the path"));
        }
        if !id.is_own() {
            return Err(Problem::field(format!("{at}/id"), IdError::Agent.to_string()));
        }
        prompt::check(display_name.as_str()).map_err(|why| Problem::field(format!("{at}/displayName"), why))?;
        let prompt_fits = (1..=MAX_PROMPT).contains(&system_prompt_template.chars().count()) && !system_prompt_template.contains('\0');
        let prompt_at = format!("{at}/systemPromptTemplate");
        if !prompt_fits {
            return Err(Problem::field(prompt_at, format!("a text of 1 to {MAX_PROMPT} characters without U+0000")));
        }
        prompt::check(&system_prompt_template).map_err(|why| Problem::field(prompt_at, why))?;
        let ModelBody { provider, model_id, endpoint, max_output_tokens } = model;
        if let Some(endpoint) = &endpoint {
            check_endpoint(endpoint, allow_http).map_err(|why| Problem::field(format!("{at}/model/endpoint"), why))?;
        }
        let model = Model { provider, model_id: model_id.into_string(), endpoint, max_output_tokens: max_output_tokens.map(|n| n.0) };
        let budget = budget.map(StoredBudget::from);
        Ok(Definition { id, display_name: display_name.into_string(), model, system_prompt_template, budget, permissions })
    }
}

/// An agent's definition, as a template holds it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentDefinitionView)]
pub(crate) struct DefinitionView {
    /// The agent's id.
    #[schema(value_type = String)]
    id: AgentId,
    /// Its name, a template.
    display_name: String,
    /// Its model.
    model: Model,
    /// Its system prompt, a template.
    system_prompt_template: String,
    /// What it may use at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    budget: Option<BudgetView>,
    /// Its boundary.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    permissions: Option<PermissionsBody>,
}

/// What an agent may use at most, as a template holds it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentBudgetView)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
struct BudgetView {
    /// Input and output tokens of one turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_turn: Option<i64>,
    /// Dollars in a calendar month, or `{{workspace.limits.maxCostUsdPerMonth}}`.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_budget")]
    #[schema(value_type = Option<BudgetForm>, nullable = false)]
    max_cost_usd_per_month: Option<Budget>,
    /// Dollars in a day.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_budget")]
    #[schema(value_type = Option<Usd>, nullable = false)]
    max_cost_usd_per_day: Option<Budget>,
    /// Dollars in an hour.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_budget")]
    #[schema(value_type = Option<Usd>, nullable = false)]
    max_cost_usd_per_hour: Option<Budget>,
    /// Input and output tokens in a calendar month.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_month: Option<i64>,
    /// Input and output tokens in a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_day: Option<i64>,
    /// Input and output tokens in an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_hour: Option<i64>,
}

impl From<StoredBudget> for BudgetView {
    fn from(stored: StoredBudget) -> Self {
        let StoredBudget {
            max_tokens_per_turn,
            max_cost_usd_per_month,
            max_cost_usd_per_day,
            max_cost_usd_per_hour,
            max_tokens_per_month,
            max_tokens_per_day,
            max_tokens_per_hour,
        } = stored;
        Self {
            max_tokens_per_turn,
            max_cost_usd_per_month,
            max_cost_usd_per_day,
            max_cost_usd_per_hour,
            max_tokens_per_month,
            max_tokens_per_day,
            max_tokens_per_hour,
        }
    }
}

impl From<Definition> for DefinitionView {
    fn from(definition: Definition) -> Self {
        let Definition { id, display_name, model, system_prompt_template, budget, permissions } = definition;
        let budget = budget.map(BudgetView::from);
        Self { id, display_name, model, system_prompt_template, budget, permissions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_https_or_on_this_machine() {
        for good in ["https://models.example.com", "https://models.example.com/v1", "https://a.example:8443/v1/", "https://10.0.0.1/v1"] {
            assert_eq!(check_endpoint(good, false), Ok(()), "{good}");
        }
        for local in ["http://127.0.0.1:8080/v1", "http://localhost:1", "http://[::1]:9"] {
            assert_eq!(check_endpoint(local, true), Ok(()), "{local}");
            assert!(check_endpoint(local, false).is_err(), "{local}");
        }
        let bad = [
            "",
            "models.example.com",
            "/v1",
            "ftp://a/",
            "file:///etc/passwd",
            "https://",
            "https:///v1",
            "https://u:p@a/",
            "https://u@a",
            "https://a/?k=v",
            "https://a/#f",
            "http://10.0.0.1/",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "https://a:0/",
            "https://a:/",
            "https://a:99999/",
            "https://a b/",
            "https://a\n/",
            "javascript:alert(1)",
        ];
        for bad in bad {
            assert!(check_endpoint(bad, true).is_err(), "{bad}");
        }
    }
}
