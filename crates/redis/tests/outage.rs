//! What limits do when the server does not answer, and that they come back.

mod servers;

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use servers::{RedisServer, wait_until};
use tidegate::Cost;
use tidegate_redis::{
    Ask, BreakerRules, DecidedBy, Layer, Namespace, RemoteLimit, RemoteLimiter, RemoteReservation,
    Server, ServerConfig, ServerError, Settlement, WhenDown,
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

/// A server whose calls wait so long, a limit of 100, and what is left of it.
fn budget(redis: &RedisServer, config: impl Fn(ServerConfig) -> ServerConfig) -> Budget {
    let space = Namespace::new("outage").unwrap();
    let limit = RemoteLimit::new(&space, "budget", "fixed-window, 100 per month".parse().unwrap());
    let server = Server::new(&config(ServerConfig::single(&redis.url()))).unwrap();
    Budget { server: Arc::new(server), limit: Arc::new(limit.unwrap()) }
}

struct Budget {
    server: Arc<Server>,
    limit: Arc<RemoteLimit>,
}

impl Budget {
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
    let redis = RedisServer::start();
    let hasty = budget(&redis, |config| config.with_timeout(Duration::from_millis(200)));
    let patient = budget(&redis, |config| config.with_timeout(Duration::from_secs(10)));
    // So that it is connected, and the script is known.
    assert!(hasty.reserve(10).await.unwrap().cancel().await.unwrap());
    redis.signal(Signal::SIGSTOP);
    assert!(matches!(hasty.reserve(40).await, Err(ServerError::Timeout)));
    redis.signal(Signal::SIGCONT);
    let mut rounds = 0;
    while hasty.server.tally().late_reservations() == 0 {
        rounds += 1;
        assert!(rounds < 2_000, "{} are left", patient.left().await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(patient.left().await, 100);
}

#[tokio::test]
async fn calls_that_go_together_are_given_up_in_time_too() {
    let redis = RedisServer::start();
    let breaker = BreakerRules { failures: u32::MAX, ..BreakerRules::default() };
    let hasty = budget(&redis, |config| {
        config.with_timeout(Duration::from_millis(200)).with_breaker(breaker)
    });
    let hasty = Arc::new(hasty);
    let all_at_once = async || {
        let call = |_| {
            let hasty = hasty.clone();
            tokio::spawn(async move {
                let layer = Layer::new(&hasty.limit, hasty.limit.key("bob"), Cost::ONE);
                hasty.server.decide(&[layer]).await
            })
        };
        let mut answers = Vec::new();
        for call in (0..40).map(call).collect::<Vec<_>>() {
            answers.push(call.await.unwrap());
        }
        answers
    };
    // So that it is connected, and the scripts are known.
    while all_at_once().await.iter().any(Result::is_err) {}
    redis.signal(Signal::SIGSTOP);
    let answers = all_at_once().await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(ServerError::Timeout))));
    redis.signal(Signal::SIGCONT);
    while all_at_once().await.iter().any(Result::is_err) {}
}

#[tokio::test]
async fn what_was_used_is_charged_where_the_server_has_forgotten_the_reservation() {
    let redis = RedisServer::start();
    let budget = budget(&redis, |config| config.with_timeout(Duration::from_secs(10)));
    let reservation = budget.reserve(40).await.unwrap();
    let _: () = redis.ask("FLUSHALL").unwrap();
    assert_eq!(budget.left().await, 100);
    let settled = reservation.settle_at_last(&[Cost::new(30)]).await;
    assert_eq!((settled, budget.left().await), (Settlement::ChargedAnew, 70));
    let again = reservation.settle_at_last(&[Cost::new(30)]).await;
    assert_eq!((again, budget.left().await), (Settlement::Booked, 70), "charged once");
}

#[tokio::test]
async fn what_was_used_above_a_reservation_whose_time_was_over_is_charged() {
    let redis = RedisServer::start();
    let budget = budget(&redis, |config| {
        config.with_timeout(Duration::from_secs(10)).with_hold(Duration::from_millis(20))
    });
    for (reserved, used, left) in [(40, 55, 45), (10, 5, 35)] {
        let reservation = budget.reserve(reserved).await.unwrap();
        wait_until("the hold goes away", || redis.ask::<u64>("DBSIZE").unwrap() == 1);
        let settled = reservation.settle_at_last(&[Cost::new(used)]).await;
        assert_eq!((settled, budget.left().await), (Settlement::ChargedAnew, left));
    }
}
