//! The plain model of a sliding window counter.

use std::collections::BTreeMap;

use tidegate_core::{Cost, Quota, Timestamp};

use super::Model;

/// The units of every epoch, summed up each time.
#[derive(Debug, Clone, PartialEq)]
pub struct Epochs {
    limit: u64,
    epochs: u64,
    epoch_ns: u64,
    units: BTreeMap<u64, u64>,
    latest: u64,
}

impl Epochs {
    pub fn new(quota: Quota, epochs: usize) -> Self {
        let epochs = epochs as u64;
        let epoch_ns = (quota.period().as_nanos() as u64).div_ceil(epochs);
        Self { limit: quota.units(), epochs, epoch_ns, units: BTreeMap::new(), latest: 0 }
    }

    /// The epoch that counts at `now`, which a stale time does not turn back.
    fn epoch(&self, now: Timestamp) -> u64 {
        (now.as_nanos() / self.epoch_ns).max(self.latest)
    }

    /// The units of the current epoch, and of as many before it as a window touches.
    fn used(&self, now: Timestamp) -> u64 {
        let current = self.epoch(now);
        let oldest = current.saturating_sub(self.epochs);
        self.units.range(oldest..=current).map(|(_, units)| units).sum()
    }
}

impl Model for Epochs {
    fn fits(&self, cost: Cost, now: Timestamp) -> bool {
        self.used(now) + cost.units() <= self.limit
    }

    fn remaining(&self, now: Timestamp) -> u64 {
        self.limit.saturating_sub(self.used(now))
    }

    fn charge(&mut self, cost: Cost, now: Timestamp) {
        self.latest = self.epoch(now);
        *self.units.entry(self.latest).or_default() += cost.units();
    }

    /// Only in the epoch of the charge.
    fn refund(&mut self, cost: Cost, charged_at: Timestamp, _: Timestamp) {
        if let Some(units) = self.units.get_mut(&(charged_at.as_nanos() / self.epoch_ns)) {
            *units = units.saturating_sub(cost.units());
        }
    }
}
