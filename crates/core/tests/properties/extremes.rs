//! Costs beyond all bounds.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Cost, FixedWindow, Limiter, Protocol, Quota, QuotaError, SlidingWindowCounter,
    SlidingWindowLog, Timestamp, TokenBucket,
};

use crate::history;

type Lone<P> = Limiter<P, Vec<AtomicU64>>;

fn fresh<P: Protocol>(protocol: P) -> Lone<P> {
    let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(protocol, ring)
}

/// Charged without end, a limit denies; one charge more does not make it come round to free.
fn charges_deny<P: Protocol>(protocol: P) {
    let limiter = fresh(protocol);
    let start = Timestamp::from_secs(1_700_000_000);
    for step in 0..40 {
        let now = start + Duration::from_millis(step);
        let units = [u64::MAX, 1, u64::MAX / 2, 7, u64::MAX - 5][step as usize % 5];
        limiter.charge(Cost::new(units), now);
        assert!(!limiter.decide(Cost::ONE, now).is_allow(), "after {step} charges");
        assert_eq!(limiter.peek(Cost::ZERO, now).remaining(), 0);
    }
}

#[test]
fn charges_without_end_deny_and_do_not_wrap() {
    for units in [1, 3, 100] {
        let quota = Quota::per_minute(units);
        charges_deny(TokenBucket::new(quota).unwrap());
        charges_deny(FixedWindow::new(quota).unwrap());
        charges_deny(SlidingWindowCounter::new(quota, 6).unwrap());
        charges_deny(SlidingWindowLog::new(quota).unwrap());
    }
}

#[test]
fn costs_beyond_all_bounds_are_denied_for_ever() {
    let quota = Quota::per_minute(3);
    let bucket = Limiter::new(TokenBucket::new(quota).unwrap());
    let window = Limiter::new(FixedWindow::new(quota).unwrap());
    let now = Timestamp::from_secs(1_700_000_000);
    for units in [4, u64::MAX / 2, u64::MAX] {
        for decision in [bucket.decide(Cost::new(units), now), window.decide(Cost::new(units), now)]
        {
            let denial = decision.denial().expect("above the limit");
            assert_eq!(denial.retry(), tidegate_core::Retry::Never);
            assert_eq!(denial.remaining(), 3);
        }
    }
}

/// Debt at the end of time stays debt: no later time will pay it off.
#[test]
fn debt_at_the_end_of_time_is_never_forgiven() {
    fn check<P: Protocol>(protocol: P) {
        let limiter = fresh(protocol);
        for units in [5, 1, 7] {
            limiter.charge(Cost::new(units), Timestamp::MAX);
            for now in [Timestamp::MAX, Timestamp::from_secs(1_700_000_000)] {
                assert!(!limiter.decide(Cost::ONE, now).is_allow(), "{now:?}");
                assert_eq!(limiter.peek(Cost::ZERO, now).remaining(), 0, "{now:?}");
            }
        }
    }
    let quota = Quota::per_minute(3);
    check(TokenBucket::new(quota).unwrap());
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}

/// Behind a debt that was taken back, its entry holds as long as the one that it was written over.
#[test]
fn at_the_end_of_time_debt_that_was_taken_back_leaves_no_room() {
    let log = SlidingWindowLog::new(Quota::per_minute(3)).unwrap();
    let limiter = fresh(log);
    limiter.charge(Cost::new(4), Timestamp::MAX);
    let earlier = Timestamp::from_nanos(Timestamp::MAX.as_nanos() - 1);
    limiter.refund(Cost::ONE, earlier, earlier);
    for now in [earlier, Timestamp::MAX] {
        assert_eq!(limiter.peek(Cost::ZERO, now).remaining(), 0, "{now:?}");
        assert!(!limiter.decide(Cost::ONE, now).is_allow(), "{now:?}");
    }
}

#[test]
fn a_burst_takes_ten_years_to_refill_at_most() {
    let bucket = TokenBucket::new(Quota::per_second(1)).unwrap();
    let most = 10 * 365 * 24 * 3_600;
    assert_eq!(bucket.with_burst(most).map(|bucket| bucket.burst()), Ok(most));
    for burst in [0, most + 1] {
        assert_eq!(bucket.with_burst(burst), Err(QuotaError::Burst { burst, max: most }));
    }
}

/// What was never charged, or not there, frees nothing.
#[test]
fn a_refund_of_a_charge_that_was_never_made_frees_nothing() {
    fn check<P: Protocol>(protocol: P) {
        let limiter = fresh(protocol);
        let at = |s: u64| Timestamp::from_secs(1_700_000_000 / 60 * 60 + s);
        limiter.charge(Cost::new(3), at(5));
        for charged in [at(65), at(1_000)] {
            limiter.refund(Cost::ONE, charged, at(30));
            assert!(!limiter.decide(Cost::ONE, at(30)).is_allow(), "{charged:?}");
        }
    }
    let quota = Quota::per_minute(3);
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
}

/// A charge by a clock that is a century behind pays nothing of a debt off.
#[test]
fn a_charge_by_a_clock_that_is_far_behind_frees_nothing() {
    fn check<P: Protocol>(protocol: P) {
        let limiter = fresh(protocol);
        let late = Timestamp::from_secs(3_000_000_000);
        limiter.charge(Cost::new(3), late);
        limiter.charge(Cost::ONE, Timestamp::ZERO);
        assert_eq!(limiter.peek(Cost::ZERO, late).remaining(), 0);
        assert!(!limiter.decide(Cost::ONE, late).is_allow());
    }
    let quota = Quota::per_minute(3);
    check(TokenBucket::new(quota).unwrap());
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}

#[test]
fn one_unit_a_nanosecond_is_the_most_where_units_are_kept_apart_by_time() {
    for period_ns in [1, 7, 1_000] {
        let quota = |units| Quota::new(units, Duration::from_nanos(period_ns)).unwrap();
        assert!(TokenBucket::new(quota(period_ns)).is_ok());
        assert!(SlidingWindowLog::new(quota(period_ns)).is_ok());
        for units in [period_ns + 1, 2 * period_ns] {
            let error = QuotaError::TooFast { units, period_ns };
            assert_eq!(TokenBucket::new(quota(units)), Err(error));
            assert_eq!(SlidingWindowLog::new(quota(units)), Err(error));
        }
    }
}

/// Of any size, and two times of three so near the end of their type that a sum with one would wrap.
fn costs() -> impl Strategy<Value = u64> {
    prop_oneof![0..200_u64, any::<u64>(), u64::MAX - 200..=u64::MAX]
}

/// What is left now, and after more and more windows.
fn left<P: Protocol>(limiter: &Lone<P>, now: Timestamp) -> Vec<u64> {
    let later = |shift| now + Duration::from_secs(60_u64 << shift);
    let times = std::iter::once(now).chain((0..24_u32).map(later));
    times.map(|at| limiter.peek(Cost::ZERO, at).remaining()).collect()
}

/// Whoever is charged more has no more left, and whoever is given back more has no less.
fn more_is_not_less<P: Protocol + Copy>(
    protocol: P,
    used: u64,
    less: u64,
    more: u64,
) -> Result<(), TestCaseError> {
    let (now, all) = (Timestamp::from_secs(1_700_000_040), Cost::new(u64::MAX));
    let after = |call: &dyn Fn(&Lone<P>)| {
        let limiter = fresh(protocol);
        limiter.charge(Cost::new(used), now);
        call(&limiter);
        left(&limiter, now)
    };
    let charged = |units| after(&|limiter| limiter.charge(Cost::new(units), now));
    let charged = [charged(less), charged(more)];
    prop_assert!(
        charged[0].iter().zip(&charged[1]).all(|(less, more)| more <= less),
        "{charged:?}"
    );
    let refunded = |units| after(&|limiter| limiter.refund(Cost::new(units), now, now));
    let forgiven = |units| after(&|limiter| limiter.forgive(Cost::new(units), now));
    for freed in [[refunded(less), refunded(more)], [forgiven(less), forgiven(more)]] {
        prop_assert!(freed[0].iter().zip(&freed[1]).all(|(less, more)| less <= more), "{freed:?}");
    }
    // What was used within the limit all comes back, and no more than there was.
    if used <= 3 {
        let full = after(&|limiter| limiter.refund(all, now, now));
        prop_assert!(full.iter().all(|left| *left == 3), "{full:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(history::cases(2_000))]

    #[test]
    fn who_is_charged_more_has_no_more_left_and_who_is_refunded_more_no_less(
        used in prop_oneof![0..9_u64, costs()],
        (one, other) in (costs(), costs()),
    ) {
        let (less, more, quota) = (one.min(other), one.max(other), Quota::per_minute(3));
        more_is_not_less(TokenBucket::new(quota).unwrap(), used, less, more)?;
        more_is_not_less(FixedWindow::new(quota).unwrap(), used, less, more)?;
        more_is_not_less(SlidingWindowCounter::new(quota, 6).unwrap(), used, less, more)?;
        more_is_not_less(SlidingWindowLog::new(quota).unwrap(), used, less, more)?;
    }
}
