//! A table as people look at it: its live keys, and whether it is sound.

use super::mend::is_one_key;
use super::set;
use super::slot::{self, SLOTS, SlotCell};
use super::{Line, Storage, Table};
use crate::protocol::Protocol;
use crate::{Cost, Decision, Timestamp};

/// A live key of a [`Table`], which the table knows by its fingerprint only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveKey {
    /// The low 46 bits of the key's hash.
    pub fingerprint: u64,
    /// How it stands: what a peek at a cost of zero tells.
    pub standing: Decision,
}

/// What a slot of a sound [`Table`] cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Two slots are live for one key, of which the second is never found. (Of two keys that share a
    /// fingerprint and a set, one in 2^37 pairs in a set, the table knows only one.)
    TwoSlots {
        /// The first slot.
        first: usize,
        /// The second.
        second: usize,
    },
    /// A key that is not idle again until after the time that was asked about.
    TooLate {
        /// The slot.
        slot: usize,
        /// When it is idle.
        idle_at: Timestamp,
    },
}

impl<P: Protocol, S: Storage> Table<P, S> {
    /// Tells of each live key (not idle) how it stands at `now`. Looks at every slot, and writes nothing.
    pub fn each_live(&self, now: Timestamp, mut each: impl FnMut(LiveKey)) {
        for (index, slot) in self.storage.lines().iter().flat_map(Line::slots).enumerate() {
            let head = slot::load(slot);
            if !head.is_live() || self.protocol.is_idle(head.word, now) {
                continue;
            }
            let Some(ring) = self.ring(index) else { continue };
            let cell = SlotCell::new(slot, head.tag, ring);
            // `None` when it changes hands just now.
            if let Some(standing) = self.protocol.peek(&cell, head.word, Cost::ZERO, now) {
                each(LiveKey { fingerprint: slot::key_bits(head), standing });
            }
        }
    }

    /// Tells what no call leaves behind, wherever its thread or process stops: two live slots of one key,
    /// and keys that are not idle again until after `latest`. Looks at every slot while nobody else
    /// writes; otherwise, a key that moves between slots may be told of.
    pub fn verify(&self, latest: Timestamp, mut each: impl FnMut(Fault)) {
        let lines = self.storage.lines();
        for first_line in (0..self.whole_sets).step_by(set::LINES) {
            let (first, end) = set::set_of(first_line, self.whole_sets);
            let slots = || lines[first..end].iter().flat_map(Line::slots).enumerate();
            for (index, slot) in slots() {
                let (index, head) = (first * SLOTS + index, slot::load(slot));
                if !head.is_live() {
                    continue;
                }
                let idle_at = self.protocol.idle_at(head.word);
                if idle_at > latest {
                    each(Fault::TooLate { slot: index, idle_at });
                }
                for (other, slot) in slots().skip(index - first * SLOTS + 1) {
                    if is_one_key(head, slot::load(slot)) {
                        each(Fault::TwoSlots { first: index, second: first * SLOTS + other });
                    }
                }
            }
        }
    }
}
