//! An algorithm of one's own, plugged into the table: a cool-down between calls that doubles with
//! each call, as for log-in attempts.
//!
//! The word holds the time at which the next call may come, and in its low 5 bits how often the wait
//! was doubled.

use std::time::Duration;

use tidegate_core::{
    Algorithm, Allowance, Borrowed, Cost, Denial, Key, Line, Step, Table, Tally, Timestamp,
};

struct Cooldown {
    first_ns: u64,
}

const DOUBLED: u64 = 31;

impl Algorithm for Cooldown {
    fn step(&self, word: u64, _: Cost, now: Timestamp) -> Step {
        let (free_at, doubled) = (word & !DOUBLED, word & DOUBLED);
        if now.as_nanos() < free_at {
            let wait_ns = free_at - now.as_nanos();
            return Step::Deny(Denial::exhausted(0, wait_ns, wait_ns));
        }
        // A pause as long as the last wait starts afresh.
        let doubled = if self.is_idle(word, now) { 0 } else { (doubled + 1).min(20) };
        let wait_ns = self.first_ns << doubled;
        let free_at = (now.as_nanos() + wait_ns + DOUBLED) & !DOUBLED; // rounded up
        Step::Allow { word: free_at | doubled, allowance: Allowance::new(0, 2 * wait_ns) }
    }

    fn charge(&self, word: u64, _: Cost, _: Timestamp) -> u64 {
        word
    }

    fn refund(&self, word: u64, _: Cost, _: Timestamp, _: Timestamp) -> u64 {
        word
    }

    fn idle_at(&self, word: u64) -> Timestamp {
        match word {
            0 => Timestamp::ZERO,
            _ => Timestamp::from_nanos((word & !DOUBLED) + (self.first_ns << (word & DOUBLED))),
        }
    }
}

fn main() -> Result<(), tidegate_core::TableError> {
    let lines: Vec<Line> = (0..Line::for_keys(1_000)).map(|_| Line::new()).collect();
    let tally = Tally::new();
    let table =
        Table::new(Cooldown { first_ns: 1_000_000_000 }, Borrowed::new(&lines, &[], &tally))?;

    let (mallory, mut now) = (Key::from_hash(0x9e37_79b9_7f4a_7c15), Timestamp::from_secs(1));
    for attempt in 1..=40 {
        let answer = if table.decide(mallory, Cost::ONE, now).is_allow() { "try" } else { "wait" };
        println!("attempt {attempt} at {:>4} s: {answer}", now.as_nanos() / 1_000_000_000);
        now = now + Duration::from_secs(1);
    }
    Ok(())
}
