//! The seam between algorithms and storages: cells, and how a state in a cell moves.

use crate::sync::AtomicU64;
use crate::{Algorithm, Allowance, Cost, Decision, Denial, Step, Timestamp};

/// A place that holds the state of one key: a head word that is swapped, and ring words beside it.
///
/// In a table, a cell is bound to its key: once the slot has passed to another key, the cell is gone
/// and can no longer be written.
pub trait Cell {
    /// The head word, or `None` when the cell is gone.
    fn load(&self) -> Option<u64>;

    /// Replaces the head word `from` by `to`, if it still is `from`.
    fn swap(&self, from: u64, to: u64) -> Swap;

    /// The ring words, as many as [`Protocol::ring_words`] asked for.
    ///
    /// They are not bound to the key. A protocol writes them by compare-exchange only, and so that
    /// a thread which wakes up late changes nothing that counts.
    fn ring(&self) -> &[AtomicU64];
}

/// What became of a [`Cell::swap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// The new word is in.
    Done,
    /// Another thread was first; this is the word now.
    Changed(u64),
    /// The cell belongs to another key now.
    Gone,
}

/// How a key that has no cell would start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is denied even when new, and gets no cell.
    Deny(Denial),
    /// It gets a cell with this first word.
    Admit {
        /// The first word.
        word: u64,
        /// Whether the word holds the charge already. If not, it is not idle, and the next decision
        /// on the cell charges.
        charged: bool,
        /// What the caller is told once it is charged.
        allowance: Allowance,
    },
}

/// How a limit's state in a [`Cell`] moves: what storages drive.
///
/// Every [`Algorithm`] is a protocol that needs no ring. The two sliding windows are protocols of
/// their own: their state is more than one word, and any thread can finish what another has begun.
///
/// `None` means that the cell is gone: nothing was decided, charged or refunded.
pub trait Protocol {
    /// How many ring words each cell needs.
    fn ring_words(&self) -> usize;

    /// Decides, starting from the head `word` just read, and charges when it allows.
    fn decide<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision>;

    /// What [`decide`](Self::decide) would answer. Writes nothing.
    fn peek<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision>;

    /// As [`decide`](Self::decide), for callers who want no numbers unless it denies: those of an
    /// allowance are not worked out.
    #[inline(always)]
    fn admit<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Result<(), Denial>> {
        self.decide(cell, word, cost, now).map(Decision::into_result)
    }

    /// Whether [`admit`](Self::admit) would allow it. Writes nothing.
    ///
    /// A denial is one that [`peek`](Self::peek) would give. An allowance may come too soon while other
    /// threads charge: only the charge itself decides.
    #[inline(always)]
    fn foresee<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Result<(), Denial>> {
        self.peek(cell, word, cost, now).map(Decision::into_result)
    }

    /// Charges `cost` whether it fits or not.
    fn charge<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()>;

    /// Takes back `cost` of what was charged at `charged_at`.
    fn refund<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()>;

    /// Frees up to `cost` of what was used and still counts, whenever it was charged.
    ///
    /// As if it had been charged just now, unless the algorithm keeps charges apart by their time.
    fn forgive<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        self.refund(cell, word, cost, now, now)
    }

    /// The first word for a new key in a cell whose former key left `left_behind`.
    fn enter(&self, left_behind: u64, cost: Cost, now: Timestamp) -> Entry;

    /// Readies the ring for a new key whose first word is `word`, before anybody decides on it.
    ///
    /// Called by the thread that brings the key in and by any that helps, at any time, often. The
    /// cell is gone as soon as one of them is through. `clear` says that the former key's units may
    /// still be in the ring and must not count.
    fn prepare<C: Cell>(&self, cell: &C, word: u64, clear: bool);

    /// Whether the cell may be given to another key with no loss.
    fn is_idle(&self, word: u64, now: Timestamp) -> bool;

    /// When the cell becomes idle.
    fn idle_at(&self, word: u64) -> Timestamp;

    /// Any number that orders words as [`idle_at`](Self::idle_at) does, if that is cheaper.
    #[inline]
    fn idle_rank(&self, word: u64) -> u64 {
        self.idle_at(word).as_nanos()
    }

    /// Whether no step that spans several words is under way. Only a settled cell changes hands.
    fn is_settled(&self, word: u64) -> bool;
}

impl<A: Algorithm> Protocol for A {
    #[inline]
    fn ring_words(&self) -> usize {
        0
    }

    #[inline(always)]
    fn decide<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Decision> {
        // A failed swap means that another thread's swap went through, so some thread progresses.
        loop {
            match self.step(word, cost, now) {
                Step::Deny(denial) => return Some(Decision::Deny(denial)),
                Step::Allow { word: next, allowance } => match swap_if_new(cell, word, next) {
                    Swap::Done => return Some(Decision::Allow(allowance)),
                    Swap::Changed(current) => word = current,
                    Swap::Gone => return None,
                },
            }
        }
    }

    #[inline]
    fn peek<C: Cell>(&self, _: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision> {
        Some(match self.step(word, cost, now) {
            Step::Deny(denial) => Decision::Deny(denial),
            Step::Allow { allowance, .. } => Decision::Allow(allowance),
        })
    }

    #[inline]
    fn charge<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        swap_until_done(cell, word, |word| Algorithm::charge(self, word, cost, now))
    }

    #[inline]
    fn refund<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()> {
        swap_until_done(cell, word, |word| Algorithm::refund(self, word, cost, charged_at, now))
    }

    #[inline]
    fn forgive<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        swap_until_done(cell, word, |word| Algorithm::forgive(self, word, cost, now))
    }

    #[inline]
    fn enter(&self, _: u64, cost: Cost, now: Timestamp) -> Entry {
        match self.step(0, cost, now) {
            Step::Deny(denial) => Entry::Deny(denial),
            Step::Allow { word, allowance } => Entry::Admit { word, charged: true, allowance },
        }
    }

    #[inline]
    fn prepare<C: Cell>(&self, _: &C, _: u64, _: bool) {}

    #[inline]
    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        Algorithm::is_idle(self, word, now)
    }

    #[inline]
    fn idle_at(&self, word: u64) -> Timestamp {
        Algorithm::idle_at(self, word)
    }

    #[inline]
    fn idle_rank(&self, word: u64) -> u64 {
        Algorithm::idle_rank(self, word)
    }

    #[inline]
    fn is_settled(&self, _: u64) -> bool {
        true
    }
}

/// Swaps, but for a word that stays as it is.
#[inline(always)]
fn swap_if_new<C: Cell>(cell: &C, from: u64, to: u64) -> Swap {
    if from == to { Swap::Done } else { cell.swap(from, to) }
}

/// Swaps in `next` of the current word. A failed swap means that another thread's went through.
#[inline]
fn swap_until_done<C: Cell>(cell: &C, mut word: u64, next: impl Fn(u64) -> u64) -> Option<()> {
    loop {
        match swap_if_new(cell, word, next(word)) {
            Swap::Done => return Some(()),
            Swap::Changed(current) => word = current,
            Swap::Gone => return None,
        }
    }
}
