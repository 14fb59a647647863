//! Four processes storm one key while processes are killed, and the server is stopped, restarted or
//! replaced: never more than the limit in any window, and where a server forgets, not more than is said.

#[path = "../servers/mod.rs"]
mod servers;

mod node;
mod record;

use std::sync::{Mutex, MutexGuard};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use node::{LIMIT, Nodes};
use record::most_within_a_window;
use servers::{RedisServer, ask, free_port};

/// One storm at a time: the machine has few processors.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static STORM: Mutex<()> = Mutex::new(());
    STORM.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn ms(ms: u64) {
    sleep(Duration::from_millis(ms));
}

/// Admitted in any window of the limit's length: not more than so many times the limit.
fn assert_within(nodes: Nodes, times: u64) {
    let admitted = nodes.end();
    let most = most_within_a_window(&admitted);
    assert!(most <= times * LIMIT, "{most} of {times} x {LIMIT} in a window");
    assert!(admitted.len() as u64 > LIMIT, "only {} were admitted at all", admitted.len());
}

#[test]
fn nodes_that_are_killed_leave_nothing_over_admitted() {
    let _one = one_at_a_time();
    let redis = RedisServer::start();
    let mut nodes = Nodes::start(&[("url", &redis.url())]);
    for round in 0..8 {
        ms(250);
        nodes.kill(round % 4);
    }
    ms(500);
    assert_within(nodes, 1);
}

#[test]
fn nodes_whose_clocks_are_wrong_by_minutes_share_one_limit() {
    let _one = one_at_a_time();
    let redis = RedisServer::start();
    let nodes = Nodes::start(&[("url", &redis.url()), ("skew", "yes")]);
    ms(2_500);
    assert_within(nodes, 1);
}

#[test]
fn a_server_that_is_stopped_and_goes_on_admits_no_more() {
    let _one = one_at_a_time();
    let redis = RedisServer::start();
    let nodes = Nodes::start(&[("url", &redis.url())]);
    for stopped_ms in [30, 300, 700] {
        ms(500);
        redis.signal(Signal::SIGSTOP);
        ms(stopped_ms);
        redis.signal(Signal::SIGCONT);
    }
    ms(1_000);
    assert_within(nodes, 1);
}

#[test]
fn a_node_that_is_stopped_with_a_lease_spends_none_of_it_later() {
    let _one = one_at_a_time();
    let redis = RedisServer::start();
    let nodes = Nodes::start(&[("url", &redis.url())]);
    for round in 0..8 {
        ms(150);
        nodes.signal(round % 4, Signal::SIGSTOP);
        ms(150);
        nodes.signal(round % 4, Signal::SIGCONT);
    }
    ms(300);
    assert_within(nodes, 1);
}

#[test]
fn a_server_that_restarts_with_its_data_goes_on_where_it_was() {
    let _one = one_at_a_time();
    let mut redis =
        RedisServer::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let nodes = Nodes::start(&[("url", &redis.url())]);
    for _ in 0..3 {
        ms(600);
        redis.restart();
    }
    ms(1_000);
    assert_within(nodes, 1);
}

#[test]
fn a_server_that_lost_its_data_admits_one_limit_more_for_each_loss() {
    let _one = one_at_a_time();
    let mut redis = RedisServer::start();
    let nodes = Nodes::start(&[("url", &redis.url())]);
    // Losses are further apart than a window.
    for _ in 0..2 {
        ms(1_500);
        redis.restart();
    }
    ms(1_000);
    assert_within(nodes, 2);
}

#[test]
fn a_replica_that_takes_over_goes_on_and_nodes_find_it() {
    let _one = one_at_a_time();
    let mut master = RedisServer::start();
    let replica_of = format!("127.0.0.1 {}", master.port);
    let replica = RedisServer::with(&["--save", "", "--replicaof", &replica_of]);
    let port = free_port();
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
         sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n",
        master.port
    );
    std::fs::write(config.path(), text).unwrap();
    let sentinel = servers::Sentinel::start(config, port);
    sentinel.wait_for_replica();
    let nodes = Nodes::start(&[("sentinel", &sentinel.url())]);
    ms(1_200);
    master.kill();
    let before = replica.replica_keys();
    sentinel.wait_for_master(replica.port);
    ms(2_500);
    assert!(before > 0, "the replica had the state");
    let evals: String = ask(&replica.url(), "INFO commandstats").unwrap();
    assert!(evals.contains("cmdstat_evalsha"), "nodes called the new master: {evals}");
    // What the old master had not sent yet is forgotten: at most one limit's worth.
    assert_within(nodes, 2);
}

/// Not a test: what a node's process runs.
#[test]
fn node_process() {
    node::run_if_asked();
}
