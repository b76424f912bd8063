//! The desk on a database that can fail and rows in memory.

use astra_kernel::{NanoUsd, Timestamp, TurnId, Usage, UsageSource};
use astra_quota::view::Window;
use astra_quota::words::{Begin, Begun, Extend, Extended, Finished, Record, Refusal, TurnStatus};
use astra_quota::{Answer, Ask, Hold};
use astra_store::{Database, StoreError};
use futures_util::FutureExt as _;
use quota::desk::{Desk, Row, Rows as _};
use quota::testing::Kept;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::Poll;

/// 2026-11-24T00:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp(1_795_478_400_000);

pub(crate) const HOUR: i64 = 3_600_000;
pub(crate) const DAY: i64 = 24 * HOUR;
pub(crate) const LEASE: i64 = 30_000;

/// What the model costs: nano-dollars a token.
pub(crate) const INPUT: i64 = 150;
pub(crate) const OUTPUT: i64 = 600;

/// `turn_begin`, `turn_finish`, `quota_spent` and `quota_status` as the SQL has them, on a ledger in memory.
#[derive(Clone, Default)]
pub(crate) struct Db(pub(crate) Arc<Mutex<DbState>>);

pub(crate) struct DbState {
    pub(crate) ledger: BTreeMap<String, Value>,
    pub(crate) limits: Value,
    /// Limits of agents, by their ids.
    pub(crate) agents: BTreeMap<String, Value>,
    /// The model's bound of output.
    pub(crate) output: u64,
    pub(crate) away: bool,
    /// What `turn_begin` says instead of a context.
    pub(crate) denial: Option<&'static str>,
    /// The statement is done, but its answer is lost.
    pub(crate) deaf: bool,
    /// This one statement fails.
    pub(crate) fails: Option<&'static str>,
    /// Answers come at the second poll.
    pub(crate) slow: bool,
    pub(crate) calls: usize,
    /// What `quota_mark` was told.
    pub(crate) marks: Vec<Value>,
    /// Windows of which it was asked what was spent.
    pub(crate) loads: usize,
}

impl Default for DbState {
    fn default() -> Self {
        Self {
            ledger: BTreeMap::new(),
            limits: json!({ "maxCostNanoUsdPerMonth": 10_000_000 }),
            agents: BTreeMap::new(),
            output: 4_096,
            away: false,
            denial: None,
            deaf: false,
            fails: None,
            slow: false,
            calls: 0,
            marks: vec![],
            loads: 0,
        }
    }
}

fn spans(now: Timestamp) -> Value {
    let floor = |length: i64| Timestamp(now.0 - now.0.rem_euclid(length));
    let span = |period, starts: Timestamp, ends: Timestamp| json!({ "period": period, "startsAt": starts, "endsAt": ends });
    let month = now.month();
    json!({
        "hour": span("hour", floor(HOUR), floor(HOUR).plus_millis(HOUR)),
        "day": span("day", floor(DAY), floor(DAY).plus_millis(DAY)),
        "month": span("month", month.starts_at(), month.resets_at()),
    })
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

impl DbState {
    fn spent(&self, window: &Value) -> Value {
        let (starts, ends) = (time(&window["startsAt"]), time(&window["endsAt"]));
        let (mut total, mut by_agent) = ((0, 0), BTreeMap::<String, (i64, i64)>::new());
        for record in self.ledger.values().filter(|record| (starts..ends).contains(&time(&record["startedAt"]))) {
            let cost = record["costNanoUsd"].as_i64().unwrap();
            let tokens = record["usage"]["inputTokens"].as_i64().unwrap() + record["usage"]["outputTokens"].as_i64().unwrap();
            let of_agent = by_agent.entry(record["agentId"].as_str().unwrap().to_owned()).or_default();
            for sum in [&mut total, of_agent] {
                *sum = (sum.0 + cost, sum.1 + tokens);
            }
        }
        let amount = |(cost, tokens): (i64, i64)| json!({ "cost": cost, "tokens": tokens });
        let by_agent: BTreeMap<_, _> = by_agent.into_iter().map(|(agent, sum)| (agent, amount(sum))).collect();
        json!({ "total": amount(total), "byAgent": by_agent })
    }

    fn answer(&mut self, statement: &str, arg: &Value) -> Value {
        if statement.contains("turn_begin") {
            self.turn_begin(arg)
        } else if statement.contains("turn_finish") {
            let id = arg["turnId"].as_str().unwrap().to_owned();
            let outcome = match self.ledger.get(&id).map(|r| r["status"].clone()) {
                None => "saved",
                Some(status) if status == "expired" && arg["status"] != "expired" => "corrected",
                Some(_) => return json!({ "outcome": "duplicate", "ledgerSeq": 1, "receipt": format!("of {id}") }),
            };
            let receipt = format!("of {id}");
            self.ledger.insert(id, arg.clone());
            json!({ "outcome": outcome, "ledgerSeq": 1, "receipt": receipt })
        } else if statement.contains("quota_mark") {
            self.marks.extend(arg["alerts"].as_array().unwrap().iter().cloned());
            json!({ "outcome": "ok" })
        } else if statement.contains("quota_spent") {
            let windows = arg["windows"].as_array().unwrap();
            self.loads += windows.len();
            json!({ "data": windows.iter().map(|window| self.spent(window)).collect::<Vec<_>>() })
        } else {
            assert!(statement.contains("quota_status"), "{statement}");
            let agents: Vec<_> = self.agents.iter().map(|(id, allowance)| json!({ "id": id, "allowance": allowance })).collect();
            json!({ "outcome": "ok", "limits": self.limits, "agents": agents, "agentCount": 1, "spans": spans(time(&arg["now"])) })
        }
    }

    fn turn_begin(&self, arg: &Value) -> Value {
        if let Some(outcome) = self.denial {
            return json!({ "outcome": outcome });
        }
        if let Some(key) = arg["idempotencyKey"].as_str()
            && self.ledger.values().any(|r| r["idempotencyKey"] == key)
        {
            return json!({ "outcome": "replay" });
        }
        let allowance = self.agents.get(arg["agentId"].as_str().unwrap()).cloned().unwrap_or_else(|| json!({}));
        let definition = json!({ "systemPromptTemplate": "be kind", "model": { "maxOutputTokens": self.output } });
        json!({
            "outcome": "ok", "workspace": { "limits": self.limits }, "agent": { "allowance": allowance, "definition": definition },
            "model": { "provider": "local", "modelId": "echo-1" },
            "price": { "version": 1, "inputNanoPerMtok": INPUT * 1_000_000, "cachedInputNanoPerMtok": 75_000_000,
                       "outputNanoPerMtok": OUTPUT * 1_000_000 },
            "sessionId": arg["newSessionId"], "newSession": true, "history": [], "memories": [], "agentCount": 1,
            "now": arg["now"], "spans": spans(time(&arg["now"])), "limits": self.limits
        })
    }
}

impl Database for Db {
    fn proof(&self, workspace: &astra_kernel::WorkspaceId, _: &str) -> Result<String, StoreError> {
        Ok(workspace.to_string())
    }

    fn query(&self, statement: &'static str, params: &[&str]) -> impl Future<Output = Result<String, StoreError>> + Send {
        let arg: Value = serde_json::from_str(params[1]).unwrap();
        let mut state = self.0.lock().unwrap();
        state.calls += 1;
        let mut waits = usize::from(state.slow);
        let result = if state.away || state.fails.is_some_and(|name| statement.contains(name)) {
            Err(StoreError::Unreachable)
        } else {
            let answer = state.answer(statement, &arg);
            if state.deaf { Err(StoreError::Unreachable) } else { Ok(answer.to_string()) }
        };
        let answered = poll_fn(move |_| match std::mem::take(&mut waits) {
            0 => Poll::Ready(()),
            _ => Poll::Pending,
        });
        async move {
            answered.await;
            result
        }
    }
}

pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) rows: Kept,
    pub(crate) desk: Desk<Db, Kept>,
}

pub(crate) fn turn(n: u128) -> TurnId {
    TurnId(uuid::Uuid::from_u128(n))
}

/// A turn of agent `a` that wants to begin: 12 tokens of prompt.
pub(crate) fn begin(n: u128) -> Begin {
    Begin {
        turn_id: turn(n),
        session_id: None,
        new_session_id: astra_kernel::SessionId(uuid::Uuid::from_u128(n + 1000)),
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

pub(crate) fn extend(n: u128, sequence: u32) -> Extend {
    Extend { turn_id: turn(n), sequence, progress: Usage::NONE, input_bound: 0, output: 0, is_urgent: false }
}

impl World {
    pub(crate) fn new() -> Self {
        let (db, rows) = (Db::default(), Kept::default());
        Self { desk: Self::open(&db, &rows), db, rows }
    }

    pub(crate) fn with(limits: Value) -> Self {
        let world = Self::new();
        world.set(|db| db.limits = limits);
        world
    }

    fn open(db: &Db, rows: &Kept) -> Desk<Db, Kept> {
        Desk::open("w".to_owned().try_into().unwrap(), db.clone(), rows.clone())
    }

    /// The object dies and comes back.
    pub(crate) fn restart(&mut self) {
        self.desk = Self::open(&self.db, &self.rows);
    }

    pub(crate) fn ask(&self, ask: Ask, now: Timestamp) -> Answer {
        self.desk.answer(ask, now).now_or_never().expect("nothing here waits")
    }

    pub(crate) fn begin(&self, n: u128, key: Option<&str>) -> Answer {
        self.ask(Ask::Begin(Box::new(Begin { idempotency_key: key.map(str::to_owned), ..begin(n) })), NOW)
    }

    pub(crate) fn begun(&self, of: Begin, now: Timestamp) -> Begun {
        match self.ask(Ask::Begin(Box::new(of)), now) {
            Answer::Begun(begun) => *begun,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn refused(&self, begin: Begin, now: Timestamp) -> Refusal {
        match self.ask(Ask::Begin(Box::new(begin)), now) {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn extended(&self, extend: Extend, now: Timestamp) -> Extended {
        match self.ask(Ask::Extend(extend), now) {
            Answer::Extended(extended) => extended,
            other => panic!("{other:?}"),
        }
    }

    /// The hold as it is kept.
    pub(crate) fn hold(&self, n: u128) -> Hold {
        let Some(Row::Running { hold, .. }) = self.rows.get(turn(n)) else { panic!("turn {n} is not running") };
        *hold
    }

    /// Writes a hold down as another version of this code may have done.
    pub(crate) fn rewrite(&self, n: u128, change: impl FnOnce(&mut Value)) {
        let Some(Row::Running { hold, draft }) = self.rows.get(turn(n)) else { panic!("turn {n} is not running") };
        let mut value = serde_json::to_value(hold).unwrap();
        change(&mut value);
        assert!(self.rows.put(turn(n), &Row::Running { hold: serde_json::from_value(value).unwrap(), draft }));
    }

    pub(crate) fn record(&self, n: u128, cost: i64) -> Record {
        let Some(Row::Running { draft, .. }) = self.rows.get(turn(n)) else { panic!("turn {n} is not running") };
        let usage = Usage { input_tokens: 10, output_tokens: 20, source: UsageSource::Provider, ..Usage::NONE };
        Record {
            status: TurnStatus::Completed,
            content: Some("hi".into()),
            usage,
            cost_nano_usd: NanoUsd(cost),
            error_code: None,
            answer: serde_json::value::RawValue::from_string("{}".into()).ok(),
            ended_at: NOW,
            ..draft.record
        }
    }

    pub(crate) fn finish(&self, record: Record) -> bool {
        finished(self.ask(Ask::Finish(Box::new(record)), NOW)).saved
    }

    /// What the answer of a turn says of the budget: used and held.
    pub(crate) fn told(&self, record: Record) -> Vec<(i64, i64)> {
        told(&finished(self.ask(Ask::Finish(Box::new(record)), NOW)))
    }

    pub(crate) fn windows(&self, now: Timestamp) -> Vec<Window> {
        match self.ask(Ask::Status, now) {
            Answer::Status(Some(view)) => view.windows,
            other => panic!("{other:?}"),
        }
    }

    /// Used and held of the first limit.
    pub(crate) fn used(&self) -> (i64, i64) {
        self.used_at(NOW)
    }

    pub(crate) fn used_at(&self, now: Timestamp) -> (i64, i64) {
        let windows = self.windows(now);
        (windows[0].used, windows[0].held)
    }

    /// What the ledger has of a turn.
    pub(crate) fn entry(&self, n: u128) -> Value {
        self.db.0.lock().unwrap().ledger[&turn(n).to_string()].clone()
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut DbState)) {
        change(&mut self.db.0.lock().unwrap());
    }
}

pub(crate) fn finished(answer: Answer) -> Finished {
    match answer {
        Answer::Finished(finished) => finished,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn told(finished: &Finished) -> Vec<(i64, i64)> {
    finished.quota.windows.iter().map(|window| (window.used, window.held)).collect()
}
