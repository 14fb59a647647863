//! The hot paths as plain loops, for counting their instructions: nothing but the path differs between
//! them, and between a short run and a long one.

use std::hint::black_box;

use tidegate::core::{AtomicU64, Borrowed, Key, Limiter, Line, Table, Tally};
use tidegate::{
    Clock, Cost, FakeClock, FixedWindow, KeyedLimiter, Protocol, Quota, SlidingWindowCounter,
    SlidingWindowLog, Timestamp, TokenBucket,
};

use crate::floor::Word;
use crate::keys::Uniform;

const START: u64 = 1_700_000_000_000_000_000;

/// So much that it is never spent.
const PLENTY: Quota = Quota::per_second(5_000_000);

/// A path's name, and the path: so many runs.
pub type Path = (&'static str, fn(u64));

/// All that are counted.
pub const PATHS: [Path; 13] = [
    ("nothing", |count| each(count, |now| now)),
    ("floor", floor),
    ("token bucket, allowed", |count| allowed(TokenBucket::new(PLENTY).expect("fits"), count)),
    ("token bucket, denied", |count| denied(TokenBucket::new(ONE).expect("fits"), count)),
    ("fixed window, allowed", |count| allowed(FixedWindow::new(PLENTY).expect("fits"), count)),
    ("fixed window, denied", |count| denied(FixedWindow::new(ONE).expect("fits"), count)),
    ("sliding counter, allowed", |count| {
        allowed(SlidingWindowCounter::new(PLENTY, 10).expect("fits"), count);
    }),
    ("sliding counter, denied", |count| {
        denied(SlidingWindowCounter::new(ONE, 10).expect("fits"), count);
    }),
    ("sliding log, allowed", |count| {
        allowed(SlidingWindowLog::new(Quota::per_second(50_000)).expect("fits"), count);
    }),
    ("sliding log, denied", |count| denied(SlidingWindowLog::new(ONE).expect("fits"), count)),
    ("keyed by hash, allowed", keyed_by_hash),
    ("keyed by u64, allowed", keyed_by_u64),
    ("governor, allowed", governor),
];

const ONE: Quota = Quota::per_minute(1);

fn each<T>(count: u64, mut run: impl FnMut(Timestamp) -> T) {
    for step in 0..count {
        black_box(run(Timestamp::from_nanos(START + step * 1_000)));
    }
}

fn limiter<P: Protocol>(protocol: P) -> Limiter<P, Vec<AtomicU64>> {
    let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(protocol, ring)
}

fn allowed<P: Protocol>(protocol: P, count: u64) {
    let limiter = limiter(protocol);
    each(count, |now| {
        let is_allow = black_box(&limiter).decide(Cost::ONE, now).is_allow();
        assert!(is_allow);
    });
}

fn denied<P: Protocol>(protocol: P, count: u64) {
    let limiter = limiter(protocol);
    let _ = limiter.decide(Cost::ONE, Timestamp::from_nanos(START));
    each(count, |now| {
        let is_allow = black_box(&limiter).decide(Cost::ONE, now).is_allow();
        assert!(!is_allow);
    });
}

fn floor(count: u64) {
    let word = Word::new(200, 1_000_000_000);
    each(count, |now| assert!(black_box(&word).check(now.as_nanos())));
}

const KEYS: u64 = 1_000;

fn keyed_by_hash(count: u64) {
    let lines: Vec<_> = (0..Line::for_keys(KEYS as usize)).map(|_| Line::new()).collect();
    let tally = Tally::new();
    let bucket = TokenBucket::new(PLENTY).expect("fits");
    let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).expect("fits");
    let mut hashes = Uniform::new(u64::MAX, 1);
    let keys: Vec<_> = (0..KEYS).map(|_| Key::from_hash(hashes.key())).collect();
    for key in &keys {
        let _ = table.decide(*key, Cost::ONE, Timestamp::from_nanos(START));
    }
    let mut next = 0;
    each(count, |now| {
        next = if next + 1 == keys.len() { 0 } else { next + 1 };
        assert!(black_box(&table).decide(keys[next], Cost::ONE, now).is_allow());
    });
}

fn keyed_by_u64(count: u64) {
    let bucket = TokenBucket::new(PLENTY).expect("fits");
    let clock = FakeClock::at(Timestamp::from_nanos(START));
    let limiter = KeyedLimiter::<u64, _>::new(bucket, KEYS as usize).with_clock(&clock);
    for key in 0..KEYS {
        let _ = limiter.decide(&key, Cost::ONE);
    }
    let mut keys = Uniform::new(KEYS, 1);
    each(count, |now| {
        clock.set(now);
        assert!(black_box(&limiter).decide(&keys.key(), Cost::ONE).is_allow());
    });
    let _ = clock.now();
}

fn governor(count: u64) {
    let governor = crate::peers::governor();
    each(count, |_| assert!(black_box(&governor).check().is_ok()));
}
