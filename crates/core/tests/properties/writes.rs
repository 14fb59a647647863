//! What a call writes: nothing, where nothing changes; and what it must, though it was overtaken.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use tidegate_core::{
    AtomicU64, Cell, Cost, FixedWindow, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog,
    Swap, TokenBucket,
};

use crate::late::at;

const LIMIT: u64 = 10;

/// A cell that counts the writes to its head.
struct Counted {
    head: AtomicU64,
    ring: Vec<AtomicU64>,
    writes: AtomicU32,
}

impl Counted {
    fn new<P: Protocol>(protocol: &P) -> Self {
        let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
        Self { head: AtomicU64::new(0), ring, writes: AtomicU32::new(0) }
    }

    fn word(&self) -> u64 {
        self.head.load(Relaxed)
    }

    fn words(&self) -> Vec<u64> {
        std::iter::once(&self.head).chain(&self.ring).map(|word| word.load(Relaxed)).collect()
    }
}

impl Cell for Counted {
    fn load(&self) -> Option<u64> {
        Some(self.word())
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        self.writes.fetch_add(1, Relaxed);
        match self.head.compare_exchange(from, to, Relaxed, Relaxed) {
            Ok(_) => Swap::Done,
            Err(current) => Swap::Changed(current),
        }
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.ring
    }
}

type Call<P> = fn(&P, &Counted, u64);

/// Also not the same word again: others would have to fetch its line from this processor.
fn questions_write_nothing<P: Protocol>(protocol: P) {
    let calls: [Call<P>; 6] = [
        |protocol, cell, word| _ = protocol.peek(cell, word, Cost::ONE, at(5)),
        |protocol, cell, word| _ = protocol.foresee(cell, word, Cost::ONE, at(5)),
        |protocol, cell, word| _ = protocol.decide(cell, word, Cost::ZERO, at(5)),
        |protocol, cell, word| _ = protocol.decide(cell, word, Cost::new(LIMIT), at(5)),
        |protocol, cell, word| _ = protocol.admit(cell, word, Cost::new(LIMIT), at(5)),
        |protocol, cell, word| _ = protocol.decide(cell, word, Cost::new(LIMIT + 1), at(5)),
    ];
    let cell = Counted::new(&protocol);
    protocol.charge(&cell, 0, Cost::new(4), at(1)).unwrap();
    let (words, writes) = (cell.words(), cell.writes.load(Relaxed));
    for (index, call) in calls.iter().enumerate() {
        call(&protocol, &cell, cell.word());
        assert_eq!(cell.writes.load(Relaxed), writes, "call {index}");
        assert_eq!(cell.words(), words, "call {index}");
    }
}

#[test]
fn questions_and_denials_write_nothing() {
    let quota = Quota::per_minute(LIMIT);
    questions_write_nothing(TokenBucket::new(quota).unwrap());
    questions_write_nothing(FixedWindow::new(quota).unwrap());
    questions_write_nothing(SlidingWindowCounter::new(quota, 6).unwrap());
    questions_write_nothing(SlidingWindowLog::new(quota).unwrap());
}

/// Whoever was overtaken after it had read the head does what it would have done with the later one.
fn an_old_word_will_do<P: Protocol>(protocol: P) {
    let calls: [Call<P>; 5] = [
        |protocol, cell, word| _ = protocol.decide(cell, word, Cost::new(2), at(5)),
        |protocol, cell, word| _ = protocol.admit(cell, word, Cost::new(2), at(5)),
        |protocol, cell, word| protocol.charge(cell, word, Cost::new(2), at(5)).unwrap(),
        |protocol, cell, word| protocol.refund(cell, word, Cost::new(2), at(1), at(1)).unwrap(),
        |protocol, cell, word| protocol.forgive(cell, word, Cost::new(2), at(1)).unwrap(),
    ];
    for (index, call) in calls.iter().enumerate() {
        let left = [false, true].map(|is_overtaken| {
            let cell = Counted::new(&protocol);
            protocol.charge(&cell, 0, Cost::new(3), at(0)).unwrap();
            let before = cell.word();
            protocol.charge(&cell, before, Cost::ONE, at(1)).unwrap();
            let word = if is_overtaken { before } else { cell.word() };
            call(&protocol, &cell, word);
            let left =
                |s| protocol.peek(&cell, cell.word(), Cost::ZERO, at(s)).unwrap().remaining();
            [left(5), left(30)]
        });
        assert_eq!(left[1], left[0], "call {index}");
    }
}

#[test]
fn a_call_that_is_overtaken_after_its_first_look_is_not_lost() {
    let quota = Quota::per_minute(LIMIT);
    an_old_word_will_do(TokenBucket::new(quota).unwrap());
    an_old_word_will_do(FixedWindow::new(quota).unwrap());
    an_old_word_will_do(SlidingWindowCounter::new(quota, 6).unwrap());
    an_old_word_will_do(SlidingWindowLog::new(quota).unwrap());
}
