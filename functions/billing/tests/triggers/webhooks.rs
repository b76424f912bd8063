//! Webhooks: signed, told once or more under one id, given up in time.

use crate::rig::{Rig, START, World, answer, kills};
use astra_host::Host as _;
use astra_host::outgoing::{NotAnswered, Outgoing};
use astra_kernel::{Timestamp, WorkspaceId};
use astra_store::Tenant;
use astra_store::secrets::SealedSecret;
use astra_store::webhooks::{Attempt, Delivered, NewWebhook, PutWebhook, Replayed};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use billing::jobs::{Job, run};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const URL: &str = "https://hooks.example.com/astra";

/// What a receiver had: id, timestamp, signatures, body; in order.
type Had = Arc<Mutex<Vec<[String; 4]>>>;

fn sealed(process: &Rig, ws: &WorkspaceId, name: &str, secret: &[u8]) -> SealedSecret {
    let sealed = process.shared().secrets_key().unwrap().seal(ws, &format!("webhook {name}"), secret, [3; 12]).unwrap();
    let text = |bytes: Vec<u8>| BASE64_STANDARD.encode(bytes);
    SealedSecret { name: name.to_owned(), key_id: sealed.key_id, nonce: text(sealed.nonce), ciphertext: text(sealed.ciphertext) }
}

async fn put(process: &Rig, ws: &WorkspaceId, name: &str, secret: &[u8]) -> PutWebhook {
    let events = ["quota.threshold".to_owned()];
    let webhook = NewWebhook { url: URL, events: &events, most: 20 };
    Tenant::open(process, ws.clone()).put_webhook(webhook, &sealed(process, ws, name, secret), process.now()).await.unwrap()
}

fn note(call: &Outgoing) -> [String; 4] {
    let header = |name: &str| call.headers.iter().find(|(said, _)| *said == name).map(|(_, value)| value.clone()).unwrap_or_default();
    assert_eq!((call.method.as_str(), call.url(), header("content-type").as_str()), ("POST", URL, "application/json"));
    [header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"), call.body.clone()]
}

/// A receiver that answers as it is told to.
fn receiver(world: &World, mut answers: impl FnMut(usize) -> u16 + Send + 'static) -> Had {
    let had = Had::default();
    let notes = Arc::clone(&had);
    world.outside(move |call| {
        let mut notes = notes.lock().unwrap();
        notes.push(note(call));
        match answers(notes.len()) {
            0 => Err(NotAnswered::TimedOut),
            status => Ok(answer(status)),
        }
    });
    had
}

/// By another library than ours.
fn is_signed([id, timestamp, signatures, body]: &[String; 4], secret: &[u8]) -> bool {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let expected = format!("v1,{}", BASE64_STANDARD.encode(ring::hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes())));
    signatures.split(' ').any(|signature| signature == expected)
}

/// Leaves what was sent where others verify it (`scripts/prove triggers`): `TRIGGERS_SIGNED` is a file.
fn record(had: &[[String; 4]], secret: &[u8]) {
    let Ok(path) = std::env::var("TRIGGERS_SIGNED") else { return };
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(secret));
    let messages: Vec<_> = had
        .iter()
        .map(|[id, timestamp, signatures, body]| {
            json!({ "secret": secret, "body": body, "headers": { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signatures } })
        })
        .collect();
    std::fs::write(path, json!(messages).to_string()).unwrap();
}

async fn tell(world: &World, process: &Rig) {
    run(process, Job::DeliverWebhooks, Timestamp(world.now() + 60_000), true).await.unwrap();
}

async fn deliveries(world: &World, ws: &WorkspaceId) -> Vec<Value> {
    world.rows(&format!("SELECT * FROM webhook_deliveries WHERE workspace_id = '{ws}' ORDER BY created_at, body")).await
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_mark_is_told_once_and_signed() {
    let world = World::new(&[]).await;
    let (ws, process) = (world.workspace().await, world.process().await);
    assert!(matches!(put(&process, &ws, "mine", &[5; 32]).await, PutWebhook::Created(_)));
    let had = receiver(&world, |_| 204);
    world.mark(&ws, 50).await;
    // What another workspace is told goes to its own.
    world.mark(&world.workspace().await, 50).await;
    tell(&world, &process).await;
    tell(&world, &process).await;
    let had = had.lock().unwrap().clone();
    assert_eq!(had.len(), 1, "{had:?}");
    assert!(is_signed(&had[0], &[5; 32]) && !is_signed(&had[0], &[6; 32]));
    assert_eq!(had[0][1], (START / 1000).to_string());
    let body: Value = serde_json::from_str(&had[0][3]).unwrap();
    let expected = json!({ "type": "quota.threshold", "timestamp": "2026-01-28T12:00:00.000Z", "data": { "workspaceId": ws.as_str(), "limit": "maxCostUsdPerMonth",
        "scope": "workspace", "mark": 50, "max": 100, "used": 50, "startsAt": "2026-01-28T12:00:00.000Z", "at": "2026-01-28T12:00:00.000Z" } });
    assert_eq!(body, expected);
    let row = &deliveries(&world, &ws).await[0];
    assert_eq!(had[0][0], format!("msg_{}", row["id"].as_str().unwrap().replace('-', "")));
    assert_eq!(row["log"], json!([{ "at": "2026-01-28T12:00:00.000Z", "status": 204, "millis": 0 }]));
    assert!(row["delivered_at"].is_string() && row["next_at"].is_null() && row["dead_at"].is_null());
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn an_event_that_is_rolled_back_is_told_to_nobody_and_one_of_a_kind_not_asked_for_neither() {
    let world = World::new(&[]).await;
    let (ws, process) = (world.workspace().await, world.process().await);
    put(&process, &ws, "mine", &[5; 32]).await;
    let emit = |kind: &str, end: &str| {
        format!(
            "BEGIN; SELECT astra.enter('{}'); SELECT astra.webhook_emit('{ws}', '{kind}', '{{}}', now()); {end}",
            crate::rig::proof(&ws)
        )
    };
    for (kind, end, count) in [("quota.threshold", "ROLLBACK", 0), ("invoice.closed", "COMMIT", 0), ("quota.threshold", "COMMIT", 1)] {
        world.admin.batch_execute(&emit(kind, end)).await.unwrap();
        assert_eq!(deliveries(&world, &ws).await.len(), count, "{kind} {end}");
    }
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_receiver_that_fails_is_asked_again_by_the_schedule_under_the_same_id_until_it_is_dead() {
    let world = World::new(&[]).await;
    let (ws, process) = (world.workspace().await, world.process().await);
    put(&process, &ws, "mine", &[5; 32]).await;
    // A time-out, a redirect, refusals: all failures. In between it takes something, so that it is not given up.
    let had = receiver(&world, |n| [0, 301, 404, 500, 503, 400, 429, 500, 500, 500][(n - 1) % 10]);
    world.mark(&ws, 50).await;
    let pauses = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400];
    for (n, pause) in pauses.into_iter().enumerate() {
        tell(&world, &process).await;
        tell(&world, &process).await;
        assert_eq!(had.lock().unwrap().len(), n + 1, "not before its time");
        let next = deliveries(&world, &ws).await[0]["next_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
        let waits = next.0 - world.now();
        assert!((pause * 1000..=pause * 1100).contains(&waits), "{n}: {waits}");
        world.pass(waits / 1000 + 1);
        world.admin.batch_execute(&format!("UPDATE webhooks SET failing_since = NULL WHERE workspace_id = '{ws}'")).await.unwrap();
    }
    tell(&world, &process).await;
    world.pass(30 * 86_400);
    tell(&world, &process).await;
    let had = had.lock().unwrap().clone();
    assert_eq!(had.len(), 10);
    for again in &had {
        assert_eq!((&again[0], &again[3]), (&had[0][0], &had[0][3]));
        assert!(is_signed(again, &[5; 32]));
    }
    let row = &deliveries(&world, &ws).await[0];
    assert!(row["dead_at"].is_string() && row["next_at"].is_null() && row["delivered_at"].is_null());
    let log: Vec<_> = row["log"].as_array().unwrap().iter().map(|entry| entry["status"].as_i64().unwrap_or(0)).collect();
    assert_eq!(log, [0, 301, 404, 500, 503, 400, 429, 500, 500, 500]);
    assert_eq!(row["log"][0]["error"], "it did not answer in time");

    // Its owner has it sent again: under the same id.
    let delivered = receiver(&world, |_| 200);
    let id = row["id"].as_str().unwrap().parse().unwrap();
    let data = Tenant::open(&process, ws.clone());
    assert_eq!(data.replay_delivery("other", id, process.now()).await, Ok(Replayed::NotFound));
    assert_eq!(Tenant::open(&process, world.workspace().await).replay_delivery("mine", id, process.now()).await, Ok(Replayed::NotFound));
    assert_eq!(data.replay_delivery("mine", id, process.now()).await, Ok(Replayed::Yes));
    tell(&world, &process).await;
    assert_eq!(delivered.lock().unwrap()[0][0], had[0][0]);
    assert!(deliveries(&world, &ws).await[0]["delivered_at"].is_string());
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn who_is_gone_or_has_failed_for_days_is_told_nothing_more() {
    let world = World::new(&[]).await;
    let (ws, process) = (world.workspace().await, world.process().await);
    put(&process, &ws, "mine", &[5; 32]).await;
    let disabled =
        async || world.rows(&format!("SELECT disabled_why FROM webhooks WHERE workspace_id = '{ws}'")).await[0]["disabled_why"].clone();
    let had = receiver(&world, |_| 410);
    world.mark(&ws, 50).await;
    world.mark(&ws, 80).await;
    tell(&world, &process).await;
    assert_eq!(disabled().await, "it answered 410 Gone");
    let count = had.lock().unwrap().len();
    world.pass(86_400);
    world.mark(&ws, 100).await;
    tell(&world, &process).await;
    assert_eq!(had.lock().unwrap().len(), count, "nothing more is sent, old or new");
    assert!(deliveries(&world, &ws).await.iter().all(|row| row["next_at"].is_null() && row["dead_at"].is_string()));
    let id = deliveries(&world, &ws).await[0]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(Tenant::open(&process, ws.clone()).replay_delivery("mine", id, process.now()).await, Ok(Replayed::Disabled));

    // Set again it is enabled, with its old secret. Failing for less than five days changes nothing; for more it does.
    assert!(matches!(put(&process, &ws, "mine", &[6; 32]).await, PutWebhook::Changed(_)));
    let had = receiver(&world, |_| 500);
    for hours in [0, 60, 119] {
        world.pass(hours * 3600);
        world.admin.batch_execute(&format!("DELETE FROM quota_events WHERE workspace_id = '{ws}'")).await.unwrap();
        world.mark(&ws, 50).await;
        if hours == 119 {
            break;
        }
        tell(&world, &process).await;
        assert_eq!(disabled().await, Value::Null, "{hours}");
    }
    assert!(is_signed(&had.lock().unwrap()[0], &[5; 32]));
    tell(&world, &process).await;
    assert_eq!(disabled().await, "it has failed for days");
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn for_a_day_two_secrets_sign() {
    let world = World::new(&[]).await;
    let (ws, process) = (world.workspace().await, world.process().await);
    put(&process, &ws, "mine", &[5; 32]).await;
    let had = receiver(&world, |_| 200);
    let new = sealed(&process, &ws, "mine", &[7; 32]);
    Tenant::open(&process, ws.clone()).rotate_webhook(&new, process.now().plus_millis(86_400_000), process.now()).await.unwrap().unwrap();
    world.mark(&ws, 50).await;
    tell(&world, &process).await;
    world.pass(86_400);
    world.mark(&ws, 80).await;
    tell(&world, &process).await;
    let had = had.lock().unwrap().clone();
    record(&had, &[7; 32]);
    let signed = |had: &[String; 4]| (is_signed(had, &[5; 32]), is_signed(had, &[7; 32]));
    assert_eq!((signed(&had[0]), signed(&had[1])), ((true, true), (false, true)));
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn an_address_that_is_inside_now_is_not_called() {
    let world = World::new(&[]).await;
    let (ws, process) = (world.workspace().await, world.process().await);
    put(&process, &ws, "mine", &[5; 32]).await;
    // Kept before the rules were what they are.
    world.admin.batch_execute(&format!("UPDATE webhooks SET url = 'https://169.254.169.254/' WHERE workspace_id = '{ws}'")).await.unwrap();
    let had = receiver(&world, |_| 200);
    world.mark(&ws, 50).await;
    tell(&world, &process).await;
    assert!(had.lock().unwrap().is_empty());
    assert_eq!(deliveries(&world, &ws).await[0]["log"][0]["error"], "the address is an internal one");
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn what_two_take_at_once_is_one_ones() {
    let world = World::new(&[]).await;
    let (ws, one, two) = (world.workspace().await, world.process().await, world.process().await);
    for name in ["a", "b", "c", "d", "e", "f"] {
        put(&one, &ws, name, &[5; 32]).await;
    }
    world.mark(&ws, 50).await;
    let (first, second) = (Tenant::open(&one, ws.clone()), Tenant::open(&two, ws.clone()));
    let (a, b) = tokio::join!(first.take_deliveries(4, 60, one.now()), second.take_deliveries(4, 60, two.now()));
    let mut ids: Vec<_> = a.unwrap().into_iter().chain(b.unwrap()).map(|due| due.id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "nobody has what another has");
    assert!(count >= 4, "{count}");
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn who_comes_back_too_late_says_nothing_of_anothers_try() {
    let world = World::new(&[]).await;
    let (ws, one, two) = (world.workspace().await, world.process().await, world.process().await);
    put(&one, &ws, "mine", &[5; 32]).await;
    world.mark(&ws, 50).await;
    let (first, second) = (Tenant::open(&one, ws.clone()), Tenant::open(&two, ws.clone()));
    let late = first.take_deliveries(4, 60, one.now()).await.unwrap().remove(0);
    assert!(second.take_deliveries(4, 60, two.now()).await.unwrap().is_empty());
    world.pass(60);
    let taken = second.take_deliveries(4, 60, two.now()).await.unwrap().remove(0);
    assert_eq!((late.id, late.attempt, taken.id, taken.attempt), (taken.id, 1, late.id, 2));
    let done = |attempt, status| Delivered {
        id: taken.id,
        attempt,
        entry: Attempt { at: one.now(), status: Some(status), error: None, millis: 1 },
        is_delivered: status == 200,
        is_gone: status == 410,
        next_at: None,
        give_up_before: Timestamp(0),
        now: one.now(),
    };
    assert_eq!(first.delivered(&done(1, 410)).await, Ok(false));
    assert_eq!(second.delivered(&done(2, 200)).await, Ok(true));
    assert_eq!(second.delivered(&done(2, 500)).await, Ok(false), "it is said once");
    let row = &deliveries(&world, &ws).await[0];
    assert_eq!((row["log"].as_array().unwrap().len(), row["delivered_at"].is_string()), (1, true));
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_run_that_is_killed_anywhere_tells_all_the_same() {
    let world = World::new(&[]).await;
    for kill in 0..kills() {
        let (ws, victim, heir) = (world.workspace().await, world.process().await, world.process().await);
        put(&victim, &ws, "a", &[5; 32]).await;
        put(&victim, &ws, "b", &[6; 32]).await;
        for mark in [50, 80, 100] {
            world.mark(&ws, mark).await;
        }
        let had = receiver(&world, |_| 200);
        // Six deliveries, four at a time: some thirty steps outward.
        let at = i64::from(uuid::Uuid::new_v4().as_bytes()[0]) % 34;
        victim.kill_after(at);
        let _ = victim.alive(run(&victim, Job::DeliverWebhooks, Timestamp(world.now() + 60_000), true)).await;
        world.pass(61);
        tell(&world, &heir).await;
        let rows = deliveries(&world, &ws).await;
        assert_eq!(rows.len(), 6);
        for row in &rows {
            assert!(
                row["delivered_at"].is_string() && row["next_at"].is_null() && row["dead_at"].is_null(),
                "{kill}: killed at {at}: {row}"
            );
        }
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        for [id, _, _, body] in had.lock().unwrap().iter() {
            let known = told.entry(id.clone()).or_insert_with(|| body.clone());
            assert_eq!(known, body, "what comes twice is the same");
        }
        assert_eq!(told.len(), 6, "killed at {at}");
        assert!(had.lock().unwrap().len() <= 6 + 4, "no more came twice than was under way");
    }
}
