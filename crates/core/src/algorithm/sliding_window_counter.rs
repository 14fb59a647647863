//! Sliding window counter: a hard bound in any window, in constant memory.

mod layout;
mod turn;

use crate::divisor::Divisor;
use crate::protocol::{Cell, Entry, Protocol, Swap};
use crate::sync::{AtomicU64, Ordering};
use crate::{Allowance, Cost, Decision, Denial, Quota, QuotaError, Timestamp};
use layout::{Base, Filed, Head, Layout};

/// Sliding window counter: "at most 100 in any 60 s", in constant memory, never over.
///
/// Time is cut into epochs, `epochs` to a window. The current epoch's units are counted in the head
/// word, those of completed epochs in a ring. A window of any position touches at most the current
/// epoch and the `epochs` before it, so their sum is an upper bound of what the window holds.
///
/// # Guarantee
/// In any span of one window's length, at most `limit` units are admitted. The error is toward
/// denial: a unit counts until its epoch has left the window, which is up to one epoch
/// (`window / epochs`) longer than it must. Units that were charged above the limit (debt) count as
/// long as all others.
///
/// A refund frees units of the epoch that they were charged in. When it meets an epoch's turn, it can
/// take effect one epoch late.
///
/// # State
/// A head word, `epochs` ring words with the count of a completed epoch each, and one ring word, the
/// base, with the sum over the completed epochs that count. See the table of layouts in the source.
///
/// A decision reads the head and the base, and swaps the head. To enter a later epoch, any thread
/// that finds itself there
/// 1. seals the head, so that the epoch's count is final;
/// 2. files that count in the ring;
/// 3. moves the base on to the later epoch, with the sum of the counts that it still covers: this
///    decides which epoch comes next;
/// 4. opens the head in that epoch, with a count of zero.
///
/// Each step is one compare-exchange from the exact state before it, so it happens once, whoever
/// does it, and a thread that stops in between holds nobody up.
///
/// # Source
/// The idea of sub-window counters is folklore (it is a coarse form of Datar, Gionis, Indyk and
/// Motwani, "Maintaining stream statistics over sliding windows", 2002). Interpolating between two
/// windows, as is more common, gives no bound.
///
/// ```
/// use tidegate_core::{Cost, Limiter, Quota, SlidingWindowCounter, Timestamp};
///
/// const LIMIT: SlidingWindowCounter = match SlidingWindowCounter::new(Quota::per_minute(100), 30) {
///     Ok(limit) => limit,
///     Err(_) => panic!(),
/// };
/// static API: Limiter<SlidingWindowCounter, [tidegate_core::AtomicU64; 31]> = Limiter::counter(LIMIT);
///
/// assert!(API.decide(Cost::new(100), Timestamp::from_secs(59)).is_allow());
/// assert!(!API.decide(Cost::ONE, Timestamp::from_secs(61)).is_allow(), "any minute");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindowCounter {
    limit: u64,
    epochs: Divisor,
    width_ns: Divisor,
    layout: Layout,
}

impl SlidingWindowCounter {
    /// The most epochs to a window, so that all of a key's state fits 512 bytes.
    pub const MAX_EPOCHS: usize = 60;

    /// The quota's units in any span of the quota's period, told in so many epochs.
    ///
    /// More epochs free units sooner after they have left the window, and cost 8 bytes each.
    ///
    /// # Errors
    /// When `epochs` is not 1 to [`MAX_EPOCHS`](Self::MAX_EPOCHS), or when the head has no room for
    /// this many units with epochs this short.
    pub const fn new(quota: Quota, epochs: usize) -> Result<Self, QuotaError> {
        if epochs == 0 || epochs > Self::MAX_EPOCHS {
            return Err(QuotaError::Epochs { epochs, max: Self::MAX_EPOCHS });
        }
        let width_ns = quota.period_ns().div_ceil(epochs as u64);
        let layout = Layout::for_width(width_ns);
        if quota.units() > layout.max_limit() {
            return Err(QuotaError::TooLarge { units: quota.units(), max: layout.max_limit() });
        }
        Ok(Self {
            limit: quota.units(),
            epochs: Divisor::new(epochs as u64),
            width_ns: Divisor::new(width_ns),
            layout,
        })
    }

    /// The most units in any window.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The number of epochs to a window.
    #[must_use]
    pub const fn epochs(&self) -> usize {
        self.epochs.by() as usize
    }

    pub(crate) const fn ring_len(&self) -> usize {
        self.epochs() + 1
    }

    /// The epoch that counts at `now`: a `now` before the head's epoch is stale, and counts in it.
    #[inline]
    fn epoch_at(&self, head: Head, now: Timestamp) -> u64 {
        let into = now.as_nanos().wrapping_sub(head.epoch.wrapping_mul(self.width_ns.by()));
        if into < self.width_ns.by() {
            return head.epoch;
        }
        self.width_ns.quotient(now.as_nanos()).max(head.epoch)
    }

    /// Where an epoch starts, in nanoseconds since the origin; it may lie after the last timestamp.
    #[inline]
    fn start_of(&self, epoch: u64) -> u64 {
        epoch.saturating_mul(self.width_ns.by())
    }

    /// When the units of an epoch stop counting, likewise.
    #[inline]
    fn expiry_of(&self, epoch: u64) -> u64 {
        self.start_of(epoch.saturating_add(self.epochs.by() + 1))
    }

    #[inline]
    fn slot<'r>(&self, ring: &'r [AtomicU64], epoch: u64) -> &'r AtomicU64 {
        &ring[self.epochs.remainder(epoch) as usize]
    }

    #[inline]
    fn base<'r>(&self, ring: &'r [AtomicU64]) -> &'r AtomicU64 {
        &ring[self.epochs()]
    }

    /// The count that the ring has of a completed epoch.
    #[inline]
    fn filed(&self, ring: &[AtomicU64], epoch: u64) -> u64 {
        self.filed_in(self.slot(ring, epoch), epoch)
    }

    /// The count that the epoch's slot has of it.
    #[inline]
    fn filed_in(&self, slot: &AtomicU64, epoch: u64) -> u64 {
        // Acquire: pairs with the release of the turn that filed it.
        let filed = self.layout.filed(slot.load(Ordering::Acquire));
        if filed.tag == Filed::tag_of(epoch) { filed.count } else { 0 }
    }

    /// The units that count at `now`, from the head and the ring, without help from the base; the
    /// newest epoch with any, and when few enough are left for `cost`.
    ///
    /// True if the head is still the same afterwards: only a turn changes the ring, and a turn
    /// changes the head.
    #[inline(never)]
    fn survey(&self, ring: &[AtomicU64], head: Head, cost: u64, now: Timestamp) -> Survey {
        let current = self.epoch_at(head, now);
        let oldest = current.saturating_sub(self.epochs.by());
        let mut survey = Survey { sum: 0, retry_at: 0, reset_at: 0 };
        let room = self.limit.saturating_sub(cost);
        let (mut units, mut slot) = (head.count, self.epochs.remainder(head.epoch) as usize);
        // From the newest back. The last units that must expire are the first that do not fit.
        for epoch in (oldest..=head.epoch).rev() {
            if units > 0 && survey.sum == 0 {
                survey.reset_at = self.expiry_of(epoch);
            }
            let fitted = survey.sum <= room;
            survey.sum = survey.sum.saturating_add(units);
            if fitted && survey.sum > room {
                survey.retry_at = self.expiry_of(epoch);
            }
            slot = slot.checked_sub(1).unwrap_or(self.epochs() - 1);
            units = if epoch > oldest { self.filed_in(&ring[slot], epoch - 1) } else { 0 };
        }
        survey
    }

    /// The answer for `cost`, if the head is still the same afterwards.
    fn answer(&self, ring: &[AtomicU64], head: Head, cost: u64, now: Timestamp) -> Decision {
        let mut survey = self.survey(ring, head, cost, now);
        let room = self.limit.saturating_sub(cost);
        if !head.sealed
            && self.epoch_at(head, now) == head.epoch
            && let Some(sum) = self.sum(ring, head)
            && sum > survey.sum
        {
            // A refund came too late for the base, which the next turn adds up afresh.
            if sum > room && survey.sum <= room {
                survey.retry_at = self.start_of(head.epoch + 1);
            }
            survey.sum = sum;
        }
        let remaining = self.limit.saturating_sub(survey.sum);
        let reset_ns = survey.reset_at.saturating_sub(now.as_nanos());
        if cost > self.limit {
            Decision::Deny(Denial::oversized(remaining, reset_ns))
        } else if survey.sum > room {
            let retry_ns = survey.retry_at.saturating_sub(now.as_nanos());
            Decision::Deny(Denial::exhausted(remaining, retry_ns, reset_ns))
        } else if cost == 0 {
            Decision::Allow(Allowance::new(remaining, reset_ns))
        } else {
            let charged = self.epoch_at(head, now).max(head.epoch + u64::from(head.sealed));
            let reset_ns = self.expiry_of(charged) - now.as_nanos();
            Decision::Allow(Allowance::new(remaining - cost, reset_ns))
        }
    }

    /// Charges in the head's own epoch, where it is open, the base is on it, `now` is not after it, and
    /// there is room: all but always. `None` says that something else is the case, or that another
    /// thread was faster.
    #[inline(always)]
    fn charge_here<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        units: u64,
        now: Timestamp,
    ) -> Option<Allowance> {
        let (head, sum) = self.room_here(cell, word, units, now)?;
        // The count stays below the limit, so the sum does not reach the field above.
        match cell.swap(word, word + units) {
            Swap::Done => {
                let reset_ns = self.expiry_of(head.epoch) - now.as_nanos();
                Some(Allowance::new(self.limit - sum - units, reset_ns))
            }
            Swap::Changed(_) | Swap::Gone => None,
        }
    }

    /// The head and the sum before such a charge.
    #[inline(always)]
    fn room_here<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        units: u64,
        now: Timestamp,
    ) -> Option<(Head, u64)> {
        // Acquire: pairs with the release that moved the base on. A base read after its head is of
        // that head's epoch or later, since the base moves first.
        let base = cell.ring().last()?.load(Ordering::Acquire);
        let (head, sum) = self.layout.open_sum(word, base)?;
        // Negative for a stale `now`, which counts in the head's epoch.
        let into = now.as_nanos().wrapping_sub(self.start_of(head.epoch)) as i64;
        if into >= self.width_ns.by() as i64
            || units == 0
            || units > self.limit
            || sum > self.limit - units
        {
            return None;
        }
        Some((head, sum))
    }

    /// Decides whatever the state is.
    #[inline(never)]
    fn decide_anywhere<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Decision> {
        let (ring, units) = (cell.ring(), cost.units());
        // A round is repeated only when another thread has moved the state on, or after a turn.
        loop {
            if let Some(allowance) = self.charge_here(cell, word, units, now) {
                return Some(Decision::Allow(allowance));
            }
            let head = self.layout.head(word);
            let decision = self.answer(ring, head, units, now);
            // Between two readings of one open head, the base is on its epoch, unless a crash left
            // words of different times. Then a turn brings them together.
            let is_torn = self.sum(ring, head).is_none();
            let current = cell.load()?;
            if current != word {
                word = current;
            } else if !decision.is_allow() || units == 0 {
                return Some(decision);
            } else if head.sealed || is_torn || self.epoch_at(head, now) != head.epoch {
                // A denial writes nothing, so a later epoch is entered only to be charged in.
                word = self.turn(cell, word, now)?;
            }
            // Else another thread was faster, and the head has come back to what it was.
        }
    }

    /// The sum in the head's own epoch, where the head is open and the base is on the same epoch.
    #[inline]
    fn sum(&self, ring: &[AtomicU64], head: Head) -> Option<u64> {
        // Relaxed: who saw the head sees the base of that head's epoch, or a later one, which is not
        // taken; and nothing is read by the base.
        let base: Base = self.layout.base(self.base(ring).load(Ordering::Relaxed));
        (base.epoch == head.epoch).then(|| base.sum.saturating_add(head.count))
    }
}

/// What counts at a time, and when that changes, in nanoseconds since the origin.
struct Survey {
    sum: u64,
    retry_at: u64,
    reset_at: u64,
}

impl Protocol for SlidingWindowCounter {
    fn ring_words(&self) -> usize {
        self.ring_len()
    }

    #[inline(always)]
    fn decide<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<Decision> {
        match self.charge_here(cell, word, cost.units(), now) {
            Some(allowance) => Some(Decision::Allow(allowance)),
            None => self.decide_anywhere(cell, word, cost, now),
        }
    }

    fn peek<C: Cell>(
        &self,
        cell: &C,
        mut word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Decision> {
        loop {
            let head = self.layout.head(word);
            let decision = self.answer(cell.ring(), head, cost.units(), now);
            match cell.load()? {
                current if current == word => return Some(decision),
                current => word = current,
            }
        }
    }

    #[inline(always)]
    fn foresee<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        now: Timestamp,
    ) -> Option<Result<(), Denial>> {
        match self.room_here(cell, word, cost.units(), now) {
            Some(_) => Some(Ok(())),
            None => self.peek(cell, word, cost, now).map(Decision::into_result),
        }
    }

    fn charge<C: Cell>(&self, cell: &C, mut word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        loop {
            let head = self.layout.head(word);
            if head.sealed || self.epoch_at(head, now) != head.epoch {
                word = self.turn(cell, word, now)?;
                continue;
            }
            let next = Head { count: head.count.saturating_add(cost.units()), ..head };
            match cell.swap(word, self.layout.head_word(next)) {
                Swap::Done => return Some(()),
                Swap::Changed(current) => word = current,
                Swap::Gone => return None,
            }
        }
    }

    fn refund<C: Cell>(
        &self,
        cell: &C,
        word: u64,
        cost: Cost,
        charged_at: Timestamp,
        now: Timestamp,
    ) -> Option<()> {
        self.refund_epoch(cell, word, cost.units(), charged_at, now)
    }

    fn forgive<C: Cell>(&self, cell: &C, word: u64, cost: Cost, now: Timestamp) -> Option<()> {
        self.free_oldest(cell, word, cost.units(), now)
    }

    fn enter(&self, left_behind: u64, cost: Cost, now: Timestamp) -> Entry {
        if cost.units() > self.limit {
            return Entry::Deny(Denial::oversized(self.limit, 0));
        }
        let epoch = self.epoch_at(self.layout.head(left_behind), now);
        let word = self.layout.head_word(Head { epoch, sealed: false, count: 0 });
        let reset_ns = if cost == Cost::ZERO { 0 } else { self.expiry_of(epoch) - now.as_nanos() };
        let allowance = Allowance::new(self.limit - cost.units(), reset_ns);
        Entry::Admit { word, charged: false, allowance }
    }

    fn prepare<C: Cell>(&self, cell: &C, word: u64, clear: bool) {
        self.prepare_ring(cell, self.layout.head(word), clear);
    }

    #[inline]
    fn is_idle(&self, word: u64, now: Timestamp) -> bool {
        let head = self.layout.head(word);
        !head.sealed && self.expiry_of(head.epoch) <= now.as_nanos()
    }

    #[inline]
    fn idle_at(&self, word: u64) -> Timestamp {
        Timestamp::from_nanos(self.expiry_of(self.layout.head(word).epoch))
    }

    #[inline]
    fn idle_rank(&self, word: u64) -> u64 {
        self.layout.head(word).epoch
    }

    #[inline]
    fn is_settled(&self, word: u64) -> bool {
        !self.layout.head(word).sealed
    }
}
