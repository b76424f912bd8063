//! Uses: calls that cost money and are no turns, on rows.

use crate::world::{LEASE, OUTPUT, START, World, begin, embedding, record, usage, use_of, used};
use astra_kernel::AgentId;
use astra_quota::words::{Begin, ModelRef, Record};
use astra_quota::{Answer, UseKind};
use serde_json::json;

/// What 1,000 tokens of input cost the model `local/echo-1`, in nano-dollars.
const THOUSAND: i64 = 150_000;

async fn outcome(world: &World, begin: &Begin) -> String {
    match world.begin(begin, START).await {
        Answer::Denied(document) => {
            serde_json::from_str::<serde_json::Value>(document.get()).unwrap()["outcome"].as_str().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs a database"]
async fn an_embedding_is_held_whole_and_entered_once_under_its_kind() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 10_000 })).await;
    let of = embedding(1, 3_000, 900);
    let begun = world.begun(&of, START).await;
    assert_eq!((begun.input_bound, begun.output, begun.max_output), (3_000, 0, 0));
    assert_eq!(world.used(START).await, (0, 3_000));
    world.begun(&of, START).await;
    assert_eq!(world.used(START).await, (0, 3_000), "the same once more holds what it holds");
    let record = Record { agent_id: AgentId::embedding(), ..used(&of, START, usage(1_000, 0), THOUSAND, START) };
    for _ in 0..2 {
        world.finish(record.clone(), START).await;
        assert_eq!(world.used(START).await, (1_000, 0));
    }
    let ledger = "SELECT string_agg(concat_ws(' ', l.kind, l.embedding_tokens, l.input_tokens, l.output_tokens, l.cost_usd, l.charge_usd, l.agent_id, l.user_id, l.session_id), ', ') \
                  FROM ledger l WHERE l.workspace_id = $1";
    assert_eq!(world.text(ledger).await, "embedding 1000 1000 0 0.000150000 0.000150000 (embedding) u");
    let turns = "SELECT string_agg(concat_ws(' ', t.kind, t.status, t.input_tokens, t.cost_usd, t.session_id, t.idempotency_key, t.answer), ', ') FROM turns t WHERE t.workspace_id = $1";
    assert_eq!(world.text(turns).await, "embedding completed 1000 0.000150000");
    assert_eq!(
        world
            .number(
                "SELECT (SELECT count(*) FROM sessions WHERE workspace_id = $1) + (SELECT count(*) FROM messages WHERE workspace_id = $1)"
            )
            .await,
        0
    );
    assert_eq!(outcome(&world, &of).await, "use_known", "another call under this id would be nobody's");
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_use_gets_all_that_is_there_and_nothing_that_is_not() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 1_000, "maxTurnsPerMinute": 0, "maxAgents": 1 })).await;
    let refusal = world.refused(&embedding(1, 1_001, 1), START).await;
    assert_eq!((refusal.limit.as_str(), refusal.max, refusal.needs, refusal.used, refusal.held), ("maxTokensPerMonth", 1_000, 1_001, 0, 0));
    assert_eq!(refusal.retry_after, None, "it never fits");
    // To the last token, and whatever turns may not do.
    world.begun(&embedding(2, 1_000, 1), START).await;
    let refusal = world.refused(&embedding(3, 1, 1), START).await;
    assert_eq!((refusal.held, refusal.retry_after), (1_000, Some(1)), "it may fit soon");
    assert_eq!(world.number("SELECT count(*) FROM quota_events WHERE workspace_id = $1").await, 0, "nothing is used up");
    assert_eq!(world.number("SELECT count(*) FROM quota_begins WHERE workspace_id = $1").await, 0, "it is no turn");
    world.finish(used(&embedding(2, 1_000, 1), START, usage(950, 0), 950 * 150, START), START).await;
    let refusal = world.refused(&embedding(4, 51, 51), START).await;
    assert_eq!((refusal.used, refusal.needs), (950, 51));
    assert!(refusal.retry_after.is_some_and(|seconds| seconds > 1), "when the month is over");
    world.begun(&embedding(5, 50, 50), START).await;
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn a_use_that_dies_is_charged_what_was_presumed_and_corrected_once() {
    let world = World::new(1, json!({ "maxTokensPerMonth": 10_000 })).await;
    let of = embedding(1, 3_000, 900);
    world.begun(&of, START).await;
    let late = START.plus_millis(LEASE + 1);
    assert_eq!(world.used(late).await, (900, 0), "the provider was asked, as far as anybody knows");
    let row = "SELECT concat_ws(' ', t.status, t.usage_source, t.input_tokens) FROM turns t WHERE t.workspace_id = $1";
    assert_eq!(world.text(row).await, "expired estimated 900");
    for _ in 0..2 {
        world.finish(Record { agent_id: AgentId::embedding(), ..used(&of, START, usage(1_000, 0), THOUSAND, late) }, late).await;
        assert_eq!(world.used(late).await, (1_000, 0));
    }
    assert_eq!(world.text(row).await, "completed provider 1000");
    let sum = "SELECT concat_ws(' ', count(*), sum(l.embedding_tokens), sum(l.input_tokens), sum(l.cost_usd)) FROM ledger l WHERE l.workspace_id = $1";
    assert_eq!(world.text(sum).await, "2 1000 1000 0.000150000");
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn an_extraction_is_its_agents_and_leaves_its_session_alone() {
    let world = World::new(1, json!({})).await;
    // Agent b: no more than 2,000,000 nano-dollars a month.
    let said = Begin { agent_id: "b".to_owned().try_into().unwrap(), ..begin(1) };
    world.begun(&said, START).await;
    world.finish(record(&said, START, usage(10, 20), 13_500, START), START).await;
    let extraction = |n, tokens| Begin {
        agent_id: said.agent_id.clone(),
        session_id: Some(said.new_session_id),
        ..use_of(n, UseKind::Extraction, tokens)
    };
    let later = START.plus_millis(60_000);
    let refusal = world.refused(&extraction(2, (1_000, 500, 3_200)), later).await;
    assert_eq!((refusal.limit.as_str(), refusal.scope.as_str(), refusal.needs), ("maxCostUsdPerMonth", "agent", 150_000 + 3_200 * 600));
    let of = extraction(3, (1_000, 500, 1_000));
    let begun = world.begun(&of, later).await;
    assert_eq!((begun.output, begun.max_output, begun.bounded_by_budget), (1_000, 1_000, false), "all of it at once");
    world.finish(used(&of, later, usage(800, 200), 240_000, later), later).await;
    let ledger = "SELECT string_agg(concat_ws(' ', l.kind, l.embedding_tokens, l.input_tokens, l.output_tokens, l.agent_id, (l.session_id IS NOT NULL)), ', ' ORDER BY l.seq) \
                  FROM ledger l WHERE l.workspace_id = $1";
    assert_eq!(world.text(ledger).await, "turn 0 10 20 b t, extraction 0 800 200 b t");
    let session = "SELECT concat_ws(' ', s.updated_at = s.created_at, (SELECT count(*) FROM messages m WHERE m.workspace_id = $1)) FROM sessions s WHERE s.workspace_id = $1";
    assert_eq!(world.text(session).await, "t 2", "nothing was said, and nobody spoke");
    // Somebody else's conversation, and one that is not there.
    assert_eq!(outcome(&world, &Begin { subject: "v".into(), ..extraction(4, (1, 1, 1)) }).await, "session_unknown");
    assert_eq!(outcome(&world, &Begin { session_id: None, ..extraction(5, (1, 1, 1)) }).await, "session_unknown");
    assert_eq!(outcome(&world, &Begin { agent_id: "c".to_owned().try_into().unwrap(), ..extraction(6, (1, 1, 1)) }).await, "agent_denied");
    world.check().await;
}

#[tokio::test]
#[ignore = "needs a database"]
async fn what_has_no_price_or_is_not_allowed_is_refused_before_anything_is_held() {
    let world = World::new(1, json!({})).await;
    let of_model = |n, provider: &str, model: &str| {
        let mut of = embedding(n, 10, 10);
        if let Some(it) = &mut of.no_turn {
            it.model = Some(ModelRef { provider: provider.into(), model_id: model.into() });
        }
        of
    };
    assert_eq!(outcome(&world, &of_model(1, "local", "unpriced")).await, "model_unpriced");
    assert_eq!(outcome(&world, &of_model(2, "openai", "gpt-4o")).await, "model_unavailable", "there is no key");
    let with_key = |n| Begin { host_providers: vec!["openai".into()], ..of_model(n, "openai", "gpt-4o") };
    world.begun(&with_key(3), START).await;
    world
        .admin_run("UPDATE workspaces SET restrictions = '{\"allowedProviders\":[\"local\"]}' WHERE id = $1", &[world.workspace.as_str()])
        .await;
    assert_eq!(outcome(&world, &with_key(4)).await, "model_forbidden");
    assert_eq!(world.number("SELECT count(*) FROM holds WHERE workspace_id = $1").await, 1);
    world.admin_run("UPDATE workspaces SET status = 'deleting' WHERE id = $1", &[world.workspace.as_str()]).await;
    assert_eq!(outcome(&world, &embedding(5, 10, 10)).await, "workspace_inactive");
}

#[tokio::test]
#[ignore = "needs a database"]
async fn turns_and_uses_share_one_budget() {
    let world = World::new(4, json!({ "maxTokensPerMonth": 20_000 })).await;
    let one = |n: u128| {
        let world = &world;
        async move {
            let is_use = n.is_multiple_of(2);
            let of = if is_use { embedding(n, 900, 100) } else { begin(n) };
            let Answer::Begun(begun) = world.begin(&of, START).await else { return };
            let spent = if is_use { usage(700, 0) } else { usage(begun.input_bound, OUTPUT.min(begun.output)) };
            let record = if is_use {
                Record { agent_id: AgentId::embedding(), ..used(&of, START, spent, 1, START) }
            } else {
                record(&of, START, spent, 1, START)
            };
            world.finish(record, START).await;
        }
    };
    futures_util::future::join_all((1..=120).map(one)).await;
    let (used, held) = world.used(START).await;
    assert!(held == 0 && used <= 20_000 && used > 10_000, "{used}");
    world.check().await;
}
