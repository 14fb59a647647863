//! Rate limits and LLM budgets that are exact, bounded and lock-free.
//!
//! ```text
//! a key, a cost   -> KeyedLimiter, Limiter -> Decision, Reservation
//! a call to an API -> Policy: rules, all or nothing -> Verdict, Reservation
//!                      |
//!                      v
//!                    tidegate_core: table slot -> algorithm step
//! ```
//!
//! - [`Limiter`]: one limit for the process. [`KeyedLimiter`]: one per key, of any type that hashes.
//! - [`Policy`](policy::Policy): layers of rules on calls to an API, from Rust or from a TOML file.
//! - [`SharedFile`]: all of these in a file, one for all processes of a machine, and for all restarts.
//! - [`Reservation`]: reserve an estimate, settle what was really used, exactly once.
//! - Algorithms: [`TokenBucket`], [`FixedWindow`] (with a [calendar](CalendarWindow) too),
//!   [`SlidingWindowCounter`], [`SlidingWindowLog`]; or any of them by name, as a [`Limit`].
//!
//! # Guarantees
//! Those of [`tidegate_core`]: no limit is ever exceeded, whatever the threads do; nothing locks;
//! memory is fixed when a limiter is made. On top of them:
//! - a call that is denied by one rule is charged by none;
//! - a reservation ends exactly once; debt is carried, not forgiven;
//! - a policy file that does not say exactly what it means is refused.

#![deny(unsafe_code)] // but in `pages`

/// The README's example runs as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

mod client;
pub mod policy;

mod counts;
mod keyed;
mod limiter;
mod reservation;

mod calendar;
mod clock;
mod concurrency;
mod limit;
mod memory;
mod money;
mod pages;
mod rate;
mod shared;

pub use calendar::{CalendarUnit, CalendarWindow, UnknownZone};
pub use client::{TrustedProxies, masked};
pub use clock::{Clock, CoarseClock, FakeClock, SystemClock};
pub use counts::Counts;
pub use keyed::{Account, KeyedLimiter};
pub use limit::{AlgorithmName, Limit, LimitError, UnknownAlgorithm};
pub use limiter::Limiter;
pub use memory::Memory;
pub use money::{Currency, CurrencyError, Money, MoneyError};
pub use pages::{Pages, Shareable};
pub use rate::{Period, Rate, RateError};
pub use reservation::{Ledger, Reservation};
pub use shared::{
    ExpiringAccount, SharedClock, SharedFile, SharedFileError, SharedHolds, SharedTable,
};

pub use tidegate_core as core;
pub use tidegate_core::{
    Allowance, Cause, Cost, Decision, Denial, Fault, FixedWindow, Key, LiveKey, Protocol, Quota,
    QuotaError, Retry, SlidingWindowCounter, SlidingWindowLog, Tally, Timestamp, TokenBucket,
    WhenFull,
};
