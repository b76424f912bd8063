//! Plans: a plan's template is one set of agent definitions for all workspaces of the plan. The operator's.

use crate::definition::{Definition, DefinitionView};
use crate::fields::Text;
use crate::template::{self, MAX_BYTES, TemplateBody};
use astra_host::routes::{Params, Unread};
use astra_host::{Call, Failure, Host};
use astra_kernel::{AgentId, Code, Permission, Problem, json};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use serde::{Deserialize, Serialize};

/// YAML's media types: RFC 9512's and the two before it.
const YAML: [&str; 3] = ["application/yaml", "text/yaml", "application/x-yaml"];

/// A plan's path.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct PlanPath {
    /// The plan.
    #[param(value_type = Text)]
    plan: String,
}

/// What was stored.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = StoredTemplate)]
pub(crate) struct StoredView {
    /// The plan.
    plan: String,
    /// Counts up with each change; the same template again keeps it.
    version: i32,
    /// The agents' ids.
    #[schema(value_type = Vec<String>)]
    agents: Vec<AgentId>,
}

/// A plan's template.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = PlanTemplate)]
pub(crate) struct TemplateView {
    /// The plan.
    plan: String,
    /// Counts up with each change.
    version: i32,
    /// The agents.
    agents: Vec<DefinitionView>,
}

/// A template, as stored.
#[derive(Serialize, Deserialize)]
struct Template {
    agents: Vec<Definition>,
}

/// Sets a plan's template.
#[utoipa::path(
    put, path = "/plans/{plan}/template", tag = "plans", operation_id = "putTemplate", params(PlanPath),
    request_body(
        content((TemplateBody = "application/yaml"), (TemplateBody = "text/yaml"), (TemplateBody = "application/x-yaml")),
        description = "At most 256 KiB",
    ),
    responses((status = 200, description = "Stored", body = StoredView)),
)]
pub(crate) async fn put<H: Host>(call: Call<H>, Params(path): Params<PlanPath>, request: Unread) -> Result<Json<StoredView>, Failure> {
    let operator = call.operator(Permission::WorkspaceList)?;
    let plan = Text::of_path("plan", path.plan)?;
    let body = request.bytes(&YAML, MAX_BYTES).await?;
    let yaml = std::str::from_utf8(&body).map_err(|_| Problem::new(Code::BadRequest, "The body is not UTF-8."))?;
    let definitions = template::parse(yaml, allows_http(&call.host))?;
    let template = Template { agents: definitions };
    let version = operator.put_plan(plan.as_str(), &template, yaml, call.host.now()).await?;
    Ok(Json(StoredView { plan: plan.into_string(), version, agents: template.agents.into_iter().map(|d| d.id).collect() }))
}

/// A plan's template, as JSON or, where `Accept` asks for it, as the YAML that was uploaded.
#[utoipa::path(
    get, path = "/plans/{plan}/template", tag = "plans", operation_id = "readTemplate", params(PlanPath),
    responses(
        (status = 200, description = "The template", content((TemplateView = "application/json"), (String = "application/yaml"))),
        (status = 404, description = "The plan has no template"),
    ),
)]
pub(crate) async fn read<H: Host>(call: Call<H>, Params(path): Params<PlanPath>, request: Unread) -> Result<Response, Failure> {
    let operator = call.operator(Permission::WorkspaceList)?;
    let plan = Text::of_path("plan", path.plan)?;
    let found = operator.get_plan(plan.as_str()).await?.ok_or_else(|| Problem::not_found("plan with a template"))?;
    let accept = request.header(&ACCEPT).to_ascii_lowercase();
    if YAML.iter().any(|yaml| accept.contains(yaml)) {
        return Ok(([(CONTENT_TYPE, YAML[0]), (VARY, "accept")], found.source_yaml).into_response());
    }
    let Template { agents } =
        json::from_str(found.template.get()).map_err(|error| Failure::internal(format!("a stored template: {error}")))?;
    let view = TemplateView { plan: found.plan, version: found.version, agents: agents.into_iter().map(DefinitionView::from).collect() };
    Ok(([(VARY, "accept")], Json(view)).into_response())
}

/// Whether the deployment lets agents call model servers on its own machine without TLS.
pub(crate) fn allows_http(host: &impl Host) -> bool {
    host.shared().setting("ALLOW_HTTP_ENDPOINTS").as_deref() == Some("1")
}
