//! What limits do when the server does not answer, and that they come back.

mod servers;

use std::sync::Arc;
use std::time::Duration;

use servers::RedisServer;
use tidegate::Cost;
use tidegate_redis::{
    Ask, BreakerRules, DecidedBy, Namespace, RemoteLimit, RemoteLimiter, Server, ServerConfig,
    WhenDown,
};

fn limiter(url: &str) -> RemoteLimiter {
    let wait = Duration::from_millis(20);
    let breaker = BreakerRules { failures: 3, wait, longest_wait: wait, ramp: wait };
    let config =
        ServerConfig::single(url).with_timeout(Duration::from_secs(2)).with_breaker(breaker);
    let space = Namespace::new("outage").unwrap();
    let limit = |name, when_down| {
        let limit = "fixed-window, 8 per month".parse().unwrap();
        RemoteLimit::new(&space, name, limit).unwrap().when_down(when_down)
    };
    let limits = [
        limit("deny", WhenDown::Deny),
        limit("allow", WhenDown::Allow),
        limit("share", WhenDown::Share { of: 4 }),
    ];
    RemoteLimiter::new(Arc::new(Server::new(&config).unwrap()), limits).unwrap()
}

/// How many of ten calls go on, and who decided on the last.
async fn ten_calls(limiter: &RemoteLimiter, names: &[&str]) -> (usize, DecidedBy) {
    let ask = |name: &&str| Ask::new(limiter.limit(name).unwrap(), "alice", Cost::ONE);
    let asks: Vec<_> = names.iter().map(ask).collect();
    let (mut allowed, mut by) = (0, DecidedBy::Server);
    for _ in 0..10 {
        let answer = limiter.decide(&asks).await.unwrap();
        allowed += usize::from(answer.is_allow());
        by = answer.decided_by()[0];
    }
    (allowed, by)
}

#[tokio::test]
async fn each_limit_says_what_happens_without_the_server() {
    let mut redis = RedisServer::start();
    let limiter = limiter(&redis.url());
    redis.kill();
    assert_eq!(ten_calls(&limiter, &["deny"]).await, (0, DecidedBy::Fallback));
    assert_eq!(ten_calls(&limiter, &["allow"]).await, (10, DecidedBy::Fallback));
    assert_eq!(ten_calls(&limiter, &["deny", "share"]).await, (0, DecidedBy::Fallback));
    // A quarter of 8, of which the calls that were denied have taken nothing.
    assert_eq!(ten_calls(&limiter, &["share", "allow"]).await, (2, DecidedBy::Fallback));
    assert_eq!(limiter.tally().without_server(), 40);
    let tally = limiter.server().tally();
    assert!(tally.breaker_opened() >= 1 && tally.not_tried() > 0, "{:?}", tally.all());
}

#[tokio::test]
async fn limits_come_back_with_the_server() {
    let mut redis = RedisServer::start();
    let limiter = limiter(&redis.url());
    assert_eq!(ten_calls(&limiter, &["deny"]).await, (8, DecidedBy::Server));
    redis.kill();
    assert_eq!(ten_calls(&limiter, &["deny"]).await.1, DecidedBy::Fallback);
    redis.restart();
    let mut rounds = 0;
    while ten_calls(&limiter, &["allow"]).await.1 != DecidedBy::Server {
        rounds += 1;
        assert!(rounds < 1_000, "the server is back, and nobody asks it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!limiter.server().is_given_up());
}
