//! [`SharedClock`]: one time for all who share a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_core::Timestamp;

use super::header::Header;
use crate::clock::{Clock, SystemClock};

/// One time for all processes that share a file, and for all boots of the machine: it follows the wall
/// clock forward, and never steps back.
///
/// Between readings of the wall clock, which are some tenths of a second apart, it runs on the
/// processor's counter; the latest time that anybody saw is kept in the file. What two processes read at
/// one moment is as far apart as their counters have drifted meanwhile. A reading that is behind frees
/// nothing early.
///
/// - **A wall clock that jumps forward**, and a machine that wakes from sleep, are followed: units come
///   back early by no more than the jump.
/// - **A wall clock that steps back**, by NTP or by hand or at a reboot with a dead battery, is not:
///   time goes on from where it was, at its normal pace. So nobody is locked out, and nothing comes
///   back twice. Calendar windows then begin earlier than the wall clock says, by that step, until the
///   wall clock has caught up with the file.
/// - **Containers** may shift the monotonic clocks, but not the wall clock, which is all that this looks
///   at from outside the process.
#[derive(Debug, Clone)]
pub struct SharedClock {
    header: Arc<Header>,
    counter: SystemClock,
    /// How far the file's time is ahead of this process's counter, which began at the wall clock's time.
    ahead_ns: Arc<AtomicU64>,
}

/// How far the file's time may be behind before the wall clock is looked at again.
const AGE: Duration = Duration::from_millis(100);

impl SharedClock {
    pub(super) fn new(header: Arc<Header>) -> Self {
        let clock = Self { header, counter: SystemClock::new(), ahead_ns: Arc::default() };
        clock.look_at_the_wall();
        clock
    }

    /// Moves the file's time on, and this process's with it.
    #[cold]
    fn look_at_the_wall(&self) -> Timestamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = Timestamp::from_nanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
        self.follow(wall)
    }

    /// The time after a wall clock's reading.
    fn follow(&self, wall: Timestamp) -> Timestamp {
        let now = self.catch_up(wall.max(self.header.latest()));
        self.header.saw(now);
        now
    }

    /// Makes this process's time no earlier than `other`.
    #[cold]
    fn catch_up(&self, other: Timestamp) -> Timestamp {
        let counter = self.counter.now();
        let ahead_ns = nanos(other.since(counter));
        // Relaxed: a lone value that only grows.
        let ahead_ns = self.ahead_ns.fetch_max(ahead_ns, Ordering::Relaxed).max(ahead_ns);
        counter + Duration::from_nanos(ahead_ns)
    }
}

impl Clock for SharedClock {
    #[inline]
    fn now(&self) -> Timestamp {
        let ahead = Duration::from_nanos(self.ahead_ns.load(Ordering::Relaxed)); // a lone value
        let now = self.counter.now() + ahead;
        let latest = self.header.latest();
        if latest > now {
            return self.catch_up(latest);
        }
        if now.since(latest) > AGE {
            return self.look_at_the_wall();
        }
        now
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedFile;

    #[test]
    fn a_wall_clock_that_steps_back_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let clock = SharedFile::open(folder.path().join("limits")).unwrap().clock();
        let wall = clock.now();
        let ahead = clock.follow(wall + Duration::from_secs(500));
        assert!(ahead >= wall + Duration::from_secs(500));
        let mut later = clock.now();
        while later <= ahead {
            later = clock.now();
        }
        // The file has not seen that yet.
        assert!(clock.follow(wall) >= later, "it goes on from where it was");
        assert!(clock.now() >= later);
    }
}
