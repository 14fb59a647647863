//! Threads that wake up when their slot has passed to another key: what they still do to the ring, which
//! is not bound to the key, changes nothing.

use tidegate_core::{
    AtomicU64, Cell, Cost, Entry, FixedWindow, Protocol, Quota, Retry, SlidingWindowCounter,
    SlidingWindowLog, Swap, Timestamp, TokenBucket,
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

pub fn at(s: u64) -> Timestamp {
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

pub struct Recorded {
    pub head: AtomicU64,
    pub ring: Vec<AtomicU64>,
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

/// What a call on a slot that has passed on was to do is not done, and the call says so.
#[test]
fn a_call_on_a_slot_that_is_gone_says_that_nothing_was_done() {
    fn check<P: Protocol + Copy>(protocol: P) {
        let (ring, heads) = used(protocol);
        let (gone, word, now) = (Gone(&ring), *heads.last().unwrap(), at(22));
        assert_eq!(protocol.charge(&gone, word, Cost::ONE, now), None);
        assert_eq!(protocol.refund(&gone, word, Cost::ONE, now, now), None);
        assert_eq!(protocol.forgive(&gone, word, Cost::ONE, now), None);
        assert_eq!(protocol.decide(&gone, word, Cost::ONE, now), None);
        assert_eq!(protocol.admit(&gone, word, Cost::ONE, now), None);
    }
    let quota = Quota::per_minute(10);
    check(TokenBucket::new(quota).unwrap());
    check(FixedWindow::new(quota).unwrap());
    check(SlidingWindowCounter::new(quota, 6).unwrap());
    check(SlidingWindowLog::new(quota).unwrap());
}

/// A turn has filed the sealed count and moved the base. What is charged at a time in that epoch counts in
/// the next.
#[test]
fn a_charge_that_meets_a_sealed_head_is_not_lost() {
    let (counter, shared) = (counter(), recorded(&counter()));
    let head = || shared.head.load(Relaxed);
    counter.charge(&shared, head(), Cost::new(4), at(0)).unwrap();
    let has_swapped = std::cell::Cell::new(false);
    let stops = StopsAfterOne { cell: &shared, has_swapped, at_the_ring: false };
    assert_eq!(counter.charge(&stops, head(), Cost::ZERO, at(11)), None);
    counter.charge(&shared, head(), Cost::new(3), at(1)).unwrap();
    assert_eq!(counter.peek(&shared, head(), Cost::ZERO, at(12)).unwrap().remaining(), 3);
    counter.charge(&shared, head(), Cost::ZERO, at(12)).unwrap();
    let left = counter.peek(&shared, head(), Cost::ZERO, at(12)).unwrap().remaining();
    assert_eq!(left, 3, "nor when the turn is over");
}

#[test]
fn a_refund_of_the_oldest_epoch_that_counts_frees() {
    let (counter, shared) = (counter(), recorded(&counter()));
    let head = || shared.head.load(Relaxed);
    counter.charge(&shared, head(), Cost::new(4), at(0)).unwrap();
    counter.charge(&shared, head(), Cost::ZERO, at(61)).unwrap();
    counter.refund(&shared, head(), Cost::new(2), at(9), at(62)).unwrap();
    assert_eq!(counter.peek(&shared, head(), Cost::ZERO, at(62)).unwrap().remaining(), 8);
}

/// So that what a late thread of the former key does is of an earlier epoch.
#[test]
fn a_new_key_whose_clock_is_behind_enters_no_earlier_than_its_slot_was_used() {
    let counter = counter();
    let left_behind = *used(counter).1.last().unwrap();
    let Entry::Admit { word, .. } = counter.enter(left_behind, Cost::ONE, at(0)) else {
        panic!("it is new");
    };
    assert_eq!(counter.idle_rank(word), counter.idle_rank(left_behind), "the same epoch");
}

/// The cell of a thread that stops for ever after its first swap: at its next look at the ring, or at its
/// next swap.
pub struct StopsAfterOne<'a> {
    pub cell: &'a Recorded,
    pub has_swapped: std::cell::Cell<bool>,
    pub at_the_ring: bool,
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
        let foretold = counter.peek(&shared, head(), Cost::new(3), at(1));
        let told = counter.decide(&shared, head(), Cost::new(3), at(1));
        // Before the base has moved, whoever finishes the turn says where to.
        assert!(told == foretold || !at_the_ring, "{told:?} after {foretold:?}");
        assert!(decide(1, 2) && decide(1, 3));
        assert!(!decide(2, 3));
        assert!(decide(1, 12));
        assert!(!decide(1, 13) && !decide(1, 25));
        // Six of them count in the epoch from 10 s on, or in a later one.
        assert!(decide(4, 70) && !decide(1, 79));
    }
}

pub fn counter() -> SlidingWindowCounter {
    SlidingWindowCounter::new(Quota::per_minute(10), 6).unwrap()
}

pub fn recorded<P: Protocol>(protocol: &P) -> Recorded {
    let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    Recorded { head: AtomicU64::new(0), ring }
}

/// A thread seals an epoch, and wakes up when others have long finished the turn: it files nothing and
/// moves nothing any more, neither at its own time nor at a later one.
#[test]
fn a_late_helper_neither_files_a_count_again_nor_moves_the_base() {
    for late_now in [13, 35] {
        let (counter, shared) = (counter(), recorded(&counter()));
        let head = || shared.head.load(Relaxed);
        counter.charge(&shared, head(), Cost::new(4), at(0)).unwrap();
        let has_swapped = std::cell::Cell::new(false);
        let stops = StopsAfterOne { cell: &shared, has_swapped, at_the_ring: false };
        assert_eq!(counter.charge(&stops, head(), Cost::ZERO, at(11)), None);
        let sealed = head();
        assert!(!counter.is_settled(sealed));
        counter.charge(&shared, sealed, Cost::ONE, at(12)).unwrap();
        counter.refund(&shared, head(), Cost::new(2), at(0), at(13)).unwrap();
        let (before, ring) = (head(), words_of(&shared.ring));

        let late = Foreseen { cell: &shared, swapped: std::cell::Cell::default() };
        counter.charge(&late, sealed, Cost::ZERO, at(late_now));
        assert_eq!((head(), words_of(&shared.ring)), (before, ring), "{late_now}");
        assert_eq!(counter.peek(&shared, head(), Cost::ZERO, at(13)).unwrap().remaining(), 7);
    }
}

/// The cell of a thread that stops for ever at its first swap of the head, having done the rest.
struct Foreseen<'a> {
    cell: &'a Recorded,
    swapped: std::cell::Cell<Option<(u64, u64)>>,
}

impl Cell for Foreseen<'_> {
    fn load(&self) -> Option<u64> {
        self.cell.load()
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        self.swapped.set(Some((from, to)));
        Swap::Gone
    }

    fn ring(&self) -> &[AtomicU64] {
        self.cell.ring()
    }
}

/// A refund lowers its epoch's count, and comes too late to lower the base: the sum counts until the next
/// turn, and every answer says so.
#[test]
fn what_a_refund_has_freed_behind_a_turn_is_told_from_the_next_epoch_on() {
    let (counter, shared) = (counter(), recorded(&counter()));
    let head = || shared.head.load(Relaxed);
    counter.charge(&shared, head(), Cost::new(4), at(0)).unwrap();
    counter.charge(&shared, head(), Cost::ONE, at(11)).unwrap();
    let copy = Recorded {
        head: AtomicU64::new(head()),
        ring: words_of(&shared.ring).into_iter().map(AtomicU64::new).collect(),
    };
    counter.refund(&copy, head(), Cost::new(2), at(0), at(12)).unwrap();
    for (word, refunded) in shared.ring.iter().zip(words_of(&copy.ring)).take(6) {
        word.store(refunded, Relaxed);
    }

    let peek = |units, s| counter.peek(&shared, head(), Cost::new(units), at(s)).unwrap();
    assert_eq!(peek(0, 12).remaining(), 5);
    assert!(peek(5, 12).is_allow());
    let wait = |units| match peek(units, 12).denial().expect("no room").retry() {
        Retry::After(wait) => wait.as_secs(),
        Retry::Never => panic!("in time"),
    };
    // Seven fit as soon as the epoch turns, eight when the two of the first have left the window.
    assert_eq!([wait(6), wait(7), wait(8), wait(9)], [8, 8, 58, 58]);
    assert_eq!(peek(0, 19).remaining(), 5);
    assert!(!peek(7, 19).is_allow() && peek(7, 20).is_allow());
    assert!(counter.decide(&shared, head(), Cost::new(7), at(20)).unwrap().is_allow());
}

/// A thread whose clock is ahead begins an entry and stops. Who is admitted next, at an earlier time, is
/// recorded at the later one, since the entry is never lowered.
#[test]
fn an_entry_that_was_begun_is_raised_and_never_lowered() {
    let log = SlidingWindowLog::new(Quota::per_minute(2)).unwrap();
    let shared = recorded(&log);
    let head = || shared.head.load(Relaxed);
    let stops = Foreseen { cell: &shared, swapped: std::cell::Cell::default() };
    assert_eq!(log.decide(&stops, head(), Cost::ONE, at(30)), None);
    assert_eq!(log.peek(&shared, head(), Cost::ZERO, at(10)).unwrap().remaining(), 2);
    let decided = log.decide(&shared, head(), Cost::ONE, at(10)).unwrap();
    assert_eq!(decided.reset_after().as_secs(), 80, "at 30 s");
    let raised = log.decide(&shared, head(), Cost::ONE, at(40)).unwrap();
    assert_eq!(raised.reset_after().as_secs(), 60);
    // Begun at 100 s, and used at 110 s: the second window ends 60 s after that.
    assert_eq!(log.decide(&stops, head(), Cost::ONE, at(100)), None);
    assert!(log.decide(&shared, head(), Cost::ONE, at(110)).unwrap().is_allow());
    assert!(log.decide(&shared, head(), Cost::ONE, at(110)).unwrap().is_allow());
    assert!(!log.decide(&shared, head(), Cost::ONE, at(165)).unwrap().is_allow());
    assert!(log.decide(&shared, head(), Cost::ONE, at(170)).unwrap().is_allow());
}
