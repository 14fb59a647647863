//! [`Share`]: what a process admits on its own while the server is down.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tidegate::policy::WhenDown;
use tidegate::{Cost, Decision, KeyedLimiter, Limit, Timestamp};

/// How a layer is decided without the server.
pub(crate) enum Share {
    Deny,
    Allow,
    Of(Arc<KeyedLimiter<str, Limit>>),
}

/// Live keys that a share has room for. Newcomers are denied above that.
const KEYS: usize = 10_000;

/// The shares that are in use: a policy that is loaded anew goes on with those of limits that are the same, so
/// that nobody is granted one twice.
#[derive(Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<Vec<InUse>>>);

/// A share, by the limit's name and what the share says.
struct InUse {
    name: String,
    share: String,
    limiter: Weak<KeyedLimiter<str, Limit>>,
}

impl Shares {
    /// The share of a limit: the one that is in use, or a new one.
    fn find(&self, name: &str, share: Limit) -> Arc<KeyedLimiter<str, Limit>> {
        let text = share.to_string();
        // Never held by who panics.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.limiter.strong_count() > 0);
        let same = all.iter().filter(|known| known.name == name && known.share == text);
        if let Some(limiter) = same.filter_map(|known| known.limiter.upgrade()).next() {
            return limiter;
        }
        let limiter = Arc::new(KeyedLimiter::new(share, KEYS));
        let name = name.to_owned();
        all.push(InUse { name, share: text, limiter: Arc::downgrade(&limiter) });
        limiter
    }
}

impl std::fmt::Debug for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shares").finish_non_exhaustive()
    }
}

impl Share {
    pub(crate) fn new(name: &str, limit: &Limit, when_down: WhenDown, shares: &Shares) -> Self {
        match when_down {
            WhenDown::Deny => Self::Deny,
            WhenDown::Allow => Self::Allow,
            // Not a unit for each: then none.
            WhenDown::Share { of } => match limit.share_of(of) {
                None => Self::Deny,
                Some(share) => Self::Of(shares.find(name, share)),
            },
        }
    }

    /// Whether `caller` may spend `cost`; charges it if so, and if it `charges`. `None` is a denial without
    /// a limit.
    pub(crate) fn decide(
        &self,
        caller: &str,
        cost: Cost,
        charges: bool,
        now: Timestamp,
    ) -> Option<Decision> {
        match self {
            Self::Deny => None,
            Self::Allow => Some(Decision::Allow(tidegate::Allowance::new(0, 0))),
            Self::Of(limiter) if charges => {
                Some(limiter.table().decide(limiter.key(caller), cost, now))
            }
            Self::Of(limiter) => Some(limiter.table().peek(limiter.key(caller), cost, now)),
        }
    }

    /// Undoes a decision that was made just `now`.
    pub(crate) fn undo(&self, caller: &str, cost: Cost, now: Timestamp) {
        self.settle(caller, cost, Cost::ZERO, (now, now));
    }

    /// Books that `used` was used of what was charged.
    pub(crate) fn settle(
        &self,
        caller: &str,
        charged: Cost,
        used: Cost,
        (charged_at, now): (Timestamp, Timestamp),
    ) {
        let Self::Of(limiter) = self else { return };
        let (table, key) = (limiter.table(), limiter.key(caller));
        match (charged.units(), used.units()) {
            (charged, used) if used < charged => {
                table.refund(key, Cost::new(charged - used), charged_at, now);
            }
            (charged, used) if used > charged => {
                // When there is no room for the key, the table's tally counts it.
                let _ = table.charge(key, Cost::new(used - charged), now);
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deny => "Deny",
            Self::Allow => "Allow",
            Self::Of(_) => "Of",
        })
    }
}
