//! [`Pages`]: memory of atomics, of this process alone or of a file that processes share.
//!
//! The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::slice;

use memmap2::{MmapOptions, MmapRaw};
use tidegate_core::{AtomicU64, Hold, Line, Tally};

/// A slice in pages of its own: it begins as zeros, or as what a file holds.
pub struct Pages<T> {
    map: MmapRaw,
    len: usize,
    items: PhantomData<T>,
}

/// A type that any bits are a value of, and that any thread or process may use through a shared
/// reference while others do.
///
/// # Safety
/// Memory of any bytes must be a valid `Self`, at each moment while others change it, and `Self` must
/// not need to be dropped.
pub unsafe trait Shareable: Sync + Send {}

// SAFETY: any bits are a number, and an atomic has the layout of its number.
unsafe impl Shareable for AtomicU64 {}

// SAFETY: an array of atomic numbers, see above.
unsafe impl Shareable for Line {}

// SAFETY: four atomic numbers, see above.
unsafe impl Shareable for Hold {}

// SAFETY: two atomic numbers, see above.
unsafe impl Shareable for Tally {}

impl<T: Shareable> Pages<T> {
    /// Where a part of a file may begin: a multiple of so many bytes. It is the largest page that
    /// systems use without being asked.
    pub const ALIGN: u64 = 1 << 16;

    /// So many zeros, of this process alone.
    ///
    /// They come straight from the system, which is asked for large pages, so that a look into a large
    /// table misses the page tables less often: where the system grants them, that saves up to a fifth
    /// of a decision on a million keys. The pages are brought in at once, so that no decision has to
    /// wait for one.
    ///
    /// # Panics
    /// When the system has no memory for them.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let bytes = Self::bytes(len).expect("memory that can be addressed");
        // An empty map is an error to some systems.
        let map = match MmapOptions::new().len(bytes.max(1)).map_anon() {
            Ok(map) => map,
            Err(error) => panic!("no memory for a table of {bytes} bytes: {error}"),
        };
        #[cfg(target_os = "linux")]
        {
            use memmap2::Advice;
            // Either may be refused, by old systems or by their settings: then it is only slower.
            let _ = map.advise(Advice::HugePage);
            let _ = map.advise(Advice::PopulateWrite);
        }
        Self { map: MmapRaw::from(map), len, items: PhantomData }
    }

    /// So many items of a file from `offset` on, which is a multiple of [`ALIGN`](Self::ALIGN). What
    /// is written reaches all who map them.
    ///
    /// The file must have blocks for all of them, and must not be cut off later: a look at what is
    /// then missing ends the process.
    ///
    /// # Errors
    /// When the file ends before, or the system does not map it.
    pub fn of_file(file: &File, offset: u64, len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len).ok_or(io::ErrorKind::OutOfMemory)?;
        let end = offset.checked_add(bytes as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        if !offset.is_multiple_of(Self::ALIGN) || file.metadata()?.len() < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let map = MmapOptions::new().offset(offset).len(bytes.max(1)).map_raw(file)?;
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::PopulateRead); // as above, but no page need be written back
        Ok(Self { map, len, items: PhantomData })
    }

    fn bytes(len: usize) -> Option<usize> {
        const { assert!(!std::mem::needs_drop::<T>() && align_of::<T>() <= 4096) };
        len.checked_mul(size_of::<T>())
    }
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the map is at least `len` items long, aligned to pages and so to `T`, and lives as
        // long as `self`. Whatever its bytes are, and whoever changes them meanwhile, `Shareable` says
        // that they are items: all of them are atomics, so there is no data race to speak of. (A file
        // that is cut off ends the process, and gives no wrong answer.)
        unsafe { slice::from_raw_parts(self.map.as_ptr().cast::<T>(), self.len) }
    }
}

impl<T> AsRef<[T]> for Pages<T> {
    #[inline]
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T> fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items of {} bytes", self.len, size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn pages_begin_as_zeros_and_keep_what_is_written() {
        let pages = Pages::<AtomicU64>::zeroed(100_000);
        assert_eq!(pages.len(), 100_000);
        assert!(pages.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        pages[99_999].store(7, Ordering::Relaxed);
        assert_eq!(pages[99_999].load(Ordering::Relaxed), 7);
        assert!(Pages::<AtomicU64>::zeroed(0).is_empty());
    }
}
