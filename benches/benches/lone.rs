//! What does one decision of one limiter cost, allowed and denied?

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use governor::{Quota as GovernorQuota, RateLimiter};
use tidegate::{Cost, FixedWindow, Quota, SlidingWindowCounter, SlidingWindowLog, TokenBucket};
use tidegate_core::{AtomicU64, Limiter, Protocol, Timestamp};

/// So much that it is never spent.
const PLENTY: Quota = Quota::per_second(500_000_000);

fn ring<P: Protocol>(protocol: &P) -> Vec<AtomicU64> {
    (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect()
}

/// A clock that moves on with each call, read for free.
fn ticking(step_ns: u64) -> impl FnMut() -> Timestamp {
    let mut nanos = 1_700_000_000_000_000_000;
    move || {
        nanos += step_ns;
        Timestamp::from_nanos(nanos)
    }
}

fn allowed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lone, allowed");
    let limiter = Limiter::new(TokenBucket::new(PLENTY).unwrap());
    let mut now = ticking(1_000);
    group.bench_function("token bucket, now given", |bench| {
        bench.iter(|| black_box(&limiter).decide(Cost::ONE, now()).is_allow());
    });
    let limiter = Limiter::new(FixedWindow::new(PLENTY).unwrap());
    group.bench_function("fixed window, now given", |bench| {
        bench.iter(|| black_box(&limiter).decide(Cost::ONE, now()).is_allow());
    });
    let counter = SlidingWindowCounter::new(Quota::per_second(2_000_000), 30).unwrap();
    let limiter = Limiter::with_ring(counter, ring(&counter));
    group.bench_function("sliding window counter, now given", |bench| {
        bench.iter(|| black_box(&limiter).decide(Cost::ONE, now()).is_allow());
    });
    let log = SlidingWindowLog::new(Quota::new(1_000, Duration::from_millis(1)).unwrap()).unwrap();
    let limiter = Limiter::with_ring(log, ring(&log));
    group.bench_function("sliding window log, now given", |bench| {
        bench.iter(|| black_box(&limiter).decide(Cost::ONE, now()).is_allow());
    });
    let limiter = tidegate::Limiter::new(TokenBucket::new(PLENTY).unwrap());
    group.bench_function("token bucket, with its clock", |bench| {
        bench.iter(|| black_box(&limiter).decide(Cost::ONE).is_allow());
    });
    let governor = RateLimiter::direct(GovernorQuota::per_second(NonZeroU32::MAX));
    group.bench_function("governor, with its clock", |bench| {
        bench.iter(|| black_box(&governor).check().is_ok());
    });
}

fn denied(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lone, denied");
    let now = Timestamp::from_secs(1_700_000_000);
    let limiter = Limiter::new(TokenBucket::new(Quota::per_minute(1)).unwrap());
    assert!(limiter.decide(Cost::ONE, now).is_allow());
    group.bench_function("token bucket, now given", |bench| {
        bench.iter(|| black_box(&limiter).decide(Cost::ONE, black_box(now)).is_allow());
    });
    let governor = RateLimiter::direct(GovernorQuota::per_hour(NonZeroU32::MIN));
    let _ = governor.check();
    group.bench_function("governor, with its clock", |bench| {
        bench.iter(|| black_box(&governor).check().is_ok());
    });
}

criterion_group!(benches, allowed, denied);
criterion_main!(benches);
