//! [`Account`]: what this process has leased of one key, and what it was denied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use papaya::Equivalent;
use tidegate::core::Leased;
use tidegate::{Cost, Denial, Retry, Timestamp};
use tokio::sync::Mutex;

use crate::namespace::RemoteKey;
use crate::spec::Micros;

/// Whose account: the limit's place, and the caller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) limit: usize,
    pub(crate) caller: Box<str>,
}

/// The same, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OwnerRef<'a> {
    pub(crate) limit: usize,
    pub(crate) caller: &'a str,
}

impl Equivalent<Owner> for OwnerRef<'_> {
    fn equivalent(&self, owner: &Owner) -> bool {
        self.limit == owner.limit && self.caller == &*owner.caller
    }
}

/// A hot key's account. All of a process's threads spend from its one word.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) key: RemoteKey,
    pub(crate) leased: Leased,
    /// Held by who renews the lease, so that one does, and the others wait for it.
    pub(crate) renewal: Arc<Mutex<Renewal>>,
    denied: ArcSwapOption<Memo>,
    /// Until when nothing can be leased, so calls ask one by one, without waiting for each other: in ns.
    one_by_one_until: AtomicU64,
    /// Whether anybody has called since this was last looked at.
    called: AtomicBool,
}

/// The lease that is in the word.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    pub(crate) lease: Option<Lease>,
    /// The account is given up: who finds it looks for another.
    pub(crate) is_closed: bool,
    /// Units that were left when the account was last looked at.
    pub(crate) seen: u64,
    /// How often in a row nobody had called.
    pub(crate) idle_looks: u32,
}

/// What was leased.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) units: u64,
    pub(crate) charged_at: Micros,
    pub(crate) hold: u128,
}

/// A denial, remembered for a while.
#[derive(Debug)]
struct Memo {
    cost: u64,
    until: Timestamp,
    denial: Denial,
    at: Timestamp,
}

impl Account {
    pub(crate) fn new(key: RemoteKey) -> Self {
        Self {
            key,
            leased: Leased::new(),
            renewal: Arc::default(),
            denied: ArcSwapOption::empty(),
            one_by_one_until: AtomicU64::new(0),
            called: AtomicBool::new(true),
        }
    }

    /// Remembers a denial that came `now`, for as long as a lease lasts at most: something may be given back
    /// meanwhile.
    pub(crate) fn deny(&self, cost: Cost, denial: Denial, now: Timestamp, longest: Duration) {
        let wait = match denial.retry() {
            Retry::After(wait) => wait.min(longest),
            Retry::Never => longest,
        };
        let memo = Memo { cost: cost.units(), until: now + wait, denial, at: now };
        self.denied.store(Some(Arc::new(memo)));
    }

    /// The denial that holds still for such a cost. Of a larger one, only that it never fits is known: how
    /// long it must wait the server knows.
    pub(crate) fn denial(&self, cost: Cost, now: Timestamp) -> Option<Denial> {
        let memo = self.denied.load();
        let is_of = |memo: &Memo| match memo.denial.retry() {
            Retry::After(_) => cost.units() == memo.cost,
            Retry::Never => cost.units() >= memo.cost,
        };
        let memo = memo.as_ref().filter(|memo| now < memo.until && is_of(memo))?;
        let since = now.since(memo.at).as_nanos() as u64;
        let left = |wait: Duration| (wait.as_nanos() as u64).saturating_sub(since);
        let (remaining, reset) = (memo.denial.remaining(), left(memo.denial.reset_after()));
        Some(match memo.denial.retry() {
            Retry::After(wait) => Denial::exhausted(remaining, left(wait).max(1), reset),
            Retry::Never => Denial::oversized(remaining, reset),
        })
    }

    /// Lets calls ask one by one for a while.
    pub(crate) fn ask_one_by_one(&self, until: Timestamp) {
        self.one_by_one_until.store(until.as_nanos(), Ordering::Relaxed); // a lone value
    }

    pub(crate) fn is_one_by_one(&self, now: Timestamp) -> bool {
        now.as_nanos() < self.one_by_one_until.load(Ordering::Relaxed) // a lone value
    }

    pub(crate) fn note_call(&self) {
        // A load first, so that threads share the line.
        if !self.called.load(Ordering::Relaxed) {
            self.called.store(true, Ordering::Relaxed); // a lone flag
        }
    }

    /// Whether anybody has called since this was last asked.
    pub(crate) fn was_called(&self) -> bool {
        self.called.swap(false, Ordering::Relaxed) // a lone flag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Namespace, RemoteLimit};

    const AT: Timestamp = Timestamp::from_secs(100);
    const SECOND: Duration = Duration::from_secs(1);

    fn denied(cost: u64, denial: Denial) -> Account {
        let users = "token-bucket, 10 per second, burst 10".parse().unwrap();
        let users = RemoteLimit::new(&Namespace::new("shop").unwrap(), "user", users).unwrap();
        let account = Account::new(users.key("alice"));
        account.deny(Cost::new(cost), denial, AT, 10 * SECOND);
        account
    }

    #[test]
    fn a_denial_tells_the_wait_that_is_left() {
        let account = denied(3, Denial::exhausted(2, 4_000_000_000, 6_000_000_000));
        let told = account.denial(Cost::new(3), AT + SECOND).unwrap();
        assert_eq!(told, Denial::exhausted(2, 3_000_000_000, 5_000_000_000));
        assert!(account.denial(Cost::new(3), AT + 4 * SECOND).is_none(), "it has room by then");
    }

    /// It must wait longer, and nobody here knows how long; a smaller one may have room.
    #[test]
    fn a_denial_says_nothing_of_other_costs() {
        let account = denied(3, Denial::exhausted(2, 4_000_000_000, 6_000_000_000));
        for cost in [1, 2, 4, 100] {
            assert!(account.denial(Cost::new(cost), AT).is_none(), "{cost}");
        }
    }

    #[test]
    fn what_never_fits_does_not_fit_either_when_it_costs_more() {
        let account = denied(30, Denial::oversized(2, 6_000_000_000));
        for (cost, is_known) in [(29, false), (30, true), (31, true)] {
            let told = account.denial(Cost::new(cost), AT);
            assert_eq!(told, is_known.then(|| Denial::oversized(2, 6_000_000_000)), "{cost}");
        }
    }
}
