//! One workspace with ten thousand jobs beside one with ten.

use astra_tests::{Db, Workspace, wait};
use serde_json::json;
use std::time::Duration;

const MANY: i64 = 10_000;

async fn waiting(db: &Db, ws: &Workspace) -> i64 {
    db.number("SELECT count(*) FROM jobs WHERE workspace_id = $1 AND kind <> 'words'", &[&ws.id]).await
}

#[tokio::test]
async fn ten_thousand_jobs_of_one_workspace_delay_no_other() {
    let (noisy, quiet, db) = (Workspace::local().await, Workspace::local().await, Db::connect().await);
    // Of conversations that are gone, so that a job is little more than being taken. None is taken slowly because there are many: the planner's statistics know of none yet.
    let take = json!({ "now": "2100-01-01T00:00:00Z", "lease": uuid::Uuid::new_v4(), "seconds": 60, "attempts": 8 });
    db.run(&format!(
        "BEGIN;
         INSERT INTO jobs (workspace_id, id, kind, ordering, arg, run_at, created_at)
         SELECT '{0}', gen_random_uuid(), 'extract', 'session ' || n, jsonb_build_object('sessionId', gen_random_uuid()), now(), now() FROM generate_series(1, {MANY}) n;
         SET LOCAL statement_timeout = '2s'; SAVEPOINT looked;
         SELECT astra.job_take('{0}', '{take}'); SELECT astra.job_take('{0}', '{take}'); SELECT astra.job_take('{0}', '{take}');
         ROLLBACK TO looked; COMMIT",
        noisy.id
    ))
    .await;
    super::knowledge::put(&noisy.owner, &noisy, "one-more", "# One more").await;
    wait::until("its jobs to be begun", Duration::from_secs(20), async || match waiting(&db, &noisy).await {
        left if left < MANY => Ok(()),
        left => Err(left),
    })
    .await;
    let mut longest = Duration::ZERO;
    for n in 0..10 {
        let begun = tokio::time::Instant::now();
        super::knowledge::upload(&quiet.owner, &quiet, &format!("page-{n}"), "# Plums\n\nPlums are purple.").await;
        longest = longest.max(begun.elapsed());
    }
    let left = waiting(&db, &noisy).await;
    println!("ten documents beside {MANY} jobs: {longest:?} at most, when {left} of these waited");
    assert!(left > MANY / 4, "others' jobs were done first: {left} of {MANY} are left");
    db.run(&format!("DELETE FROM jobs WHERE workspace_id = '{}' AND lease IS NULL", noisy.id)).await;
    wait::until("all jobs", Duration::from_secs(20), async || match (waiting(&db, &noisy).await, waiting(&db, &quiet).await) {
        (0, 0) => Ok(()),
        some => Err(some),
    })
    .await;
}
