//! Many turns of every kind at once, and after them all that tells what they cost tells the same: the model server's own journal times the price book, the ledger, the
//! guide's query, costs, usage, receipts and counters; and again after counters and roll-ups were made anew.
//!
//! Each message says how its call is to go, so that the journal knows what a call used, whoever reads the answer. `MIXED_TURNS` for more of them (`scripts/prove bill`).

use astra_tests::books::{Dice, call};
use astra_tests::scripted::{Act, OK, delta, done, finish};
use astra_tests::{Api, Db, Scripted, Stream, Workspace, canary, db, guide, template, wait};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Hundredths of a percent, by workspace. The last workspace has a budget that is too small for all that it asks.
const MARKUPS: [i64; 4] = [0, 2_000, 3_333, -1];
const TIGHT: usize = 3;
/// Of the small budget there are so many nano-dollars for each message of all.
const TIGHT_NANO: usize = 5_000;
/// Nano-dollars a million tokens, by phase: input, cached input, output. Odd, so that costs have to be rounded.
const PRICES: [[i64; 3]; 2] = [[123_456_700, 61_234_500, 654_321_900], [223_456_700, 11_234_500, 754_321_900]];

/// How a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// An answer and its count.
    Whole,
    /// The provider counts nothing at all, and says so.
    Zero,
    /// The connection ends in the middle.
    Cut,
    /// A refusal.
    Refused,
}

/// What a message tells the model server to do.
#[derive(Debug, Clone, Copy)]
struct Plan {
    number: usize,
    phase: usize,
    way: Way,
    /// Input, of it cached, output, of it reasoning.
    usage: [i64; 4],
}

impl Plan {
    fn throw(number: usize, phase: usize, dice: &mut Dice) -> Self {
        let way = dice.of(&[Way::Whole, Way::Whole, Way::Whole, Way::Whole, Way::Whole, Way::Whole, Way::Zero, Way::Cut, Way::Refused]);
        let mut some = |most| i64::try_from(dice.below(most)).unwrap();
        let (input, output) = (1 + some(60), 1 + some(90));
        Self { number, phase, way, usage: if way == Way::Zero { [0; 4] } else { [input, some(60) % input, output, some(90) % output] } }
    }

    fn message(&self) -> String {
        let [input, cached, output, reasoning] = self.usage;
        format!("mixed {} {} {:?} {input} {cached} {output} {reasoning} .", self.number, self.phase, self.way)
    }

    fn read(message: &str) -> Option<Self> {
        let mut words = message.split("mixed ").nth(1)?.split(' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        let (n, phase) = (number()?, number()?);
        let way = match words.next()? {
            "Whole" => Way::Whole,
            "Zero" => Way::Zero,
            "Cut" => Way::Cut,
            _ => Way::Refused,
        };
        let mut number = || words.next()?.parse::<i64>().ok();
        Some(Self {
            number: usize::try_from(n).ok()?,
            phase: usize::try_from(phase).ok()?,
            way,
            usage: [number()?, number()?, number()?, number()?],
        })
    }

    /// What a call asks for: no more output than it lets.
    fn of(body: &Value) -> Option<Self> {
        let said = body["messages"].as_array()?.last()?["content"].as_str()?;
        let mut plan = Self::read(said)?;
        let allowed = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| body[name].as_i64()).unwrap_or(i64::MAX);
        let [_, _, output, reasoning] = &mut plan.usage;
        *output = allowed.min(*output);
        *reasoning = (*output).min(*reasoning);
        Some(plan)
    }

    fn acts(&self) -> Vec<Act> {
        let pieces = [OK, delta("one "), Act::Pause(Duration::from_millis(10)), delta("two "), delta("three")];
        let [input, cached, output, reasoning] = self.usage;
        let count = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": {
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": { "cached_tokens": cached }, "completion_tokens_details": { "reasoning_tokens": reasoning } } });
        match self.way {
            Way::Whole | Way::Zero => {
                let end = [finish("stop"), Act::Chunk(format!("data: {count}\n\n"))];
                pieces.into_iter().chain(end).chain(done()).collect()
            }
            Way::Cut => pieces.into(),
            Way::Refused => vec![Act::Head(400, &[("content-type", "application/json")]), Act::Chunk("{}".into()), Act::End],
        }
    }

    /// What the call costs by the price book, when the server counts it so: the exact sum, rounded up once.
    fn nano(&self) -> i64 {
        nano(self.phase, self.usage)
    }
}

fn nano(phase: usize, [input, cached, output, _]: [i64; 4]) -> i64 {
    let [per_input, per_cached, per_output] = PRICES[phase];
    let exact = i128::from(input - cached) * i128::from(per_input)
        + i128::from(cached) * i128::from(per_cached)
        + i128::from(output) * i128::from(per_output);
    i64::try_from((exact + 999_999) / 1_000_000).unwrap()
}

/// Rounded half up, as docs/prices.md says.
fn charged(nano: i64, markup: i64) -> i64 {
    (nano * (10_000 + markup) + 5_000).div_euclid(10_000)
}

/// As a number of dollars in JSON, to the nano-dollar.
fn usd(nano: usize) -> Value {
    serde_json::from_str(&format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000)).unwrap()
}

async fn put_price(model: &str, phase: usize) {
    let [input, cached, output] = PRICES[phase].map(|nano| usd(usize::try_from(nano).unwrap()));
    let price = json!({ "provider": "openai", "model": model, "inputUsdPerMtok": input, "cachedInputUsdPerMtok": cached, "outputUsdPerMtok": output });
    Api::operator().put("/billing/prices", &price).await.ok(200);
}

/// Four workspaces that talk to one model server.
struct Houses {
    server: Scripted,
    /// What it is called in the price book.
    model: String,
    all: Vec<Workspace>,
    db: Db,
}

impl Houses {
    async fn build(tight: usize) -> Self {
        let server = Scripted::directed(|_, body| Plan::of(body).expect("a message of this test").acts()).await;
        let model = astra_tests::workspace::unique("mixed");
        put_price(&model, 0).await;
        let mut agent = template::openai("assistant", &server.openai());
        agent["model"]["modelId"] = model.as_str().into();
        agent["model"]["maxOutputTokens"] = 200.into();
        let mut all = Vec::new();
        for (n, markup) in MARKUPS.into_iter().enumerate() {
            let limits =
                json!({ "maxCostUsdPerMonth": if n == TIGHT { usd(tight) } else { json!(1_000) }, "maxTokensPerMonth": 1_000_000_000 });
            let ws = Workspace::with(&limits, &[agent.clone(), template::local("echo")]).await;
            ws.put_secret("OPENAI_API_KEY", &canary::key()).await;
            let plan = json!({ "carryOver": false, "extraction": "off", "markupBasisPoints": markup });
            ws.operator.put(&format!("/plans/{}", ws.plan), &plan).await.ok(200);
            all.push(ws);
        }
        // The first one's agent answers in the two that follow: it pays for the one, the other for itself.
        agent.as_object_mut().unwrap().remove("id");
        all[0].operator.put(&all[0].path("/agents/helper"), &agent).await.ok(200);
        for (receiver, payer) in [(1, "granter"), (2, "receiver")] {
            let body = json!({ "receivingWorkspaceId": all[receiver].id, "agentId": "helper", "payer": payer });
            all[0].owner.post(&all[0].path("/grants"), &body).await.ok(201);
        }
        Self { server, model, all, db: Db::connect().await }
    }

    /// One turn, asked for in one of the ways that there are.
    async fn ask(&self, plan: &Plan, dice: &mut Dice) {
        let house = plan.number % self.all.len();
        let ws = &self.all[house];
        let agent = if (house == 1 || house == 2) && dice.below(3) == 0 { "helper" } else { "assistant" };
        let agent = if dice.below(8) == 0 { "echo" } else { agent };
        let mut body = json!({ "agentId": agent, "message": plan.message() });
        let path = ws.path("/turns");
        match dice.below(5) {
            // Who only opens and goes, who reads a little and goes, who reads all.
            how @ 0..=2 => {
                if let Ok(mut stream) = Stream::try_open_with(&ws.member, &path, &body, &[]).await {
                    if how == 1 {
                        let _ = stream.try_next().await;
                        let _ = stream.try_next().await;
                    } else if how == 2 {
                        while let Ok(Some(_)) = stream.try_next().await {}
                    }
                }
            }
            3 => {
                let key = format!("mixed-{}", plan.number);
                let send = || ws.member.request(http::Method::POST, &path).header("idempotency-key", &key).json(&body).send();
                let (one, other) = futures_util::join!(send(), send());
                let again = send().await;
                let told: Vec<_> =
                    [one, other, again].iter().filter(|reply| reply.status == 200).map(|reply| reply.json()["turnId"].clone()).collect();
                assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "one key, two turns: {told:?}");
            }
            _ => {
                let first = ws.member.post(&path, &body).await;
                if first.status == 200 && agent == "echo" {
                    body["sessionId"] = first.json()["sessionId"].clone();
                    let _ = ws.member.post(&path, &body).await;
                }
            }
        }
    }

    /// Plays so many turns, some at a time, and waits until nothing runs any more.
    async fn play(&self, numbers: std::ops::Range<usize>, phase: usize) {
        futures_util::stream::iter(numbers)
            .for_each_concurrent(24, |number| async move {
                let mut dice = Dice::new(u64::try_from(number).unwrap());
                let plan = Plan::throw(number, phase, &mut dice);
                self.ask(&plan, &mut dice).await;
            })
            .await;
        for ws in &self.all {
            wait::until("all turns to end", Duration::from_mins(1), async || match ws.held().await {
                0 => Ok(()),
                held => Err(held),
            })
            .await;
        }
    }
}

/// An entry's tokens: input, cached input, output, reasoning.
fn tokens(entry: &Value) -> [i64; 4] {
    ["input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"].map(|name| entry[name].as_i64().unwrap())
}

/// An entry's charge, nano-dollars.
const CHARGE: &str = "SELECT (charge_usd * 1000000000)::bigint AS charge, id FROM ledger WHERE workspace_id = $1";

impl Houses {
    /// Each entry is one call of the journal's, at the price of its time, or the estimate of a call without a count.
    async fn the_ledger_is_the_journal(&self) -> usize {
        let mut journal = BTreeMap::<usize, Vec<Plan>>::new();
        for plan in self.server.calls().iter().map(|call| Plan::of(&call.body).unwrap()).filter(|plan| plan.way != Way::Refused) {
            journal.entry(plan.number).or_default().push(plan);
        }
        assert!(journal.values().all(|calls| calls.len() == 1), "a call was made twice: {journal:?}");
        // Which message is which turn's; it is where the talk was, whoever paid.
        let mut plans = HashMap::new();
        for ws in &self.all {
            for message in self.db.messages(&ws.id).await.iter().filter(|message| message["role"] == "user") {
                if let Some(plan) = Plan::read(message["content"].as_str().unwrap()) {
                    let called = journal.get(&plan.number).map_or(plan, |calls| calls[0]);
                    plans.insert(message["turn_id"].as_str().unwrap().to_owned(), called);
                }
            }
        }
        let mut billed = BTreeMap::<usize, usize>::new();
        for (house, ws) in self.all.iter().enumerate() {
            let charges = self.db.rows(CHARGE, &[&ws.id]).await;
            for entry in self.db.ledger(&ws.id).await.iter().filter(|entry| entry["kind"] == "turn") {
                let (nano, markup) = (entry["nano"].as_i64().unwrap(), entry["markup_basis_points"].as_i64().unwrap());
                let charge = charges.iter().find(|row| row["id"] == entry["id"]).unwrap()["charge"].as_i64().unwrap();
                assert_eq!((markup, charge), (MARKUPS[house], charged(nano, MARKUPS[house])), "{entry}");
                if entry["model"] != self.model.as_str() {
                    continue;
                }
                let plan = plans.get(entry["turn_id"].as_str().unwrap()).unwrap_or_else(|| panic!("no message: {entry}"));
                *billed.entry(plan.number).or_default() += 1;
                assert_eq!(entry["price_version"], i64::try_from(plan.phase).unwrap() + 1, "{entry}");
                let [input, _, output, _] = tokens(entry);
                match (plan.way, entry["source"].as_str().unwrap()) {
                    (Way::Whole | Way::Zero, "provider") => assert_eq!((tokens(entry), nano), (plan.usage, plan.nano()), "{entry}"),
                    // Its budget was at its end, so it was ended before the count came: what came is charged.
                    (Way::Whole | Way::Zero, _) if house == TIGHT => assert_eq!(nano, self::nano(plan.phase, tokens(entry)), "{entry}"),
                    (Way::Cut, "estimated") => {
                        assert_eq!(nano, self::nano(plan.phase, tokens(entry)), "{entry}");
                        assert!(input > 0 && output > 0, "what came is charged: {entry}");
                    }
                    (Way::Refused, _) => assert_eq!(nano, 0, "a call that was refused costs nothing: {entry}"),
                    (way, source) => panic!("{way:?} by {source}: {entry}"),
                }
            }
        }
        for number in journal.keys() {
            assert_eq!(billed.get(number), Some(&1), "call {number} is in the ledger once");
        }
        journal.len()
    }

    /// All that tells what a month cost tells what the ledger does.
    async fn all_say_the_same(&self) {
        let month = guide::this_month().await;
        let by_guide = self.db.as_printed(guide::BILLING_SQL).await;
        let costs = all_pages(&Api::operator(), &format!("/billing/costs?month={month}&limit=200")).await;
        let keys = Api::anonymous().get("/.well-known/jwks.json").await.ok(200);
        for ws in &self.all {
            let ledger = self.db.ledger(&ws.id).await;
            let (cost, tokens) = (db::nano(&ledger), db::tokens(&ledger));
            let charge: i64 = self.db.rows(CHARGE, &[&ws.id]).await.iter().map(|row| row["charge"].as_i64().unwrap()).sum();

            let line = costs.iter().find(|line| line["workspaceId"] == ws.id.as_str()).expect("a line of costs");
            let cell = |name: &str| line[name].as_i64().unwrap();
            assert_eq!(
                (cell("totalCostNanoUsd"), cell("totalTokens"), cell("totalChargeNanoUsd")),
                (cost, tokens, charge),
                "costs: {line}"
            );

            let printed = by_guide.iter().find(|row| row[0].1.as_deref() == Some(&ws.id)).expect("a line of the guide's query");
            let printed: Vec<i64> =
                printed[2..5].iter().map(|(_, cell)| cell.as_ref().unwrap().replace('.', "").parse().unwrap()).collect();
            assert_eq!(printed, [cost, tokens, cell("sessions")], "the guide's query");

            let usage = ws.owner.get(&ws.path("/usage")).await.ok(200);
            let said = ["totalCostNanoUsd", "totalTokens", "totalChargeNanoUsd", "sessions"].map(|name| usage[name].as_i64().unwrap());
            assert_eq!(said, [cost, tokens, charge, cell("sessions")], "{usage}");

            let used = async |limit| ws.window(limit).await["used"].as_i64().unwrap();
            assert_eq!((used("maxCostUsdPerMonth").await, used("maxTokensPerMonth").await), (cost, tokens), "the counter");

            let receipts = all_pages(&ws.owner, &ws.path("/receipts?limit=200")).await;
            let mut sums = (0, 0);
            for receipt in &receipts {
                let said = super::ledger::claims(receipt["receipt"].as_str().unwrap(), &keys).expect("a good signature");
                sums = (sums.0 + said["costNanoUsd"].as_i64().unwrap(), sums.1 + said["chargeNanoUsd"].as_i64().unwrap());
            }
            assert_eq!((receipts.len(), sums), (ledger.len(), (cost, charge)), "receipts");
            let chain = ws.operator.get(&ws.path("/ledger/verify")).await.ok(200);
            assert_eq!(chain, json!({ "ok": true, "entries": ledger.len(), "brokenAt": null }));
        }
    }

    /// The counters compared with the ledger: none differs.
    async fn no_counter_drifted(&self) {
        let mut compared = 0;
        for ws in &self.all {
            // The page that begins with it.
            let mut before = ws.id.clone();
            before.pop();
            let page =
                Api::operator().request(http::Method::POST, &format!("/billing/reconcile?limit=2&after={before}")).send().await.ok(200);
            if let Some(found) = page["data"].as_array().unwrap().iter().find(|line| line["workspaceId"] == ws.id.as_str()) {
                assert_eq!(found["drift"], json!([]), "{found}");
                compared += 1;
            }
        }
        assert_eq!(compared, self.all.len());
    }

    /// Counters and roll-ups are thrown away.
    async fn forget_sums(&self) {
        for ws in &self.all {
            self.db.run(&format!("DELETE FROM quota_windows WHERE workspace_id = '{}'", ws.id)).await;
            call(&self.db, "op_usage_drop", &json!({ "workspaceId": ws.id })).await;
        }
    }
}

async fn all_pages(api: &Api, path: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}{after}")).await.ok(200);
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { return all };
        after = format!("&after={next}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_tells_what_a_month_cost_tells_the_same() {
    let turns = std::env::var("MIXED_TURNS").ok().map_or(240, |turns| turns.parse().expect("MIXED_TURNS is a number"));
    let houses = Houses::build(turns * TIGHT_NANO).await;
    houses.play(0..turns / 2, 0).await;
    put_price(&houses.model, 1).await;
    houses.play(turns / 2..turns, 1).await;
    let calls = houses.the_ledger_is_the_journal().await;
    assert!(calls > turns / 2, "{calls} calls of {turns} turns");

    // What the operator enters by hand is in all of them.
    let operator = Api::operator();
    let turn = houses.db.ledger(&houses.all[1].id).await[0]["turn_id"].clone();
    let correction = json!({ "turnId": turn, "reason": "counted twice", "outputTokens": 7, "reasoningTokens": 0, "costNanoUsd": 4_200, "chargeNanoUsd": 5_040 });
    operator.post(&houses.all[1].path("/ledger/corrections"), &correction).await.ok(201);
    let credit = json!({ "amountNanoUsd": 12_345, "reason": "an outage" });
    let post =
        operator.request(http::Method::POST, &houses.all[2].path("/ledger/credits")).header("idempotency-key", "mixed").json(&credit);
    post.send().await.ok(201);

    houses.all_say_the_same().await;
    houses.no_counter_drifted().await;
    let ids: Vec<_> = houses.all.iter().map(|ws| &ws.id).collect();
    call(&houses.db, "op_usage_roll", &json!({ "workspaces": ids })).await;
    houses.all_say_the_same().await;
    houses.forget_sums().await;
    houses.all_say_the_same().await;
    call(&houses.db, "op_usage_roll", &json!({ "workspaces": ids })).await;
    houses.all_say_the_same().await;

    let tight = db::nano(&houses.db.ledger(&houses.all[TIGHT].id).await);
    let limit = i64::try_from(turns * TIGHT_NANO).unwrap();
    assert!(tight <= limit && tight > limit / 2, "{tight} of {limit}");
    println!("{turns} messages, {calls} calls of the model; of the small budget of {limit} nano-dollars {tight} are used");
}
