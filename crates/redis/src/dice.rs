//! [`Dice`]: random numbers that need not be secret.

use std::sync::atomic::{AtomicU64, Ordering};

/// Random numbers for jitter, and for names that no other node uses.
#[derive(Debug)]
pub(crate) struct Dice {
    node: u64,
    rolls: AtomicU64,
}

impl Dice {
    pub(crate) fn new() -> Self {
        let (node, rolls) = (random(), random());
        Self { node, rolls: AtomicU64::new(rolls) }
    }

    pub(crate) fn roll(&self) -> u32 {
        (mixed(self.next()) >> 32) as u32
    }

    /// A name that is used once: a random number of this node, and a count.
    pub(crate) fn name(&self) -> u128 {
        u128::from(self.node) << 64 | u128::from(self.next())
    }

    fn next(&self) -> u64 {
        self.rolls.fetch_add(1, Ordering::Relaxed) // each value once, in whatever order
    }
}

fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
