//! Sets: where a key may lie, and the search for it.

use super::slot::{self, Head, Line, SLOTS};
use crate::protocol::Protocol;
use crate::sync::AtomicU128;
use crate::{Key, Timestamp};

/// Lines to a set, in a table that has more than one set.
///
/// Large sets run full late: 256 slots loaded to 80% overflow in fewer than one of a million. Keys
/// are searched from their home line on and lie near it, so a set's size is paid for only by the
/// search for a key that is not there.
pub(super) const LINES: usize = 64;

impl Line {
    /// How many lines hold `keys` live keys: at a load of 80%, where the odds that a set runs full are
    /// negligible. Above one set, whole sets of 64 lines.
    #[must_use]
    pub const fn for_keys(keys: usize) -> usize {
        let lines = keys.saturating_add(keys.div_ceil(4)).div_ceil(SLOTS);
        match lines {
            0 => 1,
            1..=LINES => lines,
            _ => lines.div_ceil(LINES) * LINES,
        }
    }
}

/// The slots that a key may lie in, in the order in which they are searched.
pub(super) struct Set<'a> {
    lines: &'a [Line],
    /// The index of the set's first slot in the table.
    first: usize,
    /// The line to start from.
    home: usize,
    fingerprint: u64,
}

/// A slot, by its index in the set, and the head that was read there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) index: usize,
    pub(super) head: Head,
}

impl Seen {
    #[inline]
    pub(super) const fn word(self) -> u64 {
        self.head.word
    }
}

/// What the search for a key found.
pub(super) enum Found {
    Live(Seen),
    Tentative(Seen),
    Absent,
}

/// Where a new key can go.
pub(super) enum Place {
    /// Into a slot that is empty or idle.
    Free(Seen),
    /// Nowhere. `claim` is a slot that is being claimed for some key, `nearest` the live one that is
    /// nearest to idle.
    Full { claim: Option<Seen>, nearest: Option<Seen> },
}

impl<'a> Set<'a> {
    #[inline]
    pub(super) fn of(lines: &'a [Line], key: Key) -> Self {
        // The high bits of the hash pick the line, the low ones are the fingerprint.
        let whole_sets = if lines.len() > LINES { lines.len() & !(LINES - 1) } else { lines.len() };
        let line = ((key.hash() as u128 * whole_sets as u128) >> 64) as usize;
        let first = line & !(LINES - 1);
        let lines = &lines[first..(first + LINES).min(whole_sets)];
        Self {
            lines,
            first: first * SLOTS,
            home: line - first,
            fingerprint: slot::fingerprint(key),
        }
    }

    #[inline]
    pub(super) const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The index in the table of a slot of this set.
    #[inline]
    pub(super) const fn absolute(&self, index: usize) -> usize {
        self.first + index
    }

    #[inline]
    pub(super) fn slot(&self, index: usize) -> &'a AtomicU128 {
        &self.lines[index / SLOTS].slots()[index % SLOTS]
    }

    /// The slots as they are, from the home line on and around.
    #[inline]
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> {
        let lines = (self.home..self.lines.len()).chain(0..self.home);
        lines.flat_map(move |line| {
            (0..SLOTS).map(move |slot| {
                let head = slot::load(&self.lines[line].slots()[slot]);
                Seen { index: line * SLOTS + slot, head }
            })
        })
    }

    /// Looks for the key's slot, no further than to the first that was never used. A key lies before
    /// it: whoever placed the key took the first slot that was free, and a slot that is unused now was
    /// free then.
    ///
    /// A live slot counts before a tentative one, which may be about to be given up for it.
    #[inline(always)]
    pub(super) fn find(&self) -> Found {
        for line in (self.home..self.lines.len()).chain(0..self.home) {
            for (slot, head) in self.lines[line].slots().iter().map(slot::load).enumerate() {
                if head.fingerprint() == self.fingerprint && !head.is_empty() {
                    let seen = Seen { index: line * SLOTS + slot, head };
                    return if head.is_live() { Found::Live(seen) } else { self.find_live(seen) };
                }
                if head.is_unused() {
                    return Found::Absent;
                }
            }
        }
        Found::Absent
    }

    /// The key's live slot, if there is one besides the tentative one.
    #[cold]
    fn find_live(&self, tentative: Seen) -> Found {
        let mut reached = self.seen().take_while(|seen| !seen.head.is_unused());
        let live = |seen: &Seen| seen.head.is_live() && seen.head.fingerprint() == self.fingerprint;
        reached.find(live).map_or(Found::Tentative(tentative), Found::Live)
    }

    /// Looks for a slot for a new key: the first that is free.
    pub(super) fn place<P: Protocol>(&self, protocol: &P, now: Timestamp) -> Place {
        let (mut claim, mut nearest) = (None, None::<(u64, Seen)>);
        for seen in self.seen() {
            let head = seen.head;
            if head.is_claim() {
                claim = Some(seen);
            } else if head.is_empty() || protocol.is_idle(head.word, now) {
                return Place::Free(seen);
            } else if protocol.is_settled(head.word) {
                let rank = protocol.idle_rank(head.word);
                if nearest.is_none_or(|(least, _)| rank < least) {
                    nearest = Some((rank, seen));
                }
            }
        }
        Place::Full { claim, nearest: nearest.map(|(_, seen)| seen) }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::protocol::{Cell, Swap};
    use crate::sync::AtomicU64;
    use crate::{Borrowed, Cost, Quota, SlidingWindowCounter, Table, Tally, WhenFull};

    /// A cell whose thread stops after one swap.
    struct StopsAfterOne<'a>(slot::SlotCell<'a>, core::cell::Cell<bool>);

    impl Cell for StopsAfterOne<'_> {
        fn load(&self) -> Option<u64> {
            self.0.load()
        }

        fn swap(&self, from: u64, to: u64) -> Swap {
            if self.1.replace(true) { Swap::Gone } else { self.0.swap(from, to) }
        }

        fn ring(&self) -> &[AtomicU64] {
            self.0.ring()
        }
    }

    #[test]
    fn a_slot_in_the_middle_of_a_turn_is_not_taken_over() {
        let counter = SlidingWindowCounter::new(Quota::per_second(2), 2).unwrap();
        let lines = [Line::new()];
        let ring: std::vec::Vec<_> =
            (0..SLOTS * counter.ring_words()).map(|_| AtomicU64::new(0)).collect();
        let tally = Tally::new();
        let table = Table::new(counter, Borrowed::new(&lines, &ring, &tally)).unwrap();
        let table = table.with_when_full(WhenFull::TakeOver);
        let at = |ms: u64| Timestamp::from_nanos(10_000_000_000 + ms * 1_000_000);
        let key = |index| Key::from_hash(index + 1);
        // The first key is the nearest to idle.
        for index in 0..SLOTS as u64 {
            let now = at(if index == 0 { 0 } else { 500 });
            assert!(table.decide(key(index), Cost::ONE, now).is_allow());
        }
        let set = Set::of(&lines, key(0));
        let Found::Live(seen) = set.find() else { panic!("the first key is live") };
        let words = &ring[seen.index * counter.ring_words()..][..counter.ring_words()];
        let cell = slot::SlotCell::new(set.slot(seen.index), seen.head.tag, words);
        let stops = StopsAfterOne(cell, core::cell::Cell::new(false));
        assert!(counter.decide(&stops, seen.word(), Cost::ONE, at(600)).is_none());

        assert!(table.decide(key(9), Cost::ONE, at(600)).is_allow());
        assert_eq!(tally.taken_over(), 1);
        let whole = table.decide(key(0), Cost::new(2), at(600));
        assert!(!whole.is_allow(), "the first key lost its slot");
    }
}
