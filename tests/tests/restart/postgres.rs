//! The database dies and comes back.

use crate::{PATIENCE, SOON, a_well_stack, assert_unavailable, assert_whole, slow_answer, until_it_works, workspace_on};
use astra_tests::stack::{self, PostgresAway};
use astra_tests::workspace::unique;
use astra_tests::{Api, Db, Scripted, Workspace, aimock, canary, environment, scripted, template, wait};
use serde_json::json;

#[tokio::test]
async fn a_restart_of_postgres_between_turns_is_got_over() {
    a_well_stack().await;
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 1 }), &[template::local("assistant")]).await;
    ws.turn("before").await.ok(200);
    stack::restart_postgres().await;
    until_it_works(&ws, "after").await;
    assert_whole(&ws).await;
}

#[tokio::test]
async fn kf06_without_postgres_turns_are_refused_before_any_call_and_after_it_all_is_well() {
    let model = Scripted::start(vec![scripted::answer(&["fine"], 0, 5, 1)]).await;
    let ws = workspace_on(&model).await;
    ws.turn("before").await.ok(200);
    let away = PostgresAway::now().await;
    for _ in 0..5 {
        assert_unavailable(ws.turn("is anybody there?").await);
    }
    let stream = ws
        .member
        .request(http::Method::POST, &ws.path("/turns"))
        .json(&Workspace::turn_body("stream"))
        .header("accept", "text/event-stream");
    assert_unavailable(stream.send().await);
    assert_unavailable(ws.owner.get(&ws.path("/sessions")).await);
    assert_unavailable(ws.owner.get(&ws.path("")).await);
    let body = json!({ "id": unique("t"), "displayName": "x", "plan": "p", "ownerId": "o" });
    assert_unavailable(Api::operator().post("/workspaces", &body).await);
    let health = Api::anonymous().get("/healthz").await;
    assert_eq!(health.status, 503, "{health:?}");
    assert_eq!(model.calls().len(), 1, "no model call was made for a turn that could not be saved");
    away.over();
    until_it_works(&ws, "after").await;
    assert_eq!(Db::connect().await.ledger(&ws.id).await.len(), 2, "what was refused is not there");
    assert_whole(&ws).await;
    wait::until("a healthy /healthz", SOON, async || match Api::anonymous().get("/healthz").await.status {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
}

#[tokio::test]
async fn kf07_a_turn_that_ends_while_postgres_is_away_is_in_the_ledger_when_it_is_back() {
    let model = Scripted::start(vec![slow_answer()]).await;
    let ws = workspace_on(&model).await;
    let mut stream = ws.stream("hold on").await;
    let turn = stream.next_named("turn.started").await.data["turnId"].clone();
    stream.next_named("content.delta").await;
    let away = PostgresAway::now().await;
    let events = stream.rest().await;
    let last = events.last().expect("the stream says how it ended");
    assert!(["turn.completed", "turn.failed"].contains(&last.name.as_str()), "{last:?}");
    away.over();
    let database = Db::connect().await;
    let ledger = database.settled(&ws.id, 1, PATIENCE).await;
    assert_eq!(
        (&ledger[0]["turn_id"], &ledger[0]["nano"], &ledger[0]["source"]),
        (&turn, &json!(aimock::gpt_4o_mini_nano(20, 8)), &json!("provider"))
    );
    let messages = database.messages(&ws.id).await;
    assert_eq!(messages.last().unwrap()["content"], "one two three four five six seven eight");
    assert_whole(&ws).await;
}

#[tokio::test]
async fn a_restart_of_postgres_in_the_middle_of_many_turns_leaves_none_half_saved() {
    let model = Scripted::obedient(10, 60).await;
    let ws = workspace_on(&model).await;
    ws.turn("warm").await.ok(200);
    let turns = (0..40).map(|n| {
        let ws = ws.clone();
        tokio::spawn(async move {
            wait::millis(n * 50).await;
            ws.turn(&format!("number {n}")).await
        })
    });
    let turns: Vec<_> = turns.collect();
    wait::millis(700).await;
    stack::restart_postgres().await;
    let mut told = Vec::new();
    for turn in turns {
        let reply = turn.await.unwrap();
        if reply.status == 200 {
            told.push(reply.json());
        } else {
            assert_unavailable(reply);
        }
    }
    until_it_works(&ws, "after").await;
    let database = Db::connect().await;
    for answer in &told {
        let id = answer["turnId"].as_str().unwrap();
        let entry = wait::until("an acknowledged turn", PATIENCE, async || {
            database.ledger(&ws.id).await.into_iter().find(|entry| entry["turn_id"] == id).ok_or(id)
        })
        .await;
        assert_eq!(entry["nano"], answer["costNanoUsd"]);
    }
    wait::until("all holds to end", environment::model_timeout() + PATIENCE, async || match ws.held().await {
        0 => Ok(()),
        held => Err(held),
    })
    .await;
    assert!(told.len() >= 10, "most went through: {}", told.len());
    assert_whole(&ws).await;
}

/// Lets nobody of the functions' roles connect any more, as a database at its limit does, for as long as this lives.
struct Full(Db);

const ROLES: [&str; 6] = ["astra_provision", "astra_invoke", "astra_quota", "astra_billing", "astra_grants", "astra_memory"];

impl Full {
    async fn now() -> Self {
        let database = Db::connect().await;
        Self::limit(&database, "0").await;
        for role in ROLES {
            database.run(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")).await;
        }
        Self(database)
    }

    async fn limit(database: &Db, limit: &str) {
        for role in ROLES {
            database.run(&format!("ALTER ROLE {role} CONNECTION LIMIT {limit}")).await;
        }
    }
}

#[tokio::test]
async fn a_postgres_at_its_connection_limit_refuses_turns_and_all_is_well_after_it() {
    let model = Scripted::start(vec![scripted::answer(&["fine"], 0, 5, 1)]).await;
    let ws = workspace_on(&model).await;
    ws.turn("before").await.ok(200);
    let full = Full::now().await;
    // A turn whose statements found a connection just in time may still go through.
    wait::until("a refusal", SOON, async || match ws.turn("is there room?").await.status {
        503 => Ok(()),
        status => Err(status),
    })
    .await;
    let asked = model.calls().len();
    for _ in 0..3 {
        assert_unavailable(ws.turn("is there room?").await);
        assert_unavailable(ws.owner.get(&ws.path("")).await);
    }
    assert_eq!(model.calls().len(), asked, "no model is called for a turn that could not begin");
    Full::limit(&full.0, "-1").await;
    until_it_works(&ws, "after").await;
    assert_whole(&ws).await;
}

#[tokio::test]
async fn a_postgres_that_hangs_is_given_up_and_all_is_well_after_it() {
    a_well_stack().await;
    let ws = Workspace::with(&json!({ "maxCostUsdPerMonth": 1 }), &[template::local("assistant")]).await;
    ws.turn("before").await.ok(200);
    let locks = Db::connect().await;
    locks.run("BEGIN; LOCK TABLE public.workspaces IN ACCESS EXCLUSIVE MODE").await;
    let path = ws.path("");
    let both = async { tokio::join!(ws.turn("do you hang?"), ws.owner.get(&path)) };
    let (turn, read) = tokio::time::timeout(2 * SOON, both).await.expect("a request hangs with the database");
    assert_unavailable(turn);
    assert_unavailable(read);
    locks.run("ROLLBACK").await;
    until_it_works(&ws, "after").await;
    assert_whole(&ws).await;
}

/// An answer may end while more is being asked for. Who asked is gone then, but what was asked goes on to its end on its connection: that one is not closed, for
/// making the next costs as much as ten turns.
#[tokio::test]
async fn turns_that_end_while_their_counter_is_asked_keep_its_connections() {
    a_well_stack().await;
    let model = Scripted::obedient_in_bursts(200, 20, 1).await;
    let agent = template::openai("assistant", &model.openai());
    // So little that each answer asks for more as it comes.
    let ws = Workspace::with(&json!({ "maxTokensPerMonth": 60_000 }), &[agent]).await;
    ws.put_secret("OPENAI_API_KEY", &canary::key()).await;
    for _ in 0..5 {
        ws.turn("warm up").await.ok(200);
    }
    let database = Db::connect().await;
    let began = database.number("SELECT extract(epoch FROM clock_timestamp()) * 1000", &[]).await;
    for _ in 0..40 {
        ws.turn("a few words").await.ok(200);
    }
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'astra_quota' AND extract(epoch FROM backend_start) * 1000 > {began}"
    );
    let made = database.number(&sql, &[]).await;
    assert!(made <= 2, "{made} connections of the counter were made anew in 40 turns");
}
