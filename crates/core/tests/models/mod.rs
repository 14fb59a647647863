//! The plain models: each limit as a reader of its documentation would write it down, with no thought
//! of threads, words or speed.
#![allow(dead_code, unused_imports, reason = "each test uses some")]

mod epochs;
mod exact_bucket;
mod queue;
mod timestamps;
mod windows;

pub use epochs::Epochs;
pub use exact_bucket::ExactBucket;
pub use queue::Queue;
pub use timestamps::Timestamps;
pub use windows::Windows;

use tidegate_core::{Cost, Timestamp};

/// A limit, one call after the other.
pub trait Model: Clone {
    /// Whether `cost` may be spent at `now`.
    fn fits(&self, cost: Cost, now: Timestamp) -> bool;

    /// The units that are free at `now`.
    fn remaining(&self, now: Timestamp) -> u64;

    /// Charges `cost`, whether it fits or not.
    fn charge(&mut self, cost: Cost, now: Timestamp);

    /// Takes back `cost` of what was charged at `charged_at`.
    fn refund(&mut self, cost: Cost, charged_at: Timestamp, now: Timestamp);

    /// Whether `cost` may be spent at `now`; charges it if so.
    fn decide(&mut self, cost: Cost, now: Timestamp) -> bool {
        let fits = self.fits(cost, now);
        if fits && cost > Cost::ZERO {
            self.charge(cost, now);
        }
        fits
    }
}
