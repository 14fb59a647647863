//! [`SharedFileError`]: why a shared file cannot be used.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a [`SharedFile`](crate::SharedFile) cannot be used. Nothing was changed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SharedFileError {
    /// There is no such file.
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is a folder, a device or a pipe.
    NotAFile {
        /// Where it is.
        path: PathBuf,
    },
    /// It is no shared file, or one of a machine with another order of bytes.
    Foreign {
        /// Where it is.
        path: PathBuf,
    },
    /// It was made by another version.
    Version {
        /// Where it is.
        path: PathBuf,
        /// The version of its format.
        version: u64,
        /// The version that this program knows.
        known: u64,
    },
    /// It was made by a program that hashes keys in another way, and would not find them.
    Hasher {
        /// Where it is.
        path: PathBuf,
    },
    /// It was cut off.
    Truncated {
        /// Where it is.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The length that it says it has.
        needed: u64,
    },
    /// Its header says what cannot be.
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The name of a table is empty or too long.
    Name {
        /// The name.
        name: String,
    },
    /// A table takes more than can be addressed, or has room for no key.
    TooLarge {
        /// The table.
        name: String,
        /// The keys that were asked for.
        keys: usize,
    },
    /// The file has no entry left for one more table.
    TooManyTables,
    /// The processor cannot swap 16 bytes as one.
    Processor,
    /// The system refused.
    Io {
        /// The file.
        path: PathBuf,
        /// What was to be done with it: a verb.
        doing: &'static str,
        /// The kind of refusal.
        kind: io::ErrorKind,
        /// The system's words.
        message: String,
    },
}

impl SharedFileError {
    pub(super) fn io(path: &Path, doing: &'static str, error: &io::Error) -> Self {
        let (path, message) = (path.to_owned(), error.to_string());
        Self::Io { path, doing, kind: error.kind(), message }
    }

    pub(super) fn opening(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            // Of a folder that is missing, creating the file will tell.
            io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            io::ErrorKind::IsADirectory => Self::NotAFile { path: path.to_owned() },
            _ => Self::io(path, "open for reading and writing", error),
        }
    }

    pub(super) fn damaged(path: &Path, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), what }
    }
}

impl fmt::Display for SharedFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path } => write!(f, "there is no file {}", path.display()),
            Self::NotAFile { path } => {
                write!(f, "{} is not a file; give the path of one", path.display())
            }
            Self::Foreign { path } => write!(
                f,
                "{} is not a file of Tidegate's tables; give another path, or move it away",
                path.display()
            ),
            Self::Version { path, version, known } => write!(
                f,
                "{} has format {version}, and this program knows {known}; use the program that made it, \
                 or move it away to begin afresh",
                path.display()
            ),
            Self::Hasher { path } => write!(
                f,
                "{} was made by a build that hashes keys in another way; use one build for all who \
                 share it, or move it away to begin afresh",
                path.display()
            ),
            Self::Truncated { path, bytes, needed } => write!(
                f,
                "{} was cut off: it has {bytes} bytes of {needed}; put it back from a copy, or move it \
                 away to begin afresh",
                path.display()
            ),
            Self::Damaged { path, what } => write!(
                f,
                "{} is damaged: {what}; put it back from a copy, or move it away to begin afresh",
                path.display()
            ),
            Self::Name { name } => write!(
                f,
                "`{name}` is not a name for a table; use 1 to {} bytes",
                super::directory::NAME_BYTES
            ),
            Self::TooLarge { name, keys } => write!(
                f,
                "a table `{name}` for {keys} keys cannot be made; give at least 1 key, and fewer than \
                 fill the disk"
            ),
            Self::TooManyTables => write!(
                f,
                "the file has {} tables already; move it away to begin afresh",
                super::directory::ENTRIES
            ),
            Self::Processor => f.write_str(
                "this processor cannot swap 16 bytes as one, which processes that share a file need; \
                 use limiters in memory",
            ),
            Self::Io { path, doing, message, .. } => {
                write!(f, "cannot {doing} {}: {message}", path.display())
            }
        }
    }
}

impl std::error::Error for SharedFileError {}
