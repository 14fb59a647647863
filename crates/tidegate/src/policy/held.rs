//! [`Held`]: the accounts that a policy's reservation was charged to.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_core::{Cost, HoldId, Key, Timestamp};

use super::Inner;
use crate::reservation::Ledger;

/// The accounts, one per rule that counts LLM tokens, that a [`Reservation`](crate::Reservation) was
/// charged to. It keeps its policy alive, so a call may end long after it was allowed.
pub struct Held {
    policy: Arc<Inner>,
    accounts: SmallVec<[Account; 2]>,
}

struct Account {
    rule: usize,
    key: Key,
    /// The note of what is reserved, where that expires.
    hold: Option<HoldId>,
}

impl Held {
    pub(super) fn new(
        policy: Arc<Inner>,
        accounts: impl IntoIterator<Item = (usize, Key, Option<HoldId>)>,
    ) -> Self {
        let account = |(rule, key, hold)| Account { rule, key, hold };
        let accounts = accounts.into_iter().map(account).collect();
        Self { policy, accounts }
    }
}

impl Ledger for Held {
    fn settle(&self, reserved: Cost, used: Cost, charged_at: Timestamp) {
        let now = self.policy.clock.now();
        for Account { rule, key, hold } in &self.accounts {
            self.policy.rules[*rule].settle((*key, *hold), reserved, used, (charged_at, now));
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.accounts.iter().map(|account| self.policy.rules[account.rule].name());
        f.debug_tuple("Held").field(&rules.collect::<Vec<_>>()).finish()
    }
}
