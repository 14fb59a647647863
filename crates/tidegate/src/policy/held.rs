//! [`Held`]: the accounts that a policy's reservation was charged to.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_core::{Cost, HoldId, Key, Timestamp};

use super::{CostRule, EngineHold, Inner};
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
    /// What an engine holds. Boxed: calls without one move a reservation about, too.
    on_hold: Option<Box<OnHold>>,
    usage: Option<Usage>,
}

/// What an engine charged by an estimate, and by which rules.
pub(super) struct OnHold {
    pub(super) hold: Arc<dyn EngineHold>,
    pub(super) charged: SmallVec<[(usize, Cost); 2]>,
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
    pub(super) fn new(
        policy: Arc<Inner>,
        accounts: impl IntoIterator<Item = Account>,
        on_hold: Option<Box<OnHold>>,
    ) -> Self {
        Self { policy, accounts: accounts.into_iter().collect(), on_hold, usage: None }
    }

    /// By what each rule counts, and what it was charged.
    fn charges(&self) -> impl Iterator<Item = (CostRule, Cost)> {
        let here = self.accounts.iter().map(|account| (account.rule, account.charged));
        let elsewhere = self.on_hold.iter().flat_map(|on_hold| on_hold.charged.iter().copied());
        here.chain(elsewhere).map(|(rule, charged)| (self.policy.rules[rule].cost(), charged))
    }

    /// What was charged by the first rule that counts LLM tokens, or else by the first that counts money.
    pub(super) fn estimate(&self) -> Cost {
        let of =
            |counts: fn(CostRule) -> bool| self.charges().find(|(cost_rule, _)| counts(*cost_rule));
        let first = of(|cost| cost == CostRule::LlmTokens)
            .or_else(|| of(|cost| matches!(cost, CostRule::Money(_))));
        first.map_or(Cost::ZERO, |(_, charged)| charged)
    }

    /// What was used of a charge, when `used` was of the estimate.
    fn used(&self, (cost_rule, charged): (CostRule, Cost), used: Cost) -> Cost {
        let counts_tokens = || self.charges().any(|(other, _)| other == CostRule::LlmTokens);
        match (cost_rule, self.usage) {
            (CostRule::Fixed(_), _) => Cost::ZERO,
            (CostRule::LlmTokens, Some(usage)) => Cost::new(usage.llm_tokens),
            (CostRule::Money(_), Some(usage)) => Cost::new(usage.nanos),
            (CostRule::Money(_), None) if counts_tokens() && used != Cost::ZERO => charged,
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
            let used = self.used((rule.cost(), account.charged), used);
            rule.settle((account.key, account.hold), account.charged, used, (charged_at, now));
        }
        if let Some(on_hold) = &self.on_hold {
            let settled = on_hold.charged.iter().map(|(rule, charged)| {
                let rule = &self.policy.rules[*rule];
                rule.count_end(*charged);
                self.used((rule.cost(), *charged), used)
            });
            on_hold.hold.settle(&settled.collect::<SmallVec<[Cost; 2]>>());
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.accounts.iter().map(|account| self.policy.rules[account.rule].name());
        f.debug_tuple("Held").field(&rules.collect::<Vec<_>>()).finish()
    }
}
