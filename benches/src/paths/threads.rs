//! One limiter, two threads.

use std::hint::black_box;
use std::time::Duration;

use tidegate::core::{Lease, Limiter};
use tidegate::{Cost, Quota, Timestamp, TokenBucket};

use crate::floor::Word;
use crate::measure::{Effort, medians, on_threads};
use crate::peers;
use crate::report::{Row, Target};

const START: u64 = 1_700_000_000_000_000_000;

pub(super) fn rows(effort: Effort) -> Vec<Row> {
    let mut rows = denied(effort);
    rows.extend(hot(effort));
    rows
}

/// Denials only read, so they scale.
fn denied(effort: Effort) -> Vec<Row> {
    let spent = Limiter::new(TokenBucket::new(Quota::per_minute(1)).expect("a rate"));
    let now = Timestamp::from_nanos(START);
    assert!(spent.decide(Cost::ONE, now).is_allow());
    let ours = |_, count| {
        for _ in 0..count {
            black_box(black_box(&spent).decide(Cost::ONE, black_box(now)).is_allow());
        }
    };
    let times = medians(&mut [on_threads(2, ours), on_threads(1, ours)], effort);
    let target = Target::AtLeast(1.9);
    vec![Row::new("lone, denied, 2 threads", times[0], "1 thread", times[1], target)]
}

/// All threads charge one word.
fn hot(effort: Effort) -> Vec<Row> {
    let bucket = Limiter::new(TokenBucket::new(Quota::per_second(500_000_000)).expect("a rate"));
    let floor = Word::new(2, 1_000_000_000);
    let governor = peers::governor();
    let ours = |_, count| {
        for step in 0..count {
            let now = Timestamp::from_nanos(START + step * 10);
            black_box(black_box(&bucket).decide(Cost::ONE, now).is_allow());
        }
    };
    let bare = |_, count| {
        for step in 0..count {
            black_box(black_box(&floor).check(START + step * 10));
        }
    };
    let theirs = |_, count| {
        for _ in 0..count {
            let _ = black_box(black_box(&governor).check().is_ok());
        }
    };
    let leased = |_, count| {
        let mut lease = Lease::new(&bucket, Cost::new(64), Duration::from_millis(1));
        for step in 0..count {
            let now = Timestamp::from_nanos(START + step * 10);
            let _ = black_box(black_box(&mut lease).spend(Cost::ONE, now));
        }
    };
    let times = medians(
        &mut [
            on_threads(2, ours),
            on_threads(2, bare),
            on_threads(2, theirs),
            on_threads(2, leased),
        ],
        effort,
    );
    let path = "one hot limiter, 2 threads, exact";
    vec![
        Row::new(path, times[0], "bare CAS loop", times[1], Target::AtMost(1.1)),
        Row::new(path, times[0], "governor", times[2], Target::AtLeast(1.0)).with_floor(times[1]),
        Row::new(
            "one hot limiter, 2 threads, leases of 64",
            times[3],
            "governor",
            times[2],
            Target::AtLeast(3.5),
        )
        .with_floor(times[1]),
    ]
}
