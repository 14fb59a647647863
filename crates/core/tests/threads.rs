//! Real threads, a frozen clock: exactly the limit is admitted, every time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64 as Count, Ordering};

use tidegate_core::{
    AtomicU64, Borrowed, Cost, Decision, FixedWindow, Key, Limiter, Line, Protocol, Quota,
    SlidingWindowCounter, SlidingWindowLog, Table, Tally, Timestamp, TokenBucket,
};

const THREADS: usize = 16;
const CALLS: usize = 10_000;
const LIMIT: u64 = 1_000;

/// Calls `decide` from all threads at once, and counts what was admitted.
fn storm(decide: impl Fn(usize) -> Decision + Sync) -> u64 {
    let (start, admitted) = (Barrier::new(THREADS), Count::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                let allowed = (0..CALLS).filter(|call| decide(*call).is_allow()).count();
                admitted.fetch_add(allowed as u64, Ordering::Relaxed); // read after the join
            });
        }
    });
    admitted.into_inner()
}

fn ring(words: usize) -> Vec<AtomicU64> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn exact_alone_and_keyed<P: Protocol + Copy + Sync>(protocol: P) {
    let now = Timestamp::from_secs(1_700_000_000);
    let words = protocol.ring_words();
    let limiter = Limiter::with_ring(protocol, ring(words));
    assert_eq!(storm(|_| limiter.decide(Cost::ONE, now)), LIMIT, "alone");

    const KEYS: usize = 7;
    let lines: Vec<_> = (0..Line::for_keys(KEYS)).map(|_| Line::new()).collect();
    let (ring, tally) = (ring(lines.len() * 4 * words), Tally::new());
    let table = Table::new(protocol, Borrowed::new(&lines, &ring, &tally)).unwrap();
    let key = |call| Key::from_hash(((call % KEYS) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let admitted = storm(|call| table.decide(key(call), Cost::ONE, now));
    assert_eq!(admitted, LIMIT * KEYS as u64, "keyed");
    assert_eq!(table.live_keys(now), KEYS, "one slot for each key");
}

#[test]
fn a_token_bucket_admits_exactly_its_burst() {
    exact_alone_and_keyed(TokenBucket::new(Quota::per_minute(LIMIT)).unwrap());
}

#[test]
fn a_token_bucket_of_an_uneven_rate_admits_exactly_its_burst() {
    let bucket = TokenBucket::new(Quota::per_minute(7_777)).unwrap();
    exact_alone_and_keyed(bucket.with_burst(LIMIT).unwrap());
}

#[test]
fn a_fixed_window_admits_exactly_its_limit() {
    exact_alone_and_keyed(FixedWindow::new(Quota::per_day(LIMIT)).unwrap());
}

#[test]
fn a_sliding_window_counter_admits_exactly_its_limit() {
    exact_alone_and_keyed(SlidingWindowCounter::new(Quota::per_minute(LIMIT), 60).unwrap());
}

#[test]
fn a_sliding_window_log_admits_exactly_its_limit() {
    exact_alone_and_keyed(SlidingWindowLog::new(Quota::per_minute(LIMIT)).unwrap());
}

/// Time moves on while the threads call: each sees its own, and all epochs turn under contention.
#[test]
fn windows_that_turn_under_contention_hold_their_limit() {
    let quota = Quota::new(100, std::time::Duration::from_micros(1)).unwrap();
    let counter = SlidingWindowCounter::new(quota, 4).unwrap();
    let limiter = Limiter::with_ring(counter, ring(5));
    let clock = Count::new(0);
    let times = std::sync::Mutex::new(Vec::new());
    let admitted = storm(|_| {
        let now = Timestamp::from_nanos(clock.fetch_add(1, Ordering::SeqCst)); // a clock for all
        let decision = limiter.decide(Cost::ONE, now);
        if decision.is_allow() {
            times.lock().unwrap().push(now.as_nanos());
        }
        decision
    });
    let mut times = times.into_inner().unwrap();
    times.sort_unstable();
    assert_eq!(times.len() as u64, admitted);
    // A call that is overtaken between its clock and its decision counts later than its time says:
    // in any window, at most one of each thread.
    let most = 100 + THREADS;
    let span = times.windows(most + 1).map(|span| span[most] - span[0]).min().unwrap();
    assert!(span >= 1_000, "{} in {span} ns", most + 1);
}
