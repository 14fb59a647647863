//! The processes that storm: each this test's own binary, told by its environment what to do.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tidegate::{Clock, Cost, SystemClock, Timestamp};
use tidegate_redis::{
    Ask, BreakerRules, LeaseClock, LeaseRules, Namespace, RemoteLimit, RemoteLimiter, Server,
    ServerConfig, Topology,
};

use crate::record::{Admitted, Record, now, read};

pub const LIMIT: u64 = 400;
const NODES: usize = 4;
/// Calls of a node that are under way at the same time.
const TASKS: usize = 6;

/// Four processes, and what they were told.
pub struct Nodes {
    children: Vec<Child>,
    settings: Vec<(String, String)>,
    folder: TempDir,
}

impl Nodes {
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let mut nodes = Self {
            children: Vec::new(),
            settings: settings.collect(),
            folder: tempfile::tempdir().unwrap(),
        };
        nodes.children = (0..NODES).map(|node| nodes.spawn(node)).collect();
        nodes
    }

    fn record_of(&self, node: usize) -> PathBuf {
        self.folder.path().join(node.to_string())
    }

    fn spawn(&self, node: usize) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "node_process", "--test-threads", "1"]);
        command.env("STORM_NODE", node.to_string()).env("STORM_RECORD", self.record_of(node));
        for (name, value) in &self.settings {
            command.env(format!("STORM_{name}"), value);
        }
        // It ends when its input does, also when this process is killed.
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        command.spawn().unwrap()
    }

    pub fn signal(&self, node: usize, signal: Signal) {
        kill(Pid::from_raw(self.children[node].id() as i32), signal).unwrap();
    }

    /// Kills one, and starts another in its place.
    pub fn kill(&mut self, node: usize) {
        self.children[node].kill().unwrap();
        self.children[node].wait().unwrap();
        self.children[node] = self.spawn(node);
    }

    /// Ends them, and gives what all of them were admitted.
    pub fn end(mut self) -> Vec<Admitted> {
        for child in &mut self.children {
            drop(child.stdin.take());
        }
        for child in &mut self.children {
            assert!(child.wait().unwrap().success(), "a node failed");
        }
        (0..NODES).flat_map(|node| read(&self.record_of(node))).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A clock that is wrong.
struct Skewed<C>(C, i64);

impl<C: Clock> Clock for Skewed<C> {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.now().as_nanos().saturating_add_signed(self.1))
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(format!("STORM_{name}")).ok()
}

/// What a node's process does: calls as fast as it can, until its input ends.
pub fn run_if_asked() {
    let Some(node) = setting("NODE") else { return };
    let node: i64 = node.parse().unwrap();
    let topology = match (setting("url"), setting("sentinel")) {
        (Some(url), _) => Topology::Single { url },
        (None, Some(url)) => Topology::Sentinel {
            sentinels: vec![url],
            master: "main".into(),
            url: "redis://127.0.0.1".into(),
        },
        (None, None) => panic!("no server"),
    };
    let wait = Duration::from_millis(40);
    let breaker = BreakerRules { wait, longest_wait: wait * 4, ramp: wait * 2, failures: 3 };
    let config =
        ServerConfig::new(topology).with_timeout(Duration::from_millis(100)).with_breaker(breaker);
    let skew = if setting("skew").is_some() { [0, 7, 200, 3_000][node as usize] } else { 0 };
    let skew_ns = skew * 60 * 1_000_000_000;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(storm(config, skew_ns));
}

async fn storm(config: ServerConfig, skew_ns: i64) {
    let space = Namespace::new("storm").unwrap();
    let limit = format!("sliding-window-counter, {LIMIT} per second, epochs 8").parse().unwrap();
    let rules = LeaseRules::new(Duration::from_millis(100)).with_parts(2);
    let hot = RemoteLimit::new(&space, "hot", limit).unwrap().with_leases(rules).unwrap();
    let server = Server::new(&config).unwrap().with_clock(Skewed(SystemClock::new(), skew_ns));
    let limiter = RemoteLimiter::new(Arc::new(server), [hot]).unwrap();
    let limiter = Arc::new(limiter.with_clock(Skewed(LeaseClock, skew_ns)));
    let record = Record::append(setting("RECORD").unwrap().as_ref());
    let record = Arc::new(Mutex::new(record));
    for _ in 0..TASKS {
        let (limiter, record) = (limiter.clone(), record.clone());
        tokio::spawn(async move {
            let hot = limiter.limit("hot").unwrap();
            loop {
                let began = now();
                let answer = limiter.decide(&[Ask::new(hot, "all", Cost::ONE)]).await.unwrap();
                if answer.is_allow() {
                    record.lock().unwrap().note(Admitted { began, ended: now() });
                }
                // Not so fast that the record is all that is measured.
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        });
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
}
