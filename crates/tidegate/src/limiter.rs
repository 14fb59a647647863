//! [`Limiter`]: one limit, with its clock.

use tidegate_core::{AtomicU64, Cost, Decision, Denial, Protocol, Timestamp};

use crate::clock::{Clock, SystemClock};
use crate::memory;
use crate::reservation::{Ledger, Reservation, book};

/// One limit for the whole process: "at most 50 calls a second to that service".
///
/// Any number of threads may call it; it is lock-free and never allocates after it is made. For a
/// limit per user or address see [`KeyedLimiter`](crate::KeyedLimiter), and for one without a clock,
/// as a `static`, [`core::Limiter`](tidegate_core::Limiter).
///
/// ```
/// use tidegate::{Cost, Limiter, Quota, SlidingWindowLog};
///
/// let limiter = Limiter::new(SlidingWindowLog::new(Quota::per_minute(2))?);
/// assert!(limiter.decide(Cost::ONE).is_allow());
/// assert!(limiter.decide(Cost::ONE).is_allow());
/// let denial = limiter.decide(Cost::ONE).denial().expect("two a minute");
/// println!("{:?}", denial.retry()); // After(59.999...s)
/// # Ok::<(), tidegate::QuotaError>(())
/// ```
#[derive(Debug)]
pub struct Limiter<P, C = SystemClock> {
    inner: tidegate_core::Limiter<P, Box<[AtomicU64]>>,
    clock: C,
}

impl<P: Protocol> Limiter<P> {
    /// A fresh limiter on the system's clock.
    #[must_use]
    pub fn new(protocol: P) -> Self {
        let ring = memory::ring(protocol.ring_words());
        let inner = tidegate_core::Limiter::with_ring(protocol, ring);
        Self { inner, clock: SystemClock::new() }
    }
}

impl<P: Protocol, C: Clock> Limiter<P, C> {
    /// The same limiter on another clock.
    #[must_use]
    pub fn with_clock<D: Clock>(self, clock: D) -> Limiter<P, D> {
        Limiter { inner: self.inner, clock }
    }

    /// Whether `cost` may be spent now; charges it if so.
    #[inline]
    pub fn decide(&self, cost: Cost) -> Decision {
        self.inner.decide(cost, self.clock.now())
    }

    /// As [`decide`](Self::decide), for callers who want no numbers unless it denies.
    ///
    /// # Errors
    /// The denial.
    #[inline]
    pub fn admit(&self, cost: Cost) -> Result<(), Denial> {
        self.inner.admit(cost, self.clock.now())
    }

    /// What [`decide`](Self::decide) would answer. Charges nothing.
    #[inline]
    pub fn peek(&self, cost: Cost) -> Decision {
        self.inner.peek(cost, self.clock.now())
    }

    /// Reserves an estimate, to be settled later.
    ///
    /// # Errors
    /// The denial, when the estimate does not fit.
    pub fn reserve(&self, estimate: Cost) -> Result<Reservation<&Self>, Denial> {
        let now = self.clock.now();
        self.inner.admit(estimate, now)?;
        Ok(Reservation::new(self, estimate, now))
    }

    /// The limiter without its clock, for calls that share one reading of it.
    pub const fn core(&self) -> &tidegate_core::Limiter<P, Box<[AtomicU64]>> {
        &self.inner
    }
}

impl<P: Protocol, C: Clock> Ledger for &Limiter<P, C> {
    fn settle(&self, reserved: Cost, used: Cost, charged_at: Timestamp) {
        let now = self.clock.now();
        let refund = |rest| self.inner.refund(rest, charged_at, now);
        book(reserved, used, refund, |excess| self.inner.charge(excess, now));
    }
}
