//! Generated schedules: begins, signs of life, ends (once, twice, late), deaths, jumps of the clock, changed limits, restarts.

use crate::START;
use crate::world::{Step, World};
use astra_kernel::{Limits, NanoUsd};
use proptest::option::of;
use proptest::prelude::*;

fn limits() -> impl Strategy<Value = Limits> {
    let tokens = || of(0_i64..20_000);
    let cost = || of((0_i64..8_000_000).prop_map(NanoUsd));
    ((tokens(), cost(), of(0_i64..12)), (of(0_i64..9_000), cost(), of(0_i64..6_000), cost())).prop_map(
        |((month, cost, turns), (day, day_cost, hour, hour_cost))| Limits {
            max_agents: None,
            max_turns_per_minute: turns,
            max_tokens_per_hour: hour,
            max_tokens_per_day: day,
            max_tokens_per_month: month,
            max_cost_nano_usd_per_hour: hour_cost,
            max_cost_nano_usd_per_day: day_cost,
            max_cost_nano_usd_per_month: cost,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>;
    let step = prop_oneof![
        5 => (0_u8..4, 1_u64..800, 0_u64..800, 1_u64..4_000)
            .prop_map(|(agent, input, history, output)| Step::Begin { agent, input, history, output }),
        6 => (which(), 0_u64..4_000, prop_oneof![4 => Just(0), 1 => 0_u64..2_000], any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(which, output, input_bound, is_urgent, is_late)| Step::Extend { which, output, input_bound, is_urgent, is_late }),
        4 => (which(), 0_u64..2_000, 0_u64..5_000).prop_map(|(which, input, output)| Step::Finish { which, input, output }),
        1 => which().prop_map(|which| Step::FinishAgain { which }),
        1 => which().prop_map(|which| Step::Die { which }),
        2 => prop_oneof![-50_000_i64..50_000, Just(3_000_000), Just(3 * 86_400_000), Just(5 * 86_400_000)].prop_map(|millis| Step::Wait { millis }),
        1 => (limits(), any::<bool>()).prop_map(|(limits, tells)| Step::SetLimits { limits, tells }),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// `PROPTEST_CASES` for the long form (`scripts/prove quota`).
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(100_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn spent_and_held_never_exceed_a_limit(first in limits(), steps in steps()) {
        let mut world = World::new(first, START);
        for step in steps {
            world.take(&step);
            world.check(matches!(step, Step::Begin { .. } | Step::Extend { .. }));
        }
        // All that runs comes to its end, and a quiet system has no holds.
        let ended = world.ended.len() + world.running.len();
        world.drain();
        prop_assert_eq!((world.counter.running(), world.ended.len()), (0, ended));
        prop_assert_eq!(world.ledger.len(), world.ended.iter().collect::<std::collections::BTreeSet<_>>().len());
    }
}
