//! [`KeyedLimiter`]: one limit per key, with its clock.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use ahash::RandomState;
use tidegate_core::{Cost, Decision, Denial, Key, Protocol, Table, Timestamp, WhenFull};

use crate::clock::{Clock, SystemClock};
use crate::memory::Memory;
use crate::reservation::{Ledger, Reservation, book_in};

/// One limit per key: "each user at most 20 a minute".
///
/// The key is anything that hashes, and is not stored: the table keeps a fingerprint, from a hash
/// with a random secret of this limiter. Memory is fixed when the limiter is made. What happens when
/// more keys are live than fit, [`WhenFull`] says; by default, newcomers are denied. For one that
/// processes share, see [`SharedFile`](crate::SharedFile).
///
/// ```
/// use tidegate::{Cost, KeyedLimiter, Quota, SlidingWindowLog};
///
/// let limit = SlidingWindowLog::new(Quota::per_minute(20))?;
/// let users: KeyedLimiter<str, _> = KeyedLimiter::new(limit, 10_000);
/// assert!((0..20).all(|_| users.decide("alice", Cost::ONE).is_allow()));
/// assert!(!users.decide("alice", Cost::ONE).is_allow());
/// assert!(users.decide("bob", Cost::ONE).is_allow());
/// # Ok::<(), tidegate::QuotaError>(())
/// ```
pub struct KeyedLimiter<K: ?Sized, P, C = SystemClock> {
    table: Table<P, Memory>,
    hasher: RandomState,
    clock: C,
    key: PhantomData<fn(&K)>,
}

/// Keys whose lines are fetched at once: more than that, and processors do not keep track of them.
const BATCH: usize = 32;

impl<K: Hash + ?Sized, P: Protocol> KeyedLimiter<K, P> {
    /// A fresh limiter on the system's clock, with room for `keys` live keys.
    #[must_use]
    pub fn new(protocol: P, keys: usize) -> Self {
        let memory = Memory::for_keys(keys, protocol.ring_words());
        Self::in_memory(protocol, memory, RandomState::new(), SystemClock::new())
    }

    /// As [`new`](Self::new), where a lack of memory is no bug.
    ///
    /// # Errors
    /// When the system has no memory for so many keys.
    pub fn try_new(protocol: P, keys: usize) -> io::Result<Self> {
        let memory = Memory::try_for_keys(keys, protocol.ring_words())?;
        Ok(Self::in_memory(protocol, memory, RandomState::new(), SystemClock::new()))
    }

    /// As [`try_new`](Self::try_new), in memory that is taken only as units are spent: for a
    /// [log](tidegate_core::SlidingWindowLog) of many units, of which most keys spend few. It takes up to 8
    /// bytes for each unit that a key has ever had spent at a time, and never more than a table that was
    /// made whole.
    ///
    /// # Errors
    /// When the system has no memory for the slots, or no addresses for the rest.
    pub fn sparse(protocol: P, keys: usize) -> io::Result<Self> {
        let memory = Memory::sparse_for_keys(keys, protocol.ring_words())?;
        Ok(Self::in_memory(protocol, memory, RandomState::new(), SystemClock::new()))
    }
}

impl<K: Hash + ?Sized, P: Protocol, C: Clock> KeyedLimiter<K, P, C> {
    /// The limiter whose state is in this memory, which was made for its protocol.
    pub(crate) fn in_memory(protocol: P, memory: Memory, hasher: RandomState, clock: C) -> Self {
        let Ok(table) = Table::new(protocol, memory) else {
            unreachable!("the memory was made for this protocol");
        };
        Self { table, hasher, clock, key: PhantomData }
    }

    /// The same limiter on another clock.
    #[must_use]
    pub fn with_clock<D: Clock>(self, clock: D) -> KeyedLimiter<K, P, D> {
        KeyedLimiter { table: self.table, hasher: self.hasher, clock, key: PhantomData }
    }

    /// The same limiter, with another rule for more live keys than fit.
    #[must_use]
    pub fn with_when_full(self, when_full: WhenFull) -> Self {
        Self { table: self.table.with_when_full(when_full), ..self }
    }

    /// Whether `key` may spend `cost` now; charges it if so.
    #[inline]
    pub fn decide<Q: Hash + ?Sized>(&self, key: &Q, cost: Cost) -> Decision
    where
        K: Borrow<Q>,
    {
        self.table.decide(self.key(key), cost, self.clock.now())
    }

    /// As [`decide`](Self::decide), for callers who want no numbers unless it denies: what an allowance
    /// tells is not worked out.
    ///
    /// ```
    /// use tidegate::{Cost, Denial, KeyedLimiter, Quota, SlidingWindowLog};
    ///
    /// fn log_in(logins: &KeyedLimiter<str, SlidingWindowLog>, user: &str) -> Result<(), Denial> {
    ///     logins.admit(user, Cost::ONE)?;
    ///     Ok(()) // and so on
    /// }
    /// let logins = KeyedLimiter::new(SlidingWindowLog::new(Quota::per_minute(1))?, 1_000);
    /// assert!(log_in(&logins, "alice").is_ok());
    /// assert!(log_in(&logins, "alice").is_err());
    /// # Ok::<(), tidegate::QuotaError>(())
    /// ```
    ///
    /// # Errors
    /// The denial.
    #[inline]
    pub fn admit<Q: Hash + ?Sized>(&self, key: &Q, cost: Cost) -> Result<(), Denial>
    where
        K: Borrow<Q>,
    {
        self.table.admit(self.key(key), cost, self.clock.now())
    }

    /// Decides on each of the keys in their order, for the same cost at the same time, and gives
    /// `each` the key's index and the decision.
    ///
    /// In a large table that is several times quicker than one call after the other: what the keys
    /// need comes from memory at the same time. The clock is read once.
    ///
    /// ```
    /// use tidegate::{Cost, KeyedLimiter, Quota, TokenBucket};
    ///
    /// let limit = TokenBucket::new(Quota::per_second(1))?;
    /// let limiter: KeyedLimiter<u64, _> = KeyedLimiter::new(limit, 1_000);
    /// let mut admitted = Vec::new();
    /// limiter.decide_each(&[7, 8, 7], Cost::ONE, |index, decision| {
    ///     if decision.is_allow() {
    ///         admitted.push(index);
    ///     }
    /// });
    /// assert_eq!(admitted, [0, 1]);
    /// # Ok::<(), tidegate::QuotaError>(())
    /// ```
    #[inline]
    pub fn decide_each<Q: Hash>(
        &self,
        keys: &[Q],
        cost: Cost,
        mut each: impl FnMut(usize, Decision),
    ) where
        K: Borrow<Q>,
    {
        let now = self.clock.now();
        let mut hashed = [Key::from_hash(0); BATCH];
        for (batch, keys) in keys.chunks(BATCH).enumerate() {
            for (hashed, key) in hashed.iter_mut().zip(keys) {
                *hashed = self.key(key);
                self.table.touch(*hashed);
            }
            for (index, key) in hashed.iter().take(keys.len()).enumerate() {
                each(batch * BATCH + index, self.table.decide(*key, cost, now));
            }
        }
    }

    /// What [`decide`](Self::decide) would answer. Charges nothing.
    #[inline]
    pub fn peek<Q: Hash + ?Sized>(&self, key: &Q, cost: Cost) -> Decision
    where
        K: Borrow<Q>,
    {
        self.table.peek(self.key(key), cost, self.clock.now())
    }

    /// Reserves an estimate for `key`, to be settled later.
    ///
    /// # Errors
    /// The denial, when the estimate does not fit.
    pub fn reserve<Q: Hash + ?Sized>(
        &self,
        key: &Q,
        estimate: Cost,
    ) -> Result<Reservation<Account<&Self>>, Denial>
    where
        K: Borrow<Q>,
    {
        Self::reserve_in(self, key, estimate)
    }

    /// As [`reserve`](Self::reserve), for a reservation that goes where no borrow can: into a task, or
    /// another language.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use tidegate::{Cost, FixedWindow, KeyedLimiter, Quota};
    ///
    /// let budget = FixedWindow::new(Quota::per_day(10_000))?;
    /// let budget: Arc<KeyedLimiter<str, _>> = Arc::new(KeyedLimiter::new(budget, 1_000));
    /// let reservation = budget.reserve_owned("alice", Cost::new(4_000)).expect("fits");
    /// let call = std::thread::spawn(move || reservation.settle(Cost::new(1_500)));
    /// call.join().expect("no panic");
    /// assert_eq!(budget.peek("alice", Cost::ZERO).remaining(), 8_500);
    /// # Ok::<(), tidegate::QuotaError>(())
    /// ```
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_owned<Q: Hash + ?Sized>(
        self: &Arc<Self>,
        key: &Q,
        estimate: Cost,
    ) -> Result<Reservation<Account<Arc<Self>>>, Denial>
    where
        K: Borrow<Q>,
    {
        Self::reserve_in(self.clone(), key, estimate)
    }

    fn reserve_in<Q: Hash + ?Sized, L>(
        limiter: L,
        key: &Q,
        estimate: Cost,
    ) -> Result<Reservation<Account<L>>, Denial>
    where
        K: Borrow<Q>,
        L: Deref<Target = Self>,
    {
        let (key, now) = (limiter.key(key), limiter.clock.now());
        limiter.table.admit(key, estimate, now)?;
        Ok(Reservation::new(Account { limiter, key }, estimate, now))
    }

    /// The key as the table has it.
    #[inline]
    pub fn key<Q: Hash + ?Sized>(&self, key: &Q) -> Key
    where
        K: Borrow<Q>,
    {
        Key::from_hash(self.hasher.hash_one(key))
    }

    /// Its clock.
    pub const fn clock(&self) -> &C {
        &self.clock
    }

    /// The table, for calls that share one reading of the clock or one hash of the key.
    pub const fn table(&self) -> &Table<P, Memory> {
        &self.table
    }
}

impl<K: ?Sized, P: fmt::Debug, C: fmt::Debug> fmt::Debug for KeyedLimiter<K, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the hasher: its secret is what keeps callers from aiming at each other's slots.
        let table = format_args!("{} bytes", size_of_val(&self.table));
        f.debug_struct("KeyedLimiter").field("table", &table).field("clock", &self.clock).finish()
    }
}

/// A key's account with a [`KeyedLimiter`], which `L` refers to.
#[derive(Debug)]
pub struct Account<L> {
    limiter: L,
    key: Key,
}

impl<K, P, C, L> Ledger for Account<L>
where
    K: Hash + ?Sized,
    P: Protocol,
    C: Clock,
    L: Deref<Target = KeyedLimiter<K, P, C>>,
{
    fn settle(&self, reserved: Cost, used: Cost, charged_at: Timestamp) {
        let KeyedLimiter { table, clock, .. } = &*self.limiter;
        book_in(table, self.key, reserved, used, (charged_at, clock.now()));
    }
}
