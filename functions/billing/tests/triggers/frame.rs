//! What holds for every job.

use crate::rig::{START, World, kills, proof};
use astra_host::{CounterUnreachable, Host as _};
use astra_kernel::{NanoUsd, Timestamp, WorkspaceId};
use astra_quota::words::{Answer, Ask, Compared};
use astra_quota::{Amount, Scope};
use astra_store::Operator;
use astra_store::triggers::{Done, JobEnd, JobLease};
use billing::jobs::{Job, Ran, run, run_due};
use serde_json::json;
use std::sync::Mutex;

/// Whom the counters of a test were asked for. (The tests run one after the other.)
static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[expect(clippy::unnecessary_wraps, reason = "the form of a counter")]
fn fine(workspace: &WorkspaceId, _: &Ask) -> Result<Answer, CounterUnreachable> {
    ASKED.lock().unwrap().push(workspace.to_string());
    Ok(Answer::Reconciled(Vec::new()))
}

async fn workspaces(world: &World) -> Vec<String> {
    let rows = world.rows("SELECT id FROM workspaces ORDER BY id").await;
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn two_at_once_do_the_work_once_and_a_run_that_is_not_due_does_nothing() {
    let world = World::new(&[]).await;
    let (one, two) = (world.process().await, world.process().await);
    for _ in 0..3 {
        let until = Timestamp(world.now() + 60_000);
        let (a, b) = tokio::join!(run(&one, Job::CleanUp, until, false), run(&two, Job::CleanUp, until, false));
        let mine = [a.unwrap(), b.unwrap()].into_iter().filter(|ran| *ran == Ran::Mine).count();
        assert_eq!(mine, 1);
        assert_eq!(run(&one, Job::CleanUp, until, false).await.unwrap(), Ran::NotMine, "it is not due");
        world.pass(24 * 3600);
    }
    assert_eq!(world.job("clean-up").await["runs"], 3);
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_job_is_somebodys_until_its_lease_is_over_and_then_no_more() {
    let world = World::new(&[]).await;
    let (one, two) = (world.process().await, world.process().await);
    let lease = JobLease { name: "clean-up", lease: one.new_id(), seconds: 60 };
    let owner = Operator::open(&one);
    assert!(owner.take_trigger(lease, false, one.now()).await.unwrap().is_some());
    let until = Timestamp(START + 600_000);
    world.pass(59);
    assert_eq!(run(&two, Job::CleanUp, until, true).await.unwrap(), Ran::NotMine, "also when it is asked for");
    assert!(owner.step_trigger(lease, Some("x"), Done::default(), one.now()).await.unwrap());
    world.pass(59);
    assert_eq!(run(&two, Job::CleanUp, until, true).await.unwrap(), Ran::NotMine, "a step has it for longer");
    world.pass(1);
    assert_eq!(run(&two, Job::CleanUp, until, true).await.unwrap(), Ran::Mine);
    let after = world.job("clean-up").await;
    assert!(!owner.step_trigger(lease, Some("y"), Done { done: 7, failed: 7 }, one.now()).await.unwrap());
    let end = JobEnd { next_run: one.now(), error: Some("x"), is_paused: false, last: Done { done: 7, failed: 7 } };
    assert!(!owner.end_trigger(lease, end, one.now()).await.unwrap());
    assert_eq!(world.job("clean-up").await, after, "who has lost it writes nothing");
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_job_that_fails_is_seen_and_keeps_no_other_from_its_turn() {
    let world = World::new(&[]).await;
    let _ws = world.workspace().await;
    let process = world.process().await;
    process.counter(|_, _| Err(CounterUnreachable));
    run_due(&process, Timestamp(START + 60_000)).await;
    let (failed, well) = (world.job("reconcile").await, world.job("clean-up").await);
    assert_eq!(failed["last_error"], "the quota counter cannot be reached");
    assert_eq!((&failed["failures"], &failed["last_success"]), (&json!(1), &json!(null)));
    assert_eq!((&well["failures"], &well["last_error"]), (&json!(0), &json!(null)));
    assert!(well["last_success"].is_string());
    assert!(process.logged().iter().any(|line| line.contains(r#""job":"reconcile""#)));
    // It is tried again within a minute and not in an hour, and goes on.
    process.counter(fine);
    world.pass(60);
    run_due(&process, Timestamp(START + 120_000)).await;
    let again = world.job("reconcile").await;
    assert_eq!((&again["last_error"], &again["runs"], &again["failures"]), (&json!(null), &json!(2), &json!(1)));
    assert!(world.rows("SELECT 1 AS one FROM billing_jobs WHERE name = 'push-usage'").await.is_empty(), "nothing is set for Stripe");
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn what_fails_in_one_workspace_keeps_no_other_from_its_turn() {
    let world = World::new(&[]).await;
    // The last of all: its page has others.
    let (first, bad) = (world.workspace().await, world.workspace().await);
    world
        .admin
        .batch_execute(&format!(
            "UPDATE workspaces SET id = '0-{first}' WHERE id = '{first}'; UPDATE workspaces SET id = '0-bad' WHERE id = '{bad}'"
        ))
        .await
        .unwrap();
    let process = world.process().await;
    process.counter(|workspace, ask| if workspace.as_str() == "0-bad" { Err(CounterUnreachable) } else { fine(workspace, ask) });
    run(&process, Job::Reconcile, Timestamp(START + 60_000), false).await.unwrap();
    let job = world.job("reconcile").await;
    let all = workspaces(&world).await.len();
    assert_eq!((&job["failed"], &job["done"]), (&json!(1), &json!(all - 1)));
    assert_eq!((&job["last_error"], &job["cursor"]), (&json!("the quota counter cannot be reached"), &json!(null)));
    world.admin.batch_execute("DELETE FROM workspaces WHERE id = '0-bad'").await.unwrap();
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_counter_that_differs_is_told() {
    let world = World::new(&[]).await;
    let _ws = world.workspace().await;
    let process = world.process().await;
    process.counter(|_, _| {
        let amount = |nano| Amount { cost: NanoUsd(nano), tokens: 0 };
        Ok(Answer::Reconciled(vec![Compared { window: "month".into(), scope: Scope::workspace(), counter: amount(1), ledger: amount(2) }]))
    });
    run(&process, Job::Reconcile, Timestamp(START + 60_000), false).await.unwrap();
    assert!(process.logged().iter().any(|line| line.contains(r#""event":"drift""#) && line.contains(r#""windows":1"#)));
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_run_that_has_no_more_time_goes_on_where_it_was() {
    let world = World::new(&[]).await;
    for _ in 0..45 {
        world.workspace().await;
    }
    let all = workspaces(&world).await;
    let process = world.process().await;
    process.counter(fine);
    ASKED.lock().unwrap().clear();
    let mut runs = 0;
    loop {
        assert_eq!(run(&process, Job::Reconcile, Timestamp(START), false).await.unwrap(), Ran::Mine);
        runs += 1;
        let job = world.job("reconcile").await;
        if job["cursor"].is_null() {
            assert_eq!((&job["done"], &job["runs"]), (&json!(all.len()), &json!(1)), "one run, whatever came between");
            break;
        }
        assert_eq!(job["began_at"].as_str().unwrap()[..19], *"2026-01-28T12:00:00");
    }
    assert!(runs >= 3, "{runs}");
    assert_eq!(*ASKED.lock().unwrap(), all, "each once, in order");
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn a_run_that_is_killed_anywhere_is_gone_on_with_and_changes_nothing() {
    let world = World::new(&[]).await;
    for _ in 0..30 {
        world.workspace().await;
    }
    let all = workspaces(&world).await;
    // How many steps outward a run has.
    let clean = world.process().await;
    clean.counter(fine);
    clean.kill_after(1_000_000);
    run(&clean, Job::Reconcile, Timestamp(START + 60_000), true).await.unwrap();
    let steps = u64::try_from(1_000_000 - clean.left()).unwrap();
    let expected = world.job("reconcile").await;
    for kill in 0..kills() {
        world.admin.batch_execute("DELETE FROM billing_jobs").await.unwrap();
        ASKED.lock().unwrap().clear();
        let at = i64::try_from(u64::from_be_bytes(uuid::Uuid::new_v4().as_bytes()[..8].try_into().unwrap()) % steps).unwrap();
        let (victim, heir) = (world.process().await, world.process().await);
        victim.counter(fine);
        heir.counter(fine);
        victim.kill_after(at);
        assert!(victim.alive(run(&victim, Job::Reconcile, Timestamp(world.now() + 60_000), false)).await.is_none(), "killed at {at}");
        // Whoever comes within the lease finds it taken; one that was killed before it was had is nobody's, one that was killed after its end is done.
        let _ = run(&heir, Job::Reconcile, Timestamp(world.now() + 60_000), false).await.unwrap();
        world.pass(61);
        let _ = run(&heir, Job::Reconcile, Timestamp(world.now() + 60_000), false).await.unwrap();
        let job = world.job("reconcile").await;
        for same in ["done", "failed", "cursor", "lease", "last_error", "runs", "failures", "began_at"] {
            assert_eq!(job[same], expected[same], "{kill}: killed at {at}: {same}");
        }
        let mut asked = ASKED.lock().unwrap().clone();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, all, "killed at {at}");
    }
}

#[tokio::test]
#[ignore = "needs a stack: scripts/test"]
async fn what_is_old_is_removed_and_nothing_else() {
    let world = World::new(&[]).await;
    let (a, b) = (world.workspace().await, world.workspace().await);
    let days = |days: i64| Timestamp(START - days * 86_400_000);
    for (ws, other) in [(&a, &b), (&b, &a)] {
        for (jti, age) in [("old", 367), ("young", 365)] {
            world.admin.batch_execute(&format!("INSERT INTO revoked_tokens VALUES ('{ws}', '{jti}', '{}')", days(age))).await.unwrap();
        }
        for (ended, expired) in [(Some(401), None), (None, Some(401)), (Some(399), None), (None, Some(399)), (None, None)] {
            let time = |age: Option<i64>| age.map_or("NULL".to_owned(), |age| format!("'{}'", days(age)));
            let sql = format!(
                "WITH g AS (INSERT INTO grants (workspace_id, id, receiving_workspace_id, agent_id, readonly, payer, allow, created_by, created_at, expires_at, revoked_at)
                 VALUES ('{ws}', gen_random_uuid(), '{other}', 'a', true, 'receiver', '{{}}', 'u', now(), {}, {}) RETURNING *)
                 INSERT INTO received_grants (workspace_id, id, granting_workspace_id, agent_id, readonly, payer, allow, created_at, expires_at, revoked_at)
                 SELECT g.receiving_workspace_id, g.id, g.workspace_id, 'a', true, 'receiver', '{{}}', now(), g.expires_at, g.revoked_at FROM g",
                time(expired),
                time(ended)
            );
            world.admin.batch_execute(&sql).await.unwrap();
        }
    }
    let process = world.process().await;
    for _ in 0..2 {
        run(&process, Job::CleanUp, Timestamp(START + 60_000), true).await.unwrap();
        for ws in [&a, &b] {
            let count = |table: &str| format!("SELECT count(*)::int AS n FROM {table} WHERE workspace_id = '{ws}'");
            assert_eq!(world.rows(&count("grants")).await[0]["n"], 3);
            assert_eq!(world.rows(&count("received_grants")).await[0]["n"], 3);
            assert_eq!(
                world.rows(&format!("SELECT jti FROM revoked_tokens WHERE workspace_id = '{ws}'")).await,
                [json!({ "jti": "young" })]
            );
        }
    }
    // Nobody removes another's: not with a proof of one's own.
    let sql = format!(
        "SELECT astra.enter('{}'); SET LOCAL ROLE astra_billing; SELECT astra.clean_up('{b}', '{{\"now\":\"2100-01-01T00:00:00Z\"}}')",
        proof(&a)
    );
    assert!(world.admin.batch_execute(&format!("BEGIN; {sql}; COMMIT")).await.is_err());
    world.admin.batch_execute("ROLLBACK").await.unwrap();
}
