//! [`Quota`]: how many units per period.

use core::fmt;
use core::time::Duration;

/// A limit as people say it: so many units per period.
///
/// Always *units per period*, never a period per unit: `Quota::per_minute(100)` is one hundred in a
/// minute. What "in a minute" means (any minute, this calendar minute, on average) is the
/// algorithm's business. An invalid quota cannot exist.
///
/// ```
/// use core::time::Duration;
/// use tidegate_core::Quota;
///
/// const LOGIN: Quota = Quota::per_minute(5); // a zero here fails to compile
/// let custom = Quota::new(7_000_000, Duration::from_secs(90))?;
/// assert_eq!(custom.units(), 7_000_000);
/// assert!(Quota::new(0, Duration::from_secs(1)).is_err());
/// # Ok::<(), tidegate_core::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    units: u64,
    period_ns: u64,
}

impl Quota {
    /// The most units a quota may have: 2^48, about 281 trillion.
    pub const MAX_UNITS: u64 = 1 << 48;

    /// The longest period: ten years of 365 days.
    pub const MAX_PERIOD: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    /// `units` per `period`.
    ///
    /// # Errors
    /// When units or period are zero, or above [`Quota::MAX_UNITS`] or [`Quota::MAX_PERIOD`].
    pub const fn new(units: u64, period: Duration) -> Result<Self, QuotaError> {
        if units == 0 {
            return Err(QuotaError::NoUnits);
        }
        if units > Self::MAX_UNITS {
            return Err(QuotaError::TooManyUnits { units });
        }
        if period.as_nanos() == 0 {
            return Err(QuotaError::NoPeriod);
        }
        if period.as_nanos() > Self::MAX_PERIOD.as_nanos() {
            return Err(QuotaError::PeriodTooLong { secs: period.as_secs() });
        }
        Ok(Self { units, period_ns: period.as_nanos() as u64 })
    }

    /// `units` per second.
    ///
    /// # Panics
    /// When `units` is zero or above [`Quota::MAX_UNITS`]; in a `const`, at compile time.
    #[must_use]
    pub const fn per_second(units: u64) -> Self {
        Self::per(units, 1)
    }

    /// `units` per minute.
    ///
    /// # Panics
    /// As [`Quota::per_second`].
    #[must_use]
    pub const fn per_minute(units: u64) -> Self {
        Self::per(units, 60)
    }

    /// `units` per hour.
    ///
    /// # Panics
    /// As [`Quota::per_second`].
    #[must_use]
    pub const fn per_hour(units: u64) -> Self {
        Self::per(units, 3600)
    }

    /// `units` per 24 hours.
    ///
    /// # Panics
    /// As [`Quota::per_second`].
    #[must_use]
    pub const fn per_day(units: u64) -> Self {
        Self::per(units, 24 * 3600)
    }

    /// How many units.
    #[inline]
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.units
    }

    /// In what time.
    #[inline]
    #[must_use]
    pub const fn period(&self) -> Duration {
        Duration::from_nanos(self.period_ns)
    }

    /// In what time, in nanoseconds: 1 to 2^59.
    #[inline]
    pub(crate) const fn period_ns(&self) -> u64 {
        self.period_ns
    }

    const fn per(units: u64, secs: u64) -> Self {
        match Self::new(units, Duration::from_secs(secs)) {
            Ok(quota) => quota,
            Err(_) => panic!("a quota needs at least 1 unit and at most Quota::MAX_UNITS"),
        }
    }
}

/// Why a quota, or an algorithm for it, cannot exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuotaError {
    /// Zero units would deny everything for ever.
    NoUnits,
    /// More than [`Quota::MAX_UNITS`].
    TooManyUnits {
        /// The units asked for.
        units: u64,
    },
    /// A zero period.
    NoPeriod,
    /// Longer than [`Quota::MAX_PERIOD`].
    PeriodTooLong {
        /// The period asked for, in whole seconds.
        secs: u64,
    },
    /// More than one unit per nanosecond.
    TooFast {
        /// The units asked for.
        units: u64,
        /// The period asked for.
        period_ns: u64,
    },
    /// A burst of zero, or one that would take over 10 years to refill.
    Burst {
        /// The burst asked for.
        burst: u64,
        /// The largest burst that this rate allows.
        max: u64,
    },
    /// The algorithm's word has no room for a limit this large with a period this short.
    TooLarge {
        /// The units asked for.
        units: u64,
        /// The largest limit that fits.
        max: u64,
    },
    /// The number of epochs is not between 1 and the algorithm's maximum.
    Epochs {
        /// The number asked for.
        epochs: usize,
        /// The largest number allowed.
        max: usize,
    },
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoUnits => f.write_str("a limit of 0 units denies everything; give at least 1"),
            Self::TooManyUnits { units } => {
                write!(f, "{units} units are too many; give at most {}", Quota::MAX_UNITS)
            }
            Self::NoPeriod => f.write_str("a period of 0 has no rate; give at least 1 ns"),
            Self::PeriodTooLong { secs } => write!(
                f,
                "a period of {secs} s is too long; give at most {} s (10 years)",
                Quota::MAX_PERIOD.as_secs()
            ),
            Self::TooFast { units, period_ns } => write!(
                f,
                "{units} units in {period_ns} ns are more than 1 per nanosecond; count in a larger unit"
            ),
            Self::Burst { burst, max } => write!(
                f,
                "a burst of {burst} does not fit; give 1 to {max}, so that it refills within 10 years"
            ),
            Self::TooLarge { units, max } => write!(
                f,
                "a limit of {units} units does not fit this period; give at most {max}, or count in a larger unit"
            ),
            Self::Epochs { epochs, max } => {
                write!(f, "{epochs} epochs do not fit; give 1 to {max}")
            }
        }
    }
}

impl core::error::Error for QuotaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_units_per_period() {
        assert_eq!(Quota::per_second(5).period(), Duration::from_secs(1));
        assert_eq!(Quota::per_minute(5).period(), Duration::from_secs(60));
        assert_eq!(Quota::per_hour(5).period(), Duration::from_secs(3600));
        assert_eq!(Quota::per_day(5).period(), Duration::from_secs(86_400));
        assert_eq!(Quota::per_minute(100).units(), 100);
    }

    #[test]
    fn impossible_quotas_are_refused_with_the_reason() {
        let second = Duration::from_secs(1);
        assert_eq!(Quota::new(0, second), Err(QuotaError::NoUnits));
        assert_eq!(
            Quota::new(Quota::MAX_UNITS + 1, second),
            Err(QuotaError::TooManyUnits { units: Quota::MAX_UNITS + 1 })
        );
        assert_eq!(Quota::new(1, Duration::ZERO), Err(QuotaError::NoPeriod));
        assert!(matches!(Quota::new(1, Duration::MAX), Err(QuotaError::PeriodTooLong { .. })));
        assert!(Quota::new(Quota::MAX_UNITS, Quota::MAX_PERIOD).is_ok());
        let longer = Quota::MAX_PERIOD + Duration::from_nanos(1);
        assert!(matches!(Quota::new(1, longer), Err(QuotaError::PeriodTooLong { .. })));
        assert_eq!(Quota::MAX_UNITS, 281_474_976_710_656);
        assert_eq!(Quota::MAX_PERIOD.as_secs(), 315_360_000);
    }

    #[test]
    fn errors_say_what_would_be_right() {
        for (error, said) in [
            (QuotaError::NoUnits, "at least 1"),
            (QuotaError::TooManyUnits { units: 7 }, "at most 281474976710656"),
            (QuotaError::NoPeriod, "at least 1 ns"),
            (QuotaError::PeriodTooLong { secs: 7 }, "at most 315360000 s (10 years)"),
            (QuotaError::TooFast { units: 9, period_ns: 7 }, "count in a larger unit"),
            (QuotaError::Burst { burst: 0, max: 7 }, "give 1 to 7"),
            (QuotaError::TooLarge { units: 9, max: 7 }, "at most 7"),
            (QuotaError::Epochs { epochs: 0, max: 7 }, "give 1 to 7"),
        ] {
            let text = std::string::ToString::to_string(&error);
            assert!(text.contains(said), "{text}");
        }
    }
}
