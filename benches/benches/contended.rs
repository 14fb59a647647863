//! What does one decision of one limiter cost when threads share it, allowed and denied?

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidegate::{Cost, Quota, Timestamp, TokenBucket};
use tidegate_benches::measure::on_threads;
use tidegate_benches::peers;
use tidegate_core::{Lease, Limiter};

const START: u64 = 1_700_000_000_000_000_000;

fn threads() -> impl Iterator<Item = u64> {
    let most = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    [1, 2, 4, 8, 16, 32, 64].into_iter().take_while(move |threads| *threads <= most)
}

/// The time that so many runs take, spread over so many threads.
fn timed(threads: u64, runs: u64, run: impl Fn(u64, u64) + Sync) -> Duration {
    let start = Instant::now();
    on_threads(threads, run)(runs);
    start.elapsed()
}

fn contended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contended, allowed");
    for threads in threads() {
        let bucket = Limiter::new(TokenBucket::new(Quota::per_second(500_000_000)).unwrap());
        let ours = |_, count| {
            for step in 0..count {
                let now = Timestamp::from_nanos(START + step * 10);
                black_box(black_box(&bucket).decide(Cost::ONE, now).is_allow());
            }
        };
        group.bench_function(BenchmarkId::new("tidegate, now given", threads), |bench| {
            bench.iter_custom(|runs| timed(threads, runs, ours));
        });
        let leased = |_, count| {
            let mut lease = Lease::new(&bucket, Cost::new(64), Duration::from_millis(1));
            for step in 0..count {
                let now = Timestamp::from_nanos(START + step * 10);
                let _ = black_box(black_box(&mut lease).spend(Cost::ONE, now));
            }
        };
        group.bench_function(BenchmarkId::new("tidegate, leases of 64", threads), |bench| {
            bench.iter_custom(|runs| timed(threads, runs, leased));
        });
        let governor = peers::governor();
        let theirs = |_, count| {
            for _ in 0..count {
                let _ = black_box(black_box(&governor).check().is_ok());
            }
        };
        group.bench_function(BenchmarkId::new("governor, with its clock", threads), |bench| {
            bench.iter_custom(|runs| timed(threads, runs, theirs));
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("contended, denied");
    for threads in threads() {
        let spent = Limiter::new(TokenBucket::new(Quota::per_minute(1)).unwrap());
        let now = Timestamp::from_nanos(START);
        assert!(spent.decide(Cost::ONE, now).is_allow());
        let ours = |_, count| {
            for _ in 0..count {
                black_box(black_box(&spent).decide(Cost::ONE, black_box(now)).is_allow());
            }
        };
        group.bench_function(BenchmarkId::new("tidegate, now given", threads), |bench| {
            bench.iter_custom(|runs| timed(threads, runs, ours));
        });
        let governor = peers::governor_spent();
        let theirs = |_, count| {
            for _ in 0..count {
                let _ = black_box(black_box(&governor).check().is_ok());
            }
        };
        group.bench_function(BenchmarkId::new("governor, with its clock", threads), |bench| {
            bench.iter_custom(|runs| timed(threads, runs, theirs));
        });
    }
}

criterion_group!(benches, contended);
criterion_main!(benches);
