//! Agents of a workspace: what its plan's template gives, and its own, which stand in for the template's of the same id.

use crate::amount::{Budget, WorkspaceLimit, write_usd};
use crate::definition::{AgentBody, Definition, Model, StoredBudget};
use crate::plans::allows_http;
use crate::prompt::{self, Id, Names, WorkspaceNames};
use crate::workspaces::{existing, tell_counter};
use astra_host::fields::WorkspacePath;
use astra_host::paging::PageBody;
use astra_host::routes::{Params, Unread};
use astra_host::{Allowed, Call, Failure, Host};
use astra_kernel::{AgentId, Claims, Code, IdError, NanoUsd, Permission, Problem, json};
use astra_store::agents::AgentOutcome;
use astra_store::workspaces::Workspace;
use axum::Json;
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// An agent's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Path)]
pub(crate) struct AgentPath {
    /// The workspace.
    #[param(min_length = 1, max_length = 48, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    workspace_id: String,
    /// The agent.
    #[param(min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
    agent_id: String,
}

/// Where an agent comes from.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AgentSource)]
pub(crate) enum Source {
    /// The workspace's own.
    Own,
    /// Its plan's template.
    Template,
}

/// An agent as it is for this workspace.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Agent)]
pub(crate) struct AgentView {
    /// Its id.
    #[schema(value_type = String)]
    id: AgentId,
    /// Where it comes from.
    source: Source,
    /// Its name, rendered.
    display_name: String,
    /// Its model.
    model: Model,
    /// Its system prompt, a template.
    system_prompt_template: String,
    /// What it may use at most.
    budget: BudgetView,
}

/// What an agent may use at most, with this workspace's limits put in. What is not there does not limit.
#[derive(Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AgentLimits)]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct BudgetView {
    /// Input and output tokens of one turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_tokens_per_turn: Option<i64>,
    /// Nano-dollars in a calendar month.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, nullable = false)]
    max_cost_nano_usd_per_month: Option<NanoUsd>,
    /// Dollars in a calendar month.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_usd")]
    #[schema(value_type = Option<f64>, nullable = false)]
    max_cost_usd_per_month: Option<NanoUsd>,
    /// Dollars in a day.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_usd")]
    #[schema(value_type = Option<f64>, nullable = false)]
    max_cost_usd_per_day: Option<NanoUsd>,
    /// Dollars in an hour.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_usd")]
    #[schema(value_type = Option<f64>, nullable = false)]
    max_cost_usd_per_hour: Option<NanoUsd>,
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

impl BudgetView {
    fn new(stored: &StoredBudget, workspace: &Workspace) -> Self {
        let StoredBudget {
            max_tokens_per_turn,
            max_cost_usd_per_month,
            max_cost_usd_per_day,
            max_cost_usd_per_hour,
            max_tokens_per_month,
            max_tokens_per_day,
            max_tokens_per_hour,
        } = *stored;
        let amount = |budget: Option<Budget>| match budget? {
            Budget::Amount(amount) => Some(amount),
            Budget::Workspace(WorkspaceLimit::MaxCostPerMonth) => workspace.limits.max_cost_nano_usd_per_month,
        };
        Self {
            max_tokens_per_turn,
            max_cost_nano_usd_per_month: amount(max_cost_usd_per_month),
            max_cost_usd_per_month: amount(max_cost_usd_per_month),
            max_cost_usd_per_day: amount(max_cost_usd_per_day),
            max_cost_usd_per_hour: amount(max_cost_usd_per_hour),
            max_tokens_per_month,
            max_tokens_per_day,
            max_tokens_per_hour,
        }
    }
}

impl AgentView {
    fn new(definition: Definition, source: Source, workspace: &Workspace, claims: &Claims) -> Self {
        let Definition { id, display_name, mut model, system_prompt_template, budget, permissions: _ } = definition;
        let names = Names {
            workspace: WorkspaceNames {
                id: workspace.id.as_str(),
                display_name: &workspace.display_name,
                plan: &workspace.plan,
                owner_id: &workspace.owner_id,
                limits: workspace.limits.into(),
            },
            agent: Id { id: id.as_str() },
            user: Id { id: &claims.sub },
            memories: &[],
        };
        let display_name = prompt::render_or_source(&display_name, &names);
        if !claims.is_operator() {
            // Where models run is the deployment's own business.
            model.endpoint = None;
        }
        let budget = BudgetView::new(&budget.unwrap_or_default(), workspace);
        Self { id, source, display_name, model, system_prompt_template, budget }
    }
}

/// The agents that the workspace can use. All on one page.
#[utoipa::path(
    get, path = "/workspaces/{workspaceId}/agents", tag = "agents", operation_id = "listAgents", params(WorkspacePath),
    responses((status = 200, description = "Agents by id", body = PageBody<AgentView>)),
)]
pub(crate) async fn list<H: Host>(call: Call<H>, Params(path): Params<WorkspacePath>) -> Result<Json<PageBody<AgentView>>, Failure> {
    let Allowed { claims, data, .. } = call.tenant(&path.workspace_id, Permission::AgentRead).await?;
    let workspace = existing(&data).await?;
    let rows = data.list_agents().await?.ok_or_else(|| Problem::not_found("workspace"))?;
    let show = |row: astra_store::agents::AgentRow| {
        let source = if row.source == "own" { Source::Own } else { Source::Template };
        let definition = json::from_str(row.definition.get()).map_err(|error| Failure::internal(format!("a stored agent: {error}")))?;
        Ok(AgentView::new(definition, source, &workspace, &claims))
    };
    let data = rows.data.into_iter().map(show).collect::<Result<_, Failure>>()?;
    Ok(Json(PageBody { data, next_cursor: None }))
}

/// Writes an agent of the workspace's own.
#[utoipa::path(
    put, path = "/workspaces/{workspaceId}/agents/{agentId}", tag = "agents", operation_id = "putAgent",
    params(AgentPath), request_body = AgentBody,
    responses(
        (status = 200, description = "The agent as it is now", body = AgentView),
        (status = 429, description = "The workspace has as many agents as its limit maxAgents allows"),
    ),
)]
pub(crate) async fn put<H: Host>(call: Call<H>, Params(path): Params<AgentPath>, request: Unread) -> Result<Json<AgentView>, Failure> {
    let Allowed { claims, data, .. } = call.tenant(&path.workspace_id, Permission::AgentWrite).await?;
    let id = checked_id(path.agent_id)?;
    let body: AgentBody = request.json().await?;
    if body.model.endpoint.is_some() && !claims.is_operator() {
        return Err(Problem::new(Code::Forbidden, "/model/endpoint is the operator's to set: leave it out.").into());
    }
    let definition = body.check(id, "", allows_http(&call.host))?;
    let workspace = existing(&data).await?;
    match data.put_agent(&definition.id, &definition, call.host.now()).await? {
        AgentOutcome::Ok => {
            tell_counter(&call.host, data.workspace()).await;
            Ok(Json(AgentView::new(definition, Source::Own, &workspace, &claims)))
        }
        AgentOutcome::NotFound => Err(Problem::not_found("workspace").into()),
        AgentOutcome::Limit { used } => {
            let detail = "The workspace has as many agents as its limit maxAgents allows. Delete one, or ask the operator for more.";
            let problem = Problem { limit: Some("maxAgents".to_owned()), used: Some(used), ..Problem::new(Code::QuotaExceeded, detail) };
            Err(problem.into())
        }
    }
}

/// Deletes an agent of the workspace's own; the template's of the same id, if there is one, is in effect again.
#[utoipa::path(
    delete, path = "/workspaces/{workspaceId}/agents/{agentId}", tag = "agents", operation_id = "deleteAgent", params(AgentPath),
    responses((status = 204, description = "Deleted")),
)]
pub(crate) async fn delete<H: Host>(call: Call<H>, Params(path): Params<AgentPath>) -> Result<StatusCode, Failure> {
    let Allowed { data, .. } = call.tenant(&path.workspace_id, Permission::AgentWrite).await?;
    match data.delete_agent(&checked_id(path.agent_id)?).await? {
        AgentOutcome::Ok => {
            tell_counter(&call.host, data.workspace()).await;
            Ok(StatusCode::NO_CONTENT)
        }
        AgentOutcome::NotFound => Err(Problem::not_found("agent of the workspace's own").into()),
        AgentOutcome::Limit { .. } => Err(Failure::internal("agent_delete met a limit")),
    }
}

fn checked_id(id: String) -> Result<AgentId, Problem> {
    let id = AgentId::try_from(id).map_err(|rule| Problem::field("agentId", rule.to_string()))?;
    if id.is_own() { Ok(id) } else { Err(Problem::field("agentId", IdError::Agent.to_string())) }
}
