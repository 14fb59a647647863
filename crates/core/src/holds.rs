//! [`Holds`]: charges that return when nobody settles them in time.

mod record;

pub use record::Hold;

use core::fmt;

use crate::{Cost, Key, Timestamp};
use record::{Head, Phase};

/// Charges that are held for a time: whoever made one settles it, or somebody else gives it back once
/// it has expired, and never both.
///
/// It is what lets a reservation outlive the process that made it, without staying charged for ever.
/// The charge itself is on a [`Table`](crate::Table); here is only the note of it, in a record of 64
/// bytes:
///
/// ```text
/// (charge the table) ──> note ──> take, once: by who settles, or after the expiry ──> (refund the rest)
/// ```
///
/// # Guarantees
/// - **Once.** Of all that take a hold, one gets it. So what was charged is given back once, or settled
///   once.
/// - **Renewed by who lives.** A hold whose owner [renews](Self::renew) it before it expires is the
///   owner's alone.
/// - **Toward denial.** A thread or process that stops for ever between any two steps leaves a charge
///   without a note, which stays charged; never a note without a charge.
/// - **Lock-free and bounded.** Nobody waits. A record whose owner stopped while it wrote the note is
///   used again a minute later, and an owner who was only slow then leaves it alone.
///
/// ```
/// use core::time::Duration;
/// use tidegate_core::{Cost, Held, Hold, Holds, Key, Timestamp};
///
/// let holds = Holds::new([const { Hold::new() }; 16]);
/// let now = Timestamp::from_secs(100);
/// let held = Held { key: Key::from_hash(7), cost: Cost::new(50), charged_at: now };
///
/// let id = holds.note(held, now + Duration::from_secs(60), 0, now).expect("room");
///
/// let mut returned = Vec::new();
/// holds.take_expired(now + Duration::from_secs(59), |held| returned.push(held));
/// assert_eq!(returned, []);
/// holds.take_expired(now + Duration::from_secs(60), |held| returned.push(held));
/// assert_eq!(returned, [held]);
/// assert_eq!(holds.take(id), None, "somebody has given it back");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Holds<S> {
    records: S,
}

/// What is held: a charge, and what a refund of it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Whose charge it is.
    pub key: Key,
    /// What was charged.
    pub cost: Cost,
    /// When it was charged.
    pub charged_at: Timestamp,
}

/// Which hold a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a hold that nobody takes returns its charge when it expires"]
pub struct HoldId {
    index: usize,
    tag: u64,
}

impl HoldId {
    /// The hold of this tag in this record: what [`parts`](Self::parts) gave.
    pub const fn from_parts(index: usize, tag: u64) -> Self {
        Self { index, tag }
    }

    /// The record that it is in, and its tag there, which is not 0 and is never given again.
    #[must_use]
    pub const fn parts(self) -> (usize, u64) {
        (self.index, self.tag)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    index: usize,
    head: Head,
}

/// How long a record is kept for who writes a note into it, in nanoseconds.
#[cfg(not(loom))]
const CLAIM_NS: u64 = 60_000_000_000;
#[cfg(loom)] // whose words are shorter
const CLAIM_NS: u64 = 60;

impl<S: AsRef<[Hold]>> Holds<S> {
    /// The records that [`note`](Self::note) looks at before it gives up.
    pub const PROBES: usize = 64;

    /// Holds in these records. Zeroed memory is records that are free.
    #[must_use]
    pub const fn new(records: S) -> Self {
        Self { records }
    }

    /// Notes what was charged, until it expires, in a free record: one of the [`PROBES`](Self::PROBES)
    /// from `hint` on, which callers choose so that they do not meet. `None` when there is none, or when
    /// this took a minute: then the charge has no note, and stays.
    #[must_use]
    pub fn note(
        &self,
        held: Held,
        expires_at: Timestamp,
        hint: usize,
        now: Timestamp,
    ) -> Option<HoldId> {
        let claim = self.claim(held, hint, now)?;
        self.confirm(claim, expires_at)
    }

    /// A record that is this caller's for a minute, with what is held written into it.
    fn claim(&self, held: Held, hint: usize, now: Timestamp) -> Option<Place> {
        let records = self.records.as_ref();
        let until = now.plus_nanos(CLAIM_NS);
        // Each round looks at another record, so this ends.
        (0..records.len().min(Self::PROBES)).find_map(|probe| {
            let index = (hint % records.len() + probe) % records.len();
            let head = records[index].claim(held, now, until)?;
            Some(Place { index, head })
        })
    }

    /// From now on the hold can be taken. `None` when the record was given to somebody else.
    fn confirm(&self, Place { index, head }: Place, expires_at: Timestamp) -> Option<HoldId> {
        let held = head.with(Phase::Held, expires_at);
        self.records.as_ref().get(index)?.swap(head, held).ok()?;
        Some(HoldId { index, tag: held.tag() })
    }

    /// Ends a hold. `None` when it has expired and somebody else has taken it.
    pub fn take(&self, id: HoldId) -> Option<Held> {
        let record = self.records.as_ref().get(id.index)?;
        // A swap fails when the hold was renewed meanwhile, which its owner does once in a while, or
        // when it was taken, which ends this.
        loop {
            let head = record.load().if_held_as(id.tag)?;
            let held = record.read(head)?;
            if record.swap(head, head.freed()).is_ok() {
                return Some(held);
            }
        }
    }

    /// Keeps a hold until a later time, and tells what is held; one that is kept until later already
    /// stays so. `None` when it has expired and somebody else has taken it.
    ///
    /// So holds may expire soon after their owner has died, and last as long as it lives.
    pub fn renew(&self, id: HoldId, expires_at: Timestamp) -> Option<Held> {
        let record = self.records.as_ref().get(id.index)?;
        // As in `take`: a swap fails only when another one has come through.
        loop {
            let head = record.load().if_held_as(id.tag)?;
            let held = record.read(head)?;
            let renewed = head.with(Phase::Held, expires_at.max(head.until()));
            if record.swap(head, renewed).is_ok() {
                return Some(held);
            }
        }
    }

    /// Takes the holds that have expired by `now`, each for who gives it back. Looks at every record.
    pub fn take_expired(&self, now: Timestamp, mut each: impl FnMut(Held)) {
        for record in self.records.as_ref() {
            let head = record.load();
            if head.phase() != Phase::Held || head.until() > now {
                continue;
            }
            // Only with this head: a hold that was renewed meanwhile stays.
            let held = record.read(head);
            if let Some(held) = held.filter(|_| record.swap(head, head.freed()).is_ok()) {
                each(held);
            }
        }
    }

    /// How many holds there are, and what they hold together. Looks at every record.
    #[must_use]
    pub fn total(&self) -> (usize, u128) {
        let held = self.records.as_ref().iter().filter_map(|record| record.read(record.load()));
        held.fold((0, 0), |(holds, units), held| (holds + 1, units + u128::from(held.cost.units())))
    }

    /// Frees every record, and leaves what they held charged. For a file, after the machine has stopped
    /// without writing all of it: whether the charges were written is not known then. Nobody else may
    /// use the records meanwhile.
    pub fn forget(&self) {
        self.records.as_ref().iter().for_each(Hold::reset);
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} units of key {:016x}", self.cost.units(), self.key.hash())
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn who_takes_a_minute_for_a_note_leaves_the_record_to_the_next() {
        let holds = Holds::new([const { Hold::new() }; 1]);
        let start = Timestamp::from_secs(1_000);
        let held =
            |units| Held { key: Key::from_hash(1), cost: Cost::new(units), charged_at: start };
        let slow = holds.claim(held(1), 0, start).unwrap();
        let almost = Timestamp::from_nanos(start.as_nanos() + CLAIM_NS - 1);
        assert_eq!(holds.claim(held(2), 0, almost), None);
        let later = Timestamp::from_nanos(start.as_nanos() + CLAIM_NS);
        let next = holds.claim(held(2), 0, later).unwrap();
        assert_eq!(holds.confirm(slow, later), None);
        let next = holds.confirm(next, later + Duration::from_secs(9)).unwrap();
        assert_eq!(holds.take(next), Some(held(2)));
        assert_eq!(holds.take(next), None);
    }

    #[test]
    fn a_note_that_was_begun_is_none_yet() {
        let holds = Holds::new([const { Hold::new() }; 1]);
        let start = Timestamp::from_secs(1_000);
        let held = Held { key: Key::from_hash(1), cost: Cost::ONE, charged_at: start };
        let begun = holds.claim(held, 0, start).unwrap();
        assert_eq!(holds.total(), (0, 0));
        holds.take_expired(Timestamp::MAX, |held| panic!("{held} was taken"));
        let claimed = HoldId { index: begun.index, tag: begun.head.tag() };
        assert_eq!(holds.take(claimed), None);
    }
}
