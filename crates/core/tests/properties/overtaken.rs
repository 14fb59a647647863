//! Calls that are overtaken between two of their steps: they look again.

use std::sync::atomic::Ordering::Relaxed;

use tidegate_core::{
    Algorithm, Allowance, AtomicU64, Cell, Cost, Decision, Entry, FixedWindow, Protocol, Quota,
    SlidingWindowLog, Step, Swap, Timestamp, TokenBucket,
};

use crate::late::{Recorded, StopsAfterOne, at, counter, recorded};

/// The cell in which something happens just before it is looked at again.
struct Meanwhile<'a, F> {
    cell: &'a Recorded,
    happens: std::cell::Cell<Option<F>>,
}

impl<F: FnOnce()> Cell for Meanwhile<'_, F> {
    fn load(&self) -> Option<u64> {
        if let Some(happens) = self.happens.take() {
            happens();
        }
        self.cell.load()
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        match self.cell.load() {
            Some(current) if current != from => Swap::Changed(current),
            _ => self.cell.swap(from, to),
        }
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.cell.ring
    }
}

fn begins_again<P: Protocol + Copy>(protocol: P) {
    let shared = &recorded(&protocol);
    let head = || shared.head.load(Relaxed);
    protocol.charge(shared, head(), Cost::new(8), at(0)).unwrap();
    let meanwhile = |happens: fn(P, &Recorded)| Meanwhile {
        cell: shared,
        happens: std::cell::Cell::new(Some(move || happens(protocol, shared))),
    };
    let charges = meanwhile(|protocol, cell| {
        protocol.charge(cell, cell.head.load(Relaxed), Cost::ONE, at(1)).unwrap();
    });
    let peeked = protocol.peek(&charges, head(), Cost::ZERO, at(1)).unwrap();
    assert_eq!(peeked.remaining(), 1, "what was charged meanwhile is counted");
    let refunds = meanwhile(|protocol, cell| {
        protocol.refund(cell, cell.head.load(Relaxed), Cost::new(2), at(1), at(2)).unwrap();
        protocol.refund(cell, cell.head.load(Relaxed), Cost::new(2), at(0), at(2)).unwrap();
    });
    let decided = protocol.decide(&refunds, head(), Cost::new(3), at(2)).unwrap();
    assert!(decided.is_allow(), "what came free meanwhile can be had");
}

#[test]
fn who_is_overtaken_looks_again() {
    begins_again(counter());
    begins_again(SlidingWindowLog::new(Quota::per_minute(10)).unwrap());
}

#[test]
fn a_refund_that_an_epochs_turn_overtakes_begins_again() {
    let (counter, shared) = (counter(), recorded(&counter()));
    let head = || shared.head.load(Relaxed);
    counter.charge(&shared, head(), Cost::new(4), at(0)).unwrap();
    counter.charge(&shared, head(), Cost::ONE, at(11)).unwrap();
    let turns = Meanwhile {
        cell: &shared,
        happens: std::cell::Cell::new(Some(|| {
            counter.charge(&shared, head(), Cost::ZERO, at(21)).unwrap();
        })),
    };
    counter.refund(&turns, head(), Cost::new(3), at(0), at(21)).unwrap();
    assert_eq!(counter.peek(&shared, head(), Cost::ZERO, at(22)).unwrap().remaining(), 8);
    assert!(counter.decide(&shared, head(), Cost::new(8), at(22)).unwrap().is_allow());
}

/// The turn has added the old count up, and stopped before it opened the head: lowered now, the count would
/// stay in the sum for an epoch.
#[test]
fn a_refund_that_finds_a_turn_half_done_finishes_it_first() {
    let (counter, shared) = (counter(), recorded(&counter()));
    let head = || shared.head.load(Relaxed);
    counter.charge(&shared, head(), Cost::new(4), at(0)).unwrap();
    counter.charge(&shared, head(), Cost::ONE, at(11)).unwrap();
    let turns = Meanwhile {
        cell: &shared,
        happens: std::cell::Cell::new(Some(|| {
            let has_swapped = std::cell::Cell::new(false);
            let stops = StopsAfterOne { cell: &shared, has_swapped, at_the_ring: false };
            assert_eq!(counter.charge(&stops, head(), Cost::ZERO, at(21)), None);
        })),
    };
    counter.refund(&turns, head(), Cost::new(3), at(0), at(21)).unwrap();
    assert_eq!(counter.peek(&shared, head(), Cost::ZERO, at(22)).unwrap().remaining(), 8);
}

/// A slot that was handed over twice: who helps with the first time comes late, and times that a former key
/// recorded would count again.
#[test]
fn a_late_hand_over_does_not_go_back_behind_a_later_one() {
    let log = SlidingWindowLog::new(Quota::per_minute(2)).unwrap();
    let shared = recorded(&log);
    let head_after = |s| {
        log.charge(&shared, shared.head.load(Relaxed), Cost::ONE, at(s)).unwrap();
        shared.head.load(Relaxed)
    };
    let (first, second) = (head_after(0), head_after(300));
    let since = || shared.ring[2].load(Relaxed);
    let later = Meanwhile {
        cell: &shared,
        happens: std::cell::Cell::new(Some(|| log.prepare(&shared, second, false))),
    };
    log.prepare(&later, first, false);
    let after_both = since();
    log.prepare(&shared, second, false);
    assert_eq!(after_both, since());
    assert!(since() > 0);
}

/// Where nobody else is, a quick yes or no is what a peek says, and the cell is there.
#[test]
fn what_is_foreseen_is_what_a_peek_says() {
    fn check<P: Protocol + Copy>(protocol: P) {
        let shared = recorded(&protocol);
        let head = || shared.head.load(Relaxed);
        for (s, units) in
            [(0, 4), (5, 0), (11, 3), (11, 11), (12, 4), (12, 3), (13, 1), (61, 4), (61, 5)]
        {
            let peeked = protocol.peek(&shared, head(), Cost::new(units), at(s)).unwrap();
            let foreseen = protocol.foresee(&shared, head(), Cost::new(units), at(s));
            assert_eq!(foreseen.expect("it is there").err(), peeked.denial(), "{s} s, {units}");
            let decided = protocol.decide(&shared, head(), Cost::new(units), at(s)).unwrap();
            assert_eq!(decided.is_allow(), peeked.is_allow());
        }
    }
    check(counter());
    check(SlidingWindowLog::new(Quota::per_minute(10)).unwrap());
    check(FixedWindow::new(Quota::per_minute(10)).unwrap());
    check(TokenBucket::new(Quota::per_minute(10)).unwrap());
}

/// A protocol that says only what it must: what it does not say is as if it had.
#[derive(Clone, Copy)]
struct Plain<P>(P);

impl<P: Protocol> Protocol for Plain<P> {
    fn ring_words(&self) -> usize {
        self.0.ring_words()
    }

    fn decide<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision> {
        self.0.decide(cell, word, cost, now)
    }

    fn peek<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision> {
        self.0.peek(cell, word, cost, now)
    }

    fn charge<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        self.0.charge(cell, word, cost, now)
    }

    fn refund<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()> {
        self.0.refund(cell, word, cost, charged_at, now)
    }

    fn enter(&self, left_behind: u64, cost: Cost, now: Timestamp) -> Entry {
        self.0.enter(left_behind, cost, now)
    }

    fn prepare<C: Cell>(&self, cell: &C, word: u64, clear: bool) {
        self.0.prepare(cell, word, clear);
    }

    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        self.0.is_idle(word, now)
    }

    fn idle_at(&self, word: u64) -> Timestamp {
        self.0.idle_at(word)
    }

    fn is_settled(&self, word: u64) -> bool {
        self.0.is_settled(word)
    }
}

#[test]
fn what_a_protocol_does_not_say_is_as_if_it_had() {
    let bucket = TokenBucket::new(Quota::per_minute(10)).unwrap();
    let (plain, shared) = (Plain(bucket), recorded(&bucket));
    let head = || shared.head.load(Relaxed);
    for units in [7, 3, 1] {
        let peeked = plain.peek(&shared, head(), Cost::new(units), at(0)).unwrap();
        let foreseen = plain.foresee(&shared, head(), Cost::new(units), at(0));
        assert_eq!(foreseen.map(Result::err), Some(peeked.denial()));
        let admitted = plain.admit(&shared, head(), Cost::new(units), at(0));
        assert_eq!(admitted.map(Result::err), Some(peeked.denial()));
    }
    plain.forgive(&shared, head(), Cost::new(4), at(0)).unwrap();
    assert_eq!(plain.peek(&shared, head(), Cost::ZERO, at(0)).unwrap().remaining(), 4);
    assert_eq!(plain.idle_rank(head()), plain.idle_at(head()).as_nanos());
    assert!(plain.idle_rank(head()) > at(0).as_nanos());
}

/// The same of an algorithm: a count that nothing but a refund lowers, and that is idle from a time on.
struct Counted;

impl Algorithm for Counted {
    fn step(&self, word: u64, cost: Cost, _: Timestamp) -> Step {
        Step::Allow { word: word + cost.units(), allowance: Allowance::new(0, 0) }
    }

    fn charge(&self, word: u64, cost: Cost, _: Timestamp) -> u64 {
        word + cost.units()
    }

    fn refund(&self, word: u64, cost: Cost, _: Timestamp, _: Timestamp) -> u64 {
        word.saturating_sub(cost.units())
    }

    fn idle_at(&self, word: u64) -> Timestamp {
        Timestamp::from_nanos(word * 3)
    }
}

#[test]
fn what_an_algorithm_does_not_say_is_as_if_it_had() {
    assert_eq!(Algorithm::forgive(&Counted, 7, Cost::new(3), at(0)), 4);
    assert_eq!(Algorithm::idle_rank(&Counted, 7), 21);
    let at = Timestamp::from_nanos;
    assert!(Algorithm::is_idle(&Counted, 7, at(21)) && !Algorithm::is_idle(&Counted, 7, at(20)));
}
