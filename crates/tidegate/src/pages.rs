//! [`Pages`]: memory that begins as zeros, on large pages where there are any.
//!
//! The only `unsafe` of this crate.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::slice;

use memmap2::{MmapOptions, MmapRaw};
use tidegate_core::{AtomicU64, Line};

/// A slice that begins as zeros, in memory of its own.
///
/// Straight from the system, which is asked for large pages, so that a look into a large table misses
/// the page tables less often: where the system grants them, that saves up to a fifth of a decision on
/// a million keys. The pages are brought in at once, so that no decision has to wait for one.
pub struct Pages<T> {
    map: MmapRaw,
    len: usize,
    items: PhantomData<T>,
}

/// A type for which zeros are a value, and that any thread may use through a shared reference.
///
/// # Safety
/// Memory of zero bytes must be a valid `Self` that need not be dropped.
pub unsafe trait Zero: Sync + Send {}

// SAFETY: zero is a number, and an atomic has the layout of its number.
unsafe impl Zero for AtomicU64 {}

// SAFETY: an array of atomic numbers, see above; a `Line` of zeros is a line of empty slots.
unsafe impl Zero for Line {}

impl<T: Zero> Pages<T> {
    /// So many zeros.
    ///
    /// # Panics
    /// When the system has no memory for them.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        const { assert!(!std::mem::needs_drop::<T>() && align_of::<T>() <= 4096) };
        let bytes = len.checked_mul(size_of::<T>()).expect("memory that can be addressed");
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
}

impl<T> Deref for Pages<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the map is at least `len` items long, aligned to pages and so to `T`, and lives as
        // long as `self`. It is private and anonymous, so nobody else can shorten or write it, and it
        // began as zeros, which `Zero` says are items; since then it was only used as `&[T]`.
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
