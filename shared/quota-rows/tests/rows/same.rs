//! One implementation of the rules, two stores: the quota object's desk and the rows take the same schedule and must answer the same.
//!
//! What is meant to differ is kept out of the schedule: rows know the turns of the last minute after a restart, an object does not; a settlement
//! that comes before anybody has ended its expired turn is a first one on rows (an object's alarm was quicker).

use crate::world::{START, World, begin, proof, record, turn, usage, use_of, used};
use astra_kernel::{Price, Timestamp};
use astra_quota::words::{Begin, Extend, Recall, Record, Stop};
use astra_quota::{Answer, Ask, UseKind};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use quota::desk::Desk;
use quota::testing::Kept;
use serde_json::{Value, json};

const PRICE: Price = Price {
    version: 1,
    input_nano_per_mtok: 150_000_000,
    cached_input_nano_per_mtok: 75_000_000,
    output_nano_per_mtok: 600_000_000,
    holds_maximum: false,
    long_context: None,
    markup_basis_points: 0,
};

#[derive(Debug, Clone)]
enum Step {
    Begin {
        agent: bool,
        message: usize,
        key: Option<u8>,
        hash: bool,
    },
    Use {
        input_bound: u64,
        presumed: u64,
        output: u64,
    },
    Extend {
        which: usize,
        sequence: u32,
        reported: u64,
        input_bound: u64,
        output: u64,
        is_urgent: bool,
    },
    Finish {
        which: usize,
        input: u64,
        output: u64,
        by_limit: bool,
    },
    FinishAgain {
        which: usize,
    },
    Stop {
        which: usize,
        own: bool,
    },
    Wait {
        millis: i64,
    },
    SetLimits(Value),
    /// None: the agent is removed.
    SetAgent {
        agent: bool,
        budget: Option<Value>,
    },
    SetZone(&'static str),
    Restart,
}

/// Midnight is near, and each of them has it at another hour.
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"];

fn limits() -> impl Strategy<Value = Value> {
    let option = proptest::option::of::<std::ops::Range<i64>>;
    (option(0..20_000), option(0..8_000_000), option(0..8), option(1..4), option(0..9_000), option(0..7_000), option(0..5_000_000))
        .prop_map(|(tokens, cost, turns, agents, day, hour, cost_hour)| {
            let all = [
                ("maxTokensPerMonth", tokens),
                ("maxCostNanoUsdPerMonth", cost),
                ("maxTurnsPerMinute", turns),
                ("maxAgents", agents),
                ("maxTokensPerDay", day),
                ("maxTokensPerHour", hour),
                ("maxCostNanoUsdPerHour", cost_hour),
            ];
            all.into_iter().filter_map(|(name, max)| Some((name.to_owned(), json!(max?)))).collect()
        })
}

/// An agent's, as it is stored; the month's cost may be the workspace's.
fn budget() -> impl Strategy<Value = Value> {
    let option = proptest::option::of::<std::ops::Range<i64>>;
    (option(0..20_000), option(0..8_000_000), option(0..9_000), option(0..7_000), option(0..5_000_000), proptest::bool::weighted(0.2))
        .prop_map(|(tokens, cost, day, hour, cost_hour, is_workspaces)| {
            let nano = |cost: Option<i64>| Some(json!({ "nano": cost? }));
            let all = [
                ("maxTokensPerMonth", tokens.map(Value::from)),
                ("maxCostUsdPerMonth", if is_workspaces { Some(json!({ "ref": "maxCostNanoUsdPerMonth" })) } else { nano(cost) }),
                ("maxTokensPerDay", day.map(Value::from)),
                ("maxTokensPerHour", hour.map(Value::from)),
                ("maxCostUsdPerHour", nano(cost_hour)),
            ];
            all.into_iter().filter_map(|(name, max)| Some((name.to_owned(), max?))).collect()
        })
}

fn steps() -> impl Strategy<Value = (Value, Vec<Step>)> {
    let step = prop_oneof![
        6 => (any::<bool>(), 0_usize..1_500, proptest::option::weighted(0.4, 0_u8..4), proptest::bool::weighted(0.9))
            .prop_map(|(agent, message, key, hash)| Step::Begin { agent, message, key, hash }),
        2 => (1_u64..3_000, 0_u64..3_000, prop_oneof![Just(0), 0_u64..1_000])
            .prop_map(|(input_bound, presumed, output)| Step::Use { input_bound, presumed, output }),
        6 => (any::<usize>(), 0_u32..6, 0_u64..2_000, prop_oneof![3 => Just(0), 1 => 0_u64..3_000], 0_u64..3_000, any::<bool>()).prop_map(
            |(which, sequence, reported, input_bound, output, is_urgent)| Step::Extend { which, sequence, reported, input_bound, output, is_urgent }
        ),
        4 => (any::<usize>(), 0_u64..2_000, 0_u64..2_000, any::<bool>()).prop_map(
            |(which, input, output, by_limit)| Step::Finish { which, input, output, by_limit }
        ),
        1 => any::<usize>().prop_map(|which| Step::FinishAgain { which }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, own)| Step::Stop { which, own }),
        2 => prop_oneof![4 => 0_i64..40_000, 1 => Just(3 * 86_400_000), 1 => Just(5 * 86_400_000)].prop_map(|millis| Step::Wait { millis }),
        2 => limits().prop_map(Step::SetLimits),
        2 => (any::<bool>(), proptest::option::weighted(0.9, budget())).prop_map(|(agent, budget)| Step::SetAgent { agent, budget }),
        1 => (0..ZONES.len()).prop_map(|zone| Step::SetZone(ZONES[zone])),
        1 => Just(Step::Restart),
    ];
    (limits(), proptest::collection::vec(step, 1..40))
}

/// Both, and the turns that they let begin.
struct Both {
    object: World,
    rows: World,
    kept: Kept,
    desk: Desk<crate::world::Pool, Kept>,
    now: Timestamp,
    running: Vec<(Begin, Timestamp, u64, u64)>,
    ended: Vec<Record>,
    next: u128,
}

impl Both {
    async fn new(world: &World, limits: Value) -> Self {
        let (object, rows, kept) = (world.beside(limits.clone()).await, world.beside(limits).await, Kept::default());
        for world in [&object, &rows] {
            world.set_agent("a", 2_500, json!({})).await;
            world
                .set_agent(
                    "b",
                    1_000,
                    json!({ "maxCostUsdPerMonth": { "nano": 2_000_000 }, "maxTokensPerTurn": 2_000, "maxTokensPerHour": 6_000 }),
                )
                .await;
        }
        let desk = Desk::open(object.workspace.clone(), world.pool.clone(), kept.clone());
        Self { object, rows, kept, desk, now: START, running: vec![], ended: vec![], next: 0 }
    }

    /// Both are asked; what they answer is the same.
    async fn ask(&self, ask: impl Fn() -> Ask) -> Answer {
        let (one, other) = (self.desk.answer(ask(), self.now).await, self.rows.counter().ask(&ask(), self.now).await);
        assert_eq!(told(&one), told(&other), "the object (left) and the rows (right) on {:?}", ask());
        other
    }

    async fn take(&mut self, step: &Step) {
        let pick = |which: usize, of: usize| (of > 0).then(|| which % of);
        match step {
            Step::Begin { agent, message, key, hash } => {
                self.next += 1;
                let begin = Begin {
                    agent_id: if *agent { "a" } else { "b" }.to_owned().try_into().unwrap(),
                    message: "m".repeat(*message),
                    idempotency_key: key.map(|key| format!("key{key}")),
                    request_hash: if *hash { "h" } else { "other" }.into(),
                    ..begin(self.next)
                };
                if let Answer::Begun(begun) = self.ask(|| Ask::Begin(Box::new(begin.clone()))).await {
                    self.running.push((begin, begun.started_at, begun.input_bound, begun.output));
                }
            }
            Step::Use { input_bound, presumed, output } => {
                self.next += 1;
                let begin = use_of(self.next, UseKind::Embedding, (*input_bound, *presumed, *output));
                if let Answer::Begun(begun) = self.ask(|| Ask::Begin(Box::new(begin.clone()))).await {
                    self.running.push((begin, begun.started_at, begun.input_bound, begun.output));
                }
            }
            Step::Extend { which, sequence, reported, input_bound, output, is_urgent } => {
                if let Some(n) = pick(*which, self.running.len()) {
                    let turn_id = self.running[n].0.turn_id;
                    let (progress, sequence, input_bound, output, is_urgent) =
                        (usage(10, *reported), *sequence, *input_bound, *output, *is_urgent);
                    let ask = || Ask::Extend(Extend { turn_id, sequence, progress, input_bound, output, is_urgent });
                    if let Answer::Extended(extended) = self.ask(ask).await {
                        self.running[n].3 = extended.output;
                    }
                }
            }
            Step::Finish { which, input, output, by_limit } => {
                if let Some(n) = pick(*which, self.running.len()) {
                    let (begin, started_at, most_input, most_output) = self.running.remove(n);
                    let usage = usage(*input.min(&most_input), *output.min(&most_output));
                    let of = if begin.no_turn.is_some() { used } else { record };
                    let mut record = of(&begin, started_at, usage, PRICE.cost(&usage).unwrap().0, self.now);
                    if *by_limit && record.kind.is_none() {
                        record.finish_reason = Some("quota".into());
                    }
                    self.ask(|| Ask::Finish(Box::new(record.clone()))).await;
                    self.ended.push(record);
                }
            }
            Step::FinishAgain { which } => {
                if let Some(n) = pick(*which, self.ended.len()) {
                    self.ask(|| Ask::Finish(Box::new(self.ended[n].clone()))).await;
                }
            }
            Step::Stop { which, own } => {
                let turn_id = pick(*which, self.running.len()).map_or(turn(0), |n| self.running[n].0.turn_id);
                let subject = Some(if *own { "u" } else { "somebody else" }.to_owned());
                self.ask(|| Ask::Stop(Stop { turn_id, subject: subject.clone(), guest: None })).await;
            }
            Step::Wait { millis } => self.wait(*millis).await,
            Step::SetLimits(limits) => {
                self.object.set_limits(limits.clone()).await;
                self.rows.set_limits(limits.clone()).await;
            }
            Step::SetAgent { agent, budget } => {
                let (agent, output) = if *agent { ("a", 2_500) } else { ("b", 1_000) };
                for world in [&self.object, &self.rows] {
                    match budget {
                        Some(budget) => world.set_agent(agent, output, budget.clone()).await,
                        None => world.remove_agent(agent).await,
                    }
                }
            }
            Step::SetZone(zone) => {
                self.object.set_zone(zone).await;
                self.rows.set_zone(zone).await;
            }
            Step::Restart => {
                self.wait(61_000).await;
                self.desk = Desk::open(self.object.workspace.clone(), self.object.pool.clone(), self.kept.clone());
            }
        }
        self.desk.sweep();
        // The first to come ends what has expired: on rows this ask, in the object its alarm.
        self.ask(|| Ask::Status).await;
        self.rows.check().await;
    }

    async fn wait(&mut self, millis: i64) {
        self.now = self.now.plus_millis(millis);
        if self.desk.wake_at(self.now).is_some_and(|at| at <= self.now) {
            self.desk.wake(self.now).await;
        }
    }

    /// What is written down is the same. (Turns that expire together are ended in another order, so what was used at a mark may differ.)
    async fn ledgers(&self) {
        let sql = "SELECT json_agg(json_build_array(l.turn_id, l.kind, l.cost_usd, l.input_tokens, l.output_tokens, l.source, l.turn_started_at, l.embedding_tokens) \
                   ORDER BY l.turn_id, l.kind DESC) FROM ledger l WHERE l.workspace_id = $1";
        let sql = format!("SELECT COALESCE(({sql})::text, 'none')");
        assert_eq!(self.object.text(&sql).await, self.rows.text(&sql).await);
        let sql = "SELECT COALESCE(string_agg(concat_ws(' ', e.limit_name, e.scope, e.starts_at, e.mark, e.max), ', ' \
                   ORDER BY e.limit_name, e.scope, e.starts_at, e.mark), 'none') FROM quota_events e WHERE e.workspace_id = $1";
        assert_eq!(self.object.text(sql).await, self.rows.text(sql).await);
    }
}

/// What of an answer must be the same.
fn told(answer: &Answer) -> Value {
    match answer {
        Answer::Begun(begun) => {
            json!([begun.started_at, begun.input_bound, begun.output, begun.max_output, begun.bounded_by_budget, begun.quota])
        }
        Answer::Denied(why) => {
            let why: Value = serde_json::from_str(why.get()).unwrap();
            // The object says so by itself for a minute, then the database does: the same to whoever asked.
            if why["outcome"] == "key_reused" {
                return told(&Answer::KeyReused);
            }
            json!([why["outcome"], why["replayTurn"], why["replay"]["content"]])
        }
        // Each has a ledger of its own, so the receipts differ.
        Answer::Finished(finished) => json!([finished.saved, finished.quota, finished.receipt.is_some()]),
        other => serde_json::to_value(other).unwrap(),
    }
}

#[test]
#[ignore = "needs a database"]
fn an_object_and_rows_answer_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new(1, json!({})));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60),
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&steps(), |(limits, steps)| {
        runtime.block_on(async {
            let mut both = Both::new(&world, limits).await;
            for step in &steps {
                both.take(step).await;
            }
            both.wait(40 * 86_400_000).await;
            both.ask(|| Ask::Status).await;
            both.ledgers().await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
#[ignore = "needs a database"]
async fn an_agent_without_limits_has_none_and_one_that_is_gone_has_those_that_it_had() {
    let mut both = Both::new(&World::new(1, json!({})).await, json!({ "maxTokensPerMonth": 60_000 })).await;
    let steps = async |both: &mut Both, budget: Option<Value>, output: u64| {
        both.take(&Step::SetAgent { agent: true, budget }).await;
        let sequence = u32::try_from(output).unwrap();
        let turn = |which| Step::Extend { which, sequence, reported: 1, input_bound: 0, output, is_urgent: false };
        both.take(&turn(0)).await;
        both.running[0].3
    };
    both.take(&Step::Begin { agent: true, message: 10, key: None, hash: true }).await;
    let input = both.running[0].2;
    assert_eq!(steps(&mut both, Some(json!({ "maxTokensPerDay": 500 })), 1_000).await, 500 - input, "new");
    assert_eq!(steps(&mut both, None, 1_001).await, 500 - input, "gone");
    assert_eq!(steps(&mut both, Some(json!({ "maxTokensPerMonth": 600 })), 1_002).await, 600 - input, "another");
    assert!(steps(&mut both, Some(json!({})), 1_003).await >= 1_003, "none");
}

#[tokio::test]
#[ignore = "needs a database"]
async fn what_memory_gives_to_a_turn_is_the_same_from_both() {
    let both = Both::new(&World::new(1, json!({})).await, json!({})).await;
    for world in [&both.object, &both.rows] {
        let id = world.workspace.as_str();
        world
            .admin_run(
                "SELECT astra.create_memory_schema(e.of) FROM (SELECT astra.enter($1) AS of OFFSET 0) e",
                &[&proof(&world.workspace)],
            )
            .await;
        world.admin_run("INSERT INTO memory_settings VALUES ($1, '{\"provider\":\"openai\",\"model\":\"m\",\"dimensions\":384}', 3, NULL, NULL, now())", &[id]).await;
        for (n, (content, user)) in [("plum", None), ("prune", Some("u")), ("pear", Some("somebody else"))].into_iter().enumerate() {
            let sql = format!(
                "INSERT INTO \"mem_{id}\".memories (id, kind, content, embedding, hash, user_id, created_at, updated_at)
                 VALUES ('00000000-0000-7000-8000-00000000000{n}', 'fact', $1, ('[1' || repeat(',0', 383) || ']')::vector, $1, {}, '2026-01-01Z', '2026-01-01Z')",
                user.map_or_else(|| "NULL".to_owned(), |user| format!("'{user}'"))
            );
            world.admin_run(&sql, &[content]).await;
        }
    }
    let recall = |generation| Recall {
        subject: "u".into(),
        message: "fruit".into(),
        embedding: Some(format!("[1{}]", ",0".repeat(383))),
        generation: Some(generation),
        said: None,
        sure: Vec::new(),
        top_k: 5,
    };
    let said = async |generation| match both.ask(|| Ask::Recall(Box::new(recall(generation)))).await {
        Answer::Recalled(document) => serde_json::from_str::<Value>(document.get()).unwrap(),
        other => panic!("{other:?}"),
    };
    let found = said(3).await;
    let contents: Vec<_> = found.as_array().unwrap().iter().map(|memory| memory["content"].as_str().unwrap()).collect();
    assert_eq!(contents, ["plum", "prune"]);
    assert_eq!(said(2).await, Value::Null);
}
