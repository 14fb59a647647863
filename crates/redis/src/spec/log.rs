//! Sliding window log: a ring with the time of each unit.

use tidegate::{Allowance, Cost, Decision, Denial, Limit};

use super::{Ask, Micros, Parameters, SpecError, State, bounded, nanos, period_us};

/// `limit` units in any window of `window_us`.
#[derive(Debug)]
pub(crate) struct Log {
    limit: u64,
    window_us: u64,
}

impl Log {
    pub(crate) const KIND: u8 = 4;

    /// The largest limit, of 128 KiB a key: debt is written unit by unit, while the server does nothing
    /// else.
    pub(crate) const MAX_LIMIT: u64 = 1 << 14;

    /// How many times the limit one charge can put off as debt.
    const MAX_DEBT_LAPS: u64 = 8;

    pub(crate) fn new(limit: &Limit) -> Result<Self, SpecError> {
        let units = limit.rate().units();
        if units > Self::MAX_LIMIT {
            return Err(SpecError::LogTooLarge { units });
        }
        Ok(Self { limit: units, window_us: period_us(limit)? })
    }

    pub(crate) fn ask(&self, ask: &Ask) -> Parameters {
        let charges = ask.charges().min(1);
        Parameters::new(Self::KIND, ask.dry_run.into(), charges).numbers([
            self.limit,
            bounded(ask.cost),
            self.window_us,
        ])
    }

    pub(crate) fn charge(&self, cost: Cost) -> Parameters {
        self.book(0, cost, 0)
    }

    pub(crate) fn refund(&self, cost: Cost, charged_at: Micros) -> Parameters {
        self.book(1, cost, charged_at)
    }

    fn book(&self, refunds: u8, cost: Cost, charged_at: Micros) -> Parameters {
        let most = self.limit * Self::MAX_DEBT_LAPS;
        Parameters::new(Self::KIND, refunds, 0).numbers([
            self.limit,
            bounded(cost),
            self.window_us,
            charged_at,
            most,
        ])
    }

    pub(crate) fn decision(
        &self,
        state: State<'_>,
        cost: Cost,
        fits: bool,
        now: Micros,
    ) -> Decision {
        let (free, due, newest) = (state.number(0), state.number(1), state.number(2));
        let reset_at = if newest > 0 { newest + self.window_us } else { now };
        let reset_ns = nanos(reset_at.saturating_sub(now));
        if fits {
            Decision::Allow(Allowance::new(free, reset_ns))
        } else if cost.units() > self.limit {
            Decision::Deny(Denial::oversized(free, reset_ns))
        } else {
            let retry_ns = nanos(due.saturating_sub(now)).max(1);
            Decision::Deny(Denial::exhausted(free, retry_ns, reset_ns))
        }
    }
}
