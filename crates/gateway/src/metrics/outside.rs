//! How much of a call's time is the gateway's own.

use std::cell::Cell;
use std::time::{Duration, Instant};

tokio::task_local! {
    /// The time of this call that others took.
    static OUTSIDE: Cell<Duration>;
}

/// Runs a call, and tells how much of its time was not spent in [`outside`].
pub(crate) async fn measured<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    let timed = async {
        let done = call.await;
        (done, OUTSIDE.with(Cell::get))
    };
    let (done, outside) = OUTSIDE.scope(Cell::new(Duration::ZERO), timed).await;
    (done, start.elapsed().saturating_sub(outside))
}

/// Waits for somebody else: the API behind, or the client's bytes.
pub(crate) async fn outside<T>(waiting: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let done = waiting.await;
    // Outside of a call there is nothing to be told.
    let _ = OUTSIDE.try_with(|outside| outside.set(outside.get() + start.elapsed()));
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_others_took_is_not_counted() {
        const WAIT: Duration = Duration::from_millis(30);
        let start = Instant::now();
        let ((), added) = measured(outside(async { std::thread::sleep(WAIT) })).await;
        // However slow the machine is: the wait took that long at least.
        assert!(added <= start.elapsed() - WAIT, "{added:?}");
    }
}
