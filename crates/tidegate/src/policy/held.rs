//! [`Held`]: the accounts that a policy's reservation was charged to.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_core::{Cost, HoldId, Key, Timestamp};

use super::{CostRule, Inner};
use crate::reservation::{Ledger, Reservation};

/// The accounts that a [`Reservation`] was charged to: one for each rule that counts LLM tokens, money or
/// concurrent calls. It keeps its policy alive, so a call may end long after it was allowed.
///
/// # What is settled
/// - Rules that count LLM tokens or money are charged what was used:
///   [`settle_usage`](Reservation::settle_usage) tells both. [`settle`](Reservation::settle) tells LLM
///   tokens; what was reserved in money then stays, unless it is zero, which cancels all. In a policy
///   that counts money only, it tells nano-units.
/// - Concurrent calls are one less, however the reservation ends.
pub struct Held {
    policy: Arc<Inner>,
    accounts: SmallVec<[Account; 2]>,
    usage: Option<Usage>,
}

/// What a call really used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// LLM tokens, of input and output.
    pub llm_tokens: u64,
    /// Nano-units of the policy's currency.
    pub nanos: u64,
}

/// What was charged by one rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Account {
    pub(super) rule: usize,
    pub(super) key: Key,
    pub(super) charged: Cost,
    /// The note of what is reserved, where that expires.
    pub(super) hold: Option<HoldId>,
}

impl Held {
    pub(super) fn new(policy: Arc<Inner>, accounts: impl IntoIterator<Item = Account>) -> Self {
        Self { policy, accounts: accounts.into_iter().collect(), usage: None }
    }

    /// What was charged by the first rule that counts LLM tokens, or else by the first that counts money.
    pub(super) fn estimate(&self) -> Cost {
        let of = |counts: fn(CostRule) -> bool| {
            self.accounts.iter().find(|account| counts(self.cost_rule(account)))
        };
        let first = of(|cost| cost == CostRule::LlmTokens)
            .or_else(|| of(|cost| matches!(cost, CostRule::Money(_))));
        first.map_or(Cost::ZERO, |account| account.charged)
    }

    fn cost_rule(&self, account: &Account) -> CostRule {
        self.policy.rules[account.rule].cost()
    }

    /// What was used of an account, when `used` was of the estimate.
    fn used(&self, account: &Account, used: Cost) -> Cost {
        let counts_tokens =
            || self.accounts.iter().any(|other| self.cost_rule(other) == CostRule::LlmTokens);
        match (self.cost_rule(account), self.usage) {
            (CostRule::Fixed(_), _) => Cost::ZERO,
            (CostRule::LlmTokens, Some(usage)) => Cost::new(usage.llm_tokens),
            (CostRule::Money(_), Some(usage)) => Cost::new(usage.nanos),
            (CostRule::Money(_), None) if counts_tokens() && used != Cost::ZERO => account.charged,
            (CostRule::LlmTokens | CostRule::Money(_), None) => used,
        }
    }
}

impl Reservation<Held> {
    /// Books what was really used, by each rule in its own unit: the rest is given back, or the excess
    /// charged.
    pub fn settle_usage(mut self, usage: Usage) {
        self.ledger_mut().usage = Some(usage);
    }
}

impl Ledger for Held {
    fn settle(&self, _: Cost, used: Cost, charged_at: Timestamp) {
        let now = self.policy.clock.now();
        for account in &self.accounts {
            let rule = &self.policy.rules[account.rule];
            let used = self.used(account, used);
            rule.settle((account.key, account.hold), account.charged, used, (charged_at, now));
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.accounts.iter().map(|account| self.policy.rules[account.rule].name());
        f.debug_tuple("Held").field(&rules.collect::<Vec<_>>()).finish()
    }
}
