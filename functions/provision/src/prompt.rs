//! Prompt and name templates: checked when they are uploaded, so that a turn does not find out.
//!
//! A template may name only what [`names`] lists; it is compiled, its variables are compared with the list, and it is rendered twice, with and without
//! memories, in the same bare and strict environment that turns have: no filters, no functions. What remains for a turn to find out is a limit
//! that a workspace does not have. Values are data: nothing of a workspace is ever compiled. Fuel bounds steps and bytes.

use astra_kernel::Limits;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use std::collections::BTreeSet;

/// How many steps a template may take: as many as in a turn.
const FUEL: u64 = 20_000;

/// What a template sees.
#[derive(Debug, Serialize)]
pub(crate) struct Names<'a> {
    pub(crate) workspace: WorkspaceNames<'a>,
    pub(crate) agent: Id<'a>,
    pub(crate) user: Id<'a>,
    pub(crate) memories: &'a [&'a str],
}

/// `workspace`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkspaceNames<'a> {
    pub(crate) id: &'a str,
    pub(crate) display_name: &'a str,
    pub(crate) plan: &'a str,
    pub(crate) owner_id: &'a str,
    pub(crate) limits: LimitNames,
}

#[derive(Debug, Serialize)]
pub(crate) struct Id<'a> {
    pub(crate) id: &'a str,
}

/// `workspace.limits`: one that is not set is not there.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the API's names")]
pub(crate) struct LimitNames {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_agents: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens_per_month: Option<i64>,
    /// Dollars as text: a number would be a float.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost_usd_per_month: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_turns_per_minute: Option<i64>,
}

impl From<Limits> for LimitNames {
    fn from(limits: Limits) -> Self {
        let Limits { max_agents, max_tokens_per_month, max_cost_nano_usd_per_month, max_turns_per_minute, .. } = limits;
        let max_cost_usd_per_month = max_cost_nano_usd_per_month.map(astra_kernel::NanoUsd::to_usd_text);
        Self { max_agents, max_tokens_per_month, max_cost_usd_per_month, max_turns_per_minute }
    }
}

/// Every name, with some value.
fn sample(memories: &'static [&'static str]) -> Names<'static> {
    let limits = LimitNames {
        max_agents: Some(1),
        max_tokens_per_month: Some(1),
        max_cost_usd_per_month: Some("1.00".to_owned()),
        max_turns_per_minute: Some(1),
    };
    let workspace = WorkspaceNames { id: "sample", display_name: "Sample", plan: "sample", owner_id: "sample", limits };
    Names { workspace, agent: Id { id: "sample" }, user: Id { id: "sample" }, memories }
}

/// The names that a template may use, dotted; `memories` is a list of texts.
pub(crate) fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(&Value::from(Serde(sample(&[]))), "", &mut names);
    names
}

fn collect(value: &Value, name: &str, names: &mut BTreeSet<String>) {
    if value.kind() != ValueKind::Map {
        names.insert(name.to_owned());
        return;
    }
    for member in value.try_iter().into_iter().flatten() {
        let value = value.get_item(&member).unwrap_or_default();
        collect(&value, &if name.is_empty() { member.to_string() } else { format!("{name}.{member}") }, names);
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment
}

/// Checks a template.
///
/// # Errors
/// What does not fit, naming it.
pub(crate) fn check(source: &str) -> Result<(), String> {
    let environment = environment();
    let template = environment.template_from_str(source).map_err(|error| describe(&error))?;
    let known = names();
    let unknown = template.undeclared_variables(true).into_iter().filter(|name| !known.contains(name)).min();
    if let Some(name) = unknown {
        let known: Vec<_> = known.into_iter().collect();
        return Err(format!("there is no variable {name}; there are {}", known.join(", ")));
    }
    template.render(Serde(sample(&["A memory."]))).map_err(|error| describe(&error))?;
    template.render(Serde(sample(&[]))).map_err(|error| format!("where nothing is remembered: {}", describe(&error)))?;
    Ok(())
}

/// Renders a template that was checked when it was stored; what fails nevertheless is shown as it stands.
pub(crate) fn render_or_source(source: &str, names: &Names<'_>) -> String {
    environment().render_str(source, Serde(names)).unwrap_or_else(|_| source.to_owned())
}

fn describe(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    error.line().map_or_else(|| what.clone(), |line| format!("line {line}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_pass() {
        for source in [
            "plain",
            "{{workspace.displayName}} Assistant",
            "{{ workspace.id }}{{ workspace.plan }}{{ workspace.ownerId }}{{ agent.id }}{{ user.id }}",
            "{{ workspace.limits.maxAgents + 1 }} {{ workspace.limits.maxCostUsdPerMonth }}",
            "{% for m in memories %}- {{ m }} ({{ loop.index }})\n{% else %}none{% endfor %}",
            "{% if memories %}{{ memories[0] }}{% endif %}",
            "{% set name = workspace.displayName %}{{ name ~ '!' }}",
            "{# a comment #}{{ '{{' }}",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refused: Vec<_> = [
            "{{ workspace.dislpayName }}",
            "{{ workspace }}",
            "{{ workspace['id'] }}",
            "{{ workspace.id.x }}",
            "{{ secrets.OPENAI_API_KEY }}",
            "{{ debug() }}",
            "{{ now }}",
            "{{ agent.id | upper }}",
            "{% if agent.id is defined %}x{% endif %}",
            "{{ memories[3] }}",
            "{{ memories[0] }}",
            "{{ workspace.limits.maxFoo }}",
            "{{ unclosed",
            "{% include 'x' %}",
            "{% for i in range(3) %}{{ i }}{% endfor %}",
            "{% for a in 'x' * 9999 %}{% for b in 'x' * 9999 %}{% endfor %}{% endfor %}",
            "{{ 'x' * 90000000 }}",
        ]
        .map(|source| format!("{source} -> {}", check(source).unwrap_err()))
        .into();
        insta::assert_snapshot!(refused.join("\n"));
    }

    #[test]
    fn values_are_data() {
        let mut names = sample(&[]);
        names.workspace.display_name = "{{ workspace.id }}<b>";
        assert_eq!(render_or_source("{{workspace.displayName}}!", &names), "{{ workspace.id }}<b>!");
    }
}
