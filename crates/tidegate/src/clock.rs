//! [`Clock`]: where `now` comes from.

mod coarse;

pub use coarse::CoarseClock;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_core::Timestamp;

/// Where `now` comes from: one method, so that tests can bring their own.
///
/// All calls of one limiter must come from clocks with one origin. The origin of [`SystemClock`] is
/// the Unix epoch, so that windows begin at UTC minutes and days.
pub trait Clock {
    /// The time.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for &C {
    #[inline]
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    #[inline]
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// The real time, in nanoseconds since the Unix epoch, that never steps back.
///
/// The wall clock is read once for the process; from there on the processor's counter is, through
/// `quanta`, which takes about 10 ns. A step of the wall clock (by hand, by NTP) does not reach the
/// limits of a running process. Nor does it correct the counter, which may gain or lose some seconds a day: in a
/// process that runs for months, calendar windows begin off by that. A [`SharedFile`](crate::SharedFile)'s clock
/// follows the wall clock.
///
/// ```
/// use tidegate::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// let earlier = clock.now();
/// assert!(clock.now() >= earlier);
/// ```
#[derive(Debug, Clone)]
pub struct SystemClock {
    counter: quanta::Clock,
    anchor: Anchor,
}

/// A reading of the counter, and the wall clock's time then.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    raw: u64,
    unix_ns: u64,
}

impl SystemClock {
    /// The process's clock. All of them show the same time.
    #[must_use]
    pub fn new() -> Self {
        static PROCESS: OnceLock<SystemClock> = OnceLock::new();
        PROCESS.get_or_init(Self::anchored).clone()
    }

    fn anchored() -> Self {
        let counter = quanta::Clock::new();
        let raw = counter.raw();
        // Before 1970 is as good as 1970: the limits count from there on.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let unix_ns = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
        Self { counter, anchor: Anchor { raw, unix_ns } }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Timestamp {
        let elapsed_ns = self.counter.delta_as_nanos(self.anchor.raw, self.counter.raw());
        Timestamp::from_nanos(self.anchor.unix_ns.saturating_add(elapsed_ns))
    }
}

/// A clock that moves only when told to, for tests.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{Clock, FakeClock, Timestamp};
///
/// let clock = FakeClock::at(Timestamp::from_secs(100));
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), Timestamp::from_secs(160));
/// ```
#[derive(Debug, Default)]
pub struct FakeClock(AtomicU64);

impl FakeClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.as_nanos()))
    }

    /// Sets the time, forward or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_nanos(), Ordering::Relaxed); // a lone value
    }

    /// Moves the time forward.
    pub fn advance(&self, span: Duration) {
        self.set(self.now() + span);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::Relaxed)) // a lone value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_counts_from_the_unix_epoch() {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = SystemClock::new().now();
        let apart = now.as_nanos().abs_diff(unix.as_nanos() as u64);
        assert!(apart < 60_000_000_000, "{apart} ns");
    }

    /// However long the threads wait for the processor, one of the two spans holds the other.
    #[test]
    fn the_system_clock_goes_as_fast_as_the_time() {
        let clock = SystemClock::new();
        let (outer, start) = (std::time::Instant::now(), clock.now());
        let inner = std::time::Instant::now();
        while inner.elapsed() < Duration::from_millis(20) {}
        let (inner, elapsed) = (inner.elapsed(), clock.now().since(start));
        let outer = outer.elapsed();
        assert!(elapsed * 11 >= inner * 10, "{elapsed:?} in {inner:?}");
        assert!(elapsed * 10 <= outer * 11, "{elapsed:?} in {outer:?}");
    }

    #[test]
    fn all_system_clocks_show_one_time() {
        let (first, second) = (SystemClock::new(), SystemClock::new());
        let (before, between, after) = (first.now(), second.now(), first.now());
        assert!(before <= between && between <= after);
    }
}
