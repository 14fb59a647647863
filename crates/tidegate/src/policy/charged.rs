//! [`Charged`]: what an allowed call was charged at fixed costs.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use tidegate_core::Timestamp;

use super::Inner;
use super::rule::Applied;

/// What an allowed call was charged by rules at fixed costs, to be taken back when somebody else refuses
/// the call after all.
///
/// For layers that are asked one after the other, each as a policy of its own: so a call that a later
/// layer denies is charged by none, as it is within one policy. Dropping it leaves the charges as they
/// are. What was reserved for LLM tokens is not in it, but in the call's
/// [`Reservation`](crate::Reservation).
///
/// ```
/// use tidegate::policy::{Call, Policy, Verdict};
///
/// let policy = Policy::from_toml("[[rule]]\nname = \"user\"\nlimit = \"1 per hour\"\nkey = \"user\"")?;
/// let call = Call::new("POST", "/chat").by_user("alice");
/// let Verdict::Allow(grant) = policy.decide(&call) else { unreachable!() };
/// let charged = policy.charged(&grant);
/// assert!(!policy.peek(&call).is_allow());
/// charged.take_back();
/// assert!(policy.peek(&call).is_allow());
/// # Ok::<(), tidegate::policy::FileError>(())
/// ```
#[must_use = "what is not taken back stays charged"]
pub struct Charged {
    policy: Arc<Inner>,
    charges: SmallVec<[(usize, Applied, Timestamp); 2]>,
}

impl Charged {
    pub(super) fn new(
        policy: Arc<Inner>,
        charges: impl Iterator<Item = (usize, Applied, Timestamp)>,
    ) -> Self {
        Self { policy, charges: charges.collect() }
    }

    /// Takes the charges back.
    pub fn take_back(self) {
        let now = self.policy.clock.now();
        for (rule, applied, charged_at) in &self.charges {
            self.policy.rules[*rule].refund(applied, *charged_at, now);
        }
    }
}

impl fmt::Debug for Charged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.charges.iter().map(|(rule, ..)| self.policy.rules[*rule].name());
        f.debug_tuple("Charged").field(&rules.collect::<Vec<_>>()).finish()
    }
}
