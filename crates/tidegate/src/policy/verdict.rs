//! [`Verdict`]: a policy's answer, with the standing of every rule.

use std::time::Duration;

use smallvec::SmallVec;
use tidegate_core::{Allowance, Cost, Decision, Denial, Key, Retry, Timestamp};

use super::engine::DecidedBy;
use super::rule::Applied;
use super::{Held, KeyPart, Rule};
use crate::reservation::Reservation;

/// A policy's answer to a call.
#[derive(Debug)]
#[must_use = "a verdict that nobody reads limits nothing"]
pub enum Verdict<'p> {
    /// The call may go on; every rule that applies was charged.
    Allow(Grant<'p>),
    /// The call may not go on; nothing was charged.
    Deny(Refusal<'p>),
}

impl<'p> Verdict<'p> {
    /// Whether the call may go on.
    pub const fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// How the rules that apply stand, in their order.
    pub fn standings(&self) -> &[Standing<'p>] {
        match self {
            Self::Allow(grant) => &grant.standings,
            Self::Deny(refusal) => &refusal.standings,
        }
    }
}

/// Four layers are on the stack; policies with more rules than that for one call are rare.
pub(super) type Standings<'p> = SmallVec<[Standing<'p>; 4]>;

/// An allowed call.
#[derive(Debug)]
pub struct Grant<'p> {
    standings: Standings<'p>,
    reservation: Option<Reservation<Held>>,
}

impl<'p> Grant<'p> {
    pub(super) fn new(standings: Standings<'p>, reservation: Option<Reservation<Held>>) -> Self {
        Self { standings, reservation }
    }

    /// How the rules that apply stand.
    #[must_use]
    pub fn standings(&self) -> &[Standing<'p>] {
        &self.standings
    }

    /// What was charged by an estimate, to be settled; `None` when no rule counts LLM tokens.
    #[must_use]
    pub fn into_reservation(self) -> Option<Reservation<Held>> {
        self.reservation
    }
}

/// A denied call.
#[derive(Debug)]
pub struct Refusal<'p> {
    rule: &'p Rule,
    reason: Reason<'p>,
    standings: Standings<'p>,
}

/// Why a rule denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'p> {
    /// The limit said so.
    Limit(Denial),
    /// The call does not have this part of the rule's key.
    MissingKey(&'p KeyPart),
    /// The rule counts LLM tokens, and the call does not say how many.
    MissingCost,
    /// The rule is on an [`Engine`](super::Engine) that does not answer, and
    /// [denies](super::WhenDown::Deny) then. It is not known whether the limit is spent.
    Unavailable {
        /// When it may be worth to come again.
        retry_after: Duration,
    },
}

impl<'p> Refusal<'p> {
    pub(super) const fn new(rule: &'p Rule, reason: Reason<'p>, standings: Standings<'p>) -> Self {
        Self { rule, reason, standings }
    }

    /// The rule that denied; of several, the one with the longest wait.
    #[must_use]
    pub const fn rule(&self) -> &'p Rule {
        self.rule
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason<'p> {
        self.reason
    }

    /// Whether and when the same call can succeed, as far as all rules are concerned.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self.reason {
            Reason::Limit(denial) => denial.retry(),
            Reason::Unavailable { retry_after } => Retry::After(retry_after),
            Reason::MissingKey(_) | Reason::MissingCost => Retry::Never,
        }
    }

    /// How the rules that apply stand.
    #[must_use]
    pub fn standings(&self) -> &[Standing<'p>] {
        &self.standings
    }
}

/// How a rule stands with a call's key, after the call.
///
/// Looked up when it is asked for, so what others have been charged since the call may count already.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'p> {
    pub(super) rule: &'p Rule,
    pub(super) applied: Applied,
    /// What is known already: what an engine told, or that this process denied.
    pub(super) told: Option<Decision>,
    pub(super) by: DecidedBy,
    /// The cost is not charged, and told as if it were.
    pub(super) is_foreseen: bool,
    pub(super) now: Timestamp,
}

impl<'p> Standing<'p> {
    /// How a rule stands before anything is charged.
    #[inline]
    pub(super) const fn new(rule: &'p Rule, applied: Applied, now: Timestamp) -> Self {
        Self { rule, applied, told: None, by: DecidedBy::Process, is_foreseen: false, now }
    }

    /// That the rule is this process's, or of those that share its file.
    #[inline]
    pub(super) const fn is_here(&self) -> bool {
        matches!(self.by, DecidedBy::Process)
    }

    #[inline]
    pub(super) const fn is_denied(&self) -> bool {
        matches!(self.told, Some(Decision::Deny(_)))
    }

    /// That what the call was charged here is settled when it ends. A dry run that would have denied was not
    /// charged, so there is nothing to settle.
    #[inline]
    pub(super) fn is_noted(&self) -> bool {
        self.rule.is_settled_later() && self.is_here() && !self.is_denied()
    }

    /// The rule.
    #[must_use]
    pub const fn rule(&self) -> &'p Rule {
        self.rule
    }

    /// The call's key, as the rule's table has it.
    #[must_use]
    pub const fn key(&self) -> Key {
        self.applied.seat.key()
    }

    /// Who decided on it.
    #[must_use]
    pub const fn decided_by(&self) -> DecidedBy {
        self.by
    }

    /// What the rule decided. In a denied call, a rule that would have allowed it stands as it did
    /// before.
    pub fn decision(&self) -> Decision {
        self.told.unwrap_or_else(|| {
            let standing = self.peek(0);
            let reset_after_ns = standing.reset_after().as_nanos() as u64;
            Decision::Allow(Allowance::new(standing.remaining(), reset_after_ns))
        })
    }

    /// The units still free.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        match &self.told {
            Some(told) => told.remaining(),
            None => self.peek(0).remaining(),
        }
    }

    /// The time until every unit is free again.
    #[must_use]
    pub fn reset_after(&self) -> Duration {
        self.decision().reset_after()
    }

    /// The time until one more unit is free than now; `None` when all of them are. Of a rule on an engine,
    /// which told only when all are, it may be sooner.
    #[must_use]
    pub fn more_after(&self) -> Option<Duration> {
        self.more_after_having(self.remaining())
    }

    /// As [`more_after`](Self::more_after), for who knows the units that [remain](Self::remaining).
    #[must_use]
    pub fn more_after_having(&self, remaining: u64) -> Option<Duration> {
        if let (Some(told), false) = (&self.told, self.is_here()) {
            return match told.denial().map(|denial| denial.retry()) {
                Some(Retry::After(wait)) => Some(wait),
                _ => Some(told.reset_after()).filter(|wait| !wait.is_zero()),
            };
        }
        match self.peek(remaining.saturating_add(1)) {
            Decision::Allow(_) => Some(Duration::ZERO),
            Decision::Deny(denial) => match denial.retry() {
                Retry::After(wait) => Some(wait),
                Retry::Never => None,
            },
        }
    }

    /// What so many units more would be told.
    fn peek(&self, units: u64) -> Decision {
        let foreseen = if self.is_foreseen { self.applied.cost } else { Cost::ZERO };
        let cost = Cost::new(foreseen.units().saturating_add(units));
        self.rule.peek(&self.applied.seat, cost, self.now)
    }
}

/// Whether the wait of one denial is longer than that of another. Never is longest.
pub(super) fn is_longer(one: Denial, other: Denial) -> bool {
    match (one.retry(), other.retry()) {
        (Retry::After(one), Retry::After(other)) => one > other,
        (Retry::Never, Retry::After(_)) => true,
        (_, Retry::Never) => false,
    }
}
