//! A limiter's state that can be copied, so that histories branch.

use tidegate_core::{AtomicU64, Cell, Cost, Decision, Protocol, Swap, Timestamp};

use std::sync::atomic::Ordering::Relaxed;

/// Words, the clock, and the last charge that was not refunded.
#[derive(Debug)]
pub struct State {
    head: AtomicU64,
    ring: Vec<AtomicU64>,
    now: Timestamp,
    last_charge: Option<(u64, Timestamp)>,
}

impl Clone for State {
    fn clone(&self) -> Self {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Relaxed));
        Self {
            head: copy(&self.head),
            ring: self.ring.iter().map(copy).collect(),
            now: self.now,
            last_charge: self.last_charge,
        }
    }
}

impl Cell for State {
    fn load(&self) -> Option<u64> {
        Some(self.head.load(Relaxed))
    }

    fn swap(&self, from: u64, to: u64) -> Swap {
        assert_eq!(self.head.swap(to, Relaxed), from, "one thread");
        Swap::Done
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.ring
    }
}

impl State {
    pub fn new<P: Protocol>(protocol: &P, now_ns: u64) -> Self {
        let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
        let now = Timestamp::from_nanos(now_ns);
        Self { head: AtomicU64::new(0), ring, now, last_charge: None }
    }

    /// The time of the next call.
    pub fn advance(&mut self, ns: i64) -> Timestamp {
        let moved = Timestamp::from_nanos(self.now.as_nanos().saturating_add_signed(ns));
        self.now = self.now.max(moved);
        moved
    }

    pub fn last_charge(&self) -> Option<(u64, Timestamp)> {
        self.last_charge
    }

    pub fn words(&self) -> Vec<u64> {
        std::iter::once(&self.head).chain(&self.ring).map(|word| word.load(Relaxed)).collect()
    }

    fn word(&self) -> u64 {
        self.head.load(Relaxed)
    }

    pub fn decide<P: Protocol>(&mut self, protocol: &P, cost: Cost, now: Timestamp) -> Decision {
        let decision = protocol.decide(self, self.word(), cost, now).expect("never gone");
        if decision.is_allow() {
            self.last_charge = Some((cost.units(), now));
        }
        decision
    }

    pub fn peek<P: Protocol>(&self, protocol: &P, cost: Cost, now: Timestamp) -> Decision {
        protocol.peek(self, self.word(), cost, now).expect("never gone")
    }

    pub fn charge<P: Protocol>(&mut self, protocol: &P, cost: Cost, now: Timestamp) {
        protocol.charge(self, self.word(), cost, now).expect("never gone");
    }

    /// Takes back up to so many units of the last charge.
    pub fn refund<P: Protocol>(&mut self, protocol: &P, units: u64, now: Timestamp) {
        if let Some((charged, at)) = self.last_charge.take() {
            let cost = Cost::new(units.min(charged));
            protocol.refund(self, self.word(), cost, at, now).expect("never gone");
        }
    }
}
