//! The scenario of `quota-conformance` that kills processes (docs/quota-conformance.md).

use quota_conformance::astra::Astra;
use quota_conformance::mock::Mock;
use quota_conformance::scenarios::{self, Scale};
use quota_conformance::target::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_budgets_outlive_a_crash_without_phantoms() {
    crate::a_well_stack().await;
    let model = Mock::start(0).await.unwrap();
    let target = Astra::from_environment(model.base()).unwrap();
    let world = World::new(&target, &model);
    target.prepare(&world.http).await;
    let outcome = scenarios::play("crash", &world, Scale::SHORT).await.unwrap();
    println!("crash: {}", outcome.said);
    assert!(outcome.holds, "{}", outcome.said);
}
