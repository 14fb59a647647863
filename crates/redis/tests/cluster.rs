//! A cluster of three: namespaces lie on different nodes, and each call is one step on one of them.

mod servers;

use std::time::Duration;

use servers::{RedisServer, ask, wait_until};
use tidegate::Cost;
use tidegate_redis::{Layer, Namespace, RemoteLimit, Server, ServerConfig};

fn cluster() -> Vec<RedisServer> {
    let arguments = ["--cluster-enabled", "yes", "--save", "", "--cluster-node-timeout", "2000"];
    let nodes: Vec<_> = (0..3).map(|_| RedisServer::with(&arguments)).collect();
    for (index, node) in nodes.iter().enumerate() {
        let first = index * 16_384 / 3;
        let slots = (first..(index + 1) * 16_384 / 3).map(|slot| format!(" {slot}"));
        let _: () = node.ask(&format!("CLUSTER ADDSLOTS{}", slots.collect::<String>())).unwrap();
        let _: () = node.ask(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port)).unwrap();
    }
    for node in &nodes {
        wait_until("the nodes agree", || {
            let info: String = ask(&node.url(), "CLUSTER INFO").unwrap_or_default();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
    }
    nodes
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
