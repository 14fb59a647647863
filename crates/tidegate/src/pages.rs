//! [`Pages`]: memory of atomics, of this process alone or of a file that processes share.
//!
//! The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use tidegate_core::{AtomicU64, Hold, Line, Tally};

/// A slice in pages of its own: it begins as zeros, or as what a file holds. Its clones are the same
/// pages, which go back to the system with the last of them.
pub struct Pages<T> {
    /// Where the map begins, so that a look at an item does not go through the `Arc`.
    start: *const T,
    len: usize,
    map: Arc<MmapRaw>,
}

// SAFETY: the items are only given out as shared references, which `Shareable` lets any thread have; the
// map itself is `Send` and `Sync`, and `start` points into it.
unsafe impl<T: Shareable> Send for Pages<T> {}

// SAFETY: as above.
unsafe impl<T: Shareable> Sync for Pages<T> {}

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
        match Self::try_zeroed(len) {
            Ok(pages) => pages,
            Err(error) => panic!("no memory for {len} of {} bytes: {error}", size_of::<T>()),
        }
    }

    /// As [`zeroed`](Self::zeroed), where a lack of memory is no bug.
    ///
    /// # Errors
    /// When the system has no memory for them.
    pub fn try_zeroed(len: usize) -> io::Result<Self> {
        let pages = Self::sparse(len)?;
        let map = &pages.map;
        #[cfg(target_os = "linux")]
        {
            use memmap2::Advice;
            // Either may be refused, by old systems or by their settings: then it is only slower.
            let _ = map.advise(Advice::HugePage);
            let _ = map.advise(Advice::PopulateWrite);
        }
        Ok(pages)
    }

    /// So many zeros, of this process alone, that take memory only where they have been written to: for
    /// far more than will be in use. Who writes where nobody has before waits for the system.
    ///
    /// # Errors
    /// When the system has no addresses for them.
    pub fn sparse(len: usize) -> io::Result<Self> {
        let bytes = Self::bytes(len).ok_or(io::ErrorKind::OutOfMemory)?;
        // An empty map is an error to some systems.
        let map = MmapOptions::new().len(bytes.max(1)).no_reserve_swap().map_anon()?;
        Ok(Self::over(MmapRaw::from(map), len))
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
        Ok(Self::over(map, len))
    }

    /// So many items of a map that is long enough for them.
    fn over(map: MmapRaw, len: usize) -> Self {
        Self { start: map.as_ptr().cast::<T>(), len, map: Arc::new(map) }
    }

    /// Has an item brought into the processor's cache, if there is one of that index, and does not wait.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        if index >= self.len {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the pointer stays within the map, which has `len` items; and a prefetch reads nothing that
        // the program sees, wherever it points.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.start.add(index).cast());
        }
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
        // SAFETY: the map that begins at `start` is at least `len` items long, aligned to pages and so to
        // `T`, and lives as long as `self`, which holds it. Whatever its bytes are, and whoever changes them meanwhile, `Shareable` says
        // that they are items: all of them are atomics, so there is no data race to speak of. (A file
        // that is cut off ends the process, and gives no wrong answer.)
        unsafe { slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> Clone for Pages<T> {
    fn clone(&self) -> Self {
        Self { start: self.start, len: self.len, map: self.map.clone() }
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

    #[test]
    fn clones_are_the_same_pages_and_outlive_each_other() {
        let pages = Pages::<AtomicU64>::zeroed(10);
        let clone = pages.clone();
        pages[3].store(7, Ordering::Relaxed);
        drop(pages);
        assert_eq!(clone[3].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn sparse_pages_can_be_more_than_the_machine_has() {
        let words = 1 << 35; // 256 GiB
        let pages = Pages::<AtomicU64>::sparse(words).unwrap();
        assert_eq!(pages[words - 1].load(Ordering::Relaxed), 0);
        pages[words / 2].store(7, Ordering::Relaxed);
        assert_eq!(pages[words / 2].load(Ordering::Relaxed), 7);
    }
}
