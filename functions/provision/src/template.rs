//! A plan's template: `astra.yml`, as the guide prints it, and beside its agents the guide's workspace/grants config.

use crate::definition::{AgentBody, Definition};
use astra_documents::config::WorkspaceConfig;
use astra_documents::yaml;
use astra_host::fields::present;
use astra_host::web::parse_json;
use astra_kernel::Problem;
use astra_kernel::permission::Rules;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// The largest template in bytes.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// How many roles a template has rules for at most.
const MAX_ROLES: usize = 100;

/// A plan's agents, and what roles may do in its workspaces.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
#[schema(as = AgentTemplate)]
pub(crate) struct TemplateBody {
    /// The agents, each under its own id.
    #[schema(value_type = Vec<NamedAgent>)]
    agents: Vec<AgentBody>,
    /// What roles may do in a workspace that has not said it itself.
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    workspace: Option<WorkspaceConfig>,
}

/// A template, as stored: the agents, and the rules of roles by their names.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Template {
    /// The agents.
    pub(crate) agents: Vec<Definition>,
    /// What roles may do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) roles: BTreeMap<String, Rules>,
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
pub(crate) fn parse(yaml: &str, allow_http: bool) -> Result<Template, Problem> {
    let TemplateBody { agents, workspace } = parse_json(yaml::to_json(yaml, 4 * MAX_BYTES)?.as_bytes())?;
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
    Ok(Template { agents: definitions, roles: roles(workspace)? })
}

/// What the template's config says of roles, each once.
fn roles(config: Option<WorkspaceConfig>) -> Result<BTreeMap<String, Rules>, Problem> {
    let mut rules = BTreeMap::new();
    let grants = config.map(|config| config.grants).unwrap_or_default();
    if grants.len() > MAX_ROLES {
        return Err(Problem::field("/workspace/grants", format!("at most {MAX_ROLES} roles")));
    }
    for (position, grants) in grants.into_iter().enumerate() {
        let at = format!("/workspace/grants/{position}");
        let (role, said) = grants.check(&at)?;
        if rules.insert(role.as_str().to_owned(), said).is_some() {
            return Err(Problem::field(format!("{at}/role"), format!("what {} may do is said twice", role.as_str())));
        }
    }
    Ok(rules)
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
        insta::assert_json_snapshot!(parse(GUIDE, false).unwrap().agents);
    }

    #[test]
    fn json_is_yaml_too() {
        let json = r#"{"agents":[{"id":"a","displayName":"A","model":{"provider":"local","modelId":"echo-1"},"systemPromptTemplate":"Hi.","budget":{"maxCostUsdPerMonth":0.1}}]}"#;
        let agents = parse(json, false).unwrap().agents;
        assert_eq!(serde_json::to_value(&agents[0].budget).unwrap(), serde_json::json!({ "maxCostUsdPerMonth": { "nano": 100_000_000 } }));
        assert!(parse("agents: []", false).unwrap().agents.is_empty());
    }

    #[test]
    fn a_number_is_read_as_it_is_written() {
        for text in ["8999999.123456789", "\"8999999.123456789\""] {
            let yaml = GUIDE.replace("\"{{workspace.limits.maxCostUsdPerMonth}}\"", text);
            let agents = parse(&yaml, false).unwrap().agents;
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

    const CONFIG: &str = include_str!("../../../tests/guide/grants.yml");

    #[test]
    fn the_guides_two_documents_in_one_are_stored_as_agreed() {
        let stored = serde_json::to_value(parse(&format!("{GUIDE}{CONFIG}"), false).unwrap()).unwrap();
        let member = serde_json::json!({
            "allow": ["memory:read", "memory:write", "agent:invoke"], "deny": ["memory:cross-workspace-read", "workspace:list"],
        });
        assert_eq!((&stored["roles"], &stored["agents"][0]["id"]), (&serde_json::json!({ "member": member }), &"assistant".into()));
        let without = serde_json::to_value(parse(GUIDE, false).unwrap()).unwrap();
        assert_eq!(without.get("roles"), None);
    }

    #[test]
    fn a_config_that_does_not_fit_is_named() {
        for (from, to, pointer) in [
            ("role: member", "role: operator", "/workspace/grants/0/role"),
            ("role: member", "role: Member", "/workspace/grants/0/role"),
            ("role: member", "role: owner", "/workspace/grants/0/allow"),
            ("memory:write", "memory:wriet", "/workspace/grants/0/allow/1"),
            ("workspace:list", "workspaces:list", "/workspace/grants/0/deny/1"),
            ("      deny:", "      refuse:", "/workspace/grants/0/refuse"),
            ("  grants:", "  roles:", "/workspace/roles"),
            ("workspace:\n", "workspace:\n  id: x\n", "/workspace/id"),
            ("    - role", "    - {role: member, allow: []}\n    - role", "/workspace/grants/1/role"),
        ] {
            assert!(CONFIG.contains(from), "{from}");
            let problem = parse(&format!("{GUIDE}{}", CONFIG.replacen(from, to, 1)), false).unwrap_err();
            assert_eq!(problem.errors[0].pointer, pointer, "{to}");
        }
        for config in ["workspace:\n", "workspace: {}\n"] {
            assert_eq!(parse(&format!("{GUIDE}{config}"), false).unwrap_err().code, astra_kernel::Code::Unprocessable, "{config}");
        }
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
