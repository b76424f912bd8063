//! Generated schedules: begins, signs of life (lost, late, twice), ends (once, twice, late), deaths, jumps of the clock over hours, days and months of
//! several time zones, changed limits and zones, restarts.
//!
//! What fails is kept: its seed goes into `shared/quota/proptest-regressions/schedules.txt`, which is tried first from then on. Commit that file; and
//! because a seed means something else when the generator is changed, write what it was shrunk to as a case of its own, too ([`crate::cases`]).

use crate::begin::Wish;
use crate::world::{Order, Sign, Step, World};
use crate::zone::ZONES;
use astra_kernel::{Limits, NanoUsd, Usage, UsageSource};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Near its limits, or far from them.
fn limits() -> impl Strategy<Value = Limits> {
    let tokens = |most: i64, far: i64| of(prop_oneof![6 => 0..most, 1 => 0..far]);
    let cost = || of(prop_oneof![6 => 0_i64..8_000_000, 1 => 0_i64..4_000_000_000].prop_map(NanoUsd));
    let months = (tokens(20_000, 8_000_000), cost(), weighted(0.3, 0_i64..12), weighted(0.02, 0_i64..4));
    (months, (tokens(9_000, 3_000_000), cost(), tokens(6_000, 3_000_000), cost()), 0_u8..64).prop_map(
        |((month, month_cost, turns, agents), (day, day_cost, hour, hour_cost), off)| {
            let on = |bit: u8| off & (1 << bit) == 0;
            Limits {
                max_agents: agents,
                max_turns_per_minute: turns,
                max_tokens_per_hour: hour.filter(|_| on(0)),
                max_tokens_per_day: day.filter(|_| on(1)),
                max_tokens_per_month: month.filter(|_| on(2)),
                max_cost_nano_usd_per_hour: hour_cost.filter(|_| on(3)),
                max_cost_nano_usd_per_day: day_cost.filter(|_| on(4)),
                max_cost_nano_usd_per_month: month_cost.filter(|_| on(5)),
            }
        },
    )
}

/// One limit or two, over which some turns that run together get into each other's way.
fn narrow_limits() -> impl Strategy<Value = Limits> {
    let one = || (0_u8..6, 1_500_i64..12_000);
    (one(), of(one())).prop_map(|(first, second)| {
        let mut limits = Limits::default();
        for (which, tokens) in std::iter::once(first).chain(second) {
            let cost = Some(NanoUsd(tokens * 500));
            match which {
                0 => limits.max_tokens_per_hour = Some(tokens),
                1 => limits.max_tokens_per_day = Some(tokens),
                2 => limits.max_tokens_per_month = Some(tokens),
                3 => limits.max_cost_nano_usd_per_hour = cost,
                4 => limits.max_cost_nano_usd_per_day = cost,
                _ => limits.max_cost_nano_usd_per_month = cost,
            }
        }
        limits
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    let output = prop_oneof![5 => 1_u64..4_000, 1 => 1_u64..60_000];
    let key = weighted(0.3, (0_u8..6, prop::bool::weighted(0.8)));
    let least = prop_oneof![12 => 1_u64..800, 1 => 1_u64..4_000];
    let turns = (0_u8..4, least, 0_u64..800, output, key, prop::bool::weighted(0.9))
        .prop_map(|(agent, least, history, output, key, loads)| Wish { agent, least, history, output, key, loads, presumed: None });
    let output = prop_oneof![Just(0_u64), 1_u64..2_000];
    let uses =
        (0_u8..4, 1_u64..4_000, output, 0_u64..4_000, prop::bool::weighted(0.9)).prop_map(|(agent, least, output, presumed, loads)| Wish {
            agent,
            least,
            history: 0,
            output,
            key: None,
            loads,
            presumed: Some(presumed.min(least)),
        });
    prop_oneof![7 => turns, 1 => uses]
}

fn sign() -> impl Strategy<Value = Sign> {
    let output = prop_oneof![5 => 0_u64..4_000, 1 => 0_u64..60_000];
    let input_bound = prop_oneof![6 => Just(0), 1 => 0_u64..2_000];
    let order = prop_oneof![8 => Just(Order::Next), 1 => Just(Order::Again), 1 => Just(Order::Late), 1 => Just(Order::Skipping)];
    (output, input_bound, prop::bool::weighted(0.7), order, (0_u64..900, 0_u64..900, 0_u64..900)).prop_map(
        |(output, input_bound, is_urgent, order, (input_tokens, cached, reasoning_tokens))| {
            let output_tokens = output.min(reasoning_tokens * 5);
            let (cached_input_tokens, source) = (cached, UsageSource::Provider);
            let progress = Usage { input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, source };
            Sign { output, input_bound, is_urgent, order, progress }
        },
    )
}

fn wait() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => 0_i64..50_000,
        1 => prop_oneof![Just(29_999_i64), Just(30_000), Just(59_999), Just(60_000)],
        1 => prop_oneof![Just(3_000_000_i64), Just(7 * 3_600_000)],
        1 => prop_oneof![Just(86_400_000_i64), Just(5 * 86_400_000), Just(40 * 86_400_000)],
    ]
}

/// In a crowd more begins than ends, and the clock goes on slowly: turns wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Any,
    Crowd,
}

fn steps(pace: Pace) -> BoxedStrategy<Vec<Step>> {
    let which = any::<usize>;
    let more = || prop_oneof![19 => Just(0), 1 => 1_u64..3_000];
    let limits = || if pace == Pace::Crowd { narrow_limits().boxed() } else { limits().boxed() };
    let (limits, of_agents) = (limits(), limits());
    // Of a hundred: what happens in a crowd, and otherwise.
    let often = |crowd: u32, otherwise: u32| if pace == Pace::Crowd { crowd } else { otherwise };
    let step = prop_oneof![
        often(28, 24) => wish().prop_map(Step::Begin),
        1 => (which(), wish()).prop_map(|(which, wish)| Step::BeginAgain { which, wish }),
        often(46, 28) => (which(), sign()).prop_map(|(which, sign)| Step::Extend { which, sign }),
        1 => (which(), sign()).prop_map(|(which, sign)| Step::ExtendEnded { which, sign }),
        1 => (which(), any::<bool>()).prop_map(|(which, is_own)| Step::Stop { which, is_own }),
        often(6, 14) => (which(), 0_u64..2_000, 0_u64..500, 0_u64..5_000, more())
            .prop_map(|(which, input, cached, output, more)| Step::Finish { which, input, cached, output, more }),
        often(1, 4) => (which(), 0_u64..900, 0_u64..2_000, any::<bool>())
            .prop_map(|(which, input, output, knows)| Step::FinishAgain { which, input, output, knows }),
        1 => which().prop_map(|which| Step::Release { which }),
        1 => which().prop_map(|which| Step::Undo { which }),
        often(1, 4) => which().prop_map(|which| Step::Die { which }),
        often(3, 8) => (wait(), prop::bool::weighted(0.8)).prop_map(|(millis, wakes)| Step::Wait { millis, wakes }),
        often(2, 4) => (limits, any::<bool>()).prop_map(|(limits, tells)| Step::SetLimits { limits, tells }),
        often(2, 4) => (0_u8..4, weighted(0.9, of_agents), any::<bool>())
            .prop_map(|(agent, limits, tells)| Step::SetAgent { agent, allowance: limits.map(|limits| limits.allowance()), tells }),
        often(2, 3) => (0..ZONES.len()).prop_map(|zone| Step::SetZone(ZONES[zone])),
        often(1, 2) => Just(Step::Restart),
        1 => Just(Step::Doubt),
        1 => Just(Step::Reconcile),
    ];
    proptest::collection::vec(step, 1..40).boxed()
}

/// The limits at first, and what happens then.
fn schedule() -> impl Strategy<Value = (Limits, Vec<Step>)> {
    prop_oneof![(limits(), steps(Pace::Any)), (narrow_limits(), steps(Pace::Crowd))]
}

/// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` for the long form (`scripts/prove quota`).
fn config() -> ProptestConfig {
    let number = |name: &str, otherwise| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    ProptestConfig {
        cases: number("PROPTEST_CASES", 100_000),
        max_shrink_iters: number("PROPTEST_MAX_SHRINK_ITERS", 20_000),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/proptest-regressions/schedules.txt"
        )))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_counter_holds_what_it_must(zone in 0..ZONES.len(), (first, steps) in schedule()) {
        let mut world = World::new(ZONES[zone], first);
        for step in &steps {
            let is_decision = matches!(step, Step::Begin(_) | Step::Extend { .. });
            let may_exceed = world.take(step);
            world.check(is_decision || may_exceed);
        }
        // All that runs comes to its end, and a quiet system has no holds.
        world.wake();
        let all = world.ended.len() + world.model.running.len();
        world.drain();
        let now = (world.counter.running(), world.ended.len(), world.model.ledger.len());
        prop_assert_eq!(now, (0, all, all), "a quiet system holds nothing, and all were charged once");
    }
}
