//! Nothing that is called while limiting allocates.

use std::hint::black_box;
use std::time::Duration;

use allocation_counter::measure;
use tidegate_core::{
    AtomicU64, Borrowed, Cost, FixedWindow, Key, Limiter, Line, Protocol, Quota,
    SlidingWindowCounter, SlidingWindowLog, Table, Tally, Timestamp, TokenBucket,
};

/// Charges until denied, over several windows, so that all paths are taken.
fn calls(mut call: impl FnMut(u64, Cost, Timestamp)) {
    for round in 0..40 {
        let now = Timestamp::from_secs(1_000_000 + round * 13);
        for user in 0..12 {
            call(user, Cost::ONE, now);
            call(user, Cost::new(4), now);
            call(user, Cost::new(100), now);
        }
    }
}

fn allocates_nothing<P: Protocol + Copy>(protocol: P) {
    let words = protocol.ring_words();
    let ring: Vec<_> = (0..words).map(|_| AtomicU64::new(0)).collect();
    let limiter = Limiter::with_ring(protocol, ring);
    let lines: Vec<_> = (0..2).map(|_| Line::new()).collect();
    let ring: Vec<_> = (0..lines.len() * 4 * words).map(|_| AtomicU64::new(0)).collect();
    let tally = Tally::new();
    let table = Table::new(protocol, Borrowed::new(&lines, &ring, &tally)).unwrap();

    let counted = measure(|| {
        calls(|_, cost, now| {
            let _ = limiter.decide(cost, now);
            let _ = limiter.peek(cost, now);
            limiter.refund(Cost::ONE, now, now + Duration::from_secs(1));
            limiter.charge(Cost::ONE, now);
        });
        calls(|user, cost, now| {
            let key = Key::from_hash(user.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let _ = table.decide(key, cost, now);
            let _ = table.peek(key, cost, now);
            table.refund(key, Cost::ONE, now, now + Duration::from_secs(1));
            let _ = table.charge(key, Cost::ONE, now);
            let _ = table.live_keys(now);
        });
    });
    assert_eq!(counted.count_total, 0);
    assert!(tally.denied() > 0, "also when the table is full");
}

#[test]
fn no_algorithm_on_any_storage_allocates() {
    let quota = Quota::per_minute(10);
    allocates_nothing(TokenBucket::new(quota).unwrap());
    allocates_nothing(FixedWindow::new(quota).unwrap());
    allocates_nothing(SlidingWindowCounter::new(quota, 6).unwrap());
    allocates_nothing(SlidingWindowLog::new(quota).unwrap());
}

#[test]
fn the_count_would_tell() {
    assert_eq!(measure(|| drop(black_box(Box::new(1)))).count_total, 1);
}
