//! [`Answer`]: what the server decided.

use smallvec::SmallVec;
use tidegate::{Decision, Denial, Retry};

use tidegate::policy::DecidedBy;

/// What the server decided on the layers of a call.
#[derive(Debug, Clone)]
#[must_use = "an answer that nobody reads limits nothing"]
pub struct Answer {
    pub(crate) decisions: SmallVec<[Decision; 4]>,
    /// One bit for each layer that is not a dry run.
    pub(crate) enforced: u64,
    pub(crate) decided_by: SmallVec<[DecidedBy; 4]>,
}

impl Answer {
    /// Whether the call may go on. If so, every layer was charged.
    #[must_use]
    pub fn is_allow(&self) -> bool {
        self.denials().next().is_none()
    }

    /// What each layer decided, in their order. In a denied call, one that would have allowed it stands as
    /// it did before.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// The layer that denied, by its place, and its denial; of several, the one with the longest wait.
    #[must_use]
    pub fn denial(&self) -> Option<(usize, Denial)> {
        self.denials().max_by_key(|(_, denial)| match denial.retry() {
            Retry::After(wait) => wait.as_nanos(),
            Retry::Never => u128::MAX,
        })
    }

    /// Who decided on each layer, in their order.
    #[must_use]
    pub fn decided_by(&self) -> &[DecidedBy] {
        &self.decided_by
    }

    fn denials(&self) -> impl Iterator<Item = (usize, Denial)> {
        let denials = self.decisions.iter().enumerate();
        let denials = denials.filter(|(index, _)| self.enforced >> index & 1 == 1);
        denials.filter_map(|(index, decision)| Some((index, decision.denial()?)))
    }
}
