//! [`weighed`]: memory, as the allocator and the system count it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The system's allocator, which counts what is allocated while [`weighed`] runs.
///
/// At other times, it only looks whether it should, so that timings in the same program hold.
#[derive(Debug)]
pub struct Scales;

/// Whether somebody weighs. Relaxed, as the count: one thread weighs and allocates.
static WEIGHING: AtomicBool = AtomicBool::new(false);

/// Bytes that are allocated. What was allocated before and is freed now makes it wrap, and wrap back.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Scales {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WEIGHING.load(Ordering::Relaxed) {
            ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed); // a lone count
        }
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if WEIGHING.load(Ordering::Relaxed) {
            ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed); // a lone count
        }
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if WEIGHING.load(Ordering::Relaxed) {
            ALLOCATED.fetch_add(size.wrapping_sub(layout.size()), Ordering::Relaxed); // it wraps back
        }
        // SAFETY: the caller's promises are those that `System` asks for, which allocated it.
        unsafe { System.realloc(start, layout, size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if WEIGHING.load(Ordering::Relaxed) {
            ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed); // a lone count
        }
        // SAFETY: the caller's promises are those that `System` asks for, which allocated it.
        unsafe { System.dealloc(start, layout) }
    }
}

/// What a thing weighs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// Itself, and what it keeps on the heap.
    pub heap: usize,
    /// By how much the program's mappings grew: its own, and the allocator's for a large heap.
    pub mapped: usize,
}

/// What `make` makes, and what it weighs. `None` where [`Scales`] is not the program's allocator, or
/// the system does not tell how much is mapped, which Linux does.
pub fn weighed<T>(make: impl FnOnce() -> T) -> Option<(T, Weight)> {
    let mapped_before = mapped()?;
    let before = ALLOCATED.load(Ordering::Relaxed); // this thread's own
    WEIGHING.store(true, Ordering::Relaxed); // read by this thread
    let probe = std::hint::black_box(Box::new(0_u8));
    let counts = ALLOCATED.load(Ordering::Relaxed) != before; // this thread's own
    drop(probe);
    let made = make();
    WEIGHING.store(false, Ordering::Relaxed); // read by this thread
    let kept = ALLOCATED.load(Ordering::Relaxed).wrapping_sub(before); // this thread's own
    let weight =
        Weight { heap: size_of::<T>() + kept, mapped: mapped()?.saturating_sub(mapped_before) };
    counts.then_some((made, weight))
}

/// The bytes of all of the program's mappings.
fn mapped() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    Some(size.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
}
