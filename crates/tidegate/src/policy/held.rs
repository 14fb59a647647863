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

    /// What was charged by the rules that count LLM tokens, or else by those that count money. A dry run
    /// of an engine may have charged nothing.
    pub(super) fn estimate(&self) -> Cost {
        let most = |counts: fn(CostRule) -> bool| {
            let charged = self.charges().filter(|(cost_rule, _)| counts(*cost_rule));
            charged.map(|(_, charged)| charged).max()
        };
        let tokens = most(|cost| cost == CostRule::LlmTokens);
        tokens.or_else(|| most(|cost| matches!(cost, CostRule::Money(_)))).unwrap_or(Cost::ZERO)
    }

    /// Books what was used of each charge.
    fn book(&self, charged_at: Timestamp, used: impl Fn((CostRule, Cost)) -> Cost) {
        let now = self.policy.clock.now();
        for account in &self.accounts {
            let rule = &self.policy.rules[account.rule];
            let used = used((rule.cost(), account.charged));
            rule.settle((account.key, account.hold), account.charged, used, (charged_at, now));
        }
        if let Some(on_hold) = &self.on_hold {
            let settled = on_hold.charged.iter().map(|(rule, charged)| {
                let rule = &self.policy.rules[*rule];
                rule.count_end(*charged);
                used((rule.cost(), *charged))
            });
            on_hold.hold.settle(&settled.collect::<SmallVec<[Cost; 2]>>());
        }
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
    /// What it was charged to, to be in another one: this one ends without a trace.
    pub(super) fn into_accounts(mut self) -> SmallVec<[Account; 2]> {
        std::mem::take(&mut self.ledger_mut().accounts)
    }

    /// Books what was really used, by each rule in its own unit: the rest is given back, or the excess
    /// charged.
    pub fn settle_usage(mut self, usage: Usage) {
        self.ledger_mut().usage = Some(usage);
        let reserved = self.reserved();
        self.settle(reserved); // each rule takes the usage in its place
    }
}

impl Reservation<Held> {
    /// Parts what is settled by its use from the call's places among concurrent calls, each of them to be ended
    /// at its own time: the use when it is known, the places when the answer has ended. A part that there is
    /// not is `None`.
    ///
    /// ```
    /// use tidegate::policy::{Call, Policy, Usage, Verdict};
    ///
    /// let policy = Policy::from_toml(
    ///     r#"
    ///     [[rule]]
    ///     name = "calls"
    ///     limit = "1 concurrent"
    ///     key = "global"
    ///
    ///     [[rule]]
    ///     name = "tokens"
    ///     limit = "100 per day"
    ///     key = "global"
    ///     cost = "llm-tokens"
    ///     "#,
    /// )?;
    /// let call = Call::new("POST", "/v1/chat").with_llm_tokens(40);
    /// let Verdict::Allow(grant) = policy.decide(&call) else { unreachable!() };
    /// let (used, place) = grant.into_reservation().expect("both").split_places();
    /// used.expect("tokens").settle_usage(Usage { llm_tokens: 7, nanos: 0 });
    /// assert!(!policy.peek(&call).is_allow(), "the answer is not over");
    /// drop(place);
    /// assert!(policy.peek(&call).is_allow());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn split_places(mut self) -> (Option<Self>, Option<Self>) {
        let charged_at = self.charged_at();
        let held = self.ledger_mut();
        let is_place = |account: &Account| {
            matches!(held.policy.rules[account.rule].cost(), CostRule::Fixed(_))
        };
        let (places, used): (SmallVec<[Account; 2]>, SmallVec<[Account; 2]>) =
            held.accounts.iter().copied().partition(is_place);
        if places.is_empty() {
            return (Some(self), None);
        }
        let places =
            Held { policy: held.policy.clone(), accounts: places, on_hold: None, usage: None };
        held.accounts = used;
        let is_used = !held.accounts.is_empty() || held.on_hold.is_some();
        // One that is empty ends without a trace.
        (is_used.then_some(self), Some(Self::new(places, Cost::ZERO, charged_at)))
    }
}

impl Ledger for Held {
    fn settle(&self, _: Cost, used: Cost, charged_at: Timestamp) {
        self.book(charged_at, |charge| self.used(charge, used));
    }

    fn keep(&self, _: Cost, charged_at: Timestamp) {
        self.book(charged_at, |(cost_rule, charged)| match cost_rule {
            CostRule::Fixed(_) => Cost::ZERO, // a concurrent call has ended
            CostRule::LlmTokens | CostRule::Money(_) => charged,
        });
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.accounts.iter().map(|account| self.policy.rules[account.rule].name());
        f.debug_tuple("Held").field(&rules.collect::<Vec<_>>()).finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::{Call, Policy, Verdict};

    use super::*;

    fn policy(rules: &[&str]) -> Policy {
        let rules = rules.iter().map(|rule| format!("[[rule]]\nkey = \"global\"\n{rule}\n"));
        Policy::from_toml(&rules.collect::<String>()).unwrap()
    }

    fn reserve(policy: &Policy) -> Reservation<Held> {
        match policy.decide(&Call::new("POST", "/").with_llm_tokens(40)) {
            Verdict::Allow(grant) => grant.into_reservation().unwrap(),
            Verdict::Deny(refusal) => panic!("{refusal:?}"),
        }
    }

    const CALLS: &str = "name = \"calls\"\nlimit = \"1 concurrent\"";
    const TOKENS: &str = "name = \"tokens\"\nlimit = \"100 per day\"\ncost = \"llm-tokens\"";

    #[test]
    fn a_place_is_free_when_its_own_part_has_ended_and_no_sooner() {
        let policy = policy(&[CALLS, TOKENS]);
        let call = Call::new("POST", "/").with_llm_tokens(93);
        let (used, place) = reserve(&policy).split_places();
        used.unwrap().settle(Cost::new(7));
        assert!(!policy.peek(&call).is_allow(), "the answer is not over");
        drop(place);
        assert!(policy.peek(&call).is_allow(), "seven were used");
    }

    #[test]
    fn a_part_that_there_is_not_is_none() {
        let (used, place) = reserve(&policy(&[CALLS])).split_places();
        assert!(used.is_none() && place.is_some());
        let (used, place) = reserve(&policy(&[TOKENS])).split_places();
        assert!(used.is_some() && place.is_none());
    }
}
