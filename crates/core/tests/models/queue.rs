//! The plain model of a sliding window log.

use tidegate_core::{Cost, Quota, Timestamp};

use super::Model;

/// The time of every unit in order, those of debt in the future: each as if it had queued for the
/// time at which it would have been admitted. A unit that was refunded out of order is a `None`.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    limit: u64,
    window_ns: u64,
    times: Vec<Option<u64>>,
}

impl Queue {
    pub fn new(quota: Quota) -> Self {
        let window_ns = quota.period().as_nanos() as u64;
        Self { limit: quota.units(), window_ns, times: Vec::new() }
    }

    /// Unit n comes when unit n - limit has left the window, and not before unit n - 1.
    fn next(&self, now: u64) -> u64 {
        let before = self.times.len().checked_sub(self.limit as usize);
        let before = before.and_then(|index| self.times[index]);
        let free_at = before.map_or(0, |time| time + self.window_ns);
        free_at.max(now).max(self.times.last().copied().flatten().unwrap_or(0))
    }

    fn is_in_debt(&self, now: Timestamp) -> bool {
        self.times.last().is_some_and(|last| *last > Some(now.as_nanos()))
    }

    fn counts(&self, time: Option<u64>, now: Timestamp) -> bool {
        time.is_some_and(|time| time + self.window_ns > now.as_nanos())
    }
}

impl Model for Queue {
    fn fits(&self, cost: Cost, now: Timestamp) -> bool {
        !self.is_in_debt(now) && cost.units() <= self.remaining(now)
    }

    fn remaining(&self, now: Timestamp) -> u64 {
        if self.is_in_debt(now) {
            return 0;
        }
        let used = self.times.iter().filter(|time| self.counts(**time, now)).count() as u64;
        self.limit.saturating_sub(used)
    }

    fn charge(&mut self, cost: Cost, now: Timestamp) {
        for _ in 0..cost.units() {
            let next = self.next(now.as_nanos());
            self.times.push(Some(next));
        }
    }

    /// Debt first; then the last units, if they are the charge; else the oldest that count.
    fn refund(&mut self, cost: Cost, charged_at: Timestamp, now: Timestamp) {
        if now.since(charged_at).as_nanos() >= u128::from(self.window_ns) {
            return;
        }
        let mut units = cost.units().min(self.limit) as usize;
        while units > 0 && self.is_in_debt(now) {
            self.times.pop();
            units -= 1;
        }
        let mut last = self.times.iter().rev().take(units);
        if self.times.len() >= units && last.all(|time| *time == Some(charged_at.as_nanos())) {
            self.times.truncate(self.times.len() - units);
            return;
        }
        for _ in 0..units {
            let first = self.times.len().saturating_sub(self.limit as usize);
            let counts = |index: &usize| self.counts(self.times[*index], now);
            match (first..self.times.len()).find(counts) {
                Some(oldest) => self.times[oldest] = None,
                None => return,
            }
        }
    }
}
