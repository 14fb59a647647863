//! [`Late`]: what was reserved for a call that has gone on without it.

use tidegate::Cost;

use super::run::Reply;
use crate::reservation::{RemoteReservation, Settlement};
use crate::tally::Count;

/// A reservation whose answer has not come in time. The call goes on without the server, so what was reserved is
/// given back once the answer comes. If none ever does, since the connection was lost, it stays charged, as
/// [`Server::reserve`](super::Server::reserve) says: who does not know when it was charged cannot give it back
/// exactly.
#[derive(Debug)]
pub(super) struct Late {
    /// Of every layer, as if it had been charged.
    pub(super) reservation: RemoteReservation,
    pub(super) enforced: u64,
}

impl Late {
    /// The answer has come.
    pub(super) async fn give_back(mut self, reply: &Reply) {
        let denied = reply.first();
        if denied < 0 || denied as u64 & self.enforced != 0 {
            return;
        }
        let mut layer = 0..;
        let charged = &mut self.reservation.charged;
        charged.retain(|_| layer.next().is_some_and(|layer| denied as u64 >> layer & 1 == 0));
        self.reservation.charged_at = reply.now();
        let nothing = vec![Cost::ZERO; self.reservation.charged.len()];
        let settled = self.reservation.settle_at_last(&nothing).await;
        if settled == Settlement::Booked {
            self.reservation.server.note(Count::late_reservations);
        }
    }
}
