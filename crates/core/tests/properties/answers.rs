//! What must hold of every answer.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_core::{AtomicU64, Cost, Decision, Limiter, Protocol, Retry, Timestamp};

/// What `decide` said is what `peek` would say, and its numbers are true: with nobody else calling,
/// `remaining` more fit now and not one more; waiting exactly the retry-after or the reset succeeds,
/// and one tick less does not.
pub fn check_answer<P: Protocol, R: AsRef<[AtomicU64]>>(
    limiter: &Limiter<P, R>,
    decision: Decision,
    cost: Cost,
    now: Timestamp,
    capacity: u64,
) -> Result<(), TestCaseError> {
    let fits = |units: u64, at: Timestamp| limiter.peek(Cost::new(units), at).is_allow();
    let remaining = decision.remaining();
    prop_assert!(remaining <= capacity);
    let of_parts = match decision {
        Decision::Allow(allowance) => (allowance.remaining(), allowance.reset_after()),
        Decision::Deny(denial) => (denial.remaining(), denial.reset_after()),
    };
    prop_assert_eq!(of_parts, (remaining, decision.reset_after()));
    if remaining > 0 {
        prop_assert!(fits(remaining, now), "{remaining} remaining do not fit");
    }
    prop_assert!(!fits(remaining + 1, now), "more than {remaining} remaining fit");

    // Near the end of time the clamp makes waits meaningless.
    let horizon = Timestamp::from_nanos(1 << 61);
    let before = |at: Timestamp| Timestamp::from_nanos(at.as_nanos() - 1);
    let full_at = now + decision.reset_after();
    if full_at < horizon {
        prop_assert!(fits(capacity, full_at), "not full after the reset");
        if full_at > now {
            prop_assert!(!fits(capacity, before(full_at)), "full before the reset");
        }
    }
    match decision.denial().map(|denial| denial.retry()) {
        None => prop_assert!(cost.units() <= capacity),
        Some(Retry::Never) => prop_assert!(cost.units() > capacity),
        Some(Retry::After(wait)) => {
            prop_assert!(cost.units() <= capacity);
            prop_assert!(wait > Duration::ZERO, "a denial with nothing to wait for");
            let at = now + wait;
            if at < horizon {
                prop_assert!(fits(cost.units(), at), "denied after the retry-after");
                prop_assert!(!fits(cost.units(), before(at)), "allowed before the retry-after");
            }
        }
    }
    Ok(())
}
