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
