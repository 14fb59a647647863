//! [`Timestamp`]: the time that callers pass in.

use core::time::Duration;

/// A point in time: nanoseconds since an origin that all callers of one limiter share.
///
/// The core has no clock. The origin is the caller's choice; the `tidegate` crate uses the Unix
/// epoch, so that windows and calendars agree between processes and boots.
///
/// Timestamps hold 62 bits: from the origin to [`Timestamp::MAX`], 146 years later. A later reading
/// is clamped to `MAX`. There time stands still, so quotas no longer refill: the error is toward
/// denial. The two spare bits let state words carry tags beside a full timestamp, and make overflow
/// of sums of times impossible.
///
/// ```
/// use core::time::Duration;
/// use tidegate_core::Timestamp;
///
/// let start = Timestamp::from_secs(5);
/// assert_eq!(start + Duration::from_millis(1), Timestamp::from_nanos(5_001_000_000));
/// assert_eq!(start.since(Timestamp::from_secs(9)), Duration::ZERO, "the past is never negative");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The last timestamp, 2^62 - 2 ns after the origin (with the Unix epoch: in the year 2116).
    pub const MAX: Self = Self((1 << 62) - 2);

    /// The timestamp `nanos` nanoseconds after the origin, at most [`Timestamp::MAX`].
    #[inline]
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        if nanos > Self::MAX.0 { Self::MAX } else { Self(nanos) }
    }

    /// The timestamp `secs` seconds after the origin, at most [`Timestamp::MAX`].
    #[inline]
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_nanos(secs.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the origin.
    #[inline]
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// As [`since`](Self::since), in nanoseconds.
    #[inline]
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The timestamp `nanos` later, at most [`Timestamp::MAX`].
    #[inline]
    pub(crate) const fn plus_nanos(self, nanos: u64) -> Self {
        Self::from_nanos(self.0.saturating_add(nanos))
    }
}

/// Adds a span; the sum stops at [`Timestamp::MAX`].
impl core::ops::Add<Duration> for Timestamp {
    type Output = Self;

    #[inline]
    fn add(self, span: Duration) -> Self {
        self.plus_nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_beyond_the_last_timestamp_are_clamped() {
        assert_eq!(Timestamp::from_nanos(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_secs(u64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MAX + Duration::MAX, Timestamp::MAX);
        // As many nanoseconds as a multiple of 2^64.
        let wraps = Duration::from_secs(1 << 55);
        assert_eq!(Timestamp::from_secs(wraps.as_secs()), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO + wraps, Timestamp::MAX);
        assert_eq!(Timestamp::from_nanos(Timestamp::MAX.as_nanos()), Timestamp::MAX);
        assert_eq!(Timestamp::MAX.as_nanos(), 4_611_686_018_427_387_902);
    }
}
