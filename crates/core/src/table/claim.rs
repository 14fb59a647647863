//! How a new key gets its slot: one slot per key, whoever else brings it in.
//!
//! # The claim
//! 1. A thread that found its key nowhere puts it *tentatively* into the first free slot, with one
//!    swap of the whole head.
//! 2. It then looks through the set once more. If the key is live elsewhere, it gives its slot up. Of
//!    two tentative slots for one key, the lower one stays, and the other is given up.
//! 3. It readies the ring, where the algorithm has one, and confirms: the slot is live.
//!
//! Steps 2 and 3 are done by any thread that finds a tentative slot in its way, so a thread that stops
//! in between holds nobody up. Every swap is from the exact head before, which holds a version, so a
//! late one fails.
//!
//! # Why two slots of one key are never both confirmed
//! Take two slots, `i` and `j`, each with a confirmed claim for the key. Whoever confirmed `i` looked
//! at `j` after the claim of `i`, and found no claim for the key there, or gave it up; likewise with
//! `i` and `j` changed over. Each look comes after a fence that comes after the claim was made or seen
//! (`SeqCst`: this is the store-then-load pattern of Dekker's algorithm), so of the two looks at least
//! one saw the other claim. If that was a look from the lower slot, the claim in the higher slot was
//! given up, or was live already and then the lower gave up. If it was from the higher, that one gave
//! up. In no case are both confirmed.
//!
//! # Progress
//! A claim fails only when the slot was taken or charged meanwhile, and is given up only when the key
//! is live elsewhere or has a lower claim, of which there are finitely many.

use super::set::{Place, Seen, Set};
use super::storage::Storage;
use super::{Table, WhenFull, slot};
use crate::protocol::{Entry, Protocol};
use crate::sync::{Ordering, fence};
use crate::{Cost, Decision, Timestamp};

impl<P: Protocol, S: Storage> Table<P, S> {
    /// Brings the set's key in, which was found nowhere. `None` says to look for it again.
    #[cold]
    pub(super) fn bring_in(&self, set: &Set<'_>, cost: Cost, now: Timestamp) -> Option<Decision> {
        if let Entry::Deny(denial) = self.protocol.enter(0, cost, now) {
            return Some(Decision::Deny(denial));
        }
        let (place, was_live) = match set.place(&self.protocol, now) {
            Place::Free(place) => (place, false),
            // Its own slot may be the nearest to idle. Taken over, it would forget what it has just spent.
            Place::There => return None,
            Place::Full { claim: Some(claim), .. } => {
                // Perhaps its thread is dead. Once it is live, it can become idle.
                self.finish(set, claim, false);
                return None;
            }
            Place::Full { nearest: Some(nearest), .. } if self.when_full == WhenFull::TakeOver => {
                (nearest, true)
            }
            Place::Full { nearest, .. } => {
                self.tally().count_denied();
                return Some(Decision::Deny(self.table_full(nearest, now)));
            }
        };
        let Entry::Admit { word, charged, allowance } =
            self.protocol.enter(place.word(), cost, now)
        else {
            return None;
        };
        let claim = place.head.claimed(set.fingerprint(), word, was_live);
        slot::swap(set.slot(place.index), place.head, claim).ok()?;
        if was_live {
            self.tally().count_taken_over();
        }
        // A charged word takes effect with the confirmation, whoever confirms it.
        let is_live = self.finish(set, Seen { index: place.index, head: claim }, true);
        (is_live && charged).then_some(Decision::Allow(allowance))
    }

    /// Sees a claim through, or gives it up. True when it is confirmed.
    ///
    /// `own` says that the claim is for the set's own key, whose slots are searched in their order and
    /// no further than they can lie; for any other key, the whole set is.
    ///
    /// Should a claim be confirmed, and the key be idle and lose its slot before this looks, the answer
    /// is false, and the caller charges once more: an error toward denial.
    #[cold]
    pub(super) fn finish(&self, set: &Set<'_>, claim: Seen, own: bool) -> bool {
        let claimed = set.slot(claim.index);
        // The look below must come after the claim, whoever made it: see the module's proof.
        fence(Ordering::SeqCst);
        let same_key = |other: &Seen| {
            other.index != claim.index && other.head.fingerprint() == claim.head.fingerprint()
        };
        let reach = |other: &Seen| !own || !other.head.is_unused();
        for mut other in set.seen().take_while(reach).filter(same_key) {
            while other.head.is_claim() && other.index > claim.index && same_key(&other) {
                match slot::swap(set.slot(other.index), other.head, other.head.given_up()) {
                    Ok(()) => break,
                    Err(head) => other.head = head,
                }
            }
            let yields =
                other.head.is_live() || (other.head.is_claim() && other.index < claim.index);
            if yields && same_key(&other) {
                let _ = slot::swap(claimed, claim.head, claim.head.given_up());
                return slot::load(claimed).is_confirmed(claim.head);
            }
        }
        let cell = self.cell(set, claim);
        self.protocol.prepare(&cell, claim.word(), claim.head.is_clearing());
        match slot::swap(claimed, claim.head, claim.head.confirmed()) {
            Ok(()) => true,
            Err(head) => head.is_confirmed(claim.head),
        }
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use super::*;
    use crate::{Borrowed, Key, Line, Quota, Tally, TokenBucket};

    /// A thread that found its key nowhere, and then no slot, since another has brought the key into the
    /// last one meanwhile.
    #[test]
    fn a_key_that_was_just_brought_in_is_not_taken_over_for_itself_nor_denied() {
        for when_full in [WhenFull::TakeOver, WhenFull::Deny] {
            let bucket = TokenBucket::new(Quota::per_second(5)).unwrap();
            let (lines, tally) = ([Line::new()], Tally::new());
            let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
            let table = table.with_when_full(when_full);
            let (now, mine) = (Timestamp::from_secs(1), Key::from_hash(4));
            let set = table.set(mine);
            for other in 0..3 {
                assert!(table.decide(Key::from_hash(other), Cost::new(4), now).is_allow());
            }
            // The nearest to idle.
            assert!(table.decide(mine, Cost::ONE, now).is_allow());
            assert_eq!(table.bring_in(&set, Cost::ONE, now), None, "it is there");
            assert_eq!(table.peek(mine, Cost::ZERO, now).remaining(), 4);
            assert_eq!((tally.taken_over(), tally.denied()), (0, 0));
        }
    }

    /// Heads of the slots of one line: claims of a key, live slots of it, and those of other keys.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Is {
        Unused,
        Claimed(u64),
        Live(u64),
        Empty,
    }
    use Is::{Claimed, Empty, Live, Unused};

    /// What becomes of the slots when the claim in one of them is seen through, and what is told.
    fn finished(slots: [Is; 4], claim: usize, own: bool) -> ([Is; 4], bool) {
        let bucket = TokenBucket::new(Quota::per_second(5)).unwrap();
        let (lines, tally) = ([Line::new()], Tally::new());
        let table = Table::new(bucket, Borrowed::new(&lines, &[], &tally)).unwrap();
        let set = table.set(Key::from_hash(4)); // whose search begins with the first slot
        let unused = slot::load(set.slot(0));
        for (index, is) in slots.into_iter().enumerate() {
            let claimed = |key| unused.claimed(slot::fingerprint(Key::from_hash(key)), 7, false);
            let head = match is {
                Unused => continue,
                Claimed(key) => claimed(key),
                Live(key) => claimed(key).confirmed(),
                Empty => claimed(4).given_up(),
            };
            slot::swap(set.slot(index), unused, head).unwrap();
        }
        let seen = Seen { index: claim, head: slot::load(set.slot(claim)) };
        let told = table.finish(&set, seen, own);
        let is = |index| {
            let head = slot::load(set.slot(index));
            let key = slot::key_bits(head);
            match () {
                () if head.is_unused() => Unused,
                () if head.is_empty() => Empty,
                () if head.is_live() => Live(key),
                () => Claimed(key),
            }
        };
        ([0, 1, 2, 3].map(is), told)
    }

    #[test]
    fn of_all_claims_of_a_key_one_is_left() {
        let (mine, other) = (4, 5);
        let (claimed, live) = (Claimed(mine), Live(mine));
        for own in [true, false] {
            let finish = |slots, claim| finished(slots, claim, own);
            // Alone, or beside other keys: it is live.
            assert_eq!(
                finish([claimed, Unused, Unused, Unused], 0),
                ([live, Unused, Unused, Unused], true)
            );
            let others = [Claimed(other), claimed, Live(other), Empty];
            assert_eq!(finish(others, 1), ([Claimed(other), live, Live(other), Empty], true));
            // A higher claim is given up, and a lower one is yielded to.
            let two = [Live(other), claimed, Empty, claimed];
            assert_eq!(finish(two, 1), ([Live(other), live, Empty, Empty], true));
            assert_eq!(finish(two, 3), ([Live(other), claimed, Empty, Empty], false));
            let three = [claimed, claimed, claimed, Live(other)];
            assert_eq!(finish(three, 0), ([live, Empty, Empty, Live(other)], true));
            assert_eq!(finish(three, 1).0[..2], [claimed, Empty]);
            // A live slot is yielded to, wherever it is.
            assert_eq!(
                finish([live, claimed, Empty, Empty], 1),
                ([live, Empty, Empty, Empty], false)
            );
            assert_eq!(
                finish([claimed, Empty, Empty, live], 0),
                ([Empty, Empty, Empty, live], false)
            );
        }
        // Another key's claim is seen through by whoever finds it in the way, in the whole set: its key may
        // lie behind a slot that this search ends at.
        let behind = [claimed, Unused, Live(mine), Unused];
        assert_eq!(finished(behind, 0, false), ([Empty, Unused, Live(mine), Unused], false));
        assert_eq!(finished(behind, 0, true).0[0], live, "its own cannot lie there");
    }
}
