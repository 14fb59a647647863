//! The writes of the sliding window log: entries begun, taken back and cleared.
//!
//! # Orderings
//! Entries are swapped `AcqRel` and loaded `Acquire`, as the head is by its cell. A thread that sees
//! a head also sees the entries that were written before that head was swapped in.
//!
//! Models fail without the acquire of a load, without the release of an entry that is begun (who sees an entry
//! sees a head no older than its writer did), and, where a ring is cleared, without the acquire of a swap that
//! fails. The others keep the same rule, though no model tells. An entry that is postponed, vacated or cleared
//! is released like one that is begun: that takes a debt or a refund, and a ring that has gone round meanwhile.
//! A swap that succeeds replaces a word that was loaded with acquire before; and what a thread makes of one
//! that failed takes effect by a swap of the head from the exact word that it began with.
//!
//! # Late writers
//! An entry is swapped from the exact word that was read. Recorded times grow by at least a window
//! from one admission of an entry to the next, so a word with a time does not come back after the
//! entry was used. A vacant word can come back two laps later; written over late, it becomes an entry
//! that is begun and free, which changes nothing.

use super::{Entry, Head, SlidingWindowLog};
use crate::Timestamp;
use crate::protocol::{Cell, Swap};
use crate::sync::{AtomicU64, Ordering};

/// An entry that was to be written holds: the first offset where.
pub(super) struct Held {
    pub(super) offset: u64,
}

impl SlidingWindowLog {
    /// Writes the time of an admission at `now` into the next `units` entries, which are free, and
    /// gives the newest time written. Nothing is admitted before the head is swapped.
    #[inline]
    pub(super) fn begin(
        &self,
        ring: &[AtomicU64],
        head: Head,
        units: u64,
        now: Timestamp,
    ) -> Result<Timestamp, Held> {
        let newest = self.newest(ring, head);
        if Self::debt_ns(newest, now) > 0 {
            return Err(Held { offset: 0 });
        }
        let mut newest = self.not_before(ring, newest, now);
        for offset in 0..units {
            let position = self.layout.after(head.position, offset);
            newest = self.begin_entry(ring, position, newest, now).ok_or(Held { offset })?;
        }
        Ok(newest)
    }

    /// The time to record for an admission at `now`: no earlier than what is recorded already, and
    /// than what counts.
    #[inline]
    fn not_before(
        &self,
        ring: &[AtomicU64],
        newest: Option<(Timestamp, bool)>,
        now: Timestamp,
    ) -> Timestamp {
        now.max(newest.map_or(now, |(time, _)| time)).max(self.since(ring))
    }

    /// Makes the entry one of this lap, at `time` or later; `None` when it holds.
    ///
    /// An entry that another thread has begun is raised, never lowered: that thread may be the one
    /// whose head goes in, and its time must not be recorded too early.
    #[inline]
    fn begin_entry(
        &self,
        ring: &[AtomicU64],
        position: u64,
        time: Timestamp,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let slot = self.entry(ring, position);
        let parity = self.layout.parity(position);
        let mut entry = self.load(ring, position);
        // Each failed swap means that another thread has raised or used the entry. Once it was used,
        // the head has moved, and this entry either holds or is raised in vain: then the swap of the
        // head fails.
        loop {
            if self.wait_ns(ring, entry, position, now) > 0 {
                return None;
            }
            let begun = entry.parity() == parity && !entry.is_postponed();
            if let Some(recorded) = entry.time()
                && begun
                && recorded >= time
            {
                return Some(recorded);
            }
            let next = Entry::new(time, false, parity);
            match slot.compare_exchange(entry.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(time),
                Err(current) => entry = Entry(current),
            }
        }
    }

    /// As [`begin`](Self::begin), but an entry that holds is begun too: postponed to the time at
    /// which it will be free. Until the head is swapped, that says what the entry before did.
    pub(super) fn begin_regardless(
        &self,
        ring: &[AtomicU64],
        head: Head,
        units: u64,
        now: Timestamp,
    ) -> Timestamp {
        let mut newest = self.not_before(ring, self.newest(ring, head), now);
        for offset in 0..units {
            let position = self.layout.after(head.position, offset);
            newest = newest.max(self.begin_or_postpone(ring, position, newest, now));
        }
        newest
    }

    fn begin_or_postpone(
        &self,
        ring: &[AtomicU64],
        position: u64,
        time: Timestamp,
        now: Timestamp,
    ) -> Timestamp {
        let slot = self.entry(ring, position);
        let parity = self.layout.parity(position);
        loop {
            if let Some(begun) = self.begin_entry(ring, position, time, now) {
                return begun;
            }
            let entry = self.load(ring, position);
            match entry.time() {
                // Begun already: it holds because it is postponed, or is free by now.
                Some(recorded) if entry.parity() == parity => return recorded,
                Some(recorded) => {
                    let free_at = recorded.plus_nanos(self.window_ns).max(time);
                    let next = Entry::new(free_at, true, parity).0;
                    let swap =
                        slot.compare_exchange(entry.0, next, Ordering::AcqRel, Ordering::Acquire);
                    if swap.is_ok() {
                        return free_at;
                    }
                }
                None => {} // refunded just now, so free: begin again
            }
        }
    }

    /// The head after `units` more, the newest of them at `newest`.
    #[inline]
    pub(super) fn advanced(&self, head: Head, units: u64, newest: Timestamp) -> u64 {
        let last = self.layout.last(head).max(newest);
        self.layout.word(self.layout.after(head.position, units), last)
    }

    /// Takes back `units` charged at `charged_at`: those of debt first, then the newest, when they were
    /// charged just then, else the oldest.
    pub(super) fn take_back<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        units: u64,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()> {
        let mut left = units.min(self.limit);
        while left > 0 && now.nanos_since(charged_at) < self.window_ns {
            let head = self.layout.head(word);
            if Self::debt_ns(self.newest(cell.ring(), head), now) > 0 {
                let before = self.without_last_debt(head);
                match cell.swap(word, before) {
                    Swap::Done => (left, word) = (left - 1, before),
                    Swap::Changed(current) => word = current,
                    Swap::Gone => return None,
                }
                continue;
            }
            if let Some(before) = self.step_back(cell.ring(), head, left, charged_at) {
                match cell.swap(word, before) {
                    Swap::Done => return Some(()),
                    Swap::Changed(current) => word = current,
                    Swap::Gone => return None,
                }
                continue;
            }
            match self.vacate_oldest(cell, word, now)? {
                Vacated::One => left -= 1,
                Vacated::None => return Some(()),
                Vacated::Moved => {}
            }
            word = cell.load()?;
        }
        Some(())
    }

    /// The head before the last unit of debt. Behind it, that unit's entry holds for as long as the one
    /// that it was written over.
    fn without_last_debt(&self, head: Head) -> u64 {
        self.layout.word(self.layout.before(head.position, 1), self.layout.last(head))
    }

    /// The head before the last `units`, if all of them were recorded at `charged_at`. Behind the
    /// head, their entries are begun and no longer admitted.
    fn step_back(
        &self,
        ring: &[AtomicU64],
        head: Head,
        units: u64,
        charged_at: Timestamp,
    ) -> Option<u64> {
        let is_charge = |back| {
            let position = self.layout.before(head.position, back);
            let entry = self.load(ring, position);
            entry.time() == Some(charged_at) && entry.parity() == self.layout.parity(position)
        };
        if !(1..=units).all(is_charge) {
            return None;
        }
        let position = self.layout.before(head.position, units);
        // With one lap gone back there is no entry left that counts.
        let rest = (units < self.limit).then(|| self.load(ring, self.layout.before(position, 1)));
        let last = rest.and_then(Entry::time).unwrap_or(Timestamp::ZERO);
        Some(self.layout.word(position, last))
    }

    /// Vacates the oldest entry that holds.
    ///
    /// The charge holds too, and is no older. So with either of the two gone, the n-th newest unit is
    /// recorded no earlier than it should be, for every n, and no window is told too small a count.
    fn vacate_oldest<C: Cell>(&self, cell: &C, word: u64, now: Timestamp) -> Option<Vacated> {
        let head = self.layout.head(word);
        let free = self.free(cell.ring(), head, now);
        if free == self.limit {
            return Some(Vacated::None);
        }
        let position = self.layout.after(head.position, free);
        let entry = self.load(cell.ring(), position);
        // The key owns the cell after the entry was read, so the entry is the key's; a later owner
        // never writes the same word, since its times or its lap are later.
        if cell.load()? != word {
            return Some(Vacated::Moved);
        }
        let begun = entry.parity() == self.layout.parity(position);
        let vacated = match (entry.time(), begun, entry.is_postponed()) {
            (None, _, _) | (_, true, false) => return Some(Vacated::Moved), // free by now
            // Debt that was taken back, or whose head is about to go in: now it need not wait.
            (_, true, true) => Entry::new(now, false, entry.parity()),
            (_, false, _) => entry.vacated(),
        };
        let swap = self.entry(cell.ring(), position).compare_exchange(
            entry.0,
            vacated.0,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        Some(if swap.is_ok() { Vacated::One } else { Vacated::Moved })
    }

    /// Makes the ring that of a new key: what a former key recorded does not count any more.
    pub(super) fn hand_over<C: Cell>(&self, cell: &C, head: Head, clear: bool) {
        if clear {
            self.clear(cell, head);
        }
        // An idle key's times are a window before this one, which is less than a quantum, and so less
        // than a window, before the new key's first call. It only grows, so a late swap fails.
        let since = self.layout.not_after_last(head).as_nanos();
        let word = &cell.ring()[self.limit as usize];
        // Relaxed: see `since`.
        let mut current = word.load(Ordering::Relaxed);
        while current < since && !clear && cell.load().is_some() {
            match word.compare_exchange(current, since, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => current = newer,
            }
        }
    }

    /// Vacates every entry of a former key that was live.
    fn clear<C: Cell>(&self, cell: &C, head: Head) {
        for offset in 0..self.limit {
            let position = self.layout.after(head.position, offset);
            let vacant = 1 - self.layout.parity(position);
            let slot = self.entry(cell.ring(), position);
            let mut entry = self.load(cell.ring(), position);
            // Fails only when another thread has cleared it, or a late writer of the former key has
            // begun it.
            while entry.time().is_some() {
                if cell.load().is_none() {
                    return;
                }
                match slot.compare_exchange(entry.0, vacant, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(current) => entry = Entry(current),
                }
            }
        }
    }
}

enum Vacated {
    One,
    None,
    Moved,
}
