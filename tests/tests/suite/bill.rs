//! What is told of a month: usage, costs, prices.

use astra_tests::books::{enter, entry};
use astra_tests::{Api, Db, Workspace, db, guide, proof};
use serde_json::{Value, json};

async fn usage(ws: &Workspace, query: &str) -> Value {
    ws.owner.get(&ws.path(&format!("/usage{query}"))).await.ok(200)
}

#[tokio::test]
async fn usage_costs_quota_and_ledger_tell_the_same() {
    let ws =
        Workspace::with(&json!({ "maxCostUsdPerMonth": 1, "maxTokensPerMonth": 100_000 }), &[astra_tests::template::local("assistant")])
            .await;
    let session = ws.turn("one").await.ok(200)["sessionId"].clone();
    ws.turn_in(&session, "two").await.ok(200);
    ws.turn("three").await.ok(200);
    let ledger = Db::connect().await.ledger(&ws.id).await;
    let (nano, tokens) = (db::nano(&ledger), db::tokens(&ledger));
    let month = guide::this_month().await;
    let said = usage(&ws, "").await;
    assert_eq!(said, usage(&ws, &format!("?month={month}")).await, "this month, unless told");
    let expected = json!([ws.id, month, tokens, 2, 3, nano]);
    assert_eq!(
        json!([said["workspaceId"], said["month"], said["totalTokens"], said["sessions"], said["turns"], said["totalCostNanoUsd"]]),
        expected
    );
    assert_eq!(said["inputTokens"].as_i64().unwrap() + said["outputTokens"].as_i64().unwrap(), tokens);
    for list in ["byAgent", "byModel"] {
        let sum: i64 = said[list].as_array().unwrap().iter().map(|row| row["totalCostNanoUsd"].as_i64().unwrap()).sum();
        assert_eq!(sum, nano, "{list}: {said}");
    }
    let costs = Api::operator().get(&format!("/billing/costs?month={month}&limit=200")).await.ok(200);
    if let Some(line) = costs["data"].as_array().unwrap().iter().find(|line| line["workspaceId"] == ws.id.as_str()) {
        assert_eq!(json!([line["totalCostNanoUsd"], line["totalTokens"], line["sessions"]]), json!([nano, tokens, 2]));
    }
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], nano);
    assert_eq!(ws.window("maxTokensPerMonth").await["used"], tokens);
    assert_eq!(usage(&ws, "?month=2020-02").await["turns"], 0);
    for bad in ["2026-13", "2026-1", "x", "2026-11-01", ""] {
        let reply = ws.owner.get(&ws.path(&format!("/usage?month={bad}"))).await;
        assert!([400, 422].contains(&reply.status), "{bad}: {reply:?}");
    }
}

#[tokio::test]
async fn kf24_a_turn_at_a_months_boundary_is_in_one_month() {
    let ws = Workspace::local().await;
    let db = Db::connect().await;
    let times = ["2025-12-31 23:59:59.999+00", "2026-01-01 00:00:00+00", "2026-01-31 23:59:59.999999+00", "2026-02-01 00:00:00+00"];
    for time in times {
        enter(
            &db,
            &ws.id,
            &[entry("turn", time, &json!({ "input_tokens": 1, "output_tokens": 1, "cost_usd": "0.001", "charge_usd": "0.001" }))],
        )
        .await;
    }
    for (month, turns) in [("2025-11", 0), ("2025-12", 1), ("2026-01", 2), ("2026-02", 1), ("2026-03", 0)] {
        let said = usage(&ws, &format!("?month={month}")).await;
        assert_eq!((&said["turns"], &said["totalCostNanoUsd"]), (&json!(turns), &json!(turns * 1_000_000)), "{month}");
        let costs = Api::operator().get(&format!("/billing/costs?month={month}&limit=200")).await.ok(200);
        let line = costs["data"].as_array().unwrap().iter().find(|line| line["workspaceId"] == ws.id.as_str());
        assert_eq!(line.map_or(0, |line| line["sessions"].as_i64().unwrap()), turns, "{month}: {line:?}");
    }
}

#[tokio::test]
async fn costs_are_the_operators_and_usage_is_for_those_who_may_see_the_bill() {
    let ws = Workspace::local().await;
    for who in [&ws.owner, &ws.user("a", "admin").await, &ws.member] {
        who.get("/billing/costs").await.problem(403, "forbidden");
    }
    ws.user("a", "admin").await.get(&ws.path("/usage")).await.ok(200);
    ws.member.get(&ws.path("/usage")).await.problem(403, "forbidden");
}

#[tokio::test]
async fn costs_page_dearest_first() {
    let (small, large) = (Workspace::local().await, Workspace::local().await);
    small.turn("x").await.ok(200);
    large.turn(&"x y z ".repeat(200)).await.ok(200);
    let (mut path, mut last, mut order, mut pages) = ("/billing/costs?limit=3".to_owned(), i64::MAX, Vec::new(), 0);
    while pages < 2000 {
        let page = Api::operator().get(&path).await.ok(200);
        for line in page["data"].as_array().unwrap() {
            let nano = line["totalCostNanoUsd"].as_i64().unwrap();
            assert!(nano <= last, "dearest first");
            last = nano;
            order.push(line["workspaceId"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = format!("/billing/costs?limit=3&after={}", next.replace(':', "%3A"));
        pages += 1;
    }
    let place = |ws: &Workspace| order.iter().position(|id| *id == ws.id).expect("it is in the list");
    assert!(place(&large) < place(&small));
}

#[tokio::test]
async fn prices_are_the_operators_and_have_versions() {
    let ws = Workspace::local().await;
    let model = astra_tests::workspace::unique("model");
    let price = |output: f64| json!({ "provider": "openai", "model": model, "inputUsdPerMtok": 0.15, "cachedInputUsdPerMtok": 0.075, "outputUsdPerMtok": output });
    for who in [&ws.owner, &ws.member] {
        who.put("/billing/prices", &price(1.0)).await.problem(403, "forbidden");
        who.get("/billing/prices").await.problem(403, "forbidden");
    }
    let put = async |output: f64| Api::operator().put("/billing/prices", &price(output)).await.ok(200)["version"].clone();
    assert_eq!((put(1.0).await, put(1.0).await, put(2.0).await), (json!(1), json!(1), json!(2)));
    let listed = Api::operator().get("/billing/prices").await.ok(200);
    let versions: Vec<_> =
        listed["data"].as_array().unwrap().iter().filter(|row| row["model"] == model.as_str()).map(|row| row["version"].clone()).collect();
    assert_eq!(versions, [2, 1], "the newest first");
    Api::operator().put("/billing/prices", &price(-1.0)).await.problem(422, "unprocessable");
}

#[tokio::test]
async fn the_ledger_cannot_be_changed_by_any_role_of_the_product() {
    let ws = Workspace::local().await;
    ws.turn("written in stone").await.ok(200);
    let db = Db::connect().await;
    for role in ["astra_provision", "astra_invoke", "astra_quota", "astra_quota_inside", "astra_billing", "astra_operator", "astra_owner"] {
        for statement in ["UPDATE ledger SET cost_usd = 0", "DELETE FROM ledger", "TRUNCATE ledger"] {
            let sql = format!(
                "BEGIN; SELECT set_config('astra.proof', '{}', true); SET LOCAL ROLE {role};
                 DO $$ BEGIN {statement}; RAISE EXCEPTION 'it went through' USING ERRCODE = 'ZZ001'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$; ROLLBACK;",
                proof::of(&ws.id)
            );
            db.run(&sql).await;
        }
    }
    assert_eq!(db.ledger(&ws.id).await.len(), 1);
}
