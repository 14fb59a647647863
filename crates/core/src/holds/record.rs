//! [`Hold`]: the memory of one hold.
//!
//! # Orderings
//! Heads are loaded `Acquire` and swapped `AcqRel`. A record's fields are written between the swap to
//! `Claimed` and the swap to `Held`, so who sees the latter sees them, and may load them `Relaxed`. That
//! they are still the same is seen from their generation, and from the head that is swapped after.
//!
//! Without these orders, who sees a hold might find fields of an earlier generation, and would take the
//! hold for one that is not there yet: no model can tell that from one that is seen late, and nothing is
//! given back or settled twice by it. The orders keep a hold from being overlooked by who renews it.

use super::Held;
use crate::sync::{AtomicU128, Ordering};
use crate::{Cost, Key, Timestamp};

/// The record of one hold, in one cache line: a head, and three fields, each swapped as one together
/// with the generation of the hold that it belongs to.
///
/// Zeroed memory is a record that is free.
#[derive(Debug)]
#[repr(align(64))]
pub struct Hold {
    head: AtomicU128,
    key: AtomicU128,
    cost: AtomicU128,
    charged_at: AtomicU128,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Hold>() == 64);

/// A record's head:
///
/// | bits | field |
/// |---|---|
/// | 62, high | generation: one more at each claim |
/// | 2 | phase |
/// | 64, low | until when the phase lasts, ns |
///
/// | phase | the record | until |
/// |---|---|---|
/// | `Free` | may be claimed | 0 |
/// | `Claimed` | is its owner's, who writes the fields | it is free again |
/// | `Held` | notes a charge | the hold expires |
///
/// Any other bits in the place of the phase count as `Free`. Generations do not wrap: 2^62 claims of one
/// record, at a nanosecond each, take 146 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    tag: u64,
    until_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Free = 0,
    Claimed = 1,
    Held = 2,
}

const PHASE_BITS: u32 = 2;
const PHASE: u64 = (1 << PHASE_BITS) - 1;

impl Head {
    pub(super) const fn phase(self) -> Phase {
        match self.tag & PHASE {
            1 => Phase::Claimed,
            2 => Phase::Held,
            _ => Phase::Free,
        }
    }

    pub(super) const fn until(self) -> Timestamp {
        Timestamp::from_nanos(self.until_ns)
    }

    /// The same generation in another phase.
    pub(super) const fn with(self, phase: Phase, until: Timestamp) -> Self {
        Self { tag: self.tag & !PHASE | phase as u64, until_ns: until.as_nanos() }
    }

    pub(super) const fn freed(self) -> Self {
        self.with(Phase::Free, Timestamp::ZERO)
    }

    /// Generation and phase.
    pub(super) const fn tag(self) -> u64 {
        self.tag
    }

    /// This head, if it is that of the hold with this tag, whenever that expires.
    pub(super) fn if_held_as(self, tag: u64) -> Option<Self> {
        (self.tag == tag && self.phase() == Phase::Held).then_some(self)
    }

    const fn generation(self) -> u64 {
        self.tag >> PHASE_BITS
    }

    const fn of_generation(generation: u64) -> Self {
        Self { tag: generation << PHASE_BITS, until_ns: 0 }
    }
}

const fn pack(high: u64, low: u64) -> u128 {
    (high as u128) << 64 | low as u128
}

const fn unpack(bits: u128) -> (u64, u64) {
    ((bits >> 64) as u64, bits as u64)
}

impl Hold {
    /// A record that is free.
    #[cfg(not(any(loom, shuttle)))]
    #[must_use]
    pub const fn new() -> Self {
        let [head, key, cost, charged_at] = [const { AtomicU128::new(0) }; 4];
        Self { head, key, cost, charged_at }
    }

    /// A record that is free.
    #[cfg(any(loom, shuttle))]
    #[must_use]
    pub fn new() -> Self {
        let [head, key, cost, charged_at] = std::array::from_fn(|_| AtomicU128::new(0));
        Self { head, key, cost, charged_at }
    }

    pub(super) fn load(&self) -> Head {
        let (tag, until_ns) = unpack(self.head.load(Ordering::Acquire));
        Head { tag, until_ns }
    }

    pub(super) fn swap(&self, from: Head, to: Head) -> Result<(), ()> {
        let (from, to) = (pack(from.tag, from.until_ns), pack(to.tag, to.until_ns));
        let swapped = self.head.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        swapped.map(drop).map_err(drop)
    }

    /// Claims the record, if it is free by `now`, and writes its fields.
    pub(super) fn claim(&self, held: Held, now: Timestamp, until: Timestamp) -> Option<Head> {
        let head = self.load();
        match head.phase() {
            Phase::Held => return None,
            Phase::Claimed if head.until() > now => return None,
            Phase::Claimed | Phase::Free => {}
        }
        let next = head.generation().wrapping_add(1); // does not wrap, see `Head`
        let claimed = Head::of_generation(next).with(Phase::Claimed, until);
        self.swap(head, claimed).ok()?;
        let values = [held.key.hash(), held.cost.units(), held.charged_at.as_nanos()];
        let is_written = |(field, value)| write(field, claimed.generation(), value);
        // The claim is left to time out if the fields are a later owner's.
        self.fields().into_iter().zip(values).all(is_written).then_some(claimed)
    }

    /// What is held, if the head is that of a hold, and is not seen to have changed.
    pub(super) fn read(&self, head: Head) -> Option<Held> {
        if head.phase() != Phase::Held {
            return None;
        }
        let [key, cost, charged_at] = self.fields().map(|field| {
            let (generation, value) = unpack(field.load(Ordering::Relaxed)); // see the module's docs
            (generation == head.generation()).then_some(value)
        });
        Some(Held {
            key: Key::from_hash(key?),
            cost: Cost::new(cost?),
            charged_at: Timestamp::from_nanos(charged_at?),
        })
    }

    /// Frees the record whatever is in it, in a generation that none of its fields has reached.
    pub(super) fn reset(&self) {
        let of_fields = self.fields().map(|field| unpack(field.load(Ordering::Relaxed)).0);
        let head = self.load();
        let latest = of_fields.into_iter().fold(head.generation(), u64::max);
        // Nobody else is there, so this comes through, and the order is of no matter.
        let _ = self.swap(head, Head::of_generation(latest));
    }

    fn fields(&self) -> [&AtomicU128; 3] {
        [&self.key, &self.cost, &self.charged_at]
    }
}

/// Writes a field of this generation; `false` when it is a later one's by now. Each failed swap means
/// that somebody of a former generation, who was stopped here, has come back, so there are few.
fn write(field: &AtomicU128, generation: u64, value: u64) -> bool {
    let mut current = field.load(Ordering::Relaxed); // see the module's docs
    while unpack(current).0 < generation {
        let next = pack(generation, value);
        // Relaxed: the head publishes it.
        match field.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(other) => current = other,
        }
    }
    false
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    /// A power failure may leave the head of an earlier time beside fields of a later.
    #[test]
    fn a_record_that_was_reset_is_used_again_whatever_its_fields_had_reached() {
        let (hold, now) = (Hold::new(), Timestamp::from_secs(1_000));
        let held = |units| Held { key: Key::from_hash(1), cost: Cost::new(units), charged_at: now };
        for units in 0..3 {
            let claimed = hold.claim(held(units), now, now).unwrap();
            hold.swap(claimed, claimed.freed()).unwrap();
        }
        hold.swap(hold.load(), Head::of_generation(1)).unwrap();
        hold.reset();
        let claimed =
            hold.claim(held(7), now, now).expect("it is free, and its fields are written");
        let head = claimed.with(Phase::Held, now);
        hold.swap(claimed, head).unwrap();
        assert_eq!(hold.read(head), Some(held(7)));
    }

    #[test]
    fn bits_that_are_no_phase_are_free() {
        let head = Head { tag: 5 << PHASE_BITS | 3, until_ns: 7 };
        assert_eq!((head.phase(), head.generation()), (Phase::Free, 5));
        for phase in [Phase::Free, Phase::Claimed, Phase::Held] {
            assert_eq!(head.with(phase, head.until()).phase(), phase);
        }
    }
}
