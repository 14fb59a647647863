//! [`Share`]: what a process admits on its own while the server is down.

use tidegate::{Cost, Decision, KeyedLimiter, Limit};

use super::WhenDown;

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

    /// Whether `caller` may spend `cost`; charges it if so. `None` is a denial without a limit.
    pub(crate) fn decide(&self, caller: &str, cost: Cost) -> Option<Decision> {
        match self {
            Self::Deny => None,
            Self::Allow => Some(Decision::Allow(tidegate::Allowance::new(0, 0))),
            Self::Of(limiter) => Some(limiter.decide(caller, cost)),
        }
    }

    /// Undoes a decision that was just made.
    pub(crate) fn undo(&self, caller: &str, cost: Cost) {
        if let Self::Of(limiter) = self {
            let now = tidegate::Clock::now(limiter.clock());
            limiter.table().refund(limiter.key(caller), cost, now, now);
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
