//! [`Seat`]: a key with the place where it was found.

use super::live::Live;
use super::slot::{self, SLOTS, SlotCell};
use super::{Storage, Table};
use crate::protocol::Protocol;
use crate::{Cost, Decision, Denial, Key, Timestamp};

/// A key with the place in a [`Table`] where it was found: for several calls on one key, of which only
/// the first then searches.
///
/// A seat keeps nothing for its key. When the slot has passed to another key meanwhile, or the seat is of
/// another table, the key is searched for as ever.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    key: Key,
    /// The slot's index in the table; beyond all of them when the key was not found.
    index: usize,
    /// The tag of the slot's head, which changes when the slot changes hands.
    tag: u64,
}

impl Seat {
    /// No place yet: the key is searched for at each call.
    #[inline]
    #[must_use]
    pub const fn unknown(key: Key) -> Self {
        Self { key, index: usize::MAX, tag: 0 }
    }

    /// The key.
    #[inline]
    #[must_use]
    pub const fn key(&self) -> Key {
        self.key
    }
}

impl<P: Protocol, S: Storage> Table<P, S> {
    /// Looks for a key, for the calls that follow.
    ///
    /// ```
    /// use tidegate_core::{Borrowed, Cost, Key, Line, Quota, Table, Tally, Timestamp, TokenBucket};
    ///
    /// let (lines, tally) = ([Line::new()], Tally::new());
    /// let bucket = TokenBucket::new(Quota::per_minute(2))?;
    /// let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally))?;
    ///
    /// let (seat, now) = (table.seat(Key::from_hash(7)), Timestamp::from_secs(1));
    /// if table.foresee_in(&seat, Cost::ONE, now).is_ok() {
    ///     // Ask others; and then:
    ///     assert!(table.admit_in(&seat, Cost::ONE, now).is_ok());
    /// }
    /// assert_eq!(table.peek_in(&seat, Cost::ZERO, now).remaining(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn seat(&self, key: Key) -> Seat {
        match self.live_at_home(key) {
            Some(live) => Seat { key, index: live.index, tag: live.head.tag },
            None => self.seat_beyond(key),
        }
    }

    /// The same for a key that is not in its home line.
    #[inline(never)]
    fn seat_beyond(&self, key: Key) -> Seat {
        match self.live_beyond(key) {
            Some(live) => Seat { key, index: live.index, tag: live.head.tag },
            None => Seat::unknown(key),
        }
    }

    /// The seat of a key that is where it is looked for first and that `cost` fits, as
    /// [`foresee_in`](Self::foresee_in) would say: both by one look. `None` says nothing; ask for both.
    ///
    /// It is for who asks several tables in a row. A denial is rare there, or need not be quick; left out
    /// here, its numbers take no room.
    #[inline(always)]
    pub fn seat_if_fits(&self, key: Key, cost: Cost, now: Timestamp) -> Option<Seat> {
        let live = self.live_at_home(key)?;
        let cell = self.live_cell(&live)?;
        self.protocol.foresee(&cell, live.head.word, cost, now)?.ok()?;
        Some(Seat { key, index: live.index, tag: live.head.tag })
    }

    /// As [`peek`](Self::peek).
    #[inline(always)]
    pub fn peek_in(&self, seat: &Seat, cost: Cost, now: Timestamp) -> Decision {
        if let Some((cell, word)) = self.seated(seat)
            && let Some(decision) = self.protocol.peek(&cell, word, cost, now)
        {
            return decision;
        }
        self.peek_anywhere(seat.key, cost, now)
    }

    /// As [`decide`](Self::decide).
    #[inline(always)]
    pub fn decide_in(&self, seat: &Seat, cost: Cost, now: Timestamp) -> Decision {
        if let Some((cell, word)) = self.seated(seat)
            && let Some(decision) = self.protocol.decide(&cell, word, cost, now)
        {
            return decision;
        }
        self.decide_anywhere(seat.key, cost, now)
    }

    /// As [`admit`](Self::admit).
    ///
    /// # Errors
    /// The denial.
    #[inline(always)]
    pub fn admit_in(&self, seat: &Seat, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        if let Some((cell, word)) = self.seated(seat)
            && let Some(admitted) = self.protocol.admit(&cell, word, cost, now)
        {
            return admitted;
        }
        self.decide_anywhere(seat.key, cost, now).into_result()
    }

    /// Whether [`admit_in`](Self::admit_in) would allow it. Charges and writes nothing.
    ///
    /// While other threads charge, it may still say so when there is just no room any more: only the
    /// charge itself decides.
    ///
    /// # Errors
    /// The denial, as [`peek`](Self::peek) would give it.
    #[inline(always)]
    pub fn foresee_in(&self, seat: &Seat, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        if let Some((cell, word)) = self.seated(seat)
            && let Some(foreseen) = self.protocol.foresee(&cell, word, cost, now)
        {
            return foreseen;
        }
        self.peek_anywhere(seat.key, cost, now).into_result()
    }

    /// The seat's slot and its word, if it is the key's still.
    #[inline(always)]
    pub(super) fn seated(&self, seat: &Seat) -> Option<(SlotCell<'_>, u64)> {
        let slot = &self.storage.lines().get(seat.index / SLOTS)?.slots()[seat.index % SLOTS];
        let head = slot::load(slot);
        if head.tag != seat.tag {
            return None;
        }
        let live = Live { index: seat.index, slot, head };
        Some((self.live_cell(&live)?, head.word))
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;
    use crate::{Borrowed, Line, Quota, Tally, TokenBucket};

    /// A slot that the same key is about to have, or has given up, is nobody's seat: what is charged there
    /// would be charged nowhere.
    #[test]
    fn a_seat_is_where_the_key_is_live() {
        let bucket = TokenBucket::new(Quota::per_minute(5)).unwrap();
        let (lines, tally) = ([Line::new()], Tally::new());
        let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
        let (key, now) = (Key::from_hash(4), Timestamp::from_secs(1_000));
        assert!(table.decide(key, Cost::new(2), now).is_allow());
        let seat = table.seat(key);
        let slot = &lines[seat.index / SLOTS].slots()[seat.index % SLOTS];
        let live = slot::load(slot);
        assert_eq!(table.seated(&seat).map(|(_, word)| word), Some(live.word));
        let claim = live.claimed(slot::fingerprint(key), live.word, false);
        let mut there = live;
        for head in [claim, claim.given_up()] {
            slot::swap(slot, there, head).unwrap();
            assert!(table.seated(&seat).is_none(), "{head:?}");
            there = head;
        }
        // And so the key is new, and its charge in a slot.
        assert!(table.admit_in(&seat, Cost::new(5), now).is_ok());
        assert!(table.admit_in(&seat, Cost::ONE, now).is_err());
        assert_eq!(table.peek(key, Cost::ZERO, now).remaining(), 0);
    }
}
