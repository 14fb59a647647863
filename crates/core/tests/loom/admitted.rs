//! What the threads of a model were allowed, and the bound on it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use loom::model::Builder;
use tidegate_core::{Timestamp, model};

/// Explores a model; `preemptions` bounds how often a thread is interrupted in one execution.
pub fn explore(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    run(true, preemptions, check);
}

/// The same for a model that grows too large: where two threads load a word before one of them swaps it,
/// fewer orders are tried. See `watch_loads`.
pub fn explore_fewer(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    run(false, preemptions, check);
}

fn run(watches: bool, preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    model::watch_loads(watches);
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 100_000;
    builder.check(check);
}

/// Runs `call` in a thread that is stopped before one of its atomic operations: all of them in turn,
/// over the models that `each_stop` explores.
pub fn stopped(operations: usize, call: impl FnOnce()) {
    model::stop_after(operations);
    if let Err(reason) = catch_unwind(AssertUnwindSafe(call))
        && !reason.is::<model::Stopped>()
    {
        resume_unwind(reason);
    }
}

/// Explores the model once for each operation before which a thread can be stopped.
pub fn each_stop(
    preemptions: usize,
    operations: std::ops::Range<usize>,
    check: impl Fn(usize) + Sync + Send + Copy + 'static,
) {
    for stop in operations {
        explore(preemptions, move || check(stop));
    }
}

/// The same, as [`explore_fewer`] is to [`explore`].
pub fn each_stop_fewer(
    preemptions: usize,
    operations: std::ops::Range<usize>,
    check: impl Fn(usize) + Sync + Send + Copy + 'static,
) {
    for stop in operations {
        explore_fewer(preemptions, move || check(stop));
    }
}

/// The admitted units of one execution, and when.
///
/// The calls of a model carry times of their own, and one that is behind may be admitted after a call
/// with a later time has begun. It happens at some time from its own up to the latest that any call
/// had begun with when it returned.
#[derive(Default)]
pub struct Admitted(Mutex<Record>);

#[derive(Default)]
struct Record {
    latest: u64,
    units: Vec<Unit>,
}

#[derive(Debug, Clone, Copy)]
struct Unit {
    earliest: u64,
    latest: u64,
    units: u64,
}

impl Admitted {
    /// Makes a call at `at`, and notes its units if it is allowed.
    pub fn call(&self, at: Timestamp, units: u64, decide: impl FnOnce() -> bool) {
        let earliest = at.as_nanos();
        {
            let mut record = self.0.lock().unwrap();
            record.latest = record.latest.max(earliest);
        }
        if decide() {
            let mut record = self.0.lock().unwrap();
            let latest = record.latest;
            record.units.push(Unit { earliest, latest, units });
        }
    }

    pub fn total(&self) -> u64 {
        self.0.lock().unwrap().units.iter().map(|unit| unit.units).sum()
    }

    /// Asserts that the units can have happened at such times that no span of this length holds more
    /// than `limit`.
    pub fn assert_bound(&self, window_ns: u64, limit: u64) {
        let units = self.0.lock().unwrap().units.clone();
        let holds = (0_u32..1 << units.len()).any(|choice| {
            let at = |index: usize| match choice >> index & 1 {
                0 => units[index].earliest,
                _ => units[index].latest,
            };
            (0..units.len()).all(|first| {
                let span = at(first)..at(first) + window_ns;
                let inside = (0..units.len()).filter(|index| span.contains(&at(*index)));
                inside.map(|index| units[index].units).sum::<u64>() <= limit
            })
        });
        assert!(holds, "more than {limit} in {window_ns} ns: {units:?}");
    }
}
