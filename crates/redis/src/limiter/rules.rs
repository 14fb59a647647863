//! [`LeaseRules`]: what a limit says about leases.

use std::fmt;
use std::time::Duration;

use crate::spec::Spec;

/// How units of a limit are leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRules {
    lasts: Duration,
    parts: u64,
}

impl LeaseRules {
    /// The parts that are left for others, unless said otherwise.
    pub const DEFAULT_PARTS: u64 = 4;

    /// Leases that last so long at most: 10 ms to 1 hour. Long enough for many calls, and short beside the
    /// limit's window: of a token bucket, a lease takes as much of the burst as refills meanwhile.
    #[must_use]
    pub const fn new(lasts: Duration) -> Self {
        Self { lasts, parts: Self::DEFAULT_PARTS }
    }

    /// The same, where a lease is at most one of so many parts of what is left, so that other nodes find
    /// some too.
    #[must_use]
    pub const fn with_parts(self, parts: u64) -> Self {
        Self { parts, ..self }
    }

    /// How long a lease lasts at most.
    #[must_use]
    pub const fn lasts(&self) -> Duration {
        self.lasts
    }

    pub(crate) const fn parts(&self) -> u64 {
        self.parts
    }

    pub(crate) fn lasts_us(&self) -> u64 {
        self.lasts.as_micros() as u64
    }

    pub(crate) fn check(&self, spec: &Spec) -> Result<(), LeaseError> {
        let (shortest, longest) = (Duration::from_millis(10), Duration::from_secs(3_600));
        if !spec.leases() {
            return Err(LeaseError::Log);
        }
        if self.lasts < shortest || self.lasts > longest {
            return Err(LeaseError::Lasts { lasts: self.lasts });
        }
        if !(1..=1_000).contains(&self.parts) {
            return Err(LeaseError::Parts { parts: self.parts });
        }
        Ok(())
    }
}

/// Why a limit cannot be leased.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseError {
    /// A sliding window log is exact to the microsecond, and would not be any more.
    Log,
    /// Leases that are too short or too long.
    Lasts {
        /// How long they would last.
        lasts: Duration,
    },
    /// No part, or too many.
    Parts {
        /// How many.
        parts: u64,
    },
}

impl fmt::Display for LeaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => f.write_str(
                "a sliding window log is exact to the microsecond, so it is not leased; use `sliding-window-counter`",
            ),
            Self::Lasts { lasts } => {
                write!(f, "a lease of {lasts:?} does not do; give 10 ms to 1 h")
            }
            Self::Parts { parts } => write!(f, "{parts} parts do not do; give 1 to 1000"),
        }
    }
}

impl std::error::Error for LeaseError {}
