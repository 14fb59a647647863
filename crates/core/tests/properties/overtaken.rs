//! Calls that are overtaken between two of their steps: they look again.

use std::sync::atomic::Ordering::Relaxed;

use tidegate_core::{
    AtomicU64, Cell, Cost, FixedWindow, Protocol, Quota, SlidingWindowLog, Swap, TokenBucket,
};

use crate::late::{Recorded, at, counter, recorded};

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
