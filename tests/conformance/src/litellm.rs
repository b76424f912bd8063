//! `LiteLLM`'s proxy: a customer is a key with a `max_budget`. Its processes are started here, one Redis beside them, as its documentation has it for more than
//! one instance.
//!
//! Keys of its database need an engine that is in no package registry, so they come from a custom auth (`custom_auth.py`), with `custom_auth_run_common_checks`
//! on: the proxy checks, reserves and counts such a key's budget as it does those of its database. What a restart leaves is what Redis has.

use crate::mock::{MODEL, NANO_PER_INPUT, NANO_PER_WORD, UNPRICED};
use crate::target::{Customer, Target};
use reqwest::Client;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// Upstream calls end after so many seconds.
const TIMEOUT: u64 = 8;

/// `LiteLLM`'s processes and their Redis. They end with this.
#[derive(Debug)]
pub struct LiteLlm {
    program: PathBuf,
    work: PathBuf,
    ports: Vec<u16>,
    redis: u16,
    name: String,
    processes: Mutex<Vec<Child>>,
    /// It ends with this, by `kill_on_drop`.
    _redis: Child,
}

impl LiteLlm {
    /// Starts two processes on `port` and the next, and Redis on the one after, in a folder of their own.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn start(program: &Path, redis_server: &Path, work: &Path, port: u16, model: &str) -> Result<Self, String> {
        let wrong = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        let _ = std::fs::remove_dir_all(work);
        std::fs::create_dir_all(work.join("budgets")).map_err(wrong("a folder for budgets"))?;
        std::fs::write(work.join("custom_auth.py"), include_str!("custom_auth.py")).map_err(wrong("custom_auth.py"))?;
        let redis = port + 2;
        let deployment = |name: &str, price: serde_json::Value| {
            let mut params = json!({ "model": format!("openai/{name}"), "api_base": model, "api_key": "sk-conformance", "timeout": TIMEOUT, "stream_timeout": TIMEOUT });
            for (name, value) in price.as_object().into_iter().flatten() {
                params[name] = value.clone();
            }
            json!({ "model_name": name, "litellm_params": params })
        };
        #[expect(clippy::cast_precision_loss, reason = "prices are small")]
        let per_token = |nano: i64| nano as f64 / 1e9;
        let price = json!({ "input_cost_per_token": per_token(NANO_PER_INPUT), "output_cost_per_token": per_token(NANO_PER_WORD) });
        // YAML reads JSON.
        let config = json!({
            "model_list": [deployment(MODEL, price), deployment(UNPRICED, json!({}))],
            "litellm_settings": { "telemetry": false, "num_retries": 0, "budget_exceeded_status_code": 429 },
            "general_settings": { "custom_auth": "custom_auth.user_api_key_auth", "custom_auth_run_common_checks": true,
                "coordination_redis": { "host": "127.0.0.1", "port": redis } },
        });
        std::fs::write(work.join("config.yaml"), config.to_string()).map_err(wrong("config.yaml"))?;
        let mut cache = Command::new(redis_server);
        cache.args(["--bind", "127.0.0.1", "--port", &redis.to_string(), "--save", "", "--dir"]).arg(work);
        let cache = cache.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().map_err(wrong("redis-server"))?;
        let version =
            Command::new(program).arg("--version").env("LITELLM_LOCAL_MODEL_COST_MAP", "True").output().await.map_err(wrong("litellm"))?;
        let version = String::from_utf8_lossy(&version.stdout).trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let this = Self {
            program: program.to_owned(),
            work: work.to_owned(),
            ports: vec![port, port + 1],
            redis,
            name: format!("LiteLLM {version}"),
            processes: Mutex::default(),
            _redis: cache,
        };
        for port in &this.ports {
            let child = this.process(*port)?;
            this.processes.lock().await.push(child);
        }
        for port in &this.ports {
            this.ready(*port).await?;
        }
        Ok(this)
    }

    fn process(&self, port: u16) -> Result<Child, String> {
        let log = std::fs::File::options().create(true).append(true).open(self.work.join(format!("litellm-{port}.log")));
        let (out, err) = log.and_then(|log| Ok((log.try_clone()?, log))).map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.program);
        command.args([
            "--config",
            "config.yaml",
            "--host",
            "127.0.0.1",
            "--num_workers",
            "1",
            "--telemetry",
            "False",
            "--port",
            &port.to_string(),
        ]);
        command.current_dir(&self.work).env("CONFORMANCE_BUDGETS", self.work.join("budgets")).env("REDIS_PORT", self.redis.to_string());
        command.envs([
            ("LITELLM_LOG", "ERROR"),
            ("LITELLM_TELEMETRY", "False"),
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
            ("LITELLM_MODE", "PRODUCTION"),
        ]);
        command.env("LITELLM_MASTER_KEY", format!("sk-{}", uuid::Uuid::new_v4().simple()));
        command.stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true).spawn().map_err(|error| format!("litellm: {error}"))
    }

    async fn ready(&self, port: u16) -> Result<(), String> {
        // It imports for ten seconds and more.
        for _ in 0..900 {
            let alive = reqwest::get(format!("http://127.0.0.1:{port}/health/liveliness")).await;
            if alive.is_ok_and(|alive| alive.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("LiteLLM does not come up on port {port}; its log is in {}", self.work.display()))
    }

    fn write(&self, customer: &Customer, limit: i64) {
        let usd = format!("{}.{:09}", limit / 1_000_000_000, limit % 1_000_000_000);
        std::fs::write(self.work.join("budgets").join(&customer.id), usd).expect("a budget is written");
    }
}

impl Target for LiteLlm {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn doors(&self) -> Vec<String> {
        self.ports.iter().map(|port| format!("http://127.0.0.1:{port}/v1")).collect()
    }

    fn lease(&self) -> Duration {
        // Its counters live for a minute after they were last changed.
        Duration::from_secs(65)
    }

    async fn customer(&self, _: &Client, limit: i64, max_tokens: i64, model: &'static str) -> Result<Customer, String> {
        let mut customer = Customer::new("", max_tokens, model);
        customer.token = format!("sk-{}", customer.id);
        self.write(&customer, limit);
        Ok(customer)
    }

    async fn limit(&self, _: &Client, customer: &Customer, limit: i64) {
        self.write(customer, limit);
    }

    async fn taken(&self, http: &Client, customer: &Customer) -> i64 {
        let url = format!("{}/models", self.doors()[0]);
        let said =
            http.get(url).bearer_auth(format!("{}:taken", customer.token)).send().await.unwrap_or_else(|error| panic!("taken: {error:?}"));
        let said = said.text().await.unwrap_or_default();
        let usd = said.split_once("taken=").and_then(|(_, rest)| rest.split_once(';')).map(|(usd, _)| usd.replace('.', ""));
        usd.and_then(|nano| nano.parse().ok()).unwrap_or_else(|| panic!("what is taken: {said}"))
    }

    async fn crash(&self, _: &Client) {
        let mut processes = self.processes.lock().await;
        processes[0].kill().await.expect("it is killed");
        processes[0] = self.process(self.ports[0]).expect("it starts again");
        self.ready(self.ports[0]).await.expect("it comes back");
    }
}
