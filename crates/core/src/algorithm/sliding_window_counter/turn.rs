//! The steps of the sliding window counter that span several words: the turn of an epoch, a refund
//! into a completed epoch, and the hand-over to another key.
//!
//! # Orderings
//! All swaps of ring and base are `AcqRel`, and all loads that lead to one are `Acquire`: a thread
//! that sees the base on an epoch also sees what the turn filed before it. Swaps of the head are the
//! cell's, and `AcqRel` too: a thread that sees the head open in an epoch sees the base there.
//!
//! Three pairs rest on this alone, and a model fails without each: a head with what was filed before it;
//! a base with the counts that a refund lowered before it; and, while a cell is handed over, a count of
//! the new key with the head that says so. The other orders are not needed one by one, since whoever
//! opens an epoch has swapped or read its slot and the base itself, and nobody reads older values after
//! that. They stay: a turn is rare, and one rule is easier to hold than an exception for each word.

use super::{Base, Filed, Head, SlidingWindowCounter};
use crate::Timestamp;
use crate::protocol::{Cell, Swap};
use crate::sync::{AtomicU64, Ordering};

/// What came of lowering a completed epoch's count.
enum Lowered {
    /// It is lower by so many units.
    By(u64),
    /// The epoch turned or the count changed meanwhile, so nothing was done.
    Changed,
}

impl SlidingWindowCounter {
    /// Takes the head out of its epoch, into the next or that of `now`, and gives the word that the
    /// head has afterwards.
    ///
    /// Some thread progresses: whoever fails a swap here does so because another has done that step.
    #[cold]
    pub(super) fn turn<C: Cell>(&self, cell: &C, word: u64, now: Timestamp) -> Option<u64> {
        let open = self.layout.head(word);
        let head = Head { sealed: true, ..open };
        let sealed = self.layout.head_word(head);
        if !open.sealed {
            match cell.swap(word, sealed) {
                Swap::Done => {}
                Swap::Changed(current) => return Some(current),
                Swap::Gone => return None,
            }
        }
        self.file(cell.ring(), head);
        let next = self.move_base_on(cell.ring(), head.epoch, now);
        let next = self.layout.head_word(Head { epoch: next, sealed: false, count: 0 });
        match cell.swap(sealed, next) {
            Swap::Done => Some(next),
            Swap::Changed(current) => Some(current),
            Swap::Gone => None,
        }
    }

    /// Files the final count of a sealed head's epoch, unless that is done.
    fn file(&self, ring: &[AtomicU64], head: Head) {
        let slot = self.slot(ring, head.epoch);
        let tag = Filed::tag_of(head.epoch);
        let filed = self.layout.filed_word(Filed { tag, count: head.count });
        let mut word = slot.load(Ordering::Acquire);
        // Fails only when a refund has lowered the old count, or when another thread has filed.
        while self.layout.filed(word).tag < tag {
            match slot.compare_exchange(word, filed, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(current) => word = current,
            }
        }
    }

    /// Moves the base on from `epoch`, unless that is done, and gives the epoch it moved to.
    fn move_base_on(&self, ring: &[AtomicU64], epoch: u64, now: Timestamp) -> u64 {
        let next = self.width_ns.quotient(now.as_nanos()).max(epoch + 1);
        let base = self.base(ring);
        let mut word = base.load(Ordering::Acquire);
        // Fails only when a refund has lowered the base, or when another thread has moved it.
        loop {
            let current = self.layout.base(word);
            if current.epoch > epoch {
                return current.epoch;
            }
            let oldest = next.saturating_sub(self.epochs.by());
            let sum = (oldest..=epoch)
                .fold(0_u64, |sum, epoch| sum.saturating_add(self.filed(ring, epoch)));
            let moved = self.layout.base_word(Base { epoch: next, sum });
            match base.compare_exchange(word, moved, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return next,
                Err(current) => word = current,
            }
        }
    }

    /// Frees up to `units` of the epoch that `charged_at` lies in.
    pub(super) fn refund_epoch<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        units: u64,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()> {
        let charged = self.width_ns.quotient(charged_at.as_nanos());
        loop {
            let head = self.layout.head(word);
            if charged > head.epoch || charged.saturating_add(self.epochs.by()) < head.epoch {
                return Some(()); // no such charge here, or none that still counts
            }
            if head.sealed {
                word = self.turn(cell, word, now)?;
                continue;
            }
            if charged < head.epoch {
                if let Lowered::By(_) = self.refund_filed(cell, head, units, charged)? {
                    return Some(());
                }
                word = cell.load()?;
                continue;
            }
            let next = Head { count: self.layout.lower(head.count, units), ..head };
            if next == head {
                return Some(());
            }
            match cell.swap(word, self.layout.head_word(next)) {
                Swap::Done => return Some(()),
                Swap::Changed(current) => word = current,
                Swap::Gone => return None,
            }
        }
    }

    /// Frees up to `units` of those that count at `now`, the oldest first.
    ///
    /// An epoch is left behind only with its count lowered, by so much as is told. When the head turns
    /// meanwhile, the rest begins again at the oldest epoch, and the turn was some thread's progress.
    pub(super) fn free_oldest<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        units: u64,
        now: Timestamp,
    ) -> Option<()> {
        let mut left = units;
        'head: loop {
            let head = self.layout.head(word);
            if head.sealed {
                word = self.turn(cell, word, now)?;
                continue;
            }
            let latest = head.epoch.max(self.width_ns.quotient(now.as_nanos()));
            for epoch in latest.saturating_sub(self.epochs.by())..head.epoch {
                if left == 0 {
                    return Some(());
                }
                match self.refund_filed(cell, head, left, epoch)? {
                    Lowered::By(units) => left -= units,
                    Lowered::Changed => {
                        word = cell.load()?;
                        continue 'head;
                    }
                }
            }
            let next = Head { count: self.layout.lower(head.count, left), ..head };
            if next == head {
                return Some(());
            }
            match cell.swap(word, self.layout.head_word(next)) {
                Swap::Done => return Some(()),
                Swap::Changed(current) => word = current,
                Swap::Gone => return None,
            }
        }
    }

    /// Lowers the count of a completed epoch, and then the base that was added up from it.
    ///
    /// The ring is lowered first. A turn that comes between the two has added up either the old
    /// count, and the units stay until the next turn, or the new one; in both cases the base has left
    /// `head.epoch` and is not lowered again. So the sum is never less than the units that count.
    fn refund_filed<C: Cell>(
        &self,
        cell: &C,
        head: Head,
        units: u64,
        charged: u64,
    ) -> Option<Lowered> {
        let (slot, base) = (self.slot(cell.ring(), charged), self.base(cell.ring()));
        let word = slot.load(Ordering::Acquire);
        let filed = self.layout.filed(word);
        // The key owns the cell after the count was read, so the count is the key's. A later owner
        // files later epochs only, and clears to zero, so the exact swap cannot touch its counts.
        let now_head = self.layout.head(cell.load()?);
        if now_head.epoch != head.epoch || now_head.sealed {
            return Some(Lowered::Changed);
        }
        let count = self.layout.lower(filed.count, units);
        let lower = filed.count - count;
        if filed.tag != Filed::tag_of(charged) || lower == 0 {
            return Some(Lowered::By(0));
        }
        let lowered = self.layout.filed_word(Filed { count, ..filed });
        if slot.compare_exchange(word, lowered, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Some(Lowered::Changed);
        }
        let mut word = base.load(Ordering::Acquire);
        loop {
            let current = self.layout.base(word);
            if current.epoch != head.epoch {
                return Some(Lowered::By(lower));
            }
            let sum = self.layout.lower(current.sum, lower);
            let lowered = self.layout.base_word(Base { sum, ..current });
            match base.compare_exchange(word, lowered, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(Lowered::By(lower)),
                Err(current) => word = current,
            }
        }
    }

    /// Makes the ring that of a new key which enters in `head.epoch`: the base on that epoch, and no
    /// former key's units in it.
    ///
    /// Each word is read before the check that the cell is still being handed over, so what is
    /// replaced is the former key's. Its epochs are earlier than those that the new key will file,
    /// so an exact swap that comes late meets nothing to replace.
    pub(super) fn prepare_ring<C: Cell>(&self, cell: &C, head: Head, clear: bool) {
        let ring = cell.ring();
        for slot in ring[..self.epochs()].iter().filter(|_| clear) {
            let mut word = slot.load(Ordering::Acquire);
            // Fails only when another thread has cleared it, or a late refund has lowered it.
            loop {
                let filed = self.layout.filed(word);
                if cell.load().is_none() {
                    return;
                }
                if filed.count == 0 {
                    break;
                }
                let cleared = self.layout.filed_word(Filed { count: 0, ..filed });
                match slot.compare_exchange(word, cleared, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => break,
                    Err(current) => word = current,
                }
            }
        }
        let base = self.base(ring);
        let fresh = Base { epoch: head.epoch, sum: 0 };
        loop {
            let word = base.load(Ordering::Acquire);
            let current = self.layout.base(word);
            if cell.load().is_none() || current.epoch > head.epoch || current == fresh {
                return;
            }
            let fresh = self.layout.base_word(fresh);
            if base.compare_exchange(word, fresh, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }
}
