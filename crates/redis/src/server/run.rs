//! Running a script on the server: by its hash, and by its text where the server does not know it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Cmd, RedisResult, Value};
use smallvec::SmallVec;
use tidegate::Timestamp;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::batch::{Answered, Told};
use super::late::Late;
use super::{Server, ServerError};
use crate::breaker::Permit;
use crate::script::{Algorithms, Operation, Source};
use crate::spec::{Micros, Parameters};
use crate::tally::Count;

/// How long an answer is waited for that comes too late.
const LATEST: Duration = Duration::from_secs(600);

/// What a script is given.
#[derive(Default)]
pub(super) struct Sent<'a> {
    pub(super) keys: SmallVec<[&'a str; 4]>,
    pub(super) arguments: SmallVec<[Parameters; 4]>,
    pub(super) hold_ms: Option<u64>,
}

/// What a script answered: two numbers, the states of layers, and what was leased.
#[derive(Debug)]
pub(super) enum Reply {
    Values(Vec<Value>),
    /// Of a compact script: the two numbers, and two for each layer, 8 bytes each.
    Packed(Vec<u8>),
    /// The same, in what was answered to a batch.
    Part(Arc<Vec<u8>>, Range<usize>),
}

impl Reply {
    fn read(told: Told) -> Option<Self> {
        match told {
            Told::Whole(Value::Array(values)) if values.len() >= 2 => Some(Self::Values(values)),
            Told::Whole(Value::BulkString(bytes)) if bytes.len() >= 16 => Some(Self::Packed(bytes)),
            Told::Part(bytes, part) if part.end <= bytes.len() => Some(Self::Part(bytes, part)),
            _ => None,
        }
    }

    /// What a compact script answered.
    fn packed(&self) -> &[u8] {
        match self {
            Self::Values(_) => &[],
            Self::Packed(bytes) => bytes,
            Self::Part(bytes, part) => &bytes[part.clone()],
        }
    }

    fn number(&self, index: usize) -> i64 {
        match self {
            Self::Values(values) => match values.get(index) {
                Some(Value::Int(number)) => *number,
                _ => 0,
            },
            _ => {
                let number = self.packed().get(8 * index..8 * index + 8);
                let number = number.and_then(|bytes| bytes.try_into().ok());
                number.map_or(0, |bytes| f64::from_le_bytes(bytes) as i64)
            }
        }
    }

    pub(super) fn first(&self) -> i64 {
        self.number(0)
    }

    /// A calendar's window is another than was said.
    pub(super) fn is_turned(&self) -> bool {
        self.first() < 0
    }

    pub(super) fn now(&self) -> Micros {
        self.number(1) as u64
    }

    /// A layer's state.
    pub(super) fn bytes(&self, layer: usize) -> Option<&[u8]> {
        match self {
            Self::Values(values) => match values.get(layer + 2) {
                Some(Value::BulkString(bytes)) => Some(bytes),
                _ => None,
            },
            _ => self.packed().get(16 * (layer + 1)..16 * (layer + 2)),
        }
    }

    /// What was leased, after the states of so many layers: place, units and duration.
    pub(super) fn grants(&self, layers: usize) -> SmallVec<[(usize, u64, u64); 2]> {
        let Self::Values(values) = self else { return SmallVec::new() };
        let granted = (layers + 2..values.len()).step_by(3);
        granted
            .map(|at| {
                let layer = usize::try_from(self.number(at) - 1).unwrap_or(0);
                (layer, self.number(at + 1) as u64, self.number(at + 2) as u64)
            })
            .collect()
    }
}

/// What came of a call that went by itself.
fn whole(answered: Result<RedisResult<Value>, Elapsed>) -> Answered {
    answered.ok().map(|answer| answer.map(Told::Whole))
}

impl Server {
    /// What the time on the server is, probably.
    pub(super) fn now(&self) -> Micros {
        #[cfg(feature = "fake-time")]
        if let Some(now) = &self.fake_now {
            return now.load(Ordering::SeqCst);
        }
        let ours = (self.local_now().as_nanos() / 1_000) as i64;
        // Relaxed: a guess, which the script checks.
        ours.saturating_add(self.ahead_us.load(Ordering::Relaxed)).max(0) as Micros
    }

    fn learn(&self, reply: &Reply, now: Timestamp) {
        let ours = (now.as_nanos() / 1_000) as i64;
        let ahead = reply.now() as i64 - ours;
        // Relaxed: a guess. Seldom written, so that all threads can keep it.
        let known = self.ahead_us.load(Ordering::Relaxed);
        if known.abs_diff(ahead) > 1_000 {
            self.ahead_us.store(ahead, Ordering::Relaxed);
        }
    }

    /// Runs a script, within the time that a call has.
    pub(super) async fn run(
        &self,
        operation: Operation,
        algorithms: Algorithms,
        sent: &Sent<'_>,
    ) -> Result<Reply, ServerError> {
        let permit = self.permit()?;
        #[cfg(feature = "simulation")]
        if let Some(server) = &self.simulated {
            self.wire.tally.note(Count::round_trips);
            let arguments: Vec<&[u8]> = sent.arguments.iter().map(Parameters::as_bytes).collect();
            let running = server.run(operation, &sent.keys, &arguments);
            return self.judge(permit, whole(timeout(self.wire.timeout, running).await.map(Ok)));
        }
        let script = self.script(operation, algorithms);
        let command = self.command(script, sent, operation.is_compact(algorithms));
        let sending = self.wire.send(script, &command);
        self.judge(permit, whole(timeout(self.wire.timeout, sending).await))
    }

    /// As [`run`](Self::run), for a decision in a namespace, which goes with others that are under way if it can.
    pub(super) async fn run_decide(
        &self,
        algorithms: Algorithms,
        sent: &Sent<'_>,
        tag: &str,
    ) -> Result<Reply, ServerError> {
        let (_under_way, has_company) = self.batches.begin();
        let is_batched = has_company && self.is_batched(algorithms);
        let company = is_batched.then(|| self.batches.company(algorithms, tag)).flatten();
        let Some(company) = company else {
            return self.run(Operation::Decide, algorithms, sent).await;
        };
        let permit = self.permit()?;
        let answered = company.send(&self.wire, sent).await;
        self.judge(permit, answered)
    }

    /// Whether there is a script for several calls at once.
    fn is_batched(&self, algorithms: Algorithms) -> bool {
        #[cfg(feature = "fake-time")]
        if self.fake_now.is_some() {
            return false;
        }
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            return false;
        }
        Operation::Decide.is_compact(algorithms)
    }

    /// As [`run`](Self::run), for a reservation. If the answer does not come in time, it is waited for all the
    /// same, in the background, and what it reserved is given back.
    pub(super) async fn run_reserve(
        self: &Arc<Self>,
        algorithms: Algorithms,
        sent: &Sent<'_>,
        late: impl FnOnce() -> Late,
    ) -> Result<Reply, ServerError> {
        #[cfg(feature = "simulation")]
        if self.simulated.is_some() {
            return self.run(Operation::Reserve, algorithms, sent).await;
        }
        let permit = self.permit()?;
        let script = self.script(Operation::Reserve, algorithms);
        let command = self.command(script, sent, Operation::Reserve.is_compact(algorithms));
        let wire = self.wire.clone();
        let mut sending = Box::pin(async move { wire.send(script, &command).await });
        let answered = whole(timeout(self.wire.timeout, sending.as_mut()).await);
        if answered.is_none() {
            let late = late();
            tokio::spawn(async move {
                if let Ok(Ok(value)) = timeout(LATEST, sending).await
                    && let Some(reply) = Reply::read(Told::Whole(value))
                {
                    late.give_back(&reply).await;
                }
            });
        }
        self.judge(permit, answered)
    }

    /// Whether the server may be asked.
    fn permit(&self) -> Result<Permit, ServerError> {
        let permit = self.breaker.permit(self.local_now(), self.roll());
        if permit == Permit::Refuse {
            self.wire.tally.note(Count::not_tried);
            return Err(ServerError::GivenUp);
        }
        Ok(permit)
    }

    /// What came of asking.
    fn judge(&self, permit: Permit, answered: Answered) -> Result<Reply, ServerError> {
        let error = match answered {
            Some(Ok(value)) => {
                let now = self.local_now();
                self.breaker.succeeded(now);
                let reply = Reply::read(value).ok_or(ServerError::Reply)?;
                self.learn(&reply, now);
                if reply.is_turned() {
                    self.wire.tally.note(Count::windows_turned);
                }
                return Ok(reply);
            }
            Some(Err(error)) => {
                self.wire.tally.note(Count::failures);
                ServerError::Redis(error)
            }
            None => {
                self.wire.tally.note(Count::timeouts);
                ServerError::Timeout
            }
        };
        if self.breaker.failed(permit, self.local_now(), self.roll()) {
            self.wire.tally.note(Count::breaker_opened);
            tracing::warn!(%error, "the server is not asked for a while");
        }
        if self.breaker.is_open() {
            // It may be another machine by now.
            self.wire.link.reset();
        }
        Err(error)
    }

    fn script(&self, operation: Operation, algorithms: Algorithms) -> &'static Source {
        #[cfg(feature = "fake-time")]
        if self.fake_now.is_some() {
            return operation.script_of_fake_time(algorithms);
        }
        operation.script(algorithms)
    }

    fn command(&self, script: &Source, sent: &Sent<'_>, is_compact: bool) -> Cmd {
        let keys: usize = sent.keys.iter().map(|key| key.len()).sum();
        let arguments: usize = sent.arguments.iter().map(|bytes| bytes.as_bytes().len()).sum();
        // So much, and the hash, some numbers and names: allocated at once.
        let mut command =
            Cmd::with_capacity(5 + sent.keys.len() + sent.arguments.len(), 128 + keys + arguments);
        command.arg("EVALSHA").arg(&script.hash).arg(sent.keys.len());
        for key in &sent.keys {
            command.arg(key);
        }
        if is_compact {
            let mut all = SmallVec::<[u8; 256]>::new();
            for argument in &sent.arguments {
                all.extend_from_slice(argument.as_bytes());
            }
            command.arg(all.as_slice());
        } else {
            for argument in &sent.arguments {
                command.arg(argument.as_bytes());
            }
        }
        if let Some(hold_ms) = sent.hold_ms {
            command.arg(hold_ms);
        }
        #[cfg(feature = "fake-time")]
        if let Some(now) = &self.fake_now {
            command.arg(now.load(Ordering::SeqCst));
        }
        command
    }
}
