//! [`RemoteReservation`]: reserve an estimate, settle what was really used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tidegate::Cost;

use crate::namespace::{RemoteKey, RemoteLimit};
use crate::server::{Book, Server, ServerError};
use crate::spec::Micros;

/// An estimate that was charged on the server, to be settled once the real use is known.
///
/// It is settled once: on the server lies a hold, and settling takes it away. When the hold is gone,
/// because an earlier try did arrive after all, or because its time was over, nothing is booked. So
/// settling may be tried again after an error.
///
/// One that is dropped keeps its whole charge, since the call behind it may have been made and paid for.
#[derive(Debug)]
#[must_use = "a reservation that is dropped keeps its whole charge"]
pub struct RemoteReservation {
    pub(crate) server: Arc<Server>,
    pub(crate) charged: SmallVec<[Charged; 2]>,
    pub(crate) charged_at: Micros,
    hold: String,
    /// Whether it has been tried to settle it.
    is_tried: AtomicBool,
}

/// What became of a reservation that was settled in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// It was booked: the rest was given back, or the excess charged. By this try or, where an earlier one was
    /// not answered, probably by that.
    Booked,
    /// There was nothing to settle any more: the server had lost its data, or the hold's time was over. What
    /// was used was charged, as far as it was not charged still.
    ChargedAnew,
    /// The server did not answer for too long. What was reserved stays charged, if it was not booked after all.
    Lost,
}

/// How often [`RemoteReservation::settle_at_last`] tries: after 50 ms, twice that and so on, up to 5 s, for
/// about two minutes in all.
const MOST_TRIES: u32 = 30;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What one layer was charged.
#[derive(Debug)]
pub(crate) struct Charged {
    pub(crate) limit: Arc<RemoteLimit>,
    pub(crate) key: RemoteKey,
    pub(crate) cost: Cost,
}

impl RemoteReservation {
    pub(crate) fn new(
        server: &Arc<Server>,
        charged: SmallVec<[Charged; 2]>,
        charged_at: Micros,
        hold: String,
    ) -> Self {
        Self { server: server.clone(), charged, charged_at, hold, is_tried: AtomicBool::new(false) }
    }

    /// What was reserved, at the first layer.
    pub fn reserved(&self) -> Cost {
        self.charged.first().map_or(Cost::ZERO, |charged| charged.cost)
    }

    /// Books what was really used at each layer: the rest is given back, or the excess charged, whether it
    /// fits or not. Whether this call booked it: if not, it had been booked before, or the hold's time was
    /// over.
    ///
    /// # Errors
    /// When the server does not answer. Then it may be booked or not; try again.
    pub async fn settle(&self, used: Cost) -> Result<bool, ServerError> {
        let used: SmallVec<[Cost; 2]> = self.charged.iter().map(|_| used).collect();
        self.settle_each(&used).await
    }

    /// The same, where each layer has used something of its own, in their order.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub async fn settle_each(&self, used: &[Cost]) -> Result<bool, ServerError> {
        self.try_to_settle(used).await.map(|(is_booked, _)| is_booked)
    }

    async fn try_to_settle(&self, used: &[Cost]) -> Result<(bool, Micros), ServerError> {
        self.is_tried.store(true, Ordering::Relaxed); // a lone flag
        let books = self.charged.iter().zip(used).filter_map(|(charged, used)| {
            let (reserved, used) = (charged.cost.units(), used.units());
            let (limit, key) = (&*charged.limit, &charged.key);
            let refund = Book::Refund { charged_at: self.charged_at };
            match used {
                _ if used < reserved => Some((limit, key, Cost::new(reserved - used), refund)),
                _ if used > reserved => {
                    Some((limit, key, Cost::new(used - reserved), Book::Charge))
                }
                _ => None,
            }
        });
        let books: SmallVec<[_; 2]> = books.collect();
        self.server.book(&books, Some(&self.hold)).await
    }

    /// As [`settle_each`](Self::settle_each), tried again and again for about two minutes while the server does
    /// not answer. Nothing that was used is forgotten: if the hold is gone, and no try of ours can have taken
    /// it, what was used is charged, less what the server must have charged still.
    pub async fn settle_at_last(&self, used: &[Cost]) -> Settlement {
        let mut wait = FIRST_WAIT;
        for _ in 0..MOST_TRIES {
            let was_tried = self.is_tried.load(Ordering::Relaxed);
            match self.try_to_settle(used).await {
                Ok((true, _)) => return Settlement::Booked,
                // By an earlier try, most likely.
                Ok((false, _)) if was_tried => return Settlement::Booked,
                Ok((false, now)) => return self.charge_anew(used, now).await,
                Err(error) => tracing::debug!(%error, "a reservation is settled later"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        tracing::warn!("a reservation could not be settled, and keeps its whole charge");
        Settlement::Lost
    }

    /// The hold is gone, as `now` was found out.
    async fn charge_anew(&self, used: &[Cost], now: Micros) -> Settlement {
        // Before its time was over, it can be gone only with all that the server had.
        let is_charged = now.saturating_sub(self.charged_at) >= self.server.hold_us();
        let owed = self.charged.iter().zip(used).filter_map(|(charged, used)| {
            let still = if is_charged { charged.cost.units() } else { 0 };
            let owed = used.units().saturating_sub(still);
            (owed > 0).then_some((&*charged.limit, &charged.key, Cost::new(owed), Book::Charge))
        });
        let owed: SmallVec<[_; 2]> = owed.collect();
        tracing::warn!("a reservation was gone when it was settled; what was used is charged");
        if owed.is_empty() {
            return Settlement::ChargedAnew;
        }
        // Once: who does not know whether a charge has arrived cannot repeat it.
        match self.server.book(&owed, None).await {
            Ok(_) => Settlement::ChargedAnew,
            Err(_) => Settlement::Lost,
        }
    }

    /// Gives everything back: the call was not made, or nothing was used.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub async fn cancel(&self) -> Result<bool, ServerError> {
        self.settle(Cost::ZERO).await
    }
}
