//! [`Memory`]: where a table lies.

use std::io;

use tidegate_core::{AtomicU64, Line, Storage, Tally};

use crate::pages::Pages;

/// A table's memory: of this process alone, or of a file that processes share. Its clones are the same
/// memory.
#[derive(Debug, Clone)]
pub struct Memory {
    lines: Pages<Line>,
    ring: Pages<AtomicU64>,
    tally: Pages<Tally>,
}

impl Memory {
    /// Memory of this process with room for `keys` live keys and `ring_words` words beside each slot.
    ///
    /// Where that is none, slots are cheap, and few keys get [more of them](Line::roomy_for_keys).
    ///
    /// # Panics
    /// When the system has no memory for that.
    #[must_use]
    pub fn for_keys(keys: usize, ring_words: usize) -> Self {
        match Self::try_for_keys(keys, ring_words) {
            Ok(memory) => memory,
            Err(error) => {
                panic!("no memory for {keys} keys with {ring_words} words each: {error}")
            }
        }
    }

    /// As [`for_keys`](Self::for_keys), where a lack of memory is no bug.
    ///
    /// # Errors
    /// When the system has no memory for that.
    pub fn try_for_keys(keys: usize, ring_words: usize) -> io::Result<Self> {
        let lines = Pages::try_zeroed(lines(keys, ring_words))?;
        let words = lines.len().saturating_mul(Line::SLOTS).saturating_mul(ring_words);
        Ok(Self { lines, ring: Pages::try_zeroed(words)?, tally: Pages::try_zeroed(1)? })
    }

    /// As [`try_for_keys`](Self::try_for_keys), with ring words that take memory only where they have been
    /// written to: for a log of far more units than callers spend.
    ///
    /// # Errors
    /// When the system has no memory for the slots, or no addresses for the ring words.
    pub fn sparse_for_keys(keys: usize, ring_words: usize) -> io::Result<Self> {
        let lines = Pages::try_zeroed(lines(keys, ring_words))?;
        let words = lines.len().saturating_mul(Line::SLOTS).saturating_mul(ring_words);
        Ok(Self { lines, ring: Pages::sparse(words)?, tally: Pages::try_zeroed(1)? })
    }

    /// How many bytes [`for_keys`](Self::for_keys) allocates; `None` when they cannot be addressed.
    #[must_use]
    pub fn bytes_for_keys(keys: usize, ring_words: usize) -> Option<usize> {
        let lines = lines(keys, ring_words);
        let ring =
            lines.checked_mul(Line::SLOTS * size_of::<AtomicU64>())?.checked_mul(ring_words)?;
        lines.checked_mul(size_of::<Line>())?.checked_add(ring)
    }

    /// The parts of a table in a file.
    pub(crate) const fn mapped(
        lines: Pages<Line>,
        ring: Pages<AtomicU64>,
        tally: Pages<Tally>,
    ) -> Self {
        Self { lines, ring, tally }
    }
}

/// How many lines a table has, in memory and in a file: so that both are as quick.
pub(crate) const fn lines(keys: usize, ring_words: usize) -> usize {
    if ring_words == 0 { Line::roomy_for_keys(keys) } else { Line::for_keys(keys) }
}

/// So many ring words.
pub(crate) fn ring(words: usize) -> Box<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

impl Storage for Memory {
    #[inline]
    fn lines(&self) -> &[Line] {
        &self.lines
    }

    #[inline]
    fn ring(&self) -> &[AtomicU64] {
        &self.ring
    }

    #[inline]
    fn tally(&self) -> &Tally {
        match self.tally.first() {
            Some(tally) => tally,
            None => unreachable!("there is one tally"),
        }
    }

    #[inline]
    fn prefetch(&self, line: usize) {
        self.lines.prefetch(line);
    }
}
