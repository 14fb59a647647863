//! [`Storage`]: what the package `limits` keeps its limits in.

use std::borrow::Borrow;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use tidegate::{
    Clock, Cost, Counts, Decision, Denial, KeyedLimiter, Limit, LimitError, Memory, Protocol, Rate,
    Retry, SharedFile, Timestamp,
};

use crate::clock::{AnyClock, FakeClock};
use crate::error;
use crate::key::{AnyKey, KeyRef};
use crate::limiter::Local;
use crate::options;

/// The state of a storage for `limits`: counters, and a table for each moving window.
///
/// The counters are for its fixed windows and its sliding window counters, whose keys have the window's
/// number; the tables for its moving windows.
#[pyclass(frozen, module = "tidegate")]
pub(crate) struct Storage {
    counts: Counts<AnyKey, AnyClock>,
    /// Filled from the first on. Limits are few: they stand in the program, or its configuration.
    windows: Box<[OnceLock<MovingWindow>]>,
    shared: Option<SharedFile>,
    keys: usize,
    clock: AnyClock,
}

/// What is counted.
#[derive(Hash)]
enum Counted<'a> {
    /// Hits of a fixed window.
    Hits(&'a str),
    /// Hits in one of the windows, by its number, of a sliding window counter.
    Window(&'a str, u64),
}

impl<'a> Borrow<Counted<'a>> for AnyKey {
    fn borrow(&self) -> &Counted<'a> {
        match *self {}
    }
}

/// A moving window: the limit, the window in seconds, and the table.
struct MovingWindow {
    limit: u64,
    expiry: u64,
    table: Local,
}

impl Storage {
    /// The most different moving windows.
    const MAX_WINDOWS: usize = 64;

    /// The most addresses that a log takes, if not memory: 256 GiB.
    const MAX_SPARSE_BYTES: usize = 256 << 30;

    /// The table of a moving window, which is made if it is not there.
    fn window(&self, limit: u64, expiry: u64) -> PyResult<&Local> {
        let is = |window: &MovingWindow| (window.limit, window.expiry) == (limit, expiry);
        for place in &self.windows {
            if place.get().is_none() {
                // Another thread may be first, with this window or another one.
                let _ = place.set(MovingWindow { limit, expiry, table: self.make(limit, expiry)? });
            }
            if let Some(window) = place.get().filter(|window| is(window)) {
                return Ok(&window.table);
            }
        }
        Err(PyValueError::new_err(format!(
            "a storage has room for {} different limits of moving windows, and this is one more; use a \
             storage of its own for some of them",
            Self::MAX_WINDOWS
        )))
    }

    fn make(&self, limit: u64, expiry: u64) -> PyResult<Local> {
        let rate = options::rate_per_seconds(limit, expiry as f64)?;
        let rate: Rate = rate.parse().map_err(|error| PyValueError::new_err(format!("{error}")))?;
        let of_limit = |error: LimitError| PyValueError::new_err(error.to_string());
        // A log is exact. In memory it can be sparse, so it may be a large one.
        if self.shared.is_none()
            && let Ok(log) = Limit::sliding_window_log(rate)
            && Memory::bytes_for_keys(self.keys, log.ring_words())
                .is_some_and(|bytes| bytes <= Self::MAX_SPARSE_BYTES)
            && let Ok(table) = KeyedLimiter::sparse(log, self.keys)
        {
            return Ok(table.with_clock(self.clock.clone()));
        }
        let limit = Limit::sliding_window(rate).map_err(of_limit)?;
        options::check_keys(self.keys, &limit)?;
        let table = match &self.shared {
            None => KeyedLimiter::try_new(limit, self.keys)
                .map_err(|error| PyMemoryError::new_err(error.to_string()))?
                .with_clock(self.clock.clone()),
            Some(file) => file
                .limiter("limits-moving", limit, self.keys)
                .map_err(|error| error::of_file(&error))?
                .with_clock(self.clock.clone()),
        };
        Ok(table)
    }

    fn made(&self) -> impl Iterator<Item = &MovingWindow> {
        self.windows.iter().map_while(OnceLock::get)
    }

    /// The window that it is now, its number and how much of it is left.
    fn now_in(&self, expiry: u64) -> (u64, Duration) {
        let (now, length) = (self.clock.now().as_nanos(), nanos(expiry));
        (now / length, Duration::from_nanos(length - now % length))
    }

    fn count_in(&self, key: &str, number: u64) -> u64 {
        self.counts.count(&Counted::Window(key, number)).map_or(0, |(count, _)| count)
    }
}

/// A window of so many seconds; one of none is as good as the shortest.
const fn nanos(expiry: u64) -> u64 {
    let nanos = expiry.saturating_mul(1_000_000_000);
    if nanos == 0 { 1 } else { nanos }
}

/// What is left of a count whose window has moved on by so much: `limits` takes it that its hits were
/// spread evenly. Rounded down, as `limits` does.
fn weighted(count: u64, left: Duration, expiry: u64) -> u64 {
    let weighted = u128::from(count) * left.as_nanos() / u128::from(nanos(expiry));
    u64::try_from(weighted).unwrap_or(u64::MAX)
}

fn epoch_seconds(at: Timestamp) -> f64 {
    at.since(Timestamp::ZERO).as_secs_f64()
}

#[pymethods]
impl Storage {
    #[new]
    #[pyo3(signature = (*, keys = 10_000, shared = None, clock = None))]
    fn new(
        keys: usize,
        shared: Option<PathBuf>,
        clock: Option<&Bound<'_, FakeClock>>,
    ) -> PyResult<Self> {
        if keys == 0 {
            return Err(PyValueError::new_err("keys=0 has no room for anybody; give at least 1"));
        }
        let shared = shared.map(SharedFile::open).transpose();
        let shared = shared.map_err(|error| error::of_file(&error))?;
        let (counts, clock) = match &shared {
            None => {
                let clock = AnyClock::or_system(clock);
                let counts = Counts::try_new(keys)
                    .map_err(|error| PyMemoryError::new_err(error.to_string()))?;
                (counts.with_clock(clock.clone()), clock)
            }
            Some(file) => {
                let clock = AnyClock::or_shared(clock, file.clock());
                let counts = file.counts("limits", keys);
                let counts = counts.map_err(|error| error::of_file(&error))?;
                (counts.with_clock(clock.clone()), clock)
            }
        };
        let windows = (0..Self::MAX_WINDOWS).map(|_| OnceLock::new()).collect();
        Ok(Self { counts, windows, shared, keys, clock })
    }

    /// Adds to a counter that expires so many seconds after its first hit. The count.
    #[pyo3(signature = (key, expiry, amount = 1))]
    fn incr(&self, key: &str, expiry: u64, amount: u64) -> u64 {
        let lifetime = Duration::from_nanos(nanos(expiry));
        let (Ok(count) | Err(count)) = self.counts.add(&Counted::Hits(key), amount, lifetime);
        count
    }

    /// The count.
    fn get(&self, key: &str) -> u64 {
        self.counts.count(&Counted::Hits(key)).map_or(0, |(count, _)| count)
    }

    /// When the counter expires, in seconds since the Unix epoch; now, if there is none.
    fn get_expiry(&self, key: &str) -> f64 {
        let expiry = self.counts.count(&Counted::Hits(key)).map(|(_, expiry)| expiry);
        epoch_seconds(expiry.unwrap_or_else(|| self.clock.now()))
    }

    /// Forgets what a key has spent in fixed windows, and in the moving windows that this process has counted in.
    fn clear(&self, key: &str) {
        self.counts.clear(&Counted::Hits(key));
        for window in self.made() {
            let (table, now) = (&window.table, self.clock.now());
            let key = table.key(&KeyRef::Str(key));
            table.table().forgive(key, Cost::new(window.limit), now);
        }
    }

    /// How many keys have spent anything, at least: counters, or those of the moving window with most.
    fn live_keys(&self) -> usize {
        let now = self.clock.now();
        let in_windows = self.made().map(|window| window.table.table().live_keys(now));
        in_windows.max().unwrap_or(0).max(self.counts.len())
    }

    /// Whether the state is in a file.
    #[getter]
    fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether so many hits fit a moving window now; charges them if so.
    #[pyo3(signature = (key, limit, expiry, amount = 1))]
    fn acquire_entry(&self, key: &str, limit: u64, expiry: u64, amount: u64) -> PyResult<bool> {
        let table = self.window(limit, expiry)?;
        Ok(table.decide(&KeyRef::Str(key), Cost::new(amount)).is_allow())
    }

    /// When the oldest hit of a moving window was, in seconds since the Unix epoch, and how many hits
    /// there are.
    fn get_moving_window(&self, key: &str, limit: u64, expiry: u64) -> PyResult<(f64, u64)> {
        let table = self.window(limit, expiry)?;
        let (key, now) = (table.key(&KeyRef::Str(key)), self.clock.now());
        let remaining = table.table().peek(key, Cost::ZERO, now).remaining();
        // One more than fits can be spent when the oldest hit leaves the window.
        let one_more = Cost::new(remaining + 1);
        let leaves = match table.table().peek(key, one_more, now) {
            Decision::Deny(denial) if remaining < limit => wait(denial),
            _ => return Ok((epoch_seconds(now), 0)),
        };
        let left = (now + leaves).as_nanos().saturating_sub(nanos(expiry));
        Ok((epoch_seconds(Timestamp::from_nanos(left)), limit - remaining))
    }

    /// Whether so many hits fit a sliding window counter now, as `limits` weighs it; charges them if so.
    #[pyo3(signature = (key, limit, expiry, amount = 1))]
    fn acquire_sliding_window_entry(
        &self,
        key: &str,
        limit: u64,
        expiry: u64,
        amount: u64,
    ) -> bool {
        let (number, left) = self.now_in(expiry);
        // The window before has ended, so its count stands, and its weight only falls.
        let before = weighted(self.count_in(key, number.wrapping_sub(1)), left, expiry);
        let Some(most) = limit.checked_sub(before) else { return false };
        let lifetime = Duration::from_nanos(nanos(expiry).saturating_mul(2));
        self.counts.add_within(&Counted::Window(key, number), amount, most, lifetime).is_ok()
    }

    /// The counts of the window before and of this one, each with the seconds for which it counts.
    fn get_sliding_window(&self, key: &str, expiry: u64) -> (u64, f64, u64, f64) {
        let (number, left) = self.now_in(expiry);
        let (before, current) =
            (self.count_in(key, number.wrapping_sub(1)), self.count_in(key, number));
        let left = left.as_secs_f64();
        let before_left = if before == 0 { 0.0 } else { left };
        (before, before_left, current, left + expiry as f64)
    }

    /// Forgets what a key has spent in a sliding window counter.
    fn clear_sliding_window(&self, key: &str, expiry: u64) {
        let (number, _) = self.now_in(expiry);
        self.counts.clear(&Counted::Window(key, number));
        self.counts.clear(&Counted::Window(key, number.wrapping_sub(1)));
    }
}

fn wait(denial: Denial) -> Duration {
    match denial.retry() {
        Retry::After(wait) => wait,
        Retry::Never => Duration::ZERO,
    }
}
