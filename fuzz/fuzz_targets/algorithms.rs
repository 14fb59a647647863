//! Any calls on each algorithm, alone: it decides as its plain model does, and `retry-after`, `reset`
//! and `remaining` are true.
#![no_main]

#[path = "../../crates/core/tests/models/mod.rs"]
mod models;

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use models::{Epochs, ExactBucket, Model, Queue, Windows};
use tidegate_core::{
    AtomicU64, Cost, FixedWindow, Limiter, Protocol, Quota, Retry, SlidingWindowCounter,
    SlidingWindowLog, Timestamp, TokenBucket,
};

#[derive(Arbitrary, Debug)]
struct Input {
    algorithm: Algorithm,
    units: u8,
    period: u32,
    start: u64,
    calls: Vec<Call>,
}

#[derive(Arbitrary, Debug)]
enum Algorithm {
    TokenBucket,
    FixedWindow,
    SlidingWindowCounter { epochs: u8 },
    SlidingWindowLog,
}

#[derive(Arbitrary, Debug)]
enum Call {
    Decide { step: u32, cost: u8 },
    Stale { back: u32, cost: u8 },
    Refund { step: u32, part: u8 },
    Charge { step: u32, cost: u8 },
}

fuzz_target!(|input: Input| {
    let units = u64::from(input.units).max(1);
    let period_ns = u64::from(input.period).max(units);
    let quota = Quota::new(units, Duration::from_nanos(period_ns)).expect("in range");
    match input.algorithm {
        Algorithm::TokenBucket => {
            let bucket = TokenBucket::new(quota).expect("in range");
            // The bucket is exact where a unit takes whole or half nanoseconds.
            let model = ExactBucket::new(quota, units);
            run(bucket, model, (2 * period_ns).is_multiple_of(units), &input, quota);
        }
        Algorithm::FixedWindow => {
            if let Ok(window) = FixedWindow::new(quota) {
                run(window, Windows::new(quota), true, &input, quota);
            }
        }
        Algorithm::SlidingWindowCounter { epochs } => {
            if let Ok(counter) = SlidingWindowCounter::new(quota, usize::from(epochs)) {
                run(counter, Epochs::new(quota, epochs.into()), true, &input, quota);
            }
        }
        Algorithm::SlidingWindowLog => {
            // After a refund, a stale time is told less than there is.
            let is_exact = !input.calls.iter().any(|call| matches!(call, Call::Stale { .. }));
            let log = SlidingWindowLog::new(quota).expect("in range");
            run(log, Queue::new(quota), is_exact, &input, quota);
        }
    }
});

fn run<P: Protocol>(protocol: P, mut model: impl Model, exact: bool, input: &Input, quota: Quota) {
    let ring: Vec<_> = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let limiter = Limiter::with_ring(protocol, ring);
    let mut now = Timestamp::from_nanos(input.start >> 3); // well before the end of time
    let mut last: Option<(Timestamp, Cost)> = None;
    let mut stale = false;
    // A quarter of a thousand units each, so the counts stop before the end of their fields.
    for call in input.calls.iter().take(200) {
        let mut decide = |cost: Cost, now: Timestamp, stale: bool| {
            let decision = limiter.decide(cost, now);
            if exact {
                assert_eq!(decision.is_allow(), model.decide(cost, now), "{cost:?} at {now:?}");
                assert_eq!(decision.remaining(), model.remaining(now));
            }
            if !stale {
                check(&limiter, &decision, cost, now, quota.units());
            }
            if decision.is_allow() {
                last = Some((now, cost));
            }
        };
        match *call {
            Call::Decide { step, cost } => {
                now = now + Duration::from_nanos(step.into());
                decide(Cost::new(cost.into()), now, stale);
            }
            Call::Stale { back, cost } => {
                stale = true;
                let behind = Timestamp::from_nanos(now.as_nanos().saturating_sub(back.into()));
                decide(Cost::new(cost.into()), behind, stale);
            }
            Call::Refund { step, part } => {
                now = now + Duration::from_nanos(step.into());
                if let Some((at, units)) = last.take() {
                    let refund = units.min(Cost::new(part.into()));
                    limiter.refund(refund, at, now);
                    model.refund(refund, at, now);
                }
            }
            Call::Charge { step, cost } => {
                now = now + Duration::from_nanos(step.into());
                let cost = Cost::new(u64::from(cost).min(quota.units()));
                limiter.charge(cost, now);
                model.charge(cost, now);
            }
        }
    }
}

fn check<P: Protocol>(
    limiter: &Limiter<P, Vec<AtomicU64>>,
    decision: &tidegate_core::Decision,
    cost: Cost,
    now: Timestamp,
    capacity: u64,
) {
    let fits = |units: u64, at: Timestamp| limiter.peek(Cost::new(units), at).is_allow();
    let before = |at: Timestamp| Timestamp::from_nanos(at.as_nanos() - 1);
    let remaining = decision.remaining();
    assert!(remaining == 0 || fits(remaining, now));
    assert!(!fits(remaining + 1, now));
    let full_at = now + decision.reset_after();
    assert!(fits(capacity, full_at));
    assert!(full_at == now || !fits(capacity, before(full_at)));
    if let Some(Retry::After(wait)) = decision.denial().map(|denial| denial.retry()) {
        assert!(wait > Duration::ZERO);
        assert!(fits(cost.units(), now + wait));
        assert!(!fits(cost.units(), before(now + wait)));
    }
}
