//! The operations that a victim is killed in.

use std::path::Path;
use std::time::Duration;

use tidegate::{Cost, FakeClock, KeyedLimiter, Limit, SharedFile, SharedHolds, Timestamp};

use crate::control::Control;
use crate::survivor::{self, Outcome};

pub(crate) const LIMIT: u64 = 6;
/// The smallest table: one line of four slots, and two where slots are cheap.
const KEYS: usize = 1;
pub(crate) const VICTIM: u32 = 1_000;
const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// What the victim does with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A decision on a key that is there.
    Decide,
    /// The first decision on a key.
    Insert,
    /// The same, where the slot was another key's, which is idle by now.
    TakeOver,
    /// A decision in a later epoch than the one before.
    Turn,
    /// A reservation that is settled for less.
    Settle,
    /// A reservation that is settled for more than it held.
    SettleAbove,
    /// A reservation that expires, and is settled for less. Survivors come after its expiry.
    Hold,
    /// What must fail.
    Control(Control),
}

/// An operation on a limit of some algorithm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) operation: Operation,
    algorithm: &'static str,
}

const ALGORITHMS: [&str; 4] =
    ["token-bucket", "fixed-window", "sliding-window-counter", "sliding-window-log"];

const LIFETIME: Duration = Duration::from_millis(1);

pub(crate) type Table = KeyedLimiter<u32, Limit, FakeClock>;

impl Subject {
    pub(crate) fn all() -> Vec<Self> {
        use Operation::{Decide, Hold, Insert, Settle, SettleAbove, TakeOver, Turn};
        let mut all = Vec::new();
        for operation in [Decide, Insert, TakeOver, Turn, Settle, SettleAbove, Hold] {
            all.extend(ALGORITHMS.map(|algorithm| Self { operation, algorithm }));
        }
        let controls = [Control::Lock, Control::TwoWords];
        all.extend(
            controls.map(|control| Self { operation: Operation::Control(control), algorithm: "-" }),
        );
        all
    }

    pub(crate) fn name(&self) -> String {
        match self.operation {
            Operation::Control(control) => format!("control: {}", control.name()),
            operation => format!("{operation:?} {}", self.algorithm).to_lowercase(),
        }
    }

    /// The state of the file before the victim comes.
    pub(crate) fn prepare(&self, path: &Path) {
        if let Operation::Control(control) = self.operation {
            return control.prepare(path);
        }
        let table = self.table(path, START);
        let spend = |key: u32| assert!(table.decide(&key, Cost::ONE).is_allow());
        match self.operation {
            // Every slot is another key's, and idle when the victim comes.
            Operation::TakeOver => (0..table.table().slots() as u32).for_each(spend),
            Operation::Insert => {}
            _ => spend(VICTIM),
        }
    }

    /// The victim's operation, ready to be called.
    pub(crate) fn ready(&self, path: &Path) -> Box<dyn FnOnce()> {
        if let Operation::Control(control) = self.operation {
            return control.ready(path);
        }
        if self.operation == Operation::Hold {
            let holds = self.holds(path, START);
            return Box::new(move || {
                let reservation = holds.reserve(&VICTIM, Cost::new(3), LIFETIME).expect("it fits");
                reservation.settle(Cost::new(1));
            });
        }
        let table = self.table(path, self.now());
        let operation = self.operation;
        Box::new(move || match operation {
            Operation::Settle | Operation::SettleAbove => {
                if let Ok(reservation) = table.reserve(&VICTIM, Cost::new(3)) {
                    let used = if operation == Operation::Settle { 1 } else { 4 };
                    reservation.settle(Cost::new(used));
                }
            }
            _ => assert!(table.decide(&VICTIM, Cost::ONE).is_allow()),
        })
    }

    /// What a survivor finds, and whether it can go on.
    pub(crate) fn survive(&self, path: &Path) -> Outcome {
        if let Operation::Control(control) = self.operation {
            return control.survive(path);
        }
        let spent_before = match self.operation {
            Operation::Insert | Operation::TakeOver => 0,
            // The sliding windows still count what was spent in an earlier epoch.
            Operation::Turn if self.algorithm == "token-bucket" => 0,
            Operation::Turn if self.algorithm == "fixed-window" => 0,
            _ => 1,
        };
        // What the operation charges when it is through, and at most in the middle.
        let (charges, most) = match self.operation {
            Operation::Settle | Operation::Hold => (1, 3),
            Operation::SettleAbove => (4, 4),
            _ => (1, 1),
        };
        if self.operation == Operation::Hold {
            self.holds(path, self.now() + LIFETIME).return_expired();
        }
        let table = self.table(path, self.now());
        survivor::go_on(table, path, LIMIT - spent_before, charges, most)
    }

    fn now(&self) -> Timestamp {
        match self.operation {
            Operation::TakeOver => START + Duration::from_secs(1_000),
            // Another epoch of the same window, or a window later.
            Operation::Turn if self.algorithm.starts_with("sliding") => {
                START + Duration::from_secs(25)
            }
            Operation::Turn => START + Duration::from_secs(61),
            _ => START,
        }
    }

    fn table(&self, path: &Path, now: Timestamp) -> Table {
        let file = SharedFile::open(path).expect("the file");
        let table = file.limiter("keys", self.limit(), KEYS).expect("the table");
        table.with_clock(FakeClock::at(now))
    }

    fn holds(&self, path: &Path, now: Timestamp) -> SharedHolds<u32, FakeClock> {
        let file = SharedFile::open(path).expect("the file");
        let holds = file.holds("keys", self.limit(), KEYS).expect("the table");
        holds.with_clock(FakeClock::at(now))
    }

    fn limit(&self) -> Limit {
        let rate = format!("{LIMIT} per minute").parse().expect("a rate");
        match self.algorithm {
            "token-bucket" => Limit::token_bucket(rate, None),
            "fixed-window" => Limit::fixed_window(rate, None),
            "sliding-window-counter" => Limit::sliding_window_counter(rate, 6),
            _ => Limit::sliding_window_log(rate),
        }
        .expect("a limit")
    }
}
