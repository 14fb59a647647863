//! [`RedisEngine`]: keeps rules of policies on a server.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tidegate::policy::{Deciding, Engine, EngineAnswer, EngineAsk, EngineHold, Rule, Told};
use tidegate::{Cost, Decision, Denial};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::answer::Answer;
use crate::limiter::{Ask, LimitId, LimiterHold, Shares};
use crate::tally::tally;
use crate::{
    DecidedBy, LeaseRules, NameError, Namespace, RemoteLimit, RemoteLimiter, Server, ServerError,
    Settlement,
};

/// Keeps the rules of a policy on a server: made by a [`RedisBackend`](crate::RedisBackend).
#[derive(Debug)]
pub struct RedisEngine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limiter: RemoteLimiter,
    tally: RedisTally,
    /// Reservations that are being settled.
    settling: watch::Sender<usize>,
}

tally! {
    /// What became of the calls of a policy. For metrics: the counts are read one after the other, while
    /// they go on.
    RedisTally, Count:
    /// Calls that were allowed from leases alone.
    allowed_here,
    /// Reservations that were booked.
    settled,
    /// Reservations that were gone when they were settled, so that what was used was charged.
    settlements_anew,
    /// Reservations that could not be booked, and so keep their whole charge.
    settlements_lost,
}

/// How long [`RedisEngine::finish`] waits for reservations that are being settled.
const LAST_WAIT: Duration = Duration::from_secs(5);

impl RedisEngine {
    /// The engine of these rules.
    pub(crate) fn new(
        server: &Arc<Server>,
        namespace: &Namespace,
        rules: &[&Rule],
        shares: &Shares,
    ) -> Result<Self, String> {
        let limits = rules.iter().map(|rule| limit_of(namespace, rule));
        let limits = limits.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let limiter = RemoteLimiter::with_shares(server.clone(), limits, shares)
            .map_err(|error| error.to_string())?;
        let (tally, settling) = (RedisTally::default(), watch::Sender::new(0));
        Ok(Self { shared: Arc::new(Shared { limiter, tally, settling }) })
    }

    /// The limits and their leases, with counts for metrics.
    #[must_use]
    pub fn limiter(&self) -> &RemoteLimiter {
        &self.shared.limiter
    }

    /// What became of reservations, for metrics.
    #[must_use]
    pub fn tally(&self) -> &RedisTally {
        &self.shared.tally
    }
}

/// The limit of a rule.
pub(crate) fn limit_of(namespace: &Namespace, rule: &Rule) -> Result<RemoteLimit, NameError> {
    let on_engine = rule.engine().unwrap_or_default();
    let limit = RemoteLimit::new(namespace, rule.name(), rule.limit().clone())?;
    let limit = limit.when_down(on_engine.when_down);
    match on_engine.lease {
        None => Ok(limit),
        Some(lasts) => limit.with_leases(LeaseRules::new(lasts)),
    }
}

/// The asks as the limiter has them: its limits are in the order of the engine's rules.
fn asks_of(asks: &[EngineAsk]) -> SmallVec<[Ask<'_>; 4]> {
    asks.iter()
        .map(|ask| {
            let layer = Ask::new(LimitId(ask.rule()), ask.caller(), ask.cost());
            if ask.is_dry_run() { layer.dry_run() } else { layer }
        })
        .collect()
}

fn answer_of(answer: &Answer, hold: Option<Arc<dyn EngineHold>>) -> EngineAnswer {
    let decisions = answer.decisions().iter().zip(answer.decided_by());
    let told = decisions.map(|(decision, by)| Told { decision: *decision, by: *by });
    EngineAnswer { told: told.collect(), hold }
}

/// No rule allows: what a policy asks can always be decided together, unless there is a mistake in here.
fn refused(asks: &[EngineAsk], error: &ServerError) -> EngineAnswer {
    tracing::error!(%error, "a call that cannot be decided");
    let retry_ns = Duration::from_secs(1).as_nanos() as u64;
    let decision = Decision::Deny(Denial::exhausted(0, retry_ns, retry_ns));
    let told = asks.iter().map(|_| Told { decision, by: DecidedBy::Fallback });
    EngineAnswer { told: told.collect(), hold: None }
}

impl Engine for RedisEngine {
    fn decide_here(&self, asks: &[EngineAsk]) -> Option<EngineAnswer> {
        let answer = self.shared.limiter.decide_here(&asks_of(asks))?;
        if answer.is_allow() {
            self.shared.tally.note(Count::allowed_here);
        }
        Some(answer_of(&answer, None))
    }

    fn decide<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a> {
        if asks.iter().any(EngineAsk::is_settled_later) {
            return Box::pin(self.reserve(asks));
        }
        Box::pin(async move {
            match self.shared.limiter.decide(&asks_of(asks)).await {
                Ok(answer) => answer_of(&answer, None),
                Err(error) => refused(asks, &error),
            }
        })
    }

    fn peek<'a>(&'a self, asks: &'a [EngineAsk]) -> Deciding<'a> {
        Box::pin(async move {
            match self.shared.limiter.peek(&asks_of(asks)).await {
                Ok(answer) => answer_of(&answer, None),
                Err(error) => refused(asks, &error),
            }
        })
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let limiter = &self.shared.limiter;
        [limiter.server().tally().all(), limiter.tally().all(), self.shared.tally.all()].concat()
    }

    fn is_given_up(&self) -> bool {
        self.shared.limiter.server().is_given_up()
    }

    fn finish(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let mut settling = self.shared.settling.subscribe();
            let settled = settling.wait_for(|open| *open == 0);
            // What is left then stays charged.
            let _ = tokio::time::timeout(LAST_WAIT, settled).await;
            self.shared.limiter.give_back().await;
        })
    }
}

impl RedisEngine {
    async fn reserve(&self, asks: &[EngineAsk]) -> EngineAnswer {
        // On its own: what is reserved for a caller who has gone away goes back.
        let (shared, owned) = (self.shared.clone(), asks.to_vec());
        let reserving = tokio::spawn(async move {
            let later: SmallVec<[bool; 4]> =
                owned.iter().map(EngineAsk::is_settled_later).collect();
            let (answer, hold) = shared.limiter.reserve(&asks_of(&owned), &later).await?;
            let waiting = hold.map(|hold| Waiting(Some(Held::new(shared.clone(), hold, &later))));
            Ok((answer, waiting))
        });
        match reserving.await {
            Ok(Ok((answer, waiting))) => {
                let hold = waiting.and_then(Waiting::handed_over);
                answer_of(&answer, hold.map(|held| Arc::new(held) as Arc<dyn EngineHold>))
            }
            Ok(Err(error)) => refused(asks, &error),
            Err(_) => refused(asks, &ServerError::Reply),
        }
    }
}

/// What is reserved for a caller who may have gone away meanwhile: then it is given back.
struct Waiting(Option<Held>);

impl Waiting {
    fn handed_over(mut self) -> Option<Held> {
        self.0.take()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.settle(&vec![Cost::ZERO; held.reserving]);
        }
    }
}

/// What is reserved.
#[derive(Debug)]
struct Held {
    shared: Arc<Shared>,
    hold: Arc<LimiterHold>,
    /// How many asks reserve.
    reserving: usize,
    runtime: Handle,
}

impl Held {
    fn new(shared: Arc<Shared>, hold: LimiterHold, later: &[bool]) -> Self {
        let reserving = later.iter().filter(|is_later| **is_later).count();
        Self { shared, hold: Arc::new(hold), reserving, runtime: Handle::current() }
    }
}

/// A reservation that is being settled, counted while it is.
struct Settling(Arc<Shared>);

impl Settling {
    fn new(shared: Arc<Shared>) -> Self {
        shared.settling.send_modify(|open| *open += 1);
        Self(shared)
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.0.settling.send_modify(|open| *open -= 1);
    }
}

impl EngineHold for Held {
    fn settle(&self, used: &[Cost]) {
        let settling = Settling::new(self.shared.clone());
        let (hold, used): (_, SmallVec<[Cost; 2]>) = (self.hold.clone(), used.into());
        // Calls end anywhere, also where there is no runtime.
        self.runtime.spawn(async move {
            let count = match hold.settle_at_last(&used).await {
                Settlement::Booked => Count::settled,
                Settlement::ChargedAnew => Count::settlements_anew,
                Settlement::Lost => Count::settlements_lost,
            };
            settling.0.tally.note(count);
        });
    }
}

impl Drop for RedisEngine {
    fn drop(&mut self) {
        // After a reload, say: what is leased goes back, where somebody can do that still.
        if let Ok(runtime) = Handle::try_current() {
            let shared = self.shared.clone();
            runtime.spawn(async move { shared.limiter.give_back().await });
        }
    }
}
