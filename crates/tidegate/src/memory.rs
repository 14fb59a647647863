//! [`Memory`]: where a table lies.

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
    /// # Panics
    /// When the system has no memory for that.
    #[must_use]
    pub fn for_keys(keys: usize, ring_words: usize) -> Self {
        let lines = Pages::zeroed(Line::for_keys(keys));
        let words = lines.len().saturating_mul(Line::SLOTS).saturating_mul(ring_words);
        Self { lines, ring: Pages::zeroed(words), tally: Pages::zeroed(1) }
    }

    /// How many bytes [`for_keys`](Self::for_keys) allocates; `None` when they cannot be addressed.
    #[must_use]
    pub fn bytes_for_keys(keys: usize, ring_words: usize) -> Option<usize> {
        let lines = Line::for_keys(keys);
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
}
