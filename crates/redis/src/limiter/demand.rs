//! [`Demand`]: how much a key has been spending, to tell hot keys from cold ones in fixed memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::Timestamp;

/// What keys have spent lately, in cells that they share by their hash: who shares one with a hot key is
/// taken for hot too, which costs a lease that is not needed, and nothing else.
///
/// A cell is a word: when it was last written, in ms, and the level then. The level falls to half in the
/// time of a lease, and what is spent is added. So of a steady demand it shows about 1.4 times what is
/// spent during a lease.
///
/// # Orderings
/// All relaxed: each word is a fact of its own. Two that write at once may lose one's units, which makes
/// a lease smaller.
#[derive(Debug)]
pub(crate) struct Demand {
    cells: Box<[AtomicU64]>,
    half_life_ms: u64,
}

const LEVEL_BITS: u32 = 24;
const MAX_LEVEL: u64 = (1 << LEVEL_BITS) - 1;

impl Demand {
    pub(crate) fn new(cells: usize, half_life: Duration) -> Self {
        let cells = (0..cells.next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
        Self { cells, half_life_ms: (half_life.as_millis() as u64).max(1) }
    }

    /// Adds what was spent, and gives the level.
    pub(crate) fn note(&self, hash: u64, units: u64, now: Timestamp) -> u64 {
        let cell = &self.cells[hash as usize & (self.cells.len() - 1)];
        let now_ms = now.as_nanos() / 1_000_000;
        let word = cell.load(Ordering::Relaxed);
        let (then_ms, level) = (word >> LEVEL_BITS, word & MAX_LEVEL);
        let level = fallen(level, now_ms.saturating_sub(then_ms), self.half_life_ms);
        let level = level.saturating_add(units).min(MAX_LEVEL);
        cell.store(now_ms.max(then_ms) << LEVEL_BITS | level, Ordering::Relaxed);
        level
    }
}

/// Half in each half-life, and in between by the first terms of the series of 2^-x, to the nearest unit:
/// so that many short steps fall about as far as one long one. A step that would take less than half a unit
/// takes none, which leaves a level of some 70 units where it is while steps are of a hundredth.
fn fallen(level: u64, since_ms: u64, half_life_ms: u64) -> u64 {
    let halvings = since_ms / half_life_ms;
    if halvings >= u64::from(LEVEL_BITS) {
        return 0;
    }
    // In 1/65536; the constants are ln 2, (ln 2)^2 / 2 and so on.
    let x = ((u128::from(since_ms % half_life_ms) << 16) / u128::from(half_life_ms)) as u64;
    // Horner's rule, rounded down at each step.
    let [first, second, third, fourth] = [45_426, 15_744, 3_638, 630];
    let times_x = |term: u64| (term * x) >> 16;
    let fallen = times_x(first - times_x(second - times_x(third - times_x(fourth))));
    let part = 65_536 - fallen;
    ((level >> halvings) * part + 32_768) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_follows_the_demand_and_falls_when_there_is_none() {
        let demand = Demand::new(1, Duration::from_millis(100));
        let at = |ms: u64| Timestamp::from_nanos(ms * 1_000_000);
        let mut level = 0;
        for ms in 0..2_000 {
            level = demand.note(7, 10, at(5_000 + ms));
        }
        // 1,000 are spent in the time of a lease.
        assert!((1_300..1_500).contains(&level), "{level}");
        assert!((650..750).contains(&demand.note(7, 0, at(7_100))));
        assert_eq!(demand.note(7, 0, at(60_000)), 0);
        assert_eq!(demand.note(7, 3, at(59_000)), 3, "a time that steps back");
        assert_eq!(demand.note(7, u64::MAX, at(60_000)), MAX_LEVEL);
    }
}
