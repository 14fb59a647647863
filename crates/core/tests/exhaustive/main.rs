//! Every short history of calls on small limits, against the plain models: what random histories may
//! miss, such as a time that is off by one, is in here for sure.

#[path = "../models/mod.rs"]
mod models;

mod narrow;
mod state;

use std::time::Duration;

use models::{Epochs, ExactBucket, Model, Queue, Timestamps, Windows};
use state::State;
use tidegate_core::{
    Cost, Decision, FixedWindow, Protocol, Quota, Retry, SlidingWindowCounter, SlidingWindowLog,
    Timestamp, TokenBucket,
};

#[derive(Debug, Clone, Copy)]
enum Call {
    Decide(u64),
    Charge(u64),
    /// So many units of the last charge.
    Refund(u64),
}

/// A call, and how many nanoseconds the clock moves before it. A step back is for that call only.
type Step = (i64, Call);

/// Every history of so many steps from the state on; `visit` sees each step and what it did.
fn explore<P: Protocol, V: Clone>(
    protocol: &P,
    steps: &[Step],
    depth: usize,
    state: &State,
    seen: &V,
    visit: &impl Fn(&mut V, &State, &State, Call, Timestamp, Option<Decision>),
) {
    if depth == 0 {
        return;
    }
    for &(forward_ns, call) in steps {
        let (mut next, mut seen) = (state.clone(), seen.clone());
        let now = next.advance(forward_ns);
        let decision = match call {
            Call::Decide(units) => Some(next.decide(protocol, Cost::new(units), now)),
            Call::Charge(units) => {
                next.charge(protocol, Cost::new(units), now);
                None
            }
            Call::Refund(units) => {
                next.refund(protocol, units, now);
                None
            }
        };
        visit(&mut seen, state, &next, call, now, decision);
        explore(protocol, steps, depth - 1, &next, &seen, visit);
    }
}

/// Decides as the model does, at every step of every history, and tells the truth about it.
fn agrees<P: Protocol>(
    protocol: &P,
    model: impl Model,
    quota: Quota,
    steps: &[Step],
    depth: usize,
) {
    let capacity = quota.units();
    let start = State::new(protocol, 1_000);
    explore(
        protocol,
        steps,
        depth,
        &start,
        &model,
        &|model, before, after, call, now, decision| match (call, decision) {
            (Call::Decide(units), Some(decision)) => {
                let fits = model.decide(Cost::new(units), now);
                assert_eq!(decision.is_allow(), fits, "{call:?} at {now:?} after {before:?}");
                assert_eq!(decision.remaining(), model.remaining(now), "{call:?} at {now:?}");
                let foreseen = before.peek(protocol, Cost::new(units), now);
                assert_eq!(foreseen, decision, "a peek tells what a decision would");
                if !fits {
                    assert_eq!(before.words(), after.words(), "a denial writes nothing");
                }
                check_waits(protocol, after, decision, units, capacity, now);
            }
            (Call::Charge(units), _) => model.charge(Cost::new(units), now),
            (Call::Refund(units), _) => {
                if let Some((charged, at)) = before.last_charge() {
                    model.refund(Cost::new(units.min(charged)), at, now);
                }
            }
            (Call::Decide(_), None) => unreachable!("a lone cell is never gone"),
        },
    );
}

/// Waiting as long as told succeeds, and one tick less does not.
fn check_waits<P: Protocol>(
    protocol: &P,
    state: &State,
    decision: Decision,
    units: u64,
    capacity: u64,
    now: Timestamp,
) {
    let fits = |units, at| state.peek(protocol, Cost::new(units), at).is_allow();
    let before = |at: Timestamp| Timestamp::from_nanos(at.as_nanos() - 1);
    match decision.denial().map(|denial| denial.retry()) {
        None => {}
        Some(Retry::Never) => assert!(units > capacity),
        Some(Retry::After(wait)) => {
            assert!(wait > Duration::ZERO);
            assert!(fits(units, now + wait), "denied after the retry-after: {state:?}");
            assert!(!fits(units, before(now + wait)), "allowed before it: {state:?}");
        }
    }
    let full_at = now + decision.reset_after();
    assert!(fits(capacity, full_at), "not full after the reset: {state:?}");
    assert!(full_at == now || !fits(capacity, before(full_at)), "full before it: {state:?}");
}

/// All calls at all steps of the clock.
fn steps(clock: &[i64], calls: &[Call]) -> Vec<Step> {
    clock.iter().flat_map(|ns| calls.iter().map(move |call| (*ns, *call))).collect()
}

fn quota(units: u64, period_ns: u64) -> Quota {
    Quota::new(units, Duration::from_nanos(period_ns)).unwrap()
}

use Call::{Charge, Decide, Refund};

#[test]
fn every_short_history_of_a_token_bucket() {
    for (units, period_ns, burst) in [(1, 3, 1), (1, 3, 2), (2, 6, 3)] {
        let quota = quota(units, period_ns);
        let bucket = TokenBucket::new(quota).unwrap().with_burst(burst).unwrap();
        let model = ExactBucket::new(quota, burst);
        let calls = [Decide(1), Decide(2), Charge(1), Refund(1), Refund(2)];
        // The capacity is the burst.
        let capacity = Quota::new(burst, quota.period()).unwrap();
        agrees(&bucket, model, capacity, &steps(&[0, 1, 2, 3, -2], &calls), 5);
    }
}

/// Two units in 5 ns: half a tick each way.
#[test]
fn every_short_history_of_a_token_bucket_of_half_nanoseconds() {
    let quota = quota(2, 5);
    let bucket = TokenBucket::new(quota).unwrap();
    let model = ExactBucket::new(quota, 2);
    agrees(&bucket, model, quota, &steps(&[0, 1, 2, 5, -1], &[Decide(1), Decide(2), Refund(1)]), 5);
}

#[test]
fn every_short_history_of_a_fixed_window() {
    let quota = quota(2, 4);
    let window = FixedWindow::new(quota).unwrap();
    let calls = [Decide(1), Decide(2), Charge(1), Charge(3), Refund(1)];
    agrees(&window, Windows::new(quota), quota, &steps(&[0, 1, 3, 4, -2], &calls), 5);
}

#[test]
fn every_short_history_of_a_sliding_window_counter() {
    for (period_ns, epochs) in [(8, 1), (8, 2), (12, 3)] {
        let quota = quota(2, period_ns);
        let counter = SlidingWindowCounter::new(quota, epochs).unwrap();
        let calls = [Decide(1), Decide(2), Charge(3), Refund(1), Refund(2)];
        let clock = [0, 3, 4, period_ns as i64, -3];
        agrees(&counter, Epochs::new(quota, epochs), quota, &steps(&clock, &calls), 5);
    }
}

#[test]
fn every_short_history_of_a_sliding_window_log() {
    for limit in [1, 2, 3] {
        let quota = quota(limit, 4);
        let log = SlidingWindowLog::new(quota).unwrap();
        let calls = [Decide(1), Decide(2), Charge(1), Charge(3)];
        agrees(&log, Queue::new(quota), quota, &steps(&[0, 1, 3, 4], &calls), 5);
    }
}

#[test]
fn every_short_history_of_a_sliding_window_log_with_refunds() {
    for limit in [1, 2, 3] {
        let quota = quota(limit, 4);
        let log = SlidingWindowLog::new(quota).unwrap();
        let calls = [Decide(0), Decide(1), Decide(2), Charge(3), Refund(1), Refund(2)];
        agrees(&log, Queue::new(quota), quota, &steps(&[0, 1, 4], &calls), 5);
    }
}

/// What was admitted and not refunded stays within the limit in every span of a window, whichever
/// units a refund took, and however stale the clock.
#[test]
fn the_windows_hold_their_bound_in_every_short_history() {
    let quota = quota(2, 8);
    let clock = [0, 3, 4, 8, -1, -4];
    let calls = [Decide(1), Decide(2), Refund(1)];
    holds(&SlidingWindowLog::new(quota).unwrap(), 1, quota, &steps(&clock, &calls));
    holds(&SlidingWindowCounter::new(quota, 2).unwrap(), 4, quota, &steps(&clock, &calls));
}

fn holds<P: Protocol>(protocol: &P, epoch_ns: u64, quota: Quota, steps: &[Step]) {
    let window_ns = quota.period().as_nanos() as u64;
    let start = State::new(protocol, 1_000);
    let seen = (Timestamps::default(), Timestamp::ZERO);
    explore(protocol, steps, 5, &start, &seen, &|seen, before, _, call, now, decision| {
        let (admitted, latest) = seen;
        match (call, decision) {
            (Call::Decide(units), Some(Decision::Allow(_))) => {
                // A stale call counts at the latest time, or in the latest epoch.
                *latest = (*latest).max(now);
                let counts_from = latest.as_nanos() / epoch_ns * epoch_ns;
                admitted.push(now.max(Timestamp::from_nanos(counts_from)), units);
            }
            (Call::Refund(units), _) => {
                if let (Some((charged, _)), Some(last)) =
                    (before.last_charge(), admitted.0.last_mut())
                {
                    last.1 -= units.min(charged);
                }
            }
            _ => {}
        }
        assert!(admitted.most_in_any_window(window_ns) <= quota.units(), "{admitted:?}");
    });
}
