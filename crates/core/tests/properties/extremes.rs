//! Costs beyond all bounds.

use std::time::Duration;

use tidegate_core::{
    AtomicU64, Cost, FixedWindow, Limiter, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog,
    Timestamp, TokenBucket,
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
