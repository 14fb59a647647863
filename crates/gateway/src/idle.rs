//! [`Idle`]: a body that may not stand still for long.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// A body that fails when no part of it comes for a time.
pub(crate) struct Idle<B> {
    inner: B,
    limit: Duration,
    /// Made when the body first has nothing to give.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the sleep is to begin anew.
    has_moved: bool,
}

impl<B> Idle<B> {
    pub(crate) const fn new(inner: B, limit: Duration) -> Self {
        Self { inner, limit, sleep: None, has_moved: false }
    }
}

/// Nothing has come for too long; more may be on its way.
#[derive(Debug)]
pub(crate) struct StandsStill;

impl fmt::Display for StandsStill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing more has come for too long")
    }
}

impl std::error::Error for StandsStill {}

impl<B> http_body::Body for Idle<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.has_moved = true;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (limit, has_moved) = (self.limit, std::mem::take(&mut self.has_moved));
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if has_moved {
            sleep.as_mut().reset(Instant::now() + limit);
        }
        sleep.as_mut().poll(context).map(|()| Some(Err(StandsStill.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_fails_and_one_that_moves_does_not() {
        let part = |_| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x")))
        };
        let parts = stream::iter(0..3).then(part).chain(stream::pending());
        let mut body = Idle::new(StreamBody::new(Box::pin(parts)), Duration::from_secs(10));
        for _ in 0..3 {
            assert!(body.frame().await.unwrap().is_ok());
        }
        let start = Instant::now();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }
}
