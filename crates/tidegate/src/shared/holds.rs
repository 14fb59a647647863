//! [`SharedHolds`]: reservations whose charge returns when their process dies.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tidegate_core::{
    AtomicU64, Cost, Decision, Denial, Held, Hold, HoldId, Holds, Key, Protocol, Storage, Table,
    Timestamp,
};

use super::clock::SharedClock;
use crate::clock::Clock;
use crate::keyed::KeyedLimiter;
use crate::limit::Limit;
use crate::pages::Pages;
use crate::reservation::{Ledger, Reservation, book_in};

/// A limiter in a [`SharedFile`](crate::SharedFile) whose reservations expire: what a process had
/// reserved when it died comes back.
///
/// A reservation says how long the call behind it may take. If it is not settled by then, its process is
/// taken for dead, and its charge is given back: within [`LOOK_EVERY`](Self::LOOK_EVERY) when a
/// reservation of anybody is denied for lack of it, or when [`return_expired`](Self::return_expired) is
/// called. Who settles later after all, since the call took longer, is charged what was used: each
/// reservation counts once, whatever happens.
///
/// # Guarantees
/// - **Once.** A charge is given back by whoever settles it, or after its expiry, and never by both.
/// - **Toward denial.** A process that dies within the microsecond between a charge and the note of it,
///   or between taking a note and giving back, leaves the charge in place, as one without an expiry does.
/// - **Bounded.** There is a record for each of [`RECORDS`](Self::RECORDS) reservations at a time.
///   Beyond them, reservations are made without an expiry.
/// - **After a power failure** or a reboot, nothing is given back: whether the charges had been written
///   is not known.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{Cost, FakeClock, Limit, SharedFile};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("limits");
/// let file = SharedFile::open(&path)?;
/// let limit = Limit::fixed_window("10000 per day".parse()?, None)?;
/// let clock = FakeClock::default();
/// let budgets = file.holds::<str>("budgets", limit, 10_000)?.with_clock(&clock);
///
/// let reservation = budgets.reserve("alice", Cost::new(9_000), Duration::from_secs(600)).expect("fits");
/// std::mem::forget(reservation); // as if the process had died
/// assert!(budgets.reserve("alice", Cost::new(9_000), Duration::from_secs(600)).is_err());
///
/// clock.advance(Duration::from_secs(600));
/// let reservation = budgets.reserve("alice", Cost::new(9_000), Duration::from_secs(600)).expect("again");
/// reservation.settle(Cost::new(1_500));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedHolds<K: ?Sized, C = SharedClock> {
    limiter: KeyedLimiter<K, Limit, C>,
    notes: Arc<Notes>,
}

impl<K: Hash + ?Sized> SharedHolds<K> {
    pub(super) fn new(limiter: KeyedLimiter<K, Limit, SharedClock>, notes: Arc<Notes>) -> Self {
        Self { limiter, notes }
    }
}

impl<K: Hash + ?Sized, C: Clock> SharedHolds<K, C> {
    /// The reservations that can have an expiry at a time.
    pub const RECORDS: usize = Notes::RECORDS;

    /// How often denied reservations look for holds that have expired.
    pub const LOOK_EVERY: Duration = Notes::LOOK_EVERY;

    /// The same on another clock.
    #[must_use]
    pub fn with_clock<D: Clock>(self, clock: D) -> SharedHolds<K, D> {
        SharedHolds { limiter: self.limiter.with_clock(clock), notes: self.notes }
    }

    /// Reserves an estimate for `key`, to be settled within `lifetime`.
    ///
    /// # Errors
    /// The denial, when the estimate does not fit, also with what has expired by now given back.
    pub fn reserve<Q: Hash + ?Sized>(
        &self,
        key: &Q,
        estimate: Cost,
        lifetime: Duration,
    ) -> Result<Reservation<ExpiringAccount<&Self>>, Denial>
    where
        K: Borrow<Q>,
    {
        Self::reserve_in(self, key, estimate, lifetime)
    }

    /// As [`reserve`](Self::reserve), for a reservation that goes where no borrow can: see
    /// [`KeyedLimiter::reserve_owned`].
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_owned<Q: Hash + ?Sized>(
        self: &Arc<Self>,
        key: &Q,
        estimate: Cost,
        lifetime: Duration,
    ) -> Result<Reservation<ExpiringAccount<Arc<Self>>>, Denial>
    where
        K: Borrow<Q>,
    {
        Self::reserve_in(self.clone(), key, estimate, lifetime)
    }

    fn reserve_in<Q: Hash + ?Sized, H>(
        of: H,
        key: &Q,
        estimate: Cost,
        lifetime: Duration,
    ) -> Result<Reservation<ExpiringAccount<H>>, Denial>
    where
        K: Borrow<Q>,
        H: Deref<Target = Self>,
    {
        let (key, now) = (of.limiter.key(key), of.limiter.clock().now());
        let table = of.limiter.table();
        let mut decision = table.decide(key, estimate, now);
        if !decision.is_allow() && of.notes.look_for_expired(table, now) > 0 {
            decision = table.decide(key, estimate, now);
        }
        if let Decision::Deny(denial) = decision {
            return Err(denial);
        }
        let held = Held { key, cost: estimate, charged_at: now };
        let hold = of.notes.note(table, held, now + lifetime);
        Ok(Reservation::new(ExpiringAccount { of, key, hold }, estimate, now))
    }

    /// Gives back what has expired, and tells how many reservations that were. For a timer; looks at
    /// every record, which takes about a tenth of a millisecond.
    pub fn return_expired(&self) -> usize {
        self.notes.return_expired(self.limiter.table(), self.limiter.clock().now())
    }

    /// How many reservations are open, and the units that they hold. Looks at every record.
    #[must_use]
    pub fn open(&self) -> (usize, u128) {
        self.notes.holds.total()
    }

    /// The limiter, for what is not reserved.
    pub const fn limiter(&self) -> &KeyedLimiter<K, Limit, C> {
        &self.limiter
    }
}

impl<K: ?Sized, C> fmt::Debug for SharedHolds<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedHolds").field("open", &self.notes.holds.total()).finish()
    }
}

/// A key's account with [`SharedHolds`], which `H` refers to, and the note of what is reserved.
#[derive(Debug)]
pub struct ExpiringAccount<H> {
    of: H,
    key: Key,
    hold: Option<HoldId>,
}

impl<K: Hash + ?Sized, C: Clock, H: Deref<Target = SharedHolds<K, C>>> Ledger
    for ExpiringAccount<H>
{
    fn settle(&self, reserved: Cost, used: Cost, charged_at: Timestamp) {
        let SharedHolds { limiter, notes } = &*self.of;
        let charged = notes.end(self.hold, reserved);
        book_in(limiter.table(), self.key, charged, used, (charged_at, limiter.clock().now()));
    }
}

/// The notes of what is reserved in one table.
#[derive(Debug)]
pub(crate) struct Notes {
    holds: Holds<Pages<Hold>>,
    /// When somebody who gave back what had expired, and is through with it, began, in nanoseconds: one word.
    ///
    /// # Orderings
    /// Released by who is through, acquired by who then need not look: so what that gave back is seen.
    returned_at: Pages<AtomicU64>,
    /// When this process last looked for lack of units, in nanoseconds. Relaxed: it only spares work.
    looked_at: AtomicU64,
    /// The tags of the holds that are this process's, each in the place of its record; 0 for none.
    mine: Box<[AtomicU64]>,
}

/// The notes that are in use, each by where it is in the file: which holds are this process's is known once, for a
/// policy and the one that follows it.
#[derive(Debug, Default)]
pub(super) struct OpenNotes(Mutex<Vec<(u64, Weak<Notes>)>>);

impl OpenNotes {
    pub(super) fn of<E>(
        &self,
        offset: u64,
        map: impl FnOnce() -> Result<Notes, E>,
    ) -> Result<Arc<Notes>, E> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, notes)| notes.strong_count() > 0);
        let known = open.iter().find(|(known, _)| *known == offset);
        if let Some(notes) = known.and_then(|(_, notes)| notes.upgrade()) {
            return Ok(notes);
        }
        let notes = Arc::new(map()?);
        open.push((offset, Arc::downgrade(&notes)));
        Ok(notes)
    }
}

impl Notes {
    pub(crate) const RECORDS: usize = 8_192;
    pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

    pub(super) fn new(holds: Pages<Hold>, returned_at: Pages<AtomicU64>) -> Self {
        let mine = (0..holds.as_ref().len()).map(|_| AtomicU64::new(0)).collect();
        Self { holds: Holds::new(holds), returned_at, looked_at: AtomicU64::new(0), mine }
    }

    /// Notes what was charged, until it expires. `None`, when there is no record for it.
    pub(crate) fn note<P: Protocol, S: Storage>(
        &self,
        table: &Table<P, S>,
        held: Held,
        expires_at: Timestamp,
    ) -> Option<HoldId> {
        let now = held.charged_at;
        // Any place will do, if only another one for each call.
        let hint = (held.key.hash() ^ now.as_nanos()) as usize;
        let note = || self.holds.note(held, expires_at, hint, now);
        let hold = note().or_else(|| (self.look_for_expired(table, now) > 0).then(note)?)?;
        let (index, tag) = hold.parts();
        // Relaxed: a lone value; who renews by one that is no longer true finds nobody's hold.
        self.mine[index].store(tag, Ordering::Relaxed);
        Some(hold)
    }

    /// Keeps the holds that are this process's until a later time, and tells of each.
    pub(crate) fn renew(&self, expires_at: Timestamp, mut each: impl FnMut(Held)) {
        for (index, mine) in self.mine.iter().enumerate() {
            let tag = mine.load(Ordering::Relaxed); // see `note`
            if tag != 0
                && let Some(held) = self.holds.renew(HoldId::from_parts(index, tag), expires_at)
            {
                each(held);
            }
        }
    }

    /// Ends a hold, and tells what is still charged of it: nothing, when it has expired and was given back.
    pub(crate) fn end(&self, hold: Option<HoldId>, reserved: Cost) -> Cost {
        if let Some((index, tag)) = hold.map(HoldId::parts) {
            // Relaxed, see `note`. The record may be the next hold's by now, whose tag stays then.
            let forget = (Ordering::Relaxed, Ordering::Relaxed);
            let _ = self.mine[index].compare_exchange(tag, 0, forget.0, forget.1);
        }
        match hold.map(|hold| self.holds.take(hold)) {
            Some(None) => Cost::ZERO,
            Some(Some(_)) | None => reserved,
        }
    }

    /// Gives back what has expired, unless somebody has just looked; for who was denied.
    pub(crate) fn look_for_expired<P: Protocol, S: Storage>(
        &self,
        table: &Table<P, S>,
        now: Timestamp,
    ) -> usize {
        if self.is_time_to_look(now) { self.return_expired(table, now) } else { 0 }
    }

    /// Gives back what has expired.
    pub(crate) fn return_expired<P: Protocol, S: Storage>(
        &self,
        table: &Table<P, S>,
        now: Timestamp,
    ) -> usize {
        let mut returned = 0;
        self.holds.take_expired(now, |held| {
            table.refund(held.key, held.cost, held.charged_at, now);
            returned += 1;
        });
        if let Some(returned_at) = self.returned_at.first() {
            returned_at.fetch_max(now.as_nanos(), Ordering::Release); // see the field
        }
        returned
    }

    /// Whether somebody has given back what had expired, and was through with it, less than `every` ago.
    pub(crate) fn has_returned(&self, now: Timestamp, every: Duration) -> bool {
        let last = self.returned_at.first().map(|at| at.load(Ordering::Acquire)); // see the field
        last.is_some_and(|last| now.since(Timestamp::from_nanos(last)) < every)
    }

    pub(crate) fn total(&self) -> (usize, u128) {
        self.holds.total()
    }

    /// See [`Holds::forget`].
    pub(super) fn forget(&self) {
        self.holds.forget();
    }

    /// Whether to look for what has expired, which one of all of this process who ask at a time does.
    fn is_time_to_look(&self, now: Timestamp) -> bool {
        let last = self.looked_at.load(Ordering::Relaxed);
        let is_time = now.since(Timestamp::from_nanos(last)) >= Self::LOOK_EVERY
            && !self.has_returned(now, Self::LOOK_EVERY);
        let (to, relaxed) = (now.as_nanos(), Ordering::Relaxed);
        is_time && self.looked_at.compare_exchange(last, to, relaxed, relaxed).is_ok()
    }
}
