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
#[derive(Debug, Clone, Copy, Hash)]
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

    /// Remembers a denial, for as long as a lease lasts at most: something may be given back meanwhile.
    pub(crate) fn deny(&self, cost: Cost, denial: Denial, now: Timestamp, longest: Duration) {
        let wait = match denial.retry() {
            Retry::After(wait) => wait.min(longest),
            Retry::Never => longest,
        };
        let memo = Memo { cost: cost.units(), until: now + wait, denial, at: now };
        self.denied.store(Some(Arc::new(memo)));
    }

    /// The denial that holds still for such a cost.
    pub(crate) fn denial(&self, cost: Cost, now: Timestamp) -> Option<Denial> {
        let memo = self.denied.load();
        let memo = memo.as_ref().filter(|memo| now < memo.until && cost.units() >= memo.cost)?;
        let since = now.since(memo.at).as_nanos() as u64;
        let left = |wait: Duration| (wait.as_nanos() as u64).saturating_sub(since);
        let (remaining, reset) = (memo.denial.remaining(), left(memo.denial.reset_after()));
        Some(match memo.denial.retry() {
            Retry::After(wait) => Denial::exhausted(remaining, left(wait).max(1), reset),
            // A cost that is larger still fits at no time either.
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
