//! [`Table`]: one limit, a state for each key, in fixed memory.

mod claim;
mod inspect;
mod live;
mod mend;
mod seat;
mod set;
mod slot;
mod storage;

pub use inspect::{Fault, LiveKey};
pub use seat::Seat;
pub use slot::Line;
pub use storage::{Borrowed, Storage, TableError, Tally};

use crate::protocol::Protocol;
use crate::sync::AtomicU64;
use crate::{Cost, Decision, Denial, Entry, Key, Timestamp};
use live::Live;
use set::{Found, Set};
use slot::SlotCell;

/// A limit per key, for as many keys as the storage has room for: "each user at most 20 a minute".
///
/// The table is set-associative. A key may lie in any slot of its set (at most 512 slots, searched
/// from a line that the key's hash picks). A slot's head is 16 bytes, swapped as one: the key's
/// fingerprint and the algorithm's word, so a charge never lands on a slot that has passed to another
/// key. Memory of zero bits is an empty table.
///
/// # Guarantees
/// - **Bounded.** Memory is the storage's; nothing grows.
/// - **Idle equals absent.** A key whose state says "fully replenished" is as good as unknown, and its
///   slot may be taken for another key. Nothing needs to be swept.
/// - **One slot per key.** Threads that bring in the same key at once agree on one slot.
/// - **No silent reset.** When a new key finds its set full of live keys, [`WhenFull`] says what
///   happens, and the [`Tally`] counts it. By default, the new key is denied.
/// - **Isolation.** What one key does never charges another (but see [`Key`] on hash collisions).
///
/// ```
/// use tidegate_core::{Borrowed, Cost, Key, Line, Quota, Table, Tally, Timestamp, TokenBucket};
///
/// let lines: Vec<Line> = (0..Line::for_keys(1_000)).map(|_| Line::new()).collect();
/// let tally = Tally::new();
/// let bucket = TokenBucket::new(Quota::per_minute(1))?;
/// let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally))?;
///
/// let (alice, bob) = (Key::from_hash(0x9e37_79b9), Key::from_hash(0x7f4a_7c15));
/// let now = Timestamp::from_secs(1);
/// assert!(table.decide(alice, Cost::ONE, now).is_allow());
/// assert!(!table.decide(alice, Cost::ONE, now).is_allow());
/// assert!(table.decide(bob, Cost::ONE, now).is_allow());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Table<P, S> {
    protocol: P,
    storage: S,
    when_full: WhenFull,
    /// How many of the storage's lines are in use.
    whole_sets: usize,
}

/// What happens when a new key finds every slot of its set held by live keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum WhenFull {
    /// The new key is denied, with [`Cause::TableFull`](crate::Cause::TableFull). Right for budgets:
    /// no flood of keys can make a spent key fresh.
    #[default]
    Deny,
    /// The new key takes over the slot whose key is nearest to idle, which forgets what that key has
    /// spent. Right where a flood of keys must not lock newcomers out.
    TakeOver,
}

impl<P: Protocol, S: Storage> Table<P, S> {
    /// A table over the storage, which may hold a table of the same kind already.
    ///
    /// # Errors
    /// When the storage has no lines, or fewer ring words than `protocol` needs for its slots.
    pub fn new(protocol: P, storage: S) -> Result<Self, TableError> {
        storage::check(&storage, protocol.ring_words())?;
        let whole_sets = set::whole_sets(storage.lines().len());
        Ok(Self { protocol, storage, when_full: WhenFull::default(), whole_sets })
    }

    /// The same table, with another rule for a full set.
    #[must_use]
    pub fn with_when_full(self, when_full: WhenFull) -> Self {
        Self { when_full, ..self }
    }

    /// What it answers to more live keys than fit.
    #[must_use]
    pub const fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// Whether `key` may spend `cost` at `now`; charges it if so.
    ///
    /// A denial writes nothing, but for the [`Tally`] when it is for want of a slot.
    #[inline(always)]
    pub fn decide(&self, key: Key, cost: Cost, now: Timestamp) -> Decision {
        if let Some(live) = self.live_at_home(key)
            && let Some(cell) = self.live_cell(&live)
            && let Some(decision) = self.protocol.decide(&cell, live.head.word, cost, now)
        {
            return decision;
        }
        self.decide_beyond(key, cost, now)
    }

    /// The same for a key that is not in its home line.
    #[inline(never)]
    fn decide_beyond(&self, key: Key, cost: Cost, now: Timestamp) -> Decision {
        if let Some(live) = self.live_beyond(key)
            && let Some(cell) = self.live_cell(&live)
            && let Some(decision) = self.protocol.decide(&cell, live.head.word, cost, now)
        {
            return decision;
        }
        self.decide_anywhere(key, cost, now)
    }

    /// As [`decide`](Self::decide), for callers who want no numbers unless it denies: what an allowance
    /// tells is not worked out.
    ///
    /// # Errors
    /// The denial.
    #[inline(always)]
    pub fn admit(&self, key: Key, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        if let Some(live) = self.live_at_home(key)
            && let Some(cell) = self.live_cell(&live)
            && let Some(admitted) = self.protocol.admit(&cell, live.head.word, cost, now)
        {
            return admitted;
        }
        self.admit_beyond(key, cost, now)
    }

    /// The same for a key that is not in its home line.
    #[inline(never)]
    fn admit_beyond(&self, key: Key, cost: Cost, now: Timestamp) -> Result<(), Denial> {
        if let Some(live) = self.live_beyond(key)
            && let Some(cell) = self.live_cell(&live)
            && let Some(admitted) = self.protocol.admit(&cell, live.head.word, cost, now)
        {
            return admitted;
        }
        self.decide_anywhere(key, cost, now).into_result()
    }

    /// The same as a decision, wherever in its set the key is, and if it is new.
    #[inline(never)]
    fn decide_anywhere(&self, key: Key, cost: Cost, now: Timestamp) -> Decision {
        let set = self.set(key);
        // A round is repeated only when another thread has taken, finished or given up a slot.
        loop {
            match set.find() {
                Found::Live(slot) => {
                    let cell = self.cell(&set, slot);
                    if let Some(decision) = self.protocol.decide(&cell, slot.word(), cost, now) {
                        return decision;
                    }
                }
                Found::Tentative(slot) => {
                    self.finish(&set, slot, true);
                }
                Found::Absent if cost == Cost::ZERO => return self.peek_absent(&set, cost, now),
                Found::Absent => {
                    if let Some(decision) = self.bring_in(&set, cost, now) {
                        return decision;
                    }
                }
            }
        }
    }

    /// What [`decide`](Self::decide) would answer. Charges and writes nothing.
    #[inline(always)]
    pub fn peek(&self, key: Key, cost: Cost, now: Timestamp) -> Decision {
        if let Some(live) = self.live_at_home(key)
            && let Some(cell) = self.live_cell(&live)
            && let Some(decision) = self.protocol.peek(&cell, live.head.word, cost, now)
        {
            return decision;
        }
        self.peek_beyond(key, cost, now)
    }

    /// The same for a key that is not in its home line.
    #[inline(never)]
    fn peek_beyond(&self, key: Key, cost: Cost, now: Timestamp) -> Decision {
        if let Some(live) = self.live_beyond(key)
            && let Some(cell) = self.live_cell(&live)
            && let Some(decision) = self.protocol.peek(&cell, live.head.word, cost, now)
        {
            return decision;
        }
        self.peek_anywhere(key, cost, now)
    }

    #[inline(never)]
    fn peek_anywhere(&self, key: Key, cost: Cost, now: Timestamp) -> Decision {
        let set = self.set(key);
        loop {
            let slot = match set.find() {
                Found::Live(slot) => slot,
                // Its charge takes effect when it is live; so far, the key is new and has a slot.
                Found::Tentative(_) => return self.peek_new(cost, now),
                Found::Absent => return self.peek_absent(&set, cost, now),
            };
            let cell = self.cell(&set, slot);
            if let Some(decision) = self.protocol.peek(&cell, slot.word(), cost, now) {
                return decision;
            }
        }
    }

    /// Charges `cost` to `key` whether it fits or not: for what was used above a reservation.
    ///
    /// False when the key had no slot any more and there is none for it: then nothing is charged, and
    /// the tally counts it.
    pub fn charge(&self, key: Key, cost: Cost, now: Timestamp) -> bool {
        let set = self.set(key);
        loop {
            match set.find() {
                Found::Live(slot) => {
                    let cell = self.cell(&set, slot);
                    if self.protocol.charge(&cell, slot.word(), cost, now).is_some() {
                        return true;
                    }
                }
                Found::Tentative(slot) => {
                    self.finish(&set, slot, true);
                }
                Found::Absent => {
                    if let Some(Decision::Deny(_)) = self.bring_in(&set, Cost::ZERO, now) {
                        return false;
                    }
                }
            }
        }
    }

    /// Takes back `cost` of what `key` was charged at `charged_at`.
    ///
    /// What has been refilled or has expired since then is not freed twice. A key without a slot is
    /// as new, so there is nothing to take back.
    pub fn refund(&self, key: Key, cost: Cost, charged_at: Timestamp, now: Timestamp) {
        let set = self.set(key);
        while let Found::Live(slot) = set.find() {
            let cell = self.cell(&set, slot);
            let refunded = self.protocol.refund(&cell, slot.word(), cost, charged_at, now);
            if refunded.is_some() {
                return;
            }
        }
    }

    /// Frees up to `cost` of what `key` has used and what still counts, whenever it was charged: its debt
    /// first, if it has any. For people who top a key up.
    ///
    /// No more than `cost` is freed, whoever calls meanwhile: all that a key is ever admitted stays
    /// within its limit and what it was forgiven. Reservations that are open are settled as they would be
    /// without.
    pub fn forgive(&self, key: Key, cost: Cost, now: Timestamp) {
        let set = self.set(key);
        while let Found::Live(slot) = set.find() {
            let cell = self.cell(&set, slot);
            if self.protocol.forgive(&cell, slot.word(), cost, now).is_some() {
                return;
            }
        }
    }

    /// Has what a decision on `key` will look at first brought into the processor's cache.
    ///
    /// Lines that are asked for in a row come from memory at the same time. So to decide on many keys
    /// of a large table, touch a few dozen, and then decide on them.
    #[inline]
    pub fn touch(&self, key: Key) {
        self.storage.prefetch(set::home_line(self.whole_sets, key));
    }

    /// How many keys are live (not idle) at `now`. Looks at every slot.
    pub fn live_keys(&self, now: Timestamp) -> usize {
        let slots = self.storage.lines().iter().flat_map(Line::slots);
        slots
            .map(slot::load)
            .filter(|head| head.is_live() && !self.protocol.is_idle(head.word, now))
            .count()
    }

    /// How many keys the storage has slots for.
    pub fn slots(&self) -> usize {
        self.storage.lines().len() * slot::SLOTS
    }

    /// How often a set was full.
    pub fn tally(&self) -> &Tally {
        self.storage.tally()
    }

    /// Where it lies.
    pub const fn storage(&self) -> &S {
        &self.storage
    }

    /// The algorithm with its parameters.
    pub const fn protocol(&self) -> &P {
        &self.protocol
    }

    #[inline]
    fn set(&self, key: Key) -> Set<'_> {
        Set::of(self.storage.lines(), key)
    }

    /// The key's live slot, if that is in its home line.
    ///
    /// What comes after is inlined here, and apart for the other lines: where the two came together, the
    /// slot would go through memory.
    #[inline(always)]
    fn live_at_home(&self, key: Key) -> Option<Live<'_>> {
        live::find(self.storage.lines(), self.whole_sets, key)
    }

    /// The key's live slot, if it has one in another line and nobody is about to move it.
    #[inline(always)]
    fn live_beyond(&self, key: Key) -> Option<Live<'_>> {
        live::find_beyond(self.storage.lines(), self.whole_sets, key)
    }

    #[inline(always)]
    fn live_cell<'a>(&'a self, live: &Live<'a>) -> Option<SlotCell<'a>> {
        Some(SlotCell::new(live.slot, live.head.tag, self.ring(live.index)?))
    }

    /// The ring words of a slot.
    #[inline(always)]
    fn ring(&self, index: usize) -> Option<&[AtomicU64]> {
        match self.protocol.ring_words() {
            0 => Some(&[]),
            words => self.storage.ring().get(index * words..)?.get(..words),
        }
    }

    /// The slot as a cell that is bound to the key, and to the state, that its head has now.
    #[inline]
    fn cell<'a>(&'a self, set: &Set<'a>, slot: set::Seen) -> SlotCell<'a> {
        // The storage was found to have all ring words when the table was made.
        let ring = self.ring(set.absolute(slot.index)).unwrap_or(&[]);
        SlotCell::new(set.slot(slot.index), slot.head.tag, ring)
    }

    /// The answer for a key that has no slot.
    fn peek_absent(&self, set: &Set<'_>, cost: Cost, now: Timestamp) -> Decision {
        match self.full(set, now) {
            Some(denial) if self.when_full == WhenFull::Deny => match self.peek_new(cost, now) {
                Decision::Allow(_) => Decision::Deny(denial),
                denied @ Decision::Deny(_) => denied,
            },
            _ => self.peek_new(cost, now),
        }
    }

    /// The answer for a key that is new, where there is a slot for it.
    fn peek_new(&self, cost: Cost, now: Timestamp) -> Decision {
        match self.protocol.enter(0, cost, now) {
            Entry::Deny(denial) => Decision::Deny(denial),
            Entry::Admit { allowance, .. } => Decision::Allow(allowance),
        }
    }

    /// The denial for a new key when no slot of its set is free, or may be given up soon.
    #[cold]
    fn full(&self, set: &Set<'_>, now: Timestamp) -> Option<Denial> {
        match set.place(&self.protocol, now) {
            set::Place::Free(_) | set::Place::There | set::Place::Full { claim: Some(_), .. } => {
                None
            }
            set::Place::Full { nearest, .. } => Some(self.table_full(nearest, now)),
        }
    }

    fn table_full(&self, nearest: Option<set::Seen>, now: Timestamp) -> Denial {
        let idle_at = nearest.map_or(now, |slot| self.protocol.idle_at(slot.word()));
        Denial::table_full(idle_at.nanos_since(now).max(1))
    }
}
