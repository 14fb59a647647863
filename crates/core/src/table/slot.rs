//! Slots: 16-byte heads, four to a cache line.
//!
//! # Orderings
//! Heads are loaded `Acquire` and swapped `AcqRel`. For an algorithm of one word nothing more than
//! the head itself is needed; for those with a ring, who sees a head sees the ring as it was when the
//! head was swapped in. The claim of a slot needs more, and says so there.
//! A model fails without each of these, but for the acquire of a swap that succeeds: the head that it replaces
//! was loaded with acquire before.

use crate::Key;
use crate::protocol::{Cell, Swap};
use crate::sync::{AtomicU64, AtomicU128, Ordering};

/// Heads in a cache line.
#[cfg(not(loom))]
pub(super) const SLOTS: usize = 4;
#[cfg(loom)]
pub(super) const SLOTS: usize = 2;

/// Four slots of a [`Table`](crate::Table), in one cache line.
///
/// ```
/// use tidegate_core::Line;
///
/// // Room for a million live keys at a load of 80.5%.
/// let lines: Vec<Line> = (0..Line::for_keys(1_000_000)).map(|_| Line::new()).collect();
/// assert_eq!(size_of_val(lines.as_slice()), 19_881_984);
/// ```
#[derive(Debug)]
#[repr(align(64))]
pub struct Line([AtomicU128; SLOTS]);

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    /// Slots in a line.
    pub const SLOTS: usize = SLOTS;

    /// A line of empty slots.
    #[cfg(not(any(loom, shuttle)))]
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU128::new(0) }; SLOTS])
    }

    /// A line of empty slots.
    #[cfg(any(loom, shuttle))]
    #[must_use]
    pub fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU128::new(0)))
    }

    /// Whether this machine swaps 16 bytes as one. Where it does not, a lock of the process stands in,
    /// so that memory shared between processes will not do.
    #[cfg(not(any(loom, shuttle)))]
    #[must_use]
    pub fn is_lock_free() -> bool {
        AtomicU128::is_lock_free()
    }

    pub(super) fn slots(&self) -> &[AtomicU128; SLOTS] {
        &self.0
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

/// A slot's head:
///
/// | bits | field |
/// |---|---|
/// | 46, high | fingerprint of the key |
/// | 16 | version: changes whenever the slot changes hands |
/// | 2 | state |
/// | 64, low | the algorithm's word |
///
/// | state | the slot |
/// |---|---|
/// | `EMPTY`, all bits zero | was never used |
/// | `EMPTY` | was given up; the word is what its ring was left with |
/// | `TENTATIVE` | is being claimed for the key; the word takes effect when it is live |
/// | `CLEARING` | the same, and the ring still holds units of the former key, which was live |
/// | `LIVE` | is the key's |
///
/// A version is never 0 once used, so only a slot that was never used is all zero. It returns after
/// 65,535 changes of hands: a thread would have to be stopped in the middle of a step for as long, and
/// then find the same key in the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tag: u64,
    pub(super) word: u64,
}

const EMPTY: u64 = 0;
const TENTATIVE: u64 = 1;
const LIVE: u64 = 2;
const CLEARING: u64 = 3;
const STATE: u64 = 0b11;
const VERSION_SHIFT: u32 = 2;
const VERSION: u64 = 0xffff << VERSION_SHIFT;
const FINGERPRINT_SHIFT: u32 = 18;

/// The fingerprint field of a tag for this key.
#[inline]
pub(super) const fn fingerprint(key: Key) -> u64 {
    key.hash() << FINGERPRINT_SHIFT
}

/// The bits of the key's hash that the fingerprint is.
pub(super) const fn key_bits(head: Head) -> u64 {
    head.tag >> FINGERPRINT_SHIFT
}

/// The tag of a live slot of a key, in any version.
#[derive(Debug, Clone, Copy)]
pub(super) struct LiveTag(u64);

#[inline]
pub(super) const fn live_tag(key: Key) -> LiveTag {
    LiveTag(fingerprint(key) | LIVE)
}

impl LiveTag {
    #[inline]
    pub(super) const fn is_of(self, head: Head) -> bool {
        (head.tag ^ self.0) & !VERSION == 0
    }
}

#[inline]
pub(super) fn load(slot: &AtomicU128) -> Head {
    Head::unpack(slot.load(Ordering::Acquire))
}

impl Head {
    #[inline]
    const fn unpack(bits: u128) -> Self {
        Self { tag: (bits >> 64) as u64, word: bits as u64 }
    }

    #[inline]
    const fn pack(self) -> u128 {
        (self.tag as u128) << 64 | self.word as u128
    }

    #[inline]
    pub(super) const fn is_unused(self) -> bool {
        self.tag == 0
    }

    #[inline]
    pub(super) const fn is_empty(self) -> bool {
        self.tag & STATE == EMPTY
    }

    #[inline]
    pub(super) const fn is_live(self) -> bool {
        self.tag & STATE == LIVE
    }

    /// Whether the slot is being claimed.
    #[inline]
    pub(super) const fn is_claim(self) -> bool {
        self.tag & TENTATIVE != 0
    }

    #[inline]
    pub(super) const fn is_clearing(self) -> bool {
        self.tag & STATE == CLEARING
    }

    #[inline]
    pub(super) const fn fingerprint(self) -> u64 {
        self.tag & !(VERSION | STATE)
    }

    /// The head of a claim of this slot for another key.
    pub(super) const fn claimed(self, fingerprint: u64, word: u64, clearing: bool) -> Self {
        let state = if clearing { CLEARING } else { TENTATIVE };
        Self { tag: fingerprint | self.next_version() | state, word }
    }

    /// The head of a claim that has come through.
    pub(super) const fn confirmed(self) -> Self {
        Self { tag: self.tag & !STATE | LIVE, word: self.word }
    }

    /// The head of a claim that is given up.
    pub(super) const fn given_up(self) -> Self {
        Self { tag: self.fingerprint() | self.next_version() | EMPTY, word: self.word }
    }

    /// Whether this is the head of the claim, now live.
    pub(super) const fn is_confirmed(self, claim: Self) -> bool {
        self.tag == claim.confirmed().tag
    }

    const fn next_version(self) -> u64 {
        let next = (self.tag & VERSION) + (1 << VERSION_SHIFT);
        if next > VERSION { 1 << VERSION_SHIFT } else { next }
    }
}

/// Swaps a whole head; `Err` is the head that was there.
#[inline]
pub(super) fn swap(slot: &AtomicU128, from: Head, to: Head) -> Result<(), Head> {
    slot.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire)
        .map(|_| ())
        .map_err(Head::unpack)
}

/// A slot as the [`Cell`] of the key, in the state, that its tag says: gone when the tag is another.
pub(super) struct SlotCell<'a> {
    slot: &'a AtomicU128,
    tag: u64,
    ring: &'a [AtomicU64],
}

impl<'a> SlotCell<'a> {
    #[inline]
    pub(super) fn new(slot: &'a AtomicU128, tag: u64, ring: &'a [AtomicU64]) -> Self {
        Self { slot, tag, ring }
    }

    /// What a head that is there instead says of this cell.
    #[cold]
    fn missed(&self, head: Head) -> Swap {
        if head.tag == self.tag { Swap::Changed(head.word) } else { Swap::Gone }
    }
}

impl Cell for SlotCell<'_> {
    #[inline]
    fn load(&self) -> Option<u64> {
        let head = load(self.slot);
        (head.tag == self.tag).then_some(head.word)
    }

    #[inline(always)]
    fn swap(&self, from: u64, to: u64) -> Swap {
        let tag = self.tag;
        match swap(self.slot, Head { tag, word: from }, Head { tag, word: to }) {
            Ok(()) => Swap::Done,
            Err(head) => self.missed(head),
        }
    }

    #[inline]
    fn ring(&self) -> &[AtomicU64] {
        self.ring
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_not_confirmed_by_a_later_one_of_the_same_key() {
        let key = fingerprint(Key::from_hash(7));
        let claim = Head { tag: 0, word: 0 }.claimed(key, 1, false);
        assert!(claim.confirmed().is_confirmed(claim));
        let later = claim.given_up().claimed(key, 1, false);
        for head in [claim, claim.given_up(), later, later.confirmed(), later.given_up()] {
            assert!(!head.is_confirmed(claim), "{head:?}");
        }
    }

    #[test]
    fn a_head_says_what_becomes_of_its_slot() {
        let key = fingerprint(Key::from_hash(7));
        for clearing in [false, true] {
            let claim = Head { tag: 0, word: 5 }.claimed(key, 6, clearing);
            assert!(claim.is_claim() && !claim.is_live() && !claim.is_empty());
            assert_eq!((claim.is_clearing(), claim.fingerprint(), claim.word), (clearing, key, 6));
            let live = claim.confirmed();
            assert!(live.is_live() && !live.is_claim() && !live.is_clearing());
            assert!(live_tag(Key::from_hash(7)).is_of(live));
            assert!(!live_tag(Key::from_hash(7)).is_of(claim));
            assert!(!live_tag(Key::from_hash(8)).is_of(live));
            let empty = claim.given_up();
            assert!(empty.is_empty() && !empty.is_claim() && !empty.is_live());
            assert!(!empty.is_unused());
        }
    }

    #[test]
    fn a_swap_tells_a_word_that_changed_from_a_slot_that_is_gone() {
        let head = Head { tag: 0, word: 0 }.claimed(fingerprint(Key::from_hash(7)), 1, false);
        let slot = AtomicU128::new(0);
        let cell = SlotCell::new(&slot, head.tag, &[]);
        assert_eq!((cell.load(), cell.swap(1, 2)), (None, Swap::Gone));
        swap(&slot, Head { tag: 0, word: 0 }, head).unwrap();
        assert_eq!((cell.load(), cell.swap(5, 6)), (Some(1), Swap::Changed(1)));
        assert_eq!((cell.swap(1, 2), cell.load()), (Swap::Done, Some(2)));
        // Nor is it the same cell when the same key has it in another state, or again.
        let mut there = Head { word: 2, ..head };
        for other in [
            head.confirmed(),
            head.given_up(),
            head.given_up().claimed(head.fingerprint(), 2, false),
        ] {
            swap(&slot, there, other).unwrap();
            assert_eq!((cell.load(), cell.swap(2, 3)), (None, Swap::Gone), "{other:?}");
            there = other;
        }
    }

    #[test]
    fn a_slot_shows_every_version_before_one_comes_back() {
        let mut head = Head { tag: 0, word: 0 };
        let mut seen = std::collections::HashSet::new();
        for _ in 0..65_535 {
            head = head.claimed(fingerprint(Key::from_hash(1)), 0, false);
            assert!(!head.is_unused());
            assert!(seen.insert(head.tag & VERSION));
            assert_eq!(head.confirmed().tag & VERSION, head.tag & VERSION);
            assert_ne!(head.given_up().tag & VERSION, head.tag & VERSION);
        }
        assert!(!seen.contains(&0), "0 is for slots that were never used");
        assert!(seen.contains(&(head.given_up().tag & VERSION)), "all were seen");
    }
}
