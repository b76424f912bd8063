//! Roll-ups: whatever is rolled up, and whenever, an answer is the ledger's sum.

use astra_tests::books::{Dice, call, enter, entry};
use astra_tests::{Api, Db, Workspace, guide};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The operator's lines of a month, all pages of them.
async fn costs(month: &str) -> BTreeMap<String, Value> {
    let (mut lines, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = Api::operator().get(&format!("/billing/costs?month={month}&limit=200{after}")).await.ok(200);
        lines.extend(page["data"].as_array().unwrap().iter().map(|line| (line["workspaceId"].as_str().unwrap().to_owned(), line.clone())));
        let Some(next) = page["nextCursor"].as_str() else { return lines };
        after = format!("&after={next}");
    }
}

/// What the guide's query says, as printed: workspace, name, nano-dollars, tokens, conversations.
async fn by_the_guide(db: &Db) -> BTreeMap<String, (String, i64, i64, i64)> {
    let text = |cell: &(String, Option<String>)| cell.1.clone().unwrap();
    let rows = db.as_printed(guide::BILLING_SQL).await;
    rows.iter()
        .map(|row| {
            let nano = text(&row[2]).replace('.', "").parse().unwrap();
            assert_eq!(text(&row[2]).split_once('.').unwrap().1.len(), 9, "nano-dollars");
            (text(&row[0]), (text(&row[1]), nano, text(&row[3]).parse().unwrap(), text(&row[4]).parse().unwrap()))
        })
        .collect()
}

#[tokio::test]
async fn the_guides_query_and_the_costs_say_the_same_of_every_workspace() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/guide.md");
    if let Ok(printed) = std::fs::read_to_string(file) {
        assert!(printed.contains(guide::BILLING_SQL), "the query is the guide's");
    }
    let (db, month) = (Db::connect().await, guide::this_month().await);
    let mut own = Vec::new();
    for seed in 0..6 {
        let (ws, mut dice) = (Workspace::local().await, Dice::new(seed));
        for place in 0..3 {
            let session = ws.turn("first").await.ok(200)["sessionId"].clone();
            for _ in 0..dice.below(4) {
                ws.turn_in(&session, "again").await.ok(200);
            }
            let turn = entry("turn", "now()", &json!({}));
            let uses: Vec<Value> = (0..30)
                .map(|n| {
                    let kind = dice.of(&["turn", "turn", "embedding", "extraction"]);
                    let cost = format!("0.00000{:04}", dice.below(10_000));
                    let more = json!({ "input_tokens": dice.below(900), "output_tokens": dice.below(400), "cost_usd": cost, "charge_usd": cost,
                                       "session_id": if n % 3 == 0 { turn["session_id"].clone() } else { entry("turn", "now", &json!({}))["session_id"].clone() } });
                    entry(kind, "now", &more)
                })
                .collect();
            enter(&db, &ws.id, &uses).await;
            let corrected = json!({ "turn_id": uses[0]["turn_id"], "session_id": uses[0]["session_id"], "output_tokens": 7, "cost_usd": "0.000000123", "charge_usd": 0 });
            enter(&db, &ws.id, &[entry("correction", "now", &corrected), entry("credit", "now", &json!({ "charge_usd": "-1.5" }))]).await;
            if place == 1 {
                call(&db, "op_usage_roll", &json!({ "workspaces": [ws.id], "limit": 1 + dice.below(40) })).await;
            }
        }
        own.push(ws);
    }
    let gone = Workspace::local().await;
    gone.turn("gone").await.ok(200);
    let _ = gone.operator.delete(&gone.path("")).await.expect(200);
    // Others spend meanwhile: what is said of a workspace that has not changed is compared.
    for round in 0..2 {
        let (before, said, after) = (by_the_guide(&db).await, costs(&month).await, by_the_guide(&db).await);
        let mut compared = 0;
        for (id, line) in before.iter().filter(|(id, line)| after.get(*id) == Some(line)) {
            let found = said.get(id).unwrap_or_else(|| panic!("{id} is not in the list"));
            let figures = |name: &str| found[name].as_i64().unwrap();
            let of_api = (
                found["displayName"].as_str().unwrap().to_owned(),
                figures("totalCostNanoUsd"),
                figures("totalTokens"),
                figures("sessions"),
            );
            assert_eq!(of_api, *line, "{id}");
            compared += 1;
        }
        // One that came and went meanwhile is in neither.
        let there = db.rows("SELECT id FROM workspaces", &[]).await;
        let is_there = |id: &&String| there.iter().any(|row| row["id"] == id.as_str());
        let more: Vec<_> = said.keys().filter(is_there).filter(|id| !before.contains_key(*id) && !after.contains_key(*id)).collect();
        assert!(more.is_empty() && !said.contains_key(&gone.id), "listed and not in the guide's: {more:?}");
        assert!(own.iter().all(|ws| before[&ws.id] == after[&ws.id]) && compared >= own.len());
        for ws in &own {
            assert_eq!(
                said[&ws.id]["totalChargeNanoUsd"].as_i64().unwrap() - said[&ws.id]["totalCostNanoUsd"].as_i64().unwrap(),
                -4_500_000_000 - 3 * 123
            );
        }
        if round == 0 {
            let ids: Vec<_> = own.iter().map(|ws| &ws.id).collect();
            let rolled = call(&db, "op_usage_roll", &json!({ "workspaces": ids })).await;
            assert_eq!(rolled["left"], 0, "{rolled}");
        }
    }
}

/// All sums by one thing, from all pages.
async fn parts(ws: &Workspace, query: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = ws.owner.get(&ws.path(&format!("/usage?limit=3&{query}{after}"))).await.ok(200);
        all.extend(page["data"].as_array().unwrap().iter().map(|part| {
            json!([
                part["key"],
                part["turns"],
                part["inputTokens"],
                part["outputTokens"],
                part["embeddingTokens"],
                part["totalCostNanoUsd"],
                part["totalChargeNanoUsd"]
            ])
        }));
        let Some(next) = page["nextCursor"].as_str() else { return all };
        after = format!("&after={}", next.replace('/', "%2F").replace('+', "%2B"));
    }
}

/// The same as a plain sum over the ledger.
async fn plain(db: &Db, ws: &Workspace, key: &str, zone: &str, from: &str, to: &str) -> Vec<Value> {
    let by_day = key == "DAY";
    let order = if by_day { "key" } else { "cost DESC, key COLLATE \"C\"" };
    let day = format!("(l.turn_started_at AT TIME ZONE '{zone}')::date");
    let sql = format!(
        "SELECT s.key, s.turns, s.input, s.output, s.embedding, (s.cost * 1000000000)::bigint AS cost, (s.charge * 1000000000)::bigint AS charge FROM (
           SELECT ({})::text AS key, count(*) FILTER (WHERE l.kind = 'turn') AS turns, sum(l.input_tokens) AS input, sum(l.output_tokens) AS output, sum(l.embedding_tokens) AS embedding,
             sum(l.cost_usd) AS cost, sum(l.charge_usd) AS charge
           FROM ledger l WHERE l.workspace_id = $1 AND {day} BETWEEN $2::date AND $3::date GROUP BY 1) s ORDER BY {order}",
        key.replace("DAY", &day)
    );
    let rows = db.rows(&sql, &[&ws.id, from, to]).await;
    rows.iter().map(|r| json!([r["key"], r["turns"], r["input"], r["output"], r["embedding"], r["cost"], r["charge"]])).collect()
}

#[tokio::test]
async fn sums_are_the_ledgers_in_any_zone_and_however_far_they_are_rolled_up() {
    let db = Db::connect().await;
    // The ends of months and of summer time, to the microsecond; Kathmandu is 5:45 before UTC, Lord Howe's summer time is half an hour.
    let moments = [
        "2025-10-31 18:14:59.999999+00",
        "2025-10-31 18:15:00+00",
        "2025-11-01 03:59:59.999999+00",
        "2025-11-01 04:00:00+00",
        "2025-10-31 13:00:00+00",
        "2025-10-31 12:59:59+00",
        "2025-11-02 05:30:00+00",
        "2025-11-02 06:30:00+00",
        "2026-03-08 06:59:59+00",
        "2026-03-08 07:00:00+00",
        "2026-03-29 00:59:59+00",
        "2026-03-29 01:00:00+00",
        "2025-12-31 23:59:59.999999+00",
        "2026-01-01 00:00:00+00",
    ];
    for (seed, zone) in ["America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "UTC"].into_iter().enumerate() {
        let ws = Workspace::local().await;
        let mut dice = Dice::new(seed as u64 + 100);
        let zone_is = async |zone: &str| {
            ws.operator.patch(&ws.path(""), &json!({ "timeZone": zone })).await.ok(200);
        };
        zone_is(zone).await;
        let mut entered: Vec<Value> = Vec::new();
        for round in 0..6 {
            let batch: Vec<Value> = (0..20)
                .map(|_| {
                    let money = |dice: &mut Dice, sign: &str| format!("{sign}0.0{:08}", 1 + dice.below(99_999_999));
                    let said = json!({ "agent_id": dice.of(&["a", "b", "other/c"]), "model": dice.of(&["m1", "m2"]), "user_id": dice.of(&["ann", "bob", "zoë 1"]) });
                    let mut one = match dice.below(8) {
                        0 => entry("credit", dice.of(&moments), &json!({ "charge_usd": money(&mut dice, "-") })),
                        1 if !entered.is_empty() => {
                            let turn = dice.of(&entered);
                            let (at, session) = (turn["turn_started_at"].as_str().unwrap(), turn["session_id"].clone());
                            entry("correction", at, &json!({ "session_id": session, "input_tokens": -1, "output_tokens": 3, "cost_usd": money(&mut dice, "-"), "charge_usd": money(&mut dice, "") }))
                        }
                        2 => {
                            let tokens = dice.below(500);
                            entry("embedding", dice.of(&moments), &json!({ "input_tokens": tokens, "embedding_tokens": tokens, "cost_usd": money(&mut dice, "") }))
                        }
                        _ => entry("turn", dice.of(&moments), &json!({ "input_tokens": dice.below(900), "output_tokens": dice.below(900), "cost_usd": money(&mut dice, ""), "charge_usd": money(&mut dice, "") })),
                    };
                    one.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
                    one
                })
                .collect();
            enter(&db, &ws.id, &batch).await;
            entered.extend(batch.into_iter().filter(|e| e["kind"] == "turn"));
            let now_in = match round {
                // Days that were rolled up in another zone are of no use: until they are made anew the entries are read.
                3 => {
                    zone_is("Pacific/Auckland").await;
                    "Pacific/Auckland"
                }
                4 | 5 => "Pacific/Auckland",
                _ => zone,
            };
            if round != 3 {
                call(&db, "op_usage_roll", &json!({ "workspaces": [ws.id], "limit": ([7, 19, 500][round % 3]) })).await;
            }
            let (from, to) = dice.of(&[
                ("2025-10-01", "2025-10-31"),
                ("2025-11-01", "2025-11-30"),
                ("2025-01-01", "2026-12-31"),
                ("2026-01-01", "2026-03-08"),
            ]);
            for (by, key) in [
                ("day", "DAY"),
                ("agent", "l.agent_id"),
                ("user", "l.user_id"),
                ("model", "l.provider || '/' || l.model"),
                ("kind", "l.kind"),
            ] {
                let expected = plain(&db, &ws, key, now_in, from, to).await;
                assert_eq!(
                    parts(&ws, &format!("by={by}&from={from}&to={to}")).await,
                    expected,
                    "{zone}, round {round}: by {by}, {from} to {to}"
                );
            }
            let all = call(
                &db,
                "op_usage_by",
                &json!({ "by": "workspace", "from": from, "to": to, "now": "2026-06-01T00:00:00Z", "limit": 1000 }),
            )
            .await;
            let line = all["data"]
                .as_array()
                .unwrap()
                .iter()
                .find(|part| part["key"] == ws.id.as_str())
                .map_or(json!(0), |part| part["costNanoUsd"].clone());
            let expected = plain(&db, &ws, "l.workspace_id", now_in, from, to).await;
            assert_eq!(line, expected.first().map_or(json!(0), |row| row[5].clone()));
        }
    }
}

#[tokio::test]
async fn a_midnight_that_comes_twice_is_the_day_befores_until_its_second_coming() {
    let (db, ws) = (Db::connect().await, Workspace::local().await);
    ws.operator.patch(&ws.path(""), &json!({ "timeZone": "America/Havana" })).await.ok(200);
    // 2026-11-01 00:00 comes at 04:00 and at 05:00 UTC.
    let at = |time: &str| entry("turn", &format!("2026-11-01 {time}+00"), &json!({ "cost_usd": "0.000000001" }));
    enter(&db, &ws.id, &[at("03:59:59.999999"), at("04:00"), at("04:59:59.999999"), at("05:00"), at("05:00:00.000001")]).await;
    for _ in 0..2 {
        let days = parts(&ws, "by=day&from=2026-10-01&to=2026-11-30").await;
        assert_eq!(days.iter().map(|d| json!([d[0], d[1]])).collect::<Vec<_>>(), [json!(["2026-10-31", 3]), json!(["2026-11-01", 2])]);
        call(&db, "op_usage_roll", &json!({ "workspaces": [ws.id] })).await;
    }
}

/// All that is rolled up of a workspace.
async fn rolled(db: &Db, ws: &Workspace) -> Vec<Value> {
    let mut all = Vec::new();
    for table in ["usage_months", "usage_days", "usage_user_days", "usage_sessions", "usage_month_sessions", "usage_heads", "usage_guests"]
    {
        let rows = db.rows(&format!("SELECT t.* FROM {table} t WHERE t.workspace_id = $1 ORDER BY t"), &[&ws.id]).await;
        all.extend(rows.into_iter().map(|row| json!([table, row])));
    }
    all
}

#[tokio::test]
async fn roll_ups_that_were_dropped_are_made_again_as_they_were_while_turns_go_on() {
    let (db, ws) = (Db::connect().await, Workspace::local().await);
    let mut dice = Dice::new(7);
    let batch: Vec<Value> = (0..200)
        .map(|n| {
            let at = format!("2026-0{}-1{} 12:00+00", 1 + dice.below(9), dice.below(9));
            entry(if n % 9 == 0 { "embedding" } else { "turn" }, &at, &json!({ "input_tokens": n, "cost_usd": "0.000001", "user_id": dice.of(&["ann", "bob"]), "agent_id": dice.of(&["a", "b"]) }))
        })
        .collect();
    enter(&db, &ws.id, &batch).await;
    // Turns that somebody else has paid for.
    db.run(&format!(
        "WITH t AS (INSERT INTO turns (workspace_id, id, session_id, agent_id, user_id, status, provider, model, price_version, input_tokens, cached_input_tokens, output_tokens,
           reasoning_tokens, cost_usd, usage_source, idempotency_month, request_hash, created_at, ended_at)
         SELECT '{0}', gen_random_uuid(), gen_random_uuid(), 'other/c', 'ann', 'completed', 'local', 'echo-1', 1, 0, 0, 0, 0, 0, 'provider', '2020-01-01', 'h', '2026-03-01', '2026-03-01'
         FROM generate_series(1, 3) RETURNING *)
         INSERT INTO usage_guests SELECT t.workspace_id, t.id, t.session_id, t.agent_id, t.provider, t.model, t.created_at FROM t",
        ws.id
    ))
    .await;
    let march = async || ws.owner.get(&ws.path("/usage?month=2026-03")).await.ok(200);
    let without = |mut usage: Value| {
        usage.as_object_mut().unwrap().remove("notRolledUp");
        usage
    };
    let first = march().await;
    assert_eq!(first["notRolledUp"], 200);
    let all = json!({ "workspaces": [ws.id] });
    assert_eq!(call(&db, "op_usage_roll", &all).await["left"], 0);
    let (before, said) = (rolled(&db, &ws).await, march().await);
    assert_eq!((without(said.clone()), &said["notRolledUp"]), (without(first), &json!(0)));
    assert_eq!(
        said["sessions"].as_i64().unwrap(),
        said["turns"].as_i64().unwrap() + said_embeddings(&batch),
        "each of them is a conversation of its own"
    );

    // Nothing rolled up twice, by two at once, or in other portions makes a difference.
    call(&db, "op_usage_roll", &all).await;
    assert_eq!(rolled(&db, &ws).await, before);
    assert_eq!(call(&db, "op_usage_drop", &json!({ "workspaceId": ws.id })).await["outcome"], "ok");
    assert_eq!(without(march().await), without(said.clone()));
    let small = json!({ "workspaces": [ws.id], "limit": 33 });
    let (one, two) = (Db::connect().await, Db::connect().await);
    for _ in 0..8 {
        tokio::join!(call(&one, "op_usage_roll", &small), call(&two, "op_usage_roll", &small));
        assert_eq!(without(march().await), without(said.clone()));
    }
    assert_eq!(rolled(&db, &ws).await, before);

    // And while turns end.
    let month = guide::this_month().await;
    let turns = async {
        for n in 0..12 {
            ws.turn(&format!("turn {n}")).await.ok(200);
        }
    };
    let rebuilding = async {
        let mut least = 0;
        for _ in 0..6 {
            call(&one, "op_usage_drop", &json!({ "workspaceId": ws.id })).await;
            call(&one, "op_usage_roll", &small).await;
            let ledger = "SELECT count(*) FROM ledger WHERE workspace_id = $1 AND turn_started_at >= date_trunc('month', now())";
            let floor = one.number(ledger, &[&ws.id]).await;
            let said = ws.owner.get(&ws.path(&format!("/usage?month={month}"))).await.ok(200)["turns"].as_i64().unwrap();
            let ceiling = one.number(ledger, &[&ws.id]).await;
            assert!((floor..=ceiling).contains(&said) && said >= least, "{floor} <= {said} <= {ceiling}");
            least = said;
        }
    };
    tokio::join!(turns, rebuilding);
    call(&db, "op_usage_roll", &all).await;
    let (last, after) = (rolled(&db, &ws).await, ws.owner.get(&ws.path(&format!("/usage?month={month}"))).await.ok(200));
    call(&db, "op_usage_drop", &json!({ "workspaceId": ws.id })).await;
    call(&db, "op_usage_roll", &all).await;
    assert_eq!(rolled(&db, &ws).await, last);
    let nano = db
        .number(
            "SELECT sum(cost_usd) * 1000000000 FROM ledger WHERE workspace_id = $1 AND turn_started_at >= date_trunc('month', now())",
            &[&ws.id],
        )
        .await;
    assert_eq!(after["totalCostNanoUsd"], nano);
}

/// How many of a batch are embeddings in March.
fn said_embeddings(batch: &[Value]) -> i64 {
    let is_one = |e: &&Value| e["kind"] == "embedding" && e["turn_started_at"].as_str().unwrap().starts_with("2026-03");
    i64::try_from(batch.iter().filter(is_one).count()).unwrap()
}

#[tokio::test]
async fn a_workspace_that_is_made_again_has_nothing_of_the_one_before() {
    let (db, first) = (Db::connect().await, Workspace::local().await);
    first.turn("before").await.ok(200);
    call(&db, "op_usage_roll", &json!({ "workspaces": [first.id] })).await;
    let _ = first.operator.delete(&first.path("")).await.expect(200);
    let again = Workspace::named(&first.id, &astra_tests::workspace::roomy()).await;
    again.put_template(&[astra_tests::template::local("assistant")]).await;
    again.turn("after").await.ok(200);
    assert_eq!(db.ledger(&again.id).await.len(), 2);
    for _ in 0..2 {
        assert_eq!(again.owner.get(&again.path("/usage")).await.ok(200)["turns"], 1);
        assert_eq!(parts(&again, "by=agent").await.len(), 1);
        assert_eq!(parts(&again, "by=agent").await[0][1], 1);
        let (said, guide) = (costs(&guide::this_month().await).await, by_the_guide(&db).await);
        assert_eq!(said[&again.id]["totalTokens"], guide[&again.id].2);
        call(&db, "op_usage_roll", &json!({ "workspaces": [again.id] })).await;
    }
    assert_eq!(
        rolled(&db, &again).await.len(),
        8,
        "a head, a month, a day, a user, a conversation by itself and of its agent, and their counts"
    );
}
