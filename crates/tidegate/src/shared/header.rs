//! [`Header`]: the first part of a shared file.
//!
//! # Orderings
//! The words of a header are written before others can see the file. Of those that change later, an
//! entry's state is swapped in with `Release` after the entry's words, and loaded with `Acquire` before
//! them. The end is only used under the file's lock, and the time is a lone value.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;

use ahash::RandomState;
use tidegate_core::{AtomicU64, Timestamp};

use super::directory::{self, Entry};
use super::error::SharedFileError;
use crate::pages::Pages;

/// The mapped header:
///
/// | word | field |
/// |---|---|
/// | 0 | "TIDEGATE", the first byte lowest |
/// | 1 | version of the format |
/// | 2 | what a known value hashes to |
/// | 3 to 6 | secret of the hasher |
/// | 7 | what the identity of the boot in which all tables were last found sound hashes to |
/// | 8 | latest time that was seen, ns since the Unix epoch |
/// | 16 | end of the last table, in bytes from the start |
/// | from 64 | directory of tables |
#[derive(Debug)]
pub(super) struct Header {
    words: Pages<AtomicU64>,
}

const MAGIC: u64 = u64::from_le_bytes(*b"TIDEGATE");
const VERSION: u64 = 1;
const SECRET: usize = 3;
const BOOT: usize = 7;
const LATEST: usize = 8;
const END: usize = 16;
const DIRECTORY: usize = 64;

/// The header's length. Tables begin after it.
pub(super) const BYTES: u64 = Pages::<AtomicU64>::ALIGN;
const WORDS: usize = BYTES as usize / size_of::<AtomicU64>();

const _: () = assert!(DIRECTORY + directory::ENTRIES * directory::ENTRY_WORDS <= WORDS);

/// The first words of a new file with a random secret.
pub(super) fn fresh(secret: [u64; 4]) -> Vec<u8> {
    let mut words = vec![0_u64; WORDS];
    words[..3].copy_from_slice(&[MAGIC, VERSION, probe(secret)]);
    words[SECRET..SECRET + 4].copy_from_slice(&secret);
    words[END] = BYTES;
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Tells hashers apart: builds may differ in how they hash, and would not find each other's keys.
fn probe(secret: [u64; 4]) -> u64 {
    hasher(secret).hash_one(("tidegate", 1_u64))
}

fn hasher([a, b, c, d]: [u64; 4]) -> RandomState {
    RandomState::with_seeds(a, b, c, d)
}

impl Header {
    /// The header of an open file, once it is found to be sound.
    pub(super) fn of(path: &Path, file: &File) -> Result<Self, SharedFileError> {
        let metadata =
            || file.metadata().map_err(|error| SharedFileError::io(path, "look at", &error));
        if !metadata()?.is_file() {
            return Err(SharedFileError::NotAFile { path: path.to_owned() });
        }
        let mut magic = [0; 8];
        let read = read_start(file, &mut magic);
        read.map_err(|error| SharedFileError::io(path, "read", &error))?;
        if magic != MAGIC.to_ne_bytes() {
            return Err(SharedFileError::Foreign { path: path.to_owned() });
        }
        let has = |needed| match metadata()?.len() {
            bytes if bytes >= needed => Ok(()),
            bytes => Err(SharedFileError::Truncated { path: path.to_owned(), bytes, needed }),
        };
        has(BYTES)?;
        let words = Pages::of_file(file, 0, WORDS)
            .map_err(|error| SharedFileError::io(path, "map", &error))?;
        let header = Self { words };
        let version = header.word(1);
        if version != VERSION {
            let path = path.to_owned();
            return Err(SharedFileError::Version { path, version, known: VERSION });
        }
        if header.word(2) != probe(header.secret()) {
            return Err(SharedFileError::Hasher { path: path.to_owned() });
        }
        if header.word(LATEST) > Timestamp::MAX.as_nanos() {
            return Err(SharedFileError::damaged(path, "its time is out of range"));
        }
        let end = header.entries(path)?.iter().map(Entry::end).max();
        // Others may be adding tables: only now is the file as long as what was read needs.
        has(end.unwrap_or(BYTES).max(header.end()))?;
        Ok(header)
    }

    pub(super) fn hasher(&self) -> RandomState {
        hasher(self.secret())
    }

    /// The latest time that anybody saw, in nanoseconds. A lone value, which is only made later.
    #[inline]
    pub(super) fn latest_word(&self) -> &AtomicU64 {
        &self.words[LATEST]
    }

    /// Where the last table ends.
    pub(super) fn end(&self) -> u64 {
        // Acquire: pairs with the release of who made the file that long.
        self.words[END].load(Ordering::Acquire)
    }

    /// The tables, once each is found to be sound.
    pub(super) fn entries(&self, path: &Path) -> Result<Vec<Entry>, SharedFileError> {
        let mut entries = Vec::new();
        for index in 0..directory::ENTRIES {
            // Acquire: pairs with the release that committed the entry.
            let state = self.entry_words(index)[0].load(Ordering::Acquire);
            if state == directory::COMMITTED {
                let entry = Entry::read(self.entry_words(index));
                let damaged = || SharedFileError::damaged(path, "its directory is not one");
                entries.push(entry.ok_or_else(damaged)?);
            }
        }
        entries.sort_by_key(|entry| entry.offset);
        if entries.windows(2).any(|pair| pair[0].end() > pair[1].offset) {
            return Err(SharedFileError::damaged(path, "its tables overlap"));
        }
        Ok(entries)
    }

    /// Whether the machine may have stopped since the tables were last found sound.
    pub(super) fn is_of_another_boot(&self) -> bool {
        // Acquire: pairs with the release of who has mended them.
        self.words[BOOT].load(Ordering::Acquire) != self.boot()
    }

    /// The tables are sound in this boot. With the file's lock held.
    pub(super) fn is_sound(&self) {
        // Release: whoever sees it sees the tables as they were mended.
        self.words[BOOT].store(self.boot(), Ordering::Release);
    }

    /// Tells boots of the machine apart; 1 where the system does not say.
    fn boot(&self) -> u64 {
        let identity = std::fs::read("/proc/sys/kernel/random/boot_id");
        identity.map_or(1, |identity| self.hasher().hash_one(identity))
    }

    pub(super) fn unused_entry(&self) -> Option<usize> {
        // Relaxed: under the file's lock, nobody else writes.
        let state = |index: &usize| self.entry_words(*index)[0].load(Ordering::Relaxed);
        (0..directory::ENTRIES).find(|index| state(index) != directory::COMMITTED)
    }

    /// Writes an entry, and then lets others see it. With the file's lock held.
    pub(super) fn commit(&self, index: usize, entry: &Entry) {
        // First, so that a process that dies here leaves room unused, and never used twice.
        // Release: whoever sees it finds the file that long.
        self.words[END].fetch_max(entry.end(), Ordering::Release);
        let words = self.entry_words(index);
        for (word, value) in words.iter().zip(entry.words()).skip(1) {
            word.store(value, Ordering::Relaxed); // published below
        }
        // Release: pairs with the acquire of who reads the entry.
        words[0].store(directory::COMMITTED, Ordering::Release);
    }

    fn entry_words(&self, index: usize) -> &[AtomicU64] {
        let start = DIRECTORY + index * directory::ENTRY_WORDS;
        &self.words[start..start + directory::ENTRY_WORDS]
    }

    fn secret(&self) -> [u64; 4] {
        std::array::from_fn(|index| self.word(SECRET + index))
    }

    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.words[index].load(Ordering::Relaxed) // see the module's docs
    }
}

/// As much of the file's start as there is.
fn read_start(mut file: &File, into: &mut [u8]) -> std::io::Result<()> {
    use std::io::Read;
    let mut read = 0;
    while read < into.len() {
        match file.read(&mut into[read..])? {
            0 => return Ok(()),
            bytes => read += bytes,
        }
    }
    Ok(())
}
