//! [`SharedFile`]: tables that processes share, in a file that outlives them.

mod clock;
mod create;
mod directory;
mod error;
mod header;
mod holds;
mod table;

pub use clock::SharedClock;
pub use error::SharedFileError;
pub(crate) use holds::Notes;
use holds::OpenNotes;
pub use holds::{ExpiringAccount, SharedHolds};
pub use table::SharedTable;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use tidegate_core::{Line, Protocol};

use crate::clock::Clock;
use crate::counts::{self, Counts};
use crate::keyed::KeyedLimiter;
use crate::limit::Limit;
use crate::memory::Memory;
use crate::pages::Pages;
use directory::{Entry, Kind};
use header::Header;

/// A file of tables that processes share: one limit for all workers of a server, and budgets that
/// survive a restart, with no server to run.
///
/// Every process maps the file and decides in it directly, as fast as in memory of its own. Nothing is
/// locked while tables are in use, so a process that is killed in the middle of a call holds nobody up
/// and leaves nothing half done; what it had charged stays charged.
///
/// # What is in it
/// Tables by name. A table is found again by its name and its limit, so each process says the same and
/// gets the same one. With another limit it is another table, which begins fresh; the former one stays,
/// and is found again when its limit comes back. How many keys a table has room for is settled when it
/// is made; processes that ask for another number get the table as it is.
///
/// # Guarantees
/// - **Exact.** All processes together are admitted what one alone would be.
/// - **Conservative.** Of a process that dies, at most the call under way is lost, and then the error is
///   toward denial: it may have been charged for nothing.
/// - **Private.** The file is readable and writable by its owner only. It holds no keys, only
///   fingerprints under a random secret, which is in the file too.
///
/// # Time
/// See [`SharedClock`]: one time for all processes and boots, which never steps back.
///
/// # Power failure
/// When the machine stops, pages of different times may be on the disk. Such a file is a valid one, and is
/// mended by who opens it first after that. A key can have back what it spent since its page was last
/// written, which systems do within about half a minute.
///
/// # Limits
/// Processes must trust each other: who can write to the file can change what it says. Do not cut the
/// file off, nor put it on a network file system. It is for processes of one machine, built for one
/// kind of processor.
///
/// ```
/// use tidegate::{Cost, Limit, SharedFile};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("limits");
/// let file = SharedFile::open(&path)?; // made if it is not there
/// let limit = Limit::sliding_window_log("10 per minute".parse()?)?;
/// let users = file.limiter::<str>("users", limit, 10_000)?;
/// assert!(users.decide("alice", Cost::new(10)).is_allow());
///
/// // In another process, or after a restart:
/// let file = SharedFile::open(&path)?;
/// let limit = Limit::sliding_window_log("10 per minute".parse()?)?;
/// let users = file.limiter::<str>("users", limit, 10_000)?;
/// assert!(!users.decide("alice", Cost::ONE).is_allow());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedFile {
    path: PathBuf,
    file: File,
    header: Arc<Header>,
    clock: SharedClock,
    reservation_lifetime: Duration,
    notes: OpenNotes,
}

/// The file's lock, until it is dropped: for who adds a table or mends the file.
///
/// It is on a file that was opened for it. A lock on a file that is open already would let through the
/// threads of this process, and a process that was forked from it, which has the same open file.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Not by closing alone: who was forked meanwhile has the file open too.
        let _ = self.0.unlock();
    }
}

impl SharedFile {
    const RESERVATION_LIFETIME: Duration = Duration::from_secs(3_600);

    /// The most tables in a file.
    pub const MAX_TABLES: usize = directory::ENTRIES;

    /// Opens a file, which is made if there is none.
    ///
    /// # Errors
    /// When it cannot be read and written, or is no such file, or one that was cut off, damaged, or
    /// made by another version. The error says which, and what to do. The file is left as it is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SharedFileError> {
        let path = path.as_ref();
        if !Line::is_lock_free() {
            return Err(SharedFileError::Processor);
        }
        match Self::open_existing(path) {
            Err(SharedFileError::Missing { .. }) => {
                create::create(path)?;
                Self::open_existing(path)
            }
            opened => opened,
        }
    }

    /// Opens a file that is there.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is none.
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self, SharedFileError> {
        let path = path.as_ref();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| SharedFileError::opening(path, &error))?;
        let header = Arc::new(Header::of(path, &file)?);
        let clock = SharedClock::new(header.clone());
        let opened = Self {
            path: path.to_owned(),
            file,
            header,
            clock,
            reservation_lifetime: Self::RESERVATION_LIFETIME,
            notes: OpenNotes::default(),
        };
        if opened.header.is_of_another_boot() {
            opened.mend()?;
        }
        Ok(opened)
    }

    /// One limit per key, shared with all who open the same table of the file: at most so many keys at
    /// once, should it have to be made.
    ///
    /// # Errors
    /// When the name is empty or longer than 64 bytes, the file has [`MAX_TABLES`](Self::MAX_TABLES)
    /// others, or the disk has no room.
    pub fn limiter<K: Hash + ?Sized>(
        &self,
        name: &str,
        limit: Limit,
        keys: usize,
    ) -> Result<KeyedLimiter<K, Limit, SharedClock>, SharedFileError> {
        let memory = self.memory(name, &limit, keys)?;
        Ok(KeyedLimiter::in_memory(limit, memory, self.hasher(), self.clock()))
    }

    /// As [`limiter`](Self::limiter), with reservations that expire, so that what a process had reserved
    /// comes back when it dies.
    ///
    /// # Errors
    /// As [`limiter`](Self::limiter).
    pub fn holds<K: Hash + ?Sized>(
        &self,
        name: &str,
        limit: Limit,
        keys: usize,
    ) -> Result<SharedHolds<K>, SharedFileError> {
        let notes = self.open_notes(name, &limit, keys)?;
        Ok(SharedHolds::new(self.limiter(name, limit, keys)?, notes))
    }

    /// Counters that are shared with all who open those of that name, for at most so many keys at once,
    /// should they have to be made.
    ///
    /// # Errors
    /// As [`limiter`](Self::limiter).
    pub fn counts<K: Hash + ?Sized>(
        &self,
        name: &str,
        keys: usize,
    ) -> Result<Counts<K, SharedClock>, SharedFileError> {
        let add = || {
            let too_large = || SharedFileError::TooLarge { name: name.to_owned(), keys };
            Entry::of_counts(name, self.end(), keys).ok_or_else(too_large)
        };
        let entry = self.entry(Kind::Counts, name, "", add)?;
        Ok(Counts::in_memory(self.map_memory(&entry)?, self.hasher(), self.clock()))
    }

    /// The tables of limits that are in the file, to look at.
    ///
    /// # Errors
    /// When the directory is damaged, or has a limit that this version does not know.
    pub fn tables(&self) -> Result<Vec<SharedTable>, SharedFileError> {
        let entries = self.header.entries(&self.path)?;
        let table = |entry: &Entry| {
            let limit: Limit = entry.limit.parse().map_err(|_| {
                SharedFileError::damaged(&self.path, "a table has a limit that is none")
            })?;
            let is_of_it = |other: &&Entry| other.is(Kind::Notes, &entry.name, &entry.limit);
            let notes = entries.iter().find(is_of_it).map(|notes| self.map_notes(notes));
            let memory = self.map(entry, &limit)?;
            Ok(SharedTable::new(entry.name.clone(), limit, memory, notes.transpose()?))
        };
        entries.iter().filter(|entry| entry.kind == Kind::Table).map(table).collect()
    }

    /// How many bytes the file has.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn bytes(&self) -> Result<u64, SharedFileError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|error| SharedFileError::io(&self.path, "look at", &error))?.len())
    }

    /// The same file, where the reservations of policies that do not say otherwise expire after
    /// `lifetime`, in place of an hour. For those who [renew](crate::policy::Policy::renew_reservations)
    /// them.
    #[must_use]
    pub fn with_reservation_lifetime(self, lifetime: Duration) -> Self {
        Self { reservation_lifetime: lifetime, ..self }
    }

    pub(crate) const fn reservation_lifetime(&self) -> Duration {
        self.reservation_lifetime
    }

    /// The time that all who share the file go by.
    #[must_use]
    pub fn clock(&self) -> SharedClock {
        self.clock.clone()
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What hashes keys, the same for all who share the file.
    pub(crate) fn hasher(&self) -> RandomState {
        self.header.hasher()
    }

    /// The memory of a table, which is added if it is not there.
    pub(crate) fn memory(
        &self,
        name: &str,
        limit: &Limit,
        keys: usize,
    ) -> Result<Memory, SharedFileError> {
        let text = limit.to_string();
        let entry = self.entry(Kind::Table, name, &text, || self.new_table(name, limit, keys))?;
        self.map(&entry, limit)
    }

    /// The notes of what is reserved in a table, for all in this process who use this file; both are added if they
    /// are not there.
    pub(crate) fn open_notes(
        &self,
        name: &str,
        limit: &Limit,
        keys: usize,
    ) -> Result<Arc<Notes>, SharedFileError> {
        let text = limit.to_string();
        let table = self.entry(Kind::Table, name, &text, || self.new_table(name, limit, keys))?;
        let add = || Ok(Entry::of_notes(&table, self.end()));
        let entry = self.entry(Kind::Notes, name, &text, add)?;
        self.notes.of(entry.offset, || self.map_notes(&entry))
    }

    /// Makes the tables sound after the machine has stopped. Others that open the file wait.
    fn mend(&self) -> Result<(), SharedFileError> {
        let _locked = self.lock()?;
        let tables = self.tables()?;
        // Somebody may have been first.
        if self.header.is_of_another_boot() {
            for table in &tables {
                table.mend(self.clock.now());
            }
            let entries = self.header.entries(&self.path)?;
            for entry in entries.iter().filter(|entry| entry.kind == Kind::Counts) {
                counts::mend(&self.map_memory(entry)?, self.clock.now());
            }
            self.header.is_sound();
        }
        Ok(())
    }

    fn lock(&self) -> Result<Locked, SharedFileError> {
        let failed = |error| SharedFileError::io(&self.path, "lock", &error);
        let file = self.open_again().map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Locked(file))
    }

    /// The same file, wherever it is by now.
    fn open_again(&self) -> std::io::Result<File> {
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            // Without `/proc`, by its path.
            if let Ok(file) = File::open(open) {
                return Ok(file);
            }
        }
        File::open(&self.path)
    }

    /// The entry of that name and limit, which is added if it is not there.
    fn entry(
        &self,
        kind: Kind,
        name: &str,
        limit: &str,
        new: impl FnOnce() -> Result<Entry, SharedFileError>,
    ) -> Result<Entry, SharedFileError> {
        if name.is_empty() || name.len() > directory::NAME_BYTES {
            return Err(SharedFileError::Name { name: name.to_owned() });
        }
        if let Some(entry) = self.find(kind, name, limit)? {
            return Ok(entry);
        }
        let _locked = self.lock()?;
        // Somebody may have been first.
        match self.find(kind, name, limit)? {
            Some(entry) => Ok(entry),
            None => self.add(new()?),
        }
    }

    fn find(&self, kind: Kind, name: &str, limit: &str) -> Result<Option<Entry>, SharedFileError> {
        let mut entries = self.header.entries(&self.path)?.into_iter();
        Ok(entries.find(|entry| entry.is(kind, name, limit)))
    }

    fn new_table(&self, name: &str, limit: &Limit, keys: usize) -> Result<Entry, SharedFileError> {
        let entry = Entry::new(name, &limit.to_string(), self.end(), keys, limit.ring_words());
        entry.ok_or_else(|| SharedFileError::TooLarge { name: name.to_owned(), keys })
    }

    /// Where the next entry's memory begins. With the file's lock held.
    fn end(&self) -> u64 {
        self.header.end().next_multiple_of(Pages::<Line>::ALIGN)
    }

    /// With the file's lock held.
    fn add(&self, entry: Entry) -> Result<Entry, SharedFileError> {
        let slot = self.header.unused_entry().ok_or(SharedFileError::TooManyTables)?;
        create::allocate(&self.file, entry.offset, entry.end() - entry.offset)
            .map_err(|error| SharedFileError::io(&self.path, "make room in", &error))?;
        self.header.commit(slot, &entry);
        Ok(entry)
    }

    fn map_notes(&self, entry: &Entry) -> Result<Notes, SharedFileError> {
        entry.map_notes(&self.file).map_err(|error| SharedFileError::io(&self.path, "map", &error))
    }

    fn map(&self, entry: &Entry, limit: &Limit) -> Result<Memory, SharedFileError> {
        if entry.ring_words != limit.ring_words() {
            return Err(SharedFileError::damaged(&self.path, "a table's ring is of another size"));
        }
        self.map_memory(entry)
    }

    fn map_memory(&self, entry: &Entry) -> Result<Memory, SharedFileError> {
        entry.map(&self.file).map_err(|error| SharedFileError::io(&self.path, "map", &error))
    }
}

impl fmt::Debug for SharedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_locked_keeps_out_threads_and_who_was_forked() {
        let folder = tempfile::tempdir().unwrap();
        let parent = SharedFile::open(folder.path().join("limits")).unwrap();
        // What a forked process has: the same open file.
        let child = SharedFile {
            path: parent.path.clone(),
            file: parent.file.try_clone().unwrap(),
            header: parent.header.clone(),
            clock: parent.clock.clone(),
            reservation_lifetime: parent.reservation_lifetime,
            notes: OpenNotes::default(),
        };
        let is_locked = |by: &SharedFile| by.open_again().unwrap().try_lock().is_err();
        let locked = parent.lock().unwrap();
        assert!(is_locked(&child) && is_locked(&parent));
        drop(locked);
        assert!(!is_locked(&child) && !is_locked(&parent));
    }
}
