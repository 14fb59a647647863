//! [`SharedClock`]: one time for all who share a file.

mod offset;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_core::Timestamp;

use super::header::Header;
use crate::clock::{Clock, SystemClock};
use offset::Offset;

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
///   time goes on from where it was, slower by one part in 512 until the wall clock has caught up. So nobody
///   is locked out, and nothing comes back twice. Calendar windows then begin earlier than the wall clock
///   says, by what is left of that step.
/// - **Counters that run too fast** are held back in the same way: the time is ahead of the wall clock by no
///   more than a few tenths of a second for that.
/// - **Containers** may shift the monotonic clocks, but not the wall clock, which is all that this looks
///   at from outside the process.
#[derive(Debug, Clone)]
pub struct SharedClock {
    header: Arc<Header>,
    /// It began at the wall clock's time.
    counter: SystemClock,
    offset: Arc<Offset>,
}

impl SharedClock {
    pub(super) fn new(header: Arc<Header>) -> Self {
        let counter = SystemClock::new();
        let offset = Arc::new(Offset::new(counter.now(), header.latest_word(), wall()));
        Self { header, counter, offset }
    }
}

impl Clock for SharedClock {
    #[inline]
    fn now(&self) -> Timestamp {
        self.offset.now(self.counter.now(), self.header.latest_word(), wall)
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedFile;

    #[test]
    fn a_wall_clock_that_steps_back_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let clock = SharedFile::open(folder.path().join("limits")).unwrap().clock();
        let look = |wall| clock.offset.look(clock.counter.now(), clock.header.latest_word(), wall);
        let wall = clock.now();
        let ahead = look(wall + Duration::from_secs(500));
        assert!(ahead >= wall + Duration::from_secs(500));
        let mut later = clock.now();
        while later <= ahead {
            later = clock.now();
        }
        // The file has not seen that yet.
        assert!(look(wall) >= later, "it goes on from where it was");
        assert!(clock.now() >= later);
    }
}
