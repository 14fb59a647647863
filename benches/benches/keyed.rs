//! What does one decision cost when there are many keys, called evenly or a few of them mostly?

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::{Cost, KeyedLimiter, Quota, TokenBucket};
use tidegate_benches::keys::{Uniform, Zipf};
use tidegate_benches::peers::{GovernorKeyed, governor_keyed};

const COUNTS: [u64; 4] = [1_000, 100_000, 1_000_000, 10_000_000];

fn keyed(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keyed by u64");
    for count in COUNTS {
        let bucket = TokenBucket::new(Quota::per_second(500_000_000)).unwrap();
        let limiter: KeyedLimiter<u64, _> = KeyedLimiter::new(bucket, count as usize);
        (0..count).for_each(|key| assert!(limiter.decide(&key, Cost::ONE).is_allow()));
        let mut key = Uniform::new(count, 1);
        group.bench_function(BenchmarkId::new("tidegate, uniform", count), |bench| {
            bench.iter(|| black_box(&limiter).decide(&key.key(), Cost::ONE).is_allow());
        });
        let mut key = Zipf::new(count);
        group.bench_function(BenchmarkId::new("tidegate, Zipf", count), |bench| {
            bench.iter(|| black_box(&limiter).decide(&key.key(), Cost::ONE).is_allow());
        });
        drop(limiter);

        let governor: GovernorKeyed<u64, ahash::RandomState> = governor_keyed(0..count);
        let mut key = Uniform::new(count, 1);
        group.bench_function(BenchmarkId::new("governor with ahash, uniform", count), |bench| {
            bench.iter(|| black_box(&governor).check_key(&key.key()).is_ok());
        });
        let mut key = Zipf::new(count);
        group.bench_function(BenchmarkId::new("governor with ahash, Zipf", count), |bench| {
            bench.iter(|| black_box(&governor).check_key(&key.key()).is_ok());
        });
    }
}

criterion_group!(benches, keyed);
criterion_main!(benches);
