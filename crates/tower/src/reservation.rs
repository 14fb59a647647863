//! [`LlmReservation`]: what a handler settles.

use std::sync::Arc;

use parking_lot::Mutex;
use tidegate::policy::Held;
use tidegate::{Cost, Reservation};

/// The LLM tokens reserved for a request, as an extension of the request.
///
/// The handler settles it with what was really used. All clones are one reservation, which ends once:
/// the first to settle or cancel does, later ones change nothing. If nobody does, the whole estimate
/// stays charged.
///
/// ```
/// use axum::Extension;
/// use tidegate_tower::LlmReservation;
///
/// async fn chat(Extension(reservation): Extension<LlmReservation>) -> String {
///     let (answer, used) = ("an answer".to_owned(), 12);
///     reservation.settle(used);
///     answer
/// }
/// ```
#[derive(Debug, Clone)]
pub struct LlmReservation(Arc<Mutex<Option<Reservation<Held>>>>);

impl LlmReservation {
    pub(crate) fn new(reservation: Reservation<Held>) -> Self {
        Self(Arc::new(Mutex::new(Some(reservation))))
    }

    /// Books what was really used: the rest is given back, or the excess charged. True if this call
    /// ended the reservation.
    pub fn settle(&self, used_tokens: u64) -> bool {
        let open = self.0.lock().take();
        open.map(|reservation| reservation.settle(Cost::new(used_tokens))).is_some()
    }

    /// Gives everything back: nothing was used. True if this call ended the reservation.
    pub fn cancel(&self) -> bool {
        self.settle(0)
    }
}
