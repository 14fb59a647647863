//! Random histories of calls, made of shares, so that one history fits any quota.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{Cost, Decision, Quota, Retry, Timestamp};

/// So many cases, or as many as `PROPTEST_CASES` says. A failure prints its smallest case.
pub fn cases(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if asked { default.cases } else { cases };
    ProptestConfig { cases, failure_persistence: None, ..default }
}

/// One call in a history.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// How the clock moves first.
    pub clock: Clock,
    /// The cost, as a share of the capacity in 1/256.
    pub cost: u16,
    /// What is called.
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// By so many 1/4096 of the period.
    Forward(u16),
    /// By a few nanoseconds.
    Tick(u8),
    /// Not at all.
    Stall,
    /// Back by so many 1/4096 of the period, for this call only.
    Stale(u16),
    /// To exactly when the last denial said, or one tick before.
    Retry { early: bool },
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Decide,
    /// Refund so many 1/256 of the last admitted charge that was not refunded yet.
    Refund(u8),
    Charge,
}

/// Histories of decisions only.
pub fn decisions(calls: usize) -> impl Strategy<Value = Vec<Call>> {
    histories(calls, Just(Kind::Decide))
}

/// Histories of decisions, refunds and forced charges.
pub fn all_calls(calls: usize) -> impl Strategy<Value = Vec<Call>> {
    let kind = prop_oneof![
        6 => Just(Kind::Decide),
        2 => any::<u8>().prop_map(Kind::Refund),
        1 => Just(Kind::Charge),
    ];
    histories(calls, kind)
}

fn histories(calls: usize, kind: impl Strategy<Value = Kind>) -> impl Strategy<Value = Vec<Call>> {
    let clock = prop_oneof![
        4 => (0_u16..600).prop_map(Clock::Forward),
        1 => (600_u16..9_000).prop_map(Clock::Forward),
        2 => any::<u8>().prop_map(Clock::Tick),
        4 => Just(Clock::Stall),
        2 => (0_u16..5_000).prop_map(Clock::Stale),
        3 => any::<bool>().prop_map(|early| Clock::Retry { early }),
    ];
    let cost = prop_oneof![4 => 0_u16..40, 2 => 40_u16..260, 1 => Just(256_u16)];
    let call = (clock, cost, kind).prop_map(|(clock, cost, kind)| Call { clock, cost, kind });
    proptest::collection::vec(call, 1..calls)
}

/// Quotas from one unit a decade to one a nanosecond.
pub fn quotas(max_units: u64) -> impl Strategy<Value = Quota> {
    let units = log_uniform(1, max_units);
    let period = log_uniform(1, Quota::MAX_PERIOD.as_nanos() as u64);
    (units, period).prop_filter_map("more than one unit per nanosecond", |(units, period_ns)| {
        (units <= period_ns)
            .then(|| Quota::new(units, Duration::from_nanos(period_ns)).expect("in range"))
    })
}

pub fn log_uniform(low: u64, high: u64) -> impl Strategy<Value = u64> {
    (0.0..1.0_f64, any::<bool>()).prop_map(move |(share, round)| {
        let (low_ln, high_ln) = ((low as f64).ln(), (high as f64).ln());
        let value = (low_ln + share * (high_ln - low_ln)).exp() as u64;
        // Half of them round numbers in base ten, as people write them.
        let digits = 10_u64.pow(value.max(1).ilog10());
        let value = if round { value / digits * digits } else { value };
        value.clamp(low, high)
    })
}

/// Start times: the origin, about now, and near the end.
pub fn starts() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        Just(Timestamp::ZERO),
        (0_u64..1 << 40).prop_map(Timestamp::from_nanos),
        (1_u64 << 60..(1 << 60) + (1 << 50)).prop_map(Timestamp::from_nanos),
        (0_u64..1 << 59).prop_map(|back| Timestamp::from_nanos(Timestamp::MAX.as_nanos() - back)),
    ]
}

/// The clock of a history.
pub struct Walk {
    period_ns: u64,
    now: Timestamp,
    retry_at: Option<Timestamp>,
}

impl Walk {
    pub fn new(start: Timestamp, period: Duration) -> Self {
        Self { period_ns: period.as_nanos() as u64, now: start, retry_at: None }
    }

    /// The time of the next call.
    pub fn step(&mut self, clock: Clock) -> Timestamp {
        let share = |part: u16| (u128::from(self.period_ns) * u128::from(part) / 4096) as u64;
        match clock {
            Clock::Forward(part) => self.now = self.now + Duration::from_nanos(share(part)),
            Clock::Tick(ns) => self.now = self.now + Duration::from_nanos(u64::from(ns)),
            Clock::Stall => {}
            Clock::Stale(part) => {
                return Timestamp::from_nanos(self.now.as_nanos().saturating_sub(share(part)));
            }
            Clock::Retry { early } => {
                if let Some(at) = self.retry_at {
                    let at = Timestamp::from_nanos(at.as_nanos() - u64::from(early));
                    self.now = self.now.max(at);
                }
            }
        }
        self.now
    }

    pub fn note(&mut self, now: Timestamp, decision: &Decision) {
        if let Some(Retry::After(wait)) = decision.denial().map(|denial| denial.retry()) {
            self.retry_at = Some(now + wait);
        }
    }
}

/// The cost that a call's share means.
pub fn cost_of(call: Call, capacity: u64) -> Cost {
    Cost::new(
        (u128::from(capacity) * u128::from(call.cost) / 256) as u64 + u64::from(call.cost % 2),
    )
}
