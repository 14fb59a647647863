//! Sliding window log: the exact window, one ring entry per unit.

mod layout;
mod write;

use crate::protocol::{Cell, Entry as Entered, Protocol, Swap};
use crate::sync::{AtomicU64, Ordering};
use crate::{Allowance, Cost, Decision, Denial, Quota, QuotaError, Timestamp};
use layout::{Entry, Head, Layout};

/// Sliding window log: exactly "at most 20 in any 60 s", 8 bytes per unit of the limit.
///
/// A ring holds the times of the last `limit` admitted units. A unit may be admitted if and only if
/// the oldest of them is at least one window old: one entry to look at, where a list of timestamps
/// would be swept. A unit that is exactly one window old no longer counts.
///
/// # Guarantee
/// In any span of one window's length, at most `limit` units are admitted; and a cost that would fit
/// is never denied. That is exact, to the nanosecond, for calls that follow each other. A call whose
/// `now` is behind that of an earlier or overlapping call is recorded at the later time, so its units
/// can count longer by that difference.
///
/// Units charged above the limit (debt) are recorded at the earliest times at which they would have
/// been admitted, and nothing is admitted before the last of them. One charge can put off
/// [`MAX_DEBT_LAPS`](Self::MAX_DEBT_LAPS) times the limit; what is above that is not recorded.
///
/// A refund frees as many units at once, if their charge is not a window old; in debt, it takes the
/// last units of the debt first. When it is not the last charge that is refunded, what leaves the log
/// are the oldest units, so those that stay can count longer than they must, never shorter. After
/// that, a call whose `now` is behind may be told less than there is. A refund that races with a
/// charge above the limit may be hidden by it: the unit then counts for up to a window longer than
/// without the refund.
///
/// A decision takes time in proportion to its cost, and to the logarithm of the limit for
/// `remaining`.
///
/// # State
/// A head word with the position in the ring and the newest time, `limit` ring words with a time each,
/// and one with the time from which on times count: those before are a former key's. See the tables
/// of layouts in the source. To admit, a thread writes `now` into the entries at
/// the position, which are free, and then swaps the head to the position after them: that swap
/// admits. An entry that was written but not admitted stays free, so a thread that stops in between
/// leaves nothing behind.
///
/// The bound does not rest on the order of the ring: an entry is written only when what it held is a
/// window old, so each of the `limit` entries admits once per window.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::{AtomicU64, Cost, Limiter, Quota, SlidingWindowLog, Timestamp};
///
/// const LIMIT: SlidingWindowLog = match SlidingWindowLog::new(Quota::per_minute(2)) {
///     Ok(limit) => limit,
///     Err(_) => panic!(),
/// };
/// static LOGINS: Limiter<SlidingWindowLog, [AtomicU64; 3]> = Limiter::log(LIMIT);
///
/// let start = Timestamp::from_secs(1_000);
/// assert!(LOGINS.decide(Cost::ONE, start).is_allow());
/// assert!(LOGINS.decide(Cost::ONE, start + Duration::from_secs(59)).is_allow());
/// assert!(!LOGINS.decide(Cost::ONE, start + Duration::from_secs(59)).is_allow());
/// assert!(LOGINS.decide(Cost::ONE, start + Duration::from_secs(60)).is_allow());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindowLog {
    limit: u64,
    window_ns: u64,
    layout: Layout,
}

impl SlidingWindowLog {
    /// The largest limit: 2^24 units, a ring of 128 MiB.
    pub const MAX_LIMIT: u64 = 1 << 24;

    /// How many times the limit one charge can put off as debt.
    pub const MAX_DEBT_LAPS: u64 = 8;

    /// The quota's units in any span of the quota's period.
    ///
    /// # Errors
    /// When the quota has more than [`MAX_LIMIT`](Self::MAX_LIMIT) units, or more than one per
    /// nanosecond.
    pub const fn new(quota: Quota) -> Result<Self, QuotaError> {
        let (units, period_ns) = (quota.units(), quota.period_ns());
        if units > period_ns {
            return Err(QuotaError::TooFast { units, period_ns });
        }
        if quota.units() > Self::MAX_LIMIT {
            return Err(QuotaError::TooLarge { units: quota.units(), max: Self::MAX_LIMIT });
        }
        Ok(Self {
            limit: quota.units(),
            window_ns: quota.period_ns(),
            layout: Layout::new(quota.units()),
        })
    }

    /// The most units in any window.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) const fn ring_len(&self) -> usize {
        self.limit as usize + 1
    }

    /// The time from which on recorded times count.
    #[inline]
    fn since(&self, ring: &[AtomicU64]) -> Timestamp {
        // Relaxed: it only grows, and whoever confirms a new key's slot has set it or seen it set; so who
        // has read the key's head reads that time or a later one. Nothing is read by it.
        Timestamp::from_nanos(ring[self.limit as usize].load(Ordering::Relaxed))
    }

    #[inline]
    fn entry<'r>(&self, ring: &'r [AtomicU64], position: u64) -> &'r AtomicU64 {
        &ring[self.layout.index(position)]
    }

    #[inline]
    fn load(&self, ring: &[AtomicU64], position: u64) -> Entry {
        // Acquire: pairs with the release of the thread that wrote the entry, so that a head read
        // before is not older than what that thread had seen.
        Entry(self.entry(ring, position).load(Ordering::Acquire))
    }

    /// How long after `now` the entry at a position is free; zero when it is free already.
    ///
    /// See the table of [`Entry`] for the states.
    #[inline]
    fn wait_ns(&self, ring: &[AtomicU64], entry: Entry, position: u64, now: Timestamp) -> u64 {
        let Some(time) = entry.time() else { return 0 };
        let free_at = match (entry.parity() == self.layout.parity(position), entry.is_postponed()) {
            (false, _) => time.as_nanos() + self.window_ns,
            (true, false) => return 0,
            // The clamped end of time is never reached.
            (true, true) if time == Timestamp::MAX => time.as_nanos() + self.window_ns,
            (true, true) => time.as_nanos(),
        };
        let wait_ns = free_at.saturating_sub(now.as_nanos());
        if wait_ns > 0 && time < self.since(ring) { 0 } else { wait_ns }
    }

    /// How long after `now` the entry so many after the head's position is free.
    #[inline]
    fn wait_at(&self, ring: &[AtomicU64], head: Head, offset: u64, now: Timestamp) -> u64 {
        let position = self.layout.after(head.position, offset);
        self.wait_ns(ring, self.load(ring, position), position, now)
    }

    /// How many entries from the position on are free: they are the oldest, so a galloping search
    /// finds where those begin that hold.
    #[inline]
    fn free(&self, ring: &[AtomicU64], head: Head, now: Timestamp) -> u64 {
        let is_free = |offset| self.wait_at(ring, head, offset, now) == 0;
        let (mut free, mut step) = (0, 1);
        while free < self.limit {
            let offset = (free + step).min(self.limit) - 1;
            if is_free(offset) {
                free = offset + 1;
                step *= 2;
            } else {
                return self.free_between(free, offset, is_free);
            }
        }
        free
    }

    /// The first offset that is not free, where those below `free` are and `held` is not.
    fn free_between(&self, mut free: u64, mut held: u64, is_free: impl Fn(u64) -> bool) -> u64 {
        while free < held {
            let middle = free + (held - free) / 2;
            if is_free(middle) {
                free = middle + 1;
            } else {
                held = middle;
            }
        }
        free
    }

    /// The newest admitted unit's time, and whether it was put off to then.
    #[inline]
    fn newest(&self, ring: &[AtomicU64], head: Head) -> Option<(Timestamp, bool)> {
        let position = self.layout.before(head.position, 1);
        let entry = self.load(ring, position);
        let time = entry.time().filter(|time| *time >= self.since(ring))?;
        if entry.parity() == self.layout.parity(position) {
            return Some((time, entry.is_postponed()));
        }
        // Begun anew by a cost as large as the limit: over a unit that was free by then, or that held
        // until the time that is written, and may have been put off itself.
        let held = Timestamp::from_nanos(time.as_nanos().saturating_sub(self.window_ns));
        entry.is_postponed().then_some((held, true))
    }

    /// How long after `now` the last unit of debt is admitted; zero when there is none.
    #[inline]
    fn debt_ns(newest: Option<(Timestamp, bool)>, now: Timestamp) -> u64 {
        match newest {
            Some((time, true)) => time.nanos_since(now),
            _ => 0,
        }
    }

    /// The time until the newest unit expires.
    #[inline]
    fn reset_ns(&self, newest: Option<Timestamp>, now: Timestamp) -> u64 {
        newest
            .map_or(0, |newest| (newest.as_nanos() + self.window_ns).saturating_sub(now.as_nanos()))
    }

    /// The answer for `cost` when `free` entries are, if the head is still the same afterwards.
    fn answer(
        &self,
        ring: &[AtomicU64],
        head: Head,
        free: u64,
        cost: u64,
        now: Timestamp,
    ) -> Decision {
        let newest = self.newest(ring, head);
        let reset_ns = self.reset_ns(newest.map(|(time, _)| time), now);
        let debt_ns = Self::debt_ns(newest, now);
        let free = if debt_ns > 0 { 0 } else { free };
        if cost > self.limit {
            return Decision::Deny(Denial::oversized(free, reset_ns));
        }
        if cost <= free && debt_ns == 0 {
            let charged = newest.map_or(now, |(time, _)| time.max(now));
            let reset_ns = if cost == 0 { reset_ns } else { self.reset_ns(Some(charged), now) };
            return Decision::Allow(Allowance::new(free - cost, reset_ns));
        }
        let wait_ns = |offset| self.wait_at(ring, head, offset, now);
        // The last that is needed holds longest; the first too, should that one come free just now.
        let retry_ns = if cost == 0 { 0 } else { wait_ns(cost - 1).max(wait_ns(free)) };
        Decision::Deny(Denial::exhausted(free, retry_ns.max(debt_ns), reset_ns))
    }
}

impl Protocol for SlidingWindowLog {
    fn ring_words(&self) -> usize {
        self.ring_len()
    }

    #[inline]
    fn decide<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Decision> {
        let (ring, units) = (cell.ring(), cost.units());
        // A round is repeated only when another thread has moved the head or an entry.
        loop {
            let head = self.layout.head(word);
            let mut free = self.free(ring, head, now);
            if units > 0 && units <= free {
                match self.begin(ring, head, units, now) {
                    Ok(newest) => {
                        match cell.swap(word, self.advanced(head, units, newest)) {
                            Swap::Done => {
                                let reset_ns = self.reset_ns(Some(newest), now);
                                let allowance = Allowance::new(free - units, reset_ns);
                                return Some(Decision::Allow(allowance));
                            }
                            Swap::Changed(current) => word = current,
                            Swap::Gone => return None,
                        }
                        continue;
                    }
                    Err(write::Held { offset }) => free = offset,
                }
            }
            let decision = self.answer(ring, head, free, units, now);
            match cell.load()? {
                current if current == word => return Some(decision),
                current => word = current,
            }
        }
    }

    fn peek<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Decision> {
        let ring = cell.ring();
        loop {
            let head = self.layout.head(word);
            let free = self.free(ring, head, now);
            let decision = self.answer(ring, head, free, cost.units(), now);
            match cell.load()? {
                current if current == word => return Some(decision),
                current => word = current,
            }
        }
    }

    /// Without counting what is free, which takes longer than all the rest.
    #[inline]
    fn admit<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Result<(), Denial>> {
        let units = cost.units();
        if (1..=self.limit).contains(&units) {
            let mut head = self.layout.head(word);
            // The oldest entries come first: when the last that is needed holds, none is begun, so that a
            // denial writes nothing.
            let is_last_free =
                |head| units == 1 || self.wait_at(cell.ring(), head, units - 1, now) == 0;
            // A round is repeated only when another thread has moved the head.
            while is_last_free(head)
                && let Ok(newest) = self.begin(cell.ring(), head, units, now)
            {
                match cell.swap(word, self.advanced(head, units, newest)) {
                    Swap::Done => return Some(Ok(())),
                    Swap::Changed(current) => word = current,
                    Swap::Gone => return None,
                }
                head = self.layout.head(word);
            }
        }
        self.decide(cell, word, cost, now).map(Decision::into_result)
    }

    #[inline]
    fn foresee<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Result<(), Denial>> {
        let (ring, head, units) = (cell.ring(), self.layout.head(word), cost.units());
        // The oldest entries come first, so with the last of those that are needed all are free.
        if (1..=self.limit).contains(&units)
            && self.wait_at(ring, head, units - 1, now) == 0
            && Self::debt_ns(self.newest(ring, head), now) == 0
        {
            return Some(Ok(()));
        }
        self.peek(cell, word, cost, now).map(Decision::into_result)
    }

    fn charge<C: Cell>(&self, cell: &C, mut word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        let mut left = cost.units().min(self.limit * Self::MAX_DEBT_LAPS);
        while left > 0 {
            let head = self.layout.head(word);
            let units = left.min(self.limit);
            let newest = self.begin_regardless(cell.ring(), head, units, now);
            let next = self.advanced(head, units, newest);
            match cell.swap(word, next) {
                Swap::Done => (left, word) = (left - units, next),
                Swap::Changed(current) => word = current,
                Swap::Gone => return None,
            }
        }
        Some(())
    }

    fn refund<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()> {
        self.take_back(cell, word, cost.units(), charged_at, now)
    }

    fn enter(&self, left_behind: u64, cost: Cost, now: Timestamp) -> Entered {
        if cost.units() > self.limit {
            return Entered::Deny(Denial::oversized(self.limit, 0));
        }
        let word = self.layout.word(self.layout.head(left_behind).position, now);
        let reset_ns = if cost == Cost::ZERO { 0 } else { self.window_ns };
        let allowance = Allowance::new(self.limit - cost.units(), reset_ns);
        Entered::Admit { word, charged: false, allowance }
    }

    fn prepare<C: Cell>(&self, cell: &C, word: u64, clear: bool) {
        self.hand_over(cell, self.layout.head(word), clear);
    }

    #[inline]
    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        let last = self.layout.last(self.layout.head(word));
        now.nanos_since(last) >= self.window_ns
    }

    #[inline]
    fn idle_at(&self, word: u64) -> Timestamp {
        self.layout.last(self.layout.head(word)).plus_nanos(self.window_ns)
    }

    #[inline]
    fn idle_rank(&self, word: u64) -> u64 {
        self.layout.last(self.layout.head(word)).as_nanos()
    }

    #[inline]
    fn is_settled(&self, _: u64) -> bool {
        true
    }
}
