//! Words whose counts have one to three bits: every count that there is comes up, and its field's end.

use tidegate_core::{Cost, Decision, FixedWindow, Quota, SlidingWindowCounter, Timestamp};

use crate::Call::{Charge, Decide, Refund};
use crate::models::{Model, Timestamps};
use crate::state::State;
use crate::{agrees, explore, quota, steps};

/// The plain model of a fixed window whose count stops at `most`: from there on it stands for any number
/// beyond, of which nothing can be taken back.
#[derive(Clone)]
struct Capped {
    limit: u64,
    period_ns: u64,
    most: u64,
    number: u64,
    used: u64,
}

impl Capped {
    fn new(quota: Quota, most: u64) -> Self {
        let period_ns = quota.period().as_nanos() as u64;
        Self { limit: quota.units(), period_ns, most, number: 0, used: 0 }
    }

    fn at(&self, now: Timestamp) -> (u64, u64) {
        let number = (now.as_nanos() / self.period_ns).max(self.number);
        (number, self.used.saturating_sub((number - self.number) * self.limit))
    }
}

impl Model for Capped {
    fn fits(&self, cost: Cost, now: Timestamp) -> bool {
        self.at(now).1 + cost.units() <= self.limit
    }

    fn remaining(&self, now: Timestamp) -> u64 {
        self.limit.saturating_sub(self.at(now).1)
    }

    fn charge(&mut self, cost: Cost, now: Timestamp) {
        (self.number, self.used) = self.at(now);
        self.used = (self.used + cost.units()).min(self.most);
    }

    fn refund(&mut self, cost: Cost, charged_at: Timestamp, _: Timestamp) {
        if charged_at.as_nanos() / self.period_ns == self.number && self.used < self.most {
            self.used = self.used.saturating_sub(cost.units());
        }
    }
}

#[test]
fn every_short_history_of_fixed_windows_of_few_bits() {
    // A nanosecond leaves two bits for the count, three leave three.
    for (units, period_ns, most) in [(1, 1, 3), (2, 1, 3), (1, 3, 7), (4, 3, 7)] {
        let quota = quota(units, period_ns);
        let window = FixedWindow::new(quota).unwrap();
        let calls = [Decide(1), Decide(2), Charge(1), Charge(6), Refund(1), Refund(2)];
        let clock = [0, 1, 3, -2];
        agrees(&window, Capped::new(quota, most), quota, &steps(&clock, &calls), 5);
    }
    assert!(FixedWindow::new(quota(3, 1)).is_err() && FixedWindow::new(quota(5, 3)).is_err());
}

/// A count at its field's end denies until its epoch is over; nothing that fits less is ever admitted.
#[test]
fn no_short_history_of_counters_of_few_bits_admits_too_much() {
    for (units, period_ns, epochs) in [(1, 2, 1), (1, 4, 2), (2, 8, 2), (4, 16, 2), (2, 12, 3)] {
        let quota = quota(units, period_ns);
        let counter = SlidingWindowCounter::new(quota, epochs).unwrap();
        let calls = [Decide(1), Decide(2), Charge(1), Charge(9), Refund(1)];
        let width = (period_ns / epochs as u64) as i64;
        let clock = [0, 1, width, period_ns as i64, -width];
        let start = State::new(&counter, 1_000);
        explore(
            &counter,
            &steps(&clock, &calls),
            5,
            &start,
            &Timestamps::default(),
            &|used, before, _, call, now, decision| match (call, decision) {
                (Decide(units), Some(Decision::Allow(_))) => {
                    let counts = used.in_window(now, period_ns);
                    assert!(counts + units <= quota.units(), "{counts} and {units}: {before:?}");
                    used.push(now, units);
                }
                (Charge(units), _) => used.push(now, units),
                (Refund(units), _) => {
                    if let Some((charged, at)) = before.last_charge()
                        && let Some(last) = used.0.iter_mut().rev().find(|one| one.0 == at)
                    {
                        last.1 = last.1.saturating_sub(units.min(charged));
                    }
                }
                _ => {}
            },
        );
    }
    assert!(SlidingWindowCounter::new(quota(2, 2), 1).is_err());
    assert!(SlidingWindowCounter::new(quota(1, 1), 1).is_err());
}
