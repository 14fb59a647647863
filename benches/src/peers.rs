//! The peers, with limits that are never reached.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{DefaultClock, QuantaInstant};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Governor, one limit.
pub type Governor =
    RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware<QuantaInstant>>;

/// Governor, a limit for each key.
pub type GovernorKeyed<K, S> =
    RateLimiter<K, DashMapStateStore<K, S>, DefaultClock, NoOpMiddleware<QuantaInstant>>;

/// Governor with more than anybody can spend.
#[must_use]
pub fn governor() -> Governor {
    RateLimiter::direct(Quota::per_second(NonZeroU32::MAX))
}

/// Governor with nothing left.
#[must_use]
pub fn governor_spent() -> Governor {
    let governor = RateLimiter::direct(Quota::per_hour(NonZeroU32::MIN));
    assert!(governor.check().is_ok());
    governor
}

/// Governor with a plenty for each of the keys, all of which it knows.
pub fn governor_keyed<K, S>(keys: impl Iterator<Item = K>) -> GovernorKeyed<K, S>
where
    K: Hash + Eq + Clone,
    S: BuildHasher + Clone + Default,
{
    let quota = Quota::per_second(NonZeroU32::MAX);
    let store = DashMapStateStore::with_hasher(S::default());
    let governor = RateLimiter::new(quota, store, DefaultClock::default());
    keys.for_each(|key| assert!(governor.check_key(&key).is_ok()));
    governor
}

/// The exact log as it is written by hand: a lock around a queue of times.
#[derive(Debug)]
pub struct NaiveLog {
    limit: usize,
    window: Duration,
    times: parking_lot::Mutex<VecDeque<Instant>>,
}

impl NaiveLog {
    /// At most `limit` in any `window`.
    #[must_use]
    pub fn new(limit: usize, window: Duration) -> Self {
        Self { limit, window, times: parking_lot::Mutex::new(VecDeque::with_capacity(limit)) }
    }

    /// Whether one more may come at `now`.
    pub fn check(&self, now: Instant) -> bool {
        let mut times = self.times.lock();
        while times.front().is_some_and(|time| now.duration_since(*time) >= self.window) {
            times.pop_front();
        }
        let fits = times.len() < self.limit;
        if fits {
            times.push_back(now);
        }
        fits
    }
}
