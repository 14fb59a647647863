//! A table as people look at it: its live keys, and whether it is sound.

use super::mend::is_one_key;
use super::set;
use super::slot::{self, SLOTS, SlotCell};
use super::{Line, Storage, Table};
use crate::protocol::Protocol;
use crate::{Cost, Decision, Timestamp};

/// A live key of a [`Table`], which the table knows by its fingerprint only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveKey {
    /// The low 46 bits of the key's hash.
    pub fingerprint: u64,
    /// How it stands: what a peek at a cost of zero tells.
    pub standing: Decision,
}

/// What a slot of a sound [`Table`] cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Two slots are live for one key, of which the second is never found. (Of two keys that share a
    /// fingerprint and a set, one in 2^37 pairs in a set, the table knows only one.)
    TwoSlots {
        /// The first slot.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A key that is not idle again until after the time that was asked about.
    TooLate {
        /// The slot.
        slot: usize,
        /// When it is idle.
        idle_at: Timestamp,
    },
}

impl<P: Protocol, S: Storage> Table<P, S> {
    /// Tells of each live key (not idle) how it stands at `now`. Looks at every slot, and writes nothing.
    pub fn each_live(&self, now: Timestamp, mut each: impl FnMut(LiveKey)) {
        for (index, slot) in self.storage.lines().iter().flat_map(Line::slots).enumerate() {
            let head = slot::load(slot);
            if !head.is_live() || self.protocol.is_idle(head.word, now) {
                continue;
            }
            let Some(ring) = self.ring(index) else { continue };
            let cell = SlotCell::new(slot, head.tag, ring);
            // `None` when it changes hands just now.
            if let Some(standing) = self.protocol.peek(&cell, head.word, Cost::ZERO, now) {
                each(LiveKey { fingerprint: slot::key_bits(head), standing });
            }
        }
    }

    /// Tells what no call leaves behind, wherever its thread or process stops: two live slots of one key,
    /// and keys that are not idle again until after `latest`. Looks at every slot while nobody else
    /// writes; otherwise, a key that moves between slots may be told of.
    pub fn verify(&self, latest: Timestamp, mut each: impl FnMut(Fault)) {
        let lines = self.storage.lines();
        for first_line in (0..self.whole_sets).step_by(set::LINES) {
            let (first, end) = set::set_of(first_line, self.whole_sets);
            let slots = || lines[first..end].iter().flat_map(Line::slots).enumerate();
            for (index, slot) in slots() {
                let (index, head) = (first * SLOTS + index, slot::load(slot));
                if !head.is_live() {
                    continue;
                }
                let idle_at = self.protocol.idle_at(head.word);
                if idle_at > latest {
                    each(Fault::TooLate { slot: index, idle_at });
                }
                for (other, slot) in slots().skip(index - first * SLOTS + 1) {
                    if is_one_key(head, slot::load(slot)) {
                        each(Fault::TwoSlots { first: index, second: first * SLOTS + other });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::vec::Vec;

    use super::slot::Head;
    use super::*;
    use crate::sync::AtomicU64;
    use crate::{
        Algorithm, Borrowed, FixedWindow, Key, Quota, SlidingWindowCounter, Tally, TokenBucket,
    };

    /// Three sets, so that there is a first, a middle and a last.
    const LINES: usize = 3 * set::LINES;
    const SET: usize = set::LINES * SLOTS;

    fn lines() -> Vec<Line> {
        (0..LINES).map(|_| Line::new()).collect()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    /// A key whose search begins in the middle of a set.
    fn key(set: u64) -> Key {
        Key::from_hash(u64::MAX / 3 * set + u64::MAX / 6)
    }

    fn slot(lines: &[Line], index: usize) -> &crate::sync::AtomicU128 {
        &lines[index / SLOTS].slots()[index % SLOTS]
    }

    /// The only slot that is live.
    fn live_slot(lines: &[Line]) -> usize {
        let mut live = (0..lines.len() * SLOTS).filter(|at| slot::load(slot(lines, *at)).is_live());
        let found = live.next().expect("a live slot");
        assert_eq!(live.next(), None);
        found
    }

    /// Charges one unit at a time, as a table that is written at one time and another.
    struct Charged<'a, A: Algorithm> {
        table: Table<A, Borrowed<'a>>,
        lines: &'a [Line],
        key: Key,
    }

    impl<A: Algorithm> Charged<'_, A> {
        /// The key's head with so many more units charged.
        fn head(&self, units: u64) -> Head {
            assert!(self.table.decide(self.key, Cost::new(units), at(0)).is_allow());
            slot::load(slot(self.lines, live_slot(self.lines)))
        }
    }

    fn faults<A: Algorithm>(table: &Table<A, Borrowed<'_>>, latest: Timestamp) -> Vec<Fault> {
        let mut faults = Vec::new();
        table.verify(latest, |fault| faults.push(fault));
        faults
    }

    /// The last slot of the set has the stale one.
    const TO_END: (bool, usize) = (false, SET);

    /// In each set, at each distance, whichever of the two is the stale one.
    fn the_stale_slot_is_given_up<A: Algorithm + Copy>(algorithm: A) {
        for (set, (stale_is_first, distance)) in (0..3).flat_map(|set| {
            [
                (set, (true, 1)),
                (set, (true, 5)),
                (set, (false, 1)),
                (set, (false, 4)),
                (set, TO_END),
            ]
        }) {
            let (lines, tally) = (lines(), Tally::new());
            let table = Table::new(algorithm, Borrowed::new(&lines, &[], &tally)).unwrap();
            let charged = Charged { table, lines: &lines, key: key(set) };
            let older = charged.head(1);
            let newer = charged.head(2);
            let first = live_slot(&lines);
            // Not beyond the last of its set.
            let second = (first / SET * SET + SET - 1).min(first + distance);
            assert_eq!((first / SET, second / SET), (set as usize, set as usize));
            let heads = if stale_is_first { [older, newer] } else { [newer, older] };
            slot::swap(slot(&lines, first), newer, heads[0]).unwrap();
            slot::swap(slot(&lines, second), Head { tag: 0, word: 0 }, heads[1]).unwrap();

            let table = charged.table;
            assert_eq!(faults(&table, Timestamp::MAX), [Fault::TwoSlots { first, second }]);
            assert_eq!(table.live_keys(at(0)), 2);
            assert_eq!(table.mend(at(0)), 1);
            assert_eq!(live_slot(&lines), if stale_is_first { second } else { first });
            assert_eq!(faults(&table, Timestamp::MAX), []);
            assert_eq!(table.mend(at(0)), 0, "it is sound");
            assert_eq!(table.live_keys(at(0)), 1);
        }
    }

    #[test]
    fn of_two_slots_of_a_key_the_one_that_is_idle_sooner_is_given_up() {
        the_stale_slot_is_given_up(TokenBucket::new(Quota::per_minute(6)).unwrap());
    }

    #[test]
    fn of_two_slots_that_are_idle_at_one_time_the_one_with_more_left_is_given_up() {
        the_stale_slot_is_given_up(FixedWindow::new(Quota::per_minute(6)).unwrap());
    }

    /// Both have the same head, so it is told by what lies beside it.
    #[test]
    fn of_two_slots_with_one_head_the_one_with_less_in_its_ring_is_given_up() {
        let counter = SlidingWindowCounter::new(Quota::per_minute(10), 6).unwrap();
        let words = LINES * SLOTS * counter.ring_words();
        let ring: Vec<_> = (0..words).map(|_| AtomicU64::new(0)).collect();
        for set in 0..3 {
            let (lines, tally) = (lines(), Tally::new());
            let table = Table::new(counter, Borrowed::new(&lines, &ring, &tally)).unwrap();
            for (units, seconds) in [(3, 0), (1, 15)] {
                assert!(table.decide(key(set), Cost::new(units), at(seconds)).is_allow());
            }
            let whole = live_slot(&lines);
            let head = slot::load(slot(&lines, whole));
            slot::swap(slot(&lines, whole - 1), Head { tag: 0, word: 0 }, head).unwrap();
            assert_eq!(table.mend(at(15)), 1);
            assert_eq!(live_slot(&lines), whole, "set {set}");
            assert_eq!(table.peek(key(set), Cost::ZERO, at(15)).remaining(), 6);
        }
    }

    #[test]
    fn keys_that_are_live_are_told_and_those_that_are_idle_or_being_claimed_are_not() {
        let (lines, tally) = (lines(), Tally::new());
        let bucket = TokenBucket::new(Quota::per_minute(6)).unwrap();
        let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
        // Ten seconds a unit: idle after 10, 20, 30 s.
        for set in 0..3 {
            assert!(table.decide(key(set), Cost::new(set + 1), at(0)).is_allow());
        }
        let told = |seconds| {
            let mut told = Vec::new();
            table.each_live(at(seconds), |key| {
                told.push((key.fingerprint, key.standing.remaining()))
            });
            assert_eq!(table.live_keys(at(seconds)), told.len());
            told
        };
        let bits = |set| key(set).hash() & ((1 << 46) - 1);
        assert_eq!(told(0), [(bits(0), 5), (bits(1), 4), (bits(2), 3)]);
        assert_eq!(told(15), [(bits(1), 5), (bits(2), 4)]);
        assert_eq!(told(30), []);

        // A claim is no live key yet.
        let (lines, tally) = (&lines[..1], Tally::new());
        let word = 2 * at(60).as_nanos(); // in ticks
        let claim = Head { tag: 0, word: 0 }.claimed(slot::fingerprint(key(0)), word, false);
        assert!(!Algorithm::is_idle(&bucket, word, at(0)));
        slot::swap(slot(lines, 0), Head { tag: 0, word: 0 }, claim).unwrap();
        let table = Table::new(bucket, Borrowed::new(lines, &[], &tally)).unwrap();
        assert_eq!(table.live_keys(at(0)), 0);
        table.each_live(at(0), |key| panic!("{key:?} is not live"));
        assert_eq!(faults(&table, Timestamp::ZERO), []);
    }

    #[test]
    fn a_key_that_is_idle_too_late_is_told_with_its_slot() {
        let (lines, tally) = (lines(), Tally::new());
        let bucket = TokenBucket::new(Quota::per_minute(6)).unwrap();
        let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
        assert!(table.decide(key(1), Cost::new(2), at(0)).is_allow());
        let slot = live_slot(&lines);
        assert!((SET..2 * SET).contains(&slot));
        assert_eq!(faults(&table, at(20)), []);
        let early = Timestamp::from_nanos(at(20).as_nanos() - 1);
        assert_eq!(faults(&table, early), [Fault::TooLate { slot, idle_at: at(20) }]);
    }
}
