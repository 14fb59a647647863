//! Who runs next: the operating system, or shuttle.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(shuttle)]
use shuttle::{sync::Barrier, thread};
#[cfg(not(shuttle))]
use std::{sync::Barrier, thread};

pub const THREADS: usize = 3;

/// Histories per test.
pub const ROUNDS: usize = if cfg!(shuttle) { 20_000 } else { 1_500 };

/// Runs `round` with a seed of its own, so many times.
pub fn rounds(round: impl Fn(u64) + Send + Sync + 'static) {
    let seeds = AtomicU64::new(0);
    // Shuttle takes one round after the other, from one thread.
    let next = move || round(seeds.fetch_add(1, Ordering::Relaxed));
    #[cfg(shuttle)]
    shuttle::check_random(next, ROUNDS);
    #[cfg(not(shuttle))]
    (0..ROUNDS).for_each(|_| next());
}

/// Runs `work` in each thread, with a barrier for all.
pub fn together<T: Send + 'static>(
    work: impl Fn(usize, &Barrier) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let shared = std::sync::Arc::new((work, Barrier::new(THREADS)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let shared = shared.clone();
            thread::spawn(move || (shared.0)(thread, &shared.1))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("a thread of the history")).collect()
}

/// Calls, and stops for ever before so many atomic operations more; then there is no answer.
#[cfg(shuttle)]
pub fn stopped_after<T>(operations: usize, call: impl FnOnce() -> T) -> Option<T> {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use tidegate_core::model;

    model::stop_after(operations);
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(answer) => {
            model::stop_after(usize::MAX);
            Some(answer)
        }
        Err(reason) if reason.is::<model::Stopped>() => None,
        Err(reason) => resume_unwind(reason),
    }
}

/// A real thread cannot be stopped like that.
#[cfg(not(shuttle))]
pub fn stopped_after<T>(_: usize, call: impl FnOnce() -> T) -> Option<T> {
    Some(call())
}
