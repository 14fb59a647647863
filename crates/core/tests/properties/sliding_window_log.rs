//! The sliding window log against the list of timestamps, which it must equal.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Cost, Limiter, Protocol, Quota, QuotaError, Retry, SlidingWindowLog, Timestamp,
};

use crate::agreement::{agrees, without_stale_times};
use crate::answers::check_answer;
use crate::history::{self, Clock, Kind, Walk, cost_of};
use crate::late::Recorded;
use crate::models::{Queue, Timestamps};

fn limiter(quota: Quota) -> Limiter<SlidingWindowLog, Vec<AtomicU64>> {
    let ring = (0..=quota.units()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(SlidingWindowLog::new(quota).unwrap(), ring)
}

proptest! {
    #![proptest_config(history::cases(300))]

    /// The end of time is left out: there the clamped clock no longer tells a window.
    #[test]
    fn equals_the_list_of_timestamps_step_for_step(
        quota in history::quotas(300),
        start in 0_u64..1 << 61,
        calls in history::decisions(150),
    ) {
        let window_ns = quota.period().as_nanos() as u64;
        let limiter = limiter(quota);
        let mut model = Timestamps::default();
        let mut walk = Walk::new(Timestamp::from_nanos(start), quota.period());
        let mut latest = Timestamp::ZERO;
        for call in calls {
            let now = walk.step(call.clock);
            let cost = cost_of(call, quota.units());
            // A cost of nothing always fits where there is no debt.
            let used = model.in_window(now, window_ns);
            let fits = cost == Cost::ZERO || used + cost.units() <= quota.units();
            let peeked = limiter.peek(cost, now);
            let decision = limiter.decide(cost, now);
            prop_assert_eq!(peeked, decision, "a peek tells what a decision does");
            walk.note(now, &decision);
            prop_assert_eq!(decision.is_allow(), fits);
            if fits && cost > Cost::ZERO {
                latest = latest.max(now);
                model.push(latest, cost.units());
            }
        }
        prop_assert!(model.most_in_any_window(window_ns) <= quota.units());
    }

    #[test]
    fn remaining_retry_after_and_reset_are_true(
        quota in history::quotas(200),
        start in history::starts(),
        calls in history::all_calls(60),
    ) {
        let limiter = limiter(quota);
        let mut walk = Walk::new(start, quota.period());
        let mut open = (Cost::ZERO, start);
        for call in calls {
            // After a refund, a stale time can be told less than there is.
            let clock = if let Clock::Stale(_) = call.clock { Clock::Stall } else { call.clock };
            let now = walk.step(clock);
            let cost = cost_of(call, quota.units());
            match call.kind {
                Kind::Decide => {
                    let decision = limiter.decide(cost, now);
                    walk.note(now, &decision);
                    check_answer(&limiter, decision, cost, now, quota.units())?;
                    if decision.is_allow() {
                        open = (cost, now);
                    }
                }
                Kind::Refund(_) => {
                    limiter.refund(open.0, open.1, now);
                    open.0 = Cost::ZERO;
                }
                Kind::Charge => limiter.charge(Cost::new(cost.units() / 4), now),
            }
        }
    }

    /// In order of time. A refund frees its units at once; whatever entries it takes, those that stay
    /// count at least as long as the charges that stay.
    #[test]
    fn refunds_free_as_much_at_once_and_never_too_much(
        quota in history::quotas(60),
        start in 0_u64..1 << 61,
        calls in history::all_calls(100),
    ) {
        let window_ns = quota.period().as_nanos() as u64;
        let limiter = limiter(quota);
        let mut model = Timestamps::default();
        let mut walk = Walk::new(Timestamp::from_nanos(start), quota.period());
        for call in calls {
            let clock = match call.clock {
                Clock::Stale(_) => Clock::Stall,
                clock => clock,
            };
            let now = walk.step(clock);
            if let Kind::Refund(share) = call.kind {
                // Any earlier charge, not just the last.
                let index = (model.0.len() * usize::from(share)) / 256;
                if let Some(charge) = model.0.get_mut(index) {
                    let before = limiter.peek(Cost::ZERO, now).remaining();
                    limiter.refund(Cost::new(charge.1), charge.0, now);
                    let after = limiter.peek(Cost::ZERO, now).remaining();
                    let still_held = now.since(charge.0).as_nanos() < u128::from(window_ns);
                    let freed = if still_held { charge.1 } else { 0 };
                    prop_assert_eq!(after, (before + freed).min(quota.units()));
                    charge.1 = 0;
                }
            } else {
                let cost = cost_of(call, quota.units());
                let decision = limiter.decide(cost, now);
                walk.note(now, &decision);
                if decision.is_allow() {
                    model.push(now, cost.units());
                }
                prop_assert!(model.most_in_any_window(window_ns) <= quota.units());
            }
        }
    }

    /// Debt is recorded at the earliest times at which it would have been admitted: the log goes on
    /// as if the units had queued.
    #[test]
    fn agrees_with_a_queue_of_units_step_for_step(
        quota in history::quotas(60).prop_filter("years", |quota| quota.period().as_secs() < 1 << 20),
        start in 0_u64..1 << 61,
        calls in history::all_calls(80),
    ) {
        let start = Timestamp::from_nanos(start);
        let calls = without_stale_times(calls);
        agrees(&limiter(quota), Queue::new(quota), quota, start, calls)?;
    }
}

#[test]
fn a_unit_exactly_one_window_old_no_longer_counts() {
    let limiter = limiter(Quota::per_minute(1));
    assert!(limiter.decide(Cost::ONE, Timestamp::ZERO).is_allow());
    let tick_before = Timestamp::from_nanos(59_999_999_999);
    assert!(!limiter.decide(Cost::ONE, tick_before).is_allow());
    assert!(limiter.decide(Cost::ONE, Timestamp::from_secs(60)).is_allow());
}

#[test]
fn at_the_end_of_time_nothing_is_freed() {
    let limiter = limiter(Quota::per_minute(3));
    assert!(limiter.decide(Cost::new(3), Timestamp::MAX).is_allow());
    assert!((0..10).all(|_| !limiter.decide(Cost::ONE, Timestamp::MAX).is_allow()));
}

/// A refund after the debt is over frees an entry, and a call whose `now` is from before finds it.
#[test]
fn nothing_is_admitted_before_the_last_of_a_debt_that_a_later_refund_has_freed() {
    let limiter = limiter(Quota::per_minute(3));
    let at = |s: u64| Timestamp::from_secs(1_000 + s);
    assert!(limiter.decide(Cost::ONE, at(0)).is_allow());
    assert!(limiter.decide(Cost::new(2), at(30)).is_allow());
    limiter.charge(Cost::ONE, at(40)); // to be admitted at 60
    limiter.refund(Cost::ONE, at(40), at(65));
    assert_eq!(limiter.peek(Cost::ZERO, at(65)).remaining(), 1);
    assert!(!limiter.decide(Cost::ONE, at(59)).is_allow(), "in debt");
    assert!(limiter.decide(Cost::ONE, at(60)).is_allow());
}

/// A refund has freed an entry after the debt was over; for whom the debt is not over yet, that is nothing.
#[test]
fn for_a_now_that_is_still_in_debt_nothing_is_left() {
    let log = SlidingWindowLog::new(Quota::per_minute(3)).unwrap();
    let ring: Vec<_> = (0..log.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let shared = Recorded { head: AtomicU64::new(0), ring };
    let head = || shared.head.load(std::sync::atomic::Ordering::Relaxed);
    let at = |s: u64| Timestamp::from_secs(1_000 + s);
    for s in [0, 10, 20] {
        assert!(log.decide(&shared, head(), Cost::ONE, at(s)).unwrap().is_allow());
    }
    log.charge(&shared, head(), Cost::ONE, at(21)).unwrap(); // to be admitted at 60 s
    log.refund(&shared, head(), Cost::ONE, at(10), at(61)).unwrap();
    for (s, left) in [(61, 1), (55, 0)] {
        let peeked = log.peek(&shared, head(), Cost::ONE, at(s)).unwrap();
        assert_eq!(log.peek(&shared, head(), Cost::ZERO, at(s)).unwrap().remaining(), left);
        assert_eq!(peeked.is_allow(), left > 0);
        let foreseen = log.foresee(&shared, head(), Cost::ONE, at(s)).unwrap();
        assert_eq!(foreseen.err(), peeked.denial(), "{s} s");
    }
}

/// An entry that was put off by a debt, which was taken back, is an ordinary one once it is used at that
/// very time: it puts nobody off, whatever their clock says.
#[test]
fn an_entry_that_a_debt_had_is_an_ordinary_one_once_it_is_used() {
    let log = limiter(Quota::per_minute(3));
    let at = |s: u64| Timestamp::from_secs(1_000 + s);
    for s in [0, 10, 20] {
        assert!(log.decide(Cost::ONE, at(s)).is_allow());
    }
    log.charge(Cost::ONE, at(21)); // to be admitted at 60 s
    log.refund(Cost::ONE, at(21), at(22));
    assert!(!log.decide(Cost::ONE, at(59)).is_allow());
    assert!(log.decide(Cost::ONE, at(60)).is_allow());
    log.refund(Cost::ONE, at(10), at(61));
    assert!(log.decide(Cost::ONE, at(58)).is_allow(), "one of 10 s is free");
}

#[test]
fn one_charge_puts_off_as_many_laps_as_is_said() {
    let at = |s: u64| Timestamp::from_secs(1_000 + s);
    for limit in [1, 2, 3] {
        let log = limiter(Quota::per_minute(limit));
        let laps = SlidingWindowLog::MAX_DEBT_LAPS;
        log.charge(Cost::new(u64::MAX), at(0));
        let denial = log.decide(Cost::ONE, at(0)).denial().expect("in debt");
        // The first lap is admitted at once, and the next unit after the last.
        assert_eq!(denial.retry(), Retry::After(Duration::from_secs(60 * laps)));
        assert!(!log.decide(Cost::ONE, at(60 * laps - 1)).is_allow());
        assert!(log.decide(Cost::new(limit), at(60 * laps)).is_allow());
    }
}

/// By a clock that is behind, a unit is put off to no earlier than the last that was admitted.
#[test]
fn a_debt_is_recorded_no_earlier_than_what_was_admitted_before_it() {
    let log = limiter(Quota::per_minute(2));
    let at = |s: u64| Timestamp::from_secs(1_000 + s);
    for s in [0, 75] {
        assert!(log.decide(Cost::ONE, at(s)).is_allow());
    }
    log.charge(Cost::ONE, at(30)); // free by 60, and after the unit of 75
    let standing = log.peek(Cost::ZERO, at(76));
    assert_eq!((standing.remaining(), standing.reset_after()), (0, Duration::from_secs(59)));
    assert!(!log.decide(Cost::ONE, at(134)).is_allow());
    assert!(log.decide(Cost::new(2), at(135)).is_allow());
    // So are those that are free.
    let log = limiter(Quota::per_minute(4));
    assert!(log.decide(Cost::ONE, at(75)).is_allow());
    log.charge(Cost::new(2), at(30));
    let standing = log.peek(Cost::ZERO, at(76));
    assert_eq!((standing.remaining(), standing.reset_after()), (1, Duration::from_secs(59)));
    assert!(!log.decide(Cost::new(2), at(134)).is_allow());
    assert!(log.decide(Cost::new(4), at(135)).is_allow());
}

#[test]
fn limits_above_the_most_are_refused() {
    let (most, second) = (SlidingWindowLog::MAX_LIMIT, Duration::from_secs(1));
    let made =
        |units| SlidingWindowLog::new(Quota::new(units, second).unwrap()).map(|log| log.limit());
    assert_eq!(made(most), Ok(most));
    assert_eq!(made(most + 1), Err(QuotaError::TooLarge { units: most + 1, max: most }));
}
