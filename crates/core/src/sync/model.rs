//! Atomics for models: a scheduler's, 128 bits squeezed into 64, and threads that stop for ever.

use std::cell::Cell;

#[cfg(loom)]
use loom as scheduler;
#[cfg(shuttle)]
use shuttle as scheduler;

use scheduler::sync::atomic;
pub(crate) use scheduler::sync::atomic::{Ordering, fence};

scheduler::thread_local! {
    static FUEL: Cell<Option<usize>> = Cell::new(None);
}

/// What a stopped thread unwinds with.
#[derive(Debug)]
pub struct Stopped;

/// Lets this thread do so many atomic operations more, and stops it before the next: it unwinds with
/// [`Stopped`], having done nothing else, as if it were killed there.
pub fn stop_after(operations: usize) {
    FUEL.with(|fuel| fuel.set(Some(operations)));
}

fn spend() {
    FUEL.with(|fuel| match fuel.get() {
        None => {}
        Some(0) => std::panic::resume_unwind(Box::new(Stopped)),
        Some(left) => fuel.set(Some(left - 1)),
    });
}

#[cfg(loom)]
std::thread_local! {
    /// loom runs all threads of a model in one of the system's.
    static WATCHES: Cell<bool> = const { Cell::new(false) };
}

/// Whether the words that this model makes from here on race also where two threads only load them.
///
/// loom remembers the last access of each atomic only. So where two threads load a word and then one of
/// them swaps it, loom has forgotten the other's load, and never tries that one after the swap. An
/// operation of no order beside each load makes it try. Models of three threads grow too large by it.
#[cfg(loom)]
pub fn watch_loads(watches: bool) {
    WATCHES.set(watches);
}

/// 64 bits.
#[derive(Debug)]
pub struct AtomicU64 {
    word: atomic::AtomicU64,
    #[cfg(loom)]
    loads: Option<atomic::AtomicU64>,
}

impl AtomicU64 {
    /// As in `core`.
    pub fn new(value: u64) -> Self {
        Self {
            word: atomic::AtomicU64::new(value),
            #[cfg(loom)]
            loads: WATCHES.get().then(|| atomic::AtomicU64::new(0)),
        }
    }

    /// As in `core`.
    pub fn load(&self, order: Ordering) -> u64 {
        spend();
        #[cfg(loom)]
        if let Some(loads) = &self.loads {
            loads.swap(0, Ordering::Relaxed);
        }
        self.word.load(order)
    }

    /// As in `core`. Nothing here stores; tests plant bugs with it.
    pub fn store(&self, value: u64, order: Ordering) {
        spend();
        self.word.store(value, order);
    }

    /// As in `core`.
    pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        spend();
        self.word.fetch_add(value, order)
    }

    /// As in `core`.
    pub fn swap(&self, value: u64, order: Ordering) -> u64 {
        spend();
        self.word.swap(value, order)
    }

    /// As in `core`.
    pub fn compare_exchange(
        &self,
        from: u64,
        to: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        spend();
        self.word.compare_exchange(from, to, success, failure)
    }
}

/// 128 bits, of which a model uses few. The squeeze loses nothing, and asserts that.
#[derive(Debug)]
pub(crate) struct AtomicU128(AtomicU64);

/// Bits kept from the top and the bottom of the word, and of the tag.
const WORD: (u32, u32) = (14, 20);
const TAG: (u32, u32) = (20, 10);

fn squeeze_half(half: u64, (top, bottom): (u32, u32)) -> u64 {
    let squeezed = (half >> (64 - top)) << bottom | (half & ((1 << bottom) - 1));
    assert_eq!(widen_half(squeezed, (top, bottom)), half, "too large for a model: {half:#x}");
    squeezed
}

fn widen_half(squeezed: u64, (top, bottom): (u32, u32)) -> u64 {
    (squeezed >> bottom) << (64 - top) | (squeezed & ((1 << bottom) - 1))
}

fn squeeze(wide: u128) -> u64 {
    let tag = squeeze_half((wide >> 64) as u64, TAG);
    tag << (WORD.0 + WORD.1) | squeeze_half(wide as u64, WORD)
}

fn widen(narrow: u64) -> u128 {
    let word_bits = WORD.0 + WORD.1;
    let tag = widen_half(narrow >> word_bits, TAG);
    let word = widen_half(narrow & ((1 << word_bits) - 1), WORD);
    u128::from(tag) << 64 | u128::from(word)
}

impl AtomicU128 {
    pub(crate) fn new(value: u128) -> Self {
        Self(AtomicU64::new(squeeze(value)))
    }

    pub(crate) fn load(&self, order: Ordering) -> u128 {
        widen(self.0.load(order))
    }

    pub(crate) fn compare_exchange(
        &self,
        from: u128,
        to: u128,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u128, u128> {
        let swapped = self.0.compare_exchange(squeeze(from), squeeze(to), success, failure);
        swapped.map(widen).map_err(widen)
    }
}
