//! What does one decision cost when the keys of many calls are at hand at once?

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidegate::{Cost, KeyedLimiter, Quota, TokenBucket};
use tidegate_benches::keys::Uniform;

const KEYS: u64 = 1_000_000;

fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("keyed by u64, 1 M keys, in batches");
    let bucket = TokenBucket::new(Quota::per_second(500_000_000)).unwrap();
    let limiter: KeyedLimiter<u64, _> = KeyedLimiter::new(bucket, KEYS as usize);
    (0..KEYS).for_each(|key| assert!(limiter.decide(&key, Cost::ONE).is_allow()));
    let mut keys = Uniform::new(KEYS, 1);
    for size in [1, 8, 32, 128] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| {
                let keys: Vec<u64> = (0..size).map(|_| keys.key()).collect();
                let mut admitted = 0;
                black_box(&limiter).decide_each(&keys, Cost::ONE, |_, decision| {
                    admitted += u64::from(decision.is_allow());
                });
                admitted
            });
        });
    }
}

criterion_group!(benches, batch);
criterion_main!(benches);
