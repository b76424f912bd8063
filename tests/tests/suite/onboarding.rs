//! The guide from its first step to its last, with its own texts.

use astra_tests::{Api, Db, guide};
use http::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn the_guide_works_from_first_to_last_step() {
    let operator = Api::operator();
    // Left over from an earlier run on the same stack.
    let before = operator.delete("/workspaces/customer-acme").await;
    assert!([204, 404].contains(&before.status), "{before:?}");

    // 1. Create the workspace: the body as printed.
    let create = async || operator.request(Method::POST, "/workspaces").body("application/json", guide::WORKSPACE_BODY).send().await;
    let workspace = create().await.ok(201);
    for (member, value) in
        [("id", "customer-acme"), ("displayName", "ACME Corp"), ("plan", "pro"), ("ownerId", "user_acme_admin"), ("status", "active")]
    {
        assert_eq!(workspace[member], value, "{workspace}");
    }
    assert_eq!(workspace["limits"]["maxAgents"], 10, "{workspace}");
    assert_eq!(workspace["limits"]["maxTokensPerMonth"], 5_000_000, "{workspace}");
    assert_eq!(workspace["limits"]["maxCostUsdPerMonth"].as_f64(), Some(50.0), "{workspace}");
    assert_eq!(create().await.ok(200)["createdAt"], workspace["createdAt"], "the same body again is the same workspace");
    what_creation_provisions().await;

    // 2. The admin user, and a token for them.
    let members = operator.get("/workspaces/customer-acme/members").await.ok(200);
    let owner = members["data"].as_array().unwrap().iter().find(|m| m["userId"] == "user_acme_admin").expect("the owner is a member");
    assert_eq!(owner["role"], "owner");
    let body = json!({ "subject": "user_acme_admin", "role": "owner" });
    let token = operator.post("/workspaces/customer-acme/tokens", &body).await.ok(201);
    assert_eq!(token["tokenType"], "Bearer");
    let admin = operator.with_token(token["token"].as_str().unwrap());

    // 3. The plan's template: astra.yml as printed.
    let put = operator.request(Method::PUT, "/plans/pro/template").body("application/yaml", guide::ASTRA_YML).send().await.ok(200);
    assert_eq!(put["plan"], "pro");
    assert_eq!(put["agents"], json!(["assistant"]));
    assert!(put["version"].as_i64().is_some_and(|v| v >= 1), "{put}");
    let agents = admin.get("/workspaces/customer-acme/agents").await.ok(200);
    assert!(agents.to_string().contains("assistant"), "{agents}");

    // Last. The smoke test, then a turn of the admin's own.
    let smoke = admin.post("/workspaces/customer-acme/smoke-test", &json!({ "agentId": "assistant" })).await.ok(200);
    assert_eq!(smoke["ok"], true, "{smoke}");
    let steps: Vec<_> = smoke["steps"].as_array().unwrap().iter().map(|step| (step["name"].as_str().unwrap(), &step["ok"])).collect();
    assert!(steps.contains(&("turn", &json!(true))) && steps.contains(&("memory.write", &json!(true))), "{smoke}");
    let turn = json!({ "agentId": "assistant", "message": "What can you do for me?" });
    let answer = admin.post("/workspaces/customer-acme/turns", &turn).await.ok(200);
    assert!(answer["content"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
    assert_eq!(answer["finishReason"], "stop", "{answer}");

    the_printed_sql_equals_the_api(&operator, "customer-acme").await;
}

/// "Workspace creation automatically provisions": memory namespace, default admin, quota row.
async fn what_creation_provisions() {
    let db = Db::connect().await;
    let schema = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'mem_' || $1 AND column_name = 'embedding'";
    assert_eq!(db.number(schema, &["customer-acme"]).await, 2, "vector tables of memories and of documents in the memory's schema");
    assert_eq!(db.number("SELECT count(*) FROM quotas WHERE workspace_id = $1", &["customer-acme"]).await, 1);
    assert_eq!(db.number("SELECT count(*) FROM members WHERE workspace_id = $1", &["customer-acme"]).await, 1);
}

/// The guide's query, character for character, beside `GET /billing/costs`. Other tests are at work in other workspaces, so what is compared
/// are the rows that were the same before and after the API was asked.
async fn the_printed_sql_equals_the_api(operator: &Api, must_be_there: &str) {
    let db = Db::connect().await;
    let before = db.as_printed(guide::BILLING_SQL).await;
    let api = all_costs(operator).await;
    // As the operator's role in the database, which a person would use, it gives the same.
    db.run("SET ROLE astra_operator").await;
    let after = db.as_printed(guide::BILLING_SQL).await;
    let steady: Vec<_> = before.iter().filter(|row| after.contains(row)).collect();
    let value = |row: &[(String, Option<String>)], name: &str| {
        let cell = row.iter().find(|(column, _)| column == name).unwrap_or_else(|| panic!("no column {name}"));
        cell.1.clone().unwrap_or_default()
    };
    assert!(steady.iter().any(|row| value(row, "workspace_id") == must_be_there), "{must_be_there} is in {steady:?}");
    for row in steady {
        let id = value(row, "workspace_id");
        let found = api.iter().find(|line| line["workspaceId"] == id.as_str()).unwrap_or_else(|| panic!("{id} is not in /billing/costs"));
        assert_eq!(found["displayName"], value(row, "display_name").as_str());
        assert_eq!(found["totalTokens"].to_string(), value(row, "total_tokens"), "{found}");
        assert_eq!(found["sessions"].to_string(), value(row, "sessions"), "{found}");
        assert_eq!(found["totalCostNanoUsd"].as_i64().unwrap(), nano(&value(row, "total_cost_usd")), "{found}");
    }
}

/// Dollars with nine decimals, as Postgres prints them, in nano-dollars.
fn nano(usd: &str) -> i64 {
    let (whole, fraction) = usd.split_once('.').unwrap_or((usd, ""));
    format!("{whole}{fraction:0<9}").parse().expect("a sum of dollars")
}

async fn all_costs(operator: &Api) -> Vec<Value> {
    let (mut rows, mut path) = (Vec::new(), "/billing/costs?limit=200".to_owned());
    loop {
        let page = operator.get(&path).await.ok(200);
        rows.extend(page["data"].as_array().expect("data").clone());
        match page["nextCursor"].as_str() {
            Some(next) => path = format!("/billing/costs?limit=200&after={next}"),
            None => return rows,
        }
    }
}
