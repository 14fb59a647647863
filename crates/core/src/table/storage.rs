//! Where a table's slots lie.

use core::fmt;

use super::slot::{self, Line, SLOTS};
use crate::sync::{AtomicU64, Ordering, const_unless_model};

/// The memory of a [`Table`](crate::Table): on the stack, the heap, or shared between processes.
pub trait Storage {
    /// The slots. The same ones at every call.
    fn lines(&self) -> &[Line];

    /// The ring words, [`Protocol::ring_words`](crate::Protocol::ring_words) for each slot.
    fn ring(&self) -> &[AtomicU64];

    /// The counters.
    fn tally(&self) -> &Tally;

    /// Has a line brought into the processor's cache, if there is one of that index, and waits for nothing.
    ///
    /// By itself, it loads a word of it that nobody waits for. Storages whose crate allows itself `unsafe`
    /// have an instruction for it, which keeps no place in the processor while the line is on its way.
    #[inline]
    fn prefetch(&self, line: usize) {
        if let Some(line) = self.lines().get(line) {
            core::hint::black_box(slot::load(&line.slots()[0]));
        }
    }
}

/// Borrowed memory.
#[derive(Debug, Clone, Copy)]
pub struct Borrowed<'a> {
    lines: &'a [Line],
    ring: &'a [AtomicU64],
    tally: &'a Tally,
}

impl<'a> Borrowed<'a> {
    /// Slots, ring words (none for algorithms of one word) and counters.
    #[must_use]
    pub const fn new(lines: &'a [Line], ring: &'a [AtomicU64], tally: &'a Tally) -> Self {
        Self { lines, ring, tally }
    }
}

impl Storage for Borrowed<'_> {
    #[inline]
    fn lines(&self) -> &[Line] {
        self.lines
    }

    #[inline]
    fn ring(&self) -> &[AtomicU64] {
        self.ring
    }

    #[inline]
    fn tally(&self) -> &Tally {
        self.tally
    }
}

/// How often new keys found their set full.
#[derive(Debug)]
#[repr(C)] // processes share it
pub struct Tally {
    denied: AtomicU64,
    taken_over: AtomicU64,
}

impl Tally {
    const_unless_model! {
        /// Counters at zero.
        #[must_use]
        pub fn new() -> Self {
            Self { denied: AtomicU64::new(0), taken_over: AtomicU64::new(0) }
        }
    }

    /// Decisions denied because every slot was held by a live key.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed) // a lone count, read for people
    }

    /// Live keys that lost their slot, and with it what they had spent.
    #[must_use]
    pub fn taken_over(&self) -> u64 {
        self.taken_over.load(Ordering::Relaxed) // a lone count, read for people
    }

    pub(super) fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed); // nothing hangs on its order
    }

    pub(super) fn count_taken_over(&self) {
        self.taken_over.fetch_add(1, Ordering::Relaxed); // nothing hangs on its order
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a storage does not fit a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// The storage has no line.
    NoLines,
    /// The storage has too few ring words.
    Ring {
        /// The ring words it has.
        words: usize,
        /// The ring words that its slots need.
        needed: usize,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoLines => f.write_str("a table without lines has no room; give at least 1"),
            Self::Ring { words, needed } => {
                write!(f, "{words} ring words are too few for the algorithm; give {needed}")
            }
        }
    }
}

impl core::error::Error for TableError {}

/// Whether the storage has what a table with so many ring words per slot needs.
pub(super) fn check<S: Storage>(storage: &S, ring_words: usize) -> Result<(), TableError> {
    let (lines, words) = (storage.lines().len(), storage.ring().len());
    if lines == 0 {
        return Err(TableError::NoLines);
    }
    let needed = lines.saturating_mul(SLOTS).saturating_mul(ring_words);
    if words < needed {
        return Err(TableError::Ring { words, needed });
    }
    Ok(())
}
