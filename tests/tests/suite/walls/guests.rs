//! Another workspace's turn, which this one pays (migrations/0028): what a good proof of the payer can enter at the receiver's, and what it cannot.

use astra_tests::{Db, Session, Workspace, proof, template, workspace};
use serde_json::{Value, json};

/// A, which grants to B and to C and pays for both, and D, which has nothing to do with it.
struct Scene {
    db: Db,
    a: Workspace,
    others: [Workspace; 3],
    grants: [String; 2],
}

async fn one() -> Workspace {
    Workspace::with(&workspace::roomy(), &[template::local("assistant")]).await
}

impl Scene {
    async fn new() -> Self {
        let (a, b, c, d) = (one().await, one().await, one().await, one().await);
        let give = async |to: &Workspace| {
            let body = json!({ "receivingWorkspaceId": to.id, "agentId": "assistant", "payer": "granter" });
            let grant = a.owner.post(&a.path("/grants"), &body).await.ok(201);
            grant["id"].as_str().unwrap().to_owned()
        };
        let grants = [give(&b).await, give(&c).await];
        Self { db: Db::connect().await, a, others: [b, c, d], grants }
    }

    /// A function of the counter's role, with a proof of a workspace; what it does stays.
    async fn call(&self, prover: &str, name: &str, of: &str, argument: &Value) -> Result<String, String> {
        let argument = argument.to_string().replace('\'', "''");
        let proof = proof::of(prover);
        let session = Session::of_function("astra_quota").await;
        let answer = session.answer(&format!("SELECT astra.enter('{proof}')"), &format!("SELECT astra.{name}('{of}', '{argument}')")).await;
        // The session has rolled it back. Once more, to stay.
        if answer.is_ok() {
            let sql = format!("BEGIN; SET LOCAL ROLE astra_quota; SELECT astra.{name}(astra.enter('{proof}'), '{argument}'); COMMIT");
            if prover == of {
                self.db.run(&sql).await;
            }
        }
        answer.map_err(|refused| refused.code)
    }

    fn asks(&self, turn: &uuid::Uuid) -> Value {
        json!({
            "turnId": turn, "newSessionId": uuid::Uuid::new_v4(), "agentId": format!("{}/assistant", self.a.id), "subject": "member@test", "requestHash": "h",
            "message": "plum", "now": "2026-11-28T12:00:00.000Z", "historyLimit": 10, "topK": 0, "hostProviders": [],
        })
    }

    /// What the payer's counter asks to begin the turn of a record.
    fn begins(&self, record: &Value) -> Value {
        let mut begins = self.asks(&record["turnId"].as_str().unwrap().parse().unwrap());
        for (to, from) in [("newSessionId", "sessionId"), ("agentId", "agentId"), ("idempotencyKey", "idempotencyKey"), ("guest", "guest")]
        {
            begins[to] = record[from].clone();
        }
        begins["guest"]["newSession"] = record["newSession"].clone();
        begins
    }

    /// A record as the payer's counter would send it, by what the receiver's said.
    async fn record(&self, key: Option<&str>) -> Value {
        let (b, turn) = (&self.others[0].id, uuid::Uuid::new_v4());
        let mut asks = self.asks(&turn);
        asks["idempotencyKey"] = json!(key);
        let referral: Value = serde_json::from_str(&self.call(b, "turn_begin", b, &asks).await.unwrap()).unwrap();
        assert_eq!(referral["outcome"], "payer", "{referral}");
        json!({
            "turnId": turn, "sessionId": referral["sessionId"], "newSession": true, "agentId": referral["countedAs"], "subject": "member@test", "status": "completed",
            "finishReason": "stop", "message": "plum", "content": "tart", "provider": "local", "model": "echo-1", "priceVersion": 1, "costNanoUsd": 5,
            "usage": { "inputTokens": 1, "cachedInputTokens": 0, "outputTokens": 1, "reasoningTokens": 0, "source": "provider" }, "idempotencyKey": key.map(|key| format!("{b}\n{key}")), "requestHash": "h",
            "errorCode": null, "answer": { "content": "tart" }, "metadata": null, "startedAt": "2026-11-28T12:00:00.000Z", "endedAt": "2026-11-28T12:00:01.000Z",
            "guest": { "workspace": b, "grantId": self.grants[0], "ticket": referral["ticket"] },
        })
    }

    /// Turns, sessions and messages of those who pay nothing.
    async fn entered(&self) -> i64 {
        let sql = "SELECT (SELECT count(*) FROM turns WHERE workspace_id = $1) + (SELECT count(*) FROM sessions WHERE workspace_id = $1)
                        + (SELECT count(*) FROM messages WHERE workspace_id = $1) + (SELECT count(*) FROM ledger WHERE workspace_id = $1)";
        let mut all = 0;
        for ws in &self.others {
            all += self.db.number(sql, &[&ws.id]).await;
        }
        all
    }
}

#[tokio::test]
async fn a_payers_proof_enters_nothing_that_the_receiver_has_not_asked_for() {
    let scene = Scene::new().await;
    let [b, c, d] = &scene.others;
    let finish = async |record: &Value| scene.call(&scene.a.id, "turn_finish", &scene.a.id, record).await.unwrap();
    let (guest, ticket) = (|name: &str| format!("/guest/{name}"), scene.record(None).await["guest"]["ticket"].clone());
    let forged = [
        (guest("grantId"), json!(uuid::Uuid::new_v4()), "a grant that is not there"),
        (guest("grantId"), json!(scene.grants[1]), "another receiver's grant"),
        (guest("workspace"), json!(c.id), "another receiver"),
        (guest("workspace"), json!(d.id), "a workspace that has no grant"),
        (guest("workspace"), json!(scene.a.id), "itself"),
        (guest("ticket"), ticket, "another turn's ticket"),
        (guest("ticket"), json!(""), "no ticket"),
        (guest("ticket"), Value::Null, "none at all"),
        ("/subject".to_owned(), json!("owner@test"), "another member"),
        ("/sessionId".to_owned(), json!(uuid::Uuid::new_v4()), "another conversation"),
        ("/newSession".to_owned(), json!(false), "a conversation that is there"),
        ("/requestHash".to_owned(), json!("x"), "another request"),
        ("/idempotencyKey".to_owned(), json!(format!("{}\nkey", b.id)), "a key"),
    ];
    for (pointer, value, what) in forged {
        let mut record = scene.record(None).await;
        *record.pointer_mut(&pointer).unwrap() = value;
        let said = finish(&record).await;
        assert!(said.contains("saved"), "A's own ledger is A's own business: {said}");
        assert_eq!(scene.entered().await, 0, "{what}");
    }
    // Another's proof: nothing of A's ledger, nothing of B's.
    let good = scene.record(Some("key-1")).await;
    for prover in [c, d] {
        let of_a = scene.call(&prover.id, "turn_finish", &scene.a.id, &good).await;
        assert_eq!(of_a, Err("42501".to_owned()), "{of_a:?}");
        scene.call(&prover.id, "turn_finish", &prover.id, &good).await.unwrap();
        assert_eq!(scene.db.number("SELECT count(*) FROM turns WHERE workspace_id = $1", &[&b.id]).await, 0);
    }
    // As it was asked for it is entered, once, and with no cost there. (C's and D's have entered something in their own ledgers above.)
    let before = scene.entered().await;
    for _ in 0..2 {
        finish(&good).await;
        assert_eq!(scene.entered().await, before + 4, "a turn, a conversation, two messages, no entry");
    }
}

#[tokio::test]
async fn a_guest_begins_by_a_grant_in_force_that_its_workspace_has_asked_with_and_once_for_its_key() {
    let scene = Scene::new().await;
    let (a, c) = (&scene.a.id, &scene.others[1].id);
    let begin = async |record: &Value| {
        let said: Value = serde_json::from_str(&scene.call(a, "turn_begin", a, &scene.begins(record)).await.unwrap()).unwrap();
        said["outcome"].as_str().unwrap().to_owned()
    };
    let (good, again) = (scene.record(Some("key-1")).await, scene.record(Some("key-1")).await);
    assert_eq!((begin(&good).await, begin(&again).await), ("ok".to_owned(), "ok".to_owned()));
    for (pointer, value) in [
        ("/guest/grantId", json!(scene.grants[1])),
        ("/guest/workspace", json!(c)),
        ("/guest/ticket", again["guest"]["ticket"].clone()),
        ("/agentId", json!(format!("plum@{}", scene.others[0].id))),
        ("/agentId", json!("assistant")),
    ] {
        let mut forged = good.clone();
        *forged.pointer_mut(pointer).unwrap() = value;
        assert_eq!(begin(&forged).await, "agent_denied", "{pointer}");
    }
    scene.call(a, "turn_finish", a, &good).await.unwrap();
    assert_eq!(begin(&again).await, "key_taken");
    let late = scene.record(None).await;
    assert_eq!(begin(&late).await, "ok");
    let _ = scene.a.owner.delete(&scene.a.path(&format!("/grants/{}", scene.grants[0]))).await.expect(204);
    assert_eq!(begin(&late).await, "agent_denied");
}

#[tokio::test]
async fn what_shows_that_a_turn_was_asked_for_is_had_with_the_receivers_proof_alone() {
    let scene = Scene::new().await;
    let (a, b) = (&scene.a.id, &scene.others[0].id);
    let asks = scene.asks(&uuid::Uuid::new_v4());
    let own = scene.call(b, "turn_begin", b, &asks).await.unwrap();
    assert!(own.contains("\"ticket\""), "{own}");
    for prover in [a, &scene.others[1].id] {
        let theirs = scene.call(prover, "turn_begin", b, &asks).await.unwrap();
        assert_eq!(theirs, r#"{"outcome": "workspace_unknown"}"#);
    }
    // A ticket is no proof, and what makes one is for nobody who logs in.
    let ticket = serde_json::from_str::<Value>(&own).unwrap()["ticket"].as_str().unwrap().to_owned();
    let (kid, mac) = ticket.split_once(' ').unwrap();
    let session = Session::of_function("astra_quota").await;
    for said in [format!("{mac} {b} 99999999999 {kid} "), format!("{mac} [\"guest\", \"{b}\", 99999999999, {kid} ")] {
        let status = session.answer(&format!("SELECT astra.enter('{said}')"), &format!("SELECT astra.quota_status('{b}', '{{}}')")).await;
        assert_eq!(status.map_err(|refused| refused.code), Err("42501".to_owned()));
    }
    for role in super::FUNCTIONS {
        let session = Session::of_function(role).await;
        for call in [
            format!("astra.guest_ticket('{b}', '{kid}', '{{}}')"),
            "astra.guest_grant('{}', now())".to_owned(),
            "astra.guest_begin('{}', now())".to_owned(),
            "astra.guest_enter('{}', '{}')".to_owned(),
        ] {
            let outcome =
                session.rows(&format!("SELECT set_config('astra.proof', '{}', true)", proof::of(a)), &format!("SELECT {call}")).await;
            assert_eq!(outcome.map_err(|refused| refused.code), Err("42501".to_owned()), "{role}: {call}");
        }
    }
}
