//! A host on a real database, as the billing function's role, with a clock that is set, whoever is outside as a function, and a switch that kills a run at its n-th step outward.

use astra_host::outgoing::{Answered, NotAnswered, Outgoing};
use astra_host::{CounterUnreachable, Host, NotFetched, Shared};
use astra_kernel::jwk::PublicKey;
use astra_kernel::{Settings, TenantKeys, Timestamp, WorkspaceId};
use astra_quota::words::{Answer, Ask};
use astra_store::{Database, StoreError};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use tokio::sync::{Mutex as Turn, MutexGuard, Notify};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

/// 2026-01-28T12:00:00Z: long over, so that nothing of other tests is due.
pub(crate) const START: i64 = 1_769_601_600_000;

/// A proof must not have expired by the database's clock, which is not the tests': 2100.
const FAR: Timestamp = Timestamp(4_102_444_800_000);

const SECRETS_KEY: &str = "s1:HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4";

/// Who is outside: what they are sent, what they answer.
type Outside = Box<dyn FnMut(&Outgoing) -> Result<Answered, NotAnswered> + Send>;

/// What the counters answer.
type Counter = fn(&WorkspaceId, &Ask) -> Result<Answer, CounterUnreachable>;

/// The jobs' rows are the whole database's: one test after the other.
static ONE: LazyLock<Turn<()>> = LazyLock::new(Turn::default);

/// A process of the function. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Rig(Arc<Inner>);

struct Inner {
    shared: Shared,
    client: Client,
    clock: Arc<AtomicI64>,
    outside: Arc<Mutex<Outside>>,
    counter: Mutex<Counter>,
    random: AtomicU64,
    /// How many steps outward are left before it is killed; never when negative.
    left: AtomicI64,
    killed: Notify,
    logged: Mutex<Vec<String>>,
}

/// The database as its administrator sees it, and what several processes share.
pub(crate) struct World {
    pub(crate) admin: Client,
    pub(crate) clock: Arc<AtomicI64>,
    outside: Arc<Mutex<Outside>>,
    settings: HashMap<&'static str, &'static str>,
    _one: MutexGuard<'static, ()>,
}

struct Fixed(HashMap<&'static str, &'static str>);

impl Settings for Fixed {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).map(|value| (*value).to_owned())
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name}: see scripts/stack env"))
}

/// The proof that the database wants.
pub(crate) fn proof(workspace: &WorkspaceId) -> String {
    TenantKeys::parse(&variable("ASTRA_TENANT_KEYS")).unwrap().prove(workspace, "", FAR)
}

async fn connect(role: Option<&str>) -> Client {
    let (client, connection) = tokio_postgres::connect(&variable("ASTRA_ADMIN_DATABASE_URL"), NoTls).await.unwrap();
    tokio::spawn(async {
        let _ = connection.await;
    });
    if let Some(role) = role {
        client.batch_execute(&format!("SET ROLE {role}; SET jit = off; SET statement_timeout = '15s'")).await.unwrap();
    }
    client
}

pub(crate) fn answer(status: u16) -> Answered {
    Answered { status, body: String::new() }
}

impl World {
    /// A world with these further variables, in which no job has run yet and nobody is a customer of Stripe's.
    pub(crate) async fn new(settings: &[(&'static str, &'static str)]) -> Self {
        let one = ONE.lock().await;
        let admin = connect(None).await;
        admin
            .batch_execute("DELETE FROM billing_jobs; DELETE FROM stripe_customers; DELETE FROM stripe_events; DELETE FROM webhooks")
            .await
            .unwrap();
        let mut all = HashMap::from([("SECRETS_KEY", SECRETS_KEY)]);
        all.extend(settings.iter().copied());
        let outside: Outside = Box::new(|_| Err(NotAnswered::Unreachable));
        Self { admin, clock: Arc::new(AtomicI64::new(START)), outside: Arc::new(Mutex::new(outside)), settings: all, _one: one }
    }

    /// A process.
    pub(crate) async fn process(&self) -> Rig {
        let shared = Shared::new(Box::new(Fixed(self.settings.clone())));
        Rig(Arc::new(Inner {
            shared,
            client: connect(Some("astra_billing")).await,
            clock: Arc::clone(&self.clock),
            outside: Arc::clone(&self.outside),
            counter: Mutex::new(|_, _| Ok(Answer::Reconciled(Vec::new()))),
            random: AtomicU64::new(u64::from_be_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().unwrap())),
            left: AtomicI64::new(-1),
            killed: Notify::new(),
            logged: Mutex::default(),
        }))
    }

    /// Who is outside from now on.
    pub(crate) fn outside(&self, outside: impl FnMut(&Outgoing) -> Result<Answered, NotAnswered> + Send + 'static) {
        *self.outside.lock().unwrap() = Box::new(outside);
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    /// A new workspace.
    pub(crate) async fn workspace(&self) -> WorkspaceId {
        let id = format!("t-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let sql = format!(
            "INSERT INTO workspaces (id, display_name, plan, owner_id, limits, create_body, created_at, updated_at) VALUES ('{id}', '{id}', 'none', 'o', '{{}}', '{{}}', now(), now())"
        );
        self.admin.batch_execute(&sql).await.unwrap();
        id.try_into().unwrap()
    }

    /// Rows as JSON.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Value> {
        let row = self.admin.query_one(&format!("SELECT COALESCE(json_agg(to_jsonb(q)), '[]')::text FROM ({sql}) q"), &[]).await;
        serde_json::from_str(row.unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)).unwrap()
    }

    /// A mark of a limit was passed: what the counter writes down.
    pub(crate) async fn mark(&self, workspace: &WorkspaceId, mark: i32) {
        let at = Timestamp(self.now());
        let sql = format!(
            "BEGIN; SELECT astra.enter('{}'); INSERT INTO quota_events (workspace_id, starts_at, limit_name, scope, mark, max, used, at)
             VALUES ('{workspace}', '{at}', 'maxCostUsdPerMonth', 'workspace', {mark}, 100, {mark}, '{at}'); COMMIT",
            proof(workspace)
        );
        self.admin.batch_execute(&sql).await.unwrap();
    }

    /// An entry of the ledger, so many nano-dollars and tokens, written down now.
    pub(crate) async fn entry(&self, workspace: &WorkspaceId, nano: i64, tokens: i64) {
        let at = Timestamp(self.now());
        let kind = if nano < 0 { "credit" } else { "turn" };
        let cost = if nano < 0 { 0 } else { nano };
        let sql = format!(
            "BEGIN; SELECT astra.enter('{}');
             INSERT INTO ledger_heads (workspace_id, seq) VALUES ('{workspace}', 1) ON CONFLICT (workspace_id) DO UPDATE SET seq = ledger_heads.seq + 1;
             INSERT INTO ledger (workspace_id, seq, id, kind, turn_id, agent_id, user_id, session_id, provider, model, price_version, input_tokens, cached_input_tokens,
               output_tokens, reasoning_tokens, cost_usd, charge_usd, source, turn_started_at, created_at, reason, made_by, user_hash, prev_hash, hash)
             SELECT '{workspace}', h.seq, gen_random_uuid(), '{kind}', gen_random_uuid(), 'a', 'u', gen_random_uuid(), 'local', 'echo-1', 1, {tokens}, 0, 0, 0,
               {cost} * 0.000000001, {nano} * 0.000000001, 'provider', '{at}', '{at}', 'x', 'x', '', '', '' FROM ledger_heads h WHERE h.workspace_id = '{workspace}'; COMMIT",
            proof(workspace)
        );
        self.admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}"));
    }

    /// The rows of the jobs.
    pub(crate) async fn job(&self, name: &str) -> Value {
        let rows = self.rows(&format!("SELECT * FROM billing_jobs WHERE name = '{name}'")).await;
        rows.into_iter().next().unwrap_or_else(|| json!({}))
    }
}

impl Rig {
    /// From now on it is killed at its so manieth step outward.
    pub(crate) fn kill_after(&self, steps: i64) {
        self.0.left.store(steps, Ordering::Relaxed);
    }

    /// How many steps outward are left of those: what was not used up.
    pub(crate) fn left(&self) -> i64 {
        self.0.left.load(Ordering::Relaxed)
    }

    /// Does something unless it is killed at it: whether it was done.
    pub(crate) async fn alive<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.0.killed.notified() => None,
        }
    }

    pub(crate) fn counter(&self, counter: Counter) {
        *self.0.counter.lock().unwrap() = counter;
    }

    pub(crate) fn logged(&self) -> Vec<String> {
        self.0.logged.lock().unwrap().clone()
    }

    /// A step outward: the last thing that one does that is killed there.
    async fn gate(&self) {
        if self.0.left.load(Ordering::Relaxed) >= 0 && self.0.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.0.killed.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

impl Database for Rig {
    fn proof(&self, workspace: &WorkspaceId, _: &str) -> Result<String, StoreError> {
        Ok(proof(workspace))
    }

    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        self.gate().await;
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = params.iter().map(|p| (p as &(dyn ToSql + Sync), Type::TEXT)).collect();
        let answer = match self.0.client.query_typed(statement, &typed).await {
            Ok(rows) => Ok(rows[0].get(0)),
            Err(error) => {
                eprintln!("{statement}: {error:?}");
                Err(error.code().map_or(StoreError::Unreachable, |state| StoreError::Fault(state.code().to_owned())))
            }
        };
        self.gate().await;
        answer
    }
}

impl Host for Rig {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.clock.load(Ordering::Relaxed))
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        for byte in buffer {
            // Knuth's MMIX generator: each process has a seed of its own.
            let next = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let before = self.0.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |x| Some(next(x))).unwrap();
            *byte = next(before).to_be_bytes()[0];
        }
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }

    async fn ask(&self, workspace: &WorkspaceId, ask: &Ask) -> Result<Answer, CounterUnreachable> {
        self.gate().await;
        let counter = *self.0.counter.lock().unwrap();
        counter(workspace, ask)
    }

    fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(work);
    }

    fn log(&self, line: &str) {
        self.0.logged.lock().unwrap().push(line.to_owned());
    }

    async fn verify_signature(&self, _: &PublicKey, _: &[u8], _: &[u8]) -> bool {
        false
    }

    async fn sign(&self, _: &[u8; 32], _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    async fn public_key(&self, _: &[u8; 32]) -> Option<String> {
        None
    }

    async fn fetch_text(&self, _: &str, _: usize, _: u32) -> Result<String, NotFetched> {
        Err(NotFetched::Unreachable)
    }

    async fn call_out(&self, call: Outgoing) -> Result<Answered, NotAnswered> {
        self.gate().await;
        // Others go on meanwhile.
        tokio::task::yield_now().await;
        let answer = (self.0.outside.lock().unwrap())(&call);
        self.gate().await;
        answer
    }

    async fn pause(&self, _: u32) {}
}

/// At how many points a run is killed.
pub(crate) fn kills() -> u64 {
    std::env::var("TRIGGERS_KILLS").ok().map_or(12, |text| text.parse().unwrap())
}
