//! Fixed window: the number of a window, and the units used in it.

use tidegate::core::Calendar;
use tidegate::{Allowance, CalendarWindow, Cost, Decision, Denial, Limit, Timestamp};

use super::{Ask, Micros, Parameters, SIZES, SpecError, State, bounded, nanos, period_us};

/// `limit` units in each window.
#[derive(Debug)]
pub(crate) struct Window {
    limit: u64,
    /// Of the longest window, if they differ.
    length_us: u64,
    calendar: Option<CalendarWindow>,
}

/// The longest day: one on which clocks are set back.
const LONGEST_DAY_US: u64 = 27 * 3_600 * 1_000_000;

impl Window {
    pub(crate) const KIND: u8 = 2;

    pub(crate) fn new(limit: &Limit) -> Result<Self, SpecError> {
        let units = limit.rate().units();
        match limit.calendar() {
            None => Ok(Self { limit: units, length_us: period_us(limit)?, calendar: None }),
            Some(calendar) => {
                let days = limit.window().as_secs().div_ceil(86_400) + 1;
                let length_us = days * LONGEST_DAY_US;
                Ok(Self { limit: units, length_us, calendar: Some(calendar.clone()) })
            }
        }
    }

    /// The window at a time: its number, where it starts and where the next one does.
    fn at(&self, now: Micros) -> (u64, Micros, Micros) {
        match &self.calendar {
            None => {
                let number = now / self.length_us;
                (number, number * self.length_us, (number + 1) * self.length_us)
            }
            Some(calendar) => {
                let window = calendar.window(Timestamp::from_nanos(nanos(now)), 0);
                let micros = |at: Timestamp| at.as_nanos() / 1_000;
                (window.number, micros(window.start), micros(window.end))
            }
        }
    }

    fn start_of(&self, number: u64) -> Micros {
        match &self.calendar {
            None => number.saturating_mul(self.length_us),
            Some(calendar) => calendar.start_of(number).as_nanos() / 1_000,
        }
    }

    /// The numbers that tell a script which window it is; without a calendar, it knows for itself.
    fn numbers(&self, parameters: Parameters, cost: Cost, now: Micros) -> Parameters {
        let parameters = parameters.numbers([self.limit, bounded(cost), self.length_us]);
        match &self.calendar {
            None => parameters.signed([0, -1, 0]),
            Some(_) => {
                let (number, start, finish) = self.at(now);
                parameters.numbers([number, start, finish])
            }
        }
    }

    pub(crate) fn ask(&self, ask: &Ask, now: Micros) -> Parameters {
        let parameters = Parameters::new(Self::KIND, ask.dry_run.into(), ask.charges());
        let parameters = self.numbers(parameters, ask.cost, now);
        let Some((wish, _)) = ask.lease else { return parameters };
        parameters.numbers([wish.lead_us, wish.parts]).numbers::<SIZES>(wish.sizes())
    }

    pub(crate) fn charge(&self, cost: Cost, now: Micros) -> Parameters {
        self.numbers(Parameters::new(Self::KIND, 0, 0), cost, now)
    }

    pub(crate) fn refund(&self, cost: Cost, charged_at: Micros) -> Parameters {
        let charged_in = self.at(charged_at).0;
        Parameters::new(Self::KIND, 1, 0).numbers([
            self.limit,
            bounded(cost),
            self.length_us,
            charged_in,
        ])
    }

    pub(crate) fn decision(
        &self,
        state: State<'_>,
        cost: Cost,
        fits: bool,
        now: Micros,
    ) -> Decision {
        let (number, _, end) = self.at(now);
        let (last, mut used) = (state.number(0), state.number(1));
        let (mut number, mut end) = (number, end);
        if state.len() == 0 {
            used = 0;
        } else if last > number {
            (number, end) = (last, self.start_of(last + 1));
        } else {
            used = used.saturating_sub(self.limit.saturating_mul(number - last));
        }
        let remaining = self.limit.saturating_sub(used);
        let wait_ns = |most: u64| {
            let excess = used.saturating_sub(most);
            let free_at = match excess.div_ceil(self.limit) {
                0 => now,
                1 => end,
                windows => self.start_of(number.saturating_add(windows)),
            };
            nanos(free_at.saturating_sub(now))
        };
        if fits {
            Decision::Allow(Allowance::new(remaining, wait_ns(0)))
        } else if cost.units() > self.limit {
            Decision::Deny(Denial::oversized(remaining, wait_ns(0)))
        } else {
            let retry_ns = wait_ns(self.limit - cost.units()).max(1);
            Decision::Deny(Denial::exhausted(remaining, retry_ns, wait_ns(0)))
        }
    }
}
