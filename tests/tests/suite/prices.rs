//! Prices: long prompts, a plan's mark-up, a period priced again. What is counted is the model server's, what it costs is reckoned here by hand.

use astra_tests::workspace::unique;
use astra_tests::{Aimock, Api, Db, Scripted, Workspace, db, scripted, template, wait, workspace};
use serde_json::{Value, json};
use std::time::Duration;

/// A workspace whose agent is on a model of its own name at a model server of the tests, and that name.
async fn on_a_model_of_its_own(mock: &Aimock) -> (Workspace, String) {
    on_a_model_at(&mock.openai()).await
}

async fn on_a_model_at(endpoint: &str) -> (Workspace, String) {
    let model = unique("model");
    let mut agent = template::openai("assistant", endpoint);
    agent["model"]["modelId"] = model.as_str().into();
    let ws = Workspace::with(&workspace::roomy(), &[agent]).await;
    ws.put_secret("OPENAI_API_KEY", &astra_tests::canary::key()).await;
    (ws, model)
}

async fn put_price(model: &str, more: Value) -> Value {
    let mut price = json!({ "provider": "openai", "model": model, "inputUsdPerMtok": 1, "cachedInputUsdPerMtok": 0.1, "outputUsdPerMtok": 10, "validFrom": "2020-01-01T00:00:00Z" });
    price.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Api::operator().put("/billing/prices", &price).await.ok(200)
}

fn long() -> Value {
    json!({ "aboveTokens": 1000, "inputUsdPerMtok": 2, "cachedInputUsdPerMtok": 0.2, "outputUsdPerMtok": 15 })
}

#[tokio::test]
async fn a_long_prompt_is_charged_its_own_prices_and_held_by_them() {
    let mock = Aimock::start().await;
    mock.answer("edge", "At it.", 1000, 100).await;
    mock.answer("beyond", "Over it.", 1001, 100).await;
    let (ws, model) = on_a_model_of_its_own(&mock).await;
    put_price(&model, json!({ "longContext": long() })).await;
    assert_eq!(ws.turn("edge").await.ok(200)["costNanoUsd"], 1000 * 1000 + 100 * 10_000);
    assert_eq!(ws.turn("beyond").await.ok(200)["costNanoUsd"], 1001 * 2000 + 100 * 15_000);
    let db = Db::connect().await;
    assert_eq!(db::nano(&db.ledger(&ws.id).await), 2_000_000 + 3_502_000);
    // A budget that pays for a prompt of 1,500 bytes at the usual price and not at that of long ones: the bound may be long, so it is held as long.
    let tight = |usd: f64| json!({ "maxCostUsdPerMonth": usd });
    let words = "x".repeat(1500);
    ws.patch_limits(&tight(0.005_502 + 0.002)).await;
    let problem = ws.turn(&words).await.problem(429, "quota_exceeded");
    assert_eq!(problem["limit"], "maxCostUsdPerMonth");
    ws.patch_limits(&tight(0.005_502 + 0.5)).await;
    mock.answer(&words, "Enough.", 900, 1).await;
    assert_eq!(ws.turn(&words).await.ok(200)["costNanoUsd"], 900 * 1000 + 10_000, "what is charged is what the provider counted");
}

#[tokio::test]
async fn prices_of_long_prompts_are_listed_and_may_not_be_lower() {
    let model = unique("model");
    let version = put_price(&model, json!({ "longContext": long(), "source": "https://example.com/prices" })).await["version"].clone();
    assert_eq!(
        put_price(&model, json!({ "longContext": long(), "source": "https://example.com/prices" })).await["version"],
        version,
        "said twice is one version"
    );
    let listed = Api::operator().get("/billing/prices").await.ok(200);
    let row = listed["data"].as_array().unwrap().iter().find(|row| row["model"] == model.as_str()).unwrap().clone();
    assert_eq!(
        row["longContext"],
        json!({ "aboveTokens": 1000, "inputNanoUsdPerMtok": 2_000_000_000, "cachedInputNanoUsdPerMtok": 200_000_000, "outputNanoUsdPerMtok": 15_000_000_000_i64 })
    );
    assert_eq!(row["source"], "https://example.com/prices");
    for (field, pointer) in [("inputUsdPerMtok", 0.9), ("cachedInputUsdPerMtok", 0.09), ("outputUsdPerMtok", 9.9)].map(|(field, value)| {
        let mut long = long();
        long[field] = json!(value);
        (long, format!("/longContext/{field}"))
    }) {
        let body = json!({ "provider": "openai", "model": model, "inputUsdPerMtok": 1, "cachedInputUsdPerMtok": 0.1, "outputUsdPerMtok": 10, "longContext": field });
        let problem = Api::operator().put("/billing/prices", &body).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    // What comes along says where it is from.
    let seeded = listed["data"].as_array().unwrap().iter().find(|row| row["model"] == "claude-haiku-5-5").expect("the book has it");
    assert_eq!(
        (&seeded["longContext"]["aboveTokens"], seeded["source"].as_str().map(|source| source.starts_with("https://"))),
        (&json!(100_000), Some(true))
    );
}

#[tokio::test]
async fn a_plans_mark_up_is_charged_from_then_on_and_limits_go_by_the_cost() {
    let mock = Aimock::start().await;
    mock.answer("mark", "Up.", 7, 3).await;
    let (ws, model) = on_a_model_of_its_own(&mock).await;
    put_price(&model, json!({})).await;
    let plan = format!("/plans/{}", ws.plan);
    let cost = 7 * 1000 + 3 * 10_000;
    ws.turn("mark one").await.ok(200);
    let said = ws.operator.put(&plan, &json!({ "carryOver": false, "markupBasisPoints": 1234 })).await.ok(200);
    assert_eq!(said["markupBasisPoints"], 1234);
    ws.turn("mark two").await.ok(200);
    assert_eq!(ws.operator.put(&plan, &json!({ "carryOver": true })).await.ok(200)["markupBasisPoints"], 1234, "what is not said stays");
    let _ = ws.operator.put(&plan, &json!({ "carryOver": false, "markupBasisPoints": -10_000 })).await.expect(200);
    ws.turn("mark three").await.ok(200);
    let entries = ws.owner.get(&ws.path("/ledger")).await.ok(200);
    let said: Vec<_> = entries["data"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|entry| {
            (entry["costNanoUsd"].as_i64().unwrap(), entry["chargeNanoUsd"].as_i64().unwrap(), entry["markupBasisPoints"].as_i64().unwrap())
        })
        .collect();
    // 37,000 x 1.1234 = 41,565.8.
    assert_eq!(said, [(cost, cost, 0), (cost, 41_566, 1234), (cost, 0, -10_000)]);
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], 3 * cost);
    for bad in [-10_001, 1_000_001] {
        let problem = ws.operator.put(&plan, &json!({ "carryOver": false, "markupBasisPoints": bad })).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], "/markupBasisPoints");
    }
}

#[tokio::test]
async fn a_workspaces_own_mark_up_takes_the_place_of_its_plans() {
    let ws = Workspace::local().await;
    let plan = json!({ "carryOver": false, "extraction": "off", "markupBasisPoints": 1000 });
    ws.operator.put(&format!("/plans/{}", ws.plan), &plan).await.ok(200);
    let set = async |points: &Value| ws.operator.patch(&ws.path(""), &json!({ "markupBasisPoints": points })).await;
    let mut expected = Vec::new();
    for (points, is) in [(json!(2500), 2500), (json!(0), 0), (json!(-10_000), -10_000), (Value::Null, 1000)] {
        assert_eq!(set(&points).await.ok(200)["markupBasisPoints"], points);
        let cost = ws.turn("what is it?").await.ok(200)["costNanoUsd"].as_i64().unwrap();
        expected.push((is, (cost * (10_000 + is) + 5_000) / 10_000));
    }
    let entries = ws.owner.get(&ws.path("/ledger")).await.ok(200);
    let charged = entries["data"].as_array().unwrap().iter().rev();
    let charged: Vec<_> =
        charged.map(|entry| (entry["markupBasisPoints"].as_i64().unwrap(), entry["chargeNanoUsd"].as_i64().unwrap())).collect();
    assert_eq!(charged, expected);
    // It is the operator's to set and to be told; what does not fit changes nothing.
    set(&json!(7)).await.ok(200);
    ws.owner.patch(&ws.path(""), &json!({ "markupBasisPoints": 0 })).await.problem(403, "forbidden");
    assert_eq!(ws.owner.get(&ws.path("")).await.ok(200)["markupBasisPoints"], Value::Null);
    for bad in [json!(-10_001), json!(1_000_001), json!("7"), json!(0.5)] {
        let problem = set(&bad).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], "/markupBasisPoints", "{bad}");
    }
    assert_eq!(ws.operator.get(&ws.path("")).await.ok(200)["markupBasisPoints"], 7);
}

/// The tier that a call asked for, and what was answered to an extraction: `None` refuses it with a status.
type Served = fn(Option<&str>) -> Result<&'static str, u16>;

/// A workspace whose conversations are read at batch rates, where the model server serves extractions as it likes; one has been read. The server, the workspace, its model, and the
/// extraction's entry in the ledger.
async fn read_as_a_batch(batch: Value, tier_of: Served) -> (Scripted, Workspace, String, Value) {
    const SOON: Duration = Duration::from_secs(30);
    let server = Scripted::directed(move |_, body| {
        if !is_extraction(body) {
            return scripted::answer(&["Noted."], 0, 20, 3);
        }
        match tier_of(body["service_tier"].as_str()) {
            Ok(tier) => {
                let mut acts = scripted::answer(&[r#"{"memories":[]}"#], 0, 1000, 100);
                acts.insert(1, scripted::tier(tier));
                acts
            }
            Err(status) => vec![
                scripted::Act::Head(status, &[("content-type", "application/json")]),
                scripted::Act::Chunk("{}".to_owned()),
                scripted::Act::End,
            ],
        }
    })
    .await;
    let (ws, model) = on_a_model_at(&server.openai()).await;
    put_price(&model, json!({})).await;
    put_price(&model, batch).await;
    let plan = ws.operator.put(&format!("/plans/{}", ws.plan), &json!({ "carryOver": false, "extraction": "batch" })).await.ok(200);
    assert_eq!(plan["extraction"], "batch");
    ws.turn("remember that I like tea").await.ok(200);
    let db = Db::connect().await;
    let entry = wait::until("the conversation to be read", SOON, async || {
        // No job waits for its time, and a request that makes a job begins those that wait.
        db.run(&format!("UPDATE jobs SET run_at = now() - interval '1 second' WHERE workspace_id = '{}' AND lease IS NULL", ws.id)).await;
        ws.owner
            .request(http::Method::PUT, &ws.path(&format!("/documents/{}", unique("kick"))))
            .body("text/plain", unique("kick"))
            .send()
            .await
            .ok(202);
        let ledger = db.ledger(&ws.id).await;
        ledger.iter().find(|entry| entry["kind"] == "extraction" && entry["input_tokens"] != 0).cloned().ok_or(ledger)
    })
    .await;
    (server, ws, model, entry)
}

fn is_extraction(body: &Value) -> bool {
    body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().contains(r#""role":"user""#)
}

/// The tiers that the extractions asked for.
fn asked(server: &Scripted) -> Vec<Value> {
    server.calls().into_iter().filter(|call| is_extraction(&call.body)).map(|call| call.body["service_tier"].clone()).collect()
}

/// Half of the standard price, but for its own cached rate.
fn half() -> Value {
    json!({ "tier": "batch", "inputUsdPerMtok": 0.5, "cachedInputUsdPerMtok": 0.05, "outputUsdPerMtok": 5 })
}

const STANDARD: i64 = 1000 * 1000 + 100 * 10_000;

#[tokio::test]
async fn an_extraction_that_was_served_as_a_batch_is_priced_by_the_batch_rates_and_so_again() {
    let (server, ws, model, entry) = read_as_a_batch(half(), |tier| if tier == Some("flex") { Ok("flex") } else { Ok("default") }).await;
    assert_eq!(asked(&server), ["flex"]);
    assert!(
        server.calls().iter().all(|call| is_extraction(&call.body) || call.body.get("service_tier").is_none()),
        "somebody waits for a turn"
    );
    assert_eq!((&entry["nano"], &entry["price_version"]), (&json!(STANDARD / 2), &json!(2)));
    let db = Db::connect().await;
    let turn = db.ledger(&ws.id).await.remove(0);
    let of_turn = 20 * 1000 + 3 * 10_000;
    assert_eq!((&turn["kind"], &turn["nano"], &turn["price_version"]), (&json!("turn"), &json!(of_turn), &json!(1)));
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], STANDARD / 2 + of_turn);
    // Another standard price is the turn's, another batch rate the extraction's.
    let body =
        json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "provider": "openai", "model": model, "dryRun": false });
    let nano = async |kind: &str| {
        db.ledger(&ws.id).await.iter().filter(|entry| entry["kind"] == kind).map(|entry| entry["nano"].as_i64().unwrap()).sum::<i64>()
    };
    let reprice = async || {
        let mut path = "/billing/reprice?limit=200".to_owned();
        loop {
            let page = ws.operator.post(&path, &body).await.ok(200);
            let Some(next) = page["nextCursor"].as_str() else { break };
            path = format!("/billing/reprice?limit=200&after={next}");
        }
    };
    put_price(&model, json!({ "tier": "batch", "inputUsdPerMtok": 0.25, "cachedInputUsdPerMtok": 0.05, "outputUsdPerMtok": 2.5 })).await;
    reprice().await;
    assert_eq!(nano("correction").await, STANDARD / 4 - STANDARD / 2);
    put_price(&model, json!({ "inputUsdPerMtok": 2, "outputUsdPerMtok": 20 })).await;
    reprice().await;
    assert_eq!(nano("correction").await, STANDARD / 4 - STANDARD / 2 + of_turn);
    assert_eq!(ws.operator.get(&ws.path("/ledger/verify")).await.ok(200)["ok"], true);
}

#[tokio::test]
async fn what_was_asked_for_as_a_batch_and_served_as_always_costs_what_it_always_does() {
    let (server, _ws, _model, entry) = read_as_a_batch(half(), |_| Ok("default")).await;
    assert_eq!(asked(&server), ["flex"]);
    assert_eq!((&entry["nano"], &entry["price_version"]), (&json!(STANDARD), &json!(1)));
}

#[tokio::test]
async fn a_provider_that_knows_no_batch_or_has_no_room_is_asked_as_always() {
    let (server, _ws, _model, entry) = read_as_a_batch(half(), |tier| if tier.is_some() { Err(400) } else { Ok("default") }).await;
    assert_eq!(asked(&server), [json!("flex"), Value::Null]);
    assert_eq!(entry["nano"], STANDARD);
    // Each of two tries is made three times; what was refused cost nothing.
    let (server, ws, _model, entry) = read_as_a_batch(half(), |tier| if tier.is_some() { Err(429) } else { Ok("default") }).await;
    assert_eq!((asked(&server).len(), asked(&server).pop()), (7, Some(Value::Null)));
    assert_eq!(entry["nano"], STANDARD);
    let spent: i64 = Db::connect()
        .await
        .ledger(&ws.id)
        .await
        .iter()
        .filter(|entry| entry["kind"] == "extraction")
        .map(|entry| entry["nano"].as_i64().unwrap())
        .sum();
    assert_eq!(spent, STANDARD);
}

#[tokio::test]
async fn a_batch_rate_that_is_dearer_in_any_class_is_not_asked_for() {
    let mut dearer = half();
    dearer["cachedInputUsdPerMtok"] = json!(0.11);
    let (server, _ws, _model, entry) = read_as_a_batch(dearer, |tier| if tier.is_some() { Ok("flex") } else { Ok("default") }).await;
    assert_eq!(asked(&server), [Value::Null], "what is held would not pay for it");
    assert_eq!((&entry["nano"], &entry["price_version"]), (&json!(STANDARD), &json!(1)));
}

#[tokio::test]
async fn batch_rates_are_listed_beside_the_standard_ones_and_price_no_turn() {
    let mock = Aimock::start().await;
    mock.answer("two tiers", "Yes.", 7, 3).await;
    let (ws, model) = on_a_model_of_its_own(&mock).await;
    assert_eq!(put_price(&model, half()).await["version"], 1);
    ws.turn("two tiers").await.problem(422, "model_unpriced");
    assert_eq!(put_price(&model, json!({})).await["version"], 2);
    assert_eq!(put_price(&model, half()).await["version"], 1, "each tier has its newest");
    assert_eq!(put_price(&model, json!({})).await["version"], 2);
    assert_eq!(ws.turn("two tiers").await.ok(200)["costNanoUsd"], 7 * 1000 + 3 * 10_000);
    let listed = Api::operator().get("/billing/prices").await.ok(200);
    let rows: Vec<_> = listed["data"].as_array().unwrap().iter().filter(|row| row["model"] == model.as_str()).collect();
    assert_eq!(
        rows.iter().map(|row| (row["tier"].as_str().unwrap(), row["version"].as_i64().unwrap())).collect::<Vec<_>>(),
        [("standard", 2), ("batch", 1)]
    );
    // The book's own are half of the standard ones.
    let of = |tier: &str| {
        listed["data"].as_array().unwrap().iter().find(|row| row["model"] == "claude-haiku-5-5" && row["tier"] == tier).unwrap()
    };
    for of_row in [
        |row: &Value| row["inputNanoUsdPerMtok"].as_i64().unwrap(),
        |row: &Value| row["longContext"]["outputNanoUsdPerMtok"].as_i64().unwrap(),
    ] {
        assert_eq!(2 * of_row(of("batch")), of_row(of("standard")));
    }
    let problem = Api::operator().put("/billing/prices", &json!({ "provider": "openai", "model": model, "tier": "flex", "inputUsdPerMtok": 1, "cachedInputUsdPerMtok": 1, "outputUsdPerMtok": 1 })).await;
    assert_eq!(problem.problem(422, "unprocessable")["errors"][0]["pointer"], "/tier");
}

#[tokio::test]
async fn a_charge_is_rounded_half_up_once() {
    let wrong = Db::connect()
        .await
        .number(
            "SELECT count(*) FROM generate_series(1, 2000) c, generate_series(-10000, 20000, 137) m
             WHERE astra.charge(c::numeric * 0.000000001, m) * 1000000000 <> div(c::numeric * (10000 + m) * 2 + 10000, 20000) AND $1 <> ''",
            &["x"],
        )
        .await;
    assert_eq!(wrong, 0, "integers say otherwise");
}

#[tokio::test]
async fn a_period_is_priced_again_once_and_everybody_says_the_same() {
    let mock = Aimock::start().await;
    mock.answer("again", "And again.", 50, 5).await;
    let (ws, model) = on_a_model_of_its_own(&mock).await;
    put_price(&model, json!({})).await;
    let _ = ws.operator.put(&format!("/plans/{}", ws.plan), &json!({ "carryOver": false, "markupBasisPoints": 5000 })).await.expect(200);
    let old = 50 * 1000 + 5 * 10_000;
    for n in 0..3 {
        assert_eq!(ws.turn(&format!("again {n}")).await.ok(200)["costNanoUsd"], old);
    }
    let reprice = async |dry: bool, from: &str| {
        let body = json!({ "from": from, "to": "2100-01-01T00:00:00Z", "provider": "openai", "model": model, "dryRun": dry });
        let mut path = "/billing/reprice?limit=200".to_owned();
        loop {
            let page = ws.operator.post(&path, &body).await.ok(200);
            if let Some(view) = page["data"].as_array().unwrap().iter().find(|view| view["workspaceId"] == ws.id.as_str()) {
                let of = |name: &str| view[name].as_i64().unwrap();
                return (of("lookedAt"), of("differ"), of("differenceNanoUsd"), of("entered"), of("unpriced"));
            }
            path = format!("/billing/reprice?limit=200&after={}", page["nextCursor"].as_str().expect("it is on some page"));
        }
    };
    let all = "2020-01-01T00:00:00Z";
    assert_eq!(reprice(false, all).await, (3, 0, 0, 0, 0), "nothing has changed");
    put_price(&model, json!({ "outputUsdPerMtok": 12, "inputUsdPerMtok": 0.5 })).await;
    let new = 50 * 500 + 5 * 12_000;
    assert_eq!(reprice(true, all).await, (3, 3, 3 * (new - old), 0, 0));
    assert_eq!(reprice(true, "2099-01-01T00:00:00Z").await, (0, 0, 0, 0, 0));
    let db = Db::connect().await;
    assert_eq!(db.ledger(&ws.id).await.len(), 3, "a dry run enters nothing");
    assert_eq!(reprice(false, all).await, (3, 3, 3 * (new - old), 3, 0));
    assert_eq!(reprice(false, all).await, (3, 0, 0, 0, 0), "once");
    let ledger = db.ledger(&ws.id).await;
    assert_eq!((ledger.len(), db::nano(&ledger)), (6, 3 * new));
    let charge = db.number("SELECT sum(charge_usd) * 1000000000 FROM ledger WHERE workspace_id = $1", &[&ws.id]).await;
    assert_eq!(charge, 3 * new * 3 / 2, "by the mark-up that they began with");
    let turns = db.turns(&ws.id).await;
    assert!(turns.iter().all(|turn| turn["nano"] == new && turn["price_version"] == 2), "{turns:?}");
    assert_eq!(ws.owner.get(&ws.path("/usage")).await.ok(200)["totalCostNanoUsd"], 3 * new);
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], 3 * new);
    assert_eq!(ws.operator.get(&ws.path("/ledger/verify")).await.ok(200)["ok"], true);
    ws.owner.post("/billing/reprice", &json!({ "from": all, "to": all })).await.problem(403, "forbidden");
    assert_eq!(
        ws.operator.post("/billing/reprice", &json!({ "from": all, "to": all })).await.problem(422, "unprocessable")["errors"][0]["pointer"],
        "/to"
    );
}

#[tokio::test]
async fn no_column_of_money_is_a_float() {
    let found = Db::connect()
        .await
        .rows(
            "SELECT table_name || '.' || column_name AS name FROM information_schema.columns
             WHERE table_schema = 'public' AND data_type IN ('real', 'double precision', 'money') AND $1 <> ''",
            &["x"],
        )
        .await;
    assert_eq!(found, Vec::<Value>::new(), "money is numeric or whole nano-dollars; nothing else here has parts either");
}
