//! The desk against a database and rows that can fail: what is acknowledged is never lost, what was spent is never counted twice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use astra_kernel::{NanoUsd, Timestamp, TurnId, Usage, UsageSource};
use astra_quota::words::{Begin, Extend, Finished, Record, Stop, TurnStatus};
use astra_quota::{Answer, Ask};
use astra_store::{Database, StoreError};
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use quota::desk::{Desk, Row, Rows as _};
use quota::testing::Kept;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::Poll;

const NOW: Timestamp = Timestamp(1_795_478_400_000);

/// `turn_begin`, `turn_finish` and `quota_status` as the SQL has them, on a ledger in memory.
#[derive(Clone, Default)]
struct Db(Arc<Mutex<DbState>>);

#[derive(Default)]
struct DbState {
    ledger: BTreeMap<String, Value>,
    away: bool,
    /// The statement is done, but its answer is lost.
    deaf: bool,
    /// This one statement fails.
    fails: Option<&'static str>,
    /// Answers come at the second poll.
    slow: bool,
    /// Limits of agents, as `quota_status` has them.
    budgets: Vec<Value>,
    calls: usize,
    loads: usize,
}

impl DbState {
    fn spent(&self) -> Value {
        let nano: i64 = self.ledger.values().map(|r| r["costNanoUsd"].as_i64().unwrap()).sum();
        let tokens: i64 =
            self.ledger.values().map(|r| r["usage"]["inputTokens"].as_i64().unwrap() + r["usage"]["outputTokens"].as_i64().unwrap()).sum();
        json!({ "costNanoUsd": nano, "tokens": tokens, "byAgent": { "a": { "costNanoUsd": nano, "tokens": tokens } } })
    }

    fn limits() -> Value {
        json!({ "maxCostNanoUsdPerMonth": 10_000_000 })
    }

    fn answer(&mut self, statement: &str, arg: &Value) -> Value {
        let need_spent = arg["needSpent"] == true;
        self.loads += usize::from(need_spent);
        let spent = if need_spent { self.spent() } else { Value::Null };
        if statement.contains("turn_begin") {
            if let Some(key) = arg["idempotencyKey"].as_str()
                && self.ledger.values().any(|r| r["idempotencyKey"] == key)
            {
                return json!({ "outcome": "replay" });
            }
            json!({
                "outcome": "ok", "workspace": { "limits": Self::limits() }, "agent": { "definition": { "systemPromptTemplate": "be kind" } },
                "model": { "provider": "local", "modelId": "echo-1" },
                "price": { "version": 1, "inputNanoPerMtok": 150_000_000, "cachedInputNanoPerMtok": 75_000_000, "outputNanoPerMtok": 600_000_000 },
                "sessionId": arg["newSessionId"], "newSession": true, "history": [], "memories": [], "agentCount": 1, "spent": spent
            })
        } else if statement.contains("turn_finish") {
            let id = arg["turnId"].as_str().unwrap().to_owned();
            let outcome = match self.ledger.get(&id).map(|r| r["status"].clone()) {
                None => "saved",
                Some(status) if status == "expired" && arg["status"] != "expired" => "corrected",
                Some(_) => return json!({ "outcome": "duplicate", "ledgerSeq": 1 }),
            };
            self.ledger.insert(id, arg.clone());
            json!({ "outcome": outcome, "ledgerSeq": 1 })
        } else {
            json!({ "outcome": "ok", "limits": Self::limits(), "agents": self.budgets, "agentCount": 1, "spent": spent })
        }
    }
}

impl Database for Db {
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

struct World {
    db: Db,
    rows: Kept,
    desk: Desk<Db, Kept>,
}

impl World {
    fn new() -> Self {
        let (db, rows) = (Db::default(), Kept::default());
        Self { desk: Self::open(&db, &rows), db, rows }
    }

    fn open(db: &Db, rows: &Kept) -> Desk<Db, Kept> {
        Desk::open("w".to_owned().try_into().unwrap(), db.clone(), rows.clone())
    }

    /// The object dies and comes back.
    fn restart(&mut self) {
        self.desk = Self::open(&self.db, &self.rows);
    }

    fn ask(&self, ask: Ask, now: Timestamp) -> Answer {
        self.desk.answer(ask, now).now_or_never().expect("nothing here waits")
    }

    fn begin(&self, n: u128, key: Option<&str>) -> Answer {
        let id = |n| uuid::Uuid::from_u128(n);
        self.ask(
            Ask::Begin(Box::new(Begin {
                turn_id: TurnId(id(n)),
                session_id: None,
                new_session_id: astra_kernel::SessionId(id(n + 1000)),
                agent_id: "a".to_owned().try_into().unwrap(),
                subject: "u".into(),
                message: "hello".into(),
                idempotency_key: key.map(str::to_owned),
                request_hash: "h".into(),
                metadata: None,
                host_providers: vec![],
                default_model: None,
                embedding: None,
                top_k: 0,
                history_limit: 0,
                lease_millis: 30_000,
            })),
            NOW,
        )
    }

    fn record(&self, n: u128, cost: i64) -> Record {
        let Some(Row::Running { draft, .. }) = self.rows.get(TurnId(uuid::Uuid::from_u128(n))) else { panic!("turn {n} is not running") };
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

    fn finish(&self, record: Record) -> bool {
        finished(self.ask(Ask::Finish(Box::new(record)), NOW)).saved
    }

    /// What the answer of a turn says of the budget: used and held.
    fn told(&self, record: Record) -> Vec<(i64, i64)> {
        told(&finished(self.ask(Ask::Finish(Box::new(record)), NOW)))
    }

    fn used(&self) -> (i64, i64) {
        let Answer::Status(Some(view)) = self.ask(Ask::Status, NOW) else { panic!("no status") };
        (view.windows[0].used, view.windows[0].held)
    }

    fn set(&self, change: impl FnOnce(&mut DbState)) {
        change(&mut self.db.0.lock().unwrap());
    }
}

fn finished(answer: Answer) -> Finished {
    match answer {
        Answer::Finished(finished) => finished,
        other => panic!("{other:?}"),
    }
}

fn told(finished: &Finished) -> Vec<(i64, i64)> {
    finished.quota.windows.iter().map(|window| (window.used, window.held)).collect()
}

#[test]
fn what_is_left_is_added_to_the_answer_that_is_stored() {
    let world = World::new();
    for (n, answer) in [(1, "{}"), (2, r#"{"content":"}","usage":{}}"#)] {
        assert!(matches!(world.begin(n, None), Answer::Begun(_)));
        let answer = serde_json::value::RawValue::from_string(answer.to_owned()).unwrap();
        assert!(world.finish(Record { answer: Some(answer.clone()), ..world.record(n, 700) }));
        let mut stored = world.db.0.lock().unwrap().ledger[&uuid::Uuid::from_u128(n).to_string()]["answer"].clone();
        let quota = stored.as_object_mut().unwrap().remove("quota").unwrap();
        assert_eq!(quota["windows"][0]["used"], 700 * i64::try_from(n).unwrap());
        assert_eq!(stored, serde_json::from_str::<Value>(answer.get()).unwrap());
    }
}

#[test]
fn a_turn_is_held_then_paid() {
    let world = World::new();
    let Answer::Begun(begun) = world.begin(1, None) else { panic!("refused") };
    assert!(!begun.bounded_by_budget && begun.max_output == 4096);
    assert!(world.used().1 > 0);
    assert!(world.finish(world.record(1, 700)));
    assert_eq!(world.used(), (700, 0));
    assert!(world.desk.sweep() && world.rows.all().is_empty());
}

#[test]
fn kf_07_a_record_that_the_database_does_not_take_is_kept_and_delivered_once() {
    let mut world = World::new();
    world.begin(1, Some("k"));
    let record = world.record(1, 700);
    world.set(|db| db.away = true);
    assert!(!world.finish(record), "acknowledged, not saved yet");
    world.restart();
    assert!(matches!(world.begin(2, None), Answer::Unavailable), "without the ledger nothing begins");
    assert!(matches!(world.begin(3, Some("k")), Answer::Running(_)), "its key is still its own");
    world.set(|db| db.away = false);
    world.desk.wake(NOW).now_or_never().unwrap();
    assert_eq!(world.db.0.lock().unwrap().ledger.len(), 1);
    assert_eq!(world.used(), (700, 0));
    assert!(world.rows.all().is_empty());
}

#[test]
fn a_save_whose_answer_is_lost_is_not_counted_twice() {
    let mut world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.set(|db| db.deaf = true);
    assert!(!world.finish(record));
    world.set(|db| db.deaf = false);
    assert_eq!(world.used(), (700, 0));
    world.desk.wake(NOW).now_or_never().unwrap();
    assert_eq!(world.used(), (700, 0));
    world.restart();
    assert_eq!(world.used(), (700, 0));
}

#[test]
fn kf_05_a_turn_that_dies_is_charged_what_it_reported_and_frees_its_hold() {
    let mut world = World::new();
    world.begin(1, None);
    let progress = Usage { input_tokens: 8, output_tokens: 100, source: UsageSource::Estimated, ..Usage::NONE };
    let turn_id = TurnId(uuid::Uuid::from_u128(1));
    world.ask(Ask::Extend(Extend { turn_id, sequence: 1, progress, input_bound: 0 }), NOW);
    world.restart();
    assert!(world.used().1 > 0, "the hold outlives the object");
    let late = NOW.plus_millis(30_000);
    assert_eq!(world.desk.wake_at(NOW), Some(late));
    world.desk.wake(late).now_or_never().unwrap();
    let cost = 8 * 150 + 100 * 600;
    assert_eq!(world.used(), (cost, 0));
    let ledger = world.db.0.lock().unwrap().ledger.clone();
    assert_eq!(ledger.values().next().unwrap()["status"], "expired");
}

#[test]
fn a_late_settlement_corrects_a_dead_turn_once() {
    let world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.desk.wake(NOW.plus_millis(30_000)).now_or_never().unwrap();
    assert_eq!(world.used(), (0, 0));
    assert!(world.finish(record.clone()));
    assert_eq!(world.used(), (700, 0));
    assert!(world.finish(record));
    assert_eq!(world.used(), (700, 0));
}

#[test]
fn a_turn_in_whose_course_the_counter_forgot_is_told_true_figures() {
    let mut world = World::new();
    world.begin(1, None);
    assert_eq!(world.told(world.record(1, 400)), [(400, 0)]);
    world.begin(2, None);
    world.begin(3, None);
    let (second, third) = (world.record(2, 700), world.record(3, 50));
    world.restart();
    let Some(Row::Running { hold, .. }) = world.rows.get(third.turn_id) else { panic!("turn 3 is not running") };
    assert_eq!(world.told(second), [(1100, hold.cost.0)]);
    let calls = world.db.0.lock().unwrap().calls;
    assert_eq!(world.told(third), [(1150, 0)]);
    assert_eq!(world.db.0.lock().unwrap().calls, calls + 1, "without a doubt a turn is saved and that is all");
}

#[test]
fn a_late_settlement_is_told_what_the_ledger_says() {
    let world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.desk.wake(NOW.plus_millis(30_000)).now_or_never().unwrap();
    world.set(|db| db.budgets = ["a", "b"].map(|id| json!({ "id": id, "maxCostNanoUsdPerMonth": 1_000 })).into());
    assert_eq!(world.told(record.clone()), [(700, 0), (700, 0)], "the workspace's limit and this agent's");
    assert_eq!(world.told(record), [(700, 0), (700, 0)], "nor is it counted twice");
}

#[test]
fn a_turn_that_is_saved_has_ended_even_if_its_figures_cannot_be_had() {
    let mut world = World::new();
    world.begin(1, None);
    let record = world.record(1, 700);
    world.restart();
    world.set(|db| db.fails = Some("quota_status"));
    let Answer::Finished(finished) = world.ask(Ask::Finish(Box::new(record)), NOW) else { panic!("it is not acknowledged") };
    assert!(finished.saved && finished.quota.windows.is_empty());
}

#[test]
fn turns_that_end_together_after_a_doubt_do_not_wait_for_each_other() {
    let mut world = World::new();
    (1..=3).for_each(|n| drop(world.begin(n, None)));
    let records = [world.record(1, 100), world.record(2, 20), world.record(3, 3)];
    world.restart();
    world.set(|db| db.slow = true);
    let mut all = join_all(records.map(|record| world.desk.answer(Ask::Finish(Box::new(record)), NOW)));
    let answers = (0..100).find_map(|_| (&mut all).now_or_never()).expect("none waits for ever");
    let ended: Vec<_> = answers.into_iter().map(finished).collect();
    assert!(ended.iter().all(|ended| ended.saved && told(ended)[0].0 <= 123), "{ended:?}");
    assert!(ended.iter().any(|ended| told(ended) == [(123, 0)]), "{ended:?}");
}

#[test]
fn kf_06_kf_03_an_empty_counter_loads_once_and_without_the_ledger_refuses() {
    let mut world = World::new();
    world.begin(1, None);
    assert!(world.finish(world.record(1, 400)) && world.desk.sweep());
    world.restart();
    world.set(|db| db.away = true);
    assert!(matches!(world.begin(2, None), Answer::Unavailable));
    world.set(|db| db.away = false);
    let loads = world.db.0.lock().unwrap().loads;
    assert!(matches!(world.begin(2, None), Answer::Begun(_)));
    assert!(matches!(world.begin(3, None), Answer::Begun(_)));
    assert_eq!(world.db.0.lock().unwrap().loads, loads + 1);
    assert_eq!(world.used().0, 400);
}

#[test]
fn the_limit_refuses_and_a_key_belongs_to_one_turn() {
    let world = World::new();
    assert!(matches!(world.begin(1, Some("k")), Answer::Begun(_)));
    assert!(matches!(world.begin(2, Some("k")), Answer::Running(turn) if turn == TurnId(uuid::Uuid::from_u128(1))));
    assert!(world.finish(world.record(1, 9_999_999)));
    assert!(matches!(world.begin(3, Some("k")), Answer::Denied(_)), "the database has its answer");
    let Answer::Refused(refusal) = world.begin(4, None) else { panic!("admitted") };
    assert_eq!((refusal.limit.as_str(), refusal.used), ("maxCostUsdPerMonth", 9_999_999));
}

#[test]
fn stop_reaches_the_turn_with_its_next_sign_of_life_and_only_its_own_member() {
    let world = World::new();
    world.begin(1, None);
    let turn_id = TurnId(uuid::Uuid::from_u128(1));
    let stop = |subject: Option<&str>| world.ask(Ask::Stop(Stop { turn_id, subject: subject.map(str::to_owned) }), NOW);
    assert!(matches!(stop(Some("somebody else")), Answer::NotRunning));
    assert!(matches!(stop(Some("u")), Answer::Stopping));
    let alive = |sequence| world.ask(Ask::Extend(Extend { turn_id, sequence, progress: Usage::NONE, input_bound: 0 }), NOW);
    assert!(matches!(alive(1), Answer::Extended(e) if e.stop));
    assert!(world.finish(world.record(1, 1)));
    assert!(matches!(alive(2), Answer::NotRunning));
    assert!(matches!(stop(None), Answer::NotRunning));
}
