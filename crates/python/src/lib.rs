//! Python bindings to `tidegate`: what `import tidegate` gets, and no logic of its own.
//!
//! ```text
//! a key (str, bytes, int) -> Limiter, RateLimiter, TokenBudget -> bool, Decision, Reservation
//! an ASGI scope           -> Policy -> Verdict: fields and body of the answer
//! the package `limits`    -> Storage
//!                             |
//!                             v
//!                           tidegate: KeyedLimiter, SharedHolds, Policy, Counts
//! ```
//!
//! - Keys are hashed where Python has them, without a copy. The clock is read once per call.
//! - A server that machines share is waited for without the interpreter's lock, or awaited.
//! - Nothing else is locked, so nothing waits for the interpreter's lock, or with it; calls of some tens of
//!   nanoseconds do not give it up. All classes are frozen, so they need no lock without it either.
//! - Errors are exceptions that say what to write instead. Nothing panics.

#![forbid(unsafe_code)]

mod client;
mod key;
mod units;

mod clock;
mod limiter;
mod options;

mod decision;
mod reservation;

mod remote;

mod policy;
mod scope;
mod verdict;

mod storage;

mod error;

/// The extension module.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::client::TrustedProxies;
    #[pymodule_export]
    use crate::clock::FakeClock;
    #[pymodule_export]
    use crate::decision::Decision;
    #[pymodule_export]
    use crate::error::{FileMismatch, LimitExceeded, PolicyError, ServerUnavailable};
    #[pymodule_export]
    use crate::limiter::{Limiter, RateLimiter, TokenBudget};
    #[pymodule_export]
    use crate::policy::Policy;
    #[pymodule_export]
    use crate::reservation::Reservation;
    #[pymodule_export]
    use crate::storage::Storage;
    #[pymodule_export]
    use crate::verdict::{Standing, Verdict};
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
