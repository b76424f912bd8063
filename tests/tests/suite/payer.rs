//! A grant that its granter pays for: the talk is the receiver's, the bill is the granter's, and neither learns of the other's.
//!
//! B's own limits are of nothing wherever that must not matter: whatever it is let do is paid elsewhere.

use astra_tests::{
    Api, Db, Reply, Scripted, Session, Stream, Workspace, aimock, canary, db, environment, guide, proof, scripted, template, wait,
};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A workspace with an agent `helper` of its own on a model server, with a key for it.
async fn granter(model: &Scripted, limits: &Value) -> Workspace {
    let a = Workspace::with(limits, &[template::local("assistant")]).await;
    let mut helper = template::openai("helper", &model.openai());
    helper.as_object_mut().unwrap().remove("id");
    let _ = a.operator.put(&a.path("/agents/helper"), &helper).await.expect(200);
    a.put_secret("OPENAI_API_KEY", &canary::key()).await;
    a
}

/// A workspace that can pay for nothing and has no key.
async fn receiver() -> Workspace {
    Workspace::with(&json!({ "maxCostUsdPerMonth": 0, "maxTokensPerMonth": 0 }), &[template::local("assistant")]).await
}

async fn give(a: &Workspace, b: &Workspace, more: &Value) -> Value {
    let mut body = json!({ "receivingWorkspaceId": b.id, "agentId": "helper", "payer": "granter" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let grant = a.owner.post(&a.path("/grants"), &body).await.ok(201);
    assert_eq!(grant["payer"], "granter");
    grant
}

async fn revoke(by: &Workspace, grant: &Value) {
    let _ = by.owner.delete(&by.path(&format!("/grants/{}", grant["id"].as_str().unwrap()))).await.expect(204);
}

async fn ask(b: &Workspace) -> Reply {
    b.member.post(&b.path("/turns"), &json!({ "agentId": "helper", "message": "hello" })).await
}

async fn keyed(api: &Api, ws: &Workspace, key: &str, message: &str) -> Reply {
    let body = json!({ "agentId": "helper", "message": message });
    api.request(http::Method::POST, &ws.path("/turns")).header("Idempotency-Key", key).json(&body).send().await
}

fn model_of(answer: &'static [&'static str]) -> impl Future<Output = Scripted> {
    Scripted::start(vec![scripted::answer(answer, 0, 9, 3)])
}

/// Cost, tokens and conversations of a month as the guide's SQL says them, as printed.
async fn by_the_guide(db: &Db, ws: &Workspace) -> (i64, i64, i64) {
    let rows = db.as_printed(guide::BILLING_SQL).await;
    let row = rows.iter().find(|row| row[0].1.as_deref() == Some(ws.id.as_str()));
    row.map_or((0, 0, 0), |row| {
        let number = |n: usize| row[n].1.as_deref().unwrap();
        let (dollars, nano) = number(2).split_once('.').unwrap();
        assert_eq!(nano.len(), 9);
        let cost = dollars.parse::<i64>().unwrap() * 1_000_000_000 + nano.parse::<i64>().unwrap();
        (cost, number(3).parse().unwrap(), number(4).parse().unwrap())
    })
}

/// The guide's SQL, usage, costs, ledger and counter say the same of a workspace.
async fn assert_one_bill(db: &Db, ws: &Workspace, cost: i64, tokens: i64, sessions: i64, turns: i64) {
    assert_eq!(by_the_guide(db, ws).await, (cost, tokens, sessions), "{}", ws.id);
    let said = ws.owner.get(&ws.path("/usage")).await.ok(200);
    assert_eq!(
        json!([said["totalCostNanoUsd"], said["totalTokens"], said["sessions"], said["turns"]]),
        json!([cost, tokens, sessions, turns]),
        "{said}"
    );
    let month = guide::this_month().await;
    let (mut after, mut line) = (String::new(), None);
    while line.is_none() {
        let page = Api::operator().get(&format!("/billing/costs?month={month}&limit=200{after}")).await.ok(200);
        line = page["data"].as_array().unwrap().iter().find(|line| line["workspaceId"] == ws.id.as_str()).cloned();
        let Some(next) = page["nextCursor"].as_str() else { break };
        after = format!("&after={next}");
    }
    let line = line.unwrap_or_else(|| json!({ "totalCostNanoUsd": 0, "totalTokens": 0, "sessions": 0 }));
    assert_eq!(json!([line["totalCostNanoUsd"], line["totalTokens"], line["sessions"]]), json!([cost, tokens, sessions]));
    let ledger = db.ledger(&ws.id).await;
    assert_eq!((db::nano(&ledger), db::tokens(&ledger)), (cost, tokens), "{ledger:#?}");
    for (limit, used) in [("maxCostUsdPerMonth", cost), ("maxTokensPerMonth", tokens)] {
        let window = ws.window(limit).await;
        assert_eq!((&window["used"], &window["held"]), (&json!(used), &json!(0)), "{window}");
    }
}

#[tokio::test]
async fn the_talk_is_the_receivers_and_the_bill_the_granters() {
    let model = model_of(&["plum tart"]).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1, "maxTokensPerMonth": 100_000 })).await, receiver().await);
    let bea = b.user("bea@test", "member").await;
    let grant = give(&a, &b, &json!({ "maxCostUsdPerMonth": 0.5 })).await;
    let (name, there) = (format!("{}/helper", a.id), format!("helper@{}", b.id));
    let body = json!({ "agentId": "helper", "message": "a recipe for quinces", "metadata": { "shelf": "quinces" } });
    let one = bea.post(&b.path("/turns"), &body).await;
    assert_eq!((one.header("ratelimit"), one.header("ratelimit-policy")), ("", ""), "what is left is the granter's to know");
    let one = one.ok(200);
    assert_eq!(
        json!([one["agentId"], one["content"], one["costNanoUsd"], one["paidBy"], one["quota"], one["usage"]["outputTokens"]]),
        json!([name, "plum tart", 0, a.id, { "windows": [] }, 3])
    );
    let again = json!({ "agentId": name, "message": "and of plums?", "sessionId": one["sessionId"] });
    let request = bea.request(http::Method::POST, &b.path("/turns")).header("Accept", "text/event-stream").json(&again);
    let response = request.open().await.unwrap();
    assert!(!response.headers().contains_key("ratelimit"), "nor does a stream say it");
    let events = Stream::of(response).rest().await;
    assert_eq!(events.last().unwrap().data["quota"], json!({ "windows": [] }));
    ask(&b).await.ok(200);
    // Its own agents are its own cost, and it has nothing.
    b.member.post(&b.path("/turns"), &json!({ "agentId": "assistant", "message": "hello" })).await.problem(429, "quota_exceeded");

    let calls = model.calls();
    assert!(calls.iter().all(|call| call.head.contains(canary::KEY)), "the granter's key");
    assert_eq!(calls[0].body["messages"][0]["content"], format!("You are the assistant of Test {}.", a.id));
    let said: Vec<_> = calls[1].body["messages"].as_array().unwrap().iter().map(|m| m["content"].clone()).collect();
    assert_eq!(said[1..], ["a recipe for quinces", "plum tart", "and of plums?"], "with what was said in the receiver's conversation");

    let db = Db::connect().await;
    let ledger = db.settled(&a.id, 3, SOON).await;
    let nano = aimock::gpt_4o_mini_nano(9, 3);
    for entry in &ledger {
        let face = json!([entry["grant_id"], entry["user_id"], entry["agent_id"], entry["nano"], entry["source"]]);
        assert_eq!(face, json!([grant["id"], b.id, there, nano, "provider"]), "the entry names the grant and the receiver");
    }
    assert_one_bill(&db, &a, 3 * nano, 36, 2, 3).await;
    assert_one_bill(&db, &b, 0, 0, 2, 3).await;
    assert_eq!(db.ledger(&b.id).await.len(), 0);
    let usage = a.owner.get(&a.path("/usage")).await.ok(200);
    assert_eq!((&usage["byAgent"][0]["agentId"], &usage["byAgent"][0]["totalCostNanoUsd"]), (&json!(there), &json!(3 * nano)));
    let cap = a.quota().await.into_iter().find(|w| w["scope"] == format!("agent:{there}")).unwrap();
    assert_eq!((&cap["max"], &cap["used"]), (&json!(500_000_000), &json!(3 * nano)));
    assert!(b.quota().await.iter().all(|w| w["scope"] == "workspace"), "what another pays for is none of its limits");

    // What was said is the receiver's.
    let texts: Vec<_> =
        db.messages(&b.id).await.iter().filter(|m| m["session_id"] == one["sessionId"]).map(|m| m["content"].clone()).collect();
    assert_eq!(texts, ["a recipe for quinces", "plum tart", "and of plums?", "plum tart"]);
    assert_eq!(bea.get(&b.path("/sessions")).await.ok(200)["data"].as_array().unwrap().len(), 1);
    let turns = db.turns(&b.id).await;
    assert_eq!(
        json!([turns[0]["user_id"], turns[0]["agent_id"], turns[0]["metadata"], turns[0]["model"], turns[0]["status"]]),
        json!(["bea@test", name, { "shelf": "quinces" }, "gpt-4o-mini", "completed"])
    );
    // And nothing of it is the granter's: no text, nobody's name.
    assert_eq!(db.messages(&a.id).await.len(), 0);
    let turn = &db.turns(&a.id).await[0];
    let face =
        json!([turn["user_id"], turn["answer"], turn["metadata"], turn["request_hash"], turn["idempotency_key"], turn["session_id"]]);
    assert_eq!(face, json!([b.id, null, null, "", null, one["sessionId"]]));
    assert_eq!(a.owner.get(&a.path("/sessions")).await.ok(200)["data"], json!([]));
    a.owner.get(&a.path(&format!("/sessions/{}/messages", one["sessionId"].as_str().unwrap()))).await.problem(404, "not_found");
    let all = a.owner.get(&a.path("/export?limit=200")).await;
    assert_eq!(all.status, 200);
    let all = format!("{all:?}");
    assert!(all.contains(&there), "{all}");
    for word in ["quinces", "plum tart", "bea@test"] {
        assert!(!all.contains(word), "{word} in what the granter has: {all}");
    }
}

#[tokio::test]
async fn a_limit_of_the_granters_refuses_and_tells_no_figure() {
    // Says 1,000 words, or as many as it is let.
    let model = Scripted::obedient(1_000, 0).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 0.0012 })).await, receiver().await);
    give(&a, &b, &json!({})).await;
    let mut turns = 0;
    let refused = loop {
        let reply = ask(&b).await;
        if reply.status != 200 {
            break reply;
        }
        turns += 1;
        assert!(turns < 100, "without end");
    };
    let problem = refused.problem(429, "quota_exceeded");
    assert_eq!(problem["limit"], "maxCostUsdPerMonth");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("The granting workspace's limit maxCostUsdPerMonth is reached"), "{detail}");
    assert!(
        problem.get("used").is_none() && problem.get("resetsAt").is_none() && !detail.contains(|c: char| c.is_ascii_digit()),
        "{problem}"
    );
    let window = a.window("maxCostUsdPerMonth").await;
    let used = window["used"].as_i64().unwrap();
    assert!(used <= 1_200_000 && used > 1_000_000 && window["held"] == 0, "{window}");
    // The granter's own agents have nothing left either.
    a.member.post(&a.path("/turns"), &json!({ "agentId": "helper", "message": "hello" })).await.problem(429, "quota_exceeded");
    let marks = a.owner.get(&a.path("/quota/events")).await.ok(200);
    assert!(marks["data"].as_array().unwrap().iter().any(|mark| mark["mark"] == 100), "{marks}");
    assert_eq!(b.owner.get(&b.path("/quota/events")).await.ok(200)["data"], json!([]));
    assert_one_bill_of_cost(&a, &b, used).await;
}

async fn assert_one_bill_of_cost(a: &Workspace, b: &Workspace, used: i64) {
    let db = Db::connect().await;
    assert_eq!((by_the_guide(&db, a).await.0, db::nano(&db.ledger(&a.id).await)), (used, used));
    assert_eq!((by_the_guide(&db, b).await.0, db.ledger(&b.id).await.len()), (0, 0));
}

#[tokio::test]
async fn what_a_grant_may_cost_is_a_limit_of_its_own_beside_the_agents() {
    let model = Scripted::obedient(1_000, 0).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 100 })).await, receiver().await);
    let most = json!({ "maxCostUsdPerMonth": 0.0012 });
    let mut grant = give(&a, &b, &most).await;
    let mut turns = 0;
    let refused = loop {
        let reply = ask(&b).await;
        if reply.status != 200 {
            break reply.problem(429, "quota_exceeded");
        }
        turns += 1;
        assert!(turns < 100, "giving it again refills it");
        revoke(&a, &grant).await;
        grant = give(&a, &b, &most).await;
    };
    assert!(refused["detail"].as_str().unwrap().starts_with("The grant's limit"), "{refused}");
    let scope = format!("agent:helper@{}", b.id);
    let window = a.quota().await.into_iter().find(|w| w["scope"] == scope).unwrap();
    let used = window["used"].as_i64().unwrap();
    assert!(used <= 1_200_000 && used > 1_000_000, "{window}");
    // The agent itself goes on, at home and for another.
    a.member.post(&a.path("/turns"), &json!({ "agentId": "helper", "message": "hello" })).await.ok(200);
    let c = receiver().await;
    give(&a, &c, &most).await;
    ask(&c).await.ok(200);
    ask(&b).await.problem(429, "quota_exceeded");
}

#[tokio::test]
async fn two_receivers_at_once_never_pass_a_small_limit_of_the_granters() {
    let model = Scripted::obedient_in_bursts(400, 20, 5).await;
    let (a, b, c) = (granter(&model, &json!({ "maxCostUsdPerMonth": 0.004 })).await, receiver().await, receiver().await);
    give(&a, &b, &json!({})).await;
    give(&a, &c, &json!({})).await;
    let callers = (0..16).map(async |n| {
        let ws = if n % 2 == 0 { &b } else { &c };
        let mut answered = 0;
        for _ in 0..6 {
            let reply = ask(ws).await;
            assert!([200, 429].contains(&reply.status), "{reply:?}");
            answered += usize::from(reply.status == 200);
        }
        answered
    });
    let watch = async {
        let mut most = 0;
        for _ in 0..40 {
            let window = a.window("maxCostUsdPerMonth").await;
            let sum = window["used"].as_i64().unwrap() + window["held"].as_i64().unwrap();
            assert!(sum <= 4_000_000, "{window}");
            most = most.max(sum);
            wait::millis(50).await;
        }
        most
    };
    let (answered, most) = futures_util::future::join(futures_util::future::join_all(callers), watch).await;
    let (answered, db) = (answered.iter().sum::<usize>(), Db::connect().await);
    let ledger = db.settled(&a.id, model.calls().len(), SOON).await;
    let spent = db::nano(&ledger);
    assert!(spent <= 4_000_000 && spent > 3_000_000 && most > 0, "{spent} spent");
    assert!(answered >= 2 && ledger.len() >= answered);
    let by = |ws: &Workspace| ledger.iter().filter(|entry| entry["user_id"] == ws.id.as_str()).count();
    assert!(by(&b) > 0 && by(&c) > 0 && by(&b) + by(&c) == ledger.len());
    let turns = db.turns(&b.id).await.len() + db.turns(&c.id).await.len();
    assert_eq!(turns, ledger.len(), "each turn is a row there");
    assert_eq!(a.held().await, 0);
}

#[tokio::test]
async fn a_key_is_the_receivers_and_its_turn_is_paid_once() {
    let model = Scripted::start(vec![scripted::answer(&["slow ", "answer"], 300, 9, 3)]).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1 })).await, receiver().await);
    give(&a, &b, &json!({})).await;
    // Of the granter's own: the same key is another.
    let own = keyed(&a.member, &a, "key-1", "of a").await.ok(200);
    let together = futures_util::future::join_all((0..5).map(|_| keyed(&b.member, &b, "key-1", "of b"))).await;
    let first = together[0].json();
    assert_ne!(first["turnId"], own["turnId"]);
    for reply in together {
        let answer = reply.ok(200);
        assert_eq!((&answer["turnId"], &answer["content"]), (&first["turnId"], &json!("slow answer")));
    }
    let again = keyed(&b.member, &b, "key-1", "of b").await.ok(200);
    assert_eq!(again, first, "as it was, none of the granter's figures in it");
    assert_eq!((&again["paidBy"], &again["costNanoUsd"], &again["quota"]), (&json!(a.id), &json!(0), &json!({ "windows": [] })));
    keyed(&b.member, &b, "key-1", "something else").await.problem(422, "idempotency_key_reused");
    keyed(&b.owner, &b, "key-1", "of b").await.problem(422, "idempotency_key_reused");
    assert_eq!(model.calls().len(), 2);
    let ledger = Db::connect().await.settled(&a.id, 2, SOON).await;
    assert_eq!(db::nano(&ledger), 2 * aimock::gpt_4o_mini_nano(9, 3));
    // While it runs: with another body, and by somebody else.
    let running = keyed(&b.member, &b, "key-2", "of b");
    let meanwhile = async {
        wait::until("it is asked", SOON, async || if model.calls().len() == 3 { Ok(()) } else { Err("not yet") }).await;
        keyed(&b.member, &b, "key-2", "something else").await.problem(422, "idempotency_key_reused");
        keyed(&a.member, &a, "key-2", "of a").await.ok(200)
    };
    let (of_b, of_a) = futures_util::future::join(running, meanwhile).await;
    assert_ne!(of_b.ok(200)["turnId"], of_a["turnId"]);
}

#[tokio::test]
async fn a_client_that_hangs_up_is_paid_for_by_the_granter() {
    let model = Scripted::start(vec![scripted::answer(&["one ", "two ", "three"], 300, 9, 3)]).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1 })).await, receiver().await);
    give(&a, &b, &json!({})).await;
    let mut stream = Stream::open(&b.member, &b.path("/turns"), &json!({ "agentId": "helper", "message": "hello" })).await;
    stream.next_named("content.delta").await;
    assert!(a.held().await > 0, "it is held by who pays");
    drop(stream);
    let db = Db::connect().await;
    let ledger = db.settled(&a.id, 1, SOON).await;
    assert_eq!((&ledger[0]["nano"], &ledger[0]["source"]), (&json!(aimock::gpt_4o_mini_nano(9, 3)), &json!("provider")));
    assert_eq!(db.messages(&b.id).await.last().unwrap()["content"], "one two three");
    assert_eq!(a.held().await, 0);
}

#[tokio::test]
async fn a_turn_is_stopped_where_it_was_asked_for_and_by_nobody_else() {
    let model = Scripted::obedient(20_000, 2).await;
    let (a, b, c) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1 })).await, receiver().await, receiver().await);
    give(&a, &b, &json!({})).await;
    give(&a, &c, &json!({})).await;
    let mut stream = Stream::open(&b.member, &b.path("/turns"), &json!({ "agentId": "helper", "message": "count" })).await;
    let turn = stream.next_named("turn.started").await.data["turnId"].as_str().unwrap().to_owned();
    stream.next_named("content.delta").await;
    let stop = async |api: &Api, ws: &Workspace| api.post(&ws.path(&format!("/turns/{turn}/stop")), &json!({})).await;
    let other = b.user("other@test", "member").await;
    for (api, ws) in [(&other, &b), (&a.owner, &a), (&a.member, &a), (&c.owner, &c), (&c.member, &c)] {
        stop(api, ws).await.problem(404, "not_found");
    }
    assert_eq!(stop(&b.member, &b).await.ok(202)["status"], "stopping");
    let events = stream.rest().await;
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["finishReason"]), ("turn.completed", &json!("stopped")), "{last:?}");
    let ledger = Db::connect().await.settled(&a.id, 1, SOON).await;
    assert_eq!(ledger[0]["output_tokens"], last.data["usage"]["outputTokens"]);
    assert_eq!(a.held().await, 0);
    stop(&b.member, &b).await.problem(404, "not_found");
}

#[tokio::test]
async fn a_grant_that_is_revoked_or_given_back_stops_a_running_answer() {
    let model = Scripted::obedient(20_000, 2).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1 })).await, receiver().await);
    for by in [&a, &b] {
        let grant = give(&a, &b, &json!({})).await;
        let mut stream = Stream::open(&b.member, &b.path("/turns"), &json!({ "agentId": "helper", "message": "count" })).await;
        stream.next_named("content.delta").await;
        wait::millis(1_000).await;
        revoke(by, &grant).await;
        let events = stream.rest().await;
        let last = events.last().unwrap();
        assert_eq!((last.name.as_str(), &last.data["finishReason"]), ("turn.completed", &json!("stopped")), "{last:?}");
        let after = events.iter().filter(|event| event.name == "content.delta").count();
        assert!(after < 1_500, "{after} words came after the revocation");
        ask(&b).await.problem(403, "forbidden");
        assert_eq!(a.held().await, 0);
        // What was said until then is the receiver's still, and paid for.
        let db = Db::connect().await;
        let (messages, ledger) = (db.messages(&b.id).await, db.ledger(&a.id).await);
        assert_eq!((messages.last().unwrap()["role"].as_str(), messages.len()), (Some("assistant"), 2 * ledger.len()));
        assert_eq!(ledger.last().unwrap()["output_tokens"], last.data["usage"]["outputTokens"]);
    }
}

#[tokio::test]
async fn a_grant_that_expires_stops_a_running_answer_at_the_granters() {
    let model = Scripted::obedient(20_000, 2).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1 })).await, receiver().await);
    let sql = "SELECT to_char((now() + interval '5 s') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS at";
    let expires = Db::connect().await.rows(sql, &[]).await;
    give(&a, &b, &json!({ "expiresAt": expires[0]["at"] })).await;
    let stream = Stream::open(&b.member, &b.path("/turns"), &json!({ "agentId": "helper", "message": "count" })).await;
    let events = stream.rest().await;
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["finishReason"]), ("turn.completed", &json!("stopped")), "{last:?}");
    ask(&b).await.problem(403, "forbidden");
}

#[tokio::test]
async fn both_are_held_to_their_models_and_the_receiver_says_who_may_ask() {
    let model = model_of(&["fine"]).await;
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1 })).await, receiver().await);
    give(&a, &b, &json!({})).await;
    let held_to = async |ws: &Workspace, providers: Value| {
        ws.operator.patch(&ws.path(""), &json!({ "restrictions": { "allowedProviders": providers } })).await.ok(200);
    };
    for ws in [&a, &b] {
        held_to(ws, json!(["local"])).await;
        let problem = ask(&b).await.problem(403, "forbidden");
        assert!(problem["detail"].as_str().unwrap().contains("both workspaces"), "{problem}");
        held_to(ws, json!(["openai"])).await;
    }
    ask(&b).await.ok(200);
    // A role that may not invoke is not asked elsewhere either; who has no conversation of that name has none.
    let viewer = b.user("viewer@test", "viewer").await;
    viewer.post(&b.path("/turns"), &json!({ "agentId": "helper", "message": "hello" })).await.problem(403, "forbidden");
    let body = json!({ "agentId": "helper", "message": "hello", "sessionId": uuid::Uuid::new_v4() });
    b.member.post(&b.path("/turns"), &body).await.problem(404, "not_found");
    // Nobody asks for an agent by what the granter's bill calls it.
    for ws in [&a, &b] {
        let body = json!({ "agentId": format!("helper@{}", b.id), "message": "hello" });
        ws.member.post(&ws.path("/turns"), &body).await.problem(422, "unprocessable");
    }
    assert_eq!(model.calls().len(), 1);
}

/// The moment between what a turn has read and its hold, which load alone seldom meets: the hold of a turn that runs is given back and asked for once more.
#[tokio::test]
async fn a_guests_grant_and_key_are_looked_at_under_the_granters_lock() {
    if environment::host() == "workers" {
        return; // the object's own way is shown by its tests
    }
    let (model, db) = (Scripted::obedient(20_000, 2).await, Db::connect().await);
    let (a, b) = (granter(&model, &json!({ "maxCostUsdPerMonth": 1 })).await, receiver().await);
    let grant = give(&a, &b, &json!({})).await;
    let counter = Session::of_function("astra_quota").await;
    let opening = format!("SELECT astra.enter('{}'); SELECT astra.holds_forget('{}', '{{}}')", proof::of(&a.id), a.id);
    let held = async || db.rows("SELECT h.turn_id, h.hold, h.draft, h.tokens FROM holds h WHERE h.workspace_id = $1", &[&a.id]).await.pop();
    let body = json!({ "agentId": "helper", "message": "count" });
    for (key, is_key) in [("key", true), ("", false)] {
        let headers: &[(&str, &str)] = if is_key { &[("Idempotency-Key", key)] } else { &[] };
        let mut stream = Stream::open_with(&b.member, &b.path("/turns"), &body, headers).await;
        let turn = stream.next_named("turn.started").await.data["turnId"].as_str().unwrap().to_owned();
        let row = held().await.expect("it runs");
        let again = json!({ "turnId": row["turn_id"], "now": row["hold"]["startedAt"], "hold": row["hold"], "draft": row["draft"], "tokens": row["tokens"] });
        let take = format!("SELECT astra.hold_take('{}', '{}')", a.id, again.to_string().replace('\'', "''"));
        let take = async || counter.answer(&opening, &take).await.unwrap();
        let taken = take().await;
        assert!(taken.contains("taken"), "{taken}");
        if is_key {
            b.member.post(&b.path(&format!("/turns/{turn}/stop")), &json!({})).await.ok(202);
            stream.rest().await;
            let refused = take().await;
            assert!(refused.contains("again"), "its key is used by now: {refused}");
        } else {
            revoke(&a, &grant).await;
            let refused = take().await;
            assert!(refused.contains("again"), "the grant is gone by now: {refused}");
            stream.rest().await;
        }
    }
}
