//! The quick search: a live key is in its home line five times of six, and there in its home slot three
//! times of five.

use super::set::{home_line, home_slot, set_of};
use super::slot::{self, Head, Line, SLOTS};
use crate::Key;
use crate::sync::AtomicU128;

/// The live slot of a key.
pub(super) struct Live<'a> {
    /// The slot's index in the table.
    pub(super) index: usize,
    pub(super) slot: &'a AtomicU128,
    pub(super) head: Head,
}

/// The key's live slot, if that is in its home line. If not, it may be anywhere in its set.
#[inline(always)]
pub(super) fn find(lines: &[Line], whole_sets: usize, key: Key) -> Option<Live<'_>> {
    let index = home_line(whole_sets, key);
    find_in(lines.get(index)?, index, key)
}

/// The key's live slot in the lines after its home line. If it is not there either, it may be about to
/// be live, or be nowhere.
#[inline]
pub(super) fn find_beyond(lines: &[Line], whole_sets: usize, key: Key) -> Option<Live<'_>> {
    let home = home_line(whole_sets, key);
    let (first, end) = set_of(home, whole_sets);
    let mut index = home;
    loop {
        index = if index + 1 == end { first } else { index + 1 };
        let line = lines.get(index)?;
        let is_last = || index == home || line.slots().iter().map(slot::load).any(Head::is_unused);
        match find_in(line, index, key) {
            None if is_last() => return None,
            None => {}
            live => return live,
        }
    }
}

/// Slot by slot, with a branch at each. Looking at all four at once takes no branch, but then the
/// processor cannot go on to what comes after this decision while it waits for the line.
#[inline(always)]
fn find_in(line: &Line, index: usize, key: Key) -> Option<Live<'_>> {
    let tag = slot::live_tag(key);
    let mut order = (0..SLOTS).map(|step| (home_slot(key) + step) % SLOTS);
    order.find_map(|at| {
        let slot = &line.slots()[at];
        let head = slot::load(slot);
        tag.is_of(head).then_some(Live { index: index * SLOTS + at, slot, head })
    })
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::table::set::{Found, Set, whole_sets};
    use crate::{Borrowed, Cost, Quota, Table, Tally, Timestamp, TokenBucket};

    /// So many keys that all begin at one line of a small table, or in the last set of a larger one.
    fn check(lines: usize, home: usize, keys: u64) {
        let lines: Vec<_> = (0..lines).map(|_| Line::new()).collect();
        let tally = Tally::new();
        let bucket = TokenBucket::new(Quota::per_minute(9)).unwrap();
        let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
        let sets = whole_sets(lines.len());
        let (width, now) = (u64::MAX / sets as u64, Timestamp::from_secs(1));
        let key = |number: u64| Key::from_hash(width * home as u64 + width / 2 + number * 5);
        assert_eq!(home_line(sets, key(keys)), home);
        for number in 0..keys {
            assert!(table.decide(key(number), Cost::ONE, now).is_allow());
        }
        for number in 0..keys {
            let set = Set::of(&lines, key(number));
            let Found::Live(seen) = set.find() else { panic!("{number} is live") };
            let index = set.absolute(seen.index);
            let at_home = table.live_at_home(key(number));
            assert_eq!(at_home.is_some(), index / SLOTS == home, "{number} at {index}");
            let live = at_home.or_else(|| table.live_beyond(key(number)));
            let live = live.unwrap_or_else(|| panic!("{number} at {index}"));
            assert_eq!((live.index, live.head), (index, seen.head));
            assert!(std::ptr::eq(live.slot, set.slot(seen.index)));
            assert!(table.live_cell(&live).is_some());
            let seat = table.seat(key(number));
            let (_, word) = table.seated(&seat).expect("it is there");
            assert_eq!(word, seen.word());
        }
        // The first finds the slot that its search begins with.
        let first = table.live_at_home(key(0)).unwrap();
        assert_eq!(first.index % SLOTS, key(0).hash() as usize % SLOTS);
        assert!(table.live_at_home(key(keys)).is_none() && table.live_beyond(key(keys)).is_none());
    }

    #[test]
    fn the_quick_search_finds_what_the_whole_one_does() {
        check(1, 0, 3);
        check(5, 3, 18);
        check(5, 3, 20);
        check(2 * crate::table::set::LINES, 2 * crate::table::set::LINES - 2, 40);
    }
}
