//! The scenarios of `quota-conformance` on this stack, in short; what they are and how they come out at scale is in
//! docs/quota-conformance.md. The one that kills processes is in `restart`.

use quota_conformance::astra::Astra;
use quota_conformance::mock::Mock;
use quota_conformance::scenarios::{self, Scale};
use quota_conformance::target::World;

const RUSHES: &[&str] = &["overshoot", "overshoot-two", "refusals", "first"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_budgets_are_kept_by_the_models_own_journal() {
    let model = Mock::start(0).await.unwrap();
    let target = Astra::from_environment(model.base()).unwrap();
    let world = World::new(&target, &model);
    target.prepare(&world.http).await;
    let play = async |name: &'static str| {
        let outcome = scenarios::play(name, &world, Scale::SHORT).await?;
        println!("{name}: {}", outcome.said);
        (!outcome.holds).then(|| format!("{name}: {}", outcome.said))
    };
    let strict = target.holding_maximum();
    let strict_world = World::new(&strict, &model);
    let strict = async {
        let outcome = scenarios::play("overshoot", &strict_world, Scale::SHORT).await?;
        (!outcome.holds).then(|| format!("overshoot with holdsMaximum: {}", outcome.said))
    };
    // The rushes one after the other, and beside them all that is quiet.
    let (rushes, quiet): (Vec<_>, Vec<_>) =
        scenarios::ALL.iter().map(|(name, _)| *name).filter(|name| *name != "crash").partition(|name| RUSHES.contains(name));
    let rushes = async {
        let mut failed = Vec::new();
        for name in rushes {
            failed.push(play(name).await);
        }
        failed
    };
    let quiet = futures_util::future::join_all(quiet.into_iter().map(play));
    let (strict, rushes, quiet) = futures_util::future::join3(strict, rushes, quiet).await;
    let failed: Vec<String> = rushes.into_iter().chain(quiet).flatten().chain(strict).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
