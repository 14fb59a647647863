//! Any calls on each algorithm, alone: its bound holds against the list of what was admitted, and
//! `retry-after`, `reset` and `remaining` are true.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
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
        Algorithm::TokenBucket => run(TokenBucket::new(quota).expect("in range"), &input, quota),
        Algorithm::FixedWindow => {
            if let Ok(window) = FixedWindow::new(quota) {
                run(window, &input, quota);
            }
        }
        Algorithm::SlidingWindowCounter { epochs } => {
            if let Ok(counter) = SlidingWindowCounter::new(quota, usize::from(epochs)) {
                run(counter, &input, quota);
            }
        }
        Algorithm::SlidingWindowLog => {
            run(SlidingWindowLog::new(quota).expect("in range"), &input, quota)
        }
    }
});

fn run<P: Protocol>(protocol: P, input: &Input, quota: Quota) {
    let ring: Vec<_> = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let sliding = matches!(
        input.algorithm,
        Algorithm::SlidingWindowCounter { .. } | Algorithm::SlidingWindowLog
    );
    let limiter = Limiter::with_ring(protocol, ring);
    let mut now = Timestamp::from_nanos(input.start >> 3); // well before the end of time
    let mut kept: Vec<(Timestamp, u64)> = Vec::new();
    let (mut stale, mut forced) = (false, false);
    for call in &input.calls {
        match *call {
            Call::Decide { step, cost } => {
                now = now + Duration::from_nanos(step.into());
                let decision = limiter.decide(Cost::new(cost.into()), now);
                if decision.is_allow() {
                    kept.push((now, cost.into()));
                }
                if !stale {
                    check(&limiter, &decision, Cost::new(cost.into()), now, quota.units());
                }
            }
            Call::Stale { back, cost } => {
                stale = true;
                let behind = Timestamp::from_nanos(now.as_nanos().saturating_sub(back.into()));
                let _ = limiter.decide(Cost::new(cost.into()), behind);
            }
            Call::Refund { step, part } => {
                now = now + Duration::from_nanos(step.into());
                if let Some((at, units)) = kept.last_mut() {
                    let refund = (*units).min(part.into());
                    limiter.refund(Cost::new(refund), *at, now);
                    *units -= refund;
                }
            }
            Call::Charge { step, cost } => {
                forced |= cost > 0;
                now = now + Duration::from_nanos(step.into());
                limiter.charge(Cost::new(cost.into()), now);
            }
        }
        if sliding && !forced {
            let period = quota.period();
            for (from, _) in &kept {
                let inside = kept.iter().filter(|(at, _)| at >= from && at.since(*from) < period);
                let sum: u64 = inside.map(|(_, units)| units).sum();
                assert!(sum <= quota.units(), "{sum} of {}", quota.units());
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
