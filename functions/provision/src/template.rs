//! A plan's agent template: `astra.yml`, as the guide prints it.

use crate::definition::{AgentBody, Definition};
use crate::yaml;
use astra_host::web::parse_json;
use astra_kernel::Problem;
use serde::Deserialize;
use std::collections::HashSet;

/// The largest template in bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// A plan's agents.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = AgentTemplate)]
pub(crate) struct TemplateBody {
    /// The agents, each under its own id.
    #[schema(value_type = Vec<NamedAgent>)]
    agents: Vec<AgentBody>,
}

/// For the documentation: an agent whose id is required.
pub(crate) struct NamedAgent;

impl utoipa::PartialSchema for NamedAgent {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Ref};
        AllOfBuilder::new().item(Ref::from_schema_name("AgentDefinition")).item(ObjectBuilder::new().required("id")).into()
    }
}

impl utoipa::ToSchema for NamedAgent {
    fn name() -> std::borrow::Cow<'static, str> {
        "TemplateAgent".into()
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
        use utoipa::PartialSchema as _;
        schemas.push(("AgentDefinition".to_owned(), AgentBody::schema()));
        AgentBody::schemas(schemas);
    }
}

/// Reads and checks a template.
///
/// # Errors
/// `422` with the JSON pointer of what does not fit, or the line where it is no YAML.
pub(crate) fn parse(yaml: &str, allow_http: bool) -> Result<Vec<Definition>, Problem> {
    let TemplateBody { agents } = parse_json(yaml::to_json(yaml, 4 * MAX_BYTES)?.as_bytes())?;
    let mut ids = HashSet::new();
    let mut definitions = Vec::with_capacity(agents.len());
    for (position, agent) in agents.into_iter().enumerate() {
        let at = format!("/agents/{position}");
        let id = agent.id.clone().ok_or_else(|| Problem::field(format!("{at}/id"), "an agent of a template needs an id"))?;
        if !ids.insert(id.clone()) {
            return Err(Problem::field(format!("{at}/id"), format!("there are two agents with the id {id}")));
        }
        definitions.push(agent.check(id, &at, allow_http)?);
    }
    Ok(definitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUIDE: &str = r#"# astra.yml — agent template used for all tenant workspaces
agents:
  - id: assistant
    displayName: "{{workspace.displayName}} Assistant"
    model:
      provider: openai
      modelId: gpt-4o-mini # cost-controlled for SaaS
    systemPromptTemplate: |
      You are the AI assistant for {{workspace.displayName}}.
      You only have access to data within this workspace.
      Never reference other customers or other workspaces.
    budget:
      maxTokensPerTurn: 4000
      maxCostUsdPerMonth: "{{workspace.limits.maxCostUsdPerMonth}}"
    permissions:
      workspaceId: "{{workspace.id}}" # hard-scoped to tenant workspace
"#;

    #[test]
    fn the_guides_template_is_stored_as_agreed() {
        insta::assert_json_snapshot!(parse(GUIDE, false).unwrap());
    }

    #[test]
    fn json_is_yaml_too() {
        let json = r#"{"agents":[{"id":"a","displayName":"A","model":{"provider":"local","modelId":"echo-1"},"systemPromptTemplate":"Hi.","budget":{"maxCostUsdPerMonth":0.1}}]}"#;
        let agents = parse(json, false).unwrap();
        assert_eq!(serde_json::to_value(&agents[0].budget).unwrap(), serde_json::json!({ "maxCostUsdPerMonth": { "nano": 100_000_000 } }));
        assert!(parse("agents: []", false).unwrap().is_empty());
    }

    #[test]
    fn a_number_is_read_as_it_is_written() {
        for text in ["8999999.123456789", "\"8999999.123456789\""] {
            let yaml = GUIDE.replace("\"{{workspace.limits.maxCostUsdPerMonth}}\"", text);
            let agents = parse(&yaml, false).unwrap();
            let budget = serde_json::to_string(&agents[0].budget).unwrap();
            assert_eq!(budget, r#"{"maxTokensPerTurn":4000,"maxCostUsdPerMonth":{"nano":8999999123456789}}"#);
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let edits = [
            ("id: assistant", "id: \"\""),
            ("id: assistant", "id: \"a b\""),
            ("- id: assistant\n    displayName", "- displayName"),
            ("openai", "workers-ai"),
            ("modelId: gpt-4o-mini", "modelID: gpt-4o-mini"),
            ("modelId: gpt-4o-mini", "modelId: gpt-4o-mini\n      endpoint: http://models.example.com"),
            ("{{workspace.displayName}} Assistant", "{{workspace.displayname}} Assistant"),
            ("Never reference", "{{ tenant.name }} Never reference"),
            ("Never reference", "{% if %} Never reference"),
            ("4000", "0"),
            ("4000", "lots"),
            ("{{workspace.limits.maxCostUsdPerMonth}}", "{{workspace.limits.maxAgents}}"),
            ("{{workspace.limits.maxCostUsdPerMonth}}", "-1"),
            ("{{workspace.id}}", "customer-evil"),
            ("budget:", "budgets:"),
            ("budget:\n      maxTokensPerTurn: 4000\n      maxCostUsdPerMonth: \"{{workspace.limits.maxCostUsdPerMonth}}\"", "budget:"),
            ("agents:", "agent:"),
            ("agents:", "agents: ["),
            ("    model:", "\tmodel:"),
            ("displayName: \"{{workspace.displayName}} Assistant\"", "displayName: [1, 2]"),
        ];
        let refused: Vec<_> = edits
            .iter()
            .map(|(from, to)| {
                assert!(GUIDE.contains(from), "{from}");
                let problem = parse(&GUIDE.replacen(from, to, 1), true).unwrap_err();
                assert_eq!(problem.code, astra_kernel::Code::Unprocessable);
                format!("{to:?} -> {}", problem.detail)
            })
            .collect();
        insta::assert_snapshot!(refused.join("\n"));
    }

    #[test]
    fn ids_are_unique() {
        let agent = GUIDE.split_once("agents:\n").unwrap().1;
        let problem = parse(&format!("agents:\n{agent}{agent}"), false).unwrap_err();
        assert_eq!(problem.errors[0].pointer, "/agents/1/id");
    }

    #[test]
    fn bombs_are_refused() {
        let laughs: Vec<_> =
            (1..9).map(|n| format!("  l{n}: &l{n} [*l{0}, *l{0}, *l{0}, *l{0}, *l{0}, *l{0}, *l{0}, *l{0}, *l{0}]\n", n - 1)).collect();
        for yaml in [
            format!("x:\n  l0: &l0 [lol]\n{}agents: *l8\n", laughs.concat()),
            format!("agents: {}{}", "[".repeat(5_000), "]".repeat(5_000)),
            format!("agents: [{}]", "{},".repeat(60_000)),
            "agents: []\n---\nagents: []\n".to_owned(),
            String::new(),
            "\u{feff}".to_owned(),
            "agents: []\0".to_owned(),
            "agents: !!binary AAAA".to_owned(),
        ] {
            let problem = parse(&yaml, false).unwrap_err();
            assert_eq!(problem.code, astra_kernel::Code::Unprocessable);
            assert!(problem.detail.len() < 400, "{}", problem.detail);
        }
    }
}
