//! The same histories for the scripts on a real server and for the models that the core is tested
//! against.
#![cfg(feature = "fake-time")]

#[path = "../../../core/tests/models/mod.rs"]
mod models;
#[path = "../servers/mod.rs"]
mod servers;

mod history;

use std::time::Duration;

use models::{Epochs, ExactBucket, Queue, Windows};
use proptest::prelude::*;
use tidegate::Quota;

use history::{Checked, Step, compare, steps};

/// As many cases as fit a few seconds: each step is a round trip.
fn some_cases() -> ProptestConfig {
    ProptestConfig { cases: 160, max_shrink_iters: 400, ..ProptestConfig::default() }
}

fn quota(units: u64, period_us: u64) -> Quota {
    Quota::new(units, Duration::from_micros(period_us)).unwrap()
}

proptest! {
    #![proptest_config(some_cases())]

    #[test]
    fn a_token_bucket_is_as_the_exact_bucket(
        units in prop_oneof![1..20_u64, Just(7_000_003)],
        burst in 1..25_u64,
        steps in steps(Step::any()),
    ) {
        let limit = format!("token-bucket, {units} per second, burst {burst}");
        compare(&limit, ExactBucket::new(quota(units, 1_000_000), burst), &steps, Checked::Exactly);
    }

    #[test]
    fn a_fixed_window_is_as_the_plain_windows(units in 1..20_u64, steps in steps(Step::any())) {
        let limit = format!("fixed-window, {units} per second");
        compare(&limit, Windows::new(quota(units, 1_000_000)), &steps, Checked::Exactly);
    }

    #[test]
    fn a_sliding_window_counter_is_as_the_plain_epochs(
        units in 1..20_u64,
        epochs in prop_oneof![Just(1_usize), Just(2), Just(5), Just(8)],
        steps in steps(Step::any()),
    ) {
        let limit = format!("sliding-window-counter, {units} per second, epochs {epochs}");
        compare(&limit, Epochs::new(quota(units, 1_000_000), epochs), &steps, Checked::Exactly);
    }

    #[test]
    fn a_sliding_window_log_is_as_the_plain_queue(
        units in 1..20_u64,
        steps in steps(Step::without_debt()),
    ) {
        let limit = format!("sliding-window-log, {units} per second");
        compare(&limit, Queue::new(quota(units, 1_000_000)), &steps, Checked::Exactly);
    }

    /// Up to eight times the limit, which is the most that one charge puts off.
    #[test]
    fn a_sliding_window_log_carries_debt_as_the_plain_queue(
        units in 2..20_u64,
        steps in steps(Step::without_refunds()),
    ) {
        let limit = format!("sliding-window-log, {units} per second");
        compare(&limit, Queue::new(quota(units, 1_000_000)), &steps, Checked::Exactly);
    }

    /// A refund into debt takes the debt's last units, and what stood in their places a ring ago is taken
    /// to be as late as it can have been.
    #[test]
    fn a_sliding_window_log_with_refunds_in_debt_admits_no_more_than_the_limit(
        units in 1..20_u64,
        steps in steps(Step::any()),
    ) {
        let limit = format!("sliding-window-log, {units} per second");
        compare(&limit, Queue::new(quota(units, 1_000_000)), &steps, Checked::ByTheBound {
            limit: units,
            window_us: 1_000_000,
        });
    }
}
