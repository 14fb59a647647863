//! The plain model of a fixed window.

use tidegate_core::{Cost, Quota, Timestamp};

use super::Model;

/// The units used in the latest window, with the debt of those before.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    limit: u128,
    period_ns: u64,
    number: u64,
    used: u128,
}

impl Windows {
    pub fn new(quota: Quota) -> Self {
        let period_ns = quota.period().as_nanos() as u64;
        Self { limit: quota.units().into(), period_ns, number: 0, used: 0 }
    }

    /// The window that counts at `now`, which a stale time does not turn back, and what is used in it.
    fn at(&self, now: Timestamp) -> (u64, u128) {
        let number = (now.as_nanos() / self.period_ns).max(self.number);
        let paid_off = u128::from(number - self.number) * self.limit;
        (number, self.used.saturating_sub(paid_off))
    }
}

impl Model for Windows {
    fn fits(&self, cost: Cost, now: Timestamp) -> bool {
        self.at(now).1 + u128::from(cost.units()) <= self.limit
    }

    fn remaining(&self, now: Timestamp) -> u64 {
        self.limit.saturating_sub(self.at(now).1) as u64
    }

    fn charge(&mut self, cost: Cost, now: Timestamp) {
        (self.number, self.used) = self.at(now);
        self.used += u128::from(cost.units());
    }

    /// Only in the window of the charge.
    fn refund(&mut self, cost: Cost, charged_at: Timestamp, _: Timestamp) {
        if charged_at.as_nanos() / self.period_ns == self.number {
            self.used = self.used.saturating_sub(cost.units().into());
        }
    }
}
