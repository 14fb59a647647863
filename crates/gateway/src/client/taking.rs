//! [`Taking`]: an answer over HTTP/2, which its client may not leave untaken for ever.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The body of an answer over HTTP/2. When a part of it has been handed over, and the client leaves no room for
/// more for `patience`, the answer is given up: what it holds is dropped, so that its call is settled as that of
/// a client who has gone.
///
/// hyper asks for no more of a body while its client has no room for it, and nothing on the connection tells:
/// other streams may flow, and pings are answered. So somebody else must look.
pub(crate) struct Taking {
    handed: Arc<Handed>,
    watch: Option<AbortHandle>,
    open: OpenCall,
}

/// A body that the watch can take away.
struct Handed(Mutex<State>);

struct State {
    /// `None` once it was given up.
    inner: Option<Body>,
    /// Since when a part that was handed over stays untaken, for all that is known.
    untaken_since: Option<Instant>,
}

impl Handed {
    /// Held for a poll of the body, and by the watch when it gives it up.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the client has left a part untaken for so long, and takes the body away.
    async fn give_up_after(&self, patience: Duration, calls: &OpenCalls) {
        let mut look_at = Instant::now() + patience;
        loop {
            tokio::time::sleep_until(look_at).await;
            let mut state = self.lock();
            let due = state.untaken_since.unwrap_or_else(Instant::now) + patience;
            if state.untaken_since.is_some() && due <= Instant::now() {
                let given_up = state.inner.take();
                // As long as the body cannot be dropped, which takes it off again.
                calls.gave_one_up();
                drop(state);
                return drop(given_up);
            }
            look_at = due;
        }
    }
}

impl Taking {
    /// Watches over the body of an answer on this connection.
    pub(crate) fn new(inner: Body, patience: Duration, open: OpenCall) -> Self {
        let is_over = http_body::Body::is_end_stream(&inner);
        let state = State { inner: Some(inner), untaken_since: None };
        let handed = Arc::new(Handed(Mutex::new(state)));
        let watch = (!is_over).then(|| {
            let (handed, calls) = (handed.clone(), open.0.clone());
            let watching = async move { handed.give_up_after(patience, &calls).await };
            tokio::spawn(watching).abort_handle()
        });
        Self { handed, watch, open }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
        // The watch has a hand on it still, until the runtime comes to drop that; a stop does not wait so long.
        let inner = self.handed.lock().inner.take();
        if inner.is_none() {
            // Relaxed, as all of them: the counts guard nothing.
            self.open.0.given_up.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The client has taken nothing for too long.
#[derive(Debug)]
struct NotTaken;

impl std::fmt::Display for NotTaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the client has taken nothing for too long")
    }
}

impl std::error::Error for NotTaken {}

impl http_body::Body for Taking {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut state = self.handed.lock();
        let Some(inner) = &mut state.inner else {
            return Poll::Ready(Some(Err(axum::Error::new(NotTaken))));
        };
        let frame = Pin::new(inner).poll_frame(context);
        // While there is nothing, it is the upstream that is waited for.
        state.untaken_since = frame.is_ready().then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.handed.lock().inner.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.handed.lock().inner.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

/// The calls of one connection. When all that are open were given up, it is of no use any more.
#[derive(Debug, Default)]
pub(crate) struct OpenCalls {
    open: AtomicUsize,
    given_up: AtomicUsize,
    is_useless: Notify,
}

/// One open call of a connection.
pub(crate) struct OpenCall(Arc<OpenCalls>);

impl OpenCalls {
    pub(crate) fn begin(self: &Arc<Self>) -> OpenCall {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenCall(self.clone())
    }

    fn gave_one_up(&self) {
        let given_up = self.given_up.fetch_add(1, Ordering::Relaxed) + 1;
        if given_up >= self.open.load(Ordering::Relaxed) {
            self.is_useless.notify_one();
        }
    }

    /// Waits until nobody takes anything of this connection.
    pub(crate) async fn useless(&self) {
        self.is_useless.notified().await;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let open = self.0.open.fetch_sub(1, Ordering::Relaxed) - 1;
        let given_up = self.0.given_up.load(Ordering::Relaxed);
        if given_up > 0 && given_up >= open {
            self.0.is_useless.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A body of parts that come each after so many seconds, and a sign of its end.
    fn body(pace_s: u64) -> (Body, Arc<()>) {
        let life = Arc::new(());
        let held = life.clone();
        let parts = stream::iter(0..10).then(move |_| {
            let held = held.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(pace_s)).await;
                drop(held);
                Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
            }
        });
        (Body::from_stream(parts), life)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_untaken_is_given_up_and_the_connection_when_all_is() {
        let calls = Arc::new(OpenCalls::default());
        let ((first, first_life), (second, second_life)) = (body(0), body(0));
        let mut first = Taking::new(first, PATIENCE, calls.begin());
        let mut second = Taking::new(second, PATIENCE, calls.begin());
        let waiting = calls.begin();
        assert!(first.frame().await.unwrap().is_ok());
        assert!(second.frame().await.unwrap().is_ok());
        tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
        assert!(second.frame().await.unwrap().is_ok(), "this one is taken");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((Arc::strong_count(&first_life), Arc::strong_count(&second_life)), (1, 2));
        assert!(first.frame().await.unwrap().is_err());
        tokio::time::sleep(PATIENCE).await;
        assert_eq!(Arc::strong_count(&second_life), 1);
        assert!(calls.useless().now_or_never().is_none(), "a call is waited for");
        drop((first, second, waiting));
        let mut last = Taking::new(body(0).0, PATIENCE, calls.begin());
        assert!(last.frame().await.unwrap().is_ok());
        let start = Instant::now();
        calls.useless().await;
        assert_eq!(start.elapsed(), PATIENCE);
    }

    /// A stop waits for connections, and not for watches.
    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_is_dropped_at_once_and_not_with_its_watch() {
        let calls = Arc::new(OpenCalls::default());
        let (body, life) = body(0);
        let mut taking = Taking::new(body, PATIENCE, calls.begin());
        assert!(taking.frame().await.unwrap().is_ok());
        drop(taking);
        assert_eq!(Arc::strong_count(&life), 1);
        assert_eq!(calls.given_up.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_is_not_given_up() {
        let calls = Arc::new(OpenCalls::default());
        let mut slow = Taking::new(body(60).0, PATIENCE, calls.begin());
        let mut parts = 0;
        while let Some(part) = slow.frame().await {
            assert!(part.is_ok());
            parts += 1;
        }
        assert_eq!(parts, 10);
        assert!(calls.useless().now_or_never().is_none());
    }
}
