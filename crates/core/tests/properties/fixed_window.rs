//! The fixed window against a counter per window.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{Calendar, Cost, Every, FixedWindow, Limiter, Quota, Timestamp, Window};

use crate::agreement::agrees;
use crate::answers::check_answer;
use crate::history::{self, Kind, Walk, cost_of};
use crate::models::Windows;

fn windows() -> impl Strategy<Value = (Quota, FixedWindow)> {
    history::quotas(1 << 30)
        .prop_filter_map("fits the word", |quota| Some((quota, FixedWindow::new(quota).ok()?)))
}

proptest! {
    #![proptest_config(history::cases(300))]

    #[test]
    fn agrees_with_a_counter_per_window_step_for_step(
        (quota, window) in windows(),
        start in history::starts(),
        calls in history::all_calls(100),
    ) {
        agrees(&Limiter::new(window), Windows::new(quota), quota, start, calls)?;
    }

    #[test]
    fn remaining_retry_after_and_reset_are_true(
        (quota, window) in windows(),
        start in history::starts(),
        calls in history::all_calls(60),
    ) {
        let limiter = Limiter::new(window);
        let mut walk = Walk::new(start, quota.period());
        for call in calls {
            let now = walk.step(call.clock);
            let cost = cost_of(call, quota.units());
            if let Kind::Charge = call.kind {
                limiter.charge(Cost::new(cost.units() / 4), now);
            } else {
                let decision = limiter.decide(cost, now);
                walk.note(now, &decision);
                check_answer(&limiter, decision, cost, now, quota.units())?;
            }
        }
    }
}

#[test]
fn debt_is_carried_over_windows_until_it_is_paid_off() {
    let limiter = Limiter::new(FixedWindow::new(Quota::per_hour(10)).unwrap());
    let at = |hours: u64, secs| Timestamp::from_secs(hours * 3600 + secs);
    limiter.charge(Cost::new(35), at(5, 10));
    let denied = limiter.decide(Cost::ONE, at(5, 10)).denial().unwrap();
    let retry = tidegate_core::Retry::After(Duration::from_secs(3 * 3600 - 10));
    assert_eq!(denied.retry(), retry, "35 of 10: three windows pay 30, the fourth has 5 left");
    assert!(!limiter.decide(Cost::ONE, at(7, 3599)).is_allow());
    assert_eq!(limiter.decide(Cost::ONE, at(8, 0)).remaining(), 4);
}

#[test]
fn a_refund_frees_units_only_in_the_window_of_its_charge() {
    let limiter = Limiter::new(FixedWindow::new(Quota::per_hour(10)).unwrap());
    let (before, after) = (Timestamp::from_secs(3599), Timestamp::from_secs(3600));
    assert!(limiter.decide(Cost::new(10), before).is_allow());
    assert!(limiter.decide(Cost::new(10), after).is_allow());
    limiter.refund(Cost::new(10), before, after);
    assert!(!limiter.decide(Cost::ONE, after).is_allow());
    limiter.refund(Cost::new(3), after, after);
    assert_eq!(limiter.peek(Cost::ZERO, after).remaining(), 3);
}

#[test]
fn limits_that_do_not_fit_the_word_are_refused() {
    let second = Duration::from_secs(1);
    assert!(FixedWindow::new(Quota::new(1 << 30, second).unwrap()).is_ok());
    assert!(FixedWindow::new(Quota::new((1 << 30) + 1, second).unwrap()).is_err());
    assert!(FixedWindow::new(Quota::per_day(100_000_000_000_000)).is_ok());
}

/// Also a hint that is no window's number, as of a word that somebody made up.
#[test]
fn the_window_of_a_time_is_the_same_whatever_is_hinted() {
    let period_ns = 1 << 32;
    let every = Every::new(Quota::new(1, Duration::from_nanos(period_ns)).unwrap());
    let start = |number: u64| Timestamp::from_nanos(number * period_ns);
    for (number, into) in [(0, 0), (0, period_ns - 1), (5, 0), (5, 3), (5, period_ns - 1)] {
        let at = Timestamp::from_nanos(number * period_ns + into);
        let window = Window { number, start: start(number), end: start(number + 1) };
        for hint in [0, 4, 5, 6, (1 << 30) - 1, 1 << 30, (1 << 31) - 1] {
            assert_eq!(every.window(at, hint), window, "{at:?}, hint {hint}");
        }
    }
}
