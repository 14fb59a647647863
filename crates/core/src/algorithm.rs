//! Algorithms: how a limit's state moves. No threads, no storage, no clock.

mod fixed_window;
mod sliding_window_counter;
mod sliding_window_log;
mod token_bucket;

pub use fixed_window::{Calendar, Every, FixedWindow, Window};
pub use sliding_window_counter::SlidingWindowCounter;
pub use sliding_window_log::SlidingWindowLog;
pub use token_bucket::TokenBucket;

use crate::{Allowance, Cost, Denial, Timestamp};

/// A rate-limit algorithm whose whole state is one 64-bit word: the seam to build your own on.
///
/// The methods are pure: they look at a word and say what the next word would be. A storage (the
/// lone [`Limiter`](crate::Limiter), the keyed [`Table`](crate::Table)) swaps it in, and asks again
/// when another thread was first. So an algorithm is tested without threads, and runs on every
/// storage.
///
/// # What an algorithm promises
/// - The word `0` is the state of a key that was never seen.
/// - A word that is idle ([`idle_at`](Self::idle_at) is not after `now`) answers everything as the
///   word `0` does from then on. The table gives such a slot to another key.
/// - A `now` that is older than one seen before frees nothing.
/// - Denials change nothing, so `step` returns no word with them.
/// - Nothing panics, whatever the word holds.
///
/// The example `custom_algorithm` in this crate plugs one in.
pub trait Algorithm {
    /// Decides whether `cost` may be spent at `now`, and gives the word that says it was.
    fn step(&self, word: u64, cost: Cost, now: Timestamp) -> Step;

    /// Charges `cost` whether it fits or not: what a settled reservation used above its estimate.
    ///
    /// What does not fit is debt, and later decisions pay it off first.
    fn charge(&self, word: u64, cost: Cost, now: Timestamp) -> u64;

    /// Takes back `cost` of what was charged at `charged_at`.
    ///
    /// A refund never frees more than the charge still holds: what has been refilled or has expired
    /// since then is not freed twice.
    fn refund(&self, word: u64, cost: Cost, charged_at: Timestamp, now: Timestamp) -> u64;

    /// Frees up to `cost` of what was used and still counts at `now`, whenever it was charged.
    fn forgive(&self, word: u64, cost: Cost, now: Timestamp) -> u64 {
        self.refund(word, cost, now, now)
    }

    /// When this word is worth as much as the word `0`.
    fn idle_at(&self, word: u64) -> Timestamp;

    /// Whether this word is worth as much as the word `0`. Override where that is cheaper to tell
    /// than [`idle_at`](Self::idle_at).
    #[inline]
    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        self.idle_at(word) <= now
    }

    /// Any number that orders words as [`idle_at`](Self::idle_at) does, if that is cheaper.
    #[inline]
    fn idle_rank(&self, word: u64) -> u64 {
        self.idle_at(word).as_nanos()
    }
}

/// What an [`Algorithm`] answers to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Allowed, once `word` is swapped in.
    Allow {
        /// The next state.
        word: u64,
        /// What the caller is told.
        allowance: Allowance,
    },
    /// Denied; the state stays.
    Deny(Denial),
}
