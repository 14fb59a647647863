//! [`RemoteLimiter`]: limits on a server, of which hot keys are leased, and what happens without it.

mod account;
mod ask;
mod clock;
mod demand;
mod hold;
mod renew;
mod rules;
mod share;
mod sweep;
mod tally;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ahash::RandomState;
use tidegate::{Clock, SystemClock};

pub use ask::{Ask, LimitId};
pub use clock::LeaseClock;
pub use hold::LimiterHold;
pub use rules::{LeaseError, LeaseRules};
pub use tally::LimiterTally;

use crate::namespace::RemoteLimit;
use crate::server::{Server, ServerError};
use account::{Account, Owner};
use demand::Demand;
use share::Share;
pub(crate) use share::Shares;

/// Limits on a server, of which hot keys are leased: one round trip for a cold key, and nanoseconds for a
/// hot one.
///
/// The first calls of a key are each decided by the server. Once they come often, the limiter takes a
/// lease with one of them: more units than the call needs, charged at once, as many as the process will
/// spend while the lease lasts, and never more than a part of what is left. All threads spend them from
/// one word. What is not used goes back.
///
/// # Guarantee
/// With any number of nodes, no more is admitted than the limit: in any window, with nodes that die at any
/// point, whatever their clocks show. Each unit is charged before it is spent, and counts for as long as
/// the latest time at which it may be spent demands:
/// - a lease of a **fixed window** ends with the window, and one of a **sliding window counter** with the
///   epoch, that it is charged in. So its units are spent in the window, or epoch, that counts them;
/// - a lease of a **token bucket** is charged as if at its end. In any span, what is spent was charged in
///   it, or began to refill after it began.
///
/// A node measures how long a lease lasts from before it asks for it, on a clock that never steps, and
/// gives up 1/512 for how much clocks differ in speed.
///
/// # Price
/// - Units that one node holds are denied to the others. When a node dies, what it held stays charged: a
///   server cannot know whether it was spent. In a sliding window or token bucket it comes back at most one
///   lease later than if it had been spent at once; in a fixed window, with the next one. That is at most
///   one lease for each key and node: what the node would have spent in that time.
/// - A denial is remembered for as long as a lease lasts at most, so a refund on another node may be seen
///   that much later.
/// - What is [left](tidegate::Decision::remaining) is told from the lease: units that this process can
///   spend for certain.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use tidegate::Cost;
/// use tidegate_redis::{Ask, LeaseRules, Namespace, RemoteLimit, RemoteLimiter, Server, ServerConfig, WhenDown};
///
/// let server = Arc::new(Server::new(&ServerConfig::single("redis://127.0.0.1:6379"))?);
/// let shop = Namespace::new("shop")?;
/// let users = "sliding-window-counter, 100_000 per minute, epochs 30".parse()?;
/// let users = RemoteLimit::new(&shop, "user", users)?
///     .with_leases(LeaseRules::new(Duration::from_millis(500)))?
///     .when_down(WhenDown::Share { of: 4 });
/// let limiter = RemoteLimiter::new(server, [users])?;
///
/// let user = limiter.limit("user").expect("it was given");
/// let answer = limiter.decide(&[Ask::new(user, "alice", Cost::ONE)]).await?;
/// println!("{} by {:?}", answer.is_allow(), answer.decided_by());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RemoteLimiter {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    server: Arc<Server>,
    limits: Box<[Entry]>,
    accounts: papaya::HashMap<Owner, Arc<Account>, RandomState>,
    hasher: RandomState,
    demand: Demand,
    clock: Box<dyn Clock + Send + Sync>,
    /// What shares go by: their windows are those of the calendar.
    share_clock: SystemClock,
    most_accounts: usize,
    /// Whether somebody gives back what is idle.
    has_sweeper: AtomicBool,
    tally: LimiterTally,
}

#[derive(Debug)]
struct Entry {
    limit: Arc<RemoteLimit>,
    share: Share,
}

impl RemoteLimiter {
    /// Keys that leases are held of at the same time. Others are decided by the server.
    pub const DEFAULT_HOT_KEYS: usize = 10_000;

    /// A limiter of these limits, which are all in one namespace and have different names.
    ///
    /// # Errors
    /// When they are not.
    pub fn new(
        server: Arc<Server>,
        limits: impl IntoIterator<Item = RemoteLimit>,
    ) -> Result<Self, ServerError> {
        Self::with_shares(server, limits, &Shares::default())
    }

    /// The same, where shares that are in use already go on.
    pub(crate) fn with_shares(
        server: Arc<Server>,
        limits: impl IntoIterator<Item = RemoteLimit>,
        shares: &Shares,
    ) -> Result<Self, ServerError> {
        let entry = |limit: RemoteLimit| {
            let share = Share::new(limit.name(), limit.limit(), limit.fallback(), shares);
            Entry { limit: Arc::new(limit), share }
        };
        let limits: Box<[Entry]> = limits.into_iter().map(entry).collect();
        let Some(first) = limits.first() else { return Err(ServerError::NoLayers) };
        for (index, entry) in limits.iter().enumerate() {
            if !entry.limit.shares_slot_with(&first.limit) {
                return Err(ServerError::TwoNamespaces);
            }
            if limits[..index].iter().any(|other| other.limit.name() == entry.limit.name()) {
                return Err(ServerError::TwoOfOneKey { limit: entry.limit.name().to_owned() });
            }
        }
        let lasts =
            limits.iter().filter_map(|entry| entry.limit.leases()).map(|rules| rules.lasts());
        let half_life = lasts.max().unwrap_or(Duration::from_millis(100));
        let hasher = RandomState::new();
        let inner = Inner {
            server,
            limits,
            accounts: papaya::HashMap::with_hasher(hasher.clone()),
            hasher,
            demand: Demand::new(4 * Self::DEFAULT_HOT_KEYS, half_life),
            clock: Box::new(LeaseClock),
            share_clock: SystemClock::new(),
            most_accounts: Self::DEFAULT_HOT_KEYS,
            has_sweeper: AtomicBool::new(false),
            tally: LimiterTally::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same limiter on another clock, which must never step back. For tests.
    ///
    /// # Panics
    /// When the limiter is in use.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock + Send + Sync + 'static) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("a limiter that nobody uses yet");
        inner.clock = Box::new(clock);
        self
    }

    /// A limit, by its name.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<LimitId> {
        self.inner.limits.iter().position(|entry| entry.limit.name() == name).map(LimitId)
    }

    /// What a limit says.
    ///
    /// # Panics
    /// When the limit is another limiter's.
    #[must_use]
    pub fn remote(&self, limit: LimitId) -> &Arc<RemoteLimit> {
        &self.inner.limits[limit.0].limit
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.inner.server
    }

    /// How often things happened.
    #[must_use]
    pub fn tally(&self) -> &LimiterTally {
        &self.inner.tally
    }

    /// The keys that leases are held of now.
    #[must_use]
    pub fn hot_keys(&self) -> usize {
        self.inner.accounts.len()
    }

    /// The units that this process has leased and not spent yet: denied to other processes meanwhile.
    #[must_use]
    pub fn leased_units(&self) -> u64 {
        let now = self.inner.clock.now();
        self.inner.accounts.pin().values().map(|account| account.leased.left(now)).sum()
    }

    /// Gives back all that is leased and not spent: before the process ends.
    pub async fn give_back(&self) {
        self.inner.give_back_all().await;
    }
}

impl fmt::Debug for RemoteLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteLimiter")
            .field("server", &self.inner.server)
            .field("limits", &self.inner.limits)
            .field("tally", &self.inner.tally)
            .finish_non_exhaustive()
    }
}
