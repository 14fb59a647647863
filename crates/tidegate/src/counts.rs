//! [`Counts`]: counters by key that expire, for limiters of other kinds.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use ahash::RandomState;
use tidegate_core::{
    Algorithm, Allowance, Borrowed, Cost, Decision, Denial, Key, Step, Storage, Table, Timestamp,
};

use crate::clock::{Clock, SystemClock};
use crate::memory::Memory;

/// Counters by key, each of which begins with its first use and expires a given time later: what other
/// limiters keep in a cache or a database, such as those of Python's `limits`.
///
/// They are in a table as those of a [`KeyedLimiter`](crate::KeyedLimiter) are: lock-free, in fixed
/// memory, and in a file that processes share if they come from
/// [`SharedFile::counts`](crate::SharedFile::counts).
///
/// # Guarantees
/// - What is added is never lost, and counts until the counter expires: that is up to 62.5 ms (a
///   sixteenth of a second) late, and never early.
/// - [`add_within`](Self::add_within) never passes its limit, whatever the threads do.
/// - A counter that would pass [`MOST`](Self::MOST) stays there: it tells [`u64::MAX`], which is above
///   any limit.
/// - A new key that finds no room is told so, and counts nowhere: take that for a denial.
///
/// ```
/// use std::time::Duration;
/// use tidegate::Counts;
///
/// let counts: Counts<str> = Counts::new(1_000);
/// let minute = Duration::from_secs(60);
/// assert_eq!(counts.add("alice", 2, minute), Ok(2));
/// assert_eq!(counts.add("alice", 3, minute), Ok(5));
/// assert_eq!(counts.add_within("alice", 1, 5, minute), Err(5));
/// counts.clear("alice");
/// assert_eq!(counts.count("alice").map(|(count, _)| count), None);
/// ```
pub struct Counts<K: ?Sized, C = SystemClock> {
    memory: Memory,
    hasher: RandomState,
    clock: C,
    key: PhantomData<fn(&K)>,
}

impl<K: Hash + ?Sized> Counts<K> {
    /// Counters on the system's clock, with room for so many keys at a time.
    #[must_use]
    pub fn new(keys: usize) -> Self {
        let memory = Memory::for_keys(keys, 0);
        Self::in_memory(memory, RandomState::new(), SystemClock::new())
    }

    /// As [`new`](Self::new), where a lack of memory is no bug.
    ///
    /// # Errors
    /// When the system has no memory for so many keys.
    pub fn try_new(keys: usize) -> io::Result<Self> {
        let memory = Memory::try_for_keys(keys, 0)?;
        Ok(Self::in_memory(memory, RandomState::new(), SystemClock::new()))
    }
}

impl<K: Hash + ?Sized, C: Clock> Counts<K, C> {
    /// The most that a counter counts: 2^28 - 1, about 268 million.
    pub const MOST: u64 = COUNT_MASK;

    pub(crate) fn in_memory(memory: Memory, hasher: RandomState, clock: C) -> Self {
        Self { memory, hasher, clock, key: PhantomData }
    }

    /// The same on another clock.
    #[must_use]
    pub fn with_clock<D: Clock>(self, clock: D) -> Counts<K, D> {
        Counts { memory: self.memory, hasher: self.hasher, clock, key: PhantomData }
    }

    /// Adds to the key's counter, which lives so long from now on if it is new. The count after that.
    ///
    /// # Errors
    /// When the key is new and there is no room for it. What it holds is [`u64::MAX`].
    pub fn add<Q: Hash + ?Sized>(
        &self,
        key: &Q,
        amount: u64,
        lifetime: Duration,
    ) -> Result<u64, u64>
    where
        K: Borrow<Q>,
    {
        self.decide(key, amount, Counter { most: None, lifetime })
    }

    /// As [`add`](Self::add), if the count is at most `most` after that.
    ///
    /// # Errors
    /// The count as it is, when it would be more, and [`u64::MAX`] when there is no room for a new key.
    pub fn add_within<Q: Hash + ?Sized>(
        &self,
        key: &Q,
        amount: u64,
        most: u64,
        lifetime: Duration,
    ) -> Result<u64, u64>
    where
        K: Borrow<Q>,
    {
        self.decide(key, amount, Counter { most: Some(most.min(COUNT_MASK)), lifetime })
    }

    /// The key's count, and when it expires; `None` when it has none, or has expired.
    pub fn count<Q: Hash + ?Sized>(&self, key: &Q) -> Option<(u64, Timestamp)>
    where
        K: Borrow<Q>,
    {
        let now = self.clock.now();
        let look = Counter { most: None, lifetime: Duration::ZERO };
        let decision = self.table(look).peek(self.key(key), Cost::ZERO, now);
        match (count_of(decision), decision.reset_after()) {
            (_, Duration::ZERO) => None,
            (count, left) => Some((count, now + left)),
        }
    }

    /// Forgets the key's count.
    pub fn clear<Q: Hash + ?Sized>(&self, key: &Q)
    where
        K: Borrow<Q>,
    {
        let now = self.clock.now();
        let forget = Counter { most: None, lifetime: Duration::ZERO };
        self.table(forget).refund(self.key(key), Cost::new(u64::MAX), now, now);
    }

    /// How many keys have a count. Looks at every slot.
    #[must_use]
    pub fn len(&self) -> usize {
        let look = Counter { most: None, lifetime: Duration::ZERO };
        self.table(look).live_keys(self.clock.now())
    }

    /// Whether no key has a count. Looks at every slot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its clock.
    pub const fn clock(&self) -> &C {
        &self.clock
    }

    fn decide<Q: Hash + ?Sized>(&self, key: &Q, amount: u64, counter: Counter) -> Result<u64, u64>
    where
        K: Borrow<Q>,
    {
        let table = self.table(counter);
        let decision = table.decide(self.key(key), Cost::new(amount), self.clock.now());
        match decision {
            Decision::Allow(_) => Ok(count_of(decision)),
            Decision::Deny(_) => Err(count_of(decision)),
        }
    }

    fn key<Q: Hash + ?Sized>(&self, key: &Q) -> Key
    where
        K: Borrow<Q>,
    {
        Key::from_hash(self.hasher.hash_one(key))
    }

    /// The table with what this call asks of it. How words are laid out is the same for all calls.
    fn table(&self, counter: Counter) -> Table<Counter, Borrowed<'_>> {
        let memory = &self.memory;
        let Ok(table) = Table::new(counter, Borrowed::new(memory.lines(), &[], memory.tally()))
        else {
            unreachable!("the memory has lines, and counters need no ring");
        };
        table
    }
}

/// Makes counters sound after the machine has stopped: see [`Table::mend`].
pub(crate) fn mend(memory: &Memory, now: Timestamp) {
    let look = Counter { most: None, lifetime: Duration::ZERO };
    if let Ok(table) = Table::new(look, Borrowed::new(memory.lines(), &[], memory.tally())) {
        table.mend(now);
    }
}

impl<K: ?Sized, C: fmt::Debug> fmt::Debug for Counts<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// A count that begins with its first use, in one word:
///
/// | bits | field |
/// |---|---|
/// | 36, high | when it expires, in sixteenths of a second since the origin, rounded up |
/// | 28, low | the count, at most all ones |
///
/// The word is idle, and as good as 0, from the expiry on. Of all timestamps, the last is in sixteenth
/// 73,786,976,294, which is above 2^36: those after 2106 are told as the last that fits, and then
/// counters no longer expire.
#[derive(Debug, Clone, Copy)]
struct Counter {
    /// What the count may not pass; `None` when it counts whatever comes.
    most: Option<u64>,
    lifetime: Duration,
}

const COUNT_BITS: u32 = 28;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const TICK_NS: u64 = 1_000_000_000 / 16;
const LAST_TICK: u64 = (1 << 36) - 1;

impl Counter {
    /// The count, and the expiry's tick: those of a new counter if the word's has expired.
    fn read(&self, word: u64, now: Timestamp) -> (u64, u64) {
        match self.idle_at(word) > now {
            true => (word & COUNT_MASK, word >> COUNT_BITS),
            false => (0, (now + self.lifetime).as_nanos().div_ceil(TICK_NS).min(LAST_TICK)),
        }
    }

    /// What is told: the count in the place of what remains, and the time until it expires.
    fn told(&self, count: u64, tick: u64, now: Timestamp) -> (u64, u64) {
        let count = if count == COUNT_MASK { u64::MAX } else { count };
        (count, (tick * TICK_NS).saturating_sub(now.as_nanos()))
    }
}

/// The count that a decision tells.
fn count_of(decision: Decision) -> u64 {
    match decision {
        Decision::Deny(denial) if denial.cause() == tidegate_core::Cause::TableFull => u64::MAX,
        _ => decision.remaining(),
    }
}

impl Algorithm for Counter {
    fn step(&self, word: u64, cost: Cost, now: Timestamp) -> Step {
        let (count, tick) = self.read(word, now);
        let next = count.saturating_add(cost.units()).min(COUNT_MASK);
        let is_over = |most: u64| count.saturating_add(cost.units()) > most;
        if self.most.is_some_and(is_over) {
            let (count, expires_ns) = self.told(count, tick, now);
            return Step::Deny(Denial::exhausted(count, expires_ns, expires_ns));
        }
        if cost == Cost::ZERO {
            let expires_ns = if count == 0 { 0 } else { self.told(count, tick, now).1 };
            return Step::Allow {
                word,
                allowance: Allowance::new(self.told(count, tick, now).0, expires_ns),
            };
        }
        let (told, expires_ns) = self.told(next, tick, now);
        Step::Allow { word: tick << COUNT_BITS | next, allowance: Allowance::new(told, expires_ns) }
    }

    fn charge(&self, word: u64, cost: Cost, now: Timestamp) -> u64 {
        match (Self { most: None, ..*self }).step(word, cost, now) {
            Step::Allow { word, .. } => word,
            Step::Deny(_) => word,
        }
    }

    fn refund(&self, word: u64, cost: Cost, _: Timestamp, now: Timestamp) -> u64 {
        let (count, tick) = self.read(word, now);
        match count.saturating_sub(cost.units()) {
            0 => 0,
            rest => tick << COUNT_BITS | rest,
        }
    }

    fn idle_at(&self, word: u64) -> Timestamp {
        Timestamp::from_nanos((word >> COUNT_BITS) * TICK_NS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::FakeClock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(now: Timestamp) -> (std::sync::Arc<FakeClock>, Counts<str, std::sync::Arc<FakeClock>>) {
        let clock = std::sync::Arc::new(FakeClock::at(now));
        (clock.clone(), Counts::new(100).with_clock(clock))
    }

    #[derive(Debug, Clone)]
    enum Call {
        Add(u64, u64),
        AddWithin(u64, u64, u64),
        Clear,
        Wait(u64),
    }

    fn call() -> impl Strategy<Value = Call> {
        let (amount, lifetime) = (0..200_u64, 1..3_000_u64);
        prop_oneof![
            (amount.clone(), lifetime.clone()).prop_map(|(a, l)| Call::Add(a, l)),
            (amount, 0..500_u64, lifetime).prop_map(|(a, m, l)| Call::AddWithin(a, m, l)),
            Just(Call::Clear),
            (0..2_000_u64).prop_map(Call::Wait),
        ]
    }

    proptest! {
        /// Beside a count and a time of expiry, as a dictionary has them.
        #[test]
        fn counts_as_a_dictionary_with_expiry_does(calls in prop::collection::vec(call(), 1..60)) {
            let (clock, counts) = at(Timestamp::from_secs(1_700_000_000));
            let tick = Duration::from_nanos(TICK_NS);
            let (mut count, mut expires) = (0_u64, Timestamp::ZERO);
            for call in calls {
                let now = clock.now();
                let known = if expires > now { count } else { 0 };
                let mut charge = |amount: u64, lifetime: u64| {
                    if known == 0 && amount > 0 {
                        let exact = (now + Duration::from_millis(lifetime)).as_nanos();
                        expires = Timestamp::from_nanos(exact.div_ceil(TICK_NS) * TICK_NS);
                        assert!(expires.since(Timestamp::from_nanos(exact)) < tick);
                    }
                    count = known + amount;
                    count
                };
                match call {
                    Call::Add(amount, lifetime) => {
                        let told = counts.add("a", amount, Duration::from_millis(lifetime));
                        prop_assert_eq!(told, Ok(charge(amount, lifetime)));
                    }
                    Call::AddWithin(amount, most, lifetime) => {
                        let told = counts.add_within("a", amount, most, Duration::from_millis(lifetime));
                        if known + amount > most {
                            prop_assert_eq!(told, Err(known));
                        } else {
                            prop_assert_eq!(told, Ok(charge(amount, lifetime)));
                        }
                    }
                    Call::Clear => {
                        counts.clear("a");
                        count = 0;
                    }
                    Call::Wait(millis) => clock.advance(Duration::from_millis(millis)),
                }
                let known = if expires > clock.now() { count } else { 0 };
                let wanted = (known > 0).then_some((known, expires));
                prop_assert_eq!(counts.count("a"), wanted);
            }
        }
    }

    #[test]
    fn a_counter_is_over_at_its_expiry_however_much_it_counts() {
        for amount in [1, Counts::<str>::MOST, Counts::<str>::MOST + 1, 5 << 28, u64::MAX] {
            let start = Timestamp::from_secs(1_700_000_000);
            let (clock, counts) = at(start);
            assert!(counts.add("alice", amount, MINUTE).is_ok());
            clock.set(Timestamp::from_nanos((start + MINUTE).as_nanos() - 1));
            assert_eq!(counts.count("alice").map(|(_, until)| until), Some(start + MINUTE));
            clock.set(start + MINUTE);
            assert_eq!(counts.count("alice"), None, "{amount}");
            assert_eq!(counts.add("alice", 2, MINUTE), Ok(2), "{amount}");
        }
    }

    #[test]
    fn a_counter_that_is_full_is_above_any_limit() {
        let (_, counts) = at(Timestamp::from_secs(5));
        let most = Counts::<str>::MOST;
        assert_eq!(counts.add("a", most - 1, MINUTE), Ok(most - 1));
        assert_eq!(counts.add("a", 1, MINUTE), Ok(u64::MAX));
        assert_eq!(counts.add("a", u64::MAX, MINUTE), Ok(u64::MAX));
        assert_eq!(counts.add_within("a", 1, u64::MAX, MINUTE), Err(u64::MAX));
        assert_eq!(counts.count("a").map(|(count, _)| count), Some(u64::MAX));
    }

    #[test]
    fn a_key_without_room_is_told_so_and_counts_nowhere() {
        let clock = FakeClock::at(Timestamp::from_secs(5));
        let counts = Counts::<u64>::new(1).with_clock(&clock);
        let added = (0..10_000).filter(|key| counts.add(key, 1, MINUTE).is_ok()).count();
        assert_eq!(added, counts.len());
        assert!(added < 10_000);
        assert!((0..10_000).any(|key| counts.add_within(&key, 1, 9, MINUTE) == Err(u64::MAX)));
        clock.advance(MINUTE + Duration::from_millis(63));
        assert!(counts.is_empty());
        assert_eq!(counts.add(&77, 1, MINUTE), Ok(1));
    }

    #[test]
    fn threads_that_add_within_a_limit_do_not_pass_it() {
        let counts = Counts::<str>::new(100);
        let added = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        if counts.add_within("a", 3, 1_000, MINUTE).is_ok() {
                            added.fetch_add(3, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(added.into_inner(), 999);
    }
}
