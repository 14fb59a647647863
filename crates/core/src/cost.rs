//! [`Cost`]: what one call asks for.

/// What a call costs, in units of the limit: one per request, or one per LLM token, byte, and so on.
///
/// A zero cost asks without charging: it is allowed unless the limit is in debt.
///
/// ```
/// use tidegate_core::Cost;
///
/// assert_eq!(Cost::new(1), Cost::ONE);
/// assert_eq!(Cost::from(250_u32).units(), 250);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(u64);

impl Cost {
    /// No units: a question, not a charge.
    pub const ZERO: Self = Self(0);

    /// One unit: one request.
    pub const ONE: Self = Self(1);

    /// A cost of `units`.
    #[inline]
    #[must_use]
    pub const fn new(units: u64) -> Self {
        Self(units)
    }

    /// How many units.
    #[inline]
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0
    }
}

impl From<u64> for Cost {
    #[inline]
    fn from(units: u64) -> Self {
        Self(units)
    }
}

impl From<u32> for Cost {
    #[inline]
    fn from(units: u32) -> Self {
        Self(u64::from(units))
    }
}
