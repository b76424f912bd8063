//! Agent templates for tests, built as data: YAML reads JSON.

use serde_json::{Value, json};

/// An agent on the `local` model.
pub fn local(id: &str) -> Value {
    json!({
        "id": id,
        "displayName": "{{workspace.displayName}} Assistant",
        "model": { "provider": "local", "modelId": "echo-1" },
        "systemPromptTemplate": "You are the assistant of {{workspace.displayName}}.",
    })
}

/// An agent on a model server of the tests, spoken to as `OpenAI`.
pub fn openai(id: &str, endpoint: &str) -> Value {
    let mut agent = local(id);
    agent["model"] = json!({ "provider": "openai", "modelId": "gpt-4o-mini", "endpoint": endpoint });
    agent
}

/// An agent on a model server of the tests, spoken to as Anthropic.
pub fn anthropic(id: &str, endpoint: &str) -> Value {
    let mut agent = local(id);
    agent["model"] = json!({ "provider": "anthropic", "modelId": "claude-haiku-4-5-20251001", "endpoint": endpoint });
    agent
}

/// A template of these agents.
pub fn of(agents: &[Value]) -> String {
    json!({ "agents": agents }).to_string()
}
