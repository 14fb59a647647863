//! What people forgive a key is freed, and not one unit more.

use proptest::prelude::*;
use tidegate_core::{
    AtomicU64, Cost, FixedWindow, Limiter, Protocol, Quota, SlidingWindowCounter, SlidingWindowLog,
    Timestamp, TokenBucket,
};

use crate::table::{Memory, key};

const LIMIT: u64 = 60;
const WINDOW_S: u64 = 60;

fn limiter<P: Protocol>(protocol: P) -> Limiter<P, Vec<AtomicU64>> {
    let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
    Limiter::with_ring(protocol, ring)
}

/// The same calls on a key of a table, whose neighbour is forgiven nothing.
fn keyed_is_as_alone<P: Protocol + Copy>(
    protocol: P,
    calls: &[(u64, u64, u64)],
) -> Result<(), TestCaseError> {
    let memory = Memory::new(1, protocol.ring_words());
    let table = memory.table(protocol);
    let (lone, mut seconds) = (limiter(protocol), 0);
    let (mine, other) = (key(1), key(2));
    for &(wait, units, forgiven) in calls {
        seconds += wait;
        let (now, units, forgiven) = (at(seconds), Cost::new(units), Cost::new(forgiven));
        prop_assert_eq!(table.decide(mine, units, now), lone.decide(units, now));
        let _ = table.decide(other, units, now);
        let others = table.peek(other, Cost::ZERO, now);
        table.forgive(mine, forgiven, now);
        lone.forgive(forgiven, now);
        let left = |decision: tidegate_core::Decision| decision.remaining();
        prop_assert_eq!(left(table.peek(mine, Cost::ZERO, now)), left(lone.peek(Cost::ZERO, now)));
        prop_assert_eq!(table.peek(other, Cost::ZERO, now), others);
    }
    table.forgive(key(3), Cost::new(LIMIT), at(seconds)); // nobody
    prop_assert_eq!(table.peek(key(3), Cost::ZERO, at(seconds)).remaining(), LIMIT);
    Ok(())
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_secs(1_000_020 + seconds)
}

/// What was used at several times, over more than a window, is forgiven at the end of them.
fn of_many_charges<P: Protocol>(
    protocol: P,
    charges: &[(u64, u64)],
    forgiven: u64,
) -> Result<(), TestCaseError> {
    let (limiter, mut seconds) = (limiter(protocol), 0);
    for (wait, units) in charges {
        seconds += wait;
        let _ = limiter.decide(Cost::new(*units), at(seconds));
    }
    let before = limiter.peek(Cost::ZERO, at(seconds)).remaining();
    limiter.forgive(Cost::new(forgiven), at(seconds));
    let after = limiter.peek(Cost::ZERO, at(seconds)).remaining();
    prop_assert_eq!(after, LIMIT.min(before + forgiven));
    // And it stays so: nothing that was forgiven counts again, and nothing that counts is lost.
    prop_assert_eq!(limiter.decide(Cost::new(after), at(seconds)).is_allow(), true);
    prop_assert_eq!(limiter.peek(Cost::ONE, at(seconds)).is_allow(), false);
    Ok(())
}

/// A key that is in debt is forgiven that first.
fn of_debt<P: Protocol>(protocol: P, used: u64, forgiven: u64) -> Result<(), TestCaseError> {
    let limiter = limiter(protocol);
    limiter.charge(Cost::new(used), at(0));
    limiter.forgive(Cost::new(forgiven), at(0));
    let left = LIMIT.saturating_sub(used.saturating_sub(forgiven));
    prop_assert_eq!(limiter.peek(Cost::ZERO, at(0)).remaining(), left);
    Ok(())
}

/// Debt of an earlier window is forgiven in a later one.
fn of_old_debt<P: Protocol>(protocol: P, forgiven: u64) -> Result<(), TestCaseError> {
    let limiter = limiter(protocol);
    limiter.charge(Cost::new(3 * LIMIT), at(0));
    // One window on, two limits of debt are left in it, or one after what has been paid off.
    let before = limiter.peek(Cost::ZERO, at(WINDOW_S)).remaining();
    prop_assert_eq!(before, 0);
    limiter.forgive(Cost::new(2 * LIMIT + forgiven), at(WINDOW_S));
    prop_assert_eq!(limiter.peek(Cost::ZERO, at(WINDOW_S)).remaining(), LIMIT);
    Ok(())
}

fn quota() -> Quota {
    Quota::new(LIMIT, std::time::Duration::from_secs(WINDOW_S)).unwrap()
}

proptest! {
    #[test]
    fn what_is_forgiven_is_freed_and_no_more(
        charges in prop::collection::vec((0..40_u64, 0..LIMIT), 0..12),
        forgiven in 0..2 * LIMIT,
    ) {
        of_many_charges(TokenBucket::new(quota()).unwrap(), &charges, forgiven)?;
        of_many_charges(FixedWindow::new(quota()).unwrap(), &charges, forgiven)?;
        of_many_charges(SlidingWindowCounter::new(quota(), 12).unwrap(), &charges, forgiven)?;
        of_many_charges(SlidingWindowLog::new(quota()).unwrap(), &charges, forgiven)?;
    }

    #[test]
    fn a_key_is_forgiven_as_a_limiter_alone(
        calls in prop::collection::vec((0..25_u64, 0..LIMIT / 2, 0..LIMIT), 1..12),
    ) {
        keyed_is_as_alone(TokenBucket::new(quota()).unwrap(), &calls)?;
        keyed_is_as_alone(FixedWindow::new(quota()).unwrap(), &calls)?;
        keyed_is_as_alone(SlidingWindowCounter::new(quota(), 12).unwrap(), &calls)?;
        keyed_is_as_alone(SlidingWindowLog::new(quota()).unwrap(), &calls)?;
    }

    #[test]
    fn debt_is_forgiven_first(used in 0..3 * LIMIT, forgiven in 0..LIMIT) {
        of_debt(TokenBucket::new(quota()).unwrap(), used, forgiven)?;
        of_debt(FixedWindow::new(quota()).unwrap(), used, forgiven)?;
        of_debt(SlidingWindowCounter::new(quota(), 12).unwrap(), used, forgiven)?;
        of_debt(SlidingWindowLog::new(quota()).unwrap(), used, forgiven)?;
    }

    #[test]
    fn debt_of_an_earlier_window_is_forgiven_too(forgiven in 0..LIMIT) {
        of_old_debt(TokenBucket::new(quota()).unwrap(), forgiven)?;
        of_old_debt(FixedWindow::new(quota()).unwrap(), forgiven)?;
    }
}

/// A count at the end of its field stands for any number beyond, so nothing can be taken from it.
#[test]
fn what_is_beyond_all_counting_is_not_forgiven_in_part() {
    fn check<P: Protocol>(protocol: P) {
        let limiter = limiter(protocol);
        for forgiven in [u64::MAX, LIMIT] {
            limiter.charge(Cost::new(u64::MAX), at(0));
            limiter.charge(Cost::new(u64::MAX), at(0));
            limiter.forgive(Cost::new(forgiven), at(0));
            assert_eq!(limiter.peek(Cost::ZERO, at(0)).remaining(), 0);
            assert!(!limiter.decide(Cost::ONE, at(0)).is_allow());
        }
    }
    check(FixedWindow::new(quota()).unwrap());
    check(SlidingWindowCounter::new(quota(), 12).unwrap());
}
