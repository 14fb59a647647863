//! Sets: where a key may lie, and the search for it.

use super::slot::{self, Head, Line, SLOTS};
use crate::protocol::Protocol;
use crate::sync::AtomicU128;
use crate::{Key, Timestamp};

/// Lines to a set, in a table that has more than one set.
///
/// Large sets run full late: with 512 slots and a load of 80.5%, one set of a million does; with 256
/// slots, one of two thousand. Keys are searched from their home line on and lie near it, so a set's
/// size is paid for only by the search for a key that is not there.
pub(super) const LINES: usize = 128;

/// How long a key must have been idle for its slot to be taken before one that was never used. So
/// long, keys that are idle between two calls keep their slots while there is room; much longer, and
/// the table would fill with keys that do not come back, and searches would go further.
const A_WHILE_NS: u64 = if cfg!(any(loom, shuttle)) { 0 } else { 10_000_000_000 };

/// Up to so many keys, a table is half empty: that takes 4 MiB at most, and nearly every key is in its
/// home line.
const FEW_KEYS: usize = 1 << 17;

/// The lines of a roomy table: 1 MiB, which a processor's second cache holds.
const ROOMY: usize = 1 << 14;

impl Line {
    /// How many lines hold `keys` live keys: at a load of 80.5%, where a set hardly ever runs full. (Of
    /// tables with ten million keys, one in forty has no room for some.) Up to 131,072 keys, at a
    /// load of 50%, which is quicker. Above one set, whole sets of 128 lines.
    #[must_use]
    pub const fn for_keys(keys: usize) -> usize {
        let spare = if keys <= FEW_KEYS { keys } else { keys.div_ceil(128).saturating_mul(31) };
        let lines = keys.saturating_add(spare).div_ceil(SLOTS);
        match lines {
            0 => 1,
            1..=LINES => lines,
            _ => lines.div_ceil(LINES) * LINES,
        }
    }

    /// The same where speed counts for more than some memory: for few keys up to eight slots each, as far
    /// as 1 MiB goes, so that nearly every key is in the slot where its search starts.
    ///
    /// ```
    /// use tidegate_core::Line;
    ///
    /// let slots = |keys| Line::roomy_for_keys(keys) * Line::SLOTS;
    /// assert_eq!([100, 1_000, 10_000, 100_000].map(slots), [512, 7_680, 65_536, 200_192]);
    /// ```
    #[must_use]
    pub const fn roomy_for_keys(keys: usize) -> usize {
        let (least, eight_each) = (Self::for_keys(keys), keys.saturating_mul(8 / SLOTS));
        let roomy = whole_sets(if eight_each < ROOMY { eight_each } else { ROOMY });
        if least > roomy { least } else { roomy }
    }
}

/// How many of a table's lines are in use: whole sets.
#[inline]
pub(super) const fn whole_sets(lines: usize) -> usize {
    if lines > LINES { lines & !(LINES - 1) } else { lines }
}

/// The line that the search for a key starts from.
#[inline]
pub(super) const fn home_line(whole_sets: usize, key: Key) -> usize {
    ((key.hash() as u128 * whole_sets as u128) >> 64) as usize
}

/// The lines of the set that a line belongs to: the first, and the one after the last.
#[inline]
pub(super) const fn set_of(line: usize, whole_sets: usize) -> (usize, usize) {
    let first = line & !(LINES - 1);
    (first, if first + LINES < whole_sets { first + LINES } else { whole_sets })
}

/// The slot of each line that the search for a key starts from.
#[inline]
pub(super) const fn home_slot(key: Key) -> usize {
    key.hash() as usize % SLOTS
}

/// The slots that a key may lie in, in the order in which they are searched: from the home line on and
/// around, and in each line from the home slot on and around.
pub(super) struct Set<'a> {
    lines: &'a [Line],
    /// The index of the set's first slot in the table.
    first: usize,
    /// The line to start from.
    home: usize,
    /// The slot of each line to start from.
    home_slot: usize,
    /// The fingerprint field of the key's tag.
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
    /// It is not new any more: somebody has just brought it in, and it has spent.
    There,
}

impl<'a> Set<'a> {
    #[inline]
    pub(super) fn of(lines: &'a [Line], key: Key) -> Self {
        // The high bits of the hash pick the line, the low ones are the fingerprint.
        let whole_sets = whole_sets(lines.len());
        let line = home_line(whole_sets, key);
        let (first, end) = set_of(line, whole_sets);
        Self {
            lines: &lines[first..end],
            first: first * SLOTS,
            home: line - first,
            home_slot: home_slot(key),
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

    /// The lines with their indices, in the order of the search.
    #[inline]
    fn lines(&self) -> impl Iterator<Item = (usize, &'a Line)> {
        let (before, from) = self.lines.split_at(self.home);
        let from = from.iter().zip(self.home..).map(|(line, index)| (index, line));
        from.chain(before.iter().zip(0..).map(|(line, index)| (index, line)))
    }

    /// The slots of each line, in the order of the search.
    #[inline]
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let home = self.home_slot;
        (0..SLOTS).map(move |step| (home + step) % SLOTS)
    }

    /// The slots as they are, in the order of the search.
    #[inline]
    pub(super) fn seen(&self) -> impl Iterator<Item = Seen> {
        self.lines().flat_map(|(line, slots)| {
            self.order().map(move |slot| Seen {
                index: line * SLOTS + slot,
                head: slot::load(&slots.slots()[slot]),
            })
        })
    }

    /// Looks for the key's slot, no further than to the first that was never used. A key lies before
    /// it: whoever placed the key took the first slot that was free, and a slot that is unused now was
    /// free then.
    ///
    /// A live slot counts before a tentative one, which may be about to be given up for it.
    pub(super) fn find(&self) -> Found {
        let mut claim = None;
        for seen in self.seen().take_while(|seen| !seen.head.is_unused()) {
            if seen.head.fingerprint() == self.fingerprint && !seen.head.is_empty() {
                if seen.head.is_live() {
                    return Found::Live(seen);
                }
                claim = claim.or(Some(seen));
            }
        }
        claim.map_or(Found::Absent, Found::Tentative)
    }

    /// Looks for a slot for a new key: the first that has been free for a while; else the first that
    /// was never used; else the first whose key has just become idle, which may well be back soon.
    pub(super) fn place<P: Protocol>(&self, protocol: &P, now: Timestamp) -> Place {
        let a_while_ago = Timestamp::from_nanos(now.as_nanos().saturating_sub(A_WHILE_NS));
        let (mut claim, mut nearest) = (None, None::<(u64, Seen)>);
        let mut just_idle = None;
        for seen in self.seen() {
            let head = seen.head;
            if head.is_claim() {
                claim = Some(seen);
            } else if head.is_empty() || protocol.is_idle(head.word, a_while_ago) {
                return Place::Free(seen);
            } else if protocol.is_idle(head.word, now) {
                just_idle = just_idle.or(Some(seen));
            } else if head.fingerprint() == self.fingerprint {
                return Place::There;
            } else if protocol.is_settled(head.word) {
                let rank = protocol.idle_rank(head.word);
                if nearest.is_none_or(|(least, _)| rank < least) {
                    nearest = Some((rank, seen));
                }
            }
        }
        match just_idle {
            Some(seen) => Place::Free(seen),
            None => Place::Full { claim, nearest: nearest.map(|(_, seen)| seen) },
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;
    use crate::protocol::{Cell, Swap};
    use crate::sync::AtomicU64;
    use crate::{Borrowed, Cost, Quota, SlidingWindowCounter, Table, Tally, TokenBucket, WhenFull};

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
    fn a_table_has_lines_for_the_keys_that_were_asked_for() {
        let lines = [0, 1, 2, 3, 100, 256, 257, 131_072, 131_073].map(Line::for_keys);
        assert_eq!(lines, [1, 1, 1, 2, 50, 128, 256, 65_536, 40_832]);
    }

    #[test]
    fn a_table_uses_whole_sets() {
        let used = [1, 127, 128, 129, 200, 255, 256, 257].map(whole_sets);
        assert_eq!(used, [1, 127, 128, 128, 128, 128, 256, 256]);
        for lines in [128, 129, 256, 1 << 20] {
            let last = home_line(whole_sets(lines), Key::from_hash(u64::MAX));
            assert_eq!(last, whole_sets(lines) - 1);
            assert_eq!(set_of(last, whole_sets(lines)), (last + 1 - LINES, last + 1));
        }
    }

    /// A thread that brings a key in, and stops before it sees that another was first, leaves a claim.
    #[test]
    fn the_live_slot_of_a_key_is_found_behind_a_claim_of_it() {
        let bucket = TokenBucket::new(Quota::per_second(5)).unwrap();
        let (lines, tally) = ([Line::new()], Tally::new());
        let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
        let (key, now) = (Key::from_hash(1), Timestamp::from_secs(1));
        assert!(table.decide(key, Cost::new(2), now).is_allow());
        let set = Set::of(&lines, key);
        let Found::Live(first) = set.find() else { panic!("the key is live") };
        // Move it to the slot that is searched next, and put a claim in its place.
        let next = set.seen().nth(1).unwrap();
        slot::swap(set.slot(next.index), next.head, first.head).unwrap();
        let claim = first.head.claimed(set.fingerprint(), first.word(), false);
        slot::swap(set.slot(first.index), first.head, claim).unwrap();

        let Found::Live(found) = set.find() else { panic!("the key is live still") };
        assert_eq!(found.index, next.index);
        assert_eq!(table.peek(key, Cost::ZERO, now).remaining(), 3);
        table.refund(key, Cost::ONE, now, now);
        assert_eq!(table.peek(key, Cost::ZERO, now).remaining(), 4);
    }

    /// Else two threads could take the slot from each other for ever.
    #[test]
    fn a_slot_that_is_being_claimed_is_no_room_for_another_key() {
        let bucket = TokenBucket::new(Quota::per_second(5)).unwrap();
        let (lines, tally) = ([Line::new()], Tally::new());
        let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
        let now = Timestamp::from_secs(1);
        let set = Set::of(&lines, Key::from_hash(9));
        let first = set.seen().next().unwrap();
        let claim = first.head.claimed(slot::fingerprint(Key::from_hash(8)), 0, false);
        slot::swap(set.slot(first.index), first.head, claim).unwrap();
        let Place::Free(place) = set.place(&bucket, now) else { panic!("others are unused") };
        assert_ne!(place.index, first.index);
        for hash in 1..SLOTS as u64 {
            assert!(table.decide(Key::from_hash(hash), Cost::ONE, now).is_allow());
        }
        match set.place(&bucket, now) {
            Place::Full { claim: Some(claim), .. } => assert_eq!(claim.index, first.index),
            Place::Full { claim: None, .. } | Place::Free(_) | Place::There => {
                panic!("the rest is live")
            }
        }
    }

    /// What a table of counters in one line is made of.
    fn counters() -> (SlidingWindowCounter, [Line; 1], std::vec::Vec<AtomicU64>, Tally) {
        let counter = SlidingWindowCounter::new(Quota::per_second(2), 2).unwrap();
        let ring = (0..SLOTS * counter.ring_words()).map(|_| AtomicU64::new(0)).collect();
        (counter, [Line::new()], ring, Tally::new())
    }

    /// Turns a live key's epoch, and stops in the middle.
    fn stop_in_a_turn(
        counter: SlidingWindowCounter,
        lines: &[Line],
        ring: &[AtomicU64],
        key: Key,
        now: Timestamp,
    ) {
        let set = Set::of(lines, key);
        let Found::Live(seen) = set.find() else { panic!("the key is live") };
        let words = &ring[seen.index * counter.ring_words()..][..counter.ring_words()];
        let cell = slot::SlotCell::new(set.slot(seen.index), seen.head.tag, words);
        let stops = StopsAfterOne(cell, core::cell::Cell::new(false));
        assert!(counter.decide(&stops, seen.word(), Cost::ONE, now).is_none());
    }

    #[test]
    fn a_slot_in_the_middle_of_a_turn_is_not_taken_over() {
        let (counter, lines, ring, tally) = counters();
        let table = Table::new(counter, Borrowed::new(&lines, &ring, &tally)).unwrap();
        let table = table.with_when_full(WhenFull::TakeOver);
        let at = |ms: u64| Timestamp::from_nanos(10_000_000_000 + ms * 1_000_000);
        let key = |index| Key::from_hash(index + 1);
        // The first key is the nearest to idle.
        for index in 0..SLOTS as u64 {
            let now = at(if index == 0 { 0 } else { 500 });
            assert!(table.decide(key(index), Cost::ONE, now).is_allow());
        }
        stop_in_a_turn(counter, &lines, &ring, key(0), at(600));

        assert!(table.decide(key(9), Cost::ONE, at(600)).is_allow());
        assert_eq!(tally.taken_over(), 1);
        let whole = table.decide(key(0), Cost::new(2), at(600));
        assert!(!whole.is_allow(), "the first key lost its slot");
    }

    /// Nobody is the nearest to idle then; and no denial says to wait for nothing.
    #[test]
    fn a_set_whose_slots_are_all_in_the_middle_of_a_turn_is_full_for_a_moment() {
        let (counter, lines, ring, tally) = counters();
        let table = Table::new(counter, Borrowed::new(&lines, &ring, &tally)).unwrap();
        let table = table.with_when_full(WhenFull::TakeOver);
        let at = |ms: u64| Timestamp::from_nanos(10_000_000_000 + ms * 1_000_000);
        for index in 0..SLOTS as u64 {
            let key = Key::from_hash(index + 1);
            assert!(table.decide(key, Cost::ONE, at(0)).is_allow());
            stop_in_a_turn(counter, &lines, &ring, key, at(600));
        }
        let denial = table.decide(Key::from_hash(9), Cost::ONE, at(600)).denial().unwrap();
        let moment = crate::Retry::After(core::time::Duration::from_nanos(1));
        assert_eq!((denial.cause(), denial.retry()), (crate::Cause::TableFull, moment));
        assert_eq!(tally.taken_over(), 0);
    }
}
