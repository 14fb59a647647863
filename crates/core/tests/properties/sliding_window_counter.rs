//! The sliding window counter against the list of timestamps.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Cost, Decision, Limiter, Quota, QuotaError, SlidingWindowCounter, Timestamp,
};

use crate::agreement::agrees;
use crate::answers::check_answer;
use crate::history::{self, Kind, Walk, cost_of};
use crate::models::{Epochs, Timestamps};

fn counters() -> impl Strategy<Value = (Quota, SlidingWindowCounter)> {
    (history::quotas(1 << 30), 1..=SlidingWindowCounter::MAX_EPOCHS)
        .prop_filter_map("fits the words", |(quota, epochs)| {
            Some((quota, SlidingWindowCounter::new(quota, epochs).ok()?))
        })
}

fn limiter(counter: SlidingWindowCounter) -> Limiter<SlidingWindowCounter, Vec<AtomicU64>> {
    let ring = (0..=counter.epochs()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(counter, ring)
}

/// When a charge counts: at its time, but for a stale one, which counts in the latest epoch.
struct Counted {
    epoch_ns: u64,
    epoch_start: u64,
}

impl Counted {
    fn new(epoch_ns: u64) -> Self {
        Self { epoch_ns, epoch_start: 0 }
    }

    fn at(&mut self, now: Timestamp, cost: Cost) -> Timestamp {
        let start = now.as_nanos() / self.epoch_ns * self.epoch_ns;
        if cost > Cost::ZERO {
            self.epoch_start = self.epoch_start.max(start);
        }
        now.max(Timestamp::from_nanos(self.epoch_start))
    }
}

proptest! {
    #![proptest_config(history::cases(300))]

    #[test]
    fn agrees_with_a_count_per_epoch_step_for_step(
        (quota, counter) in counters(),
        start in history::starts(),
        calls in history::all_calls(100),
    ) {
        agrees(&limiter(counter), Epochs::new(quota, counter.epochs()), quota, start, calls)?;
    }

    #[test]
    fn never_over_in_any_window_and_denies_at_most_one_epoch_longer(
        (quota, counter) in counters(),
        start in history::starts(),
        calls in history::decisions(120),
    ) {
        let window_ns = quota.period().as_nanos() as u64;
        let epoch_ns = window_ns.div_ceil(counter.epochs() as u64);
        // `epochs` whole epochs can be longer than the window, by less than one nanosecond each.
        let slack_ns = epoch_ns * (counter.epochs() as u64 + 1) - window_ns;
        let limiter = limiter(counter);
        let mut model = Timestamps::default();
        let mut walk = Walk::new(start, quota.period());
        let mut counted = Counted::new(epoch_ns);
        for call in calls {
            let now = walk.step(call.clock);
            let cost = cost_of(call, quota.units());
            let decision = limiter.decide(cost, now);
            walk.note(now, &decision);
            match decision {
                Decision::Allow(_) => model.push(counted.at(now, cost), cost.units()),
                Decision::Deny(_) => prop_assert!(
                    model.in_window(now, window_ns + slack_ns) + cost.units() > quota.units(),
                    "denied what fits"
                ),
            }
        }
        prop_assert!(model.most_in_any_window(window_ns) <= quota.units(), "over the limit");
    }

    #[test]
    fn remaining_retry_after_and_reset_are_true(
        (quota, counter) in counters(),
        start in history::starts(),
        calls in history::all_calls(60),
    ) {
        let limiter = limiter(counter);
        let mut walk = Walk::new(start, quota.period());
        let mut open = (Cost::ZERO, start);
        for call in calls {
            let now = walk.step(call.clock);
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

    /// Refunds at once and later, into the current epoch and completed ones: never over, and what
    /// was refunded is free again.
    #[test]
    fn refunds_free_what_was_charged_and_no_more(
        (quota, counter) in counters(),
        start in history::starts(),
        calls in history::all_calls(100),
    ) {
        let window_ns = quota.period().as_nanos() as u64;
        let epoch_ns = window_ns.div_ceil(counter.epochs() as u64);
        let slack_ns = epoch_ns * (counter.epochs() as u64 + 1) - window_ns;
        let limiter = limiter(counter);
        let mut model = Timestamps::default();
        let mut walk = Walk::new(start, quota.period());
        let mut counted = Counted::new(epoch_ns);
        let (mut open, mut only_fresh) = (None, true);
        for call in calls {
            let now = walk.step(call.clock);
            match call.kind {
                Kind::Refund(share) => if let Some((index, at)) = open.take() {
                    let units: u64 = model.0[index as usize].1;
                    let refund = (u128::from(units) * u128::from(share) / 255) as u64;
                    limiter.refund(Cost::new(refund), at, now);
                    // A charge with a stale time was counted later than its time says, so its refund
                    // finds nothing, or other units, which errs toward denial.
                    only_fresh &= model.0[index as usize].0 == at;
                    model.0[index as usize].1 -= refund;
                },
                _ => {
                    let cost = cost_of(call, quota.units());
                    let decision = limiter.decide(cost, now);
                    walk.note(now, &decision);
                    if decision.is_allow() {
                        model.push(counted.at(now, cost), cost.units());
                        open = Some((model.0.len() as u64 - 1, now));
                    } else {
                        let used = model.in_window(now, window_ns + slack_ns);
                        let fits = used + cost.units() <= quota.units();
                        prop_assert!(!(fits && only_fresh), "denied what fits");
                    }
                    prop_assert!(model.most_in_any_window(window_ns) <= quota.units());
                }
            }
        }
    }
}

#[test]
fn two_bursts_around_an_epoch_boundary_stay_within_the_limit() {
    // Interpolating between two windows admits 199 of 100 here.
    let limiter = limiter(SlidingWindowCounter::new(Quota::per_minute(100), 60).unwrap());
    let end_of_minute = Timestamp::from_nanos(119_999_999_999);
    let admitted = |at| (0..200).filter(|_| limiter.decide(Cost::ONE, at).is_allow()).count();
    assert_eq!(admitted(end_of_minute), 100);
    assert_eq!(admitted(Timestamp::from_secs(120)), 0);
    assert_eq!(admitted(Timestamp::from_secs(179)), 0);
    assert_eq!(admitted(Timestamp::from_secs(180)), 100);
}

#[test]
fn debt_counts_for_one_window_like_any_unit() {
    let limiter = limiter(SlidingWindowCounter::new(Quota::per_minute(10), 6).unwrap());
    limiter.charge(Cost::new(1_000), Timestamp::from_secs(5));
    assert!(!limiter.decide(Cost::ONE, Timestamp::from_secs(69)).is_allow());
    assert!(limiter.decide(Cost::new(10), Timestamp::from_secs(70)).is_allow());
}

#[test]
fn state_fits_512_bytes_at_any_limit() {
    let counter =
        SlidingWindowCounter::new(Quota::per_day(1 << 30), SlidingWindowCounter::MAX_EPOCHS)
            .unwrap();
    let words = tidegate_core::Protocol::ring_words(&counter) + 1;
    assert!(words * 8 <= 512);
}

/// A count has room for as much debt as the limit.
#[test]
fn limits_that_do_not_fit_the_head_are_refused() {
    // The epochs of 146 years take 33 bits by seconds, and 39 by sixtieths of a second; 1 says "sealed".
    for (epochs, bits) in [(1, 30), (60, 24)] {
        let max = 1 << (bits - 1);
        let made = |units| {
            let quota = Quota::new(units, Duration::from_secs(1)).unwrap();
            SlidingWindowCounter::new(quota, epochs).map(|counter| counter.limit())
        };
        assert_eq!(made(max), Ok(max));
        assert_eq!(made(max + 1), Err(QuotaError::TooLarge { units: max + 1, max }));
    }
}
