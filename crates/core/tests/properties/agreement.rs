//! Random histories, decided as the plain model decides them.

use proptest::prelude::*;
use tidegate_core::{AtomicU64, Cost, Limiter, Protocol, Quota, Timestamp};

use crate::history::{Call, Clock, Kind, Walk, cost_of};
use crate::models::Model;

/// Runs a history on a limiter and on its model: the answers are the same, with what is left.
pub fn agrees<P: Protocol, R: AsRef<[AtomicU64]>>(
    limiter: &Limiter<P, R>,
    mut model: impl Model,
    quota: Quota,
    start: Timestamp,
    calls: Vec<Call>,
) -> Result<(), TestCaseError> {
    let mut walk = Walk::new(start, quota.period());
    let mut open: Option<(Cost, Timestamp)> = None;
    for call in calls {
        let now = walk.step(call.clock);
        let cost = cost_of(call, quota.units());
        match call.kind {
            Kind::Decide => {
                let peeked = limiter.peek(cost, now);
                let decision = limiter.decide(cost, now);
                prop_assert_eq!(peeked, decision, "a peek tells what a decision does");
                walk.note(now, &decision);
                let fits = model.decide(cost, now);
                prop_assert_eq!(decision.is_allow(), fits, "{:?} at {:?}", cost, now);
                prop_assert_eq!(decision.remaining(), model.remaining(now));
                if fits {
                    open = Some((cost, now));
                }
            }
            Kind::Refund(share) => {
                if let Some((cost, at)) = open.take() {
                    let units = u128::from(cost.units()) * u128::from(share) / 255;
                    limiter.refund(Cost::new(units as u64), at, now);
                    model.refund(Cost::new(units as u64), at, now);
                }
            }
            Kind::Charge => {
                let cost = Cost::new(cost.units() / 4);
                limiter.charge(cost, now);
                model.charge(cost, now);
            }
        }
    }
    Ok(())
}

/// The same history with a clock that does not step back.
pub fn without_stale_times(calls: Vec<Call>) -> Vec<Call> {
    let fresh = |call: Call| match call.clock {
        Clock::Stale(_) => Call { clock: Clock::Stall, ..call },
        _ => call,
    };
    calls.into_iter().map(fresh).collect()
}
