//! astra-edge: a customer is a workspace with a plan and an agent of its own; a request is a turn.

use crate::mock::{MODEL, NANO_PER_WORD};
use crate::target::{Customer, Target};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// The model under a name whose price row says `holdsMaximum`.
const HELD: &str = "conformance-held-1";

/// A stack of astra-edge, as `scripts/stack env` tells of it.
#[derive(Debug, Clone)]
pub struct Astra {
    /// The column's title.
    pub name: String,
    /// Its processes' addresses.
    pub doors: Vec<String>,
    /// The deployment's signing key, `kid:base64url`.
    pub token_keys: String,
    /// The path of `scripts/stack`.
    pub stack: String,
    /// `HOLD_LEASE_SECONDS`.
    pub lease: Duration,
    /// The model's base URL.
    pub model: String,
    /// Turns hold their whole maximum.
    pub holds_maximum: bool,
}

impl Astra {
    /// The stack of this environment.
    ///
    /// # Errors
    /// When a variable is missing, by its name.
    pub fn from_environment(model: String) -> Result<Self, String> {
        let read = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set: eval \"$(scripts/stack env)\""));
        let mut doors = vec![read("ASTRA_URL")?.trim_end_matches('/').to_owned()];
        doors.extend(read("ASTRA_SECOND_URL").ok());
        let lease = read("HOLD_LEASE_SECONDS")?.parse().map_err(|_| "HOLD_LEASE_SECONDS is not a number".to_owned())?;
        let name = format!("astra-edge ({})", read("ASTRA_HOST")?);
        Ok(Self {
            name,
            doors,
            token_keys: read("ASTRA_TOKEN_KEYS")?,
            stack: read("ASTRA_STACK")?,
            lease: Duration::from_secs(lease),
            model,
            holds_maximum: false,
        })
    }

    /// The same with the switch of price rows that has turns hold their whole maximum.
    #[must_use]
    pub fn holding_maximum(&self) -> Self {
        Self { name: format!("{}, `holdsMaximum`", self.name), holds_maximum: true, ..self.clone() }
    }

    /// Gives the model its prices; once, before all else.
    pub async fn prepare(&self, http: &Client) {
        for (model, holds_maximum) in [(MODEL, false), (HELD, true)] {
            let price = json!({ "provider": "openai", "model": model, "inputUsdPerMtok": 1, "cachedInputUsdPerMtok": 1,
                "outputUsdPerMtok": NANO_PER_WORD / 1000, "holdsMaximum": holds_maximum, "validFrom": "2026-01-01T00:00:00Z" });
            let stored = self.operate(http, Method::PUT, "/billing/prices", "application/json", price.to_string()).await;
            stored.unwrap_or_else(|refused| panic!("{refused}"));
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let (kid, secret) = self.token_keys.split(',').next().and_then(|key| key.split_once(':')).expect("TOKEN_KEYS is kid:base64url");
        let secret = BASE64_URL_SAFE_NO_PAD.decode(secret.trim_end_matches('=')).expect("the secret is base64url");
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let mut all = json!({ "jti": uuid::Uuid::new_v4(), "iat": now, "exp": now + 3000, "iss": "astra-edge", "aud": "astra-edge" });
        for (name, value) in claims.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &all, &EncodingKey::from_secret(&secret)).expect("claims are signed")
    }

    async fn operate(&self, http: &Client, method: Method, path: &str, content_type: &str, body: String) -> Result<Value, String> {
        let token = self.sign(&json!({ "sub": "operator@conformance", "role": "operator" }));
        self.call(http, method, path, content_type, body, &token).await
    }

    async fn call(
        &self,
        http: &Client,
        method: Method,
        path: &str,
        content_type: &str,
        body: String,
        token: &str,
    ) -> Result<Value, String> {
        let request = http.request(method, format!("{}{path}", self.doors[0])).bearer_auth(token).header("content-type", content_type);
        let response = request.body(body).send().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        if status.is_success() { Ok(serde_json::from_str(&text).unwrap_or_default()) } else { Err(format!("{path}: {status} {text}")) }
    }

    async fn stack(&self, command: &str) {
        let run = tokio::process::Command::new(&self.stack).args([command, "functions"]).stdin(std::process::Stdio::null()).output().await;
        assert!(run.as_ref().is_ok_and(|output| output.status.success()), "scripts/stack {command} functions: {run:?}");
    }
}

impl Target for Astra {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn doors(&self) -> Vec<String> {
        self.doors.clone()
    }

    fn plays(&self, scenario: &str) -> bool {
        // The switch is about what is held.
        !self.holds_maximum || ["overshoot", "overshoot-two", "refusals", "first"].contains(&scenario)
    }

    fn lease(&self) -> Duration {
        // Who has died is looked for every ten seconds.
        self.lease + Duration::from_secs(12)
    }

    async fn customer(&self, http: &Client, limit: i64, max_tokens: i64, model: &'static str) -> Result<Customer, String> {
        let mut customer = Customer::new("", max_tokens, model);
        let id = customer.id.clone();
        customer.token = self.sign(&json!({ "sub": "member@conformance", "role": "owner", "ws": id }));
        let workspace = json!({ "id": id, "displayName": id, "plan": id, "ownerId": "member@conformance", "limits": { "maxCostUsdPerMonth": usd(limit) } });
        self.operate(http, Method::POST, "/workspaces", "application/json", workspace.to_string()).await?;
        let model = if self.holds_maximum && model == MODEL { HELD } else { model };
        let agent = json!({ "id": "assistant", "displayName": "Assistant", "systemPromptTemplate": "You are an assistant.",
            "model": { "provider": "openai", "modelId": model, "endpoint": self.model, "maxOutputTokens": max_tokens } });
        self.operate(http, Method::PUT, &format!("/plans/{id}/template"), "application/yaml", json!({ "agents": [agent] }).to_string())
            .await?;
        let secret = json!({ "value": "sk-conformance" }).to_string();
        let path = format!("/workspaces/{id}/secrets/OPENAI_API_KEY");
        self.call(http, Method::PUT, &path, "application/json", secret, &customer.token).await?;
        Ok(customer)
    }

    async fn limit(&self, http: &Client, customer: &Customer, limit: i64) {
        let body = json!({ "limits": { "maxCostUsdPerMonth": usd(limit) } }).to_string();
        let changed = self.operate(http, Method::PATCH, &format!("/workspaces/{}", customer.id), "application/json", body).await;
        changed.unwrap_or_else(|refused| panic!("{refused}"));
    }

    async fn taken(&self, http: &Client, customer: &Customer) -> i64 {
        let path = format!("/workspaces/{}/quota", customer.id);
        let quota = http.get(format!("{}{path}", self.doors[0])).bearer_auth(&customer.token).send().await;
        let quota = quota.unwrap_or_else(|error| panic!("{path}: {error:?}")).text().await.unwrap_or_default();
        let quota: Value = serde_json::from_str(&quota).unwrap_or_default();
        let window = quota["windows"].as_array().and_then(|all| all.iter().find(|window| window["limit"] == "maxCostUsdPerMonth"));
        let number = |name: &str| window.and_then(|window| window[name].as_i64()).unwrap_or_else(|| panic!("{path}: no {name}: {quota}"));
        number("used") + number("held")
    }

    async fn crash(&self, http: &Client) {
        self.stack("restart").await;
        for _ in 0..100 {
            let health = http.get(format!("{}/healthz", self.doors[0])).send().await;
            if health.is_ok_and(|health| health.status() == StatusCode::OK) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it does not come back");
    }

    fn request(&self, http: &Client, door: &str, customer: &Customer, message: &str, streamed: bool) -> RequestBuilder {
        let body = json!({ "agentId": "assistant", "message": message }).to_string();
        let request = http
            .post(format!("{door}/workspaces/{}/turns", customer.id))
            .bearer_auth(&customer.token)
            .header("content-type", "application/json");
        let request = if streamed { request.header("accept", "text/event-stream") } else { request };
        request.body(body)
    }
}

fn usd(nano: i64) -> Value {
    serde_json::from_str(&format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)).expect("a number")
}
