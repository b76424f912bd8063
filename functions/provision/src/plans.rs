//! Plans: a plan's template is one set of agent definitions for all workspaces of the plan. The operator's.

use crate::definition::DefinitionView;
use crate::fields::BasisPoints;
use crate::template::{self, MAX_BYTES, Template, TemplateBody};
use astra_documents::yaml::MEDIA_TYPES;
use astra_host::fields::{Text, present};
use astra_host::routes::{Params, Unread};
use astra_host::{Call, Failure, Host};
use astra_kernel::permission::Rules;
use astra_kernel::{AgentId, Code, Permission, Problem, json};
use astra_store::Operator;
use astra_store::extract::Model;
use astra_store::plans::{NewPlanSettings, PlanSettings};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

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
    /// What roles may do in a workspace that has not said it itself, by their names: permissions or families of them.
    #[schema(value_type = BTreeMap<String, TemplateRules>)]
    roles: BTreeMap<String, Rules>,
}

/// What a role may do: what `allow` lists and `deny` does not.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only described")]
struct TemplateRules {
    /// What it may do.
    allow: Vec<String>,
    /// What it may not, whatever `allow` says.
    deny: Vec<String>,
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
    let operator = call.operator(Permission::WorkspaceList).await?;
    let plan = Text::of_path("plan", path.plan)?;
    let body = request.bytes(&MEDIA_TYPES, MAX_BYTES).await?;
    let yaml = std::str::from_utf8(&body).map_err(|_| Problem::new(Code::BadRequest, "The body is not UTF-8."))?;
    let template = template::parse(yaml, allows_http(&call.host))?;
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
    let operator = call.operator(Permission::WorkspaceList).await?;
    let plan = Text::of_path("plan", path.plan)?;
    let found = operator.get_plan(plan.as_str()).await?.ok_or_else(|| Problem::not_found("plan with a template"))?;
    let accept = request.header(&ACCEPT).to_ascii_lowercase();
    if MEDIA_TYPES.iter().any(|yaml| accept.contains(yaml)) {
        return Ok(([(CONTENT_TYPE, MEDIA_TYPES[0]), (VARY, "accept")], found.source_yaml).into_response());
    }
    let Template { agents, roles } =
        json::from_str(found.template.get()).map_err(|error| Failure::internal(format!("a stored template: {error}")))?;
    let view =
        TemplateView { plan: found.plan, version: found.version, agents: agents.into_iter().map(DefinitionView::from).collect(), roles };
    Ok(([(VARY, "accept")], Json(view)).into_response())
}

/// A plan's settings.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
#[schema(as = PlanSettings)]
pub(crate) struct SettingsBody {
    /// Whether what a workspace of the plan has left of `maxTokensPerMonth` and `maxCostUsdPerMonth` is carried over into the next month, for that month only.
    carry_over: bool,
    /// What the plan's workspaces are charged more than what it costs, in hundredths of a percent (2000: a fifth more); less when it is negative. As it is unless told. It holds for what
    /// begins from then on.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    markup_basis_points: Option<BasisPoints>,
    /// How what is said in conversations becomes memories: `off`, by `rules`, which cost nothing, by a `model`, or by a model at its provider's `batch` rates, where it has
    /// some and the price book knows them; as the deployment does unless told.
    #[serde(default, deserialize_with = "word_or_null")]
    #[schema(value_type = Option<String>, pattern = "^(off|rules|model|batch)$")]
    extraction: Option<Extraction>,
    /// By which model; the agent's unless told.
    #[serde(default)]
    extraction_model: Option<ModelName>,
}

fn word_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Extraction>, D::Error> {
    let word = Option::<String>::deserialize(deserializer)?;
    word.map(|word| Extraction::deserialize(word.into_deserializer())).transpose()
}

/// How conversations become memories.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Extraction {
    Off,
    Rules,
    Model,
    Batch,
}

impl Extraction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Rules => "rules",
            Self::Model => "model",
            Self::Batch => "batch",
        }
    }
}

/// A model by its provider and its id there.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct ModelName {
    /// `openai` or `anthropic`.
    #[schema(value_type = String, pattern = "^(openai|anthropic|local)$")]
    provider: String,
    /// Its id there.
    #[schema(min_length = 1, max_length = 128)]
    model_id: String,
}

impl ModelName {
    fn checked(self) -> Result<Model, Problem> {
        let Self { provider, model_id } = self;
        if !matches!(provider.as_str(), "openai" | "anthropic" | "local") {
            return Err(Problem::field("/extractionModel/provider", "openai, anthropic or local"));
        }
        if model_id.is_empty() || model_id.len() > 128 || model_id.contains(char::is_control) {
            return Err(Problem::field("/extractionModel/modelId", "a text of 1 to 128 bytes"));
        }
        Ok(Model { provider, model_id })
    }
}

/// A plan.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Plan)]
pub(crate) struct PlanView {
    /// The plan.
    plan: String,
    /// Whether what is left of a month's budget is carried over into the next.
    carry_over: bool,
    /// What its workspaces are charged more than what it costs, in hundredths of a percent.
    markup_basis_points: i64,
    /// The version of its template; null while it has none.
    #[schema(required = true)]
    template_version: Option<i32>,
    /// How conversations become memories; null: as the deployment does.
    #[schema(required = true, value_type = Option<String>)]
    extraction: Option<String>,
    /// By which model; null: the agent's.
    #[schema(required = true)]
    extraction_model: Option<ModelName>,
}

/// Sets a plan's settings.
#[utoipa::path(
    put, path = "/plans/{plan}", tag = "plans", operation_id = "putPlan", params(PlanPath), request_body = SettingsBody,
    responses((status = 200, description = "The plan", body = PlanView)),
)]
pub(crate) async fn put_settings<H: Host>(
    call: Call<H>,
    Params(path): Params<PlanPath>,
    request: Unread,
) -> Result<Json<PlanView>, Failure> {
    let operator = call.operator(Permission::WorkspaceList).await?;
    let plan = Text::of_path("plan", path.plan)?;
    let SettingsBody { carry_over, markup_basis_points, extraction, extraction_model } = request.json().await?;
    let markup_basis_points = markup_basis_points.map(|BasisPoints(points)| points);
    let extraction_model = extraction_model.map(ModelName::checked).transpose()?;
    let extraction = extraction.map(Extraction::as_str);
    let settings = NewPlanSettings { carry_over, markup_basis_points, extraction, extraction_model: extraction_model.as_ref() };
    operator.put_plan_settings(plan.as_str(), &settings, call.host.now()).await?;
    show(&operator, plan).await
}

/// A plan's settings.
#[utoipa::path(
    get, path = "/plans/{plan}", tag = "plans", operation_id = "readPlan", params(PlanPath),
    responses((status = 200, description = "The plan", body = PlanView), (status = 404, description = "Nothing is known of the plan")),
)]
pub(crate) async fn read_settings<H: Host>(call: Call<H>, Params(path): Params<PlanPath>) -> Result<Json<PlanView>, Failure> {
    let operator = call.operator(Permission::WorkspaceList).await?;
    let plan = Text::of_path("plan", path.plan)?;
    show(&operator, plan).await
}

async fn show<H: Host>(operator: &Operator<'_, H>, plan: Text) -> Result<Json<PlanView>, Failure> {
    let PlanSettings { carry_over, markup_basis_points, template_version, extraction, extraction_model } =
        operator.get_plan_settings(plan.as_str()).await?.ok_or_else(|| Problem::not_found("plan"))?;
    let extraction_model = extraction_model.map(|Model { provider, model_id }| ModelName { provider, model_id });
    Ok(Json(PlanView { plan: plan.into_string(), carry_over, markup_basis_points, template_version, extraction, extraction_model }))
}

/// Whether the deployment lets agents call model servers on its own machine without TLS.
pub(crate) fn allows_http(host: &impl Host) -> bool {
    host.shared().setting("ALLOW_HTTP_ENDPOINTS").as_deref() == Some("1")
}
