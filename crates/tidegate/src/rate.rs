//! [`Rate`]: a limit as people write it, "100 per minute".

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tidegate_core::{Quota, QuotaError};

/// A limit as people write it: `100 per minute`, `10_000/day`, `5 per 30 seconds`.
///
/// Always so many units per period. Periods are second, minute, hour, day, week and month, in the
/// singular or plural, or `s`, `min`, `h`, `d`, `w`; a number before the period multiplies it.
///
/// ```
/// use tidegate::{Period, Rate};
///
/// let rate: Rate = "10_000 per day".parse()?;
/// assert_eq!((rate.units(), rate.count(), rate.period()), (10_000, 1, Period::Day));
/// assert_eq!("5/30s".parse::<Rate>()?.to_string(), "5 per 30 seconds");
/// # Ok::<(), tidegate::RateError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    units: u64,
    count: u32,
    period: Period,
}

/// The period of a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 24 hours, or a calendar's day.
    Day,
    /// 7 days, or a calendar's week.
    Week,
    /// A calendar's month: it has no length of its own.
    Month,
}

impl Period {
    const NAMES: [(Self, &'static [&'static str]); 6] = [
        (Self::Second, &["second", "seconds", "sec", "s"]),
        (Self::Minute, &["minute", "minutes", "min"]),
        (Self::Hour, &["hour", "hours", "h"]),
        (Self::Day, &["day", "days", "d"]),
        (Self::Week, &["week", "weeks", "w"]),
        (Self::Month, &["month", "months"]),
    ];

    /// Its name, in the singular.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].1[0]
    }

    /// Its length; a month has none.
    #[must_use]
    pub const fn length(self) -> Option<Duration> {
        let secs = match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
            Self::Month => return None,
        };
        Some(Duration::from_secs(secs))
    }
}

impl Rate {
    /// `units` per `period`.
    #[must_use]
    pub const fn new(units: u64, period: Period) -> Self {
        Self { units, count: 1, period }
    }

    /// How many units.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.units
    }

    /// Per how many periods.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Per which period.
    #[must_use]
    pub const fn period(&self) -> Period {
        self.period
    }

    /// The length of the whole period; months have none.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        self.period.length()?.checked_mul(self.count)
    }

    /// The rate as a quota.
    ///
    /// # Errors
    /// For months, which have no fixed length, and for what [`Quota::new`] refuses.
    pub fn quota(&self) -> Result<Quota, RateError> {
        let length = self.length().ok_or(RateError::MonthWithoutCalendar)?;
        Quota::new(self.units, length).map_err(RateError::Quota)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = || RateError::Malformed { text: text.to_owned() };
        let (units, rest) = split_number(text.trim()).ok_or_else(malformed)?;
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('/').or_else(|| {
            let rest = rest.strip_prefix("per")?;
            rest.starts_with(char::is_whitespace).then_some(rest)
        });
        let rest = rest.ok_or_else(malformed)?.trim_start();
        let (count, name) = match rest.starts_with(|c: char| c.is_ascii_digit()) {
            true => split_number(rest).ok_or_else(malformed)?,
            false => (1, rest),
        };
        let name = name.trim_start().to_ascii_lowercase();
        let known = Period::NAMES.iter().find(|(_, names)| names.contains(&name.as_str()));
        let (period, _) = known.ok_or(RateError::UnknownPeriod { period: name })?;
        let count = u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(malformed)?;
        Ok(Self { units, count, period: *period })
    }
}

/// The number at the start, with `_` between digits allowed, and what follows it.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if digits.starts_with('_') || digits.ends_with('_') {
        return None;
    }
    Some((digits.replace('_', "").parse().ok()?, rest))
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, name) = (self.units, self.period.name());
        match self.count {
            1 => write!(f, "{units} per {name}"),
            count => write!(f, "{units} per {count} {name}s"),
        }
    }
}

/// Why a text is no rate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateError {
    /// It does not read `<units> per <period>`.
    Malformed {
        /// The text.
        text: String,
    },
    /// The period is none that is known.
    UnknownPeriod {
        /// What stands in its place.
        period: String,
    },
    /// A month has no fixed length.
    MonthWithoutCalendar,
    /// The numbers make no quota.
    Quota(QuotaError),
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { text } => {
                write!(f, "`{text}` is not a rate; write it as in `100 per minute` or `5 per 30 seconds`")
            }
            Self::UnknownPeriod { period } => write!(
                f,
                "`{period}` is not a period; use second, minute, hour, day, week or month"
            ),
            Self::MonthWithoutCalendar => f.write_str(
                "a month has no fixed length; use the algorithm `fixed-window`, or a period in days",
            ),
            Self::Quota(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RateError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_people_write_them() {
        for (text, units, count, period) in [
            ("100 per minute", 100, 1, Period::Minute),
            ("100/minute", 100, 1, Period::Minute),
            ("  10_000 per day ", 10_000, 1, Period::Day),
            ("5 per 30 seconds", 5, 30, Period::Second),
            ("5/30s", 5, 30, Period::Second),
            ("1 / 2 H", 1, 2, Period::Hour),
            ("7 per 2weeks", 7, 2, Period::Week),
            ("1 per month", 1, 1, Period::Month),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                (rate.units(), rate.count(), rate.period()),
                (units, count, period),
                "{text}"
            );
            assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_the_reason() {
        for text in [
            "",
            "100",
            "per minute",
            "100 perminute",
            "_1 per s",
            "1_ per s",
            "-1/s",
            "1.5/s",
            "1 per 0 s",
            "99999999999999999999/s",
            "1 per 9999999999 s",
            "100 minute",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(matches!(error, RateError::Malformed { .. }), "{text}: {error}");
        }
        let error = "1 per fortnight".parse::<Rate>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`fortnight` is not a period; use second, minute, hour, day, week or month"
        );
        let error = "0 per s".parse::<Rate>().unwrap().quota().unwrap_err();
        assert!(error.to_string().contains("at least 1"), "{error}");
        let error = "1 per month".parse::<Rate>().unwrap().quota().unwrap_err();
        assert!(error.to_string().contains("fixed-window"), "{error}");
    }
}
