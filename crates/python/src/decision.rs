//! [`Decision`]: the answer to "may this key spend that now?".

use pyo3::prelude::*;
use tidegate::{Cause, Retry};

use crate::clock::rounded_up;

/// An answer: whether a key may spend a cost now, and what is left.
///
/// It is true where a truth value is wanted if the call may go on.
#[pyclass(frozen, eq, get_all, module = "tidegate")]
#[derive(PartialEq, Clone)]
pub(crate) struct Decision {
    /// Whether the call may go on.
    allowed: bool,
    /// The units still free.
    remaining: u64,
    /// After how many seconds a denied call can succeed, rounded up; None when it is allowed, or never
    /// can.
    retry_after: Option<f64>,
    /// The seconds until every unit is free again, rounded up.
    reset_after: f64,
    /// Why it was denied: "exhausted", "oversized" or "table-full"; None when it is allowed.
    cause: Option<&'static str>,
}

impl Decision {
    pub(crate) fn of(decision: tidegate::Decision) -> Self {
        let denial = decision.denial();
        let retry_after = denial.and_then(|denial| match denial.retry() {
            Retry::After(wait) => Some(rounded_up(wait)),
            Retry::Never => None,
        });
        Self {
            allowed: denial.is_none(),
            remaining: decision.remaining(),
            retry_after,
            reset_after: rounded_up(decision.reset_after()),
            cause: denial.map(|denial| cause_name(denial.cause())),
        }
    }
}

pub(crate) const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Oversized => "oversized",
        Cause::TableFull => "table-full",
        _ => "exhausted",
    }
}

#[pymethods]
impl Decision {
    fn __bool__(&self) -> bool {
        self.allowed
    }

    fn __repr__(&self) -> String {
        let Self { remaining, reset_after, .. } = self;
        match (self.cause, self.retry_after) {
            (None, _) => {
                format!("Decision(allowed, remaining={remaining}, reset_after={reset_after})")
            }
            (Some(cause), None) => format!("Decision(denied: {cause}, remaining={remaining})"),
            (Some(cause), Some(retry_after)) => format!(
                "Decision(denied: {cause}, remaining={remaining}, retry_after={retry_after}, \
                 reset_after={reset_after})"
            ),
        }
    }
}
