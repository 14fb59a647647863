//! Sliding window counter: the units of the current epoch, and a ring of completed ones.

use tidegate::{Allowance, Cost, Decision, Denial, Limit};

use super::{Ask, Micros, Parameters, SIZES, SpecError, State, bounded, nanos, period_us};

/// `limit` units in any window of `epochs` epochs of `width_us` each.
#[derive(Debug)]
pub(crate) struct Counter {
    limit: u64,
    width_us: u64,
    epochs: u64,
}

impl Counter {
    pub(crate) const KIND: u8 = 3;

    pub(crate) fn new(limit: &Limit) -> Result<Self, SpecError> {
        let epochs = limit.epochs().unwrap_or(Limit::DEFAULT_EPOCHS) as u64;
        let width_us = period_us(limit)?.div_ceil(epochs);
        Ok(Self { limit: limit.rate().units(), width_us, epochs })
    }

    pub(crate) fn ask(&self, ask: &Ask) -> Parameters {
        let parameters = Parameters::new(Self::KIND, ask.dry_run.into(), ask.charges()).numbers([
            self.limit,
            bounded(ask.cost),
            self.width_us,
            self.epochs,
        ]);
        let Some((wish, _)) = ask.lease else { return parameters };
        parameters.numbers([wish.lead_us, wish.parts]).numbers::<SIZES>(wish.sizes())
    }

    pub(crate) fn charge(&self, cost: Cost) -> Parameters {
        self.book(0, cost, 0)
    }

    pub(crate) fn refund(&self, cost: Cost, charged_at: Micros) -> Parameters {
        self.book(1, cost, charged_at / self.width_us)
    }

    fn book(&self, refunds: u8, cost: Cost, charged_in: u64) -> Parameters {
        Parameters::new(Self::KIND, refunds, 0).numbers([
            self.limit,
            bounded(cost),
            self.width_us,
            self.epochs,
            charged_in,
        ])
    }

    /// When the units of an epoch stop counting.
    fn expiry_of(&self, epoch: u64) -> Micros {
        (epoch + self.epochs + 1) * self.width_us
    }

    pub(crate) fn decision(
        &self,
        state: State<'_>,
        cost: Cost,
        fits: bool,
        now: Micros,
    ) -> Decision {
        let epoch = state.number(0);
        if fits && cost > Cost::ZERO {
            let sum = state.number(1) + state.number(2);
            let reset_ns = nanos(self.expiry_of(epoch).saturating_sub(now));
            return Decision::Allow(Allowance::new(self.limit.saturating_sub(sum), reset_ns));
        }
        let room = self.limit.saturating_sub(cost.units());
        let (mut sum, mut retry_at, mut reset_at) = (0_u64, 0, 0);
        let oldest = (now / self.width_us).max(epoch).saturating_sub(self.epochs);
        // From the newest back. The last units that must expire are the first that do not fit.
        for counted in (oldest..=epoch).rev() {
            let units = match counted {
                _ if counted == epoch => state.number(2),
                _ => state.number(3 + (counted % self.epochs) as usize),
            };
            if units > 0 && sum == 0 {
                reset_at = self.expiry_of(counted);
            }
            let fitted = sum <= room;
            sum = sum.saturating_add(units);
            if fitted && sum > room {
                retry_at = self.expiry_of(counted);
            }
        }
        let remaining = self.limit.saturating_sub(sum);
        let reset_ns = nanos(reset_at.saturating_sub(now));
        if fits {
            Decision::Allow(Allowance::new(remaining, reset_ns))
        } else if cost.units() > self.limit {
            Decision::Deny(Denial::oversized(remaining, reset_ns))
        } else {
            let retry_ns = nanos(retry_at.saturating_sub(now)).max(1);
            Decision::Deny(Denial::exhausted(remaining, retry_ns, reset_ns))
        }
    }
}
