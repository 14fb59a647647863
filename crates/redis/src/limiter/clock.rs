//! [`LeaseClock`]: how long a lease has lasted.

use tidegate::{Clock, Timestamp};

/// A clock that goes on while the machine sleeps, for how long leases have lasted.
///
/// Its origin is when the machine was started; only spans count. A virtual machine that is stopped and
/// goes on later may not notice. Then leases last longer, by that time.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeaseClock;

#[cfg(target_os = "linux")]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

impl Clock for LeaseClock {
    #[inline]
    fn now(&self) -> Timestamp {
        let time = rustix::time::clock_gettime(CLOCK);
        Timestamp::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}
