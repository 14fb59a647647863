//! Fixed window: a budget that starts afresh at each boundary of a calendar.

use super::{Algorithm, Step};
use crate::divisor::Divisor;
use crate::{Allowance, Cost, Denial, Quota, QuotaError, Timestamp};

/// Fixed window, or calendar budget: "10,000 tokens per UTC day".
///
/// Units count until the window's end, and then all come back at once.
///
/// # Guarantee
/// In each window of the calendar, at most `limit` units are admitted. Around a boundary that allows
/// up to twice the limit within one window's length; where that matters, use a sliding window.
///
/// Debt from [`charge`](Algorithm::charge) is carried: each new window pays off up to `limit` of it
/// before it admits anything. It is never forgiven, up to the word's capacity.
///
/// A refund frees units only in the window that they were charged in. A denial is never given too
/// long or too short.
///
/// # State
/// One word, split where the calendar's last window number needs it:
///
/// | bits | field |
/// |---|---|
/// | high: as many as the calendar's last number has | number of the window |
/// | low: the rest | units used, debt included; stops at the field's end |
///
/// The number cannot wrap, since its field holds the number of [`Timestamp::MAX`]. The limit is at
/// most half of the low field's range, so that as much debt again can be carried.
///
/// ```
/// use tidegate_core::{Cost, FixedWindow, Limiter, Quota, Timestamp};
///
/// let daily = Limiter::new(FixedWindow::new(Quota::per_day(10_000))?);
/// let noon = Timestamp::from_secs(12 * 3600);
/// assert!(daily.decide(Cost::new(9_999), noon).is_allow());
/// assert!(!daily.decide(Cost::new(2), noon).is_allow(), "would pass the limit: not charged");
/// assert!(daily.decide(Cost::ONE, noon).is_allow(), "meets it exactly");
/// assert!(daily.decide(Cost::ONE, Timestamp::from_secs(24 * 3600)).is_allow());
/// # Ok::<(), tidegate_core::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedWindow<C = Every> {
    limit: u64,
    used_bits: u32,
    calendar: C,
}

/// Where windows begin and end.
///
/// Windows are numbered from 0, follow each other without gaps, and cover all timestamps; one may be
/// empty. The core has [`Every`]; the `tidegate` crate adds days, weeks and months in a time zone.
pub trait Calendar {
    /// The window that `at` lies in. `hint` is the number of a window that it probably is.
    fn window(&self, at: Timestamp, hint: u64) -> Window;

    /// Where window `number` starts; [`Timestamp::MAX`] for numbers after the last.
    fn start_of(&self, number: u64) -> Timestamp;
}

/// One window of a [`Calendar`]: from `start` up to, and without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its number; the window after it has the next.
    pub number: u64,
    /// Its first timestamp.
    pub start: Timestamp,
    /// The first timestamp of the next window.
    pub end: Timestamp,
}

/// Windows of one length, counted from the timestamps' origin: with the Unix epoch as origin, UTC
/// minutes, hours and days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every {
    period: Divisor,
}

impl Every {
    /// Windows as long as the quota's period.
    #[must_use]
    pub const fn new(quota: Quota) -> Self {
        Self { period: Divisor::new(quota.period_ns()) }
    }
}

impl Calendar for Every {
    #[inline]
    fn window(&self, at: Timestamp, hint: u64) -> Window {
        let at_ns = at.as_nanos();
        // A word's number is below twice the last one's, so its start is below 2^63.
        let hinted = hint.saturating_mul(self.period.by());
        let number = if at_ns.wrapping_sub(hinted) < self.period.by() {
            hint
        } else {
            self.period.quotient(at_ns)
        };
        Window { number, start: self.start_of(number), end: self.start_of(number + 1) }
    }

    #[inline]
    fn start_of(&self, number: u64) -> Timestamp {
        Timestamp::from_nanos(number.saturating_mul(self.period.by()))
    }
}

impl FixedWindow<Every> {
    /// The quota's units in each window of the quota's period, counted from the origin.
    ///
    /// # Errors
    /// When the word has no room for this many units with a period this short.
    pub const fn new(quota: Quota) -> Result<Self, QuotaError> {
        let last = Timestamp::MAX.as_nanos() / quota.period_ns();
        match used_bits(quota.units(), last) {
            Ok(used_bits) => {
                Ok(Self { limit: quota.units(), used_bits, calendar: Every::new(quota) })
            }
            Err(error) => Err(error),
        }
    }
}

impl<C: Calendar> FixedWindow<C> {
    /// `limit` units in each window of the calendar.
    ///
    /// # Errors
    /// When the limit is zero, or the word has no room for this many units with windows this short.
    pub fn on(calendar: C, limit: u64) -> Result<Self, QuotaError> {
        let last = calendar.window(Timestamp::MAX, 0).number;
        Ok(Self { limit, used_bits: used_bits(limit, last)?, calendar })
    }
}

/// The width of the field of used units, when windows are numbered up to `last`.
const fn used_bits(limit: u64, last: u64) -> Result<u32, QuotaError> {
    if limit == 0 {
        return Err(QuotaError::NoUnits);
    }
    // `last` is below 2^62, so at least two bits are left; one window alone needs no number.
    let bits = if last == 0 { 63 } else { last.leading_zeros() };
    let max = 1 << (bits - 1);
    if limit > max {
        return Err(QuotaError::TooLarge { units: limit, max });
    }
    Ok(bits)
}

impl<C> FixedWindow<C> {
    /// The units per window.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The calendar.
    #[must_use]
    pub const fn calendar(&self) -> &C {
        &self.calendar
    }

    /// The window number and the units used in a word.
    #[inline]
    const fn unpack(&self, word: u64) -> (u64, u64) {
        (word >> self.used_bits, word & self.max_used())
    }

    /// The word of a window number and units, which stop at the field's end.
    #[inline]
    fn pack(&self, number: u64, used: u64) -> u64 {
        (number << self.used_bits) | used.min(self.max_used())
    }

    #[inline]
    const fn max_used(&self) -> u64 {
        (1 << self.used_bits) - 1
    }
}

impl<C: Calendar> FixedWindow<C> {
    /// The window that counts at `now`, and the units used in it.
    ///
    /// Windows that have passed since the word was written paid off `limit` of debt each. A `now`
    /// before the word's window is stale, and counts as in that window.
    #[inline]
    fn at(&self, word: u64, now: Timestamp) -> (Window, u64) {
        let (number, used) = self.unpack(word);
        let window = self.calendar.window(now, number);
        if window.number == number {
            return (window, used);
        }
        if window.number < number {
            let (start, end) = (self.calendar.start_of(number), self.calendar.start_of(number + 1));
            return (Window { number, start, end }, used);
        }
        let paid = self.limit.saturating_mul(window.number - number);
        (window, used.saturating_sub(paid))
    }

    /// The wait until at most `most` of `used` units are left.
    #[inline]
    fn wait_ns(&self, window: Window, used: u64, most: u64, now: Timestamp) -> u64 {
        let excess = used.saturating_sub(most);
        if excess == 0 {
            return 0;
        }
        // At least a tick, also where the end of time clamps the window's end.
        if excess <= self.limit {
            return window.end.nanos_since(now).max(1);
        }
        // Deep in debt, which is rare: the division is no matter.
        let windows = excess.div_ceil(self.limit);
        self.calendar.start_of(window.number.saturating_add(windows)).nanos_since(now).max(1)
    }
}

impl<C: Calendar> Algorithm for FixedWindow<C> {
    // Always: what the caller does not look at, such as the waits, is then not computed.
    #[inline(always)]
    fn step(&self, word: u64, cost: Cost, now: Timestamp) -> Step {
        let (window, used) = self.at(word, now);
        let remaining = self.limit.saturating_sub(used);
        let cost = cost.units();
        if cost > self.limit {
            let reset = self.wait_ns(window, used, 0, now);
            return Step::Deny(Denial::oversized(remaining, reset));
        }
        if used > self.limit - cost {
            return Step::Deny(Denial::exhausted(
                remaining,
                self.wait_ns(window, used, self.limit - cost, now),
                self.wait_ns(window, used, 0, now),
            ));
        }
        let used = used + cost;
        let word = if cost == 0 { word } else { self.pack(window.number, used) };
        let reset = self.wait_ns(window, used, 0, now);
        Step::Allow { word, allowance: Allowance::new(remaining - cost, reset) }
    }

    #[inline]
    fn charge(&self, word: u64, cost: Cost, now: Timestamp) -> u64 {
        let (window, used) = self.at(word, now);
        self.pack(window.number, used.saturating_add(cost.units()))
    }

    #[inline]
    fn refund(&self, word: u64, cost: Cost, charged_at: Timestamp, _: Timestamp) -> u64 {
        let (number, used) = self.unpack(word);
        // A charge with a stale time was counted in a later window than its time says; it stays.
        // Units at the end of the field stand for any number beyond, so they stay too.
        if self.calendar.window(charged_at, number).number != number || used == self.max_used() {
            return word;
        }
        self.pack(number, used.saturating_sub(cost.units()))
    }

    /// Debt of an earlier window counts in this one, so it is freed in this one.
    fn forgive(&self, word: u64, cost: Cost, now: Timestamp) -> u64 {
        if self.unpack(word).1 == self.max_used() {
            return word; // stands for any number beyond
        }
        let (window, used) = self.at(word, now);
        self.pack(window.number, used.saturating_sub(cost.units()))
    }

    #[inline]
    fn idle_at(&self, word: u64) -> Timestamp {
        match self.idle_rank(word) {
            0 => Timestamp::ZERO,
            number => self.calendar.start_of(number),
        }
    }

    /// The number of the window at whose start nothing is left, or 0.
    #[inline]
    fn idle_rank(&self, word: u64) -> u64 {
        let (number, used) = self.unpack(word);
        match used {
            0 => 0,
            used if used <= self.limit => number + 1,
            used => number.saturating_add(used.div_ceil(self.limit)),
        }
    }

    #[inline]
    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        self.at(word, now).1 == 0
    }
}
