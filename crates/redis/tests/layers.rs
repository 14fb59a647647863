//! Layers of a call on a real server: one step, one round trip.

mod servers;

use std::sync::Arc;
use std::time::Duration;

use servers::RedisServer;
use tidegate::{Cause, Clock, Cost, Retry, SystemClock, Timestamp};
use tidegate_redis::{Answer, Layer, Namespace, RemoteLimit, Server, ServerConfig, ServerError};

fn limit(name: &str, text: &str) -> RemoteLimit {
    RemoteLimit::new(&Namespace::new("test").unwrap(), name, text.parse().unwrap()).unwrap()
}

/// The four algorithms, with room for so many units each.
fn limits(units: [u64; 4]) -> [RemoteLimit; 4] {
    [
        limit("bucket", &format!("token-bucket, 1 per day, burst {}", units[0])),
        limit("window", &format!("fixed-window, {} per month, zone Europe/Berlin", units[1])),
        limit("counter", &format!("sliding-window-counter, {} per hour, epochs 6", units[2])),
        limit("log", &format!("sliding-window-log, {} per hour", units[3])),
    ]
}

fn layers(limits: &[RemoteLimit], cost: u64) -> Vec<Layer<'_>> {
    limits.iter().map(|limit| Layer::new(limit, limit.key("alice"), Cost::new(cost))).collect()
}

fn connect(url: &str) -> Server {
    Server::new(&ServerConfig::single(url).with_timeout(Duration::from_secs(5))).unwrap()
}

#[tokio::test]
async fn a_denied_call_is_charged_by_no_layer() {
    let redis = RedisServer::start();
    let server = connect(&redis.url());
    for tightest in 0..4 {
        let mut units = [50; 4];
        units[tightest] = 7 + tightest as u64;
        let limits = limits(units);
        let fitting = units[tightest] / 3;
        for _ in 0..fitting {
            assert!(server.decide(&layers(&limits, 3)).await.unwrap().is_allow());
        }
        let before = server.peek(&layers(&limits, 0)).await.unwrap();
        let denied = server.decide(&layers(&limits, 3)).await.unwrap();
        let (place, denial) = denied.denial().expect("over the tightest");
        assert_eq!((place, denial.cause()), (tightest, Cause::Exhausted));
        assert!(matches!(denial.retry(), Retry::After(wait) if !wait.is_zero()));
        let after = server.peek(&layers(&limits, 0)).await.unwrap();
        for ((before, after), denied) in
            before.decisions().iter().zip(after.decisions()).zip(denied.decisions())
        {
            assert_eq!(before.remaining(), after.remaining());
            assert_eq!(before.remaining(), denied.remaining());
        }
        let _: () = redis.ask("FLUSHALL").unwrap();
    }
}

#[tokio::test]
async fn all_layers_are_decided_in_one_round_trip() {
    let redis = RedisServer::start();
    let server = connect(&redis.url());
    let limits = limits([5; 4]);
    let answer = server.decide(&layers(&limits, 2)).await.unwrap();
    assert!(answer.is_allow());
    assert!(answer.decisions().iter().all(|decision| decision.remaining() == 3));
    let before = server.tally().round_trips();
    assert!(server.decide(&layers(&limits, 2)).await.unwrap().is_allow());
    assert_eq!(server.tally().round_trips(), before + 1);
}

#[tokio::test]
async fn a_cost_above_the_limit_fits_at_no_time() {
    let redis = RedisServer::start();
    let server = connect(&redis.url());
    for limit in limits([4; 4]) {
        let layer = Layer::new(&limit, limit.key("alice"), Cost::new(5));
        let (_, denial) = server.decide(&[layer]).await.unwrap().denial().unwrap();
        assert_eq!((denial.cause(), denial.remaining()), (Cause::Oversized, 4), "{limit:?}");
        let most = Layer::new(&limit, limit.key("alice"), Cost::new(u64::MAX));
        assert_eq!(
            server.decide(&[most]).await.unwrap().denial().unwrap().1.cause(),
            Cause::Oversized
        );
    }
}

#[tokio::test]
async fn a_dry_run_is_charged_where_it_fits_and_denies_nothing() {
    let redis = RedisServer::start();
    let server = connect(&redis.url());
    let (dry, firm) =
        (limit("dry", "fixed-window, 2 per hour"), limit("firm", "fixed-window, 3 per hour"));
    let call = || {
        [
            Layer::new(&dry, dry.key("alice"), Cost::ONE).dry_run(),
            Layer::new(&firm, firm.key("alice"), Cost::ONE),
        ]
    };
    for left in [1, 0, 0] {
        let answer = server.decide(&call()).await.unwrap();
        assert!(answer.is_allow());
        assert_eq!(answer.decisions()[0].remaining(), left);
    }
    let answer = server.decide(&call()).await.unwrap();
    assert_eq!(answer.denial().unwrap().0, 1, "the layer that is enforced");
}

#[tokio::test]
async fn a_reservation_is_settled_once_in_each_layer_and_debt_is_carried() {
    let redis = RedisServer::start();
    let server = Arc::new(connect(&redis.url()));
    for limit in limits([100; 4]) {
        let (limit, cost) = (Arc::new(limit), Cost::new(40));
        let key = limit.key("alice");
        let left = async || {
            let peeked = server.peek(&[Layer::new(&limit, key.clone(), Cost::ZERO)]).await.unwrap();
            peeked.decisions()[0].remaining()
        };
        let (_, reservation) = server.reserve(&limit, &key, cost).await.unwrap();
        assert_eq!(left().await, 60);
        let reservation = reservation.unwrap();
        assert!(reservation.settle(Cost::new(15)).await.unwrap());
        assert_eq!(left().await, 85, "{limit:?}");
        assert!(!reservation.settle(Cost::ZERO).await.unwrap(), "once");
        assert!(!reservation.cancel().await.unwrap(), "once");
        assert_eq!(left().await, 85);
        let (_, above) = server.reserve(&limit, &key, cost).await.unwrap();
        assert!(above.unwrap().settle(Cost::new(140)).await.unwrap());
        assert_eq!(left().await, 0);
        let (answer, none) = server.reserve(&limit, &key, Cost::ONE).await.unwrap();
        assert!(!answer.is_allow() && none.is_none());
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_is_given_them_again() {
    let redis = RedisServer::start();
    let server = connect(&redis.url());
    let limits = limits([5; 4]);
    assert!(server.decide(&layers(&limits, 1)).await.unwrap().is_allow());
    assert_eq!(server.tally().scripts_loaded(), 1);
    assert!(server.decide(&layers(&limits, 1)).await.unwrap().is_allow());
    let _: () = redis.ask("SCRIPT FLUSH").unwrap();
    let answer = server.decide(&layers(&limits, 1)).await.unwrap();
    assert_eq!(server.tally().scripts_loaded(), 2);
    assert!(answer.decisions().iter().all(|decision| decision.remaining() == 2), "charged once");
}

#[tokio::test]
async fn calls_that_cannot_be_one_step_are_refused() {
    let redis = RedisServer::start();
    let server = connect(&redis.url());
    let one = limit("one", "fixed-window, 2 per hour");
    let elsewhere = Namespace::new("elsewhere").unwrap();
    let other = RemoteLimit::new(&elsewhere, "one", one.limit().clone()).unwrap();
    let layer = |limit| Layer::new(limit, RemoteLimit::key(limit, "alice"), Cost::ONE);
    let error = server.decide(&[layer(&one), layer(&other)]).await.unwrap_err();
    assert!(matches!(error, ServerError::TwoNamespaces), "{error}");
    let error = server.decide(&[layer(&one), layer(&one)]).await.unwrap_err();
    assert!(error.to_string().contains("two layers have the same key of `one`"), "{error}");
    assert!(matches!(server.decide(&[]).await, Err(ServerError::NoLayers)));
}

/// A clock that is wrong.
struct Skewed(i64);

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let now = SystemClock::new().now().as_nanos();
        Timestamp::from_nanos(now.saturating_add_signed(self.0 * 1_000_000_000))
    }
}

#[tokio::test]
async fn a_node_whose_clock_is_wrong_decides_as_all_others() {
    let redis = RedisServer::start();
    let limits = limits([5; 4]);
    let (days, minutes) = (40 * 86_400, 7 * 60);
    for (place, skew_s) in [0, minutes, -minutes, days, -days].into_iter().enumerate() {
        let server = connect(&redis.url()).with_clock(Skewed(skew_s));
        let answer = server.decide(&layers(&limits, 1)).await.unwrap();
        assert!(answer.is_allow());
        assert!(
            answer.decisions().iter().all(|left| left.remaining() == 4 - place as u64),
            "{skew_s}"
        );
        let turned = u64::from(skew_s.unsigned_abs() == days as u64);
        assert_eq!(server.tally().windows_turned(), turned, "another month");
    }
}

/// What a call by each of 64 tasks at once is told, in the order of the tasks.
async fn all_at_once(server: &Arc<Server>, limits: &Arc<[RemoteLimit]>) -> Vec<Answer> {
    let calls = (0..64).map(|place| {
        let (server, limits) = (server.clone(), limits.clone());
        tokio::spawn(async move {
            let own = format!("caller {}", place / 4);
            let call = [
                Layer::new(&limits[0], limits[0].key("everybody"), Cost::ONE),
                Layer::new(&limits[1], limits[1].key(&own), Cost::ONE),
            ];
            server.decide(&call).await.unwrap()
        })
    });
    let mut answers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        answers.push(call.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn calls_that_go_together_are_decided_one_after_the_other() {
    let redis = RedisServer::start();
    for (all, own) in [
        ("token-bucket, 1 per day, burst 50", "fixed-window, 3 per month, zone Europe/Berlin"),
        ("fixed-window, 50 per month, zone Europe/Berlin", "token-bucket, 1 per day, burst 3"),
    ] {
        let _: () = redis.ask("FLUSHALL").unwrap();
        let limits: Arc<[RemoteLimit]> = [limit("all", all), limit("own", own)].into();
        // It is wrong about the month, and learns that with the first calls.
        let server = Arc::new(connect(&redis.url()).with_clock(Skewed(40 * 86_400)));
        let answers = all_at_once(&server, &limits).await;
        let round_trips = server.tally().round_trips();
        assert!(round_trips < 32, "{round_trips} round trips for 64 calls");
        assert!(server.tally().windows_turned() > 0);
        // 16 callers with 3 each, of 4.
        let allowed: Vec<_> = answers.iter().filter(|answer| answer.is_allow()).collect();
        let mut left: Vec<_> =
            allowed.iter().map(|answer| answer.decisions()[0].remaining()).collect();
        left.sort_unstable();
        assert_eq!(left, (2..50).collect::<Vec<_>>(), "each is told what it has left");
        for denied in answers.iter().filter(|answer| !answer.is_allow()) {
            assert_eq!(denied.denial().unwrap().0, 1, "by its own layer");
        }
        // Of the first layer two are left still: who was denied by the second has taken none of it.
        let more = all_at_once(&server, &limits).await;
        assert_eq!(more.iter().filter(|answer| answer.is_allow()).count(), 0);
        assert!(more.iter().all(|answer| answer.decisions()[0].remaining() == 2));
    }
}

#[tokio::test]
async fn a_key_that_somebody_else_has_written_is_an_error_of_its_own_calls_only() {
    let redis = RedisServer::start();
    let server = Arc::new(connect(&redis.url()));
    let limit = Arc::new(limit("one", "token-bucket, 1 per day, burst 1000"));
    let _: () = redis.ask(&format!("SET {} nonsense", limit.key("0").as_str())).unwrap();
    let rounds = async || {
        let calls = (0..40).map(|place| {
            let (server, limit) = (server.clone(), limit.clone());
            tokio::spawn(async move {
                let layer = Layer::new(&limit, limit.key(&place.to_string()), Cost::ONE);
                server.decide(&[layer]).await.map(|answer| answer.is_allow()).ok()
            })
        });
        let mut allowed = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            allowed.push(call.await.unwrap());
        }
        allowed
    };
    let together = rounds().await;
    assert!(together.iter().all(|allowed| *allowed != Some(false)));
    let apart = rounds().await;
    assert_eq!(apart[0], None);
    assert!(apart[1..].iter().all(|allowed| *allowed == Some(true)), "{apart:?}");
}

#[tokio::test]
async fn calls_of_several_kinds_and_namespaces_go_apart() {
    let redis = RedisServer::start();
    let server = Arc::new(connect(&redis.url()));
    let limit = |space: &str, text: &str| {
        let space = Namespace::new(space).unwrap();
        Arc::new(RemoteLimit::new(&space, "one", text.parse().unwrap()).unwrap())
    };
    let limits = [
        limit("red", "token-bucket, 1 per day, burst 9"),
        limit("blue", "token-bucket, 1 per day, burst 8"),
        limit("red", "fixed-window, 7 per month"),
        limit("red", "sliding-window-counter, 6 per day, epochs 6"),
        limit("red", "sliding-window-log, 5 per day"),
    ];
    let calls = (0..100).map(|place| {
        let (server, limit) = (server.clone(), limits[place % 5].clone());
        tokio::spawn(async move {
            let layer = Layer::new(&limit, limit.key("alice"), Cost::ONE);
            server.decide(&[layer]).await.unwrap().is_allow()
        })
    });
    let mut allowed = [0; 5];
    for (place, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        allowed[place % 5] += u64::from(call.await.unwrap());
    }
    assert_eq!(allowed, [9, 8, 7, 6, 5]);
}

#[tokio::test]
async fn an_acl_user_over_resp3_needs_what_the_docs_say() {
    let redis = RedisServer::start();
    let commands = "+evalsha +eval +time +get +mget +set +getrange +setrange +pexpireat +exists +del +hello +client|setinfo +ping";
    let user = format!("ACL SETUSER limiter on >secret ~{{tidegate:* {commands}");
    if redis.ask::<()>(&user).is_err() {
        // Redis 6.2 has no subcommands of `client`.
        let _: () = redis.ask(&user.replace("client|setinfo", "client")).unwrap();
    }
    let server =
        connect(&format!("redis://limiter:secret@127.0.0.1:{}/?protocol=resp3", redis.port));
    let server = Arc::new(server);
    let limits = limits([500; 4]);
    for _ in 0..3 {
        assert!(server.decide(&layers(&limits, 100)).await.unwrap().is_allow());
    }
    assert!(!server.decide(&layers(&limits, 300)).await.unwrap().is_allow());
    for limit in limits {
        let limit = Arc::new(limit);
        let (_, reserved) = server.reserve(&limit, &limit.key("alice"), Cost::ONE).await.unwrap();
        assert!(reserved.unwrap().cancel().await.unwrap());
        server.charge(&limit, &limit.key("alice"), Cost::new(1_000)).await.unwrap();
    }
    let wrong = connect(&format!("redis://limiter:guess@127.0.0.1:{}/", redis.port));
    let error = wrong.decide(&layers(&limits_of_one(), 1)).await.unwrap_err();
    assert!(error.is_outage() && !error.to_string().contains("guess"), "{error}");
}

fn limits_of_one() -> [RemoteLimit; 1] {
    [limit("one", "fixed-window, 2 per hour")]
}
