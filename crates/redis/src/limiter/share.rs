//! [`Share`]: what a process admits on its own while the server is down.

use tidegate::policy::WhenDown;
use tidegate::{Cost, Decision, KeyedLimiter, Limit, Timestamp};

/// How a layer is decided without the server.
pub(crate) enum Share {
    Deny,
    Allow,
    Of(Box<KeyedLimiter<str, Limit>>),
}

/// Live keys that a share has room for. Newcomers are denied above that.
const KEYS: usize = 10_000;

impl Share {
    pub(crate) fn new(limit: &Limit, when_down: WhenDown) -> Self {
        match when_down {
            WhenDown::Deny => Self::Deny,
            WhenDown::Allow => Self::Allow,
            // Not a unit for each: then none.
            WhenDown::Share { of } => match limit.share_of(of) {
                None => Self::Deny,
                Some(share) => Self::Of(Box::new(KeyedLimiter::new(share, KEYS))),
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
