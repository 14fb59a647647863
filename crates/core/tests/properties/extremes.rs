//! Costs beyond all bounds.

use std::time::Duration;

use tidegate_core::{
    AtomicU64, Cost, FixedWindow, Limiter, Protocol, Quota, QuotaError, SlidingWindowCounter,
    SlidingWindowLog, Timestamp, TokenBucket,
};

/// Charged without end, a limit denies; one charge more does not make it come round to free.
fn charges_deny<P: Protocol>(protocol: P) {
    let ring: Vec<_> = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let limiter = Limiter::with_ring(protocol, ring);
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
        let ring: Vec<_> = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
        let limiter = Limiter::with_ring(protocol, ring);
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
    let ring: Vec<_> = (0..log.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let limiter = Limiter::with_ring(log, ring);
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
        let ring: Vec<_> = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
        let limiter = Limiter::with_ring(protocol, ring);
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
