//! The token bucket against the bucket in exact rational arithmetic.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{Cost, Decision, Limiter, Quota, Timestamp, TokenBucket};

use crate::agreement::agrees;
use crate::answers::check_answer;
use crate::history::{self, Kind, Walk, cost_of};
use crate::models::{ExactBucket, Model};

fn buckets() -> impl Strategy<Value = (Quota, u64)> {
    (history::quotas(1 << 40), 0.01..2.0_f64).prop_filter_map("burst", |(quota, share)| {
        let burst = ((quota.units() as f64 * share) as u64).max(1);
        TokenBucket::new(quota).ok()?.with_burst(burst).ok()?;
        Some((quota, burst))
    })
}

/// Whether a unit takes whole or half nanoseconds.
fn is_exact(quota: Quota) -> bool {
    (2 * quota.period().as_nanos()).is_multiple_of(u128::from(quota.units()))
}

proptest! {
    #![proptest_config(history::cases(300))]

    #[test]
    fn admits_what_the_exact_bucket_does_to_the_nanosecond(
        (quota, burst) in buckets(),
        start in history::starts(),
        calls in history::decisions(120),
    ) {
        let bucket = TokenBucket::new(quota).unwrap().with_burst(burst).unwrap();
        let (early, late) = if is_exact(quota) { (0, 0) } else { (1, -2) };
        let limiter = Limiter::new(bucket);
        let mut exact = ExactBucket::new(quota, burst);
        let mut walk = Walk::new(start, quota.period());
        for call in calls {
            let now = walk.step(call.clock);
            let cost = cost_of(call, burst);
            let decision = limiter.decide(cost, now);
            walk.note(now, &decision);
            match decision {
                Decision::Allow(_) => {
                    prop_assert!(exact.fits_around(cost, now, early), "too much");
                    if cost > Cost::ZERO {
                        exact.charge(cost, now);
                    }
                }
                Decision::Deny(_) => prop_assert!(
                    !exact.fits_around(cost, now, late),
                    "denied what fits"
                ),
            }
        }
    }

    /// With debt and refunds, where a unit takes whole nanoseconds.
    #[test]
    fn agrees_with_the_exact_bucket_step_for_step(
        (quota, burst) in buckets(),
        start in history::starts(),
        calls in history::all_calls(100),
    ) {
        let per_unit = Duration::from_nanos(quota.period().as_nanos() as u64 / quota.units());
        let quota = Quota::new(1, per_unit).unwrap();
        if let Ok(bucket) = TokenBucket::new(quota).unwrap().with_burst(burst) {
            let capacity = Quota::new(burst, quota.period()).unwrap();
            agrees(&Limiter::new(bucket), ExactBucket::new(quota, burst), capacity, start, calls)?;
        }
    }

    #[test]
    fn remaining_retry_after_and_reset_are_true(
        (quota, burst) in buckets(),
        start in history::starts(),
        calls in history::all_calls(60),
    ) {
        let limiter = Limiter::new(TokenBucket::new(quota).unwrap().with_burst(burst).unwrap());
        let mut walk = Walk::new(start, quota.period());
        let mut charged = (Cost::ZERO, start);
        for call in calls {
            let now = walk.step(call.clock);
            let cost = cost_of(call, burst);
            match call.kind {
                Kind::Decide => {
                    let decision = limiter.decide(cost, now);
                    walk.note(now, &decision);
                    check_answer(&limiter, decision, cost, now, burst)?;
                    if decision.is_allow() {
                        charged = (cost, now);
                    }
                }
                Kind::Refund(_) => {
                    limiter.refund(charged.0, charged.1, now);
                    charged = (Cost::ZERO, start);
                }
                Kind::Charge => limiter.charge(Cost::new(cost.units() / 4), now),
            }
        }
    }

    /// What was refunded counts as never charged; the rest stays within burst plus refill in every
    /// span that ends now.
    #[test]
    fn refunds_free_no_more_than_the_charge_still_holds(
        (quota, burst) in buckets(),
        start in history::starts(),
        calls in history::all_calls(60),
    ) {
        let limiter = Limiter::new(TokenBucket::new(quota).unwrap().with_burst(burst).unwrap());
        let mut walk = Walk::new(start, quota.period());
        // Admitted and not refunded, with the time; forced charges are debt and not counted.
        let mut kept: Vec<(u64, u64)> = Vec::new();
        let mut open: Option<usize> = None;
        for call in calls {
            let now = walk.step(call.clock);
            match call.kind {
                Kind::Refund(share) => if let Some(index) = open.take() {
                    let (at, units) = kept[index];
                    let refund = (u128::from(units) * u128::from(share) / 255) as u64;
                    limiter.refund(Cost::new(refund), Timestamp::from_nanos(at), now);
                    kept[index].1 -= refund;
                },
                _ => {
                    let cost = cost_of(call, burst);
                    if limiter.decide(cost, now).is_allow() {
                        kept.push((now.as_nanos(), cost.units()));
                        open = Some(kept.len() - 1);
                    }
                }
            }
            for (from, _) in &kept {
                let span = u128::from(now.as_nanos().saturating_sub(*from));
                let sum: u128 = kept.iter()
                    .filter(|(at, _)| (*from..=now.as_nanos()).contains(at))
                    .map(|(_, units)| u128::from(*units)).sum();
                let early = u128::from(!is_exact(quota));
                let refill = (span + early) * u128::from(quota.units());
                let bound = u128::from(burst) * quota.period().as_nanos() + refill;
                prop_assert!(sum * quota.period().as_nanos() <= bound, "{sum} in {span} ns");
            }
        }
    }
}

#[test]
fn a_rate_that_does_not_divide_a_nanosecond_does_not_drift() {
    for (units, period_s) in [(7_000_000, 60), (600_000_000, 1), (700_000_000, 1), (999_999_937, 1)]
    {
        let quota = Quota::new(units, std::time::Duration::from_secs(period_s)).unwrap();
        let limiter = Limiter::new(TokenBucket::new(quota).unwrap());
        let start = Timestamp::from_secs(1_700_000_000);
        assert!(limiter.decide(Cost::new(units), start).is_allow());
        let (mut now, mut admitted) = (start, 0);
        // An hour in uneven steps that refill about half of the bucket each.
        let step = std::time::Duration::from_nanos(period_s * 500_000_003);
        for _ in 0..3_600 / period_s * 2 {
            now = now + step;
            let free = limiter.peek(Cost::ONE, now).remaining() + 1;
            assert!(limiter.decide(Cost::new(free), now).is_allow());
            admitted += free;
        }
        let due =
            |span_ns: u128| span_ns * u128::from(units) / u128::from(period_s * 1_000_000_000);
        let span_ns = now.since(start).as_nanos();
        let (most, least) = (due(span_ns + 1) as u64, due(span_ns - 2) as u64);
        assert!((least..=most).contains(&admitted), "{units}: {admitted}, not {least} to {most}");
    }
}

#[test]
fn refunds_at_any_phase_of_a_tick_gain_nothing() {
    let quota = Quota::new(3, Duration::from_nanos(7)).unwrap();
    let burst = 10_000;
    for phase in 0..7 {
        for wait in 1..14 {
            let bucket = TokenBucket::new(quota).unwrap().with_burst(burst).unwrap();
            let (limiter, mut exact) = (Limiter::new(bucket), ExactBucket::new(quota, burst));
            let mut now = Timestamp::from_nanos(1_000_000 * 7 + phase);
            assert!(limiter.decide(Cost::new(burst), now).is_allow());
            exact.charge(Cost::new(burst), now);
            for _ in 0..50 {
                let later = now + Duration::from_nanos(wait);
                limiter.charge(Cost::new(10), now);
                exact.charge(Cost::new(10), now);
                limiter.refund(Cost::new(10), now, later);
                exact.refund(Cost::new(10), now, later);
                now = now + Duration::from_nanos(21);
            }
            let left = Cost::new(limiter.peek(Cost::ZERO, now).remaining());
            assert!(exact.fits_around(left, now, 1), "{phase} {wait}: {left:?}");
        }
    }
}

#[test]
fn a_new_bucket_holds_its_burst_and_not_one_more() {
    let bucket = TokenBucket::new(Quota::per_second(10)).unwrap().with_burst(3).unwrap();
    for now in [Timestamp::ZERO, Timestamp::from_secs(5)] {
        let limiter = Limiter::new(bucket);
        assert!((0..3).all(|_| limiter.decide(Cost::ONE, now).is_allow()));
        assert!(!limiter.decide(Cost::ONE, now).is_allow());
        let idle = now + std::time::Duration::from_secs(1_000);
        assert!((0..3).all(|_| limiter.decide(Cost::ONE, idle).is_allow()));
        assert!(!limiter.decide(Cost::ONE, idle).is_allow(), "a free unit after idling");
    }
}

#[test]
fn a_clock_that_steps_back_frees_nothing() {
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(10)).unwrap());
    let now = Timestamp::from_secs(100);
    assert!(limiter.decide(Cost::new(10), now).is_allow());
    for back in [1, 1_000_000, 50_000_000_000] {
        let stale = Timestamp::from_nanos(now.as_nanos() - back);
        assert!(!limiter.decide(Cost::ONE, stale).is_allow());
    }
    let later = now + std::time::Duration::from_millis(300);
    let admitted = (0..20).filter(|_| limiter.decide(Cost::ONE, later).is_allow()).count();
    assert_eq!(admitted, 3);
}

#[test]
fn debt_is_paid_off_before_anything_is_admitted() {
    let limiter = Limiter::new(TokenBucket::new(Quota::per_second(10)).unwrap());
    let now = Timestamp::from_secs(100);
    limiter.charge(Cost::new(25), now);
    let after = |ms| now + std::time::Duration::from_millis(ms);
    assert!(!limiter.decide(Cost::ZERO, after(1_499)).is_allow());
    assert!(limiter.decide(Cost::ZERO, after(1_500)).is_allow());
    assert!(!limiter.decide(Cost::ONE, after(1_599)).is_allow());
    assert!(limiter.decide(Cost::ONE, after(1_600)).is_allow());
}

/// Also where a unit takes no whole number of nanoseconds.
#[test]
fn a_refund_at_once_gives_back_all_of_the_charge() {
    for units in [7, 60, 6_000, 1_000_003] {
        let limiter = Limiter::new(TokenBucket::new(Quota::per_minute(units)).unwrap());
        for ns in [0, 1, 123_456_789, 1 << 60] {
            let now = Timestamp::from_nanos(ns);
            let before = limiter.peek(Cost::ZERO, now);
            assert!(limiter.decide(Cost::new(5), now).is_allow());
            limiter.refund(Cost::new(5), now, now);
            assert_eq!(limiter.peek(Cost::ZERO, now).remaining(), before.remaining());
            assert_eq!(limiter.peek(Cost::ZERO, now).reset_after(), before.reset_after());
        }
    }
}
