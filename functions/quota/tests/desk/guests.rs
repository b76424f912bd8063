//! Turns of another workspace's, which this one pays.

use crate::world::{LEASE, NOW, World, begin, extend, finished, turn};
use astra_quota::words::{Begin, Record, Stop};
use astra_quota::{Answer, Ask, Prior, Visit};
use quota::desk::{Row, Rows as _};

fn visit(workspace: &str) -> Visit {
    let grant_id = astra_kernel::GrantId(uuid::Uuid::from_u128(7));
    Visit {
        workspace: workspace.to_owned().try_into().unwrap(),
        grant_id,
        ticket: "t".into(),
        new_session: true,
        prior: Prior { messages: 2, message_bytes: 20, memories: 1, memory_bytes: 5 },
    }
}

fn guests(n: u128, workspace: &str, key: Option<&str>) -> Begin {
    let visit = visit(workspace);
    let idempotency_key = key.map(|key| visit.guest().key(key));
    let agent_id = format!("a@{workspace}").try_into().unwrap();
    Begin { agent_id, idempotency_key, guest: Some(visit), ..begin(n) }
}

#[test]
fn a_guests_turn_is_held_in_full_and_no_figure_is_kept_for_it() {
    let mut world = World::new();
    let own = world.begun(begin(1), NOW).input_bound;
    let held = world.begun(guests(2, "b", Some("k")), NOW).input_bound;
    // A heading over memories has 64 bytes, and marks around each have 3.
    assert_eq!(held, own + 20 + 5 + 3 + 64, "what the receiver gives to the prompt is held too");
    let record = world.record(2, 700);
    assert_eq!(record.guest, Some(visit("b").guest()));
    // The database is away: what is kept for later has no figure of what is left here.
    world.set(|db| db.away = true);
    assert!(!finished(world.ask(Ask::Finish(Box::new(record)), NOW)).saved);
    let Some(Row::Ended(kept)) = world.rows.get(turn(2)) else { panic!("it is lost") };
    assert_eq!((kept.answer.unwrap().get(), kept.guest), ("{}", Some(visit("b").guest())));
    world.set(|db| db.away = false);
    world.restart();
    assert_eq!(world.used().0, 700);
    assert_eq!(world.entry(2)["guest"]["workspace"], "b");
    // A turn of its own is told.
    let own = world.record(1, 1);
    assert!(world.finish(own));
    assert!(world.entry(1)["answer"]["quota"]["windows"].is_array());
}

#[test]
fn a_guests_turn_that_dies_is_ended_as_a_guests() {
    let world = World::new();
    world.begun(guests(1, "b", None), NOW);
    world.extended(extend(1, 1), NOW);
    let dead = NOW.plus_millis(2 * LEASE);
    futures_util::FutureExt::now_or_never(world.desk.wake(dead)).unwrap();
    let entry = world.entry(1);
    assert_eq!((&entry["status"], &entry["guest"]["ticket"], &entry["agentId"]), (&"expired".into(), &"t".into(), &"a@b".into()));
}

#[test]
fn a_key_is_its_own_workspaces_and_so_is_stopping() {
    let world = World::new();
    let begins = |of: Begin| world.ask(Ask::Begin(Box::new(of)), NOW);
    assert!(matches!(begins(Begin { idempotency_key: Some("k".into()), ..begin(1) }), Answer::Begun(_)));
    assert!(matches!(begins(guests(2, "b", Some("k"))), Answer::Begun(_)));
    assert!(matches!(begins(guests(3, "c", Some("k"))), Answer::Begun(_)));
    assert!(matches!(begins(guests(4, "b", Some("k"))), Answer::Running(running) if running == turn(2)));
    assert!(matches!(begins(Begin { subject: "v".into(), ..guests(5, "b", Some("k")) }), Answer::KeyReused));
    let stop = |n, guest: Option<&str>| {
        let guest = guest.map(|id| id.to_owned().try_into().unwrap());
        matches!(world.ask(Ask::Stop(Stop { turn_id: turn(n), subject: Some("u".into()), guest }), NOW), Answer::Stopping)
    };
    assert!(!stop(2, None) && !stop(2, Some("c")) && !stop(1, Some("b")));
    assert!(stop(2, Some("b")) && stop(1, None));
    assert!(!world.extended(extend(3, 1), NOW).stop);
    // A grant that goes takes its own turns and no others.
    assert!(matches!(world.ask(Ask::Withdraw("a@c".to_owned().try_into().unwrap()), NOW), Answer::Withdrawn));
    assert!(world.extended(extend(3, 2), NOW).stop);
    // A record as code from before wrote it has no guest.
    let mut before = serde_json::to_value(world.record(1, 1)).unwrap();
    before.as_object_mut().unwrap().remove("guest");
    assert_eq!(serde_json::from_value::<Record>(before).unwrap().guest, None);
}
