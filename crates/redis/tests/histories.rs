//! Histories that real connections record are linearizable: there is an order of the calls, in keeping with
//! their real time, in which a plain count answers the same. With calls whose answers were lost.
#![cfg(feature = "fake-time")]

mod servers;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use servers::RedisServer;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use tidegate::Cost;
use tidegate_redis::{
    BreakerRules, Layer, Namespace, RemoteLimit, RemoteReservation, Server, ServerConfig,
};

const LIMITS: [u64; 2] = [7, 5];

/// What a caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Op {
    /// Asks both layers.
    Decide([u64; 2]),
    /// Reserves of the first.
    Reserve(u64),
    /// Settles what it reserved.
    Settle { reserved: u64, used: u64 },
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Told {
    Decided { allowed: bool, left: [u64; 2] },
    Settled,
}

/// What is used of each layer. In one window, for time stands still.
#[derive(Debug, Clone, Default)]
struct Counts([u64; 2]);

impl SequentialSpec for Counts {
    type Op = Op;
    type Ret = Told;

    fn invoke(&mut self, op: &Op) -> Told {
        let costs = match *op {
            Op::Decide(costs) => costs,
            Op::Reserve(cost) => [cost, 0],
            Op::Settle { reserved, used } => {
                self.0[0] = (self.0[0] + used).saturating_sub(reserved);
                return Told::Settled;
            }
        };
        let layers = if matches!(op, Op::Reserve(_)) { 1 } else { 2 };
        let allowed = (0..layers).all(|layer| self.0[layer] + costs[layer] <= LIMITS[layer]);
        if allowed {
            (0..2).for_each(|layer| self.0[layer] += costs[layer]);
        }
        let left = |layer: usize| LIMITS[layer].saturating_sub(self.0[layer]);
        Told::Decided { allowed, left: [left(0), if layers == 2 { left(1) } else { 0 }] }
    }
}

/// What happened, in the order of real time.
#[derive(Debug, Clone, Copy)]
enum Event {
    Began(usize, Op),
    Ended(usize, Told),
}

type Record = Arc<Mutex<Vec<Event>>>;

/// Random numbers by SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ value >> 31) % bound
    }
}

struct Caller {
    number: usize,
    server: Arc<Server>,
    limits: [Arc<RemoteLimit>; 2],
    record: Record,
    random: Random,
    /// Whether it may use more than it reserved. (The log counts a refund into debt for longer.)
    owes: u64,
}

impl Caller {
    /// Does something. `None` when its answer was lost: it may have happened or not.
    async fn act(&mut self, open: &mut Option<(u64, RemoteReservation)>) -> Option<()> {
        let [first, second] = &self.limits;
        let keys = [first.key("alice"), second.key("alice")];
        let op = match (open.as_ref(), self.random.below(3)) {
            (Some((reserved, _)), _) => Op::Settle {
                reserved: *reserved,
                used: self.random.below(reserved + 1 + self.owes),
            },
            (None, 0) => Op::Reserve(1 + self.random.below(3)),
            _ => Op::Decide([self.random.below(3), self.random.below(3)]),
        };
        self.record.lock().unwrap().push(Event::Began(self.number, op));
        let told = match op {
            Op::Decide(costs) => {
                let layers = [
                    Layer::new(first, keys[0].clone(), Cost::new(costs[0])),
                    Layer::new(second, keys[1].clone(), Cost::new(costs[1])),
                ];
                let answer = self.server.decide(&layers).await.ok()?;
                let left = [0, 1].map(|layer: usize| answer.decisions()[layer].remaining());
                Told::Decided { allowed: answer.is_allow(), left }
            }
            Op::Reserve(cost) => {
                let reserved = self.server.reserve(first, &keys[0], Cost::new(cost)).await;
                let (answer, reservation) = reserved.ok()?;
                *open = reservation.map(|reservation| (cost, reservation));
                let left = [answer.decisions()[0].remaining(), 0];
                Told::Decided { allowed: answer.is_allow(), left }
            }
            Op::Settle { used, .. } => {
                let (_, reservation) = open.take().unwrap();
                assert!(reservation.settle(Cost::new(used)).await.ok()?, "once");
                Told::Settled
            }
        };
        self.record.lock().unwrap().push(Event::Ended(self.number, told));
        Some(())
    }
}

const CALLERS: usize = 4;
const ACTS: usize = 5;

/// A history of callers, each with a connection of its own.
async fn history(redis: &RedisServer, seed: u64, limit: &str, timeout: Duration) -> Vec<Event> {
    let space = Namespace::new(&format!("history-{seed}-{}", limit.len())).unwrap();
    let limits = [0, 1].map(|layer: usize| {
        let text = limit.replace("LIMIT", &LIMITS[layer].to_string());
        Arc::new(RemoteLimit::new(&space, &format!("l{layer}"), text.parse().unwrap()).unwrap())
    });
    let (record, now) = (Record::default(), Arc::new(AtomicU64::new(1_764_065_133_123_457)));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let breaker = BreakerRules { failures: u32::MAX, ..BreakerRules::default() };
        let config = ServerConfig::single(&redis.url()).with_timeout(timeout).with_breaker(breaker);
        let server = Server::new(&config).unwrap().with_fake_time(now.clone());
        let mut caller = Caller {
            number,
            server: Arc::new(server),
            limits: limits.clone(),
            record: record.clone(),
            random: Random(seed * 1_000 + number as u64),
            owes: u64::from(!limit.contains("log")),
        };
        callers.spawn(async move {
            let mut open = None;
            for _ in 0..ACTS {
                if caller.act(&mut open).await.is_none() {
                    return; // who does not know is never heard of again
                }
            }
        });
    }
    while callers.join_next().await.is_some() {}
    record.lock().unwrap().clone()
}

fn is_linearizable(events: &[Event]) -> bool {
    let mut tester = LinearizabilityTester::new(Counts::default());
    for event in events {
        let fed = match *event {
            Event::Began(caller, op) => tester.on_invoke(caller, op).map(drop),
            Event::Ended(caller, told) => tester.on_return(caller, told).map(drop),
        };
        fed.expect("each caller does one thing after the other");
    }
    tester.is_consistent()
}

/// In one window, all of them count alike.
const ALGORITHMS: [&str; 3] = [
    "fixed-window, LIMIT per day",
    "sliding-window-log, LIMIT per day",
    "sliding-window-counter, LIMIT per day, epochs 4",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_are_told_is_linearizable() {
    let redis = RedisServer::start();
    for seed in 0..60 {
        for limit in ALGORITHMS {
            let events = history(&redis, seed, limit, Duration::from_secs(10)).await;
            assert_eq!(events.len(), 2 * CALLERS * ACTS);
            assert!(is_linearizable(&events), "seed {seed}, {limit}: {events:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_when_answers_are_lost_too() {
    let redis = RedisServer::start();
    let mut lost = 0;
    for seed in 100..120 {
        let stopping = async {
            tokio::time::sleep(Duration::from_micros(seed % 7 * 700)).await;
            redis.signal(Signal::SIGSTOP);
            tokio::time::sleep(Duration::from_millis(40)).await;
            redis.signal(Signal::SIGCONT);
        };
        let calls = history(&redis, seed, ALGORITHMS[0], Duration::from_millis(25));
        let (events, ()) = tokio::join!(calls, stopping);
        let began = events.iter().filter(|event| matches!(event, Event::Began(..))).count();
        lost += 2 * began - events.len();
        assert!(is_linearizable(&events), "seed {seed}: {events:#?}");
    }
    assert!(lost > 0, "no answer was lost, so this shows nothing");
}

#[tokio::test]
async fn a_counter_that_has_room_in_a_denied_call_is_told_with_all_of_its_epochs() {
    let redis = RedisServer::start();
    let now = Arc::new(AtomicU64::new(1_764_065_133_123_457));
    let config = ServerConfig::single(&redis.url()).with_timeout(Duration::from_secs(10));
    let server = Server::new(&config).unwrap().with_fake_time(now.clone());
    let space = Namespace::new("denied").unwrap();
    let limits = ["sliding-window-counter, 10 per hour, epochs 6", "fixed-window, 2 per day"];
    let limits =
        limits.map(|text| RemoteLimit::new(&space, &text[..5], text.parse().unwrap()).unwrap());
    let layers = || limits.each_ref().map(|limit| Layer::new(limit, limit.key("alice"), Cost::ONE));
    for _ in 0..2 {
        assert!(server.decide(&layers()).await.unwrap().is_allow());
    }
    now.fetch_add(15 * 60 * 1_000_000, Ordering::SeqCst);
    for answer in [server.decide(&layers()).await.unwrap(), server.peek(&layers()).await.unwrap()] {
        assert!(!answer.is_allow());
        assert_eq!(answer.decisions()[0].remaining(), 8);
    }
}

#[test]
fn the_checker_tells_a_server_that_admits_one_too_many() {
    let decide = Op::Decide([4, 0]);
    let told = |allowed, left| Told::Decided { allowed, left: [left, 5] };
    let history = |second| {
        [
            Event::Began(0, decide),
            Event::Began(1, decide),
            Event::Ended(0, told(true, 3)),
            Event::Ended(1, second),
        ]
    };
    assert!(is_linearizable(&history(told(false, 3))));
    assert!(!is_linearizable(&history(told(true, 0))), "8 of 7");
    assert!(!is_linearizable(&history(told(false, 7))), "before the first, it would have fit");
}
