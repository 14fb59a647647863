//! The plain model of a token bucket.

use tidegate_core::{Cost, Quota, Timestamp};

use super::Model;

/// The bucket in exact rational arithmetic. Times are in ns x units, so that a unit takes `period` of
/// them.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactBucket {
    units: u128,
    period: u128,
    burst: u128,
    full_at: u128,
}

impl ExactBucket {
    pub fn new(quota: Quota, burst: u64) -> Self {
        Self {
            units: quota.units().into(),
            period: quota.period().as_nanos(),
            burst: burst.into(),
            full_at: 0,
        }
    }

    fn time(&self, now: Timestamp) -> u128 {
        u128::from(now.as_nanos()) * self.units
    }

    /// Whether the cost fits at `now`, moved by so many nanoseconds.
    pub fn fits_around(&self, cost: Cost, now: Timestamp, moved_ns: i128) -> bool {
        let now = (i128::from(now.as_nanos()) + moved_ns).max(0) as u128 * self.units;
        let ahead = self.full_at.saturating_sub(now);
        ahead + u128::from(cost.units()) * self.period <= self.burst * self.period
    }
}

impl Model for ExactBucket {
    fn fits(&self, cost: Cost, now: Timestamp) -> bool {
        self.fits_around(cost, now, 0)
    }

    fn remaining(&self, now: Timestamp) -> u64 {
        let ahead = self.full_at.saturating_sub(self.time(now));
        ((self.burst * self.period).saturating_sub(ahead) / self.period) as u64
    }

    fn charge(&mut self, cost: Cost, now: Timestamp) {
        self.full_at = self.full_at.max(self.time(now)) + u128::from(cost.units()) * self.period;
    }

    /// What was charged and has not been refilled since.
    fn refund(&mut self, cost: Cost, charged_at: Timestamp, now: Timestamp) {
        let refilled = self.time(now).saturating_sub(self.time(charged_at));
        let held = (u128::from(cost.units()) * self.period).saturating_sub(refilled);
        self.full_at = self.full_at.saturating_sub(held);
    }
}
