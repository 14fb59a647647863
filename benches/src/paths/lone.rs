//! One limiter, one thread.

use std::hint::black_box;

use tidegate::core::Limiter;
use tidegate::{Clock, CoarseClock, Cost, Quota, SystemClock, Timestamp, TokenBucket};

use crate::floor::Word;
use crate::measure::{Effort, medians};
use crate::peers;
use crate::report::{Row, Target};

/// A start that timestamps and floors can share.
const START: u64 = 1_700_000_000_000_000_000;

/// So much that it is never spent.
const PLENTY: Quota = Quota::per_second(500_000_000);

pub(super) fn rows(effort: Effort) -> Vec<Row> {
    let mut rows = now_given(effort);
    rows.extend(with_its_clock(effort));
    rows
}

fn now_given(effort: Effort) -> Vec<Row> {
    let bucket = Limiter::new(TokenBucket::new(PLENTY).expect("a rate"));
    let spent = Limiter::new(TokenBucket::new(Quota::per_minute(1)).expect("a rate"));
    let now = Timestamp::from_nanos(START);
    assert!(spent.decide(Cost::ONE, now).is_allow());
    let (floor, floor_spent) =
        (Word::new(2, 1_000_000_000), Word::new(60_000_000_000, 60_000_000_000));
    assert!(floor_spent.check(START));
    let (mut ours_at, mut floor_at) = (START, START);
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count {
                    ours_at += 10;
                    let now = Timestamp::from_nanos(ours_at);
                    black_box(black_box(&bucket).decide(Cost::ONE, now).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    floor_at += 10;
                    black_box(black_box(&floor).check(floor_at));
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&spent).decide(Cost::ONE, black_box(now)).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&floor_spent).check(black_box(START)));
                }
            }),
        ],
        effort,
    );
    vec![
        Row::new("lone, now given, allowed", times[0], "floor", times[1], Target::AtMost(1.15)),
        Row::new(
            "lone, now given, denied",
            times[2],
            "floor",
            times[3],
            Target::AtMostOrNs(1.5, 1.0),
        ),
    ]
}

fn with_its_clock(effort: Effort) -> Vec<Row> {
    let bucket = tidegate::Limiter::new(TokenBucket::new(PLENTY).expect("a rate"));
    let coarse = tidegate::Limiter::new(TokenBucket::new(PLENTY).expect("a rate"));
    let coarse = coarse.with_clock(CoarseClock::new());
    let floor = Word::new(2, 1_000_000_000);
    let clock = SystemClock::new();
    let governor = peers::governor();
    let times = medians(
        &mut [
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&bucket).decide(Cost::ONE).is_allow());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&floor).check(clock.now().as_nanos()));
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    let _ = black_box(black_box(&governor).check().is_ok());
                }
            }),
            Box::new(|count| {
                for _ in 0..count {
                    black_box(black_box(&coarse).decide(Cost::ONE).is_allow());
                }
            }),
        ],
        effort,
    );
    let path = "lone, with its clock, allowed";
    vec![
        Row::new(path, times[0], "floor", times[1], Target::AtMost(1.05)),
        Row::new(path, times[0], "governor", times[2], Target::AtLeast(0.95)).with_floor(times[1]),
        Row::new(
            "lone, coarse clock, allowed",
            times[3],
            "governor",
            times[2],
            Target::AtLeast(1.7),
        ),
    ]
}
