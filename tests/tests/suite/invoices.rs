//! The month's close: what is invoiced is the ledger, each entry once, whatever comes in which order.
//!
//! In 2031, which the deployment's own job has nothing to do with.

use astra_tests::books::{Dice, call, enter, entry};
use astra_tests::{Api, Db, Receiver, Workspace, template, wait, workspace};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// Closes months of these workspaces, as if it were another time. A close of all of them, which another test has run at this moment, has their heads locked, and a close passes by what is locked: then once more.
async fn close(db: &Db, ids: &[&str], month: &str, now: &str) -> Value {
    let mut all = json!({});
    for _ in 0..20 {
        let mut said =
            call(db, "op_month_close", &json!({ "month": month, "now": now, "graceSeconds": 3600, "prefix": "T-", "workspaces": ids }))
                .await;
        for name in ["closed", "invoices", "early", "waiting"] {
            said[name] = json!(all[name].as_i64().unwrap_or(0) + said[name].as_i64().unwrap());
        }
        all = said;
        let sql = "SELECT count(*) FROM invoice_heads h WHERE h.workspace_id = ANY (string_to_array($1, ' ')) AND (h.month IS NULL OR h.month < ($2 || '-01')::date)
                   AND EXISTS (SELECT 1 FROM ledger l WHERE l.workspace_id = h.workspace_id AND l.seq > h.since_seq AND l.seq <= COALESCE(h.until_seq, l.seq))";
        if all["early"] != 0 || all["waiting"] != 0 || db.number(sql, &[&ids.join(" "), month]).await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    all
}

/// A workspace's invoices in the order of their numbers, with their lines.
async fn invoices(db: &Db, id: &str) -> Vec<Value> {
    let sql = "SELECT i.*, (SELECT jsonb_agg(to_jsonb(l) ORDER BY l.line) FROM invoice_lines l WHERE l.workspace_id = i.workspace_id AND l.number = i.number) AS lines,
                 (extract(epoch FROM i.ends_at) * 1000000)::bigint AS ends, (extract(epoch FROM i.previous_ends_at) * 1000000)::bigint AS previous_ends
               FROM invoices i WHERE i.workspace_id = $1 ORDER BY i.place";
    db.rows(sql, &[id]).await
}

/// Each invoice is the entries that it says it covers, none is covered twice; what is left is what no close has had. How many are left.
async fn assert_each_once(db: &Db, id: &str, what: &str) -> usize {
    let sql =
        "SELECT l.seq, (l.charge_usd * 1000000000)::bigint AS charge, (l.cost_usd * 1000000000)::bigint AS cost, l.input_tokens AS input,
                 (extract(epoch FROM l.turn_started_at) * 1000000)::bigint AS at FROM ledger l WHERE l.workspace_id = $1 ORDER BY l.seq";
    let ledger = db.rows(sql, &[id]).await;
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or(i64::MIN);
    let mut left: BTreeSet<i64> = ledger.iter().map(|row| number(row, "seq")).collect();
    for invoice in invoices(db, id).await {
        let of = |name: &str| number(&invoice, name);
        let covered: Vec<&Value> = ledger
            .iter()
            .filter(|row| {
                let (seq, at) = (number(row, "seq"), number(row, "at"));
                let until = seq > of("since_seq") && seq <= of("last_seq") && at < of("ends");
                until && !(seq <= of("previous_last_seq") && at < of("previous_ends"))
            })
            .collect();
        let sum = |name: &str| covered.iter().map(|row| number(row, name)).sum::<i64>();
        let lines = |name: &str| invoice["lines"].as_array().unwrap().iter().map(|line| number(line, name)).sum::<i64>();
        let count = i64::try_from(covered.len()).unwrap();
        assert_eq!((of("charge"), of("cost"), of("entries")), (sum("charge"), sum("cost"), count), "{what}: {invoice:#}");
        assert_eq!(
            (lines("charge"), lines("cost"), lines("entries"), lines("input_tokens")),
            (sum("charge"), sum("cost"), count, sum("input")),
            "{what}: {invoice:#}"
        );
        assert_eq!(of("first_seq"), number(covered[0], "seq"), "{what}");
        for row in covered {
            assert!(left.remove(&number(row, "seq")), "{what}: entry {} is invoiced twice", row["seq"]);
        }
    }
    left.len()
}

#[tokio::test]
async fn each_entry_is_invoiced_once_in_any_order_of_entries_closes_and_zones() {
    let db = Db::connect().await;
    let zones =
        ["UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/Havana", "Australia/Lord_Howe"];
    for seed in 0..12 {
        let (ws, mut dice) = (Workspace::local().await, Dice::new(seed + 1000));
        let mut made = 0;
        for round in 0..14 {
            let what = format!("seed {seed}, round {round}");
            match dice.below(5) {
                0 => {
                    let zone = dice.of(&zones);
                    db.run(&format!("UPDATE workspaces SET time_zone = '{zone}' WHERE id = '{}'", ws.id)).await;
                }
                1 | 2 => {
                    // The month that is asked for is over now, or not; or asked for once more.
                    let month = format!("2031-{:02}", 1 + dice.below(6));
                    let now = format!("2031-{:02}-{:02}T{:02}:30:00Z", 1 + dice.below(9), dice.of(&[1, 2, 28]), dice.below(24));
                    let before = invoices(&db, &ws.id).await;
                    let said = close(&db, &[&ws.id], &month, &now).await;
                    let after = invoices(&db, &ws.id).await;
                    assert_eq!(after[..before.len()], before[..], "{what}: what was made stays as it is");
                    made += usize::try_from(said["invoices"].as_i64().unwrap()).unwrap();
                    assert_eq!(after.len(), made, "{what}: {said}");
                    assert_eq!(close(&db, &[&ws.id], &month, &now).await["closed"], 0, "{what}: closed is closed");
                    for invoice in &after[before.len()..] {
                        let over = invoice["ends_at"].as_str().unwrap();
                        let hour = db.number("EXTRACT(epoch FROM $1::timestamptz - $2::timestamptz)", &[&now, over]).await;
                        assert!(hour >= 3600 && *invoice["month"].as_str().unwrap() <= *format!("{month}-01"), "{what}: {invoice:#}");
                    }
                }
                _ => {
                    let batch: Vec<Value> = (0..=dice.below(9))
                        .map(|_| {
                            // The first moments of months in UTC, and hours before and after them.
                            let at = shifted(1 + i64::try_from(dice.below(7)).unwrap(), i64::try_from(dice.below(40)).unwrap() - 20);
                            let kind = dice.of(&["turn", "turn", "turn", "embedding", "correction", "credit"]);
                            let sign = match kind {
                                "credit" => "-",
                                "correction" => dice.of(&["-", ""]),
                                _ => "",
                            };
                            let money = format!("{sign}0.0{:08}", 1 + dice.below(99_999_999));
                            let cost = if kind == "credit" { json!(0) } else { json!(money) };
                            let said = json!({ "charge_usd": money, "cost_usd": cost, "input_tokens": if kind == "credit" { 0 } else { dice.below(900) },
                                               "agent_id": dice.of(&["a", "b"]), "model": dice.of(&["m1", "m2"]) });
                            entry(kind, &at, &said)
                        })
                        .collect();
                    enter(&db, &ws.id, &batch).await;
                }
            }
            assert_each_once(&db, &ws.id, &what).await;
        }
        close(&db, &[&ws.id], "2031-12", "2032-02-01T00:00:00Z").await;
        assert_eq!(assert_each_once(&db, &ws.id, &format!("seed {seed}, at the end")).await, 0, "nothing is left out");
    }
    // Numbers have no gap, whoever else closes meanwhile.
    let gaps = "SELECT count(*) FROM (SELECT place, lead(place) OVER (ORDER BY place) AS next FROM invoices WHERE place > 0) p WHERE next <> place + 1";
    assert_eq!(db.number(gaps, &[]).await, 0);
    assert_eq!(db.number("SELECT count(*) - count(DISTINCT number) FROM invoices WHERE place > 0", &[]).await, 0);
}

/// A moment some hours before or after a month's first.
fn shifted(month: i64, hours: i64) -> String {
    let (day, hour) = (hours.div_euclid(24), hours.rem_euclid(24));
    if day >= 0 {
        return format!("2031-{month:02}-{:02} {hour:02}:00:00+00", 1 + day);
    }
    let (year, before) = if month == 1 { (2030, 12) } else { (2031, month - 1) };
    let last = match before {
        2 => 28,
        4 | 6 => 30,
        _ => 31,
    };
    format!("{year}-{before:02}-{:02} {hour:02}:00:00+00", last + 1 + day)
}

#[tokio::test]
async fn what_comes_after_the_close_is_in_the_next_invoice() {
    let (db, ws) = (Db::connect().await, Workspace::local().await);
    ws.operator.patch(&ws.path(""), &json!({ "timeZone": "Europe/Berlin" })).await.ok(200);
    let turn = entry(
        "turn",
        "2031-03-10 12:00+00",
        &json!({ "input_tokens": 100, "output_tokens": 10, "cost_usd": "0.02", "charge_usd": "0.03" }),
    );
    let edge = |at: &str| entry("turn", at, &json!({ "charge_usd": "1" }));
    // The month's last and first moments: March ends in summer time, at 22:00 UTC.
    enter(&db, &ws.id, &[turn.clone(), edge("2031-03-31 21:59:59.999999+00"), edge("2031-03-31 22:00+00")]).await;
    let early = close(&db, &[&ws.id], "2031-03", "2031-03-31T22:59:59Z").await;
    assert_eq!(
        early,
        json!({ "outcome": "ok", "closed": 0, "invoices": 0, "early": 1, "waiting": 0, "next": null }),
        "the grace is an hour"
    );

    // A turn that runs keeps its month open.
    db.run(&format!(
        "INSERT INTO holds (workspace_id, turn_id, started_at, agent_id, subject, request_hash, cost, tokens, hold, draft, sequence, progress, stop, expires_at)
         VALUES ('{}', gen_random_uuid(), '2031-03-31 21:00+00', 'assistant', 'member@test', '', 0, 0, '{{}}', '{{}}', 0, '{{}}', false, '2100-01-01')",
        ws.id
    ))
    .await;
    assert_eq!(close(&db, &[&ws.id], "2031-03", "2031-04-01T00:00:00Z").await["waiting"], 1);
    db.run(&format!("DELETE FROM holds WHERE workspace_id = '{}'", ws.id)).await;
    let mut said = json!(0);
    for (invoices, now) in [(1, "2031-04-01T00:00:00Z"), (0, "2031-04-01T00:00:00Z"), (0, "2031-04-20T00:00:00Z")] {
        said = close(&db, &[&ws.id], "2031-03", now).await;
        assert_eq!(said["invoices"], invoices, "{said}");
    }
    assert_eq!(said["closed"], 0);

    let (old, session) = (turn["turn_id"].clone(), turn["session_id"].clone());
    let correction = json!({ "turn_id": old, "session_id": session, "input_tokens": -50, "cost_usd": "-0.01", "charge_usd": "-0.015" });
    enter(
        &db,
        &ws.id,
        &[
            entry("correction", "2031-03-10 12:00+00", &correction),
            edge("2031-03-20 00:00+00"),
            entry("credit", "2031-04-02", &json!({ "charge_usd": "-0.5" })),
        ],
    )
    .await;
    assert_eq!(close(&db, &[&ws.id], "2031-03", "2031-04-25T00:00:00Z").await["closed"], 0, "the month is closed");
    assert_eq!(close(&db, &[&ws.id], "2031-04", "2031-05-02T00:00:00Z").await["invoices"], 1);
    assert_eq!(assert_each_once(&db, &ws.id, "April").await, 0);

    let list = ws.owner.get(&ws.path("/invoices")).await.ok(200);
    let (april, march) = (&list["data"][0], &list["data"][1]);
    assert_eq!(
        json!([march["month"], march["totalChargeNanoUsd"], march["entries"], march["firstSeq"], march["lastSeq"]]),
        json!(["2031-03", 1_030_000_000, 2, 1, 3])
    );
    assert_eq!((&march["endsAt"], &april["previousEndsAt"]), (&json!("2031-03-31T22:00:00.000Z"), &json!("2031-03-31T22:00:00.000Z")));
    assert!(march.get("totalCostNanoUsd").is_none(), "what it costs the operator is the operator's to see");
    let read = ws.owner.get(&ws.path(&format!("/invoices/{}", april["number"].as_str().unwrap()))).await.ok(200);
    let lines: Vec<_> = read["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| json!([l["month"], l["kind"], l["chargeNanoUsd"], l["amountCents"], l["reason"]]))
        .collect();
    let expected = [
        json!(["2031-04", "turn", 1_000_000_000, 100, ""]),
        json!(["2031-04", "credit", -500_000_000, -50, "goodwill"]),
        json!(["2031-03", "turn", 1_000_000_000, 100, ""]),
        json!(["2031-03", "correction", -15_000_000, -1, ""]),
    ];
    assert_eq!(lines, expected);
    assert_eq!((&read["totalCents"], &read["totalChargeNanoUsd"]), (&json!(149), &json!(1_485_000_000)), "half a cent, rounded once");

    let page = ws
        .owner
        .request(http::Method::GET, &ws.path(&format!("/invoices/{}", april["number"].as_str().unwrap())))
        .header("accept", "text/html")
        .send()
        .await;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html") && text.contains(">1.49</td>"), "{text}");
    ws.member.get(&ws.path("/invoices")).await.problem(403, "forbidden");
    let all = Api::operator().get("/billing/invoices?month=2031-04&limit=200").await.ok(200);
    let found = all["data"].as_array().unwrap().iter().find(|i| i["number"] == april["number"]).unwrap_or_else(|| panic!("{all}"));
    assert_eq!((&found["workspaceId"], &found["totalCostNanoUsd"]), (&json!(ws.id), &json!(-10_000_000)));
}

#[tokio::test]
async fn a_deleted_workspace_is_invoiced_and_who_has_its_name_after_it_sees_nothing_of_it() {
    let (db, ws) = (Db::connect().await, Workspace::local().await);
    let at = |at: &str| entry("turn", at, &json!({ "charge_usd": "2" }));
    enter(&db, &ws.id, &[at("2031-02-10 12:00+00")]).await;
    close(&db, &[&ws.id], "2031-02", "2031-03-02T00:00:00Z").await;
    enter(&db, &ws.id, &[at("2031-03-05 12:00+00")]).await;
    let _ = ws.operator.delete(&ws.path("")).await.expect(200);
    // A turn that ends after its workspace.
    enter(&db, &ws.id, &[at("2031-03-06 12:00+00")]).await;
    let again = Workspace::named(&ws.id, &workspace::roomy()).await;
    again.put_template(&[template::local("assistant")]).await;
    enter(&db, &again.id, &[at("2031-03-07 12:00+00")]).await;
    assert_eq!(close(&db, &[&ws.id], "2031-03", "2031-04-02T00:00:00Z").await["invoices"], 2, "one for each");
    assert_eq!(assert_each_once(&db, &ws.id, "both").await, 0);
    let own = again.owner.get(&again.path("/invoices")).await.ok(200);
    assert_eq!(
        own["data"].as_array().unwrap().iter().map(|i| i["totalChargeNanoUsd"].clone()).collect::<Vec<_>>(),
        [json!(2_000_000_000_i64)]
    );
    let all = Api::operator().get(&again.path("/invoices")).await.ok(200);
    let sums: Vec<_> = all["data"].as_array().unwrap().iter().map(|i| json!([i["month"], i["totalChargeNanoUsd"], i["entries"]])).collect();
    assert_eq!(sums.len(), 3, "{all}");
    assert!(
        sums.contains(&json!(["2031-03", 4_000_000_000_i64, 2])) && sums.contains(&json!(["2031-02", 2_000_000_000_i64, 1])),
        "{sums:?}"
    );
    for invoice in all["data"].as_array().unwrap() {
        let path = again.path(&format!("/invoices/{}", invoice["number"].as_str().unwrap()));
        let is_own = invoice["number"] == own["data"][0]["number"];
        assert_eq!(again.owner.get(&path).await.status, if is_own { 200 } else { 404 });
        Api::operator().get(&path).await.ok(200);
    }
    let _ = again.operator.delete(&again.path("")).await.expect(200);
    let kept = Api::operator().get(&again.path("/invoices")).await.ok(200);
    assert_eq!(kept["data"].as_array().unwrap().len(), 3, "invoices outlive the workspace");
}

#[tokio::test]
async fn two_that_close_at_once_and_any_that_are_killed_make_each_invoice_once() {
    let db = Db::connect().await;
    let mut all = Vec::new();
    for n in 0..6 {
        let ws = Workspace::local().await;
        let batch: Vec<Value> = (1..=30)
            .map(|day| entry("turn", &format!("2031-0{}-{:02} 08:00+00", 1 + n % 3, 1 + day % 28), &json!({ "charge_usd": "0.25" })))
            .collect();
        enter(&db, &ws.id, &batch).await;
        all.push(ws);
    }
    let ids: Vec<&str> = all.iter().map(|ws| ws.id.as_str()).collect();
    let argument = json!({ "month": "2031-03", "now": "2031-05-01T00:00:00Z", "graceSeconds": 0, "prefix": "T-", "workspaces": ids });
    // Ended half-way: the transaction is given up, at any point of it.
    for after in 0..20 {
        let killed = Db::connect().await;
        let pid = killed.number("SELECT pg_backend_pid()", &[]).await;
        let call = format!("SELECT astra.op_month_close($1), pg_sleep(0.02 * ({after} % 3)), 1/0");
        let argument = argument.to_string();
        let running = tokio::spawn(async move {
            // It fails: killed, or by the division that would end it.
            let _ = killed.try_rows(&call, &[&argument]).await;
        });
        tokio::time::sleep(std::time::Duration::from_millis(after)).await;
        db.run(&format!("SELECT pg_terminate_backend({pid})")).await;
        running.await.unwrap();
        assert_eq!(
            db.number("SELECT count(*) FROM invoices WHERE workspace_id = ANY (string_to_array($1, ' '))", &[&ids.join(" ")]).await,
            0
        );
        assert_eq!(
            db.number(
                "SELECT count(*) FROM invoice_heads WHERE month IS NOT NULL AND workspace_id = ANY (string_to_array($1, ' '))",
                &[&ids.join(" ")]
            )
            .await,
            0
        );
    }
    let (one, two, three) = (Db::connect().await, Db::connect().await, Db::connect().await);
    for _ in 0..3 {
        tokio::join!(
            call(&one, "op_month_close", &argument),
            call(&two, "op_month_close", &argument),
            call(&three, "op_month_close", &argument)
        );
    }
    for ws in &all {
        let made = invoices(&db, &ws.id).await;
        assert_eq!((made.len(), made[0]["charge"].as_i64(), made[0]["entries"].as_i64()), (1, Some(7_500_000_000), Some(30)), "{made:#?}");
        assert_eq!(assert_each_once(&db, &ws.id, "at once").await, 0);
    }
}

#[tokio::test]
async fn no_role_changes_an_invoice_and_no_administrator_does_by_accident() {
    let (db, ws) = (Db::connect().await, Workspace::local().await);
    enter(&db, &ws.id, &[entry("turn", "2031-02-10", &json!({ "charge_usd": "1" }))]).await;
    assert_eq!(close(&db, &[&ws.id], "2031-02", "2031-04-01T00:00:00Z").await["invoices"], 1);
    for role in ["astra_books", "astra_billing", "astra_operator", "astra_owner", "astra_provision", "postgres"] {
        for table in ["invoices", "invoice_lines"] {
            for statement in [format!("UPDATE {table} SET charge = 0"), format!("DELETE FROM {table}"), format!("TRUNCATE {table}")] {
                // Others close months meanwhile: a lock that both wait for is no answer.
                let sql = format!(
                    "BEGIN; SET LOCAL ROLE {role};
                     DO $$ BEGIN LOOP BEGIN {statement}; RAISE EXCEPTION 'it went through' USING ERRCODE = 'ZZ001'; EXCEPTION WHEN insufficient_privilege THEN RETURN; WHEN deadlock_detected THEN NULL; END; END LOOP; END $$; ROLLBACK;"
                );
                db.run(&sql).await;
            }
        }
    }
    for statement in
        ["UPDATE invoice_heads SET last_seq = last_seq - 1", "UPDATE invoice_heads SET month = month - 40", "DELETE FROM invoice_heads"]
    {
        let sql = format!(
            "BEGIN; SET LOCAL ROLE astra_books;
             DO $$ BEGIN {statement} WHERE workspace_id = '{}'; RAISE EXCEPTION 'it went through' USING ERRCODE = 'ZZ001'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$; ROLLBACK;",
            ws.id
        );
        db.run(&sql).await;
    }
    assert_eq!(invoices(&db, &ws.id).await.len(), 1);
}

#[tokio::test]
async fn the_operator_closes_a_month_by_asking() {
    let (db, ws) = (Db::connect().await, Workspace::local().await);
    enter(&db, &ws.id, &[entry("turn", "2021-05-10", &json!({ "charge_usd": "1" }))]).await;
    ws.owner.post("/billing/close", &json!({ "month": "2021-05" })).await.problem(403, "forbidden");
    let closed = Api::operator().post("/billing/close", &json!({ "month": "2021-05" })).await.ok(200);
    assert_eq!(closed["isDone"], true, "{closed}");
    let made = ws.owner.get(&ws.path("/invoices")).await.ok(200);
    assert_eq!((&made["data"][0]["month"], &made["data"][0]["totalChargeNanoUsd"]), (&json!("2021-05"), &json!(1_000_000_000)));
}

#[tokio::test]
async fn an_invoice_is_told_to_who_wants_it_without_what_the_operator_paid() {
    let (db, ws, receiver) = (Db::connect().await, Workspace::local().await, Receiver::start(|_| 204).await);
    for (name, events) in [("books", json!(["invoice.closed"])), ("marks", json!(["quota.threshold"]))] {
        ws.owner.put(&ws.path(&format!("/webhooks/{name}")), &json!({ "url": receiver.url(), "events": events })).await.ok(201);
    }
    enter(&db, &ws.id, &[entry("turn", "2021-06-10", &json!({ "charge_usd": "2" }))]).await;
    let operator = Api::operator();
    operator.post("/billing/close", &json!({ "month": "2021-06" })).await.ok(200);
    let told = wait::until("the invoice", Duration::from_secs(30), async || {
        let _ = operator.post("/billing/jobs/deliver-webhooks/run", &json!(null)).await;
        let messages = receiver.messages();
        if messages.is_empty() { Err(messages) } else { Ok(messages) }
    })
    .await;
    assert_eq!(told.len(), 1, "once, and not to who wants other events");
    let body: Value = serde_json::from_str(&told[0].body).unwrap();
    let made = ws.owner.get(&ws.path("/invoices")).await.ok(200);
    assert_eq!((&body["type"], &body["data"]["number"]), (&json!("invoice.closed"), &made["data"][0]["number"]));
    assert_eq!((&body["data"]["totalChargeNanoUsd"], &body["data"]["totalCostNanoUsd"]), (&json!(2_000_000_000), &Value::Null));
}
