//! [`HeldBody`]: an answer's body, with what is held until its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tidegate::Reservation;
use tidegate::policy::Held;

/// The body of an answer that costs nothing but its place among the calls at a time.
pub(super) struct HeldBody {
    inner: Body,
    reservation: Option<Reservation<Held>>,
}

impl HeldBody {
    pub(super) const fn new(inner: Body, reservation: Reservation<Held>) -> Self {
        Self { inner, reservation: Some(reservation) }
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        self.reservation.take().into_iter().for_each(Reservation::cancel);
    }
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
