//! [`Reservation`]: reserve an estimate, settle what was really used.

use tidegate_core::{Cost, Timestamp};

/// Where a reservation's difference is booked: the limiter, with the key.
pub trait Ledger {
    /// Takes back `cost` of what was charged at `charged_at`.
    fn refund(&self, cost: Cost, charged_at: Timestamp);

    /// Charges `cost` whether it fits or not: what does not fit is debt.
    fn charge(&self, cost: Cost);
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
    end: End,
}

/// How a reservation ends that nobody ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Keep,
    Cancel,
    /// It has ended.
    Done,
}

impl<L: Ledger> Reservation<L> {
    /// A reservation of what has just been charged to the ledger.
    pub fn new(ledger: L, reserved: Cost, charged_at: Timestamp) -> Self {
        Self { ledger, reserved, charged_at, end: End::Keep }
    }

    /// The same reservation, which gives everything back when it is dropped.
    pub fn cancel_on_drop(mut self) -> Self {
        self.end = End::Cancel;
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

    /// Books what was really used: the rest is given back, or the excess charged.
    pub fn settle(mut self, used: Cost) {
        self.end = End::Done;
        let (used, reserved) = (used.units(), self.reserved.units());
        if used < reserved {
            self.ledger.refund(Cost::new(reserved - used), self.charged_at);
        } else if used > reserved {
            self.ledger.charge(Cost::new(used - reserved));
        }
    }

    /// Gives everything back: the call was not made, or nothing was used.
    pub fn cancel(self) {
        self.settle(Cost::ZERO);
    }
}

impl<L: Ledger> Drop for Reservation<L> {
    fn drop(&mut self) {
        if self.end == End::Cancel {
            self.ledger.refund(self.reserved, self.charged_at);
        }
    }
}
