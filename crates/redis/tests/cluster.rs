//! Clusters: namespaces lie on different nodes, each call is one step on one of them, and is charged once at
//! most, whatever becomes of nodes, slots and connections.

mod servers;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use servers::{RedisServer, wait_until};
use tidegate::Cost;
use tidegate_redis::{
    BreakerRules, Layer, Namespace, RemoteLimit, RemoteReservation, Server, ServerConfig,
    ServerError, Settlement,
};

fn node() -> RedisServer {
    RedisServer::with(&[
        "--cluster-enabled",
        "yes",
        "--save",
        "",
        "--cluster-node-timeout",
        "2000",
        "--repl-diskless-sync-delay",
        "0",
    ])
}

/// A node that has all slots.
fn lone_node() -> RedisServer {
    let node = node();
    let slots: String = (0..16_384).map(|slot| format!(" {slot}")).collect();
    let _: () = node.ask(&format!("CLUSTER ADDSLOTS{slots}")).unwrap();
    wait_until_it_has("cluster_state:ok", &node);
    node
}

fn wait_until_it_has(words: &str, node: &RedisServer) {
    wait_until(words, || {
        let info: String = node.ask("CLUSTER INFO").unwrap_or_default();
        info.contains(words)
    });
}

fn cluster() -> Vec<RedisServer> {
    let nodes: Vec<_> = (0..3).map(|_| node()).collect();
    for (index, node) in nodes.iter().enumerate() {
        let first = index * 16_384 / 3;
        let slots = (first..(index + 1) * 16_384 / 3).map(|slot| format!(" {slot}"));
        let _: () = node.ask(&format!("CLUSTER ADDSLOTS{}", slots.collect::<String>())).unwrap();
        let _: () = node.ask(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port)).unwrap();
    }
    for node in &nodes {
        wait_until_it_has("cluster_known_nodes:3", node);
        wait_until_it_has("cluster_state:ok", node);
    }
    nodes
}

/// A server, and a limit of 1,000 of which much is left.
struct Budget {
    server: Arc<Server>,
    limit: Arc<RemoteLimit>,
}

impl Budget {
    /// A breaker that stays closed: what is tested is what calls do.
    fn of(urls: &[&str], timeout: Duration) -> Self {
        let breaker = BreakerRules { failures: u32::MAX, ..BreakerRules::default() };
        let config = ServerConfig::cluster(urls).with_timeout(timeout).with_breaker(breaker);
        let limit = "fixed-window, 1000 per month".parse().unwrap();
        let limit = RemoteLimit::new(&Namespace::new("budget").unwrap(), "one", limit).unwrap();
        Self { server: Arc::new(Server::new(&config).unwrap()), limit: Arc::new(limit) }
    }

    async fn decide(&self, caller: &str, cost: u64) -> Result<bool, ServerError> {
        let layer = Layer::new(&self.limit, self.limit.key(caller), Cost::new(cost));
        self.server.decide(&[layer]).await.map(|answer| answer.is_allow())
    }

    async fn reserve(&self, cost: u64) -> Result<RemoteReservation, ServerError> {
        let key = self.limit.key("alice");
        let (_, reservation) = self.server.reserve(&self.limit, &key, Cost::new(cost)).await?;
        Ok(reservation.expect("there is room"))
    }

    async fn left(&self) -> u64 {
        let layer = Layer::new(&self.limit, self.limit.key("alice"), Cost::ZERO);
        self.server.peek(&[layer]).await.unwrap().decisions()[0].remaining()
    }
}

#[tokio::test]
async fn what_was_reserved_for_a_call_that_did_not_wait_goes_back() {
    let node = lone_node();
    let hasty = Budget::of(&[&node.url()], Duration::from_millis(200));
    let patient = Budget::of(&[&node.url()], Duration::from_secs(10));
    // So that it is connected, and the script is known.
    assert!(patient.reserve(10).await.unwrap().cancel().await.unwrap());
    while hasty.decide("bob", 1).await.is_err() {}
    node.signal(Signal::SIGSTOP);
    assert!(matches!(hasty.reserve(400).await, Err(ServerError::Timeout)));
    // It is not only just too late.
    assert!(hasty.decide("bob", 1).await.is_err());
    node.signal(Signal::SIGCONT);
    let mut rounds = 0;
    while hasty.server.tally().late_reservations() == 0 {
        rounds += 1;
        assert!(rounds < 1_000, "{} are left", patient.left().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(patient.left().await, 1_000);
}

/// Passes on what a client and a node say, until it `breaks`: then the next answer to a script ends the
/// connection instead. Where it listens, as the node tells clients.
fn in_front_of(node: &RedisServer, breaks: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (front, back) = (listener.local_addr().unwrap().port(), node.port);
    let _: () = node.ask(&format!("CONFIG SET cluster-announce-port {front}")).unwrap();
    let breaks = breaks.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", back)) else { break };
            let (client, is_doomed) = (client.unwrap(), Arc::new(AtomicBool::new(false)));
            let (breaks, doomed) = (breaks.clone(), is_doomed.clone());
            pass_on(&client, &server, move |bytes| {
                let is_script = bytes.windows(7).any(|word| word == b"EVALSHA");
                if is_script && breaks.swap(false, Ordering::SeqCst) {
                    doomed.store(true, Ordering::SeqCst);
                }
                true
            });
            pass_on(&server, &client, move |_| !is_doomed.load(Ordering::SeqCst));
        }
    });
    format!("redis://127.0.0.1:{front}")
}

/// Passes on what one says to the other, while that `goes_on`.
fn pass_on(from: &TcpStream, to: &TcpStream, goes_on: impl Fn(&[u8]) -> bool + Send + 'static) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(read @ 1..) = from.read(&mut bytes)
            && goes_on(&bytes[..read])
            && to.write_all(&bytes[..read]).is_ok()
        {}
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[tokio::test]
async fn what_is_not_answered_since_the_connection_breaks_is_charged_once_at_most() {
    let (node, breaks) = (lone_node(), Arc::new(AtomicBool::new(false)));
    let budget = Budget::of(&[&in_front_of(&node, &breaks)], Duration::from_secs(10));
    assert!(budget.decide("alice", 1).await.unwrap());
    for left in [989, 979, 969] {
        breaks.store(true, Ordering::SeqCst);
        let answer = budget.decide("alice", 10).await;
        assert!(matches!(answer, Err(ServerError::Redis(_))), "{answer:?}");
        assert_eq!(budget.left().await, left);
    }
}

#[tokio::test]
async fn what_is_settled_over_a_connection_that_breaks_is_booked_once() {
    let (node, breaks) = (lone_node(), Arc::new(AtomicBool::new(false)));
    let budget = Budget::of(&[&in_front_of(&node, &breaks)], Duration::from_secs(10));
    for (used, left) in [(30, 970), (70, 900)] {
        let reservation = budget.reserve(50).await.unwrap();
        breaks.store(true, Ordering::SeqCst);
        let settled = reservation.settle_at_last(&[Cost::new(used)]).await;
        assert_eq!((settled, budget.left().await), (Settlement::Booked, left));
    }
}

#[tokio::test]
async fn calls_find_their_slot_while_it_moves_to_a_node_that_is_new() {
    let (old, new) = (lone_node(), node());
    let budget = Budget::of(&[&old.url()], Duration::from_secs(10));
    assert!(budget.decide("alice", 900).await.unwrap());
    let _: () = new.ask(&format!("CLUSTER MEET 127.0.0.1 {}", old.port)).unwrap();
    wait_until_it_has("cluster_state:ok", &new);
    let id = |node: &RedisServer| node.ask::<String>("CLUSTER MYID").unwrap();
    let (old_id, new_id) = (id(&old), id(&new));
    let slot: u16 = old.ask("CLUSTER KEYSLOT {tidegate:budget}").unwrap();
    // Once they know each other.
    for (node, state, other) in [(&new, "IMPORTING", old_id), (&old, "MIGRATING", new_id.clone())] {
        let line = format!("CLUSTER SETSLOT {slot} {state} {other}");
        wait_until(&line, || node.ask::<String>(&line).is_ok());
    }
    // The old node asks clients to ask the new one for what it does not have.
    assert!(budget.decide("bob", 1).await.unwrap());
    assert_eq!(new.ask::<u64>("DBSIZE").unwrap(), 1);
    assert!(budget.decide("alice", 1).await.unwrap());
    assert_eq!(old.ask::<u64>("DBSIZE").unwrap(), 1);
    let key = budget.limit.key("alice");
    let migrate = format!("MIGRATE 127.0.0.1 {} {} 0 5000", new.port, key.as_str());
    let _: redis::Value = old.ask(&migrate).unwrap();
    assert!(budget.decide("alice", 1).await.unwrap());
    for node in [&new, &old] {
        let _: () = node.ask(&format!("CLUSTER SETSLOT {slot} NODE {new_id}")).unwrap();
    }
    assert!(budget.decide("alice", 98).await.unwrap());
    assert!(!budget.decide("alice", 1).await.unwrap(), "nothing was lost on the way");
}

#[tokio::test]
async fn calls_go_to_the_replica_that_takes_over() {
    let (mut master, replica) = (lone_node(), node());
    let _: () = replica.ask(&format!("CLUSTER MEET 127.0.0.1 {}", master.port)).unwrap();
    // It takes over those slots that it knows to be its master's.
    wait_until_it_has("cluster_slots_ok:16384", &replica);
    let id: String = master.ask("CLUSTER MYID").unwrap();
    wait_until("the replica knows its master", || {
        replica.ask::<String>(&format!("CLUSTER REPLICATE {id}")).is_ok()
    });
    let budget = Budget::of(&[&master.url(), &replica.url()], Duration::from_secs(10));
    assert!(budget.decide("alice", 900).await.unwrap());
    wait_until("the replica has it", || replica.replica_keys() == 1);
    master.kill();
    let _: () = replica.ask("CLUSTER FAILOVER TAKEOVER").unwrap();
    wait_until_it_has("cluster_state:ok", &replica);
    let mut rounds = 0;
    while budget.decide("alice", 1).await.is_err() {
        rounds += 1;
        assert!(rounds < 1_000, "the replica has taken over, and nobody asks it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!budget.decide("alice", 100).await.unwrap(), "what was used is known still");
    assert!(budget.decide("alice", 99).await.unwrap());
}

#[tokio::test]
async fn a_node_that_has_stopped_keeps_nobody_from_the_others() {
    let nodes = cluster();
    let urls: Vec<_> = nodes.iter().map(RedisServer::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    let slot: u16 = nodes[0].ask("CLUSTER KEYSLOT {tidegate:budget}").unwrap();
    let owner = (0..3).find(|index| usize::from(slot) < (index + 1) * 16_384 / 3).unwrap();
    nodes[(owner + 1) % 3].signal(Signal::SIGSTOP);
    let budget = Budget::of(&urls, Duration::from_secs(10));
    assert!(budget.decide("alice", 1).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_lie_on_several_nodes_and_layers_on_one() {
    let nodes = cluster();
    let config = ServerConfig::cluster(&[&nodes[0].url()]).with_timeout(Duration::from_secs(5));
    let server = Server::new(&config).unwrap();
    for tenant in 0..12 {
        let space = Namespace::new(&format!("tenant-{tenant}")).unwrap();
        let limit =
            |name, text: &str| RemoteLimit::new(&space, name, text.parse().unwrap()).unwrap();
        let limits = [
            limit("bucket", "token-bucket, 1 per hour, burst 3"),
            limit("window", "fixed-window, 5 per month"),
            limit("counter", "sliding-window-counter, 5 per day, epochs 6"),
            limit("log", "sliding-window-log, 5 per day"),
        ];
        let call =
            || limits.each_ref().map(|limit| Layer::new(limit, limit.key("alice"), Cost::ONE));
        for left in [2, 1, 0] {
            let answer = server.decide(&call()).await.unwrap();
            assert!(answer.is_allow());
            assert_eq!(answer.decisions()[0].remaining(), left);
        }
        let answer = server.decide(&call()).await.unwrap();
        assert_eq!(answer.denial().unwrap().0, 0);
        assert_eq!(answer.decisions()[1].remaining(), 2, "charged by none");
    }
    let keys = |node: &RedisServer| node.ask::<u64>("DBSIZE").unwrap();
    let keys: Vec<u64> = nodes.iter().map(keys).collect();
    assert_eq!(keys.iter().sum::<u64>(), 12 * 4);
    assert!(keys.iter().all(|keys| *keys > 0), "{keys:?}");
}
