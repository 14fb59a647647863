//! [`Reservation`]: reserve an estimate, settle what was really used.

use tidegate_core::{Cost, Key, Protocol, Storage, Table, Timestamp};

/// Where a reservation is booked: the limiter, with the key.
pub trait Ledger {
    /// Books that `used` was used of what was `reserved` at `charged_at`: the rest is given back, or the
    /// excess charged, whether it fits or not. Called once.
    fn settle(&self, reserved: Cost, used: Cost, charged_at: Timestamp);

    /// Books that nobody says what was used, so that what was charged stays. Called once, in place of
    /// [`settle`](Self::settle).
    fn keep(&self, reserved: Cost, charged_at: Timestamp) {
        self.settle(reserved, reserved, charged_at);
    }
}

/// What is left to book when `used` was used of what was charged.
pub(crate) fn book(
    charged: Cost,
    used: Cost,
    refund: impl FnOnce(Cost),
    charge: impl FnOnce(Cost),
) {
    let (charged, used) = (charged.units(), used.units());
    if used < charged {
        refund(Cost::new(charged - used));
    } else if used > charged {
        charge(Cost::new(used - charged));
    }
}

/// The same on a key of a table.
pub(crate) fn book_in<P: Protocol, S: Storage>(
    table: &Table<P, S>,
    key: Key,
    charged: Cost,
    used: Cost,
    (charged_at, now): (Timestamp, Timestamp),
) {
    let refund = |rest| table.refund(key, rest, charged_at, now);
    book(charged, used, refund, |excess| {
        // When the key's slot is gone and there is none for it, the table's tally counts it.
        let _ = table.charge(key, excess, now);
    });
}

/// An estimate that was charged, to be settled once the real use is known.
///
/// It ends exactly once: by [`settle`](Self::settle), by [`cancel`](Self::cancel), or by being
/// dropped. A dropped reservation keeps its whole charge, since the call behind it may have been made
/// and paid for; [`cancel_on_drop`](Self::cancel_on_drop) turns that around.
///
/// Use above the estimate is charged even if it passes the limit. That is debt: it is carried, and
/// later calls wait until it is paid off.
///
/// ```
/// use tidegate::{Cost, FakeClock, FixedWindow, KeyedLimiter, Quota};
///
/// let clock = FakeClock::default();
/// let budget: KeyedLimiter<str, _, _> =
///     KeyedLimiter::new(FixedWindow::new(Quota::per_day(10_000))?, 1_000).with_clock(&clock);
///
/// let reservation = budget.reserve("alice", Cost::new(4_000)).expect("fits");
/// assert_eq!(budget.peek("alice", Cost::ZERO).remaining(), 6_000);
/// reservation.settle(Cost::new(1_500));
/// assert_eq!(budget.peek("alice", Cost::ZERO).remaining(), 8_500);
/// # Ok::<(), tidegate::QuotaError>(())
/// ```
#[derive(Debug)]
#[must_use = "a reservation that is dropped keeps its whole charge"]
pub struct Reservation<L: Ledger> {
    ledger: L,
    reserved: Cost,
    charged_at: Timestamp,
    /// What is booked as used when it ends, which is when it is dropped. `None` keeps what was charged.
    used: Option<Cost>,
}

impl<L: Ledger> Reservation<L> {
    /// A reservation of what has just been charged to the ledger.
    pub fn new(ledger: L, reserved: Cost, charged_at: Timestamp) -> Self {
        Self { ledger, reserved, charged_at, used: None }
    }

    /// The same reservation, which gives everything back when it is dropped.
    pub fn cancel_on_drop(mut self) -> Self {
        self.used = Some(Cost::ZERO);
        self
    }

    /// What was reserved.
    pub const fn reserved(&self) -> Cost {
        self.reserved
    }

    /// When it was charged.
    pub const fn charged_at(&self) -> Timestamp {
        self.charged_at
    }

    pub(crate) const fn ledger_mut(&mut self) -> &mut L {
        &mut self.ledger
    }

    /// Books what was really used: the rest is given back, or the excess charged.
    pub fn settle(mut self, used: Cost) {
        self.used = Some(used);
    }

    /// Gives everything back: the call was not made, or nothing was used.
    pub fn cancel(self) {
        self.settle(Cost::ZERO);
    }
}

impl<L: Ledger> Drop for Reservation<L> {
    fn drop(&mut self) {
        match self.used {
            Some(used) => self.ledger.settle(self.reserved, used, self.charged_at),
            None => self.ledger.keep(self.reserved, self.charged_at),
        }
    }
}
