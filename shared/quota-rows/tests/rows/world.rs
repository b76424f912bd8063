//! A workspace of its own for each test, connections as the counter's role, and a look at the rows past every wall.

use astra_kernel::{AgentId, NanoUsd, SessionId, TenantKeys, Timestamp, TurnId, Usage, UsageSource, WorkspaceId};
use astra_quota::words::{Begin, Begun, Extend, Extended, Finished, ModelRef, Record, Stop, TurnStatus};
use astra_quota::{Answer, Ask, QuotaView, Refusal, Use, UseKind};
use astra_quota_rows::{KINDS, RowsCounter};
use astra_store::{Database, Grouped, StoreError};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

/// 2026-01-28T00:00:00Z: a few days before a month ends, and long over, so that nothing of it is in what other tests say of this month.
pub(crate) const START: Timestamp = Timestamp(1_769_558_400_000);

pub(crate) const LEASE: i64 = 30_000;

/// The longest answer of the agents: as much as the least slice, so that it is held whole also near a limit.
pub(crate) const OUTPUT: u64 = 64;

/// Some connections, used in turn.
#[derive(Clone)]
struct Connections {
    clients: Arc<Vec<Client>>,
    next: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
}

/// What the counters of a test run on: processes that share the database and nothing else. Asks go to each of them in turn.
#[derive(Clone)]
pub(crate) struct Pool {
    connections: Connections,
    /// None: a process for each connection, which has one ask at a time.
    processes: Arc<Vec<Grouped<Connections>>>,
    next: Arc<AtomicUsize>,
}

/// How a test's asks come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Each by itself, from as many processes as there are connections.
    Apart,
    /// Through three processes, which send together what comes together.
    Together,
}

/// A proof must not have expired by the database's clock, which is not the tests': 2100.
const FAR: Timestamp = Timestamp(4_102_444_800_000);

/// The proof that the database wants.
pub(crate) fn proof(workspace: &WorkspaceId) -> String {
    let keys = std::env::var("ASTRA_TENANT_KEYS").expect("ASTRA_TENANT_KEYS: those that the database was migrated with");
    TenantKeys::parse(&keys).unwrap().prove(workspace, "", FAR)
}

async fn connect(role: Option<&str>) -> Client {
    let url = std::env::var("ASTRA_ADMIN_DATABASE_URL").expect("ASTRA_ADMIN_DATABASE_URL: a superuser's postgres:// URL past the pooler");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(async {
        let _ = connection.await;
    });
    if let Some(role) = role {
        client.batch_execute(&format!("SET ROLE {role}; SET jit = off; SET statement_timeout = '15s'")).await.unwrap();
    }
    client
}

impl Pool {
    pub(crate) async fn open(connections: usize, way: Way) -> Self {
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(connect(Some("astra_quota")).await);
        }
        let connections = Connections { clients: Arc::new(clients), next: Arc::default(), sent: Arc::default() };
        let processes = if way == Way::Together { 3 } else { 0 };
        let processes = (0..processes).map(|_| Grouped::new(connections.clone(), KINDS, |task| drop(tokio::spawn(task)))).collect();
        Self { connections, processes: Arc::new(processes), next: Arc::default() }
    }

    /// How many statements went to the database.
    pub(crate) fn sent(&self) -> usize {
        self.connections.sent.load(Ordering::Relaxed)
    }
}

impl Connections {
    async fn run(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let client = &self.clients[self.next.fetch_add(1, Ordering::Relaxed) % self.clients.len()];
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = params.iter().map(|p| (p as &(dyn ToSql + Sync), Type::TEXT)).collect();
        match client.query_typed(statement, &typed).await {
            Ok(rows) => Ok(rows[0].get(0)),
            Err(error) => {
                eprintln!("{statement}: {error:?}");
                Err(error.code().map_or(StoreError::Unreachable, |state| StoreError::Fault(state.code().to_owned())))
            }
        }
    }
}

impl Database for Connections {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError> {
        assert_eq!(actor, "", "a counter asks for nobody");
        Ok(proof(workspace))
    }

    fn query(&self, statement: &'static str, params: &[&str]) -> impl Future<Output = Result<String, StoreError>> + Send {
        self.run(statement, params)
    }
}

impl Database for Pool {
    fn proof(&self, workspace: &WorkspaceId, actor: &str) -> Result<String, StoreError> {
        self.connections.proof(workspace, actor)
    }

    async fn query(&self, statement: &'static str, params: &[&str]) -> Result<String, StoreError> {
        if self.processes.is_empty() {
            return self.connections.run(statement, params).await;
        }
        self.processes[self.next.fetch_add(1, Ordering::Relaxed) % self.processes.len()].query(statement, params).await
    }
}

/// A workspace with agents `a` and `b`.
pub(crate) struct World {
    pub(crate) pool: Pool,
    pub(crate) workspace: WorkspaceId,
    admin: Arc<Client>,
}

pub(crate) fn turn(n: u128) -> TurnId {
    TurnId(uuid::Uuid::from_u128(n))
}

pub(crate) fn begin(n: u128) -> Begin {
    Begin {
        turn_id: turn(n),
        session_id: None,
        new_session_id: SessionId(uuid::Uuid::from_u128(n + (1 << 64))),
        agent_id: "a".to_owned().try_into().unwrap(),
        subject: "u".into(),
        token_id: None,
        message: "hello".into(),
        idempotency_key: None,
        request_hash: "h".into(),
        metadata: None,
        host_providers: vec![],
        default_model: None,
        embedding: None,
        top_k: 0,
        history_limit: 0,
        lease_millis: LEASE,
        asks_index: false,
        guest: None,
        no_turn: None,
    }
}

pub(crate) fn usage(input: u64, output: u64) -> Usage {
    Usage { input_tokens: input, output_tokens: output, source: UsageSource::Provider, ..Usage::NONE }
}

/// A finished turn's record, as the turn makes it from what it was told.
pub(crate) fn record(of: &Begin, started_at: Timestamp, usage: Usage, cost: i64, now: Timestamp) -> Record {
    Record {
        turn_id: of.turn_id,
        kind: None,
        session_id: Some(of.new_session_id),
        new_session: true,
        agent_id: of.agent_id.clone(),
        subject: of.subject.clone(),
        status: TurnStatus::Completed,
        finish_reason: Some("stop".into()),
        message: of.message.clone(),
        content: Some("hi".into()),
        provider: "local".into(),
        model: "echo-1".into(),
        price_version: 1,
        usage,
        cost_nano_usd: NanoUsd(cost),
        markup_basis_points: 0,
        batch: false,
        idempotency_key: of.idempotency_key.clone(),
        request_hash: of.request_hash.clone(),
        error_code: None,
        answer: serde_json::value::RawValue::from_string("{\"turnId\":\"t\"}".into()).ok(),
        metadata: None,
        started_at,
        ended_at: now,
        alerts: vec![],
        guest: None,
    }
}

/// A call to an embedder: an upper bound of what it reads, and what it will probably be.
pub(crate) fn embedding(n: u128, input_bound: u64, presumed_input: u64) -> Begin {
    use_of(n, UseKind::Embedding, (input_bound, presumed_input, 0))
}

pub(crate) fn use_of(n: u128, kind: UseKind, (input_bound, presumed_input, max_output): (u64, u64, u64)) -> Begin {
    let model = ModelRef { provider: "local".into(), model_id: "echo-1".into() };
    let is_embedding = kind == UseKind::Embedding;
    let agent_id = if is_embedding { AgentId::embedding() } else { "a".to_owned().try_into().unwrap() };
    let no_turn = Some(Use { kind, model: is_embedding.then_some(model), input_bound, presumed_input, max_output });
    Begin { agent_id, message: String::new(), request_hash: String::new(), no_turn, ..begin(n) }
}

/// The record of a use that was made.
pub(crate) fn used(of: &Begin, started_at: Timestamp, usage: Usage, cost: i64, now: Timestamp) -> Record {
    let kind = of.no_turn.as_ref().map(|it| it.kind);
    Record {
        kind,
        session_id: of.session_id,
        new_session: false,
        finish_reason: None,
        content: None,
        answer: None,
        ..record(of, started_at, usage, cost, now)
    }
}

impl World {
    pub(crate) async fn new(connections: usize, limits: Value) -> Self {
        Self::new_as(Way::Apart, connections, limits).await
    }

    pub(crate) async fn new_as(way: Way, connections: usize, limits: Value) -> Self {
        Self::with(Pool::open(connections, way).await, Arc::new(connect(None).await), limits).await
    }

    /// Another workspace on the same connections.
    pub(crate) async fn beside(&self, limits: Value) -> Self {
        Self::with(self.pool.clone(), Arc::clone(&self.admin), limits).await
    }

    async fn with(pool: Pool, admin: Arc<Client>, limits: Value) -> Self {
        let id = format!("rows-{}", uuid::Uuid::new_v4().simple());
        let world = Self { pool, workspace: id.try_into().unwrap(), admin };
        world.provision(limits).await;
        world
    }

    async fn provision(&self, limits: Value) {
        let sql = "INSERT INTO workspaces (id, display_name, plan, owner_id, limits, create_body, created_at, updated_at) \
                   VALUES ($1, 'Rows', 'none', 'o', $2::text::jsonb, '{}', now(), now())";
        self.admin_run(sql, &[self.workspace.as_str(), &limits.to_string()]).await;
        for (agent, budget) in [("a", json!({})), ("b", json!({ "maxCostUsdPerMonth": { "nano": 2_000_000 }, "maxTokensPerTurn": 2_000 }))]
        {
            self.set_agent(agent, OUTPUT, budget).await;
        }
    }

    pub(crate) async fn set_agent(&self, agent: &str, output: u64, budget: Value) {
        let definition = json!({ "id": agent, "systemPromptTemplate": "be kind", "budget": budget,
                                 "model": { "provider": "local", "modelId": "echo-1", "maxOutputTokens": output } });
        let sql = "INSERT INTO agents VALUES ($1, $2, $3::text::jsonb, now(), now()) ON CONFLICT (workspace_id, id) DO UPDATE SET definition = excluded.definition";
        self.admin_run(sql, &[self.workspace.as_str(), agent, &definition.to_string()]).await;
    }

    pub(crate) async fn remove_agent(&self, agent: &str) {
        self.admin_run("DELETE FROM agents WHERE workspace_id = $1 AND id = $2", &[self.workspace.as_str(), agent]).await;
    }

    /// Puts the workspace on a plan of its own, with a template of one agent.
    pub(crate) async fn set_plan(&self, agent: &str, budget: Value) {
        let definition = json!({ "id": agent, "systemPromptTemplate": "be kind", "budget": budget, "model": { "provider": "local", "modelId": "echo-1" } });
        let template = json!({ "agents": [definition] }).to_string();
        let (id, plan) = (self.workspace.as_str(), format!("of {}", self.workspace));
        let sql = "INSERT INTO plans (plan, version, template, source_yaml, updated_at) VALUES ($1, 1, $2::text::jsonb, '', now()) ON CONFLICT (plan) DO UPDATE SET template = excluded.template";
        self.admin_run(sql, &[&plan, &template]).await;
        self.admin_run("UPDATE workspaces SET plan = $2 WHERE id = $1 AND plan <> $2", &[id, &plan]).await;
    }

    pub(crate) async fn set_limits(&self, limits: Value) {
        self.admin_run("UPDATE workspaces SET limits = $2::text::jsonb WHERE id = $1", &[self.workspace.as_str(), &limits.to_string()])
            .await;
    }

    pub(crate) async fn set_zone(&self, zone: &str) {
        self.admin_run("UPDATE workspaces SET time_zone = $2 WHERE id = $1", &[self.workspace.as_str(), zone]).await;
    }

    pub(crate) async fn admin_run(&self, sql: &str, params: &[&str]) {
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = params.iter().map(|p| (p as &(dyn ToSql + Sync), Type::TEXT)).collect();
        self.admin.query_typed(sql, &typed).await.unwrap();
    }

    /// One number about this workspace, `$1`.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let id = self.workspace.as_str();
        let rows = self.admin.query_typed(&format!("SELECT ({sql})::bigint"), &[(&id, Type::TEXT)]).await.unwrap();
        rows[0].get(0)
    }

    pub(crate) fn counter(&self) -> RowsCounter<'_, Pool> {
        RowsCounter::open(&self.pool, self.workspace.clone())
    }

    pub(crate) async fn begin(&self, begin: &Begin, now: Timestamp) -> Answer {
        self.counter().ask(&Ask::Begin(Box::new(begin.clone())), now).await
    }

    pub(crate) async fn begun(&self, of: &Begin, now: Timestamp) -> Box<Begun> {
        match self.begin(of, now).await {
            Answer::Begun(begun) => begun,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn refused(&self, of: &Begin, now: Timestamp) -> Refusal {
        match self.begin(of, now).await {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn finish(&self, record: Record, now: Timestamp) -> Finished {
        match self.counter().ask(&Ask::Finish(Box::new(record)), now).await {
            Answer::Finished(finished) => finished,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn extend(&self, n: u128, sequence: u32, progress: Usage, input_bound: u64, now: Timestamp) -> Answer {
        let extend = Extend { turn_id: turn(n), sequence, progress, input_bound, output: 0, is_urgent: false };
        self.counter().ask(&Ask::Extend(extend), now).await
    }

    /// The stream of a turn needs so much output to be held.
    pub(crate) async fn needs(&self, n: u128, sequence: u32, output: u64, now: Timestamp) -> Extended {
        let extend = Extend { turn_id: turn(n), sequence, progress: usage(5, 5), input_bound: 0, output, is_urgent: true };
        match self.counter().ask(&Ask::Extend(extend), now).await {
            Answer::Extended(extended) => extended,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn stop(&self, n: u128, subject: Option<&str>) -> Answer {
        self.counter().ask(&Ask::Stop(Stop { turn_id: turn(n), subject: subject.map(str::to_owned), guest: None }), START).await
    }

    pub(crate) async fn status(&self, now: Timestamp) -> QuotaView {
        match self.counter().ask(&Ask::Status, now).await {
            Answer::Status(Some(view)) => view,
            other => panic!("{other:?}"),
        }
    }

    /// Used and held of the first limit.
    pub(crate) async fn used(&self, now: Timestamp) -> (i64, i64) {
        let view = self.status(now).await;
        (view.windows[0].used, view.windows[0].held)
    }

    /// A text about this workspace, `$1`.
    pub(crate) async fn text(&self, sql: &str) -> String {
        let id = self.workspace.as_str();
        let rows = self.admin.query_typed(&format!("SELECT ({sql})::text"), &[(&id, Type::TEXT)]).await.unwrap();
        rows[0].get(0)
    }

    /// Every window says what the ledger and the holds say, if the ledger did not go on without them.
    pub(crate) async fn check(&self) {
        let wrong = self
            .number(
                "SELECT count(*) FROM quota_windows w JOIN quota_windows t USING (workspace_id, span) LEFT JOIN ledger_heads h USING (workspace_id),
                 LATERAL (SELECT COALESCE(sum(l.cost_usd) * 1000000000, 0) AS cost, COALESCE(sum(l.input_tokens + l.output_tokens), 0) AS tokens
                          FROM ledger l WHERE l.workspace_id = w.workspace_id AND w.scope IN ('workspace', 'agent:' || l.agent_id)
                            AND l.turn_started_at >= w.starts_at AND l.turn_started_at < w.ends_at) u,
                 LATERAL (SELECT COALESCE(sum(o.cost), 0) AS cost, COALESCE(sum(o.tokens), 0) AS tokens FROM holds o
                          WHERE o.workspace_id = w.workspace_id AND w.scope IN ('workspace', 'agent:' || o.agent_id)
                            AND (o.hold ->> 'startedAt')::timestamptz >= w.starts_at AND (o.hold ->> 'startedAt')::timestamptz < w.ends_at) o
                 WHERE w.workspace_id = $1 AND t.scope = 'workspace' AND t.ledger_seq = COALESCE(h.seq, 0)
                   AND (w.cost_used, w.tokens_used, w.cost_held, w.tokens_held) IS DISTINCT FROM (u.cost, u.tokens, o.cost, o.tokens)",
            )
            .await;
        assert_eq!(wrong, 0, "a window differs from the ledger and the holds");
    }
}

impl World {
    /// Runs a statement as the counter's role.
    pub(crate) async fn pool_text(&self, statement: &'static str, arg: &str) -> String {
        self.pool.query(statement, &[&proof(&self.workspace), arg]).await.unwrap()
    }
}
