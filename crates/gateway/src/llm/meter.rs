//! [`Meter`]: reads the usage from an answer as it passes, and settles the bill with it.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;

use super::bill::{Bill, End};
use super::sse;
use crate::answer;
use crate::idle::StandsStill;
use crate::tasks::Drain;

/// The body of an answer, with the bill to settle at its end.
///
/// An answer whose client has gone is read on for a while, so that what it has used is known.
pub(crate) struct Meter {
    inner: Body,
    bill: Option<Bill>,
    reading: Reading,
    drain: Drain,
}

enum Reading {
    /// One JSON text, kept to be read at the end.
    Whole(Vec<u8>),
    /// A stream of events.
    Stream { events: sse::Events, passing: Passing },
    /// Something else, or too long.
    Nothing,
    /// It is over.
    Over,
}

/// How a stream is passed on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Passing {
    /// Without the event that holds nothing but usage.
    hides_usage: bool,
    /// Until it has used what was reserved.
    is_cut: bool,
}

impl Passing {
    /// Whether the bytes pass as they come.
    const fn is_plain(self) -> bool {
        !self.hides_usage && !self.is_cut
    }
}

/// Where Gemini tells which service tier has served a call.
const GEMINIS_TIER: HeaderName = HeaderName::from_static("x-gemini-service-tier");

/// The states with which a server between tells that the provider's answer broke off or took too long: those of
/// HTTP, and of Cloudflare, which is in front of most.
const IN_BETWEEN: [u16; 4] = [502, 504, 520, 524];

/// The longest answer that is kept to be read.
const MAX_WHOLE: usize = 16 << 20;

impl Meter {
    /// Watches over an answer. An error of the provider's is given back at once: nothing was produced. An error
    /// of somebody between, who has waited for the provider, says nothing of that.
    pub(crate) fn attach(
        response: Response<Body>,
        mut bill: Bill,
        hides_usage: bool,
        drain: Drain,
    ) -> Response<Body> {
        if !response.status().is_success() {
            match IN_BETWEEN.contains(&response.status().as_u16()) {
                true => bill.keep("the provider was waited for in vain by a server before it"),
                false => bill.cancel(),
            }
            return response;
        }
        if let Some(tier) = response.headers().get(GEMINIS_TIER).and_then(|tier| tier.to_str().ok())
        {
            bill.read_tier(tier);
        }
        let content_type = response.headers().get(CONTENT_TYPE);
        let is = |kind: &[u8]| content_type.is_some_and(|value| value.as_bytes().starts_with(kind));
        let coding = response.headers().get(CONTENT_ENCODING);
        let reading = if coding.is_some_and(|coding| coding != "identity") {
            tracing::warn!(
                api = bill.api.name(),
                "an answer is compressed, though that was not asked for; what was reserved stays charged"
            );
            Reading::Nothing
        } else if is(b"text/event-stream") {
            let passing = Passing { hides_usage, is_cut: !bill.may_owe };
            Reading::Stream { events: sse::Events::default(), passing }
        } else if is(b"application/json") {
            Reading::Whole(Vec::new())
        } else {
            Reading::Nothing
        };
        let (mut parts, inner) = response.into_parts();
        if matches!(&reading, Reading::Stream { passing, .. } if !passing.is_plain()) {
            parts.headers.remove(CONTENT_LENGTH);
        }
        let meter = Self { inner, bill: Some(bill), reading, drain };
        Response::from_parts(parts, Body::new(meter))
    }

    /// Reads an answer to its end, which nobody else will.
    pub(crate) async fn read_to_end(response: Response<Body>) {
        let mut body = response.into_body();
        while let Some(Ok(_)) = body.frame().await {}
    }

    /// Reads what passes, and gives what is to be passed on now, if anything.
    fn read(&mut self, bytes: Bytes) -> Option<Bytes> {
        match &mut self.reading {
            Reading::Nothing => Some(bytes),
            Reading::Over => None,
            Reading::Whole(kept) if kept.len() + bytes.len() <= MAX_WHOLE => {
                kept.extend_from_slice(&bytes);
                Some(bytes)
            }
            Reading::Whole(_) => {
                self.reading = Reading::Nothing;
                Some(bytes)
            }
            Reading::Stream { events, passing } => {
                events.push(&bytes);
                let is_plain = passing.is_plain();
                let passed = self.read_events();
                if is_plain { Some(bytes) } else { passed }
            }
        }
    }

    /// Reads the events that are whole by now; gives them in one piece, as they are to be passed on.
    fn read_events(&mut self) -> Option<Bytes> {
        let Reading::Stream { events, passing } = &mut self.reading else { return None };
        let (passing, mut passed) = (*passing, None::<Vec<u8>>);
        while let Some(piece) = events.next_piece() {
            let Some(bill) = &mut self.bill else { break };
            let (event, is_usage) = match piece {
                sse::Piece::Event(event) => {
                    let is_usage = bill.read_content(&sse::content(&event), event.len());
                    (event, is_usage)
                }
                sse::Piece::Part(part) => {
                    bill.skip_event();
                    (part, false)
                }
            };
            let is_hidden = passing.hides_usage && is_usage;
            if !passing.is_plain() && !is_hidden {
                passed.get_or_insert_default().extend_from_slice(&event);
            }
            if passing.is_cut && bill.is_overrun() {
                let error = answer::overrun_event(bill.api);
                passed.get_or_insert_default().extend_from_slice(error.as_bytes());
                self.end(End::Left);
                break;
            }
        }
        passed.map(Bytes::from)
    }

    /// Settles the bill, if that has not been done.
    fn end(&mut self, end: End) {
        let reading = std::mem::replace(&mut self.reading, Reading::Over);
        let Some(mut bill) = self.bill.take() else { return };
        match reading {
            Reading::Whole(kept) if end == End::Whole => {
                bill.read_whole(&kept);
                bill.settle_whole();
            }
            Reading::Stream { .. } => bill.settle_stream(end),
            // What was reserved stays charged.
            Reading::Whole(_) | Reading::Nothing | Reading::Over => {}
        }
    }

    /// Ends the answer well, with what an unfinished last event left over.
    fn finish(&mut self) -> Option<Bytes> {
        let mut passed = None;
        if let Reading::Stream { events, passing } = &mut self.reading
            && let Some(sse::Piece::Event(rest) | sse::Piece::Part(rest)) = events.rest()
        {
            // Nothing ends it but the end of the stream. If it is whole, it may tell the usage.
            let is_usage = match &mut self.bill {
                Some(bill) => bill.read_content(&sse::content(&rest), rest.len()),
                None => false,
            };
            let is_hidden = passing.hides_usage && is_usage;
            passed = Some(rest).filter(|_| !passing.is_plain() && !is_hidden);
        }
        self.end(End::Whole);
        passed
    }

    /// Whether the bytes pass as they come, and their end is the answer's.
    const fn is_whole(&self) -> bool {
        matches!(self.reading, Reading::Whole(_) | Reading::Nothing)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.bill.is_none() {
            return;
        }
        // The client has gone. What the answer tells at its end, it may tell soon.
        let drain = std::mem::take(&mut self.drain);
        if drain.is_none() {
            return self.end(End::Left);
        }
        let mut rest = Self {
            inner: std::mem::take(&mut self.inner),
            bill: self.bill.take(),
            reading: std::mem::replace(&mut self.reading, Reading::Over),
            drain: Drain::default(),
        };
        // When its time is over, it is dropped, and settled with what is known by then.
        drain.read_on(async move { while let Some(Ok(_)) = rest.frame().await {} });
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
            if matches!(self.reading, Reading::Over) {
                return Poll::Ready(None);
            }
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
            let bytes = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => {
                    let stands_still =
                        error.source().is_some_and(|error| error.is::<StandsStill>());
                    self.end(if stands_still { End::Left } else { End::Broken });
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(self.finish().map(Frame::data).map(Ok)),
            };
            if let Some(passed) = self.read(bytes) {
                if self.is_whole() && self.inner.is_end_stream() {
                    self.end(End::Whole);
                }
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // A stream may have a last event to pass on, and must be polled to its end.
        match self.reading {
            Reading::Over => true,
            Reading::Stream { .. } => false,
            Reading::Whole(_) | Reading::Nothing => self.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.reading {
            Reading::Stream { passing, .. } if !passing.is_plain() => SizeHint::default(),
            Reading::Over => SizeHint::with_exact(0),
            _ => self.inner.size_hint(),
        }
    }
}
