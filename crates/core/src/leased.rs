//! [`Leased`]: units that a process has leased, spent by all of its threads.

use crate::sync::{AtomicU64, Ordering, const_unless_model};
use crate::{Cost, Timestamp};

/// Units that were leased elsewhere, and may be spent here by any thread until they expire: one word.
///
/// Where [`Lease`](crate::Lease) is one thread's, this is a process's. The units were charged before they
/// are put in, on another machine say, so spending them needs nobody's word: a load and a swap.
///
/// # Guarantee
/// Every unit that is put in comes out once: it is spent, or taken back. None is spent at a `now` at
/// which it has expired. That no more is admitted than the limit rests on how the units were charged; see
/// the `tidegate-redis` crate.
///
/// # State
/// | bits | field |
/// |---|---|
/// | high 42 | when the units expire, in ticks of 2^20 ns (about a millisecond), rounded down |
/// | low 22 | units left |
///
/// | word | state |
/// |---|---|
/// | `0` | nothing leased, or taken back |
/// | units 0 | all spent |
/// | the tick is not after that of `now` | expired; what is left can only be taken back |
///
/// A timestamp has 62 bits, so its tick fits 42 and cannot wrap.
///
/// # Orderings
/// All relaxed: the word is the whole fact, and nothing is read by it.
///
/// ```
/// use core::time::Duration;
/// use tidegate_core::{Cost, Leased, Timestamp};
///
/// static LEASED: Leased = Leased::new();
///
/// let now = Timestamp::from_secs(5);
/// assert_eq!(LEASED.put(100, now + Duration::from_millis(50)), 0);
/// assert!(LEASED.spend(Cost::new(30), now).is_some());
/// assert!(LEASED.spend(Cost::new(71), now).is_none(), "70 are left");
/// assert!(LEASED.spend(Cost::ONE, now + Duration::from_millis(50)).is_none(), "expired");
/// assert_eq!(LEASED.take(), 70);
/// ```
#[derive(Debug)]
pub struct Leased(AtomicU64);

/// A spending: of which lease, and what that left. For [`Leased::give_back`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    tick: u64,
    left: u64,
}

impl Spent {
    /// The units that were left.
    #[inline]
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }
}

const UNIT_BITS: u32 = 22;
const TICK_BITS: u32 = 20;

impl Leased {
    /// The most units of one lease.
    pub const MAX_UNITS: u64 = (1 << UNIT_BITS) - 1;

    const_unless_model! {
        /// Nothing leased.
        #[must_use]
        pub fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// Spends `cost` of what is leased, if so much is left and has not expired.
    #[inline]
    pub fn spend(&self, cost: Cost, now: Timestamp) -> Option<Spent> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (tick, left) = unpack(word);
            if cost.units() > left || now.as_nanos() >> TICK_BITS >= tick {
                return None;
            }
            let next = word - cost.units();
            // A round is repeated only when another thread has spent, taken or put in.
            match self.0.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Spent { tick, left: left - cost.units() }),
                Err(current) => word = current,
            }
        }
    }

    /// Puts a lease in: at most [`MAX_UNITS`](Self::MAX_UNITS), until they expire, rounded down to ticks
    /// of 2^20 ns. Gives what was left of the one before, which is as if taken back.
    pub fn put(&self, units: u64, expires_at: Timestamp) -> u64 {
        debug_assert!(units <= Self::MAX_UNITS, "{units} units");
        let tick = expires_at.as_nanos() >> TICK_BITS;
        let word = tick << UNIT_BITS | units.min(Self::MAX_UNITS);
        unpack(self.0.swap(word, Ordering::Relaxed)).1
    }

    /// Takes back what is left, expired or not. Nothing can be spent until the next lease is put in.
    pub fn take(&self) -> u64 {
        unpack(self.0.swap(0, Ordering::Relaxed)).1
    }

    /// Undoes a spending, if its lease is still in. Whether it was: if not, the units are lost, as if they
    /// had been used.
    pub fn give_back(&self, cost: Cost, spent: Spent) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let (tick, left) = unpack(word);
            let Some(sum) = left.checked_add(cost.units()).filter(|sum| *sum <= Self::MAX_UNITS)
            else {
                return false;
            };
            if tick != spent.tick {
                return false;
            }
            let next = tick << UNIT_BITS | sum;
            // As in `spend`.
            match self.0.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
    }

    /// What could be spent at `now`.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> u64 {
        let (tick, left) = unpack(self.0.load(Ordering::Relaxed));
        if now.as_nanos() >> TICK_BITS >= tick { 0 } else { left }
    }
}

impl Default for Leased {
    fn default() -> Self {
        Self::new()
    }
}

/// The tick and the units of a word.
#[inline]
const fn unpack(word: u64) -> (u64, u64) {
    (word >> UNIT_BITS, word & Leased::MAX_UNITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn no_unit_is_spent_at_or_after_its_expiry() {
        for expires_ns in [1 << 20, (1 << 20) + 1, 123_456_789, Timestamp::MAX.as_nanos()] {
            let leased = Leased::new();
            let expires_at = Timestamp::from_nanos(expires_ns);
            leased.put(5, expires_at);
            assert!(leased.spend(Cost::ONE, expires_at).is_none());
            assert_eq!(leased.left(expires_at), 0);
            let earlier = Timestamp::from_nanos(expires_ns - (1 << 20));
            assert!(leased.spend(Cost::ONE, earlier).is_some(), "at most a tick too early");
            assert_eq!(leased.take(), 4);
        }
    }

    #[test]
    fn a_lease_has_four_million_units_at_most_and_is_not_given_more_back() {
        assert_eq!(Leased::MAX_UNITS, 4_194_303);
        let (leased, now) = (Leased::new(), Timestamp::from_secs(1));
        leased.put(Leased::MAX_UNITS, now + Duration::from_secs(1));
        let spent = leased.spend(Cost::ONE, now).expect("of many");
        assert!(!leased.give_back(Cost::new(2), spent), "they would run into the time");
        assert!(leased.give_back(Cost::ONE, spent));
        assert!(!leased.give_back(Cost::new(u64::MAX), spent));
        assert_eq!(leased.take(), Leased::MAX_UNITS);
    }

    #[test]
    fn what_is_given_back_goes_to_its_own_lease_or_nowhere() {
        let (leased, now) = (Leased::new(), Timestamp::from_secs(1));
        leased.put(5, now + Duration::from_secs(1));
        let spent = leased.spend(Cost::new(3), now).expect("of 5");
        assert_eq!((spent.left(), leased.left(now)), (2, 2));
        assert!(leased.give_back(Cost::new(3), spent));
        assert_eq!(leased.left(now), 5);
        assert_eq!(leased.left(now + Duration::from_secs(1)), 0, "it expires when it did");
        assert_eq!(leased.spend(Cost::new(6), now), None);
        let all = leased.spend(Cost::new(5), now).expect("of 5");
        assert!(leased.give_back(Cost::new(5), all));
        assert_eq!(leased.put(7, now + Duration::from_secs(2)), 5);
        assert!(!leased.give_back(Cost::new(3), spent));
        assert_eq!(leased.take(), 7);
        assert!(!leased.give_back(Cost::new(3), spent));
        assert_eq!(leased.take(), 0);
    }
}
