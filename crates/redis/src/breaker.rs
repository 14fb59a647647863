//! [`Breaker`]: whether to call a server that has been failing.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tidegate::Timestamp;

/// A circuit breaker: after some failures in a row it opens, and calls are not made; after a while one
/// call is let through, and when that succeeds, it closes.
///
/// Nodes do not come back all at once: each waits a random part of its time, which doubles with each
/// failed attempt, and then lets through a growing part of its calls.
///
/// # Orderings
/// All relaxed: each word is a fact of its own, and nothing is read by them. Two that disagree cost a
/// call that is made or not made.
#[derive(Debug)]
pub(crate) struct Breaker {
    rules: BreakerRules,
    failures: AtomicU32,
    /// How often it opened since it last worked for long.
    trips: AtomicU32,
    /// When the next call may be tried, in ns; 0 while closed.
    retry_at: AtomicU64,
    /// When it closed again, in ns; 0 if it has not, or long ago.
    closed_at: AtomicU64,
}

/// When a circuit breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// Failures in a row until it opens.
    pub failures: u32,
    /// How long it stays open at first. Doubles each time that the server does not answer then.
    pub wait: Duration,
    /// The longest it stays open.
    pub longest_wait: Duration,
    /// How long it takes until all calls are made again.
    pub ramp: Duration,
}

impl Default for BreakerRules {
    /// 5 failures, 100 ms to 5 s, and a ramp of half a second.
    fn default() -> Self {
        Self {
            failures: 5,
            wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(5),
            ramp: Duration::from_millis(500),
        }
    }
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permit {
    Pass,
    /// The one call that finds out.
    Probe,
    Refuse,
}

impl Breaker {
    pub(crate) const fn new(rules: BreakerRules) -> Self {
        Self {
            rules,
            failures: AtomicU32::new(0),
            trips: AtomicU32::new(0),
            retry_at: AtomicU64::new(0),
            closed_at: AtomicU64::new(0),
        }
    }

    /// Whether a call may be made now, by a roll of the dice.
    pub(crate) fn permit(&self, now: Timestamp, roll: u32) -> Permit {
        let now = now.as_nanos();
        let retry_at = self.retry_at.load(Ordering::Relaxed);
        if retry_at == 0 {
            return if self.is_let_through(now, roll) { Permit::Pass } else { Permit::Refuse };
        }
        if now < retry_at {
            return Permit::Refuse;
        }
        // One call probes. If nobody hears of it again, the next one does.
        let next = now + self.wait_ns(u32::MAX);
        match self.retry_at.compare_exchange(retry_at, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Permit::Probe,
            Err(_) => Permit::Refuse,
        }
    }

    /// Of all calls, after it closed: an eighth at first, and all when the ramp is over.
    fn is_let_through(&self, now: u64, roll: u32) -> bool {
        let closed_at = self.closed_at.load(Ordering::Relaxed);
        if closed_at == 0 {
            return true;
        }
        let (ramp, since) = (self.rules.ramp.as_nanos() as u64, now.saturating_sub(closed_at));
        if since >= ramp {
            self.closed_at.store(0, Ordering::Relaxed);
            self.trips.store(0, Ordering::Relaxed);
            return true;
        }
        u128::from(roll) * u128::from(ramp)
            <= u128::from(u32::MAX) * u128::from(since.max(ramp / 8))
    }

    /// A call was answered.
    pub(crate) fn succeeded(&self, now: Timestamp) {
        // A load first, so that the line stays shared while all is well.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.retry_at.load(Ordering::Relaxed) != 0 {
            self.closed_at.store(now.as_nanos().max(1), Ordering::Relaxed);
            self.retry_at.store(0, Ordering::Relaxed);
        }
    }

    /// A call was not answered. Whether the breaker opened by that.
    pub(crate) fn failed(&self, permit: Permit, now: Timestamp, roll: u32) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let was_open = self.retry_at.load(Ordering::Relaxed) != 0;
        if permit != Permit::Probe && (was_open || failures < self.rules.failures) {
            return false;
        }
        self.trips.fetch_add(1, Ordering::Relaxed);
        self.retry_at.store(now.as_nanos() + self.wait_ns(roll), Ordering::Relaxed);
        !was_open
    }

    /// How long it stays open at first.
    pub(crate) const fn wait(&self) -> Duration {
        self.rules.wait
    }

    /// Whether calls are not made.
    pub(crate) fn is_open(&self) -> bool {
        self.retry_at.load(Ordering::Relaxed) != 0
    }

    /// From half the wait up to all of it.
    fn wait_ns(&self, roll: u32) -> u64 {
        let doublings = self.trips.load(Ordering::Relaxed).saturating_sub(1).min(16);
        let wait = self.rules.wait.saturating_mul(1 << doublings).min(self.rules.longest_wait);
        let half = (wait.as_nanos() as u64).max(2) / 2;
        half + (u128::from(half) * u128::from(roll) / u128::from(u32::MAX)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BreakerRules = BreakerRules {
        failures: 3,
        wait: Duration::from_millis(100),
        longest_wait: Duration::from_millis(400),
        ramp: Duration::from_millis(800),
    };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_nanos((1_000 + ms) * 1_000_000)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::new(RULES);
        let opened = [0, 1, 2].map(|ms| breaker.failed(Permit::Pass, at(ms), u32::MAX));
        assert_eq!(opened, [false, false, true]);
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_before() {
        let breaker = Breaker::new(RULES);
        for _ in 0..10 {
            assert!(!breaker.failed(Permit::Pass, at(0), 0));
            assert!(!breaker.failed(Permit::Pass, at(0), 0));
            breaker.succeeded(at(0));
        }
        assert_eq!(breaker.permit(at(0), u32::MAX), Permit::Pass);
        assert_eq!(opened().permit(at(50), 0), Permit::Refuse);
    }

    #[test]
    fn one_call_finds_out_and_the_wait_doubles_up_to_the_longest() {
        let breaker = opened();
        let mut now = 102;
        for wait in [200, 400, 400] {
            assert_eq!(breaker.permit(at(now - 1), 0), Permit::Refuse);
            assert_eq!(breaker.permit(at(now), 0), Permit::Probe);
            assert_eq!(breaker.permit(at(now), 0), Permit::Refuse, "one");
            assert!(!breaker.failed(Permit::Probe, at(now), u32::MAX), "it was open");
            now += wait;
        }
    }

    #[test]
    fn nodes_come_back_at_different_times() {
        let first_try = |roll| {
            let breaker = Breaker::new(RULES);
            for _ in 0..3 {
                let _ = breaker.failed(Permit::Pass, at(0), roll);
            }
            (0..=100).find(|ms| breaker.permit(at(*ms), 0) == Permit::Probe)
        };
        assert_eq!(first_try(0), Some(50));
        assert_eq!(first_try(u32::MAX / 2), Some(75));
        assert_eq!(first_try(u32::MAX), Some(100));
    }

    #[test]
    fn once_it_closes_a_growing_part_of_the_calls_is_made() {
        let breaker = opened();
        assert_eq!(breaker.permit(at(200), 0), Permit::Probe);
        breaker.succeeded(at(200));
        let let_through = |ms| {
            let passes = |roll: &u32| breaker.permit(at(ms), *roll) == Permit::Pass;
            (0..1_000).map(|part| u32::MAX / 1_000 * part).filter(passes).count()
        };
        assert_eq!(let_through(200), 126);
        assert!((495..505).contains(&let_through(600)));
        assert_eq!(let_through(1_000), 1_000);
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_keeps_nobody_out_for_ever() {
        let breaker = opened();
        assert_eq!(breaker.permit(at(102), 0), Permit::Probe);
        assert_eq!(breaker.permit(at(110), 0), Permit::Refuse);
        assert_eq!(breaker.permit(at(202), 0), Permit::Probe);
    }
}
