//! [`Server`]: decides on the layers of a call in one step.

mod batch;
mod error;
mod late;
mod run;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use smallvec::SmallVec;
use tidegate::{Clock, Cost, SystemClock, Timestamp};

use batch::Batches;
pub use error::ServerError;
use late::Late;
use run::Sent;
use wire::Wire;

use crate::answer::Answer;
use crate::breaker::Breaker;
use crate::config::ServerConfig;
use crate::dice::Dice;
use crate::link::Link;
use crate::namespace::{RemoteKey, RemoteLimit};
use crate::reservation::{Charged, RemoteReservation};
use crate::script::{Algorithms, Operation};
use crate::spec::{Ask, Micros, State, Wish};
use crate::tally::{Count, ServerTally};
use tidegate::policy::DecidedBy;

/// A server, or several that act as one, that limits live on.
///
/// All calls of a process share one connection, and do not wait for each other. Decisions of token buckets and
/// fixed windows that are asked for at the same time go together, up to 32 in one script, which decides on one
/// after the other: that is quicker than a script for each. A call that is not
/// answered in time is an error, and after some of them the server is left alone for a while (see
/// [`BreakerRules`](crate::BreakerRules)).
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tidegate::Cost;
/// use tidegate_redis::{Layer, Namespace, RemoteLimit, Server, ServerConfig};
///
/// let server = Server::new(&ServerConfig::single("redis://127.0.0.1:6379"))?;
/// let shop = Namespace::new("shop")?;
/// let everybody = RemoteLimit::new(&shop, "all", "token-bucket, 1000 per second, burst 1000".parse()?)?;
/// let users = RemoteLimit::new(&shop, "user", "sliding-window-log, 20 per minute".parse()?)?;
///
/// let answer = server.decide(&[
///     Layer::new(&everybody, everybody.key(""), Cost::ONE),
///     Layer::new(&users, users.key("alice"), Cost::ONE),
/// ]).await?;
/// assert!(answer.is_allow());
/// # Ok(())
/// # }
/// ```
pub struct Server {
    config: ServerConfig,
    wire: Arc<Wire>,
    batches: Batches,
    breaker: Breaker,
    dice: Dice,
    clock: Box<dyn Clock + Send + Sync>,
    /// How far the server's clock is ahead of ours, in us.
    ahead_us: AtomicI64,
    hold_ms: u64,
    #[cfg(feature = "fake-time")]
    fake_now: Option<Arc<std::sync::atomic::AtomicU64>>,
    #[cfg(feature = "simulation")]
    simulated: Option<Arc<dyn crate::simulation::SimulatedServer>>,
}

/// One layer of a call: a limit, whose key, and what it costs.
#[derive(Debug, Clone)]
pub struct Layer<'a> {
    limit: &'a RemoteLimit,
    key: RemoteKey,
    cost: Cost,
    dry_run: bool,
    wish: Option<Wish>,
}

impl<'a> Layer<'a> {
    /// A call by `key`, which is one of the limit's, at this cost.
    #[must_use]
    pub const fn new(limit: &'a RemoteLimit, key: RemoteKey, cost: Cost) -> Self {
        Self { limit, key, cost, dry_run: false, wish: None }
    }

    /// The same, counted and answered, but never a reason to deny the call.
    #[must_use]
    pub fn dry_run(self) -> Self {
        Self { dry_run: true, ..self }
    }

    /// The same, which takes more units at once where there are.
    pub(crate) fn wishing(self, wish: Wish) -> Self {
        let wish = self.limit.spec().leases().then_some(wish);
        Self { wish, ..self }
    }
}

/// How a layer is booked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Book {
    /// Charged, whether it fits or not.
    Charge,
    /// Given back, of a call.
    Refund { charged_at: Micros },
    /// Given back, of a lease.
    Return { charged_at: Micros },
}

/// Units that were leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Granted {
    /// The layer's place.
    pub(crate) layer: usize,
    pub(crate) units: u64,
    /// For how long from when it was asked for.
    pub(crate) lasts_us: u64,
    /// The name of its hold.
    pub(crate) hold: u128,
}

impl Server {
    /// The most layers of a call.
    pub const MAX_LAYERS: usize = 32;

    /// A server by its addresses. Connects with the first call.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(config: &ServerConfig) -> Result<Self, ServerError> {
        let link = Link::new(&config.topology, config.timeout, config.ca.as_deref())
            .map_err(ServerError::config)?;
        Ok(Self {
            config: config.clone(),
            wire: Arc::new(Wire { link, tally: ServerTally::default(), timeout: config.timeout }),
            batches: Batches::default(),
            breaker: Breaker::new(config.breaker),
            dice: Dice::new(),
            clock: Box::new(SystemClock::new()),
            ahead_us: AtomicI64::new(0),
            hold_ms: u64::try_from(config.hold.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50),
            #[cfg(feature = "fake-time")]
            fake_now: None,
            #[cfg(feature = "simulation")]
            simulated: None,
        })
    }

    /// The same server, with another clock to wait by: it is for the circuit breaker, and to guess a
    /// calendar's window. It decides nothing.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock + Send + Sync + 'static) -> Self {
        Self { clock: Box::new(clock), ..self }
    }

    /// The same server, in whose place another one runs the scripts; for simulations.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn simulated(self, server: Arc<dyn crate::simulation::SimulatedServer>) -> Self {
        Self { simulated: Some(server), ..self }
    }

    /// The same server, whose scripts go by this time, in microseconds since 1970; for tests.
    #[cfg(feature = "fake-time")]
    #[must_use]
    pub fn with_fake_time(self, now_us: Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self { fake_now: Some(now_us), ..self }
    }

    /// Whether all layers have room for their costs; charges all of them if so, and none if not.
    ///
    /// One round trip. Layers are all of one namespace, and no two have one key.
    ///
    /// # Errors
    /// When the server does not answer in time, or is not asked since it has been failing. Then the call
    /// may have been charged or not. And when the layers are none that can be decided in one step.
    pub async fn decide(&self, layers: &[Layer<'_>]) -> Result<Answer, ServerError> {
        Ok(self.ask(Operation::Decide, layers, &[]).await?.answer)
    }

    /// What [`decide`](Self::decide) would answer. Charges nothing.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub async fn peek(&self, layers: &[Layer<'_>]) -> Result<Answer, ServerError> {
        Ok(self.ask(Operation::Peek, layers, &[]).await?.answer)
    }

    /// Reserves an estimate for `key`, to be settled later.
    ///
    /// When the answer does not come in time, the call goes on without it, and what was reserved goes back once
    /// the answer comes: it is waited for in the background, for up to ten minutes. When none comes, since the
    /// connection broke, say, then what was reserved stays charged, if it was: at most the estimate, once, and
    /// for as long as the limit counts what is used (until the window ends, or the bucket has refilled). That
    /// errs toward denial. The same holds when this process ends before the answer comes.
    ///
    /// # Errors
    /// As [`decide`](Self::decide). A denial is none: then there is an answer and no reservation.
    pub async fn reserve(
        self: &Arc<Self>,
        limit: &Arc<RemoteLimit>,
        key: &RemoteKey,
        estimate: Cost,
    ) -> Result<(Answer, Option<RemoteReservation>), ServerError> {
        let layer = Layer::new(limit, key.clone(), estimate);
        let charged = || Charged { limit: limit.clone(), key: key.clone(), cost: estimate };
        self.reserve_layers(&[layer], [charged()], || std::iter::once(charged()).collect()).await
    }

    /// Decides on layers, and reserves what those of `charged` are charged. `every_charge` has one for each
    /// layer, to be given back when the answer comes too late.
    pub(crate) async fn reserve_layers(
        self: &Arc<Self>,
        layers: &[Layer<'_>],
        charged: impl IntoIterator<Item = Charged>,
        every_charge: impl Fn() -> SmallVec<[Charged; 2]>,
    ) -> Result<(Answer, Option<RemoteReservation>), ServerError> {
        check(layers)?;
        let hold = layers[0].limit.hold(self.dice.name());
        let asked = loop {
            let (algorithms, sent) =
                self.sent(Operation::Reserve, layers, std::slice::from_ref(&hold));
            let late = || Late {
                reservation: RemoteReservation::new(self, every_charge(), 0, hold.clone()),
                enforced: enforced(layers),
            };
            let reply = self.run_reserve(algorithms, &sent, late).await?;
            if !reply.is_turned() {
                break Asked::read(&reply, layers).ok_or(ServerError::Reply)?;
            }
        };
        let reservation = asked
            .answer
            .is_allow()
            .then(|| RemoteReservation::new(self, charged.into_iter().collect(), asked.now, hold));
        Ok((asked.answer, reservation))
    }

    /// As [`decide`](Self::decide), and leases what layers wish for.
    pub(crate) async fn lease(
        &self,
        layers: &[Layer<'_>],
    ) -> Result<(Answer, Micros, SmallVec<[Granted; 2]>), ServerError> {
        let names: SmallVec<[u128; 2]> =
            layers.iter().filter(|layer| layer.wish.is_some()).map(|_| self.dice.name()).collect();
        let holds: SmallVec<[String; 2]> =
            names.iter().map(|name| layers[0].limit.hold(*name)).collect();
        let asked = self.ask(Operation::Lease, layers, &holds).await?;
        let grants = asked.grants.iter().map(|(layer, units, lasts_us)| {
            let hold = layers[..*layer].iter().filter(|before| before.wish.is_some()).count();
            Granted { layer: *layer, units: *units, lasts_us: *lasts_us, hold: names[hold] }
        });
        Ok((asked.answer, asked.now, grants.collect()))
    }

    /// Charges `cost` whether it fits or not.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub async fn charge(
        &self,
        limit: &RemoteLimit,
        key: &RemoteKey,
        cost: Cost,
    ) -> Result<(), ServerError> {
        self.book(&[(limit, key, cost, Book::Charge)], None).await.map(drop)
    }

    /// Books, if the hold is still there. Whether it was, and when that was found out.
    pub(crate) async fn book(
        &self,
        books: &[(&RemoteLimit, &RemoteKey, Cost, Book)],
        hold: Option<&String>,
    ) -> Result<(bool, Micros), ServerError> {
        loop {
            let now = self.now();
            let mut algorithms = Algorithms::default();
            let mut sent = Sent::default();
            for (limit, key, cost, book) in books {
                algorithms = algorithms.with(limit.spec().kind());
                sent.keys.push(key.as_str());
                sent.arguments.push(match *book {
                    Book::Charge => limit.spec().charge(*cost, now),
                    Book::Refund { charged_at } => {
                        limit.spec().refund(*cost, charged_at, 0, limit.lead_us())
                    }
                    Book::Return { charged_at } => {
                        let lead_us = limit.lead_us();
                        limit.spec().refund(*cost, charged_at, lead_us, lead_us)
                    }
                });
            }
            sent.keys.extend(hold.map(String::as_str));
            let reply = self.run(Operation::Book, algorithms, &sent).await?;
            if !reply.is_turned() {
                return Ok((reply.first() == 1, reply.now()));
            }
        }
    }

    async fn ask(
        &self,
        operation: Operation,
        layers: &[Layer<'_>],
        holds: &[String],
    ) -> Result<Asked, ServerError> {
        check(layers)?;
        loop {
            let (algorithms, sent) = self.sent(operation, layers, holds);
            let reply = match operation {
                Operation::Decide => {
                    self.run_decide(algorithms, &sent, layers[0].limit.tag()).await?
                }
                _ => self.run(operation, algorithms, &sent).await?,
            };
            if !reply.is_turned() {
                return Asked::read(&reply, layers).ok_or(ServerError::Reply);
            }
        }
    }

    /// What the script is given that asks about these layers.
    fn sent<'a>(
        &self,
        operation: Operation,
        layers: &'a [Layer<'_>],
        holds: &'a [String],
    ) -> (Algorithms, Sent<'a>) {
        let (now, mut hold) = (self.now(), 0);
        let mut algorithms = Algorithms::default();
        let mut sent = Sent::default();
        for layer in layers {
            let spec = layer.limit.spec();
            algorithms = algorithms.with(spec.kind());
            if layer.dry_run || layer.cost == Cost::ZERO {
                algorithms = algorithms.with_special();
            }
            sent.keys.push(layer.key.as_str());
            let lease = layer.wish.map(|wish| (wish, hold));
            hold += u8::from(lease.is_some());
            let ask = Ask { cost: layer.cost, dry_run: layer.dry_run, lease };
            sent.arguments.push(spec.ask(&ask, now));
        }
        sent.keys.extend(holds.iter().map(String::as_str));
        sent.hold_ms =
            matches!(operation, Operation::Reserve | Operation::Lease).then_some(self.hold_ms);
        (algorithms, sent)
    }

    /// How long a hold is kept.
    pub(crate) const fn hold_us(&self) -> u64 {
        self.hold_ms * 1_000
    }

    /// Where it is, and how long to wait for it.
    #[must_use]
    pub const fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// How often things happened.
    #[must_use]
    pub fn tally(&self) -> &ServerTally {
        &self.wire.tally
    }

    /// Whether the server is left alone since it has been failing.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.breaker.is_open()
    }

    /// How long to leave the server alone, at first, after it has failed.
    pub(crate) fn retry_hint(&self) -> std::time::Duration {
        self.breaker.wait()
    }

    pub(crate) fn note(&self, count: Count) {
        self.wire.tally.note(count);
    }

    /// A number from 0 to `u32::MAX`, by chance.
    pub(crate) fn roll(&self) -> u32 {
        self.dice.roll()
    }

    /// Our own time: never for a decision.
    fn local_now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("wire", &self.wire)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

/// Layers that can be decided in one step.
fn check(layers: &[Layer<'_>]) -> Result<(), ServerError> {
    let Some(first) = layers.first() else { return Err(ServerError::NoLayers) };
    if layers.len() > Server::MAX_LAYERS {
        return Err(ServerError::TooManyLayers { layers: layers.len() });
    }
    for (index, layer) in layers.iter().enumerate() {
        if !layer.limit.shares_slot_with(first.limit) {
            return Err(ServerError::TwoNamespaces);
        }
        // Each would be asked as if the other were not there.
        if layers[..index].iter().any(|other| other.key == layer.key) {
            return Err(ServerError::TwoOfOneKey { limit: layer.limit.name().to_owned() });
        }
    }
    Ok(())
}

/// One bit for each layer that is not a dry run.
fn enforced(layers: &[Layer<'_>]) -> u64 {
    let layers = layers.iter().enumerate();
    layers.fold(0, |bits, (index, layer)| bits | u64::from(!layer.dry_run) << index)
}

/// What a script answered about layers.
struct Asked {
    answer: Answer,
    now: Micros,
    /// Place, units and duration of what was leased.
    grants: SmallVec<[(usize, u64, u64); 2]>,
}

impl Asked {
    fn read(reply: &run::Reply, layers: &[Layer<'_>]) -> Option<Self> {
        let (denied, now) = (reply.first() as u64, reply.now());
        let enforced = enforced(layers);
        let is_refused = denied & enforced != 0;
        let mut decisions = SmallVec::new();
        for (index, layer) in layers.iter().enumerate() {
            let fits = denied >> index & 1 == 0;
            // A layer that has room for the cost, in a call that is denied, was not charged.
            let cost = if fits && is_refused { Cost::ZERO } else { layer.cost };
            let state = State(reply.bytes(index)?);
            decisions.push(layer.limit.spec().decision(state, cost, fits, now));
        }
        let decided_by = layers.iter().map(|_| DecidedBy::Server).collect();
        let answer = Answer { decisions, enforced, decided_by };
        Some(Self { answer, now, grants: reply.grants(layers.len()) })
    }
}
