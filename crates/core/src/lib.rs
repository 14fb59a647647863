//! Rate limiting, lock-free and allocation-free: may this key spend this cost now?
//!
//! ```text
//! (key, cost, now) -> Table: the key's slot -> Algorithm: one step over a word -> Decision
//!                     Limiter: a lone word  ->
//! ```
//!
//! - An [`Algorithm`] is a pure step over one 64-bit word: [`TokenBucket`], [`FixedWindow`]. The two
//!   sliding windows, [`SlidingWindowCounter`] and [`SlidingWindowLog`], keep a ring of words beside it.
//! - A storage holds the words and swaps them: the lone [`Limiter`], the keyed [`Table`]. Every
//!   algorithm runs on every storage.
//!
//! # Guarantees
//! - **Exact under concurrency.** Each algorithm states a bound, and no interleaving of threads admits
//!   more.
//! - **Lock-free.** No step holds anything that others wait for. A thread that is stopped at any point
//!   leaves nothing locked and nothing over-admitted.
//! - **Bounded.** Memory is what the caller passes in. There is no allocation, no clock, no I/O, and
//!   no `unsafe`.
//! - **Denials only read.**
//! - **Time is an argument.** A `now` that stalls or steps back frees nothing.
//!
//! # What this crate does not do
//! It has no clock, does not hash keys, does not wait, and knows nothing of requests. For those, see
//! the `tidegate` crate.

#![cfg_attr(not(any(test, loom, shuttle)), no_std)]
#![forbid(unsafe_code)]

mod cost;
mod decision;
mod divisor;
mod quota;
mod sync;
mod time;

mod key;

mod holds;
mod lease;
mod leased;
mod limiter;
mod table;

mod algorithm;
mod protocol;

pub use algorithm::{
    Algorithm, Calendar, Every, FixedWindow, SlidingWindowCounter, SlidingWindowLog, Step,
    TokenBucket, Window,
};
pub use cost::Cost;
pub use decision::{Allowance, Cause, Decision, Denial, Retry};
pub use holds::{Held, Hold, HoldId, Holds};
pub use key::Key;
pub use lease::{Lease, Lender};
pub use leased::{Leased, Spent};
pub use limiter::Limiter;
pub use protocol::{Cell, Entry, Protocol, Swap};
pub use quota::{Quota, QuotaError};
pub use sync::AtomicU64;
pub use table::{
    Borrowed, Fault, Line, LiveKey, Seat, Storage, Table, TableError, Tally, WhenFull,
};
pub use time::Timestamp;

#[cfg(any(loom, shuttle))]
#[doc(hidden)]
pub use sync::model;
