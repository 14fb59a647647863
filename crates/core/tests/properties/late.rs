//! Threads that wake up when their slot has passed to another key: what they still do to the ring, which
//! is not bound to the key, changes nothing.

use tidegate_core::{
    AtomicU64, Cell, Cost, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog, Swap, Timestamp,
};

use std::sync::atomic::Ordering::Relaxed;

/// The cell of a slot that another key has now.
struct Gone<'a>(&'a [AtomicU64]);

impl Cell for Gone<'_> {
    fn load(&self) -> Option<u64> {
        None
    }

    fn swap(&self, _: u64, _: u64) -> Swap {
        Swap::Gone
    }

    fn ring(&self) -> &[AtomicU64] {
        self.0
    }
}

fn at(s: u64) -> Timestamp {
    Timestamp::from_secs(1_000_020 + s)
}

/// The ring of a key that has spent, and the words that a late thread may think its head is.
fn used<P: Protocol + Copy>(protocol: P) -> (Vec<AtomicU64>, Vec<u64>) {
    let ring: Vec<_> = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    let head = Recorded { head: AtomicU64::new(0), ring };
    let mut words = vec![0];
    for s in [0, 11, 22] {
        let word = head.head.load(Relaxed);
        let decided = protocol.decide(&head, word, Cost::new(2), at(s));
        assert!(decided.is_some_and(|decision| decision.is_allow()));
        words.push(head.head.load(Relaxed));
    }
    (head.ring, words)
}

struct Recorded {
    head: AtomicU64,
    ring: Vec<AtomicU64>,
}

impl Cell for Recorded {
    fn load(&self) -> Option<u64> {
        Some(self.head.load(Relaxed))
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        assert_eq!(self.head.swap(to, Relaxed), from, "one thread");
        Swap::Done
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.ring
    }
}

fn words_of(ring: &[AtomicU64]) -> Vec<u64> {
    ring.iter().map(|word| word.load(Relaxed)).collect()
}

fn changes_nothing<P: Protocol + Copy>(protocol: P) {
    let (ring, heads) = used(protocol);
    let before = words_of(&ring);
    for &word in &heads {
        for clear in [false, true] {
            protocol.prepare(&Gone(&ring), word, clear);
            assert_eq!(words_of(&ring), before, "prepared late");
        }
        for charged in [0, 11, 22] {
            for now in [22, 35] {
                protocol.refund(&Gone(&ring), word, Cost::ONE, at(charged), at(now));
                assert_eq!(words_of(&ring), before, "refunded late, of {charged} s");
            }
        }
    }
}

#[test]
fn a_late_helper_or_refund_changes_nothing_of_the_next_key() {
    changes_nothing(SlidingWindowCounter::new(Quota::per_minute(10), 6).unwrap());
    changes_nothing(SlidingWindowLog::new(Quota::per_minute(10)).unwrap());
    changes_nothing(SlidingWindowLog::new(Quota::per_minute(6)).unwrap());
}

/// The cell of a thread that stops for ever after its first swap: at its next look at the ring, or at its
/// next swap.
struct StopsAfterOne<'a> {
    cell: &'a Recorded,
    has_swapped: std::cell::Cell<bool>,
    at_the_ring: bool,
}

impl Cell for StopsAfterOne<'_> {
    fn load(&self) -> Option<u64> {
        self.cell.load()
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        if self.has_swapped.replace(true) { Swap::Gone } else { self.cell.swap(from, to) }
    }

    fn ring(&self) -> &[AtomicU64] {
        if self.at_the_ring && self.has_swapped.get() {
            std::panic::resume_unwind(Box::new("stopped"));
        }
        self.cell.ring()
    }
}

/// A thread whose clock is ahead seals the epoch and stops. One whose time lies in that epoch finishes
/// the turn, into a later one, and nothing is counted in the sealed epoch any more.
#[test]
fn a_stale_thread_finishes_a_turn_that_another_began_and_no_unit_is_lost() {
    for (ahead, at_the_ring) in [(11, true), (11, false), (35, true), (35, false), (61, false)] {
        let counter = SlidingWindowCounter::new(Quota::per_minute(10), 6).unwrap();
        let ring = (0..counter.ring_words()).map(|_| AtomicU64::new(0)).collect();
        let shared = Recorded { head: AtomicU64::new(0), ring };
        let head = || shared.head.load(Relaxed);
        let decide = |units, s| {
            let decision = counter.decide(&shared, head(), Cost::new(units), at(s));
            decision.expect("never gone").is_allow()
        };
        assert!(decide(4, 0));
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let has_swapped = std::cell::Cell::new(false);
            let stops = StopsAfterOne { cell: &shared, has_swapped, at_the_ring };
            counter.decide(&stops, head(), Cost::ONE, at(ahead))
        }));
        assert!(!counter.is_settled(head()), "sealed");
        assert!(!counter.is_idle(head(), Timestamp::MAX), "its slot is not given away meanwhile");

        assert_eq!(counter.peek(&shared, head(), Cost::ZERO, at(1)).unwrap().remaining(), 6);
        assert!(decide(3, 1) && decide(1, 2) && decide(1, 3));
        assert!(!decide(2, 3));
        assert!(decide(1, 12));
        assert!(!decide(1, 13) && !decide(1, 25));
        // Six of them count in the epoch from 10 s on, or in a later one.
        assert!(decide(4, 70) && !decide(1, 79));
    }
}
