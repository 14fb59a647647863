//! A history of calls, made on the server and on a model.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use proptest::prelude::*;
use tidegate::{Clock, Cost, Decision, Retry, SystemClock, Timestamp};
use tidegate_redis::{
    Layer, Namespace, RemoteKey, RemoteLimit, RemoteReservation, Server, ServerConfig,
};

use crate::models::{Model, Timestamps};
use crate::servers::RedisServer;

#[derive(Debug, Clone, Copy)]
pub enum Step {
    Wait {
        us: u64,
    },
    TurnBack {
        us: u64,
    },
    Decide(u64, Beside),
    Peek(u64),
    Reserve(u64),
    /// Settles the oldest open reservation for a part of its cost, in sixteenths.
    Settle(u64),
    Charge(u64),
    /// The state goes away once it is idle.
    Expire,
}

/// What else is asked with a decision, which has room always: it takes another script.
#[derive(Debug, Clone, Copy)]
pub enum Beside {
    Nothing,
    Layer,
    DryRun,
}

impl Step {
    pub fn any() -> BoxedStrategy<Self> {
        prop_oneof![
            4 => Self::without_settling(),
            1 => (0..40_u64).prop_map(Self::Settle),
            1 => (0..12_u64).prop_map(Self::Charge),
        ]
        .boxed()
    }

    /// No charge passes the limit, and no time steps back, which looks like debt.
    pub fn without_debt() -> BoxedStrategy<Self> {
        prop_oneof![4 => Self::onward(), 1 => (0..17_u64).prop_map(Self::Settle)].boxed()
    }

    pub fn without_refunds() -> BoxedStrategy<Self> {
        prop_oneof![4 => Self::without_settling(), 1 => (0..12_u64).prop_map(Self::Charge)].boxed()
    }

    fn onward() -> BoxedStrategy<Self> {
        Self::without_settling()
            .prop_map(|step| match step {
                Self::TurnBack { us } => Self::Wait { us },
                step => step,
            })
            .boxed()
    }

    fn without_settling() -> BoxedStrategy<Self> {
        let beside = prop_oneof![
            2 => Just(Beside::Nothing),
            1 => Just(Beside::Layer),
            1 => Just(Beside::DryRun),
        ];
        let wait = prop_oneof![0..3_u64, 0..200_000_u64, 0..3_000_000_u64];
        prop_oneof![
            4 => wait.prop_map(|us| Self::Wait { us }),
            1 => (0..300_000_u64).prop_map(|us| Self::TurnBack { us }),
            6 => (0..8_u64, beside).prop_map(|(cost, beside)| Self::Decide(cost, beside)),
            1 => (0..8_u64).prop_map(Self::Peek),
            2 => (0..8_u64).prop_map(Self::Reserve),
            1 => Just(Self::Expire),
        ]
        .boxed()
    }
}

pub fn steps(step: BoxedStrategy<Step>) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step, 1..60)
}

/// How the server is held to the model.
#[derive(Debug, Clone, Copy)]
pub enum Checked {
    /// In each answer.
    Exactly,
    /// What was used is never more than the limit in any window, but for what was charged above it.
    ByTheBound { limit: u64, window_us: u64 },
}

struct Shared {
    redis: RedisServer,
    now: Arc<AtomicU64>,
    server: Arc<Server>,
    runtime: tokio::runtime::Runtime,
}

/// One server for all cases, and one test at a time, since the time is the server's.
fn shared() -> &'static Mutex<Shared> {
    static SHARED: OnceLock<Mutex<Shared>> = OnceLock::new();
    SHARED.get_or_init(|| {
        let redis = RedisServer::start();
        let now = Arc::new(AtomicU64::new(0));
        let config = ServerConfig::single(&redis.url()).with_timeout(Duration::from_secs(10));
        let server = Arc::new(Server::new(&config).unwrap().with_fake_time(now.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Mutex::new(Shared { redis, now, server, runtime })
    })
}

/// Makes the calls on the server and on the model, and compares what they say.
pub fn compare(limit: &str, model: impl Model, steps: &[Step], checked: Checked) {
    static CASE: AtomicU64 = AtomicU64::new(0);
    let shared = shared().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let case = CASE.fetch_add(1, Ordering::SeqCst);
    let space = Namespace::new(&format!("case-{case}")).unwrap();
    let limit = Arc::new(RemoteLimit::new(&space, "limit", limit.parse().unwrap()).unwrap());
    let roomy = "token-bucket, 1000000 per second, burst 1000000".parse().unwrap();
    let beside = RemoteLimit::new(&space, "beside", roomy).unwrap();
    // A time with all its 51 bits.
    let mut history = History {
        shared: &shared,
        key: limit.key("someone"),
        limit,
        beside,
        model,
        now_us: 1_764_065_133_123_457,
        gone_us: 0,
        open: Vec::new(),
        used: Timestamps::default(),
    };
    for step in steps {
        shared.now.store(history.now_us, Ordering::SeqCst);
        history.make(*step, checked);
    }
    if let Checked::ByTheBound { limit, window_us } = checked {
        let most = history.used.most_in_any_window(window_us * 1_000);
        assert!(most <= limit, "{most} of {limit} in a window");
    }
}

struct History<'a, M> {
    shared: &'a Shared,
    limit: Arc<RemoteLimit>,
    beside: RemoteLimit,
    key: RemoteKey,
    model: M,
    now_us: u64,
    /// When the state went away last.
    gone_us: u64,
    open: Vec<(RemoteReservation, u64, Timestamp)>,
    used: Timestamps,
}

impl<M: Model> History<'_, M> {
    fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.now_us * 1_000)
    }

    fn layer(&self, cost: u64) -> Layer<'_> {
        Layer::new(&self.limit, self.key.clone(), Cost::new(cost))
    }

    fn make(&mut self, step: Step, checked: Checked) {
        let Shared { redis, server, runtime, .. } = self.shared;
        let is_exact = matches!(checked, Checked::Exactly);
        match step {
            Step::Wait { us } => self.now_us += us,
            // What has gone away is not there before it went.
            Step::TurnBack { us } => self.now_us = (self.now_us - us).max(self.gone_us),
            Step::Decide(cost, beside) => {
                let other = Layer::new(&self.beside, self.beside.key("someone"), Cost::ONE);
                let layers = match beside {
                    Beside::Nothing => vec![self.layer(cost)],
                    Beside::Layer => vec![self.layer(cost), other],
                    Beside::DryRun => vec![self.layer(cost), other.dry_run()],
                };
                let answer = runtime.block_on(server.decide(&layers)).unwrap();
                let before = self.model.clone();
                let fits = self.model.decide(Cost::new(cost), self.at());
                let decision = answer.decisions()[0];
                if is_exact {
                    self.agrees(&before, cost, fits, decision);
                    assert_eq!(decision.remaining(), self.model.remaining(self.at()), "remaining");
                }
                if decision.is_allow() {
                    self.used.push(self.at(), cost);
                }
            }
            Step::Peek(cost) => {
                let answer = runtime.block_on(server.peek(&[self.layer(cost)])).unwrap();
                let fits = self.model.fits(Cost::new(cost), self.at());
                if is_exact {
                    self.agrees(&self.model, cost, fits, answer.decisions()[0]);
                }
            }
            Step::Reserve(cost) => {
                let reserved = server.reserve(&self.limit, &self.key, Cost::new(cost));
                let (answer, reservation) = runtime.block_on(reserved).unwrap();
                let fits = self.model.decide(Cost::new(cost), self.at());
                assert!(!is_exact || answer.is_allow() == fits, "{cost}");
                self.open.extend(reservation.map(|reservation| (reservation, cost, self.at())));
            }
            Step::Settle(sixteenths) => {
                if self.open.is_empty() {
                    return;
                }
                let (reservation, cost, charged_at) = self.open.remove(0);
                let used = cost * sixteenths / 16;
                let settled = reservation.settle(Cost::new(used));
                assert!(runtime.block_on(settled).unwrap(), "the hold is there");
                assert!(!runtime.block_on(reservation.settle(Cost::ZERO)).unwrap(), "once");
                if used < cost {
                    self.model.refund(Cost::new(cost - used), charged_at, self.at());
                } else if used > cost {
                    self.model.charge(Cost::new(used - cost), self.at());
                }
            }
            Step::Charge(cost) => {
                let charged = server.charge(&self.limit, &self.key, Cost::new(cost));
                runtime.block_on(charged).unwrap();
                self.model.charge(Cost::new(cost), self.at());
            }
            Step::Expire => self.expire(redis),
        }
    }

    /// Lets the time pass in which the server keeps the state, and takes it away.
    fn expire(&mut self, redis: &RedisServer) {
        // PEXPIRETIME is not there in Redis 6.2.
        let left_ms: i64 = redis.ask(&format!("PTTL {}", self.key.as_str())).unwrap();
        assert_ne!(left_ms, -1, "no state stays for ever");
        if left_ms < 0 {
            return;
        }
        let real_ms = SystemClock::new().now().as_nanos() / 1_000_000;
        // Beside what the script of a fake time adds.
        let until_ms = (real_ms + left_ms as u64).checked_sub(1_000_000_000_000);
        let until_us = until_ms.expect("a state stays longer in tests") * 1_000;
        // The two times were not asked for at once.
        self.now_us = self.now_us.max(until_us + 3_000);
        self.gone_us = self.now_us;
        let _: i64 = redis.ask(&format!("DEL {}", self.key.as_str())).unwrap();
    }

    fn agrees(&self, before: &M, cost: u64, fits: bool, decision: Decision) {
        assert_eq!(decision.is_allow(), fits, "{cost} at {} us", self.now_us);
        let Some(denial) = decision.denial() else { return };
        if let Retry::After(wait) = denial.retry() {
            let fits_after = |wait: Duration| before.fits(Cost::new(cost), self.at() + wait);
            assert!(fits_after(wait), "{cost} units fit after {wait:?}");
            let sooner = wait.saturating_sub(Duration::from_micros(1));
            assert!(wait.is_zero() || !fits_after(sooner), "{cost} units fit sooner than {wait:?}");
        }
        assert!(!denial.reset_after().is_zero() || cost > 0, "a limit with all its units denies");
    }
}
