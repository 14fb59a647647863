//! What a power failure can leave behind in a table that lies in a file: heads of different times.

use core::cmp::Reverse;

use super::slot::{self, Head, Line, SLOTS, SlotCell};
use super::{Storage, Table, set};
use crate::protocol::Protocol;
use crate::sync::AtomicU128;
use crate::{Cost, Timestamp};

impl<P: Protocol, S: Storage> Table<P, S> {
    /// Makes a table sound again that was put together from heads of different times, and gives how many
    /// slots were given up.
    ///
    /// A head is whole, so each slot for itself is that of some time. But a key that had moved from one
    /// slot to another in between can be in both. The one that is idle sooner is given up, or, if that is
    /// the same, the one with more left.
    ///
    /// For a file, after the machine has stopped without writing all of it. Nobody else may use the table
    /// meanwhile.
    pub fn mend(&self, now: Timestamp) -> usize {
        let lines = self.storage.lines();
        let mut given_up = 0;
        for first_line in (0..self.whole_sets).step_by(set::LINES) {
            let (first, end) = set::set_of(first_line, self.whole_sets);
            let slot = |index: usize| &lines[first + index / SLOTS].slots()[index % SLOTS];
            for index in 0..(end - first) * SLOTS {
                for other in index + 1..(end - first) * SLOTS {
                    let (one, two) = (slot::load(slot(index)), slot::load(slot(other)));
                    if !is_one_key(one, two) {
                        continue;
                    }
                    let absolute = |index: usize| first * SLOTS + index;
                    let spent = |index, head| self.spent(absolute(index), slot(index), head, now);
                    let (stale, place) = if spent(index, one) < spent(other, two) {
                        (one, index)
                    } else {
                        (two, other)
                    };
                    given_up +=
                        usize::from(slot::swap(slot(place), stale, stale.given_up()).is_ok());
                }
            }
        }
        given_up
    }

    /// Gives up every slot, whatever its key has spent, and gives how many that were. For a file, where what was
    /// spent is void once the machine has stopped. Nobody else may use the table meanwhile.
    pub fn clear(&self) -> usize {
        let slots = self.storage.lines().iter().flat_map(Line::slots);
        let is_given_up = |slot: &&AtomicU128| {
            let head = slot::load(slot);
            head.is_live() && slot::swap(slot, head, head.given_up()).is_ok()
        };
        slots.filter(is_given_up).count()
    }

    /// What orders slots by what their keys have spent: when that is over, and how much is left.
    fn spent(
        &self,
        index: usize,
        slot: &AtomicU128,
        head: Head,
        now: Timestamp,
    ) -> (Timestamp, Reverse<u64>) {
        let idle_at = self.protocol.idle_at(head.word).max(now);
        let cell = SlotCell::new(slot, head.tag, self.ring(index).unwrap_or(&[]));
        let standing = self.protocol.peek(&cell, head.word, Cost::ZERO, now);
        (idle_at, Reverse(standing.map_or(0, |standing| standing.remaining())))
    }
}

/// Whether two slots are live for one key.
pub(super) fn is_one_key(one: Head, other: Head) -> bool {
    one.is_live() && other.is_live() && one.fingerprint() == other.fingerprint()
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;
    use crate::{AtomicU64, Borrowed, FixedWindow, Key, Quota, Tally};

    #[test]
    fn in_a_table_that_was_cleared_nobody_has_spent_anything() {
        let lines: Vec<Line> = (0..Line::for_keys(64)).map(|_| Line::new()).collect();
        let (ring, tally): ([AtomicU64; 0], Tally) = ([], Tally::new());
        let limit = FixedWindow::new(Quota::per_day(10)).unwrap();
        let table = Table::new(limit, Borrowed::new(&lines, &ring, &tally)).unwrap();
        let now = Timestamp::from_secs(1_700_000_000);
        let keys: Vec<Key> = (1..=50).map(|hash: u64| Key::from_hash(hash << 40 | hash)).collect();
        for key in &keys {
            assert!(table.admit(*key, Cost::new(10), now).is_ok());
        }
        assert_eq!(table.clear(), keys.len());
        assert_eq!((table.live_keys(now), table.clear()), (0, 0));
        for key in &keys {
            assert!(table.admit(*key, Cost::new(10), now).is_ok());
            assert!(table.admit(*key, Cost::ONE, now).is_err());
        }
    }
}
