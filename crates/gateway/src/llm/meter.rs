//! [`Meter`]: reads the usage from an answer as it passes, and settles the reservation with it.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Frame, SizeHint};
use tidegate::policy::Held;
use tidegate::{Cost, Reservation};

use super::{sse, usage};

/// The body of an answer, with the reservation to settle at its end.
///
/// An answer that says what was used settles that. One that fails, breaks off or is not wanted any
/// more before it has said so keeps the whole reservation: something was produced, and paid for.
pub(crate) struct Meter {
    inner: Body,
    reservation: Option<Reservation<Held>>,
    used: Option<u64>,
    reading: Reading,
}

enum Reading {
    /// One JSON text, kept to be read at the end.
    Whole(Vec<u8>),
    /// A stream of events.
    Stream { events: sse::Events, hides_usage: bool, ended: bool },
    /// Something else, or too long.
    Nothing,
}

/// The longest answer that is kept to be read.
const MAX_WHOLE: usize = 16 << 20;

impl Meter {
    /// Watches over an answer. An error is given back at once: nothing was produced.
    pub(crate) fn attach(
        response: Response<Body>,
        reservation: Option<Reservation<Held>>,
        hides_usage: bool,
    ) -> Response<Body> {
        if !response.status().is_success() {
            if let Some(reservation) = reservation {
                reservation.cancel();
            }
            return response;
        }
        let content_type = response.headers().get(CONTENT_TYPE);
        let is = |kind: &[u8]| content_type.is_some_and(|value| value.as_bytes().starts_with(kind));
        let reading = if is(b"text/event-stream") {
            Reading::Stream { events: sse::Events::default(), hides_usage, ended: false }
        } else if is(b"application/json") {
            Reading::Whole(Vec::new())
        } else {
            Reading::Nothing
        };
        let (mut parts, inner) = response.into_parts();
        if let Reading::Stream { hides_usage: true, .. } = reading {
            parts.headers.remove(CONTENT_LENGTH);
        }
        let meter = Self { inner, reservation, used: None, reading };
        Response::from_parts(parts, Body::new(meter))
    }

    /// Reads what passes, and gives what is to be passed on now, if anything.
    fn read(&mut self, bytes: Bytes) -> Option<Bytes> {
        match &mut self.reading {
            Reading::Nothing => return Some(bytes),
            Reading::Whole(kept) if kept.len() + bytes.len() <= MAX_WHOLE => {
                kept.extend_from_slice(&bytes);
                return Some(bytes);
            }
            Reading::Whole(_) => {
                self.reading = Reading::Nothing;
                return Some(bytes);
            }
            Reading::Stream { events, .. } => events.push(&bytes),
        }
        self.pass_events()
    }

    /// The events that are whole by now, in one piece, without the one that is hidden.
    fn pass_events(&mut self) -> Option<Bytes> {
        let Reading::Stream { events, hides_usage, .. } = &mut self.reading else { return None };
        let mut passed: Option<Vec<u8>> = None;
        while let Some(event) = events.next_event() {
            let told = sse::data(&event).and_then(usage::told);
            if let Some(told) = told {
                self.used = Some(told.tokens);
            }
            if !(*hides_usage && told.is_some_and(|told| told.alone)) {
                passed.get_or_insert_default().extend_from_slice(&event);
            }
        }
        passed.map(Bytes::from)
    }

    /// The answer has ended well.
    fn settle(&mut self) {
        if let Reading::Whole(kept) = &self.reading {
            self.used = usage::told(kept).map(|told| told.tokens);
        }
        match (self.reservation.take(), self.used) {
            (Some(reservation), Some(used)) => reservation.settle(Cost::new(used)),
            (Some(_), None) => {
                tracing::warn!("an answer told no usage; its estimate stays charged")
            }
            (None, _) => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // The client has gone, or the upstream broke off. The usage may have been told before that.
        if let (Some(_), Some(used)) = (&self.reservation, self.used)
            && let Some(reservation) = self.reservation.take()
        {
            reservation.settle(Cost::new(used));
        }
    }
}

impl http_body::Body for Meter {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if matches!(self.reading, Reading::Stream { ended: true, .. }) {
                return Poll::Ready(None);
            }
            let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
            let bytes = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(self.end().map(Frame::data).map(Ok)),
            };
            if let Some(passed) = self.read(bytes) {
                if self.inner.is_end_stream() && self.is_plain() {
                    self.settle();
                }
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // A stream may have a last event to pass on, and must be polled to its end.
        self.is_plain() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_plain() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

impl Meter {
    /// Whether the bytes pass as they come.
    fn is_plain(&self) -> bool {
        !matches!(self.reading, Reading::Stream { .. })
    }

    /// Ends the answer, with what an unfinished last event left over.
    fn end(&mut self) -> Option<Bytes> {
        let rest = match &mut self.reading {
            Reading::Stream { events, ended, .. } => {
                *ended = true;
                events.rest()
            }
            _ => None,
        };
        self.settle();
        rest
    }
}
