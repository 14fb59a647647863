//! Token bucket by the generic cell rate algorithm: a smooth rate with bursts.

use super::{Algorithm, Step};
use crate::divisor::Divisor;
use crate::{Allowance, Cost, Denial, Quota, QuotaError, Timestamp};

/// Token bucket (GCRA): a smooth rate with bursts.
///
/// The bucket holds up to `burst` units and refills evenly, one unit each `period / units`. New
/// and idle buckets are full.
///
/// # Guarantee
/// In any span of length `t`, at most `burst + units x t / period` units are admitted: over one
/// period after a pause, that is `burst + units`, which is twice the quota when the burst is as large
/// as the quota (the default). For "at most 100 in any minute" use a sliding window.
///
/// Where a unit takes whole or half nanoseconds, that is exact in both directions. Otherwise a unit
/// can come less than 1 ns early, or less than 2 ns late: one word has no room for the fraction. Such
/// errors do not add up: see [Arithmetic](#arithmetic).
///
/// # State
/// One word: the theoretical arrival time, which is when the bucket will be full again, in ticks.
///
/// | word | state |
/// |---|---|
/// | `0` | never used, full |
/// | at most `ticks(now)` | full |
/// | up to `ticks(now) + burst x per_unit` | partly spent; at the end of the range, empty |
/// | more | in debt (after a settle above the reservation) |
///
/// Ticks of timestamps stay below 2^63, a burst refills within ten years (below 2^60 ticks), and debt
/// is capped at 2^62 ticks (73 years and more): sums stay below 2^64, so nothing wraps.
///
/// # Arithmetic
/// A tick is the part of a nanosecond, from a half up to one, that divides the time per unit evenly:
/// a unit is `per_unit = floor(2 x period_ns / units)` ticks, and a nanosecond is
/// `units x per_unit / period_ns` ticks, which is above 1 and at most 2. That ratio is kept to 62
/// fractional bits and rounded down, so over the whole range of timestamps the refill lags by less
/// than one tick, and a rate that does not divide a nanosecond evenly does not drift.
///
/// # Source
/// ITU-T I.371, annex A (virtual scheduling).
///
/// ```
/// use tidegate_core::{Cost, Limiter, Quota, Timestamp, TokenBucket};
///
/// // 10 per second, and up to 3 at once.
/// let bucket = TokenBucket::new(Quota::per_second(10))?.with_burst(3)?;
/// let limiter = Limiter::new(bucket);
/// let now = Timestamp::from_secs(1);
/// assert!(limiter.decide(Cost::new(3), now).is_allow());
/// assert!(!limiter.decide(Cost::ONE, now).is_allow());
/// assert!(limiter.decide(Cost::ONE, now + core::time::Duration::from_millis(100)).is_allow());
/// # Ok::<(), tidegate_core::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Ticks per nanosecond, times 2^62: 2^62 to 2^63.
    rate: u64,
    /// 2^124 / rate, rounded down: nanoseconds per tick, times 2^62.
    inverse_rate: u64,
    /// Ticks per unit.
    per_unit: Divisor,
    /// The most units at once.
    burst: u64,
    /// `burst` in ticks.
    tolerance: u64,
}

/// The longest debt, in ticks.
const MAX_DEBT: u64 = 1 << 62;

/// The longest wait that is told, in ticks: 36 years and more.
const MAX_WAIT: u64 = 1 << 61;

impl TokenBucket {
    /// A bucket that refills at the quota's rate and holds one period's worth of units.
    ///
    /// # Errors
    /// When the rate is above one unit per nanosecond.
    pub const fn new(quota: Quota) -> Result<Self, QuotaError> {
        let (units, period_ns) = (quota.units(), quota.period_ns());
        if units > period_ns {
            return Err(QuotaError::TooFast { units, period_ns });
        }
        let per_unit = 2 * period_ns / units;
        // units x per_unit is at most twice the period, below 2^60: the product stays below 2^122.
        let rate = (((units * per_unit) as u128) << 62) / period_ns as u128;
        let bucket = Self {
            rate: rate as u64,
            inverse_rate: ((1 << 124) / rate) as u64,
            per_unit: Divisor::new(per_unit),
            burst: 0,
            tolerance: 0,
        };
        bucket.with_burst(units)
    }

    /// The same rate, with up to `burst` units at once.
    ///
    /// # Errors
    /// When the burst is zero or would take more than ten years to refill.
    pub const fn with_burst(self, burst: u64) -> Result<Self, QuotaError> {
        let max = 2 * Quota::MAX_PERIOD.as_nanos() as u64 / self.per_unit.by();
        if burst == 0 || burst > max {
            return Err(QuotaError::Burst { burst, max });
        }
        Ok(Self { burst, tolerance: burst * self.per_unit.by(), ..self })
    }

    /// The most units that can be spent at once.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.burst
    }

    /// `now` in ticks, rounded down.
    #[inline]
    const fn ticks(&self, now: Timestamp) -> u64 {
        // Timestamps stay below 2^62. This way the ticks are the high half of the product as it is.
        (((now.as_nanos() << 2) as u128 * self.rate as u128) >> 64) as u64
    }

    /// Whether a nanosecond is a whole number of ticks.
    #[inline]
    const fn is_exact(&self) -> bool {
        self.rate == 1 << 63 // two: one alone is never chosen
    }

    /// The least wait after `now` until `ticks` reaches `due`.
    ///
    /// That is `need / rate`, rounded up, by the reciprocal: for waits up to [`MAX_WAIT`] the
    /// estimate is short by less than 3, which the remainder tells.
    #[inline]
    const fn wait_ns(&self, due: u64, now: Timestamp) -> u64 {
        let latest = self.ticks(now) + MAX_WAIT;
        let due = if due > latest { latest } else { due };
        let reached = now.as_nanos() as u128 * self.rate as u128;
        let need = ((due as u128) << 62).saturating_sub(reached);
        let estimate = ((need >> 62) * self.inverse_rate as u128) >> 62;
        let rest = need - estimate * self.rate as u128;
        let rate = self.rate as u128;
        estimate as u64 + (rest > 0) as u64 + (rest > rate) as u64 + (rest > 2 * rate) as u64
    }

    /// The units left when the bucket is `ahead` ticks from full.
    #[inline]
    const fn remaining(&self, ahead: u64) -> u64 {
        self.per_unit.quotient(self.tolerance.saturating_sub(ahead))
    }
}

impl Algorithm for TokenBucket {
    // Always: what the caller does not look at, such as the waits, is then not computed.
    #[inline(always)]
    fn step(&self, word: u64, cost: Cost, now: Timestamp) -> Step {
        let ticks = self.ticks(now);
        // How far from full; only where somebody looks at it.
        let ahead = word.saturating_sub(ticks);
        if cost.units() > self.burst {
            let denial = Denial::oversized(self.remaining(ahead), self.wait_ns(word, now));
            return Step::Deny(denial);
        }
        let increment = cost.units() * self.per_unit.by();
        let room = self.tolerance - increment;
        if word > ticks + room {
            // Ticks at which the excess has refilled.
            let due = word - room;
            return Step::Deny(Denial::exhausted(
                self.remaining(ahead),
                self.wait_ns(due, now),
                self.wait_ns(word, now),
            ));
        }
        if increment == 0 {
            let allowance = Allowance::new(self.remaining(ahead), self.wait_ns(word, now));
            return Step::Allow { word, allowance };
        }
        let next = ticks + ahead + increment;
        let allowance = Allowance::new(self.remaining(ahead + increment), self.wait_ns(next, now));
        Step::Allow { word: next, allowance }
    }

    #[inline]
    fn charge(&self, word: u64, cost: Cost, now: Timestamp) -> u64 {
        let full = self.ticks(now);
        let increment = cost.units().saturating_mul(self.per_unit.by());
        word.max(full).saturating_add(increment).min((full + MAX_DEBT).max(word))
    }

    /// A charge of `n` units holds `n` units at first and one less each time that a unit refills,
    /// since the bucket might have been full in between: so much is freed, rounded down.
    #[inline]
    fn refund(&self, word: u64, cost: Cost, charged_at: Timestamp, now: Timestamp) -> u64 {
        // The difference of two rounded-down tick counts is short by less than one.
        let refilled = if now > charged_at {
            self.ticks(now) - self.ticks(charged_at) + u64::from(!self.is_exact())
        } else {
            0
        };
        let held = cost.units().saturating_mul(self.per_unit.by()).saturating_sub(refilled);
        word.saturating_sub(held)
    }

    #[inline]
    fn idle_at(&self, word: u64) -> Timestamp {
        // Nobody asks for this on the hot path, so a division will do.
        let nanos = (u128::from(word) << 62).div_ceil(u128::from(self.rate));
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    #[inline]
    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        word <= self.ticks(now)
    }

    #[inline]
    fn idle_rank(&self, word: u64) -> u64 {
        word
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Ratios that take the most of the arithmetic: small ones, and long periods.
    fn buckets() -> impl Strategy<Value = TokenBucket> {
        let small = (1..9_u64, 1..9_u64);
        let large = (1..1_u64 << 48, 1..Quota::MAX_PERIOD.as_nanos() as u64);
        prop_oneof![small, large].prop_filter_map("too fast", |(units, period_ns)| {
            TokenBucket::new(Quota::new(units, Duration::from_nanos(period_ns)).ok()?).ok()
        })
    }

    /// The longest wait at two ticks a nanosecond, and a little less.
    const LONGEST: u64 = MAX_WAIT / 2 - 4;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) })]

        /// Up to the longest that is told, and about whole numbers of nanoseconds.
        #[test]
        fn a_wait_is_the_least_that_does(
            bucket in buckets(),
            now_ns in 0..1_u64 << 61,
            wait_ns in prop_oneof![0..100_u64, 0..LONGEST, LONGEST - 100..LONGEST],
            off in -3..4_i64,
        ) {
            let now = Timestamp::from_nanos(now_ns);
            let reached = bucket.ticks(Timestamp::from_nanos(now_ns + wait_ns));
            let due = reached.saturating_add_signed(off);
            let wait = bucket.wait_ns(due, now);
            prop_assert!(bucket.ticks(Timestamp::from_nanos(now_ns + wait)) >= due, "too short");
            let early = wait.checked_sub(1).map(|ns| Timestamp::from_nanos(now_ns + ns));
            prop_assert!(early.is_none_or(|early| bucket.ticks(early) < due), "too long");
        }

        #[test]
        fn a_bucket_is_idle_from_when_it_says_on(bucket in buckets(), word in 0..1_u64 << 62) {
            let idle_at = bucket.idle_at(word);
            prop_assert!(bucket.is_idle(word, idle_at));
            let early = idle_at.as_nanos().checked_sub(1).map(Timestamp::from_nanos);
            prop_assert!(early.is_none_or(|early| !bucket.is_idle(word, early)));
        }
    }

    /// The reciprocal falls short by most for waits of decades, at rates of four ticks in three
    /// nanoseconds.
    #[test]
    fn a_wait_of_decades_is_the_least_that_does() {
        let bucket = TokenBucket::new(Quota::new(178, Duration::from_nanos(266)).unwrap()).unwrap();
        let (rate, inverse) = (u128::from(bucket.rate), u128::from(bucket.inverse_rate));
        let mut falls_short = [0; 4];
        for (now, less) in (0..8_u64).flat_map(|now| (0..60).map(move |less| (now, less))) {
            let due = bucket.ticks(Timestamp::from_nanos(now)) + MAX_WAIT - less;
            let need = (u128::from(due) << 62) - u128::from(now) * rate;
            let wait = need.div_ceil(rate);
            let told = bucket.wait_ns(due, Timestamp::from_nanos(now));
            assert_eq!(u128::from(told), wait, "after {now} ns, {less} ticks less");
            falls_short[(wait - (((need >> 62) * inverse) >> 62)) as usize] += 1;
        }
        assert!(falls_short[1..].iter().all(|times| *times > 0), "{falls_short:?}");
    }

    /// All of them, since in some the last nanosecond is for the smallest part of a tick.
    #[test]
    fn a_wait_of_few_ticks_is_the_least_that_does() {
        let quotas = (1..=12_u64).flat_map(|period| (1..=period).map(move |units| (units, period)));
        for (units, period_ns) in quotas {
            let quota = Quota::new(units, Duration::from_nanos(period_ns)).unwrap();
            let bucket = TokenBucket::new(quota).unwrap();
            for (now, due) in (0..8_u64).flat_map(|now| (0..64_u64).map(move |due| (now, due))) {
                let reaches = |wait: &u64| bucket.ticks(Timestamp::from_nanos(now + wait)) >= due;
                let wait = (0..).find(reaches).unwrap();
                let told = bucket.wait_ns(due, Timestamp::from_nanos(now));
                assert_eq!(told, wait, "{units} in {period_ns} ns, {due} ticks from {now} ns");
            }
        }
    }

    #[test]
    fn a_wait_longer_than_any_is_told_as_the_longest() {
        let bucket = TokenBucket::new(Quota::per_second(1)).unwrap();
        let now = Timestamp::from_secs(5);
        for due in [bucket.ticks(now) + MAX_WAIT, bucket.ticks(now) + MAX_WAIT + 1, u64::MAX] {
            assert_eq!(bucket.wait_ns(due, now), MAX_WAIT / 2, "two ticks a nanosecond");
        }
    }
}
