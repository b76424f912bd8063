//! A workspace of a test's own, with a plan of its own.

use crate::{Api, Reply, Stream, canary, jwt, template};
use serde_json::{Value, json};

/// A short name that no other test has.
pub fn unique(prefix: &str) -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}-{}", &id[..16])
}

/// A workspace and its callers.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// Its id.
    pub id: String,
    /// Its plan.
    pub plan: String,
    /// The operator.
    pub operator: Api,
    /// Its owner, `owner@test`.
    pub owner: Api,
    /// One of its members, `member@test`.
    pub member: Api,
}

impl Workspace {
    /// A workspace with room for everything whose one agent, `assistant`, is on the `local` model.
    pub async fn local() -> Self {
        Self::with(&roomy(), &[template::local("assistant")]).await
    }

    /// A workspace with room for everything whose agent `assistant` is on a model server of the tests, spoken to as `OpenAI`, with a key.
    pub async fn openai(endpoint: &str) -> Self {
        Self::openai_with(endpoint, &roomy()).await
    }

    /// The same with limits.
    pub async fn openai_with(endpoint: &str, limits: &Value) -> Self {
        let workspace = Self::with(limits, &[template::openai("assistant", endpoint)]).await;
        workspace.put_secret("OPENAI_API_KEY", &canary::key()).await;
        workspace
    }

    /// A workspace with limits and a template of these agents.
    pub async fn with(limits: &Value, agents: &[Value]) -> Self {
        let workspace = Self::named(&unique("t"), limits).await;
        workspace.put_template(agents).await;
        workspace
    }

    /// A workspace of this id under a plan that has no template yet.
    pub async fn named(id: &str, limits: &Value) -> Self {
        let (operator, plan) = (Api::operator(), unique("plan"));
        let body = json!({ "id": id, "displayName": format!("Test {id}"), "plan": plan, "ownerId": "owner@test", "limits": limits });
        operator.post("/workspaces", &body).await.ok(201);
        operator.put(&format!("/workspaces/{id}/members/member@test"), &json!({ "role": "member" })).await.ok(200);
        Self { id: id.to_owned(), plan, operator, owner: caller(id, "owner@test", "owner"), member: caller(id, "member@test", "member") }
    }

    /// Somebody with a token that says this role; whether they are a member is not looked at.
    pub fn bearer(&self, subject: &str, role: &str) -> Api {
        caller(&self.id, subject, role)
    }

    /// A member with a role here.
    pub async fn user(&self, subject: &str, role: &str) -> Api {
        self.operator.put(&self.path(&format!("/members/{subject}")), &json!({ "role": role })).await.ok(200);
        caller(&self.id, subject, role)
    }

    /// A path within the workspace.
    pub fn path(&self, rest: &str) -> String {
        format!("/workspaces/{}{rest}", self.id)
    }

    /// Sets the plan's template.
    pub async fn put_template(&self, agents: &[Value]) {
        self.try_put_template(&template::of(agents)).await.ok(200);
    }

    /// What is said is not remembered: for tests that compare everything that is stored.
    pub async fn no_extraction(&self) {
        self.operator.put(&format!("/plans/{}", self.plan), &json!({ "carryOver": false, "extraction": "off" })).await.ok(200);
    }

    /// Sends a template as it is.
    pub async fn try_put_template(&self, yaml: &str) -> Reply {
        let path = format!("/plans/{}/template", self.plan);
        self.operator.request(http::Method::PUT, &path).body("application/yaml", yaml.to_owned()).send().await
    }

    /// Sets a secret.
    pub async fn put_secret(&self, name: &str, value: &str) {
        let _ = self.owner.put(&self.path(&format!("/secrets/{name}")), &json!({ "value": value })).await.expect(204);
    }

    /// Changes limits, as the operator.
    pub async fn patch_limits(&self, limits: &Value) -> Value {
        self.operator.patch(&self.path(""), &json!({ "limits": limits })).await.ok(200)
    }

    /// The body of a turn with the agent `assistant`. The message carries the canary.
    pub fn turn_body(message: &str) -> Value {
        json!({ "agentId": "assistant", "message": canary::message(message) })
    }

    /// A turn of the member with the agent `assistant`, answered by JSON.
    pub async fn turn(&self, message: &str) -> Reply {
        self.member.post(&self.path("/turns"), &Self::turn_body(message)).await
    }

    /// A turn in a session.
    pub async fn turn_in(&self, session: &Value, message: &str) -> Reply {
        let mut body = Self::turn_body(message);
        body["sessionId"] = session.clone();
        self.member.post(&self.path("/turns"), &body).await
    }

    /// A turn of the member with the agent `assistant`, answered by SSE.
    pub async fn stream(&self, message: &str) -> Stream {
        Stream::open(&self.member, &self.path("/turns"), &Self::turn_body(message)).await
    }

    /// The windows of the workspace's quota.
    pub async fn quota(&self) -> Vec<Value> {
        let quota = self.owner.get(&self.path("/quota")).await.ok(200);
        quota["windows"].as_array().expect("quota has windows").clone()
    }

    /// The window of one limit of the workspace itself.
    pub async fn window(&self, limit: &str) -> Value {
        let windows = self.quota().await;
        let found = windows.iter().find(|w| w["limit"] == limit && is_workspace_scope(w));
        found.unwrap_or_else(|| panic!("no window of {limit} in {windows:?}")).clone()
    }

    /// What is held by turns that run, over all windows: 0 when none does. The workspace must have a limit, or nothing is shown.
    pub async fn held(&self) -> i64 {
        let windows = self.quota().await;
        assert!(!windows.is_empty(), "a workspace without limits shows no holds");
        windows.iter().map(|w| w["held"].as_i64().expect("held is a number")).sum()
    }
}

/// Limits that no test reaches by accident. Without any, the quota has no windows to look at.
pub fn roomy() -> Value {
    json!({ "maxCostUsdPerMonth": 1000, "maxTokensPerMonth": 1_000_000_000 })
}

fn caller(workspace: &str, subject: &str, role: &str) -> Api {
    Api::anonymous().with_token(jwt::member(workspace, subject, role))
}

/// Whether a quota window is the workspace's, not an agent's.
pub fn is_workspace_scope(window: &Value) -> bool {
    window["scope"].as_str().is_none_or(|scope| scope.starts_with("workspace"))
}
