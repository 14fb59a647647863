//! [`SharedTable`]: a table of a shared file, to look at.

use tidegate_core::{Fault, LiveKey, Storage, Table, Tally, Timestamp};

use super::holds::Notes;
use crate::limit::Limit;
use crate::memory::Memory;

/// A table of a [`SharedFile`](crate::SharedFile), to look at: who has used how much.
///
/// Keys are not in the file, only what they hash to.
#[derive(Debug)]
pub struct SharedTable {
    name: String,
    table: Table<Limit, Memory>,
    notes: Option<Notes>,
    bytes: usize,
}

impl SharedTable {
    pub(super) fn new(name: String, limit: Limit, memory: Memory, notes: Option<Notes>) -> Self {
        let bytes = size_of_val(memory.lines()) + size_of_val(memory.ring());
        let Ok(table) = Table::new(limit, memory) else {
            unreachable!("the memory was mapped for this limit");
        };
        Self { name, table, notes, bytes }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its limit.
    #[must_use]
    pub const fn limit(&self) -> &Limit {
        self.table.protocol()
    }

    /// How many keys it has slots for.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.table.slots()
    }

    /// How many bytes its keys' state takes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often it was full.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        self.table.tally()
    }

    /// How many reservations that expire are open in it, and the units that they hold; `None` when it was
    /// never used with such.
    #[must_use]
    pub fn open_holds(&self) -> Option<(usize, u128)> {
        self.notes.as_ref().map(Notes::total)
    }

    /// How many keys are live at `now`.
    #[must_use]
    pub fn live_keys(&self, now: Timestamp) -> usize {
        self.table.live_keys(now)
    }

    /// The keys with the least left at `now`, and of those with as little, the ones that must wait
    /// longest; at most so many.
    #[must_use]
    pub fn top_consumers(&self, most: usize, now: Timestamp) -> Vec<LiveKey> {
        let mut keys = Vec::new();
        self.table.each_live(now, |key| keys.push(key));
        keys.sort_by_key(|key| {
            (key.standing.remaining(), std::cmp::Reverse(key.standing.reset_after()))
        });
        keys.truncate(most);
        keys
    }

    /// What is wrong with it: nothing, whoever died while using it. A key that is not idle within a year
    /// and the limit's window is told of too: it has debt, or its slot is damaged.
    #[must_use]
    pub fn faults(&self, now: Timestamp) -> Vec<Fault> {
        let year = std::time::Duration::from_secs(365 * 86_400);
        let mut faults = Vec::new();
        self.table.verify(now + self.limit().window() + year, |fault| faults.push(fault));
        faults
    }

    /// Makes it sound after the machine has stopped without writing all of it: see [`Table::mend`] and
    /// [`Holds::forget`](tidegate_core::Holds::forget).
    pub(super) fn mend(&self, now: Timestamp) {
        self.notes.iter().for_each(Notes::forget);
        if self.limit().is_concurrency() {
            // The calls that were counted have ended with the machine.
            self.table.clear();
        } else {
            self.table.mend(now);
        }
    }
}
