//! Uses at the desk: held whole, kept over restarts, paid once.

use crate::world::{INPUT, LEASE, NOW, World, begin, turn};
use astra_kernel::{AgentId, NanoUsd, Usage, UsageSource};
use astra_quota::words::{Begin, Record, TurnStatus};
use astra_quota::{Answer, Ask, Use, UseKind};
use futures_util::FutureExt as _;
use quota::desk::{Row, Rows as _};
use serde_json::json;

fn embedding(n: u128, input_bound: u64) -> Begin {
    let no_turn = Some(Use { kind: UseKind::Embedding, model: None, input_bound, presumed_input: 40, max_output: 0 });
    Begin { agent_id: AgentId::embedding(), no_turn, ..begin(n) }
}

/// What the provider counted.
fn used(world: &World, n: u128, tokens: u64) -> Record {
    let Some(Row::Running { draft, .. }) = world.rows.get(turn(n)) else { panic!("{n} is not running") };
    let usage = Usage { input_tokens: tokens, source: UsageSource::Provider, ..Usage::NONE };
    Record {
        status: TurnStatus::Completed,
        usage,
        cost_nano_usd: NanoUsd(i64::try_from(tokens).unwrap() * INPUT),
        error_code: None,
        ended_at: NOW,
        ..draft.record
    }
}

#[test]
fn a_use_is_held_whole_then_paid() {
    let world = World::with(json!({ "maxTokensPerMonth": 1_000, "maxTurnsPerMinute": 0 }));
    let begun = world.begun(embedding(1, 1_000), NOW);
    assert_eq!((begun.input_bound, begun.output), (1_000, 0), "to the last token, and no turn a minute is no use");
    assert_eq!(world.refused(embedding(2, 1), NOW).retry_after, Some(1));
    world.set(|db| assert!(db.marks.is_empty(), "nothing is used up"));
    let record = used(&world, 1, 990);
    assert!(world.finish(record.clone()) && world.finish(record));
    assert_eq!(world.used(), (990, 0));
    assert_eq!(world.refused(embedding(3, 11), NOW).needs, 11);
    world.begun(embedding(4, 10), NOW);
    assert_eq!(world.entry(1)["kind"], "embedding");
}

#[test]
fn a_use_that_dies_is_charged_what_was_presumed() {
    let mut world = World::with(json!({ "maxTokensPerMonth": 1_000 }));
    world.begun(embedding(1, 100), NOW);
    world.restart();
    let late = NOW.plus_millis(LEASE);
    world.desk.wake(late).now_or_never().unwrap();
    assert_eq!(world.used_at(late), (40, 0));
    let entry = world.entry(1);
    assert_eq!(
        (&entry["status"], &entry["usage"]["source"], &entry["kind"]),
        (&json!("expired"), &json!("estimated"), &json!("embedding"))
    );
}

#[test]
fn a_use_is_counted_before_the_database_has_it() {
    let mut world = World::with(json!({ "maxTokensPerMonth": 100 }));
    world.begun(embedding(1, 90), NOW);
    let record = used(&world, 1, 90);
    world.set(|db| db.away = true);
    assert!(matches!(world.ask(Ask::Finish(Box::new(record)), NOW), Answer::Finished(finished) if !finished.saved));
    world.restart();
    world.set(|db| db.away = false);
    world.desk.wake(NOW).now_or_never().unwrap();
    assert_eq!(world.used(), (90, 0));
    assert_eq!(world.refused(embedding(2, 11), NOW).used, 90);
}
