//! [`Limiter`]: one limit, one state.

use crate::protocol::{Cell, Protocol, Swap};
use crate::sync::{AtomicU64, Ordering, const_unless_model};
use crate::{Algorithm, Cost, Decision, Denial, Timestamp};
#[cfg(not(any(loom, shuttle)))]
use crate::{SlidingWindowCounter, SlidingWindowLog};

/// One limit with its one state, for as many threads as like: "this process makes at most 50 calls a
/// second".
///
/// Lock-free, no allocation, and it can be a `static`. For a limit per user or per address, see
/// [`Table`](crate::Table).
///
/// `R` holds the ring words of the sliding windows; other algorithms need none.
///
/// ```
/// use tidegate_core::{Cost, Limiter, Quota, Timestamp, TokenBucket};
///
/// static UPSTREAM: Limiter<TokenBucket> = Limiter::new(match TokenBucket::new(Quota::per_second(50)) {
///     Ok(bucket) => bucket,
///     Err(_) => panic!("not a quota"),
/// });
///
/// let now = Timestamp::from_secs(3);
/// let admitted = (0..100).filter(|_| UPSTREAM.decide(Cost::ONE, now).is_allow()).count();
/// assert_eq!(admitted, 50);
/// ```
#[derive(Debug)]
pub struct Limiter<P, R = [AtomicU64; 0]> {
    protocol: P,
    head: AtomicU64,
    ring: R,
}

impl<A: Algorithm> Limiter<A> {
    const_unless_model! {
        /// A fresh limiter for an algorithm of one word.
        #[must_use]
        pub fn new(algorithm: A) -> Self {
            Self { protocol: algorithm, head: AtomicU64::new(0), ring: [] }
        }
    }
}

#[cfg(not(any(loom, shuttle)))]
impl<const WORDS: usize> Limiter<SlidingWindowCounter, [AtomicU64; WORDS]> {
    /// A fresh sliding window counter; `WORDS` is the number of epochs plus one.
    ///
    /// # Panics
    /// When it is not; in a `static`, at compile time.
    #[must_use]
    pub const fn counter(counter: SlidingWindowCounter) -> Self {
        assert!(WORDS == counter.ring_len(), "a counter needs one ring word per epoch, plus one");
        Self {
            protocol: counter,
            head: AtomicU64::new(0),
            ring: [const { AtomicU64::new(0) }; WORDS],
        }
    }
}

#[cfg(not(any(loom, shuttle)))]
impl<const WORDS: usize> Limiter<SlidingWindowLog, [AtomicU64; WORDS]> {
    /// A fresh sliding window log; `WORDS` is its limit plus one.
    ///
    /// # Panics
    /// When it is not; in a `static`, at compile time.
    #[must_use]
    pub const fn log(log: SlidingWindowLog) -> Self {
        assert!(
            WORDS == log.ring_len(),
            "a log needs one ring word per unit of its limit, plus one"
        );
        Self { protocol: log, head: AtomicU64::new(0), ring: [const { AtomicU64::new(0) }; WORDS] }
    }
}

impl<P: Protocol, R: AsRef<[AtomicU64]>> Limiter<P, R> {
    /// A fresh limiter with its ring words in `ring`: an array, a boxed slice, a borrowed one.
    ///
    /// # Panics
    /// When the ring does not have [`Protocol::ring_words`] words.
    #[must_use]
    pub fn with_ring(protocol: P, ring: R) -> Self {
        assert_eq!(ring.as_ref().len(), protocol.ring_words(), "ring words of a limiter");
        Self { protocol, head: AtomicU64::new(0), ring }
    }

    /// Whether `cost` may be spent at `now`; charges it if so.
    ///
    /// A denial writes nothing.
    #[inline(always)]
    pub fn decide(&self, cost: Cost, now: Timestamp) -> Decision {
        loop {
            let word = self.head.load(Ordering::Acquire);
            if let Some(decision) = self.protocol.decide(self, word, cost, now) {
                return decision;
            }
        }
    }

    /// As [`decide`](Self::decide), for callers who want no numbers unless it denies: what an allowance
    /// tells is not worked out.
    ///
    /// # Errors
    /// The denial.
    #[inline]
    pub fn admit(&self, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        loop {
            // Acquire: pairs with the release of the swap that this head came from.
            let word = self.head.load(Ordering::Acquire);
            if let Some(admitted) = self.protocol.admit(self, word, cost, now) {
                return admitted;
            }
        }
    }

    /// What [`decide`](Self::decide) would answer. Charges nothing.
    #[inline]
    pub fn peek(&self, cost: Cost, now: Timestamp) -> Decision {
        loop {
            let word = self.head.load(Ordering::Acquire);
            if let Some(decision) = self.protocol.peek(self, word, cost, now) {
                return decision;
            }
        }
    }

    /// Charges `cost` whether it fits or not: for what was used above a reservation.
    #[inline]
    pub fn charge(&self, cost: Cost, now: Timestamp) {
        let word = self.head.load(Ordering::Acquire);
        let _ = self.protocol.charge(self, word, cost, now);
    }

    /// Takes back `cost` of what was charged at `charged_at`.
    ///
    /// What has been refilled or has expired since then is not freed twice.
    #[inline]
    pub fn refund(&self, cost: Cost, charged_at: Timestamp, now: Timestamp) {
        let word = self.head.load(Ordering::Acquire);
        let _ = self.protocol.refund(self, word, cost, charged_at, now);
    }

    /// Frees up to `cost` of what was used and still counts, whenever it was charged: debt first, if there
    /// is any. No more than `cost` is freed, whoever calls meanwhile.
    pub fn forgive(&self, cost: Cost, now: Timestamp) {
        let word = self.head.load(Ordering::Acquire);
        let _ = self.protocol.forgive(self, word, cost, now);
    }

    /// The algorithm with its parameters.
    #[must_use]
    pub const fn protocol(&self) -> &P {
        &self.protocol
    }
}

/// A lone cell is never gone.
///
/// Orderings: a head that opens an epoch or passes ring entries publishes them (release), and who
/// reads it sees them (acquire). Algorithms of one word publish nothing, and would do with relaxed.
/// A model fails without each of them, but for the acquire of a swap that succeeds: the word that it replaces
/// was loaded with acquire before. It stays, so that a protocol need not know.
impl<P: Protocol, R: AsRef<[AtomicU64]>> Cell for Limiter<P, R> {
    #[inline]
    fn load(&self) -> Option<u64> {
        Some(self.head.load(Ordering::Acquire))
    }

    #[inline(always)]
    fn swap(&self, from: u64, to: u64) -> Swap {
        match self.head.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Swap::Done,
            Err(current) => Swap::Changed(current),
        }
    }

    #[inline]
    fn ring(&self) -> &[AtomicU64] {
        self.ring.as_ref()
    }
}
