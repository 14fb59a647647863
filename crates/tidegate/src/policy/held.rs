//! [`Held`]: the accounts that a policy's reservation was charged to.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_core::{Cost, Key, Timestamp};

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
}

impl Held {
    pub(super) fn new(
        policy: Arc<Inner>,
        accounts: impl IntoIterator<Item = (usize, Key)>,
    ) -> Self {
        let accounts = accounts.into_iter().map(|(rule, key)| Account { rule, key }).collect();
        Self { policy, accounts }
    }
}

impl Ledger for Held {
    fn refund(&self, cost: Cost, charged_at: Timestamp) {
        let now = self.policy.clock.now();
        for Account { rule, key } in &self.accounts {
            self.policy.rules[*rule].table().refund(*key, cost, charged_at, now);
        }
    }

    fn charge(&self, cost: Cost) {
        let now = self.policy.clock.now();
        for Account { rule, key } in &self.accounts {
            // When the key's slot is gone and there is none for it, the rule's tally counts it.
            let _ = self.policy.rules[*rule].table().charge(*key, cost, now);
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.accounts.iter().map(|account| self.policy.rules[account.rule].name());
        f.debug_tuple("Held").field(&rules.collect::<Vec<_>>()).finish()
    }
}
