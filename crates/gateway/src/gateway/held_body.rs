//! [`HeldBody`]: an answer's body, with what is held until its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tidegate::Reservation;
use tidegate::policy::Held;

/// The body of an answer, and what is dropped with it, at its end.
pub(super) struct HeldBody<T> {
    inner: Body,
    _held: T,
}

impl<T> HeldBody<T> {
    pub(super) const fn new(inner: Body, held: T) -> Self {
        Self { inner, _held: held }
    }
}

/// What a call holds that costs nothing but its place among the calls at a time. It is given back when it
/// is dropped.
pub(super) struct Place(Option<Reservation<Held>>);

impl Place {
    pub(super) const fn new(reservation: Reservation<Held>) -> Self {
        Self(Some(reservation))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Reservation::cancel);
    }
}

impl<T: Unpin> http_body::Body for HeldBody<T> {
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
