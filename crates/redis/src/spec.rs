//! [`Spec`]: a limit in the numbers that the scripts count in.
//!
//! Numbers in a script are doubles, which are exact below 2^53. So time is microseconds, whose 51 bits
//! leave room for sums, and nothing is multiplied that does not fit: costs are turned into time here, and
//! what a state means is worked out here, in 128 bits. Scripts only add and compare.

mod bucket;
mod counter;
mod log;
mod window;

use std::fmt;

use tidegate::{AlgorithmName, Cost, Decision, Limit};

pub(crate) use bucket::Bucket;
pub(crate) use counter::Counter;
pub(crate) use log::Log;
pub(crate) use window::Window;

/// Microseconds since 1970, by the server's clock.
pub(crate) type Micros = u64;

/// How many sizes a lease may have.
pub(crate) const SIZES: usize = 8;

/// A limit in the numbers that the scripts count in.
#[derive(Debug)]
pub(crate) enum Spec {
    Bucket(Bucket),
    Window(Window),
    Counter(Counter),
    Log(Log),
}

/// What a call wants leased beside its cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    /// So many units, or a part of them.
    pub(crate) units: u64,
    /// For so long at most.
    pub(crate) lead_us: u64,
    /// When so many times as much is left.
    pub(crate) parts: u64,
}

impl Wish {
    /// The sizes, from the largest on: halves of what is wished for.
    fn sizes(&self) -> [u64; SIZES] {
        std::array::from_fn(|index| self.units >> index)
    }
}

/// A layer's parameters, as a script reads them.
#[derive(Debug, Default)]
pub(crate) struct Parameters(Vec<u8>);

impl Parameters {
    fn new(kind: u8, second: u8, third: u8) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend([kind, second, third]);
        Self(bytes)
    }

    /// Adds numbers, all below 2^53.
    fn numbers<const N: usize>(mut self, numbers: [u64; N]) -> Self {
        for number in numbers {
            self.0.extend((number as f64).to_le_bytes());
        }
        self
    }

    /// Adds numbers that may be negative.
    fn signed<const N: usize>(mut self, numbers: [i64; N]) -> Self {
        for number in numbers {
            self.0.extend((number as f64).to_le_bytes());
        }
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// How a layer is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) cost: Cost,
    pub(crate) dry_run: bool,
    /// The wish, and which of the call's holds notes it, counted from 0.
    pub(crate) lease: Option<(Wish, u8)>,
}

impl Ask {
    /// The third byte: 0 charges nothing, 1 charges, from 2 on leases too.
    fn charges(&self) -> u8 {
        match self.lease {
            _ if self.cost == Cost::ZERO => 0,
            None => 1,
            Some((_, hold)) => 2 + hold,
        }
    }
}

/// Costs above this count as this: the sum of two is still exact.
const MAX_COST: u64 = 1 << 52;

fn bounded(cost: Cost) -> u64 {
    cost.units().min(MAX_COST)
}

/// A state that a script answered: its numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State<'a>(pub(crate) &'a [u8]);

impl State<'_> {
    /// The number at an index; 0 where the state ends before.
    fn number(&self, index: usize) -> u64 {
        let bytes = self.0.get(index * 8..index * 8 + 8);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, |bytes| f64::from_le_bytes(bytes) as u64)
    }

    fn len(&self) -> usize {
        self.0.len() / 8
    }
}

impl Spec {
    /// # Errors
    /// When the scripts cannot count the limit.
    pub(crate) fn new(limit: &Limit) -> Result<Self, SpecError> {
        let spec = match limit.algorithm() {
            AlgorithmName::TokenBucket => Self::Bucket(Bucket::new(limit)?),
            AlgorithmName::FixedWindow => Self::Window(Window::new(limit)?),
            AlgorithmName::SlidingWindowCounter => Self::Counter(Counter::new(limit)?),
            AlgorithmName::SlidingWindowLog => Self::Log(Log::new(limit)?),
            algorithm => return Err(SpecError::Algorithm { algorithm }),
        };
        Ok(spec)
    }

    /// The algorithm's number in scripts.
    pub(crate) const fn kind(&self) -> u8 {
        match self {
            Self::Bucket(_) => Bucket::KIND,
            Self::Window(_) => Window::KIND,
            Self::Counter(_) => Counter::KIND,
            Self::Log(_) => Log::KIND,
        }
    }

    /// Whether units can be leased: not of a log, which would not be exact any more.
    pub(crate) const fn leases(&self) -> bool {
        !matches!(self, Self::Log(_))
    }

    /// The parameters of a decision. `now` is when it will be, probably.
    pub(crate) fn ask(&self, ask: &Ask, now: Micros) -> Parameters {
        match self {
            Self::Bucket(bucket) => bucket.ask(ask),
            Self::Window(window) => window.ask(ask, now),
            Self::Counter(counter) => counter.ask(ask),
            Self::Log(log) => log.ask(ask),
        }
    }

    /// The parameters of a charge that is not asked for. `now` is when it will be, probably.
    pub(crate) fn charge(&self, cost: Cost, now: Micros) -> Parameters {
        match self {
            Self::Bucket(bucket) => bucket.charge(cost),
            Self::Window(window) => window.charge(cost, now),
            Self::Counter(counter) => counter.charge(cost),
            Self::Log(log) => log.charge(cost),
        }
    }

    /// The parameters of a refund of what was charged at `charged_at`, as if so much later (a lease, as if
    /// at its end). Leases of the same limit last `lead_us` at most.
    pub(crate) fn refund(
        &self,
        cost: Cost,
        charged_at: Micros,
        later_us: u64,
        lead_us: u64,
    ) -> Parameters {
        match self {
            Self::Bucket(bucket) => bucket.refund(cost, charged_at + later_us, lead_us),
            Self::Window(window) => window.refund(cost, charged_at),
            Self::Counter(counter) => counter.refund(cost, charged_at),
            Self::Log(log) => log.refund(cost, charged_at),
        }
    }

    /// What a script's answer means: the state before, or the one after if the cost was charged.
    pub(crate) fn decision(
        &self,
        state: State<'_>,
        cost: Cost,
        fits: bool,
        now: Micros,
    ) -> Decision {
        match self {
            Self::Bucket(bucket) => bucket.decision(state, cost, fits, now),
            Self::Window(window) => window.decision(state, cost, fits, now),
            Self::Counter(counter) => counter.decision(state, cost, fits, now),
            Self::Log(log) => log.decision(state, cost, fits, now),
        }
    }
}

/// A span in nanoseconds, as decisions tell it.
const fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1_000)
}

/// The period in whole microseconds.
fn period_us(limit: &Limit) -> Result<u64, SpecError> {
    let length = limit.rate().length().unwrap_or_default();
    match u64::try_from(length.as_nanos()) {
        Ok(nanos) if nanos > 0 && nanos % 1_000 == 0 => Ok(nanos / 1_000),
        _ => Err(SpecError::Period),
    }
}

/// Why the scripts cannot count a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecError {
    /// The period is not a whole number of microseconds.
    Period,
    /// There is no script for the algorithm.
    Algorithm {
        /// Its name.
        algorithm: AlgorithmName,
    },
    /// A sliding window log of more units than a server should hold for a key.
    LogTooLarge {
        /// The units asked for.
        units: u64,
    },
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Period => f.write_str(
                "a limit on a server needs a period of whole microseconds; use a longer one",
            ),
            Self::Algorithm { algorithm } => write!(
                f,
                "a limit of {algorithm} is kept by each process for itself, not on a server; use another algorithm"
            ),
            Self::LogTooLarge { units } => write!(
                f,
                "a log of {units} units takes too long on a server; give at most {}, or use `sliding-window-counter`",
                Log::MAX_LIMIT
            ),
        }
    }
}

impl std::error::Error for SpecError {}
