//! [`CalendarWindow`]: days, weeks and months, in UTC or a time zone.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use tidegate_core::{Calendar, Timestamp, Window};

/// Which calendar window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday.
    Week,
    /// From the first of a month to the last.
    Month,
}

/// Days, weeks or months as a wall calendar in a time zone has them: "10,000 tokens per UTC day".
///
/// A day that the zone's clocks change in has 23 or 25 hours, as people there would say. Boundaries
/// are whole minutes. Minutes and hours need no calendar:
/// [`FixedWindow::new`](tidegate_core::FixedWindow::new) has them.
///
/// ```
/// use tidegate::{CalendarUnit, CalendarWindow, Cost, FixedWindow, Timestamp};
///
/// let daily = FixedWindow::on(CalendarWindow::in_zone(CalendarUnit::Day, "Europe/Berlin")?, 10_000)?;
/// let limiter = tidegate_core::Limiter::new(daily);
/// let midnight_in_berlin = Timestamp::from_secs(1_767_222_000); // 2025-12-31T23:00:00Z
/// let before = Timestamp::from_nanos(midnight_in_berlin.as_nanos() - 1);
/// assert!(limiter.decide(Cost::new(10_000), before).is_allow());
/// assert!(!limiter.decide(Cost::ONE, before).is_allow());
/// assert!(limiter.decide(Cost::ONE, midnight_in_berlin).is_allow());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CalendarWindow {
    unit: CalendarUnit,
    zone: TimeZone,
    /// The window that was asked for last, packed; see [`Packed`].
    cached: AtomicU64,
}

impl Clone for CalendarWindow {
    fn clone(&self) -> Self {
        // Relaxed: the word is the whole fact.
        let cached = AtomicU64::new(self.cached.load(Ordering::Relaxed));
        Self { unit: self.unit, zone: self.zone.clone(), cached }
    }
}

/// A window in one word, so that a cache of it needs no lock:
///
/// | bits | field |
/// |---|---|
/// | 16, high | number |
/// | 28 | start, in minutes since the Unix epoch |
/// | 20, low | length in minutes; 0 for an empty cache |
///
/// Of all timestamps, the last day has number 53,375, and the last minute 76,861,433, below 2^28.
#[derive(Clone, Copy)]
struct Packed(u64);

const MINUTE_NS: u64 = 60_000_000_000;

impl Packed {
    fn pack(window: Window) -> Option<Self> {
        let start = window.start.as_nanos() / MINUTE_NS;
        let length = window.end.as_nanos() / MINUTE_NS - start;
        let fits = window.number < 1 << 16 && start < 1 << 28 && length < 1 << 20;
        // The window that the end of time cuts off does not end on a minute.
        let whole = window.end.as_nanos().is_multiple_of(MINUTE_NS);
        (fits && whole).then_some(Self(window.number << 48 | start << 20 | length))
    }

    /// The window, if `at` lies in it.
    fn window_at(self, at: Timestamp) -> Option<Window> {
        let start = (self.0 >> 20 & ((1 << 28) - 1)) * MINUTE_NS;
        let end = start + (self.0 & ((1 << 20) - 1)) * MINUTE_NS;
        (start..end).contains(&at.as_nanos()).then(|| Window {
            number: self.0 >> 48,
            start: Timestamp::from_nanos(start),
            end: Timestamp::from_nanos(end),
        })
    }
}

impl CalendarWindow {
    /// Windows in UTC.
    #[must_use]
    pub fn utc(unit: CalendarUnit) -> Self {
        Self { unit, zone: TimeZone::UTC, cached: AtomicU64::new(0) }
    }

    /// Windows in an IANA time zone, such as `Europe/Berlin`. The zones are built in.
    ///
    /// # Errors
    /// When there is no zone of that name.
    pub fn in_zone(unit: CalendarUnit, zone: &str) -> Result<Self, UnknownZone> {
        let found = TimeZone::get(zone).map_err(|_| UnknownZone { zone: zone.to_owned() })?;
        Ok(Self { unit, zone: found, cached: AtomicU64::new(0) })
    }

    /// Which windows.
    #[must_use]
    pub fn unit(&self) -> CalendarUnit {
        self.unit
    }

    /// The name of its time zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    fn look_up(&self, at: Timestamp) -> Window {
        let nanos = i128::from(at.as_nanos());
        let civil = jiff::Timestamp::from_nanosecond(nanos)
            .map_or(EPOCH, |timestamp| self.zone.to_datetime(timestamp).date());
        // Zones west of Greenwich begin in 1969, which is window 0 too.
        let number = self.number_of(civil);
        // Where clocks jump over midnight, the date changes later than the count of days says; where they
        // go back over it, a day that is over comes again, and stays over.
        let next = self.start_of(number + 1);
        let number = if self.start_of(number) > at {
            number.saturating_sub(1)
        } else if next <= at && next < Timestamp::MAX {
            number + 1
        } else {
            number
        };
        Window { number, start: self.start_of(number), end: self.start_of(number + 1) }
    }

    /// The number of the window that a date lies in; the one with 1970-01-01 is 0.
    fn number_of(&self, date: Date) -> u64 {
        let days = i64::from(days_since_epoch(date));
        let number = match self.unit {
            CalendarUnit::Day => days,
            CalendarUnit::Week => (days + EPOCH_WEEKDAY).div_euclid(7),
            CalendarUnit::Month => {
                (i64::from(date.year()) - 1970) * 12 + i64::from(date.month()) - 1
            }
        };
        u64::try_from(number).unwrap_or(0)
    }

    /// The first date of a window; `None` beyond the calendar.
    fn first_date(&self, number: u64) -> Option<Date> {
        let number = i64::try_from(number).ok()?;
        let days = match self.unit {
            CalendarUnit::Day => number,
            CalendarUnit::Week => number * 7 - EPOCH_WEEKDAY,
            CalendarUnit::Month => {
                let year = i16::try_from(1970 + number / 12).ok()?;
                return Date::new(year, (number % 12) as i8 + 1, 1).ok();
            }
        };
        EPOCH.checked_add(jiff::Span::new().try_days(days).ok()?).ok()
    }
}

const EPOCH: Date = Date::constant(1970, 1, 1);

/// Days from Monday to the epoch, which was a Thursday.
const EPOCH_WEEKDAY: i64 = 3;

fn days_since_epoch(date: Date) -> i32 {
    date.duration_since(EPOCH).as_hours() as i32 / 24
}

impl Calendar for CalendarWindow {
    #[inline]
    fn window(&self, at: Timestamp, _: u64) -> Window {
        // Relaxed: the word is the whole fact.
        if let Some(window) = Packed(self.cached.load(Ordering::Relaxed)).window_at(at) {
            return window;
        }
        let window = self.look_up(at);
        if let Some(packed) = Packed::pack(window) {
            self.cached.store(packed.0, Ordering::Relaxed);
        }
        window
    }

    fn start_of(&self, number: u64) -> Timestamp {
        if number == 0 {
            return Timestamp::ZERO;
        }
        let start = self
            .first_date(number)
            .and_then(|date| self.zone.to_zoned(date.at(0, 0, 0, 0)).ok())
            .map(|zoned| zoned.timestamp().as_nanosecond());
        let Some(start) = start.and_then(|start| u64::try_from(start.max(0)).ok()) else {
            return Timestamp::MAX;
        };
        // Some zones were off by seconds until 1972.
        Timestamp::from_nanos(start.div_ceil(MINUTE_NS) * MINUTE_NS)
    }
}

/// There is no time zone of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownZone {
    zone: String,
}

impl std::fmt::Display for UnknownZone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zone = &self.zone;
        write!(
            f,
            "no time zone is called `{zone}`; give an IANA name such as `Europe/Berlin`, or `UTC`"
        )
    }
}

impl std::error::Error for UnknownZone {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let timestamp: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_nanos(timestamp.as_nanosecond() as u64)
    }

    fn assert_window(unit: CalendarUnit, zone: &str, inside: &str, start: &str, end: &str) {
        let calendar = CalendarWindow::in_zone(unit, zone).unwrap();
        let window = calendar.window(at(inside), 0);
        assert_eq!((window.start, window.end), (at(start), at(end)), "{zone} {inside}");
        assert_eq!(calendar.window(at(inside), 0), window, "from the cache");
        assert_eq!(calendar.start_of(window.number), window.start);
        assert_eq!(calendar.window(window.end, 0).start, window.end);
    }

    #[test]
    fn windows_begin_and_end_where_the_wall_calendar_says() {
        use CalendarUnit::{Day, Month, Week};
        let cases = [
            (Day, "UTC", "2026-11-23T15:00:00Z", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
            (Week, "UTC", "2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"),
            (Week, "UTC", "2026-11-22T23:59:59Z", "2026-11-16T00:00:00Z", "2026-11-23T00:00:00Z"),
            (Month, "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Month, "UTC", "2026-12-31T23:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            // Clocks go forward on 29 March 2026 and back on 25 October.
            (
                Day,
                "Europe/Berlin",
                "2026-03-29T12:00:00Z",
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
            ),
            (
                Day,
                "Europe/Berlin",
                "2026-10-25T12:00:00Z",
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
            ),
            // At midnight here: the day began at one.
            (
                Day,
                "America/Sao_Paulo",
                "2018-11-04T12:00:00Z",
                "2018-11-04T03:00:00Z",
                "2018-11-05T02:00:00Z",
            ),
            (
                Day,
                "Asia/Kathmandu",
                "2026-11-23T18:20:00Z",
                "2026-11-23T18:15:00Z",
                "2026-11-24T18:15:00Z",
            ),
            // The thirtieth was left out here.
            (
                Day,
                "Pacific/Apia",
                "2011-12-30T09:00:00Z",
                "2011-12-29T10:00:00Z",
                "2011-12-30T10:00:00Z",
            ),
            // 44 minutes and 30 seconds from Greenwich: a window begins with the next whole minute.
            (
                Day,
                "Africa/Monrovia",
                "1971-06-01T00:44:40Z",
                "1971-05-31T00:45:00Z",
                "1971-06-01T00:45:00Z",
            ),
            (
                Month,
                "Africa/Monrovia",
                "1971-06-01T00:44:59.999999999Z",
                "1971-05-01T00:45:00Z",
                "1971-06-01T00:45:00Z",
            ),
            // At one minute past midnight, clocks went back to the day before, which stays over.
            (
                Day,
                "America/St_Johns",
                "2010-11-07T03:00:00Z",
                "2010-11-07T02:30:00Z",
                "2010-11-08T03:30:00Z",
            ),
        ];
        for (unit, zone, inside, start, end) in cases {
            assert_window(unit, zone, inside, start, end);
        }
    }

    #[test]
    fn windows_follow_each_other_without_gaps_from_the_first_to_the_last_timestamp() {
        for zone in ["UTC", "America/New_York", "Africa/Monrovia", "Pacific/Apia", "Africa/Cairo"] {
            for unit in [CalendarUnit::Day, CalendarUnit::Week, CalendarUnit::Month] {
                let calendar = CalendarWindow::in_zone(unit, zone).unwrap();
                let mut now = Timestamp::ZERO;
                let (mut next, mut left_out) = (0, 0);
                while now < Timestamp::MAX {
                    let window = calendar.window(now, 0);
                    assert_eq!(window.start, now, "{zone} {unit:?} {now:?}");
                    assert!(window.end > now, "{zone} {unit:?} {now:?}");
                    assert!(window.number >= next, "{zone} {unit:?} {now:?}");
                    left_out += window.number - next;
                    (now, next) = (window.end, window.number + 1);
                }
                assert_eq!(calendar.window(Timestamp::MAX, 0).number, next - 1, "{zone} {unit:?}");
                let samoa = zone == "Pacific/Apia" && unit == CalendarUnit::Day;
                assert_eq!(left_out, u64::from(samoa), "{zone} {unit:?}: only 2011-12-30 there");
            }
        }
    }

    #[test]
    fn an_unknown_zone_is_an_error_that_says_what_would_be_right() {
        let error = CalendarWindow::in_zone(CalendarUnit::Day, "Mars/Olympus").unwrap_err();
        assert!(error.to_string().contains("`Mars/Olympus`"), "{error}");
        assert!(error.to_string().contains("Europe/Berlin"), "{error}");
    }
}
