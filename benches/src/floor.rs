//! What the machine allows at most: the bare operations that a limiter cannot do without.

use std::hash::Hash;

use portable_atomic::{AtomicU64, AtomicU128, Ordering};

/// A token bucket in one word with nothing around it: load, arithmetic, swap. Exact for rates that
/// divide a nanosecond, right for one limit only.
#[derive(Debug)]
pub struct Word {
    arrival: AtomicU64,
    per_unit: u64,
    tolerance: u64,
}

impl Word {
    /// A unit each `per_unit` nanoseconds, and up to `tolerance` nanoseconds' worth at once.
    #[must_use]
    pub const fn new(per_unit: u64, tolerance: u64) -> Self {
        Self { arrival: AtomicU64::new(0), per_unit, tolerance }
    }

    /// Whether one more may come at `now`.
    #[inline]
    pub fn check(&self, now: u64) -> bool {
        let mut arrival = self.arrival.load(Ordering::Relaxed);
        loop {
            let next = arrival.max(now) + self.per_unit;
            if next > now + self.tolerance {
                return false;
            }
            match self.arrival.compare_exchange_weak(
                arrival,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(current) => arrival = current,
            }
        }
    }
}

/// Keyed words, 16 bytes each, at the place that the hash says: a key that does not find itself there
/// shares the word. No search, no newcomers, no eviction, so it is not a limiter.
#[derive(Debug)]
pub struct Slots {
    slots: tidegate::Pages<Slot>,
    hasher: ahash::RandomState,
}

#[derive(Debug)]
#[repr(align(16))]
struct Slot(AtomicU128);

// SAFETY: any bits are a number, and an atomic has the layout of its number.
unsafe impl tidegate::Shareable for Slot {}

impl Slots {
    /// As many words as a table for so many keys has slots.
    #[must_use]
    pub fn for_keys(keys: usize) -> Self {
        let slots = tidegate::core::Line::for_keys(keys) * tidegate::core::Line::SLOTS;
        Self { slots: tidegate::Pages::zeroed(slots), hasher: ahash::RandomState::new() }
    }

    /// The place of a key.
    #[inline]
    pub fn place<K: Hash>(&self, key: &K) -> usize {
        let hash = self.hasher.hash_one(key);
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    /// Reads the place into the cache.
    #[inline]
    pub fn touch(&self, place: usize) {
        std::hint::black_box(self.slots[place].0.load(Ordering::Relaxed));
    }

    /// Whether one more may come at `now`, at the place of its key.
    #[inline]
    pub fn check(&self, place: usize, now: u64) -> bool {
        const PER_UNIT: u64 = 2;
        const TOLERANCE: u64 = 1_000_000_000;
        let slot = &self.slots[place].0;
        let mut head = slot.load(Ordering::Relaxed);
        loop {
            let next = (head as u64).max(now) + PER_UNIT;
            if next > now + TOLERANCE {
                return false;
            }
            let to = head >> 64 << 64 | u128::from(next);
            match slot.compare_exchange_weak(head, to, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => head = current,
            }
        }
    }
}
