//! What the threads of a history call.

use tidegate_core::{Cost, Timestamp};

pub const WINDOW_NS: u64 = 12;

/// A call, with all its arguments.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub user: u64,
    pub cost: Cost,
    pub now: Timestamp,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Decide,
    Peek,
    Charge,
    /// Of a charge at that time.
    Refund(Timestamp),
}

/// What a call was told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Told {
    Decided { allowed: bool, remaining: u64 },
    Done,
}

/// How the clocks of the threads run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clocks {
    /// All threads have one time; it moves on when all are done with their calls at that time.
    InPhases,
    /// As in phases; in one phase, threads either charge or refund.
    InPhasesOfOneKind,
    /// Each thread has its own, and they differ by up to a window.
    Apart,
}

/// What a thread does next, when its former answers are known.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    user: u64,
    units: u64,
    now: Timestamp,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Decide,
    Peek,
    Charge,
    RefundLast,
}

impl Step {
    /// The call, unless it is a refund and there is nothing to refund.
    pub fn call(self, last: &mut Option<(u64, Timestamp)>) -> Option<Call> {
        let Self { user, units, now, what } = self;
        let (user, cost, kind) = match what {
            What::Decide => (user, Cost::new(units), Kind::Decide),
            What::Peek => (user, Cost::new(units), Kind::Peek),
            What::Charge => (user, Cost::new(units), Kind::Charge),
            What::RefundLast => {
                let (user, at) = last.take()?;
                // A refund into an epoch that is being completed takes effect with the next.
                if at != now {
                    return None;
                }
                (user, Cost::ONE, Kind::Refund(at))
            }
        };
        Some(Call { user, cost, now, kind })
    }
}

/// Random steps: by phase, by thread.
pub fn script(seed: u64, clocks: Clocks, threads: u64, users: u64) -> Vec<Vec<Vec<Step>>> {
    let mut random = Random(seed);
    let start = 100 + random.below(WINDOW_NS);
    let mut now = start;
    (0..3)
        .map(|_| {
            now += random.below(WINDOW_NS + WINDOW_NS / 2);
            let kinds = match clocks {
                Clocks::InPhases => Kinds { charges: true, refunds: true },
                Clocks::InPhasesOfOneKind => {
                    let charges = random.below(2) == 0;
                    Kinds { charges, refunds: !charges }
                }
                Clocks::Apart => Kinds { charges: true, refunds: false },
            };
            (0..threads)
                .map(|thread| {
                    let apart = if clocks == Clocks::Apart { thread * WINDOW_NS / 3 } else { 0 };
                    let steps = 1 + random.below(3);
                    (0..steps).map(|_| step(&mut random, kinds, now + apart, users)).collect()
                })
                .collect()
        })
        .collect()
}

/// Which kinds of calls a phase has beside decisions.
#[derive(Clone, Copy)]
struct Kinds {
    charges: bool,
    refunds: bool,
}

fn step(random: &mut Random, kinds: Kinds, now: u64, users: u64) -> Step {
    let user = random.below(users);
    let (units, what) = match random.below(12) {
        0..=6 => (1 + random.below(2), What::Decide),
        7 => (random.below(4), What::Peek),
        8 if kinds.charges => (1 + random.below(2), What::Charge),
        9.. if kinds.refunds => (1, What::RefundLast),
        _ => (1, What::Decide),
    };
    Step { user, units, now: Timestamp::from_nanos(now), what }
}

/// SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
