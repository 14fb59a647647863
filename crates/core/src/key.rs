//! [`Key`]: whom a limit is for.

/// A key as the table sees it: 64 bits of a good hash of whatever the limit is for.
///
/// Both the place in the table and the fingerprint that is compared come from these bits, so two keys
/// with the same bits share their limit. The hash must be keyed with a secret of the table, or callers
/// can choose keys that meet. The `tidegate` crate sees to that.
///
/// # Collisions
/// Of the bits, 46 are compared, among the slots of one set (at most 512). The odds that a new key is
/// taken for one of 512 live ones are 512 / 2^46, one in 1.4 x 10^11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl Key {
    /// A key of 64 hashed bits.
    #[inline]
    #[must_use]
    pub const fn from_hash(hash: u64) -> Self {
        Self(hash)
    }

    /// The hashed bits.
    #[inline]
    #[must_use]
    pub const fn hash(self) -> u64 {
        self.0
    }
}
