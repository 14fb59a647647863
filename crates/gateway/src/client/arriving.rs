//! [`Arriving`]: a client's body, which may not take for ever.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// A client's body that fails when it is waited for too long: in all, for `patience`, and a second more for
/// each [`SLOWEST`](Self::SLOWEST) bytes that have come. What is not waited for, since the upstream does not
/// take it yet, does not count.
pub(crate) struct Arriving<B> {
    inner: B,
    patience: Duration,
    /// How long it may be waited for from now on.
    left: Duration,
    /// Since when it is waited for.
    since: Option<Instant>,
    /// Made when the body first has nothing to give.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<B> Arriving<B> {
    /// Bytes in a second that nobody may stay below for long.
    pub(crate) const SLOWEST: u64 = 1024;

    pub(crate) const fn new(inner: B, patience: Duration) -> Self {
        Self { inner, patience, left: patience, since: None, sleep: None }
    }

    /// Notes that so many bytes have come.
    fn came(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        let earned = Duration::from_secs(1)
            .saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX))
            / Self::SLOWEST as u32;
        self.left = self.left.saturating_add(earned).min(self.patience);
    }
}

impl<B> http_body::Body for Arriving<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            let bytes = |frame: &Frame<Bytes>| frame.data_ref().map_or(0, Bytes::len);
            self.came(frame.as_ref().and_then(|frame| frame.as_ref().ok()).map_or(0, bytes));
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| BodyError::Broken)));
        }
        let (left, has_waited) = (self.left, self.since.is_some());
        let since = *self.since.get_or_insert_with(Instant::now);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        if !has_waited {
            sleep.as_mut().reset(since + left);
        }
        sleep.as_mut().poll(context).map(|()| Some(Err(BodyError::TooSlow)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Why there is no more of a client's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It was not sent as it was said to be.
    Broken,
    /// It took too long.
    TooSlow,
}

impl BodyError {
    /// This error, if it is at the bottom of another.
    pub(crate) fn beneath(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(*found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the body broke off",
            Self::TooSlow => "the body took too long to arrive",
        })
    }
}

impl std::error::Error for BodyError {}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// A body of parts of so many bytes, each after so many milliseconds.
    fn body(bytes: usize, pace_ms: u64) -> Arriving<impl http_body::Body<Data = Bytes> + Unpin> {
        let part = move |_| async move {
            tokio::time::sleep(Duration::from_millis(pace_ms)).await;
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; bytes])))
        };
        let parts = StreamBody::new(Box::pin(stream::iter(0..).then(part)));
        Arriving::new(parts, Duration::from_secs(10))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_fails_and_one_that_flows_does_not() {
        let mut trickling = body(1, 900);
        let start = Instant::now();
        let error = loop {
            match trickling.frame().await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error, BodyError::TooSlow);
        assert!((10..12).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        let mut flowing = body(1024, 900);
        for _ in 0..100 {
            assert!(flowing.frame().await.unwrap().is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_at_once_buys_no_longer_pause() {
        let parts =
            stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; 1 << 20])))]);
        let mut body = Arriving::new(
            StreamBody::new(Box::pin(parts.chain(stream::pending()))),
            Duration::from_secs(10),
        );
        assert!(body.frame().await.unwrap().is_ok());
        // Nobody waits for it meanwhile.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        assert_eq!(body.frame().await.unwrap().err(), Some(BodyError::TooSlow));
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }
}
