//! The packed words of the sliding window log.

use crate::Timestamp;

/// Where the fields of the head lie, for a ring of `limit` entries:
///
/// | bits | field |
/// |---|---|
/// | high: the rest | `last`: the newest recorded time, in quanta of `2^quantum_bits` ns, rounded up |
/// | low: as many as `2 x limit - 1` has | `position`: the entry to be used next, over two laps |
///
/// The quantum is what makes timestamps fit `last`; it is at most `limit` nanoseconds, and so less than
/// the window. (Only in the last quantum before [`Timestamp::MAX`], `last` is rounded down.) The
/// position runs from 0 to `2 x limit - 1` and over, so its lap's parity tells an entry that was
/// written in this lap from one of the lap before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    limit: u64,
    position_bits: u32,
}

/// The head word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: u64,
    last: u64,
}

impl Layout {
    pub(super) const fn new(limit: u64) -> Self {
        Self { limit, position_bits: 64 - (2 * limit - 1).leading_zeros() }
    }

    #[inline]
    pub(super) const fn head(self, word: u64) -> Head {
        let position = word & ((1 << self.position_bits) - 1);
        // Only a foreign word can hold a position beyond the second lap.
        let position = if position < 2 * self.limit { position } else { 0 };
        Head { position, last: word >> self.position_bits }
    }

    /// The head at `position`, when the newest recorded time is `last`.
    #[inline]
    pub(super) const fn word(self, position: u64, last: Timestamp) -> u64 {
        let quanta = last.as_nanos().div_ceil(1 << self.quantum_bits());
        let most = u64::MAX >> self.position_bits;
        let quanta = if quanta > most { most } else { quanta };
        quanta << self.position_bits | position
    }

    /// The newest recorded time: at most a quantum later than it was.
    #[inline]
    pub(super) const fn last(self, head: Head) -> Timestamp {
        Timestamp::from_nanos(head.last << self.quantum_bits())
    }

    /// A time less than a quantum before the newest recorded time, or that time.
    #[inline]
    pub(super) const fn not_after_last(self, head: Head) -> Timestamp {
        let nanos = self.last(head).as_nanos();
        Timestamp::from_nanos(nanos.saturating_sub((1 << self.quantum_bits()) - 1))
    }

    #[inline]
    const fn quantum_bits(self) -> u32 {
        // 62 bits of time, less those that fit.
        self.position_bits.saturating_sub(2)
    }

    /// The position `steps` (at most `limit`) after another.
    #[inline]
    pub(super) const fn after(self, position: u64, steps: u64) -> u64 {
        let next = position + steps;
        if next < 2 * self.limit { next } else { next - 2 * self.limit }
    }

    /// The position `steps` (at most `limit`) before another.
    #[inline]
    pub(super) const fn before(self, position: u64, steps: u64) -> u64 {
        if position >= steps { position - steps } else { position + 2 * self.limit - steps }
    }

    /// Which entry of the ring a position means.
    #[inline]
    pub(super) const fn index(self, position: u64) -> usize {
        (if position < self.limit { position } else { position - self.limit }) as usize
    }

    /// The parity that entries written at this position carry. The first lap's is odd, so that an
    /// entry of zero bits was not written in it.
    #[inline]
    pub(super) const fn parity(self, position: u64) -> u64 {
        (position < self.limit) as u64
    }
}

/// A ring word: one unit, recorded.
///
/// | bits | field |
/// |---|---|
/// | 62, high | time + 1 in ns, or 0 for vacant |
/// | 1 | postponed: the time is that of the entry before it plus the window |
/// | 1, low | parity of the lap that it was written in |
///
/// At position p of the head, an entry is
///
/// | parity | postponed | state |
/// |---|---|---|
/// | of the lap before | any | holds until its time is a window old |
/// | of this lap | no | begun: written, not admitted; free |
/// | of this lap | yes | begun over an entry that still held: free from its time on |
///
/// Entries behind the position are admitted, with the parity of the lap in which it passed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u64);

impl Entry {
    #[inline]
    pub(super) const fn new(time: Timestamp, postponed: bool, parity: u64) -> Self {
        Self((time.as_nanos() + 1) << 2 | (postponed as u64) << 1 | parity)
    }

    /// The same entry, holding nothing.
    #[inline]
    pub(super) const fn vacated(self) -> Self {
        Self(self.parity())
    }

    #[inline]
    pub(super) const fn parity(self) -> u64 {
        self.0 & 1
    }

    #[inline]
    pub(super) const fn is_postponed(self) -> bool {
        self.0 & 2 != 0
    }

    /// The recorded time, if any.
    #[inline]
    pub(super) const fn time(self) -> Option<Timestamp> {
        match self.0 >> 2 {
            0 => None,
            time => Some(Timestamp::from_nanos(time - 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_keep_their_fields_at_any_limit() {
        for limit in [1, 2, 3, 100, 1 << 16, 1 << 24] {
            let layout = Layout::new(limit);
            for position in [0, 1, limit - 1, limit, 2 * limit - 1] {
                for last in [Timestamp::ZERO, Timestamp::from_secs(1_700_000_000), Timestamp::MAX] {
                    let head = layout.head(layout.word(position, last));
                    assert_eq!(head.position, position, "limit {limit}");
                    let (told, told_least) = (layout.last(head), layout.not_after_last(head));
                    assert!(told >= last || last == Timestamp::MAX, "limit {limit}");
                    assert!(told.nanos_since(last) < limit.max(2), "limit {limit}");
                    // The end of time is rounded down, and so two quanta may be missing.
                    let slack = limit.max(2) << u64::from(last == Timestamp::MAX);
                    assert!(told_least <= last && last.nanos_since(told_least) < slack);
                }
            }
        }
    }

    #[test]
    fn a_position_beyond_the_second_lap_is_none() {
        for limit in [1, 2, 3, 5, 100] {
            let layout = Layout::new(limit);
            assert_eq!(layout.head(2 * limit - 1).position, 2 * limit - 1);
            for position in 2 * limit..(2 * limit).next_power_of_two() {
                assert_eq!(layout.head(position).position, 0, "limit {limit}");
            }
        }
    }

    #[test]
    fn positions_run_over_two_laps() {
        let layout = Layout::new(3);
        let indices: [usize; 6] = core::array::from_fn(|p| layout.index(p as u64));
        assert_eq!(indices, [0, 1, 2, 0, 1, 2]);
        assert_eq!(layout.after(5, 1), 0);
        assert_eq!(layout.before(0, 3), 3);
        assert_ne!(layout.parity(0), layout.parity(3));
    }

    #[test]
    fn entries_keep_their_fields() {
        for time in [Timestamp::ZERO, Timestamp::from_nanos(7), Timestamp::MAX] {
            for postponed in [false, true] {
                for parity in [0, 1] {
                    let entry = Entry::new(time, postponed, parity);
                    assert_eq!(entry.time(), Some(time));
                    assert_eq!(entry.is_postponed(), postponed);
                    assert_eq!(entry.parity(), parity);
                    assert_eq!(entry.vacated().time(), None);
                }
            }
        }
    }
}
