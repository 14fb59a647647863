//! [`Rate`]: a limit as people write it, "100 per minute".

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tidegate_core::{Quota, QuotaError};

use crate::money::{Currency, Money};

/// A limit as people write it: `100 per minute`, `10_000/day`, `5 per 30 seconds`.
///
/// Always so many units per period. Periods are second, minute, hour, day, week and month, in the
/// singular or plural, or `s`, `min`, `h`, `d`, `w`; a number before the period multiplies it. `5
/// concurrent` has no period: so many at a time.
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
    /// None: the units are in use at a time.
    Concurrent,
}

impl Period {
    const NAMES: [(Self, &'static [&'static str]); 7] = [
        (Self::Second, &["second", "seconds", "sec", "s"]),
        (Self::Minute, &["minute", "minutes", "min"]),
        (Self::Hour, &["hour", "hours", "h"]),
        (Self::Day, &["day", "days", "d"]),
        (Self::Week, &["week", "weeks", "w"]),
        (Self::Month, &["month", "months"]),
        (Self::Concurrent, &["concurrent"]),
    ];

    /// Its name, in the singular.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::NAMES[self as usize].1[0]
    }

    /// Its length; a month has none, nor have concurrent calls.
    #[must_use]
    pub const fn length(self) -> Option<Duration> {
        let secs = match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 604_800,
            Self::Month | Self::Concurrent => return None,
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

    /// So many units in the same time.
    #[must_use]
    pub const fn with_units(self, units: u64) -> Self {
        Self { units, ..self }
    }

    /// A rate of money, as people write it, in nano-units of the currency: `2.50 USD per day`.
    ///
    /// # Errors
    /// When the text is none.
    pub fn of_money(text: &str) -> Result<(Self, Currency), RateError> {
        let malformed = || RateError::MalformedMoney { text: text.to_owned() };
        let text = text.trim();
        let (number, rest) = text.split_once(char::is_whitespace).ok_or_else(malformed)?;
        let (code, period) = rest.trim_start().split_at_checked(3).ok_or_else(malformed)?;
        let nanos = Money::parse_nanos(number).map_err(|_| malformed())?;
        let currency = code.parse().map_err(|_| malformed())?;
        if !period.starts_with([' ', '/']) {
            return Err(malformed());
        }
        let rate: Self = format!("{nanos}{period}").parse().map_err(|error| match error {
            RateError::Malformed { .. } => malformed(),
            error => error,
        })?;
        if rate.period == Period::Concurrent {
            return Err(malformed());
        }
        Ok((rate, currency))
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

    /// The length of the whole period; months have none, nor have concurrent calls.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        self.period.length()?.checked_mul(self.count)
    }

    /// The rate as a quota.
    ///
    /// # Errors
    /// For months and concurrent calls, which have no fixed length, and for what [`Quota::new`] refuses.
    pub fn quota(&self) -> Result<Quota, RateError> {
        let length = self.length().ok_or(match self.period {
            Period::Concurrent => RateError::ConcurrentWithoutPeriod,
            _ => RateError::MonthWithoutCalendar,
        })?;
        Quota::new(self.units, length).map_err(RateError::Quota)
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let malformed = || RateError::Malformed { text: text.to_owned() };
        let (units, rest) = split_number(text.trim()).ok_or_else(malformed)?;
        let rest = rest.trim_start();
        if rest.eq_ignore_ascii_case(Period::Concurrent.name()) {
            return Ok(Self::new(units, Period::Concurrent));
        }
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
        let mut periods = Period::NAMES.iter().filter(|(period, _)| *period != Period::Concurrent);
        let known = periods.find(|(_, names)| names.contains(&name.as_str()));
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
            _ if self.period == Period::Concurrent => write!(f, "{units} {name}"),
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
    /// It does not read `<amount> <currency> per <period>`.
    MalformedMoney {
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
    /// Concurrent calls are counted by no window.
    ConcurrentWithoutPeriod,
    /// The numbers make no quota.
    Quota(QuotaError),
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { text } => {
                write!(f, "`{text}` is not a rate; write it as in `100 per minute` or `5 per 30 seconds`")
            }
            Self::MalformedMoney { text } => {
                write!(f, "`{text}` is not a rate of money; write it as in `2.50 USD per day`")
            }
            Self::UnknownPeriod { period } => write!(
                f,
                "`{period}` is not a period; use second, minute, hour, day, week or month"
            ),
            Self::MonthWithoutCalendar => f.write_str(
                "a month has no fixed length; use the algorithm `fixed-window`, or a period in days",
            ),
            Self::ConcurrentWithoutPeriod => f.write_str(
                "concurrent calls have no period; leave the algorithm out, or give a period as in `100 per minute`",
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
            ("5 Concurrent", 5, 1, Period::Concurrent),
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
    fn a_quota_is_of_the_whole_period() {
        let seconds = |text: &str| {
            let quota = text.parse::<Rate>().unwrap().quota().unwrap();
            (quota.units(), quota.period().as_secs())
        };
        assert_eq!(seconds("5 per 30 seconds"), (5, 30));
        assert_eq!(seconds("7 per 3 minutes"), (7, 180));
        assert_eq!(seconds("1 per 2 hours"), (1, 7_200));
        assert_eq!(seconds("1 per 2 weeks"), (1, 1_209_600));
        assert_eq!(seconds("4 per day"), (4, 86_400));
    }

    #[test]
    fn rates_of_money_are_in_nano_units() {
        for (text, nanos, written) in [
            ("2.50 USD per day", 2_500_000_000_u64, "per day"),
            ("1_000 EUR/month", 1_000_000_000_000, "per month"),
            (" 0.000001 USD  per 2 h ", 1_000, "per 2 hours"),
        ] {
            let (rate, currency) = Rate::of_money(text).unwrap();
            assert_eq!(rate.to_string(), format!("{nanos} {written}"));
            assert!(text.contains(currency.code()));
        }
        for text in [
            "",
            "5 USD",
            "5 per day",
            "5USD per day",
            "5 usd per day",
            "-5 USD per day",
            "5 USDper day",
            "5 USD concurrent",
            "0.0000000001 USD per day",
            "5 USD 7 per day",
        ] {
            let error = Rate::of_money(text).unwrap_err().to_string();
            assert!(error.contains("`2.50 USD per day`"), "{text}: {error}");
        }
        let error = Rate::of_money("5 USD per fortnight").unwrap_err();
        assert!(matches!(error, RateError::UnknownPeriod { .. }), "{error}");
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
            "5 concurrent per minute",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(matches!(error, RateError::Malformed { .. }), "{text}: {error}");
        }
        let error = "1 per fortnight".parse::<Rate>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`fortnight` is not a period; use second, minute, hour, day, week or month"
        );
        let error = "1 per concurrent".parse::<Rate>().unwrap_err();
        assert!(matches!(error, RateError::UnknownPeriod { .. }), "{error}");
        let error = "0 per s".parse::<Rate>().unwrap().quota().unwrap_err();
        assert!(error.to_string().contains("at least 1"), "{error}");
        let error = "1 per month".parse::<Rate>().unwrap().quota().unwrap_err();
        assert!(error.to_string().contains("fixed-window"), "{error}");
    }
}
