//! [`Concurrency`]: at most so many calls at a time.

use std::time::Duration;

use tidegate_core::{Algorithm, Allowance, Cost, Denial, QuotaError, Step, Timestamp};

/// At most so many units in use at a time: "5 concurrent".
///
/// What was charged is in use until it is refunded; time alone frees nothing. But a count that nobody
/// has touched for its lifetime is void, so that it cannot outlive those who would have refunded it, as
/// after a power failure. Who has units in use for longer than that [charges](Algorithm::charge) zero
/// units now and then; if he is late, and nobody has charged meanwhile, the count is valid again.
///
/// # State
/// | bits | field |
/// |---|---|
/// | 44, high | when the count is void, ms; the last [`Timestamp`] is below 2^44 ms |
/// | 20, low | units in use; stops at the field's end |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Concurrency {
    limit: u64,
    lifetime_ms: u64,
}

const COUNT_BITS: u32 = 20;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
const MAX_UNTIL_MS: u64 = (1 << (u64::BITS - COUNT_BITS)) - 1;

/// When to ask again: nobody knows when a call ends.
const RETRY_NS: u64 = 1_000_000_000;

impl Concurrency {
    /// How long a count lasts that nobody has touched, unless said otherwise: as good as for ever.
    const LIFETIME: Duration = Duration::from_secs(300 * 86_400);

    /// At most `limit` units at a time.
    pub(crate) fn new(limit: u64) -> Result<Self, QuotaError> {
        let most = MAX_COUNT / 2;
        match limit {
            0 => Err(QuotaError::NoUnits),
            _ if limit > most => Err(QuotaError::TooLarge { units: limit, max: most }),
            _ => Ok(Self { limit, lifetime_ms: 0 }.lasting(Self::LIFETIME)),
        }
    }

    /// The same, whose counts are void after another time.
    pub(crate) fn lasting(self, lifetime: Duration) -> Self {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(MAX_UNTIL_MS);
        Self { lifetime_ms: lifetime_ms.clamp(1, MAX_UNTIL_MS), ..self }
    }

    /// The units in use.
    fn count(word: u64, now: Timestamp) -> u64 {
        if Self::until(word) <= now { 0 } else { word & MAX_COUNT }
    }

    fn until(word: u64) -> Timestamp {
        Timestamp::from_nanos((word >> COUNT_BITS).saturating_mul(1_000_000))
    }

    /// So many units, from now on for a lifetime, or for as long as the word says.
    fn pack(&self, word: u64, count: u64, now: Timestamp) -> u64 {
        if count == 0 {
            return 0;
        }
        let now_ms = now.as_nanos().div_ceil(1_000_000);
        let until_ms = now_ms.saturating_add(self.lifetime_ms).min(MAX_UNTIL_MS);
        until_ms.max(word >> COUNT_BITS) << COUNT_BITS | count.min(MAX_COUNT)
    }
}

impl Algorithm for Concurrency {
    fn step(&self, word: u64, cost: Cost, now: Timestamp) -> Step {
        let count = Self::count(word, now);
        let (cost, remaining) = (cost.units(), self.limit.saturating_sub(count));
        let reset_ns = if count == 0 { 0 } else { RETRY_NS };
        if cost > self.limit {
            return Step::Deny(Denial::oversized(remaining, reset_ns));
        }
        if count > self.limit - cost {
            return Step::Deny(Denial::exhausted(remaining, RETRY_NS, RETRY_NS));
        }
        if cost == 0 {
            return Step::Allow { word, allowance: Allowance::new(remaining, reset_ns) };
        }
        let word = self.pack(word, count + cost, now);
        Step::Allow { word, allowance: Allowance::new(remaining - cost, RETRY_NS) }
    }

    fn charge(&self, word: u64, cost: Cost, now: Timestamp) -> u64 {
        match cost.units() {
            0 => self.pack(word, word & MAX_COUNT, now),
            units => self.pack(word, Self::count(word, now).saturating_add(units), now),
        }
    }

    fn refund(&self, word: u64, cost: Cost, _: Timestamp, now: Timestamp) -> u64 {
        let count = Self::count(word, now).saturating_sub(cost.units());
        if count == 0 { 0 } else { word & !MAX_COUNT | count }
    }

    fn idle_at(&self, word: u64) -> Timestamp {
        if word & MAX_COUNT == 0 { Timestamp::ZERO } else { Self::until(word) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_700_000_000);

    proptest! {
        /// Against a plain count: never over the limit, never denied below it.
        #[test]
        fn units_in_use_are_as_a_plain_count(
            limit in 1..20_u64,
            acts in prop::collection::vec((any::<bool>(), 0..6_u64, 0..10_000_u64), 1..200),
        ) {
            let concurrency = Concurrency::new(limit).unwrap();
            let (mut word, mut used, mut now) = (0, 0, START);
            for (admits, cost, pause_ms) in acts {
                now = now + Duration::from_millis(pause_ms);
                if admits {
                    match concurrency.step(word, Cost::new(cost), now) {
                        Step::Allow { word: next, allowance } => {
                            used += cost;
                            word = next;
                            prop_assert!(used <= limit);
                            prop_assert_eq!(allowance.remaining(), limit - used);
                        }
                        Step::Deny(denial) => {
                            prop_assert!(used + cost > limit);
                            prop_assert_eq!(denial.remaining(), limit - used);
                        }
                    }
                } else {
                    let back = cost.min(used);
                    used -= back;
                    word = concurrency.refund(word, Cost::new(back), START, now);
                }
                prop_assert_eq!(word == 0, used == 0);
                prop_assert_eq!(concurrency.is_idle(word, now), used == 0);
            }
        }

        #[test]
        fn any_bits_are_a_state(word: u64, cost: u64, now_ns: u64, limit in 1..1000_u64) {
            let (concurrency, cost) = (Concurrency::new(limit).unwrap(), Cost::new(cost));
            let now = Timestamp::from_nanos(now_ns);
            if let Step::Allow { word, .. } = concurrency.step(word, cost, now) {
                prop_assert!(Concurrency::count(word, now) <= limit);
            }
            concurrency.charge(word, cost, now);
            concurrency.refund(word, cost, now, now);
            prop_assert_eq!(
                concurrency.is_idle(word, now),
                Concurrency::count(word, now) == 0
            );
        }
    }

    #[test]
    fn a_count_that_nobody_touches_is_void_after_its_lifetime_and_not_before() {
        let lifetime = Duration::from_secs(60);
        let concurrency = Concurrency::new(1).unwrap().lasting(lifetime);
        let Step::Allow { word, .. } = concurrency.step(0, Cost::ONE, START) else { panic!() };
        let before = Timestamp::from_nanos((START + lifetime).as_nanos() - 1);
        let is_allow =
            |word, now| matches!(concurrency.step(word, Cost::ONE, now), Step::Allow { .. });
        assert!(!is_allow(word, before));
        assert!(is_allow(word, START + lifetime));
        let kept = concurrency.charge(word, Cost::ZERO, before);
        assert!(!is_allow(kept, START + lifetime), "who has it has said so");
        assert!(!is_allow(kept, START), "an older time frees nothing");
        assert_eq!(concurrency.charge(0, Cost::ZERO, START), 0, "nothing is in use");
        let late = concurrency.charge(word, Cost::ZERO, START + lifetime);
        assert!(!is_allow(late, START + lifetime), "nobody had its units meanwhile");
    }

    #[test]
    fn a_count_lasts_its_lifetime_from_any_nanosecond_on() {
        let lifetime = Duration::from_secs(60);
        let concurrency = Concurrency::new(1).unwrap().lasting(lifetime);
        for ns in [1, 500_000, 999_999] {
            let start = START + Duration::from_nanos(ns);
            let Step::Allow { word, .. } = concurrency.step(0, Cost::ONE, start) else { panic!() };
            let before = Timestamp::from_nanos((start + lifetime).as_nanos() - 1);
            assert!(matches!(concurrency.step(word, Cost::ONE, before), Step::Deny(_)), "{ns}");
        }
    }

    #[test]
    fn who_ends_a_call_leaves_the_others_as_long_as_they_had() {
        let concurrency = Concurrency::new(3).unwrap().lasting(Duration::from_secs(60));
        let Step::Allow { word, .. } = concurrency.step(0, Cost::new(2), START) else { panic!() };
        let earlier = Timestamp::from_nanos(START.as_nanos() - 9_000_000_000);
        for now in [earlier, START, START + Duration::from_secs(30)] {
            let one_less = concurrency.refund(word, Cost::ONE, START, now);
            assert_eq!(concurrency.idle_at(one_less), concurrency.idle_at(word), "{now:?}");
            assert_eq!(Concurrency::count(one_less, now), 1);
            let more = concurrency.charge(word, Cost::ONE, now);
            assert!(concurrency.idle_at(more) >= concurrency.idle_at(word), "{now:?}");
        }
    }

    #[test]
    fn limits_that_do_not_fit_are_refused() {
        assert_eq!(Concurrency::new(0), Err(QuotaError::NoUnits));
        assert!(Concurrency::new(MAX_COUNT / 2).is_ok());
        assert!(Concurrency::new(MAX_COUNT / 2 + 1).is_err());
    }
}
