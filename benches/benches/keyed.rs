//! What does one decision cost when there are many keys?

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use governor::clock::{DefaultClock, QuantaInstant};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as GovernorQuota, RateLimiter};
use tidegate::{Cost, KeyedLimiter, Quota, TokenBucket};

type Store = DashMapStateStore<u64, ahash::RandomState>;
type Governor = RateLimiter<u64, Store, DefaultClock, NoOpMiddleware<QuantaInstant>>;

const COUNTS: [u64; 3] = [1_000, 100_000, 1_000_000];

/// The numbers below `count` in an order that no prefetcher foresees.
fn scattered(count: u64) -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((u128::from(state) * u128::from(count)) >> 64) as u64
    }
}

fn keyed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keyed by u64, uniform");
    for count in COUNTS {
        let bucket = TokenBucket::new(Quota::per_second(500_000_000)).unwrap();
        let limiter: KeyedLimiter<u64, _> = KeyedLimiter::new(bucket, count as usize);
        (0..count).for_each(|key| assert!(limiter.decide(&key, Cost::ONE).is_allow()));
        let mut key = scattered(count);
        group.bench_function(BenchmarkId::new("tidegate", count), |bench| {
            bench.iter(|| black_box(&limiter).decide(&key(), Cost::ONE).is_allow());
        });
        drop(limiter);

        let store = Store::default();
        let quota = GovernorQuota::per_second(NonZeroU32::MAX);
        let governor: Governor = RateLimiter::new(quota, store, DefaultClock::default());
        (0..count).for_each(|key| assert!(governor.check_key(&key).is_ok()));
        group.bench_function(BenchmarkId::new("governor with ahash", count), |bench| {
            bench.iter(|| black_box(&governor).check_key(&key()).is_ok());
        });
    }
}

criterion_group!(benches, keyed);
criterion_main!(benches);
