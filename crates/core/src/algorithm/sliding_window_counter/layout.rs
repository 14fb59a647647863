//! The packed words of the sliding window counter.

use crate::Timestamp;

/// Where the fields of the words lie. With `epoch` bits as many as the last epoch needs:
///
/// | word | high bits: `epoch` | next bit | low bits: `count`, all that are left |
/// |---|---|---|---|
/// | head | current epoch | sealed | units in the current epoch |
/// | ring | epoch + 1, or 0 for never | 0 | units in that epoch |
/// | base | current epoch | 0 | units in the completed epochs that count |
///
/// | head | base | legal state |
/// |---|---|---|
/// | all zero | all zero | never used |
/// | open, epoch e | epoch e | decisions are made here |
/// | sealed, epoch e | epoch e | the count of e is final; filed in the ring or about to be |
/// | sealed, epoch e | a later one | the next epoch is decided; the head is about to open in it |
///
/// The epoch field holds the epoch of [`Timestamp::MAX`] plus one, so epochs never wrap. Counts stop
/// at the end of their field, which is at least twice the limit: such a count denies everything
/// until its epoch has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    count_bits: u32,
}

/// The head word: the current epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) epoch: u64,
    pub(super) sealed: bool,
    pub(super) count: u64,
}

/// A ring word: a completed epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filed {
    pub(super) tag: u64,
    pub(super) count: u64,
}

impl Filed {
    /// The tag of an epoch: 0 is left for "never".
    #[inline]
    pub(super) const fn tag_of(epoch: u64) -> u64 {
        epoch + 1
    }
}

/// The base word: the sum over the completed epochs that count in `epoch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) epoch: u64,
    pub(super) sum: u64,
}

impl Layout {
    pub(super) const fn for_width(width_ns: u64) -> Self {
        // The last epoch is below 2^62, so at least one bit is left for counts.
        let last_tag = Timestamp::MAX.as_nanos() / width_ns + 2;
        Self { count_bits: last_tag.leading_zeros() - 1 }
    }

    /// The largest limit: half of what the count field holds.
    pub(super) const fn max_limit(self) -> u64 {
        (1 << self.count_bits) >> 1
    }

    #[inline]
    pub(super) const fn head(self, word: u64) -> Head {
        Head {
            epoch: word >> (self.count_bits + 1),
            sealed: word >> self.count_bits & 1 == 1,
            count: self.low(word),
        }
    }

    /// The head, and the sum of all that counts in its epoch, where it is open and the base is on the
    /// same epoch.
    #[inline]
    pub(super) const fn open_sum(self, word: u64, base: u64) -> Option<(Head, u64)> {
        // Epochs lie in the same bits, and a base has no bit where a head says that it is sealed.
        if (word ^ base) >> self.count_bits != 0 {
            return None;
        }
        // Two counts of at most 63 bits.
        Some((self.head(word), self.low(word) + self.low(base)))
    }

    #[inline]
    pub(super) fn head_word(self, head: Head) -> u64 {
        self.pack(head.epoch, head.count) | u64::from(head.sealed) << self.count_bits
    }

    #[inline]
    pub(super) const fn filed(self, word: u64) -> Filed {
        Filed { tag: word >> (self.count_bits + 1), count: self.low(word) }
    }

    #[inline]
    pub(super) fn filed_word(self, filed: Filed) -> u64 {
        self.pack(filed.tag, filed.count)
    }

    #[inline]
    pub(super) const fn base(self, word: u64) -> Base {
        Base { epoch: word >> (self.count_bits + 1), sum: self.low(word) }
    }

    #[inline]
    pub(super) fn base_word(self, base: Base) -> u64 {
        self.pack(base.epoch, base.sum)
    }

    /// A count with `units` refunded. One at the end of its field stands for any number beyond, so
    /// nothing can be taken from it.
    #[inline]
    pub(super) fn lower(self, count: u64, units: u64) -> u64 {
        if count == self.max_count() { count } else { count.saturating_sub(units) }
    }

    #[inline]
    fn pack(self, high: u64, count: u64) -> u64 {
        high << (self.count_bits + 1) | count.min(self.max_count())
    }

    #[inline]
    const fn low(self, word: u64) -> u64 {
        word & self.max_count()
    }

    #[inline]
    const fn max_count(self) -> u64 {
        (1 << self.count_bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_epoch_fits_its_field_at_any_width() {
        for width_ns in [1, 2, 3, 1000, 999_999_937, 1 << 40, 1 << 59] {
            let layout = Layout::for_width(width_ns);
            let last = Timestamp::MAX.as_nanos() / width_ns;
            for (epoch, count) in [(0, 0), (last + 1, 0), (last + 1, layout.max_limit())] {
                for sealed in [false, true] {
                    let head = Head { epoch, sealed, count };
                    assert_eq!(layout.head(layout.head_word(head)), head, "width {width_ns}");
                }
                let filed = Filed { tag: Filed::tag_of(last), count };
                assert_eq!(layout.filed(layout.filed_word(filed)), filed);
                assert_eq!(layout.base(layout.base_word(Base { epoch, sum: count })).sum, count);
            }
        }
    }
}
