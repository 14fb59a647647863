//! [`Entry`]: what a shared file says of one of its tables.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;

use tidegate_core::{AtomicU64, Hold, Line, Tally};

use super::header;
use super::holds::Notes;
use crate::memory::{self, Memory};
use crate::pages::Pages;

/// An entry of the directory:
///
/// | word | field |
/// |---|---|
/// | 0 | state: 1 when committed, anything else when unused |
/// | 1 | offset of the table, in bytes from the start of the file |
/// | 2 | lines |
/// | 3 | ring words for each slot |
/// | 4 | lengths: of the name in the low half, of the limit in the high half |
/// | 5 | what it is: 0 for a table, 1 for the notes of what is reserved in the table of that name, 2 for counters |
/// | 8 to 15 | name, UTF-8 |
/// | 16 to 63 | limit, as text |
///
/// A table begins with its tally; then come its lines, and its ring, each on pages of its own. Notes begin
/// with the time when somebody last looked for expired ones; then come their records, as long as lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) limit: String,
    pub(super) offset: u64,
    pub(super) lines: usize,
    pub(super) ring_words: usize,
    pub(super) kind: Kind,
}

/// What an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table = 0,
    Notes = 1,
    Counts = 2,
}

const _: () = assert!(size_of::<Hold>() == size_of::<Line>());

pub(super) const ENTRIES: usize = 120;
pub(super) const ENTRY_WORDS: usize = 64;
pub(super) const COMMITTED: u64 = 1;
pub(super) const NAME_BYTES: usize = 64;
const KIND: usize = 5;
const NAME: usize = 8;
const LIMIT: usize = 16;
const LIMIT_BYTES: usize = (ENTRY_WORDS - LIMIT) * 8;
const ALIGN: u64 = Pages::<AtomicU64>::ALIGN;

impl Entry {
    /// `None` when the table cannot be addressed.
    pub(super) fn new(
        name: &str,
        limit: &str,
        offset: u64,
        keys: usize,
        ring_words: usize,
    ) -> Option<Self> {
        let (name, limit) = (name.to_owned(), limit.to_owned());
        let lines = memory::lines(keys, ring_words);
        let entry = Self { name, limit, offset, lines, ring_words, kind: Kind::Table };
        (entry.limit.len() <= LIMIT_BYTES && entry.lines > 0 && entry.checked_end().is_some())
            .then_some(entry)
    }

    /// The entry for counters. `None` when they cannot be addressed.
    pub(super) fn of_counts(name: &str, offset: u64, keys: usize) -> Option<Self> {
        let lines = Line::for_keys(keys);
        Some(Self { kind: Kind::Counts, lines, ..Self::new(name, "", offset, keys, 0)? })
    }

    /// The entry for the notes of a table, at another offset.
    pub(super) fn of_notes(table: &Self, offset: u64) -> Self {
        Self { offset, lines: Notes::RECORDS, ring_words: 0, kind: Kind::Notes, ..table.clone() }
    }

    pub(super) fn is(&self, kind: Kind, name: &str, limit: &str) -> bool {
        (self.kind, &*self.name, &*self.limit) == (kind, name, limit)
    }

    /// The entry in these words, if they are one.
    pub(super) fn read(words: &[AtomicU64]) -> Option<Self> {
        // Relaxed: published by the state, which was read before.
        let word = |index: usize| words[index].load(Ordering::Relaxed);
        let number = |index| usize::try_from(word(index)).ok();
        let lengths = word(4);
        let text = |at: usize, bytes: u64, most: usize| {
            let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= most)?;
            let all: Vec<u8> = (at..at + most / 8).flat_map(|at| word(at).to_le_bytes()).collect();
            String::from_utf8(all[..bytes].to_vec()).ok()
        };
        let entry = Self {
            name: text(NAME, lengths & u64::from(u32::MAX), NAME_BYTES)?,
            limit: text(LIMIT, lengths >> 32, LIMIT_BYTES)?,
            offset: word(1),
            lines: number(2)?,
            ring_words: number(3)?,
            kind: match word(KIND) {
                0 => Kind::Table,
                1 => Kind::Notes,
                2 => Kind::Counts,
                _ => return None,
            },
        };
        let is_sound = entry.offset >= header::BYTES
            && entry.offset.is_multiple_of(ALIGN)
            && entry.lines > 0
            && entry.checked_end().is_some();
        is_sound.then_some(entry)
    }

    pub(super) fn words(&self) -> [u64; ENTRY_WORDS] {
        let mut words = [0; ENTRY_WORDS];
        words[..4].copy_from_slice(&[
            COMMITTED,
            self.offset,
            self.lines as u64,
            self.ring_words as u64,
        ]);
        words[4] = self.name.len() as u64 | (self.limit.len() as u64) << 32;
        words[KIND] = self.kind as u64;
        for (at, text) in [(NAME, &self.name), (LIMIT, &self.limit)] {
            for (word, bytes) in words[at..].iter_mut().zip(text.as_bytes().chunks(8)) {
                let mut padded = [0; 8];
                padded[..bytes.len()].copy_from_slice(bytes);
                *word = u64::from_le_bytes(padded);
            }
        }
        words
    }

    /// Where the table ends, in bytes from the start of the file.
    pub(super) fn end(&self) -> u64 {
        self.checked_end().unwrap_or(u64::MAX)
    }

    fn checked_end(&self) -> Option<u64> {
        let ring_bytes = (self.ring_len()? as u64).checked_mul(size_of::<AtomicU64>() as u64)?;
        let end = self.ring_offset()?.checked_add(ring_bytes)?.checked_next_multiple_of(ALIGN)?;
        // What files can be as long as.
        (end <= i64::MAX as u64).then_some(end)
    }

    fn lines_offset(&self) -> Option<u64> {
        self.offset.checked_add(ALIGN)
    }

    fn ring_offset(&self) -> Option<u64> {
        let bytes = (self.lines as u64).checked_mul(size_of::<Line>() as u64)?;
        self.lines_offset()?.checked_add(bytes)?.checked_next_multiple_of(ALIGN)
    }

    fn ring_len(&self) -> Option<usize> {
        self.lines.checked_mul(Line::SLOTS)?.checked_mul(self.ring_words)
    }

    /// The table's memory.
    pub(super) fn map(&self, file: &File) -> io::Result<Memory> {
        let (Some(lines_at), Some(ring_at), Some(ring_len)) =
            (self.lines_offset(), self.ring_offset(), self.ring_len())
        else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let tally = Pages::<Tally>::of_file(file, self.offset, 1)?;
        let lines = Pages::of_file(file, lines_at, self.lines)?;
        // One without a ring has nothing to map, and the file may end there.
        let ring = match ring_len {
            0 => Pages::zeroed(0),
            words => Pages::of_file(file, ring_at, words)?,
        };
        Ok(Memory::mapped(lines, ring, tally))
    }

    /// The notes.
    pub(super) fn map_notes(&self, file: &File) -> io::Result<Notes> {
        let Some(records_at) = self.lines_offset() else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let looked_at = Pages::of_file(file, self.offset, 1)?;
        Ok(Notes::new(Pages::of_file(file, records_at, self.lines)?, looked_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let entry = Entry::new("users", "token-bucket, 100 per minute", ALIGN, 1_000, 31).unwrap();
        let words = entry.words().map(AtomicU64::new);
        assert_eq!(Entry::read(&words), Some(entry));
    }

    #[test]
    fn entries_that_somebody_made_up_are_refused() {
        let entry = Entry::new("users", "token-bucket, 100 per minute", ALIGN, 1_000, 31).unwrap();
        for (index, value) in [
            (1, 0),
            (1, ALIGN + 1),
            (1, u64::MAX),
            (2, 0),
            (2, u64::MAX),
            (2, 1 << 58),
            (3, u64::MAX),
            (4, 65),
            (4, 385 << 32),
            (5, 3),
            (8, u64::MAX),
        ] {
            let words = entry.words().map(AtomicU64::new);
            words[index].store(value, Ordering::Relaxed);
            assert_eq!(Entry::read(&words), None, "word {index}: {value}");
        }
    }
}
