//! [`Offset`]: how far the time that processes share is from one process's counter.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tidegate_core::{AtomicU64, Timestamp};

/// How far the shared time is from this process's counter.
///
/// # Orderings
/// All are relaxed: the words are lone values. Whoever is told a time without a look is told none that is later
/// than [`AGE`] after the last one, and a look tells, and publishes, no earlier one: so the time never steps back.
#[derive(Debug)]
pub(super) struct Offset {
    /// How far it is ahead, in nanoseconds; below zero when the counter has run too fast.
    ahead_ns: AtomicI64,
    /// When this process last looked at the wall clock.
    looked_at: AtomicU64,
}

/// After how long the wall clock is looked at again.
const AGE: Duration = Duration::from_millis(100);

/// The most that the time stands still for, to wait for the wall clock.
const PAUSE: Duration = Duration::from_millis(1);

/// The part of the time that it stands still for then: counters that run too fast by less are held back, and
/// windows last no longer than that.
const SLOWER: u32 = 512;

impl Offset {
    /// Where the time begins: at the wall clock's, or the latest that anybody saw.
    pub(super) fn new(counter: Timestamp, latest: &AtomicU64, wall: Timestamp) -> Self {
        let now = wall.max(seen(latest));
        latest.fetch_max(now.as_nanos(), Ordering::Relaxed);
        Self {
            ahead_ns: AtomicI64::new(difference(now, counter)),
            looked_at: AtomicU64::new(now.as_nanos()),
        }
    }

    /// The time, at this reading of the counter, by the `latest` that any process saw and the wall clock, which is
    /// asked for now and then.
    #[inline]
    pub(super) fn now(
        &self,
        counter: Timestamp,
        latest: &AtomicU64,
        wall: impl FnOnce() -> Timestamp,
    ) -> Timestamp {
        let now = self.apply(counter);
        let looked_at = Timestamp::from_nanos(self.looked_at.load(Ordering::Relaxed));
        if now.since(looked_at) > AGE {
            return self.look(counter, latest, wall());
        }
        let seen = seen(latest);
        if seen > now { self.behind(counter, now, seen) } else { now }
    }

    /// Not before what somebody has seen.
    #[cold]
    fn behind(&self, counter: Timestamp, now: Timestamp, seen: Timestamp) -> Timestamp {
        // By so little, time stands still, and is not made good.
        if seen.since(now) > PAUSE {
            self.ahead_ns.fetch_max(difference(seen, counter), Ordering::Relaxed);
        }
        seen
    }

    /// The time after a wall clock's reading, and no earlier than anybody saw.
    #[cold]
    pub(super) fn look(
        &self,
        counter: Timestamp,
        latest: &AtomicU64,
        wall: Timestamp,
    ) -> Timestamp {
        let since = Timestamp::from_nanos(self.looked_at.load(Ordering::Relaxed));
        let ahead_ns = self.ahead_ns.load(Ordering::Relaxed);
        let own = shifted(counter, ahead_ns);
        // What is ahead of the wall clock has gone slower since the last look.
        let slower = own.as_nanos() - nanos(own.since(since) / SLOWER).min(own.as_nanos());
        let slower = wall.max(Timestamp::from_nanos(slower).min(own));
        // Nobody here was told a later time without a look.
        let told = (since + AGE).min(own);
        let now = slower.max(told).max(seen(latest));
        latest.fetch_max(now.as_nanos(), Ordering::Relaxed);
        // The time goes on from there; by so little, it stands still first.
        let then = difference(if now.since(slower) > PAUSE { now } else { slower }, counter);
        let relaxed = (Ordering::Relaxed, Ordering::Relaxed);
        // Of this process's threads that look at the same time, one is first.
        if self.ahead_ns.compare_exchange(ahead_ns, then, relaxed.0, relaxed.1).is_ok() {
            self.looked_at.fetch_max(now.as_nanos(), Ordering::Relaxed);
        }
        now
    }

    #[inline]
    fn apply(&self, counter: Timestamp) -> Timestamp {
        shifted(counter, self.ahead_ns.load(Ordering::Relaxed))
    }
}

#[inline]
fn shifted(counter: Timestamp, ahead_ns: i64) -> Timestamp {
    Timestamp::from_nanos(counter.as_nanos().saturating_add_signed(ahead_ns))
}

/// By how much `now` is ahead of a reading of the counter, in nanoseconds.
fn difference(now: Timestamp, counter: Timestamp) -> i64 {
    now.as_nanos().wrapping_sub(counter.as_nanos()).cast_signed()
}

#[inline]
fn seen(latest: &AtomicU64) -> Timestamp {
    Timestamp::from_nanos(latest.load(Ordering::Relaxed))
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_NS: u64 = 1_700_000_000_000_000_000;

    /// A process whose counter gains so many parts in a million on the wall clock.
    struct Process {
        offset: Offset,
        ppm: i64,
    }

    impl Process {
        fn new(latest: &AtomicU64, ppm: i64) -> Self {
            let start = Timestamp::from_nanos(START_NS);
            Self { offset: Offset::new(start, latest, start), ppm }
        }

        fn now(&self, latest: &AtomicU64, elapsed_ns: u64, wall_ns: u64) -> u64 {
            let gained = i128::from(elapsed_ns) * i128::from(self.ppm) / 1_000_000;
            let counter_ns = i128::from(START_NS + elapsed_ns) + gained;
            let counter = Timestamp::from_nanos(u64::try_from(counter_ns).unwrap());
            self.offset.now(counter, latest, || Timestamp::from_nanos(wall_ns)).as_nanos()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Counters drift and wall clocks step: the time of all never steps back, follows what is ahead, and comes
        /// back to the wall clock.
        #[test]
        fn the_time_of_all_never_steps_back_and_meets_the_wall_clock_again(
            drifts in prop::collection::vec(-500..1_000_i64, 1..4),
            step_back_ms in 0..3_000_u64,
            reads in prop::collection::vec((any::<prop::sample::Index>(), 1..400_u64), 50..100),
        ) {
            let latest = AtomicU64::new(START_NS);
            let processes: Vec<_> =
                drifts.iter().map(|ppm| Process::new(&latest, *ppm)).collect();
            let (mut elapsed_ns, mut seen) = (0_u64, vec![0; processes.len()]);
            let (mut back_ns, mut stepped_ns) = (0, 0);
            for round in 0..400 {
                if round == 3 {
                    (back_ns, stepped_ns) = (step_back_ms * 1_000_000, elapsed_ns);
                }
                for (who, pause_ms) in &reads {
                    elapsed_ns += pause_ms * 1_000_000;
                    let wall_ns = START_NS + elapsed_ns - back_ns;
                    let who = who.index(processes.len());
                    let now = processes[who].now(&latest, elapsed_ns, wall_ns);
                    prop_assert!(now >= seen[who], "{} ns back", seen[who] - now);
                    seen[who] = now;
                    let behind_ns = wall_ns.saturating_sub(now);
                    prop_assert!(behind_ns <= 101_000_000, "{behind_ns} ns behind");
                    // Held back by more than the fastest counter gains.
                    let regained_ns = (elapsed_ns - stepped_ns) / 1_100;
                    let allowed_ns = 300_000_000 + back_ns.saturating_sub(regained_ns);
                    let ahead_ns = now.saturating_sub(wall_ns);
                    prop_assert!(ahead_ns <= allowed_ns, "{ahead_ns} ns ahead in round {round}");
                }
            }
        }
    }

    #[test]
    fn time_that_is_ahead_of_the_wall_clock_goes_slower_by_so_much() {
        let latest = AtomicU64::new(START_NS);
        let process = Process::new(&latest, 0);
        // Somebody was ahead by an hour.
        latest.fetch_add(3_600_000_000_000, Ordering::Relaxed);
        let first = process.now(&latest, 0, START_NS);
        let mut last = first;
        for tenth in 1..=10_240_u64 {
            let elapsed_ns = tenth * 100_000_001;
            last = process.now(&latest, elapsed_ns, START_NS + elapsed_ns);
        }
        let went_ns = last - first;
        let slower_ns = 1_024_000_000_000 - went_ns;
        assert!((1_900_000_000..2_100_000_000).contains(&slower_ns), "{slower_ns} of 1,024 s");
    }
}
