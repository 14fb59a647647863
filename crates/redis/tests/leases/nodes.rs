//! Nodes with leases, on one server, in a fake time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use proptest::prelude::*;
use tidegate::{Clock, Cost, Timestamp};
use tidegate_redis::{
    Ask, DecidedBy, Layer, LeaseRules, LimitId, Namespace, RemoteLimit, RemoteLimiter, Server,
    ServerConfig,
};

use crate::servers::RedisServer;

pub const NODES: usize = 4;

#[derive(Debug, Clone, Copy)]
pub enum Call {
    Wait {
        us: u64,
    },
    /// A node calls so many times, at this cost.
    Decide {
        node: usize,
        times: u32,
        cost: u64,
    },
    /// A node gives back all that it has.
    GiveBack {
        node: usize,
    },
    /// A node is gone, with all that it has, and another one comes in its place.
    Die {
        node: usize,
    },
}

pub fn calls() -> impl Strategy<Value = Vec<Call>> {
    let wait = prop_oneof![2 => 0..3_000_u64, 4 => 0..100_000_u64, 1 => 0..700_000_u64];
    // Few, or all that there is.
    let times = prop_oneof![4 => 1..20_u32, 1 => Just(150)];
    let call = prop_oneof![
        6 => wait.prop_map(|us| Call::Wait { us }),
        8 => (0..NODES, times, 1..4_u64)
            .prop_map(|(node, times, cost)| Call::Decide { node, times, cost }),
        1 => (0..NODES).prop_map(|node| Call::GiveBack { node }),
        1 => (0..NODES).prop_map(|node| Call::Die { node }),
    ];
    prop::collection::vec(call, 1..80)
}

/// Units that were admitted, and when, by the server's clock.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    pub at_us: u64,
    pub units: u64,
}

/// The server's time, since another origin, and a thousandth faster or slower.
struct NodeClock {
    server_us: Arc<AtomicU64>,
    origin_us: u64,
    parts_per_million: i64,
}

impl Clock for NodeClock {
    fn now(&self) -> Timestamp {
        let us = self.server_us.load(Ordering::SeqCst) - START_US;
        let drift = us as i64 * self.parts_per_million / 1_000_000;
        Timestamp::from_nanos((self.origin_us + us).saturating_add_signed(drift) * 1_000)
    }
}

const START_US: u64 = 1_764_065_133_123_457;

/// One server for all cases.
fn redis() -> &'static RedisServer {
    static REDIS: OnceLock<RedisServer> = OnceLock::new();
    REDIS.get_or_init(RedisServer::start)
}

pub struct Scene {
    now_us: Arc<AtomicU64>,
    limit: String,
    rules: LeaseRules,
    space: Namespace,
    runtime: tokio::runtime::Runtime,
    nodes: Mutex<Vec<RemoteLimiter>>,
}

impl Scene {
    pub fn new(limit: &str, lasts_ms: u64) -> Self {
        static CASE: AtomicU64 = AtomicU64::new(0);
        let case = CASE.fetch_add(1, Ordering::SeqCst);
        let scene = Self {
            now_us: Arc::new(AtomicU64::new(START_US)),
            limit: limit.to_owned(),
            rules: LeaseRules::new(Duration::from_millis(lasts_ms)).with_parts(2),
            space: Namespace::new(&format!("case-{case}")).unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            nodes: Mutex::default(),
        };
        let nodes = (0..NODES).map(|node| scene.node(node)).collect();
        *scene.nodes.lock().unwrap() = nodes;
        scene
    }

    fn server(&self) -> Server {
        let config = ServerConfig::single(&redis().url()).with_timeout(Duration::from_secs(10));
        Server::new(&config).unwrap().with_fake_time(self.now_us.clone())
    }

    fn remote(&self) -> RemoteLimit {
        RemoteLimit::new(&self.space, "hot", self.limit.parse().unwrap()).unwrap()
    }

    fn node(&self, node: usize) -> RemoteLimiter {
        let limit = self.remote().with_leases(self.rules).unwrap();
        let clock = NodeClock {
            server_us: self.now_us.clone(),
            origin_us: 1_000_000 * [1, 400_000, 7, 90_000_000][node],
            parts_per_million: [0, 900, -900, 500][node],
        };
        RemoteLimiter::new(Arc::new(self.server()), [limit]).unwrap().with_clock(clock)
    }

    pub fn play(&self, calls: &[Call]) -> Vec<Admitted> {
        let mut nodes = self.nodes.lock().unwrap();
        let mut admitted = Vec::new();
        let hot = nodes[0].limit("hot").unwrap();
        for call in calls {
            match *call {
                Call::Wait { us } => drop(self.now_us.fetch_add(us, Ordering::SeqCst)),
                Call::GiveBack { node } => self.runtime.block_on(nodes[node].give_back()),
                Call::Die { node } => nodes[node] = self.node(node),
                Call::Decide { node, times, cost } => {
                    let units = self.decide(&nodes[node], hot, times, cost);
                    let at_us = self.now_us.load(Ordering::SeqCst);
                    admitted.push(Admitted { at_us, units });
                }
            }
        }
        admitted
    }

    fn decide(&self, node: &RemoteLimiter, hot: LimitId, times: u32, cost: u64) -> u64 {
        let ask = [Ask::new(hot, "everybody", Cost::new(cost))];
        let allowed = (0..times).filter(|_| {
            let answer = self.runtime.block_on(node.decide(&ask)).unwrap();
            assert_ne!(answer.decided_by(), [DecidedBy::Fallback]);
            answer.is_allow()
        });
        allowed.count() as u64 * cost
    }

    /// Spends one by one; the units that were admitted, and the round trips for that.
    pub fn spend_all(&self, node: usize, calls: u32) -> (u64, u64) {
        let nodes = self.nodes.lock().unwrap();
        let hot = nodes[node].limit("hot").unwrap();
        let mut spent = 0;
        for _ in 0..calls {
            spent += self.decide(&nodes[node], hot, 1, 1);
            // Ten thousand a second.
            self.now_us.fetch_add(100, Ordering::SeqCst);
        }
        (spent, nodes[node].server().tally().round_trips())
    }

    /// What the server says is left.
    pub fn left(&self) -> u64 {
        let (server, limit) = (self.server(), self.remote());
        let layer = Layer::new(&limit, limit.key("everybody"), Cost::ZERO);
        self.runtime.block_on(server.peek(&[layer])).unwrap().decisions()[0].remaining()
    }
}

/// Nodes whose calls have three layers, each of which is leased.
pub struct Layered {
    scene: Scene,
    limits: [u64; 3],
}

impl Layered {
    pub fn new(limits: [u64; 3], lasts_ms: u64) -> Self {
        Self { scene: Scene::new("fixed-window, 1 per day", lasts_ms), limits }
    }

    fn remotes(&self) -> [RemoteLimit; 3] {
        let mut place = 0;
        self.limits.map(|limit| {
            place += 1;
            let limit = format!("fixed-window, {limit} per month").parse().unwrap();
            RemoteLimit::new(&self.scene.space, &format!("layer{place}"), limit).unwrap()
        })
    }

    /// The units that were admitted, and those that nodes lost.
    pub fn play(&self, calls: &[Call]) -> (u64, u64) {
        let scene = &self.scene;
        let node = |node: usize| {
            let limits = self.remotes().map(|limit| limit.with_leases(scene.rules).unwrap());
            let clock = NodeClock {
                server_us: scene.now_us.clone(),
                origin_us: 1_000_000 * (1 + node as u64),
                parts_per_million: 0,
            };
            RemoteLimiter::new(Arc::new(scene.server()), limits).unwrap().with_clock(clock)
        };
        let nodes: Vec<_> = (0..NODES).map(node).collect();
        let mut admitted = 0;
        for call in calls {
            match *call {
                Call::Wait { us } => drop(scene.now_us.fetch_add(us, Ordering::SeqCst)),
                Call::GiveBack { node } => scene.runtime.block_on(nodes[node].give_back()),
                Call::Die { .. } => {}
                Call::Decide { node, times, cost } => {
                    let node = &nodes[node];
                    let ids = ["layer1", "layer2", "layer3"].map(|name| node.limit(name).unwrap());
                    let asks = ids.map(|id| Ask::new(id, "everybody", Cost::new(cost)));
                    for _ in 0..times {
                        let answer = scene.runtime.block_on(node.decide(&asks)).unwrap();
                        admitted += if answer.is_allow() { cost } else { 0 };
                    }
                }
            }
        }
        nodes.iter().for_each(|node| scene.runtime.block_on(node.give_back()));
        (admitted, nodes.iter().map(|node| node.tally().lost_units()).sum())
    }

    /// What the server has charged to each layer.
    pub fn used(&self) -> [u64; 3] {
        let server = self.scene.server();
        let remotes = self.remotes();
        let layers =
            remotes.each_ref().map(|limit| Layer::new(limit, limit.key("everybody"), Cost::ZERO));
        let answer = self.scene.runtime.block_on(server.peek(&layers)).unwrap();
        [0, 1, 2].map(|place: usize| self.limits[place] - answer.decisions()[place].remaining())
    }
}
