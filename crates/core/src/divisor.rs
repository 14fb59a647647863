//! Exact division by a number that is known early: a multiplication on the hot path.

/// A divisor with its reciprocal.
///
/// With `reciprocal = floor((2^64 - 1) / by)`, the high half of `x * reciprocal` is the quotient or
/// one less, for every 64-bit `x`: the reciprocal is short of `2^64 / by` by at most 1, so the
/// product is short by less than 1. One comparison mends it. (Granlund and Montgomery, "Division by
/// invariant integers using multiplication", 1994, in its plainest form.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Divisor {
    by: u64,
    reciprocal: u64,
}

impl Divisor {
    /// A divisor; `by` must not be zero.
    pub(crate) const fn new(by: u64) -> Self {
        assert!(by != 0);
        Self { by, reciprocal: u64::MAX / by }
    }

    #[inline]
    pub(crate) const fn by(&self) -> u64 {
        self.by
    }

    /// `x / by`, rounded down.
    #[inline]
    pub(crate) const fn quotient(&self, x: u64) -> u64 {
        let estimate = ((x as u128 * self.reciprocal as u128) >> 64) as u64;
        let rest = x - estimate * self.by;
        estimate + (rest >= self.by) as u64
    }

    /// `x % by`.
    #[inline]
    pub(crate) const fn remainder(&self, x: u64) -> u64 {
        x - self.quotient(x) * self.by
    }
}

#[cfg(test)]
mod tests {
    use super::Divisor;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn divides_as_the_processor_does(x: u64, by in 1_u64.., shift in 0_u32..64) {
            for (x, by) in [(x, by), (x >> shift, by), (x, (by >> shift).max(1))] {
                prop_assert_eq!(Divisor::new(by).quotient(x), x / by);
                prop_assert_eq!(Divisor::new(by).remainder(x), x % by);
            }
        }
    }

    #[test]
    fn divides_at_the_edges() {
        for by in [1, 2, 3, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            for x in [0, 1, by - 1, by, by.saturating_add(1), u64::MAX - 1, u64::MAX] {
                assert_eq!(Divisor::new(by).quotient(x), x / by, "{x} / {by}");
            }
        }
    }
}
