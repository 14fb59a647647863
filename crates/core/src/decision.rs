//! [`Decision`]: the answer to "may this spend that now?".

use core::time::Duration;

/// The answer to a call: allow or deny, and what a client should be told.
///
/// `remaining` is rounded down, the waits are rounded up, to the nanosecond. A wait is counted from
/// the `now` that was passed in, and assumes that nobody else calls meanwhile.
///
/// ```
/// use tidegate_core::{Cost, Limiter, Quota, Retry, Timestamp, TokenBucket};
///
/// let limiter = Limiter::new(TokenBucket::new(Quota::per_second(2))?);
/// let now = Timestamp::from_secs(1);
/// assert_eq!(limiter.decide(Cost::new(2), now).remaining(), 0);
/// let denied = limiter.decide(Cost::ONE, now).denial().expect("the bucket is empty");
/// assert_eq!(denied.retry(), Retry::After(core::time::Duration::from_millis(500)));
/// # Ok::<(), tidegate_core::QuotaError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a decision that nobody reads limits nothing"]
pub enum Decision {
    /// The cost was charged (or, for a peek, would be).
    Allow(Allowance),
    /// Nothing was charged, and nothing was written.
    Deny(Denial),
}

impl Decision {
    /// Whether the call may go on.
    #[inline]
    pub const fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// The denial, if it is one.
    #[inline]
    #[must_use]
    pub const fn denial(&self) -> Option<Denial> {
        match self {
            Self::Allow(_) => None,
            Self::Deny(denial) => Some(*denial),
        }
    }

    /// The denial as an error, for `?`.
    #[inline]
    pub(crate) const fn into_result(self) -> Result<(), Denial> {
        match self {
            Self::Allow(_) => Ok(()),
            Self::Deny(denial) => Err(denial),
        }
    }

    /// The units still free after this decision.
    #[inline]
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        match self {
            Self::Allow(allowance) => allowance.remaining,
            Self::Deny(denial) => denial.remaining,
        }
    }

    /// The time until every unit is free again.
    #[inline]
    #[must_use]
    pub const fn reset_after(&self) -> Duration {
        Duration::from_nanos(match self {
            Self::Allow(allowance) => allowance.reset_after_ns,
            Self::Deny(denial) => denial.reset_after_ns,
        })
    }
}

/// What an allowed call leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    remaining: u64,
    reset_after_ns: u64,
}

impl Allowance {
    /// An allowance that leaves `remaining` units and is as new after `reset_after_ns`.
    #[inline]
    #[must_use]
    pub const fn new(remaining: u64, reset_after_ns: u64) -> Self {
        Self { remaining, reset_after_ns }
    }

    /// The units still free.
    #[inline]
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The time until every unit is free again.
    #[inline]
    #[must_use]
    pub const fn reset_after(&self) -> Duration {
        Duration::from_nanos(self.reset_after_ns)
    }
}

/// Why a call was denied, and when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denial {
    cause: Cause,
    remaining: u64,
    retry_after_ns: u64,
    reset_after_ns: u64,
}

impl Denial {
    /// The cost fits the limit, but not now: it will after `retry_after_ns`.
    #[inline]
    #[must_use]
    pub const fn exhausted(remaining: u64, retry_after_ns: u64, reset_after_ns: u64) -> Self {
        Self { cause: Cause::Exhausted, remaining, retry_after_ns, reset_after_ns }
    }

    /// The cost is above the limit's capacity, so no wait can help.
    #[inline]
    #[must_use]
    pub const fn oversized(remaining: u64, reset_after_ns: u64) -> Self {
        Self { cause: Cause::Oversized, remaining, retry_after_ns: 0, reset_after_ns }
    }

    /// The key is new and the table has no room for it before `retry_after_ns`.
    #[inline]
    #[must_use]
    pub const fn table_full(retry_after_ns: u64) -> Self {
        Self {
            cause: Cause::TableFull,
            remaining: 0,
            retry_after_ns,
            reset_after_ns: retry_after_ns,
        }
    }

    /// Why.
    #[inline]
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// Whether and when the same call can succeed.
    #[inline]
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self.cause {
            Cause::Oversized => Retry::Never,
            Cause::Exhausted | Cause::TableFull => {
                Retry::After(Duration::from_nanos(self.retry_after_ns))
            }
        }
    }

    /// The units still free: fewer than were asked for.
    #[inline]
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The time until every unit is free again.
    #[inline]
    #[must_use]
    pub const fn reset_after(&self) -> Duration {
        Duration::from_nanos(self.reset_after_ns)
    }
}

/// Why a call was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The limit is spent for now.
    Exhausted,
    /// The cost is above the limit's capacity.
    Oversized,
    /// The key is new, and the table's slots for it all belong to other live keys.
    TableFull,
}

/// Whether a denied call can succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// After this wait, if nobody else spends meanwhile. Not sooner.
    After(Duration),
    /// Not at any time: the cost is above the limit's capacity.
    Never,
}
