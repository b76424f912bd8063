//! The ledger's chain, its receipts, and what the operator enters by hand: whoever changes a byte is found, and what is charged can be proved with the public keys alone.

use astra_tests::{Api, Db, Reply, Workspace, db, guide, sse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use std::process::Command;

/// The whole ledger, oldest first, page by page.
async fn ledger(api: &Api, ws: &Workspace) -> Vec<Value> {
    let mut entries = pages(api, &ws.path("/ledger?limit=2")).await;
    entries.reverse();
    entries
}

/// What is on all pages of a list.
async fn pages(api: &Api, first: &str) -> Vec<Value> {
    let (mut all, mut path) = (Vec::new(), first.to_owned());
    loop {
        let page = api.get(&path).await.ok(200);
        all.extend(page["data"].as_array().expect("data").iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { return all };
        path = format!("{first}&after={next}");
    }
}

async fn verified(ws: &Workspace) -> Value {
    ws.operator.get(&ws.path("/ledger/verify")).await.ok(200)
}

fn good(entries: usize) -> Value {
    json!({ "ok": true, "entries": entries, "brokenAt": null })
}

async fn credit(api: &Api, ws: &Workspace, key: &str, body: &Value) -> Reply {
    api.request(http::Method::POST, &ws.path("/ledger/credits")).header("idempotency-key", key).json(body).send().await
}

async fn correct(ws: &Workspace, body: &Value) -> Reply {
    ws.operator.post(&ws.path("/ledger/corrections"), body).await
}

async fn jwks() -> Value {
    Api::anonymous().get("/.well-known/jwks.json").await.ok(200)
}

/// What a receipt says, by a library that knows nothing of astra.
pub(crate) fn claims(receipt: &str, jwks: &Value) -> Result<Value, jsonwebtoken::errors::Error> {
    let kid = jsonwebtoken::decode_header(receipt)?.kid.expect("kid");
    let key = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid.as_str()).expect("the key is published");
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    jsonwebtoken::decode::<Value>(receipt, &DecodingKey::from_ed_components(key["x"].as_str().unwrap())?, &validation)
        .map(|token| token.claims)
}

/// Runs astra-receipts on files; whether all is good, and what it says.
fn tool(keys: &Value, invoice: Option<&Value>, receipts: &str) -> (bool, String) {
    let folder = std::env::temp_dir().join(format!("astra-receipts-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(root)
        .args(["run", "--quiet", "--package", "astra-receipts", "--", "--keys"])
        .arg(file("jwks.json", &keys.to_string()));
    if let Some(invoice) = invoice {
        command.arg("--invoice").arg(file("invoice.json", &invoice.to_string()));
    }
    let output = command.arg(file("receipts.json", receipts)).output().expect("cargo runs");
    std::fs::remove_dir_all(folder).unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn each_turn_has_a_receipt_that_the_public_keys_verify() {
    let ws = Workspace::local().await;
    let answer = ws.turn("what is it?").await.ok(200);
    let events = ws.stream("and as events?").await.rest().await;
    let streamed = sse::only(&events, "turn.completed");
    let keys = jwks().await;
    assert!(keys["keys"][0]["d"].is_null() && keys["keys"][0]["kty"] == "OKP", "{keys}");
    for (seq, answer) in [(1, &answer), (2, streamed)] {
        let said = claims(answer["receipt"].as_str().expect("a receipt"), &keys).unwrap();
        let usage = &answer["usage"];
        for (claim, expected) in [
            ("workspaceId", &json!(ws.id)),
            ("seq", &json!(seq)),
            ("kind", &json!("turn")),
            ("turnId", &answer["turnId"]),
            ("sessionId", &answer["sessionId"]),
            ("agentId", &answer["agentId"]),
            ("inputTokens", &usage["inputTokens"]),
            ("cachedInputTokens", &usage["cachedInputTokens"]),
            ("outputTokens", &usage["outputTokens"]),
            ("reasoningTokens", &usage["reasoningTokens"]),
            ("source", &usage["source"]),
            ("costNanoUsd", &answer["costNanoUsd"]),
            ("chargeNanoUsd", &answer["costNanoUsd"]),
        ] {
            assert_eq!(&said[claim], expected, "{claim} of {said}");
        }
        assert!(said["enteredAt"].as_str() > said["startedAt"].as_str() && said["hash"].as_str().unwrap().len() == 64, "{said}");
    }
    assert_eq!(claims(answer["receipt"].as_str().unwrap(), &keys).unwrap()["prevHash"], "0".repeat(64));

    // The list says the same, to the byte.
    let listed = pages(&ws.owner, &ws.path("/receipts?limit=1")).await;
    let receipts: Vec<_> = listed.iter().map(|one| one["receipt"].clone()).collect();
    assert_eq!(receipts, [answer["receipt"].clone(), streamed["receipt"].clone()]);
    let month = guide::this_month().await;
    assert_eq!(pages(&ws.owner, &ws.path(&format!("/receipts?month={month}"))).await, listed);
    assert_eq!(pages(&ws.owner, &ws.path("/receipts?month=2020-02")).await, Vec::<Value>::new());

    // And the tool finds an invoice right that is the sum, and one that is not.
    let page = json!({ "data": listed, "nextCursor": null }).to_string();
    let total = answer["costNanoUsd"].as_i64().unwrap() + streamed["costNanoUsd"].as_i64().unwrap();
    let invoice = |total: i64| json!({ "workspaceId": ws.id, "month": month, "totalChargeNanoUsd": total, "lastSeq": 2 });
    let (ok, text) = tool(&keys, Some(&invoice(total)), &page);
    assert!(
        ok && text.contains("receipts 1 to 2 are as they were signed") && text.contains(&format!("charge {total} nano-dollars")),
        "{text}"
    );
    let (ok, text) = tool(&keys, Some(&invoice(total + 1)), &page);
    assert!(!ok && text.contains("the invoice says"), "{text}");
    let receipt = answer["receipt"].as_str().unwrap();
    let middle = receipt.len() / 2;
    let other = if receipt.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let (ok, text) = tool(&keys, None, &page.replacen(receipt, &format!("{}{other}{}", &receipt[..middle], &receipt[middle + 1..]), 1));
    assert!(!ok && text.contains("signature"), "{text}");
}

#[tokio::test]
async fn the_ledger_is_for_those_who_may_see_the_bill() {
    let ws = Workspace::local().await;
    ws.turn("for whom?").await.ok(200);
    for path in ["/ledger", "/ledger/verify", "/receipts"] {
        for who in [&ws.owner, &ws.user("a", "admin").await, &ws.operator] {
            who.get(&ws.path(path)).await.ok(200);
        }
        ws.member.get(&ws.path(path)).await.problem(403, "forbidden");
        ws.operator.get(&format!("/workspaces/never-was-one{path}")).await.problem(404, "not_found");
    }
    for bad in ["after=x", "after=", "limit=0", "limit=201", "month=2026-13", "color=red"] {
        for path in ["/ledger", "/receipts"] {
            assert_eq!(ws.owner.get(&ws.path(&format!("{path}?{bad}"))).await.status, 422, "{path}?{bad}");
        }
    }
    let entry = &ledger(&ws.owner, &ws).await[0];
    assert_eq!((&entry["userId"], &entry["seq"], &entry["madeBy"]), (&json!("member@test"), &json!(1), &Value::Null));
}

/// One change of a column, of every type that there is.
fn flip(column: &str, kind: &str) -> String {
    let other = match kind {
        "text" => format!("COALESCE({column}, '') || 'x'"),
        "uuid" => "gen_random_uuid()".to_owned(),
        "bytea" => format!("set_byte({column}, 5, get_byte({column}, 5) # 1)"),
        "numeric" => format!("{column} + 0.000000001"),
        "timestamp with time zone" => format!("{column} + interval '1 microsecond'"),
        "bigint" | "integer" | "smallint" => format!("{column} # 1"),
        _ => panic!("{column} is a {kind}: say here how it is changed"),
    };
    match column {
        "kind" => "CASE kind WHEN 'turn' THEN 'tool' ELSE kind END".to_owned(),
        "source" => "CASE source WHEN 'provider' THEN 'estimated' ELSE 'provider' END".to_owned(),
        "seq" => "seq + 100".to_owned(),
        "workspace_id" => "workspace_id || '-x'".to_owned(),
        _ => other,
    }
}

#[tokio::test]
async fn a_byte_changed_anywhere_is_found_and_named() {
    let ws = Workspace::local().await;
    let turn = ws.turn("one").await.ok(200);
    ws.turn("two").await.ok(200);
    credit(&ws.operator, &ws, "k", &json!({ "amountNanoUsd": 5, "reason": "sorry", "corrects": 1 })).await.ok(201);
    let odd = "a\"b\\c/\u{e9}\u{2028}\u{1f600}<>&'";
    correct(&ws, &json!({ "turnId": turn["turnId"], "reason": odd, "chargeNanoUsd": 1 })).await.ok(201);
    ws.turn("five").await.ok(200);
    assert_eq!(verified(&ws).await, good(5));
    let db = Db::connect().await;
    let columns = db
        .rows("SELECT column_name AS name, data_type AS type FROM information_schema.columns WHERE table_schema = 'public' AND table_name = 'ledger' AND $1 <> ''", &["x"])
        .await;
    assert!(columns.len() > 25, "{columns:?}");
    let of = format!("WHERE workspace_id = '{}'", ws.id);
    let change = async |what: &str| {
        // replica: no trigger fires, in this session. What a constraint does not let be is tried on another entry.
        let kept = format!("kept_{}", uuid::Uuid::new_v4().simple());
        db.run(&format!(
            "SET session_replication_role = replica; CREATE TEMP TABLE {kept} AS SELECT * FROM ledger {of};
             DO $do$ BEGIN {what}; EXCEPTION WHEN check_violation OR not_null_violation OR unique_violation THEN NULL; END $do$"
        ))
        .await;
        let changed = db
            .number(
                &format!(
                    "SELECT count(*) FROM (SELECT to_jsonb(k) FROM {kept} k EXCEPT SELECT to_jsonb(l) FROM ledger l {of}) c WHERE $1 <> ''"
                ),
                &["x"],
            )
            .await;
        let found = verified(&ws).await;
        db.run(&format!(
            "DELETE FROM ledger WHERE workspace_id IN ('{0}', '{0}-x'); INSERT INTO ledger SELECT * FROM {kept}; SET session_replication_role = origin",
            ws.id
        ))
        .await;
        (changed > 0, found)
    };
    for column in &columns {
        let (name, kind) = (column["name"].as_str().unwrap(), column["type"].as_str().unwrap());
        let mut seen = 0;
        for seq in 1..=5 {
            let (changed, found) = change(&format!("UPDATE ledger SET {name} = {} {of} AND seq = {seq}", flip(name, kind))).await;
            if changed {
                seen += 1;
                assert_eq!((&found["ok"], &found["brokenAt"]), (&json!(false), &json!(seq)), "{name} of entry {seq}: {found}");
            }
        }
        assert!(seen > 0, "{name} was changed in no entry");
    }
    // What has more rights than these, and more cunning.
    for (what, broken_at) in [
        (format!("DELETE FROM ledger {of} AND seq = 2"), 2),
        (format!("DELETE FROM ledger {of} AND seq = 5"), 5),
        (format!("UPDATE ledger SET user_id = '', user_salt = NULL {of} AND seq = 2"), 2),
        (
            format!(
                "UPDATE ledger l SET charge_usd = 0 {of} AND seq = 2; UPDATE ledger l SET hash = sha256(convert_to(astra.ledger_text(l), 'UTF8')) {of} AND seq = 2"
            ),
            3,
        ),
        (
            format!(
                "INSERT INTO ledger SELECT (jsonb_populate_record(l, jsonb_build_object('seq', 6, 'turn_id', gen_random_uuid()))).* FROM ledger l {of} AND seq = 5"
            ),
            6,
        ),
        (format!("UPDATE ledger l SET turn_started_at = turn_started_at - interval '4051 years' {of} AND seq = 1"), 1),
    ] {
        let (changed, found) = change(&what).await;
        assert_eq!((changed || broken_at == 6, &found["brokenAt"]), (true, &json!(broken_at)), "{what}: {found}");
    }
    assert_eq!(verified(&ws).await, good(5));
    // The head, too.
    db.run(&format!("UPDATE ledger_heads SET hash = prev_hash {of}")).await;
    assert_eq!(verified(&ws).await["brokenAt"], 6);
    db.run(&format!("UPDATE ledger_heads h SET hash = (SELECT l.hash FROM ledger l WHERE l.workspace_id = h.workspace_id ORDER BY l.seq DESC LIMIT 1) {of}")).await;
    assert_eq!(verified(&ws).await, good(5));
}

#[tokio::test]
async fn turns_at_once_make_one_chain() {
    let ws = Workspace::local().await;
    let mut turns = tokio::task::JoinSet::new();
    for n in 0..16 {
        let ws = ws.clone();
        turns.spawn(async move { ws.turn(&format!("number {n}")).await.ok(200)["receipt"].as_str().expect("a receipt").to_owned() });
    }
    let mut receipts = Vec::new();
    while let Some(receipt) = turns.join_next().await {
        receipts.push(receipt.unwrap());
    }
    assert_eq!(verified(&ws).await, good(16));
    let (ok, text) = tool(&jwks().await, None, &receipts.join("\n"));
    assert!(ok && text.contains("receipts 1 to 16"), "{text}");
    let times: Vec<_> = ledger(&ws.owner, &ws).await.iter().map(|entry| entry["enteredAt"].as_str().unwrap().to_owned()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn kf22_a_credit_that_is_sent_twice_is_given_once() {
    let ws = Workspace::local().await;
    ws.turn("too dear").await.ok(200);
    let body = json!({ "amountNanoUsd": 1_000_000, "reason": "an outage", "corrects": 1 });
    for who in [&ws.owner, &ws.member] {
        credit(who, &ws, "a", &body).await.problem(403, "forbidden");
    }
    let replies = futures_util::future::join_all((0..8).map(|_| credit(&ws.operator, &ws, "a", &body))).await;
    let mut statuses: Vec<_> = replies.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
    let entries: Vec<_> = replies.iter().map(Reply::json).collect();
    assert!(entries.iter().all(|entry| *entry == entries[0]), "{entries:#?}");
    let first = &ledger(&ws.owner, &ws).await[0];
    let entry = &entries[0];
    assert_eq!(
        json!([entry["kind"], entry["costNanoUsd"], entry["chargeNanoUsd"], entry["reason"], entry["madeBy"], entry["corrects"]]),
        json!(["credit", 0, -1_000_000, "an outage", "operator@tests", first["id"]])
    );
    credit(&ws.operator, &ws, "a", &json!({ "amountNanoUsd": 2, "reason": "an outage", "corrects": 1 })).await.problem(409, "conflict");
    credit(&ws.operator, &ws, "b", &json!({ "amountNanoUsd": 2, "reason": "another" })).await.ok(201);
    // The same key in another workspace is another credit.
    let other = Workspace::local().await;
    credit(&other.operator, &other, "a", &json!({ "amountNanoUsd": 1, "reason": "x" })).await.ok(201);
    assert_eq!((verified(&ws).await, verified(&other).await), (good(3), good(1)));
    // A counter that loads a ledger with a credit in it holds turns as before.
    assert_eq!(other.window("maxCostUsdPerMonth").await["used"], 0);
    other.turn("after a credit").await.ok(200);
    let mut bad = vec![
        (json!({ "amountNanoUsd": 0, "reason": "x" }), "/amountNanoUsd"),
        (json!({ "amountNanoUsd": -1, "reason": "x" }), "/amountNanoUsd"),
        (json!({ "amountNanoUsd": 1.5, "reason": "x" }), "/amountNanoUsd"),
        (json!({ "amountNanoUsd": 9_007_199_254_740_992_u64, "reason": "x" }), "/amountNanoUsd"),
        (json!({ "amountNanoUsd": 1, "reason": " " }), "/reason"),
        (json!({ "amountNanoUsd": 1, "reason": "x", "corrects": 99 }), "/corrects"),
        (json!({ "amountNanoUsd": 1, "reason": "x", "corrects": null }), "/corrects"),
    ];
    for (body, pointer) in bad.drain(..) {
        let problem = credit(&ws.operator, &ws, "c", &body).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let problem = ws.operator.post(&ws.path("/ledger/credits"), &body).await.problem(422, "unprocessable");
    assert_eq!(problem["errors"][0]["pointer"], "Idempotency-Key");
    // It is no use, and no budget comes back by it.
    assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], first["costNanoUsd"]);
}

#[tokio::test]
async fn a_correction_changes_what_everybody_says_of_the_month() {
    let ws = Workspace::local().await;
    let (one, two) = (ws.turn("one").await.ok(200), ws.turn("two").await.ok(200));
    let other = two["costNanoUsd"].as_i64().unwrap();
    let of = |more: Value| {
        let mut body = json!({ "turnId": one["turnId"], "reason": "counted wrong" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let tokens = two["usage"]["inputTokens"].as_i64().unwrap() + two["usage"]["outputTokens"].as_i64().unwrap();
    for (nth, cost, input, output) in [(1, 700, 70, 7), (2, 300, 30, 3), (3, 900_000, 31, 4)] {
        let body = of(
            json!({ "inputTokens": input, "cachedInputTokens": 0, "outputTokens": output, "reasoningTokens": 0, "costNanoUsd": cost, "chargeNanoUsd": cost + 1 }),
        );
        let entry = correct(&ws, &body).await.ok(201);
        assert_eq!(
            json!([entry["kind"], entry["nth"], entry["reason"], entry["madeBy"]]),
            json!(["correction", nth, "counted wrong", "operator@tests"])
        );
        assert_eq!(correct(&ws, &body).await.status, 204, "it is so already");
        let db = Db::connect().await;
        let ledger = db.ledger(&ws.id).await;
        assert_eq!((db::nano(&ledger), db::tokens(&ledger)), (cost + other, input + output + tokens));
        let charge = db.number("SELECT sum(charge_usd) * 1000000000 FROM ledger WHERE workspace_id = $1", &[&ws.id]).await;
        assert_eq!(charge, cost + 1 + other);
        let turn = db.turns(&ws.id).await.into_iter().find(|turn| turn["id"] == one["turnId"]).unwrap();
        assert_eq!(json!([turn["nano"], turn["input_tokens"], turn["output_tokens"]]), json!([cost, input, output]));
        let usage = ws.owner.get(&ws.path("/usage")).await.ok(200);
        assert_eq!(
            json!([usage["totalCostNanoUsd"], usage["totalTokens"], usage["turns"]]),
            json!([cost + other, input + output + tokens, 2])
        );
        assert_eq!(ws.window("maxCostUsdPerMonth").await["used"], cost + other, "the counter goes by the ledger");
        assert_eq!(ws.window("maxTokensPerMonth").await["used"], input + output + tokens);
    }
    assert_eq!(verified(&ws).await, good(5));
    ws.turn("and it goes on").await.ok(200);
    for (body, pointer) in [
        (of(json!({ "costNanoUsd": -1 })), "/costNanoUsd"),
        (of(json!({ "inputTokens": -1 })), "/inputTokens"),
        (of(json!({ "inputTokens": 1, "cachedInputTokens": 2 })), "/cachedInputTokens"),
        (of(json!({ "turnId": uuid::Uuid::new_v4(), "costNanoUsd": 1 })), "/turnId"),
    ] {
        let problem = correct(&ws, &body).await.problem(422, "unprocessable");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    ws.owner.post(&ws.path("/ledger/corrections"), &of(json!({ "costNanoUsd": 1 }))).await.problem(403, "forbidden");
}

#[tokio::test]
async fn who_asked_is_forgotten_with_the_workspace_and_the_chain_holds() {
    let ws = Workspace::local().await;
    for message in ["one", "two"] {
        ws.turn(message).await.ok(200);
    }
    let before = ledger(&ws.operator, &ws).await;
    let receipts = pages(&ws.operator, &ws.path("/receipts?limit=200")).await;
    let _ = ws.owner.delete(&ws.path("")).await.expect(200);
    assert_eq!(verified(&ws).await, good(2));
    let after = ledger(&ws.operator, &ws).await;
    for (before, after) in before.iter().zip(&after) {
        let mut expected = before.clone();
        expected["userId"] = "".into();
        expected["userSalt"] = Value::Null;
        assert_eq!((&before["userId"], after), (&json!("member@test"), &expected));
    }
    assert_eq!(pages(&ws.operator, &ws.path("/receipts?limit=200")).await, receipts, "what was signed is signed");
    ws.owner.get(&ws.path("/ledger")).await.problem(403, "forbidden");
    // Another workspace of the name goes on with it, and shows whom it has not forgotten.
    let again = Workspace::named(&ws.id, &json!({})).await;
    again.put_template(&[astra_tests::template::local("assistant")]).await;
    again.turn("three").await.ok(200);
    assert_eq!(verified(&again).await, good(3));
    assert_eq!(ledger(&again.operator, &again).await[2]["userId"], "member@test");
}

#[tokio::test]
async fn nobody_who_logs_in_enters_a_credit_without_the_operator() {
    let ws = Workspace::local().await;
    ws.turn("mine").await.ok(200);
    let db = Db::connect().await;
    for actor in ["", r#"{"sub":"owner@test"}"#, r#"{"sub":"owner@test","operator":false}"#] {
        let (kid, key) = astra_tests::environment::tenant_key();
        let proof = astra_tests::proof::signed(&format!("{} {} {kid} {actor}", ws.id, astra_tests::jwt::now() + 300), &key);
        for call in [
            r#"ledger_credit(astra.enter('PROOF'), '{"key":"k","amountNanoUsd":1,"reason":"x"}')"#,
            r#"ledger_correct(astra.enter('PROOF'), '{"reason":"x"}')"#,
        ] {
            let call = call.replace("PROOF", &proof);
            db.run(&format!(
                "DO $do$ BEGIN SET LOCAL ROLE astra_billing; PERFORM astra.{call}; RAISE EXCEPTION 'it went through' USING ERRCODE = 'ZZ001';
                 EXCEPTION WHEN insufficient_privilege THEN NULL; END $do$"
            ))
            .await;
        }
    }
    for role in [
        "astra_provision",
        "astra_invoke",
        "astra_quota",
        "astra_billing",
        "astra_grants",
        "astra_memory",
        "astra_operator",
        "astra_eraser",
        "astra_owner",
    ] {
        let inserts = db.number(&format!("SELECT has_table_privilege('{role}', 'ledger', 'INSERT')::int WHERE $1 <> ''"), &["x"]).await;
        assert_eq!(inserts, i64::from(role == "astra_owner"), "{role}");
    }
    assert_eq!(verified(&ws).await, good(1));
}
