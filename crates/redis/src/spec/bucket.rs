//! Token bucket: the time at which it is full again, exactly: in microseconds and parts of one.

use tidegate::{Allowance, Cost, Decision, Denial, Limit};

use super::{Ask, Micros, Parameters, SIZES, SpecError, State, nanos, period_us};

/// A bucket of `burst` units, of which `units` refill each `period_us`. A unit takes
/// `period_us / units`, which is kept as whole microseconds and parts, `units` to one.
#[derive(Debug)]
pub(crate) struct Bucket {
    units: u64,
    period_us: u64,
    burst: u64,
}

/// The longest debt, about 71 years: with the time of the day it stays below 2^53.
const MAX_DEBT_US: u64 = 1 << 51;

impl Bucket {
    pub(crate) const KIND: u8 = 1;

    pub(crate) fn new(limit: &Limit) -> Result<Self, SpecError> {
        let (units, burst) = (limit.rate().units(), limit.capacity());
        Ok(Self { units, period_us: period_us(limit)?, burst })
    }

    /// The time that so many units take to refill, in whole microseconds and parts.
    fn refill(&self, units: u64) -> (u64, u64) {
        let all = u128::from(units) * u128::from(self.period_us);
        let per = u128::from(self.units);
        let whole = u64::try_from(all / per).unwrap_or(u64::MAX).min(MAX_DEBT_US);
        (whole, (all % per) as u64)
    }

    pub(crate) fn ask(&self, ask: &Ask) -> Parameters {
        let (inc, inc_part) = self.refill(ask.cost.units());
        // What may be missing already.
        let (room, room_part) = match self.burst.checked_sub(ask.cost.units()) {
            Some(rest) => self.refill(rest),
            None => (0, 0),
        };
        // A cost above the burst fits at no time.
        let room = if ask.cost.units() > self.burst { i64::MIN >> 11 } else { room as i64 };
        let parameters = Parameters::new(Self::KIND, ask.dry_run.into(), ask.charges())
            .numbers([self.units, inc, inc_part])
            .signed([room])
            .numbers([room_part]);
        let Some((wish, _)) = ask.lease else { return parameters };
        let parameters = parameters.numbers([wish.lead_us, wish.parts, self.refill(self.burst).0]);
        let mut sizes = [0; SIZES * 3];
        for (triple, size) in sizes.chunks_exact_mut(3).zip(wish.sizes()) {
            let (inc, inc_part) = self.refill(size);
            triple.copy_from_slice(&[size, inc, inc_part]);
        }
        parameters.numbers(sizes)
    }

    pub(crate) fn charge(&self, cost: Cost) -> Parameters {
        self.book(0, cost, 0, 0)
    }

    pub(crate) fn refund(&self, cost: Cost, charged_at: Micros, lead_us: u64) -> Parameters {
        self.book(1, cost, charged_at, lead_us)
    }

    fn book(&self, refunds: u8, cost: Cost, since: Micros, lead_us: u64) -> Parameters {
        let (inc, inc_part) = self.refill(cost.units());
        Parameters::new(Self::KIND, refunds, 0).numbers([
            self.units,
            inc,
            inc_part,
            since,
            lead_us,
            MAX_DEBT_US,
        ])
    }

    pub(crate) fn decision(
        &self,
        state: State<'_>,
        cost: Cost,
        fits: bool,
        now: Micros,
    ) -> Decision {
        let (full, part) = (state.number(0), state.number(1));
        // In units of 1 / `units` us.
        let ahead = match full.checked_sub(now) {
            Some(whole) => u128::from(whole) * u128::from(self.units) + u128::from(part),
            None => 0,
        };
        let missing = ahead.div_ceil(u128::from(self.period_us));
        let remaining = u128::from(self.burst).saturating_sub(missing) as u64;
        let wait_us = |ahead: u128| ahead.div_ceil(u128::from(self.units)) as u64;
        let reset_ns = nanos(wait_us(ahead));
        if fits {
            Decision::Allow(Allowance::new(remaining, reset_ns))
        } else if cost.units() > self.burst {
            Decision::Deny(Denial::oversized(remaining, reset_ns))
        } else {
            let room = u128::from(self.burst - cost.units()) * u128::from(self.period_us);
            let retry_ns = nanos(wait_us(ahead.saturating_sub(room)));
            Decision::Deny(Denial::exhausted(remaining, retry_ns, reset_ns))
        }
    }
}
