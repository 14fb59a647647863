//! [`CoarseClock`]: the time to the millisecond, for next to nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tidegate_core::Timestamp;

use super::{Clock, SystemClock};

/// The time of [`SystemClock`], about a millisecond old: reading it is one load from memory instead of
/// 10 ns and more.
///
/// A thread of the process brings it up to date each millisecond; all coarse clocks share that one. A
/// time that is behind frees nothing too early, so limits hold as they do with a precise clock, and
/// units come back later by as much as the clock is behind: a millisecond, or more on a machine that is
/// overloaded.
///
/// Make it after the process has forked: the thread stays with the parent, and in the child the time
/// would stand still.
///
/// ```
/// use tidegate::{CoarseClock, Cost, Limiter, Quota, TokenBucket};
///
/// let bucket = TokenBucket::new(Quota::per_second(1_000))?;
/// let limiter = Limiter::new(bucket).with_clock(CoarseClock::new());
/// assert!(limiter.decide(Cost::ONE).is_allow());
/// # Ok::<(), tidegate::QuotaError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CoarseClock {
    recent: Arc<AtomicU64>,
}

impl CoarseClock {
    /// How old the time is, about.
    pub const AGE: Duration = Duration::from_millis(1);

    /// The process's coarse clock.
    ///
    /// # Panics
    /// When the system has no thread for it.
    #[must_use]
    pub fn new() -> Self {
        static PROCESS: OnceLock<CoarseClock> = OnceLock::new();
        PROCESS.get_or_init(Self::start).clone()
    }

    fn start() -> Self {
        let precise = SystemClock::new();
        let recent = Arc::new(AtomicU64::new(precise.now().as_nanos()));
        let updated = recent.clone();
        let update = move || loop {
            thread::sleep(Self::AGE);
            updated.store(precise.now().as_nanos(), Ordering::Relaxed); // a lone value
        };
        let thread = thread::Builder::new().name("tidegate-clock".to_owned()).spawn(update);
        assert!(thread.is_ok(), "no thread for the coarse clock: {thread:?}");
        Self { recent }
    }
}

impl Default for CoarseClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for CoarseClock {
    #[inline]
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.recent.load(Ordering::Relaxed)) // a lone value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_precise_clock_and_is_never_ahead() {
        let (coarse, precise) = (CoarseClock::new(), SystemClock::new());
        let start = coarse.now();
        while coarse.now() == start {
            thread::yield_now();
        }
        let (recent, now) = (coarse.now(), precise.now());
        assert!(start < recent && recent <= now);
    }
}
