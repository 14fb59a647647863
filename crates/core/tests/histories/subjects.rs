//! What is called: every storage.

use tidegate_core::{
    AtomicU64, Cell, Cost, Decision, Key, Limiter, Line, Protocol, Storage, Table, Tally, Timestamp,
};

use crate::calls::{Call, Kind, Told};

/// Something that answers calls from many threads.
pub trait Subject: Send + Sync + 'static {
    fn call(&self, call: Call) -> Told;
}

pub fn told(decision: Decision) -> Told {
    Told::Decided { allowed: decision.is_allow(), remaining: decision.remaining() }
}

pub struct Alone<P>(Limiter<P, Vec<AtomicU64>>);

impl<P: Protocol> Alone<P> {
    pub fn new(protocol: P) -> Self {
        let ring = (0..protocol.ring_words()).map(|_| AtomicU64::new(0)).collect();
        Self(Limiter::with_ring(protocol, ring))
    }
}

impl<P: Protocol + Send + Sync + 'static> Subject for Alone<P> {
    fn call(&self, call: Call) -> Told {
        let Call { cost, now, kind, .. } = call;
        match kind {
            Kind::Decide => told(self.0.decide(cost, now)),
            Kind::Peek => told(self.0.peek(cost, now)),
            Kind::Charge => {
                self.0.charge(cost, now);
                Told::Done
            }
            Kind::Refund(charged_at) => {
                self.0.refund(cost, charged_at, now);
                Told::Done
            }
        }
    }
}

/// A table of one line, into which the users crowd: they take each other's slots when idle.
pub struct Keyed<P>(Table<P, Memory>);

pub struct Memory {
    lines: Vec<Line>,
    ring: Vec<AtomicU64>,
    tally: Tally,
}

impl Storage for Memory {
    fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn ring(&self) -> &[AtomicU64] {
        &self.ring
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl<P: Protocol> Keyed<P> {
    pub fn new(protocol: P) -> Self {
        let words = 4 * protocol.ring_words();
        let memory = Memory {
            lines: vec![Line::new()],
            ring: (0..words).map(|_| AtomicU64::new(0)).collect(),
            tally: Tally::new(),
        };
        Self(Table::new(protocol, memory).unwrap())
    }
}

impl<P: Protocol + Send + Sync + 'static> Subject for Keyed<P> {
    fn call(&self, call: Call) -> Told {
        let Call { user, cost, now, kind } = call;
        let key = Key::from_hash((user + 1) << 40);
        match kind {
            Kind::Decide => told(self.0.decide(key, cost, now)),
            Kind::Peek => told(self.0.peek(key, cost, now)),
            Kind::Charge => {
                assert!(self.0.charge(key, cost, now), "there is room for everybody");
                Told::Done
            }
            Kind::Refund(charged_at) => {
                self.0.refund(key, cost, charged_at, now);
                Told::Done
            }
        }
    }
}

/// A limiter over a cell of the test's own.
pub struct Over<P, C> {
    pub protocol: P,
    pub cell: C,
}

impl<P: Protocol, C: Cell> Over<P, C> {
    pub fn decide(&self, cost: Cost, now: Timestamp) -> Decision {
        let word = self.cell.load().expect("never gone");
        self.protocol.decide(&self.cell, word, cost, now).expect("never gone")
    }

    pub fn peek(&self, cost: Cost, now: Timestamp) -> Decision {
        let word = self.cell.load().expect("never gone");
        self.protocol.peek(&self.cell, word, cost, now).expect("never gone")
    }

    pub fn charge(&self, cost: Cost, now: Timestamp) {
        let word = self.cell.load().expect("never gone");
        self.protocol.charge(&self.cell, word, cost, now).expect("never gone");
    }

    pub fn refund(&self, cost: Cost, charged_at: Timestamp, now: Timestamp) {
        let word = self.cell.load().expect("never gone");
        self.protocol.refund(&self.cell, word, cost, charged_at, now).expect("never gone");
    }
}
