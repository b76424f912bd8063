//! The guide's own texts, character for character where a reader would copy them.

/// The body of `POST /workspaces`, as printed.
pub const WORKSPACE_BODY: &str = r#"{
"id": "customer-acme",
"displayName": "ACME Corp",
"plan": "pro",
"ownerId": "user_acme_admin",
"limits": {
"maxAgents": 10,
"maxTokensPerMonth": 5000000,
"maxCostUsdPerMonth": 50.00
}
}"#;

/// The agent template, as printed, with the indentation that YAML needs.
pub const ASTRA_YML: &str = r#"# astra.yml — agent template used for all tenant workspaces
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

/// The workspace/grants config, as printed, with the indentation that YAML needs.
pub const GRANTS_CONFIG: &str = include_str!("../guide/grants.yml");

/// The billing query, as printed.
pub const BILLING_SQL: &str = "-- Monthly cost per workspace for billing
SELECT
w.id AS workspace_id,
w.display_name,
SUM(t.cost_usd) AS total_cost_usd,
SUM(t.input_tokens + t.output_tokens) AS total_tokens,
COUNT(DISTINCT t.session_id) AS sessions
FROM turns t
JOIN workspaces w ON t.workspace_id = w.id
WHERE t.created_at >= date_trunc('month', now())
GROUP BY w.id, w.display_name
ORDER BY total_cost_usd DESC;";

/// The guide's body for another workspace and plan: only these two names differ, so that tests run side by side.
pub fn workspace_body(id: &str, plan: &str) -> String {
    WORKSPACE_BODY.replace("\"customer-acme\"", &format!("\"{id}\"")).replace("\"pro\"", &format!("\"{plan}\""))
}

/// The month in which the stack's database is, `YYYY-MM`, UTC.
pub async fn this_month() -> String {
    let rows = crate::Db::connect().await.rows("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM') AS month", &[]).await;
    rows[0]["month"].as_str().expect("a month").to_owned()
}
