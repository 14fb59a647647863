//! [`Lease`]: units taken at once, and spent without touching the limit.

use core::time::Duration;

use crate::protocol::Protocol;
use crate::sync::AtomicU64;
use crate::table::{Storage, Table};
use crate::{Cost, Denial, Key, Limiter, Timestamp};

/// Units of a limit that many threads share, taken by one thread at once and spent by it alone: for a
/// limit so hot that its one word goes back and forth between the processors.
///
/// Each thread has a lease of its own. It charges the limit for a batch, and then spends the batch with no
/// atomic operation at all, until it is used up or too old. What is left then goes back.
///
/// # Guarantee
/// Units are charged before they are spent, and spent less than `lifetime` after. So with H holders of
/// batches of B units and a limit of L per W:
/// - of what is spent at one time, or within any window of the calendar's or the limit's own that no lease
///   lies across, never more than L;
/// - in any span of length W, at most L + H x B, and at most what the limit admits in a span of
///   W + `lifetime`. For a hard bound of L, make the limit smaller by H x B.
///
/// # Price
/// Up to H x B units are held by threads that may not need them, and are denied to the others until their
/// holders call again, or end the lease, or the window passes. When the limit has no whole batch left, a
/// lease takes what each call costs, one by one, so that all of the limit can be spent. A lease that is
/// lost, with its thread, leaves its units charged.
///
/// ```
/// use core::time::Duration;
/// use tidegate_core::{Cost, Lease, Limiter, Quota, Timestamp, TokenBucket};
///
/// static LIMITER: Limiter<TokenBucket> = Limiter::new(match TokenBucket::new(Quota::per_second(1_000)) {
///     Ok(bucket) => bucket,
///     Err(_) => panic!("not a quota"),
/// });
///
/// let now = Timestamp::from_secs(3);
/// let mut lease = Lease::new(&LIMITER, Cost::new(64), Duration::from_millis(10));
/// assert!(lease.spend(Cost::ONE, now).is_ok());
/// assert_eq!(lease.left(), 63);
/// assert_eq!(LIMITER.peek(Cost::ZERO, now).remaining(), 936);
/// lease.end(now);
/// assert_eq!(LIMITER.peek(Cost::ZERO, now).remaining(), 999);
/// ```
#[derive(Debug)]
pub struct Lease<L> {
    lender: L,
    batch: Cost,
    lifetime_ns: u64,
    left: u64,
    leased_at: Timestamp,
    /// The first time at which it is over.
    expires_at: Timestamp,
}

/// What a [`Lease`] takes its units from: a [`Limiter`], or one key of a [`Table`].
pub trait Lender {
    /// Charges `cost` at `now`, if it may be taken.
    ///
    /// # Errors
    /// The denial.
    fn admit(&self, cost: Cost, now: Timestamp) -> Result<(), Denial>;

    /// Takes back `cost` of what was charged at `charged_at`.
    fn refund(&self, cost: Cost, charged_at: Timestamp, now: Timestamp);
}

impl<P: Protocol, R: AsRef<[AtomicU64]>> Lender for &Limiter<P, R> {
    #[inline]
    fn admit(&self, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        Limiter::admit(self, cost, now)
    }

    fn refund(&self, cost: Cost, charged_at: Timestamp, now: Timestamp) {
        Limiter::refund(self, cost, charged_at, now);
    }
}

impl<P: Protocol, S: Storage> Lender for (&Table<P, S>, Key) {
    #[inline]
    fn admit(&self, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        self.0.admit(self.1, cost, now)
    }

    fn refund(&self, cost: Cost, charged_at: Timestamp, now: Timestamp) {
        self.0.refund(self.1, cost, charged_at, now);
    }
}

impl<L: Lender> Lease<L> {
    /// A lease that takes `batch` units at a time and spends them within `lifetime`. Takes nothing yet.
    #[must_use]
    pub const fn new(lender: L, batch: Cost, lifetime: Duration) -> Self {
        let nanos = lifetime.as_nanos();
        let lifetime_ns = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        let (leased_at, expires_at) = (Timestamp::ZERO, Timestamp::ZERO);
        Self { lender, batch, lifetime_ns, left: 0, leased_at, expires_at }
    }

    /// Whether `cost` may be spent at `now`; spends it if so.
    ///
    /// # Errors
    /// The limit's denial.
    #[inline]
    pub fn spend(&mut self, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        if cost.units() <= self.left && now < self.expires_at {
            self.left -= cost.units();
            return Ok(());
        }
        self.renew(cost, now)
    }

    /// What is left to spend, for as long as the lease lasts.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Gives back what is left. The next call to [`spend`](Self::spend) takes anew.
    pub fn end(&mut self, now: Timestamp) {
        let left = Cost::new(core::mem::take(&mut self.left));
        if left != Cost::ZERO {
            self.lender.refund(left, self.leased_at, now);
        }
    }

    /// Takes the next batch; or as much as this call costs, if there is no whole batch left.
    #[cold]
    fn renew(&mut self, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        self.end(now);
        let batch = self.batch.max(cost);
        if self.lender.admit(batch, now).is_err() {
            return self.lender.admit(cost, now);
        }
        self.left = batch.units() - cost.units();
        self.leased_at = now;
        self.expires_at = now.plus_nanos(self.lifetime_ns);
        Ok(())
    }

    /// What the units are taken from.
    pub const fn lender(&self) -> &L {
        &self.lender
    }
}
