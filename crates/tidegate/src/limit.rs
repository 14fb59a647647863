//! [`Limit`]: a limit whose algorithm is chosen at run time.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tidegate_core::{
    Cell, Cost, Decision, Denial, Entry, FixedWindow, Protocol, QuotaError, SlidingWindowCounter,
    SlidingWindowLog, Timestamp, TokenBucket,
};

use crate::calendar::{CalendarUnit, CalendarWindow};
use crate::concurrency::Concurrency;
use crate::rate::{Period, Rate, RateError};

/// A limit whose algorithm is chosen at run time, as in a policy file: a [`Rate`] and how it is kept.
///
/// ```
/// use tidegate::{Cost, KeyedLimiter, Limit, Rate};
///
/// let rate: Rate = "20 per minute".parse()?;
/// let users: KeyedLimiter<str, _> = KeyedLimiter::new(Limit::sliding_window_log(rate)?, 10_000);
/// assert!(users.decide("alice", Cost::ONE).is_allow());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Limit {
    rate: Rate,
    kind: Kind,
    /// Those of the algorithm, asked for on the way of every decision.
    ring_words: usize,
}

#[derive(Debug, Clone)]
enum Kind {
    TokenBucket(TokenBucket),
    FixedWindow(FixedWindow),
    Calendar(FixedWindow<CalendarWindow>),
    SlidingWindowCounter(SlidingWindowCounter),
    SlidingWindowLog(SlidingWindowLog),
    Concurrency(Concurrency),
}

/// Calls the algorithm that the limit has.
macro_rules! on_each {
    ($self:expr, $inner:ident => $call:expr) => {
        match &$self.kind {
            Kind::TokenBucket($inner) => $call,
            Kind::FixedWindow($inner) => $call,
            Kind::Calendar($inner) => $call,
            Kind::SlidingWindowCounter($inner) => $call,
            Kind::SlidingWindowLog($inner) => $call,
            Kind::Concurrency($inner) => $call,
        }
    };
}

/// The algorithms, by the names that policy files use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlgorithmName {
    /// `token-bucket`
    TokenBucket,
    /// `fixed-window`
    FixedWindow,
    /// `sliding-window-counter`
    SlidingWindowCounter,
    /// `sliding-window-log`
    SlidingWindowLog,
    /// `concurrency`
    Concurrency,
}

impl Limit {
    /// Epochs to a sliding window counter's window, unless said otherwise.
    pub const DEFAULT_EPOCHS: usize = 30;

    /// The largest limit that [`sliding_window`](Self::sliding_window) keeps a log of: 128 units, which
    /// take 1 KiB per key.
    pub const LOG_UNITS: u64 = 128;

    /// A smooth rate, with bursts of up to `burst` units (by default, as many as the rate's).
    ///
    /// # Errors
    /// When the rate or the burst is one that [`TokenBucket`] refuses.
    pub fn token_bucket(rate: Rate, burst: Option<u64>) -> Result<Self, LimitError> {
        let bucket = TokenBucket::new(rate.quota()?)?;
        let bucket = match burst {
            Some(burst) => bucket.with_burst(burst)?,
            None => bucket,
        };
        Ok(Self::of(rate, Kind::TokenBucket(bucket)))
    }

    /// A budget per second, minute or hour, or per day, week or month of a calendar in `zone` (by
    /// default UTC).
    ///
    /// # Errors
    /// When the zone is unknown, or given for a period that needs none, or when the rate is one that
    /// [`FixedWindow`] refuses.
    pub fn fixed_window(rate: Rate, zone: Option<&str>) -> Result<Self, LimitError> {
        let unit = match (rate.count(), rate.period()) {
            (1, Period::Day) => CalendarUnit::Day,
            (1, Period::Week) => CalendarUnit::Week,
            (1, Period::Month) => CalendarUnit::Month,
            (_, Period::Month) => return Err(LimitError::SeveralMonths),
            (_, Period::Concurrent) => {
                return Err(RateError::ConcurrentWithoutPeriod.into());
            }
            _ if zone.is_some() => return Err(LimitError::NeedlessZone),
            _ => {
                let window = FixedWindow::new(rate.quota()?)?;
                return Ok(Self::of(rate, Kind::FixedWindow(window)));
            }
        };
        let calendar = match zone {
            None => CalendarWindow::utc(unit),
            Some(zone) => {
                let unknown = |_| LimitError::UnknownZone { zone: zone.to_owned() };
                CalendarWindow::in_zone(unit, zone).map_err(unknown)?
            }
        };
        Ok(Self::of(rate, Kind::Calendar(FixedWindow::on(calendar, rate.units())?)))
    }

    /// At most the rate's units in any window of its period, in constant memory.
    ///
    /// # Errors
    /// When the rate or the epochs are ones that [`SlidingWindowCounter`] refuses.
    pub fn sliding_window_counter(rate: Rate, epochs: usize) -> Result<Self, LimitError> {
        let counter = SlidingWindowCounter::new(rate.quota()?, epochs)?;
        Ok(Self::of(rate, Kind::SlidingWindowCounter(counter)))
    }

    /// Exactly at most the rate's units in any window of its period, 8 bytes per unit and key.
    ///
    /// # Errors
    /// When the rate is one that [`SlidingWindowLog`] refuses.
    pub fn sliding_window_log(rate: Rate) -> Result<Self, LimitError> {
        let log = SlidingWindowLog::new(rate.quota()?)?;
        Ok(Self::of(rate, Kind::SlidingWindowLog(log)))
    }

    /// At most so many units in use at a time: charged when a call begins, and refunded when it ends.
    ///
    /// # Errors
    /// When that is none, or more than 524,287.
    pub fn concurrent(units: u64) -> Result<Self, LimitError> {
        let rate = Rate::new(units, Period::Concurrent);
        Ok(Self::of(rate, Kind::Concurrency(Concurrency::new(units)?)))
    }

    fn of(rate: Rate, kind: Kind) -> Self {
        let limit = Self { rate, kind, ring_words: 0 };
        let ring_words = on_each!(limit, inner => inner.ring_words());
        Self { ring_words, ..limit }
    }

    /// The same limit; of units in use at a time, whose count is void when nobody has touched it for so
    /// long.
    pub(crate) fn with_count_lasting(self, lifetime: Duration) -> Self {
        match self.kind {
            Kind::Concurrency(limit) => {
                Self { kind: Kind::Concurrency(limit.lasting(lifetime)), ..self }
            }
            _ => self,
        }
    }

    /// Whether it is one of units in use at a time, which come back when they are refunded and not
    /// before.
    #[must_use]
    pub const fn is_concurrency(&self) -> bool {
        matches!(self.kind, Kind::Concurrency(_))
    }

    /// At most the rate's units in any window of its period, in the way that fits: by a
    /// [log](Self::sliding_window_log) up to [`LOG_UNITS`](Self::LOG_UNITS), and above by a
    /// [counter](Self::sliding_window_counter) of [`DEFAULT_EPOCHS`](Self::DEFAULT_EPOCHS), in which a unit
    /// can count a thirtieth of the window too long.
    ///
    /// ```
    /// use tidegate::{AlgorithmName, Limit};
    ///
    /// let limit = |rate: &str| Ok::<_, tidegate::LimitError>(Limit::sliding_window(rate.parse()?)?);
    /// assert_eq!(limit("100 per minute")?.algorithm(), AlgorithmName::SlidingWindowLog);
    /// assert_eq!(limit("100000 per day")?.algorithm(), AlgorithmName::SlidingWindowCounter);
    /// # Ok::<(), tidegate::LimitError>(())
    /// ```
    ///
    /// # Errors
    /// When the rate is one that the algorithm refuses.
    pub fn sliding_window(rate: Rate) -> Result<Self, LimitError> {
        match rate.units() <= Self::LOG_UNITS {
            true => Self::sliding_window_log(rate),
            false => Self::sliding_window_counter(rate, Self::DEFAULT_EPOCHS),
        }
    }

    /// The rate.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// How the rate is kept.
    #[must_use]
    pub const fn algorithm(&self) -> AlgorithmName {
        match self.kind {
            Kind::TokenBucket(_) => AlgorithmName::TokenBucket,
            Kind::FixedWindow(_) | Kind::Calendar(_) => AlgorithmName::FixedWindow,
            Kind::SlidingWindowCounter(_) => AlgorithmName::SlidingWindowCounter,
            Kind::SlidingWindowLog(_) => AlgorithmName::SlidingWindowLog,
            Kind::Concurrency(_) => AlgorithmName::Concurrency,
        }
    }

    /// The time zone of the calendar that it follows, if it does.
    #[must_use]
    pub fn time_zone(&self) -> Option<&str> {
        match &self.kind {
            Kind::Calendar(window) => Some(window.calendar().zone()),
            _ => None,
        }
    }

    /// The most units that can be spent at once.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        match &self.kind {
            Kind::TokenBucket(bucket) => bucket.burst(),
            _ => self.rate.units(),
        }
    }

    /// The calendar of a fixed window of days, weeks or months.
    #[must_use]
    pub const fn calendar(&self) -> Option<&CalendarWindow> {
        match &self.kind {
            Kind::Calendar(window) => Some(window.calendar()),
            _ => None,
        }
    }

    /// The epochs to a window, of a sliding window counter.
    #[must_use]
    pub const fn epochs(&self) -> Option<usize> {
        match &self.kind {
            Kind::SlidingWindowCounter(counter) => Some(counter.epochs()),
            _ => None,
        }
    }

    /// One of so many equal shares of the limit, rounded down: what each of `shares` machines may admit on
    /// its own, so that together they stay within the limit. `None` when not one unit is left for each.
    ///
    /// ```
    /// use tidegate::Limit;
    ///
    /// let limit = Limit::token_bucket("100 per minute".parse()?, Some(20))?;
    /// let share = limit.share_of(3).expect("there is a unit for each");
    /// assert_eq!(share.to_string(), "token-bucket, 33 per minute, burst 6");
    /// assert!(limit.share_of(1_000).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn share_of(&self, shares: u64) -> Option<Self> {
        let rate = self.rate.with_units(self.rate.units().checked_div(shares)?);
        let share = match &self.kind {
            Kind::TokenBucket(bucket) => Self::token_bucket(rate, Some(bucket.burst() / shares)),
            Kind::FixedWindow(_) => Self::fixed_window(rate, None),
            Kind::Calendar(window) => Self::fixed_window(rate, Some(window.calendar().zone())),
            Kind::SlidingWindowCounter(counter) => {
                Self::sliding_window_counter(rate, counter.epochs())
            }
            Kind::SlidingWindowLog(_) => Self::sliding_window_log(rate),
            Kind::Concurrency(_) => Self::concurrent(rate.units()),
        };
        share.ok()
    }

    /// The length of the window, as told to clients: of a month, 30 days; of concurrent calls, none.
    #[must_use]
    pub fn window(&self) -> Duration {
        if self.is_concurrency() {
            return Duration::ZERO;
        }
        self.rate.length().unwrap_or(Duration::from_secs(30 * 86_400))
    }
}

/// All that the limit says, as in `token-bucket, 100 per minute, burst 100`. Limits of one text share
/// their state in a [`SharedFile`](crate::SharedFile).
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.algorithm(), self.rate)?;
        match &self.kind {
            Kind::TokenBucket(bucket) => write!(f, ", burst {}", bucket.burst()),
            Kind::Calendar(window) => write!(f, ", zone {}", window.calendar().zone()),
            Kind::SlidingWindowCounter(counter) => write!(f, ", epochs {}", counter.epochs()),
            Kind::FixedWindow(_) | Kind::SlidingWindowLog(_) | Kind::Concurrency(_) => Ok(()),
        }
    }
}

/// Reads what `Display` writes.
impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let malformed = || LimitError::Malformed { text: text.to_owned() };
        let mut parts = text.split(", ");
        let algorithm: AlgorithmName =
            parts.next().and_then(|name| name.parse().ok()).ok_or_else(malformed)?;
        let rate: Rate = parts.next().ok_or_else(malformed)?.parse()?;
        let option = parts.next().map(|option| option.split_once(' ').ok_or_else(malformed));
        let option = option.transpose()?;
        if parts.next().is_some() {
            return Err(malformed());
        }
        let number = |value: &str| value.parse::<u64>().map_err(|_| malformed());
        match (algorithm, option) {
            (AlgorithmName::TokenBucket, Some(("burst", burst))) => {
                Self::token_bucket(rate, Some(number(burst)?))
            }
            (AlgorithmName::FixedWindow, None) => Self::fixed_window(rate, None),
            (AlgorithmName::FixedWindow, Some(("zone", zone))) => {
                Self::fixed_window(rate, Some(zone))
            }
            (AlgorithmName::SlidingWindowCounter, Some(("epochs", epochs))) => {
                Self::sliding_window_counter(rate, number(epochs)? as usize)
            }
            (AlgorithmName::SlidingWindowLog, None) => Self::sliding_window_log(rate),
            (AlgorithmName::Concurrency, None) if rate.period() == Period::Concurrent => {
                Self::concurrent(rate.units())
            }
            _ => Err(malformed()),
        }
    }
}

impl Protocol for Limit {
    #[inline]
    fn ring_words(&self) -> usize {
        self.ring_words
    }

    #[inline(always)]
    fn decide<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision> {
        on_each!(self, inner => inner.decide(cell, word, cost, now))
    }

    #[inline(always)]
    fn peek<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision> {
        on_each!(self, inner => inner.peek(cell, word, cost, now))
    }

    // For each algorithm apart: where the answers come together, the compiler cannot tell any more
    // which of their numbers nobody looks at.
    #[inline(always)]
    fn admit<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Result<(), Denial>> {
        on_each!(self, inner => inner.admit(cell, word, cost, now))
    }

    #[inline(always)]
    fn foresee<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Result<(), Denial>> {
        on_each!(self, inner => inner.foresee(cell, word, cost, now))
    }

    fn charge<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        on_each!(self, inner => Protocol::charge(inner, cell, word, cost, now))
    }

    fn refund<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()> {
        on_each!(self, inner => Protocol::refund(inner, cell, word, cost, charged_at, now))
    }

    fn forgive<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        on_each!(self, inner => Protocol::forgive(inner, cell, word, cost, now))
    }

    fn enter(&self, left_behind: u64, cost: Cost, now: Timestamp) -> Entry {
        on_each!(self, inner => inner.enter(left_behind, cost, now))
    }

    fn prepare<C: Cell>(&self, cell: &C, word: u64, clear: bool) {
        on_each!(self, inner => inner.prepare(cell, word, clear));
    }

    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        on_each!(self, inner => Protocol::is_idle(inner, word, now))
    }

    fn idle_at(&self, word: u64) -> Timestamp {
        on_each!(self, inner => Protocol::idle_at(inner, word))
    }

    fn idle_rank(&self, word: u64) -> u64 {
        on_each!(self, inner => Protocol::idle_rank(inner, word))
    }

    fn is_settled(&self, word: u64) -> bool {
        on_each!(self, inner => inner.is_settled(word))
    }
}

impl AlgorithmName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::TokenBucket,
        Self::FixedWindow,
        Self::SlidingWindowCounter,
        Self::SlidingWindowLog,
        Self::Concurrency,
    ];

    /// The name in policy files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenBucket => "token-bucket",
            Self::FixedWindow => "fixed-window",
            Self::SlidingWindowCounter => "sliding-window-counter",
            Self::SlidingWindowLog => "sliding-window-log",
            Self::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for AlgorithmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AlgorithmName {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let known = Self::ALL.into_iter().find(|name| name.as_str() == text);
        known.ok_or_else(|| UnknownAlgorithm { name: text.to_owned() })
    }
}

/// There is no algorithm of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownAlgorithm {
    name: String,
}

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = AlgorithmName::ALL.map(AlgorithmName::as_str).join("`, `");
        write!(f, "`{}` is not an algorithm; use one of `{names}`", self.name)
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// Why a limit cannot exist.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitError {
    /// A text is no limit, as `Display` writes it.
    Malformed {
        /// The text.
        text: String,
    },
    /// The rate makes no quota.
    Rate(RateError),
    /// The algorithm refuses the quota.
    Quota(QuotaError),
    /// No time zone is called so.
    UnknownZone {
        /// The name.
        zone: String,
    },
    /// A time zone for minutes, hours or several periods at once, which do not follow one.
    NeedlessZone,
    /// A calendar window is one month, not several.
    SeveralMonths,
}

impl From<RateError> for LimitError {
    fn from(error: RateError) -> Self {
        Self::Rate(error)
    }
}

impl From<QuotaError> for LimitError {
    fn from(error: QuotaError) -> Self {
        Self::Quota(error)
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { text } => write!(
                f,
                "`{text}` is not a limit; write it as in `token-bucket, 100 per minute, burst 100`"
            ),
            Self::Rate(error) => error.fmt(f),
            Self::Quota(error) => error.fmt(f),
            Self::UnknownZone { zone } => write!(
                f,
                "no time zone is called `{zone}`; give an IANA name such as `Europe/Berlin`, or `UTC`"
            ),
            Self::NeedlessZone => f.write_str(
                "a time zone is for one day, week or month; leave it out for other periods",
            ),
            Self::SeveralMonths => {
                f.write_str("a window of several months is not supported; use 1")
            }
        }
    }
}

impl std::error::Error for LimitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_reads_as_it_is_written() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        for limit in [
            Limit::token_bucket(rate("100 per minute"), None),
            Limit::token_bucket(rate("7 per 3 hours"), Some(20)),
            Limit::fixed_window(rate("5 per 90 seconds"), None),
            Limit::fixed_window(rate("10000 per day"), None),
            Limit::fixed_window(rate("10000 per month"), Some("Europe/Berlin")),
            Limit::sliding_window_counter(rate("60 per minute"), 12),
            Limit::sliding_window_log(rate("3 per second")),
            Limit::concurrent(5),
        ] {
            let text = limit.unwrap().to_string();
            let read: Limit = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for text in [
            "",
            "token-bucket",
            "token-bucket, 100 per minute",
            "token-bucket, 100 per minute, burst",
            "token-bucket, 100 per minute, burst x",
            "token-bucket, 100 per minute, burst 1, burst 1",
            "sliding-window-log, 3 per second, epochs 4",
            "leaky, 3 per second",
            "concurrency, 3 per second",
        ] {
            let error = text.parse::<Limit>().unwrap_err().to_string();
            assert!(error.contains("is not a limit; write it as in"), "{text}: {error}");
        }
    }
}
