//! The sliding windows.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidegate::core::{AtomicU64, Limiter};
use tidegate::{
    Cost, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog, Timestamp, TokenBucket,
};

use crate::measure::{Effort, Entrant, medians};
use crate::peers::NaiveLog;
use crate::report::{Row, Target};

const START: u64 = 1_700_000_000_000_000_000;

fn limiter<P: Protocol>(protocol: P) -> Limiter<P, Vec<AtomicU64>> {
    let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(protocol, ring)
}

/// A limiter whose clock moves on by `step_ns` with each call.
fn moving<P: Protocol + 'static>(protocol: P, step_ns: u64) -> Entrant<'static> {
    let limiter = limiter(protocol);
    let mut at = START;
    Box::new(move |count| {
        for _ in 0..count {
            at += step_ns;
            let now = Timestamp::from_nanos(at);
            black_box(black_box(&limiter).decide(Cost::ONE, now).is_allow());
        }
    })
}

/// A log that is always full, and each call takes the place of one that has just expired. Asked for a yes
/// or a no, as the mutex and queue are.
fn full_log(limit: u64) -> Entrant<'static> {
    let quota = Quota::new(limit, Duration::from_nanos(limit * 100)).expect("a quota");
    let log = limiter(SlidingWindowLog::new(quota).expect("a log"));
    let mut at = START;
    Box::new(move |count| {
        for _ in 0..count {
            at += 100;
            let _ = black_box(black_box(&log).admit(Cost::ONE, Timestamp::from_nanos(at)));
        }
    })
}

fn full_naive_log(limit: usize) -> Entrant<'static> {
    let log = NaiveLog::new(limit, Duration::from_nanos(limit as u64 * 100));
    let mut now = Instant::now();
    Box::new(move |count| {
        for _ in 0..count {
            now += Duration::from_nanos(100);
            black_box(black_box(&log).check(now));
        }
    })
}

pub(super) fn rows(effort: Effort) -> Vec<Row> {
    let quota = Quota::new(8_000_000, Duration::from_millis(700)).expect("a quota");
    let counter = |epochs| SlidingWindowCounter::new(quota, epochs).expect("a counter");
    let bucket = TokenBucket::new(Quota::per_second(500_000_000)).expect("a rate");
    let times = medians(
        &mut [
            moving(bucket, 10),
            moving(counter(1), 200),
            moving(counter(10), 200),
            moving(counter(60), 200),
            full_log(10),
            full_log(1_000),
            full_log(100_000),
            full_naive_log(1_000),
        ],
        effort,
    );
    let (bucket, limit) = (times[0], Target::AtMost(1.3));
    vec![
        Row::new("sliding counter, 1 epoch", times[1], "token bucket", bucket, limit),
        Row::new("sliding counter, 10 epochs", times[2], "token bucket", bucket, limit),
        Row::new("sliding counter, 60 epochs", times[3], "token bucket", bucket, limit),
        Row::new("sliding log, limit 100,000", times[6], "limit 10", times[4], Target::AtMost(1.5)),
        Row::new(
            "sliding log, limit 1,000",
            times[5],
            "mutex and queue",
            times[7],
            Target::AtLeast(2.5),
        ),
    ]
}
