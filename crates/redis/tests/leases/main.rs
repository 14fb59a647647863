//! Leases in a time that tests set: several nodes, whose clocks disagree, spend from one limit on a real
//! server, and what they admit is held against the bound, in every window.
#![cfg(feature = "fake-time")]

#[path = "../../../core/tests/models/mod.rs"]
mod models;
#[path = "../servers/mod.rs"]
mod servers;

mod nodes;

use proptest::prelude::*;

use nodes::{Admitted, Call, Scene, calls};

fn some_cases() -> ProptestConfig {
    ProptestConfig { cases: 96, max_shrink_iters: 300, ..ProptestConfig::default() }
}

const SECOND_US: u64 = 1_000_000;

/// The most units in any span of a length.
fn most_within(admitted: &[Admitted], span_us: u64) -> u64 {
    let within = |start: u64| {
        let inside = admitted.iter().filter(|one| (start..start + span_us).contains(&one.at_us));
        inside.map(|one| one.units).sum::<u64>()
    };
    admitted.iter().map(|one| within(one.at_us)).max().unwrap_or(0)
}

proptest! {
    #![proptest_config(some_cases())]

    #[test]
    fn nodes_with_leases_stay_within_a_sliding_window(
        limit in 1..120_u64,
        lasts_ms in 10..900_u64,
        epochs in prop_oneof![Just(1_usize), Just(4), Just(10)],
        calls in calls(),
    ) {
        let limit_text = format!("sliding-window-counter, {limit} per second, epochs {epochs}");
        let admitted = Scene::new(&limit_text, lasts_ms).play(&calls);
        let most = most_within(&admitted, SECOND_US);
        prop_assert!(most <= limit, "{most} of {limit} in a window");
    }

    #[test]
    fn nodes_with_leases_stay_within_a_fixed_window(
        limit in 1..120_u64,
        lasts_ms in 10..900_u64,
        calls in calls(),
    ) {
        let admitted =
            Scene::new(&format!("fixed-window, {limit} per second"), lasts_ms).play(&calls);
        for one in &admitted {
            let number = one.at_us / SECOND_US;
            let inside = admitted.iter().filter(|other| other.at_us / SECOND_US == number);
            let used: u64 = inside.map(|other| other.units).sum();
            prop_assert!(used <= limit, "{used} of {limit} in window {number}");
        }
    }

    #[test]
    fn nodes_with_leases_stay_within_a_token_bucket(
        rate in 1..120_u64,
        burst in 1..120_u64,
        lasts_ms in 10..900_u64,
        calls in calls(),
    ) {
        let limit = format!("token-bucket, {rate} per second, burst {burst}");
        let admitted = Scene::new(&limit, lasts_ms).play(&calls);
        for (index, first) in admitted.iter().enumerate() {
            let mut sum = 0;
            for last in &admitted[index..] {
                sum += last.units;
                let span_us = u128::from(last.at_us - first.at_us);
                // sum <= burst + rate x span, exactly.
                let most = u128::from(burst) * u128::from(SECOND_US) + u128::from(rate) * span_us;
                prop_assert!(u128::from(sum) * u128::from(SECOND_US) <= most, "{sum} in {span_us} us");
            }
        }
    }
}

/// That the tests can fail: with one node, the whole limit is spent, and most of it without the server.
#[test]
fn a_hot_key_is_spent_from_leases_and_nothing_is_left_behind() {
    for limit in [
        "token-bucket, 1 per hour, burst 10000",
        "fixed-window, 10000 per month",
        "sliding-window-counter, 10000 per day, epochs 6",
    ] {
        let scene = Scene::new(limit, 400);
        let (spent, round_trips) = scene.spend_all(0, 20_000);
        assert_eq!(spent, 10_000, "{limit}");
        assert!(round_trips < 400, "{round_trips} round trips for {limit}");
        assert_eq!(scene.left(), 0, "{limit}");
    }
}

/// A lease is taken just before the window, or epoch, turns; others spend all of the next one; and then
/// its holder calls again.
#[test]
fn a_lease_ends_with_the_window_that_counts_it() {
    let limits = [
        "fixed-window, 100 per second",
        "sliding-window-counter, 100 per second, epochs 1",
        "token-bucket, 1 per second, burst 100",
    ];
    for limit in limits {
        let calls = [
            // 20 ms before a second begins.
            Call::Wait { us: 856_543 },
            Call::Decide { node: 0, times: 40, cost: 1 },
            // The counter's window has to go by once more until there is room again.
            Call::Wait { us: 50_000 },
            Call::Decide { node: 1, times: 200, cost: 1 },
            Call::Decide { node: 0, times: 200, cost: 1 },
        ];
        let admitted = Scene::new(limit, 900).play(&calls);
        let after = admitted[1].units + admitted[2].units;
        let most = if limit.starts_with("fixed") { 100 } else { 100 - admitted[0].units + 1 };
        assert!(after <= most, "{after} after {} for {limit}", admitted[0].units);
        assert_eq!(admitted[0].units, 40);
    }
}

proptest! {
    #![proptest_config(some_cases())]

    #[test]
    fn calls_of_several_leased_layers_are_charged_all_or_nothing(
        limits in [1..400_u64, 1..400, 1..400],
        lasts_ms in 10..900_u64,
        calls in calls(),
    ) {
        let layered = nodes::Layered::new(limits, lasts_ms);
        let (admitted, lost) = layered.play(&calls);
        for (used, limit) in layered.used().into_iter().zip(limits) {
            prop_assert!(admitted <= limit, "{admitted} of {limit}");
            // A denied call leaves nothing behind, but for units whose lease was over when it gave them back.
            prop_assert!((admitted..=admitted + lost).contains(&used), "{used} for {admitted}, {lost} lost");
        }
    }
}
