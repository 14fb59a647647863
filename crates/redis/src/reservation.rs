//! [`RemoteReservation`]: reserve an estimate, settle what was really used.

use std::sync::Arc;

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
    pub(crate) hold: String,
}

/// What one layer was charged.
#[derive(Debug)]
pub(crate) struct Charged {
    pub(crate) limit: Arc<RemoteLimit>,
    pub(crate) key: RemoteKey,
    pub(crate) cost: Cost,
}

impl RemoteReservation {
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

    /// Gives everything back: the call was not made, or nothing was used.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub async fn cancel(&self) -> Result<bool, ServerError> {
        self.settle(Cost::ZERO).await
    }
}
