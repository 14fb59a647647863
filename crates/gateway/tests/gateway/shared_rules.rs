//! Several gateways whose rules are on one Redis.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use futures_util::{StreamExt, stream};
use http::Method;
use http_body_util::BodyExt;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::process::{Gateway, Upstream, chat_as, client, get_as, http2_client};
use crate::servers::RedisServer;

fn config(redis: &RedisServer, rules: &str) -> String {
    format!(
        "drain_timeout_s = 5\n[metrics]\nlisten = \"127.0.0.1:0\"\n[auth]\nrequired = [\"/v1/*\"]\n\
         [[user]]\nname = \"alice\"\nkey = \"alices\"\n[redis]\nurl = \"{}\"\ntimeout_ms = 500\n{rules}",
        redis.url()
    )
}

const RULES: &str = r#"
    [[rule]]
    name = "user"
    limit = "6 per hour"
    key = "user"

    [[rule]]
    name = "budget"
    limit = "1000 per day"
    algorithm = "fixed-window"
    key = "user"
    cost = "llm-tokens"
    match = { path = "/v1/*" }

    [[rule]]
    name = "here"
    limit = "100 per hour"
    key = "user"
    backend = "local"
"#;
const SETTLED: &str = "tidegate_redis_events_total{event=\"settled\"}";
const LOADED: &str = "tidegate_redis_events_total{event=\"scripts_loaded\"}";
const CHAT: &str = r#"{"max_tokens":700,"messages":[{"role":"user","content":"Hello"}]}"#;

async fn metric(gateway: &Gateway, line: &str) -> u64 {
    let answer = gateway.get_metrics("/metrics").await;
    let text = answer.text();
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.unwrap_or_else(|| panic!("no {line} in {text}")).trim().parse().unwrap()
}

#[tokio::test]
async fn gateways_share_the_limits_of_their_users_and_settle_on_the_server() {
    let redis = RedisServer::start();
    let machines = [(); 2].map(|()| Gateway::configured(&config(&redis, RULES)));
    assert_eq!(machines[0].send(chat_as("alices", CHAT)).await.status, 200);
    // Settled in the background: by what the demo says that it used, the ceiling and one more.
    while metric(&machines[0], SETTLED).await == 0 {}
    let answer = machines[1].send(get_as("alices", "/v1/models")).await;
    assert_eq!(["budget", "user", "here"].map(|rule| answer.remaining(rule)), [299, 4, 99]);
    let denied = machines[1].send(chat_as("alices", CHAT)).await;
    assert_eq!(denied.status, 429, "{}", denied.text());
    assert!(denied.text().contains("`budget`"), "{}", denied.text());
    let mut passed = 0;
    while machines[0].send(get_as("alices", "/v1/models")).await.status == 200 {
        passed += 1;
    }
    assert!(passed < 6, "the other gateway's calls count");
    assert!(metric(&machines[0], "tidegate_rule_decisions_total{by=\"server\"}").await > 3);
    // Each call once, those that use nothing too.
    let mut settled = 0;
    while settled != 1 + passed {
        settled = metric(&machines[0], SETTLED).await;
        assert!(settled <= 1 + passed, "{settled} of {passed}");
    }
    assert_eq!(metric(&machines[0], "tidegate_redis_given_up").await, 0);
}

#[tokio::test]
async fn while_redis_is_gone_each_rule_does_what_it_says_and_it_comes_back() {
    let redis = RedisServer::start();
    let rules = "[[rule]]\nname = \"closed\"\nlimit = \"50 per hour\"\nkey = \"user\"\nmatch = { path = \"/v1/*\" }\n\
                 [[rule]]\nname = \"open\"\nlimit = \"50 per hour\"\nkey = \"global\"\nwhen_down = \"allow\"\n";
    let gateway = Gateway::configured(&config(&redis, rules).replace("500", "50"));
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.status, 200);
    redis.signal(Signal::SIGSTOP);
    for _ in 0..8 {
        let answer = gateway.send(get_as("alices", "/v1/models")).await;
        assert_eq!(answer.status, 503, "an error, not a denial: {}", answer.text());
        assert_eq!(answer.header("retry-after"), "1");
        assert!(answer.text().contains("does not answer"), "{}", answer.text());
        assert_eq!(gateway.send(get_as("alices", "/")).await.status, 200);
    }
    assert_eq!(metric(&gateway, "tidegate_redis_given_up").await, 1);
    assert_eq!(metric(&gateway, "tidegate_calls_total{outcome=\"unavailable\"}").await, 8);
    assert!(metric(&gateway, "tidegate_rule_decisions_total{by=\"fallback\"}").await >= 16);
    redis.signal(Signal::SIGCONT);
    let mut status = 503;
    while status == 503 {
        status = gateway.send(get_as("alices", "/v1/models")).await.status;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_gateway_that_stops_gives_back_what_it_leased() {
    let redis = RedisServer::start();
    let rules = "[[rule]]\nname = \"all\"\nlimit = \"1000 per day\"\nalgorithm = \"fixed-window\"\nkey = \"global\"\n\
                 lease = 60_000\n";
    let mut gateway = Gateway::configured(&config(&redis, rules));
    for _ in 0..50 {
        assert_eq!(gateway.send(get_as("alices", "/")).await.status, 200);
    }
    assert!(metric(&gateway, "tidegate_redis_events_total{event=\"allowed_here\"}").await > 20);
    assert!(metric(&gateway, "tidegate_redis_events_total{event=\"leases\"}").await > 0);
    gateway.signal("-TERM");
    assert_eq!(gateway.wait(), Some(0));
    let next = Gateway::configured(&config(&redis, rules));
    assert_eq!(next.send(get_as("alices", "/")).await.remaining("all"), 1000 - 51);
}

/// As one is whose client has gone: by what was seen of it.
#[tokio::test]
async fn a_stream_that_a_stop_cuts_off_is_settled_on_the_server_before_the_process_ends() {
    let upstream = Upstream::start(|asked, _| {
        if asked.method == Method::GET {
            return Response::new(Body::from("{}"));
        }
        let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
        let chunks = stream::iter([Ok::<_, Infallible>(chunk)]).chain(stream::pending());
        let answer = Response::builder().header("content-type", "text/event-stream");
        answer.body(Body::from_stream(chunks)).unwrap()
    });
    let upstream = upstream.await;
    for client in [client(), http2_client()] {
        let redis = RedisServer::start();
        let config = config(&redis, RULES).replace("drain_timeout_s = 5", "drain_timeout_s = 0");
        let config = format!("{config}\n[upstream]\nurl = \"http://{}\"\n", upstream.address);
        let mut gateway = Gateway::configured(&config);
        let streaming = CHAT.replacen('{', "{\"model\":\"gpt-4o\",\"stream\":true,", 1);
        let request = gateway.absolute(chat_as("alices", &streaming));
        let mut answer = client.request(request).await.unwrap();
        assert!(answer.body_mut().frame().await.is_some_and(|frame| frame.is_ok()));
        gateway.signal("-TERM");
        assert_eq!(gateway.wait(), Some(0));
        let next = Gateway::configured(&config);
        let left = next.send(get_as("alices", "/v1/models")).await.remaining("budget");
        assert!((900..1_000).contains(&left), "{left} of 1000 are left, and 700 were reserved");
    }
}

#[tokio::test]
async fn a_reload_keeps_the_server_and_its_counts() {
    let redis = RedisServer::start();
    let gateway = Gateway::configured(&config(&redis, RULES));
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.remaining("user"), 5);
    while metric(&gateway, SETTLED).await == 0 {}
    let loaded = metric(&gateway, LOADED).await;
    gateway.rewrite_config(&config(&redis, &RULES.replace("100 per", "200 per")));
    while metric(&gateway, "tidegate_config_reloads_total{result=\"ok\"}").await == 0 {}
    let answer = gateway.send(get_as("alices", "/v1/models")).await;
    assert_eq!((answer.remaining("user"), answer.remaining("here")), (4, 199));
    assert_eq!(metric(&gateway, LOADED).await, loaded);
}

#[tokio::test]
async fn operators_see_what_is_used_on_the_server_and_are_told_what_they_cannot_change_there() {
    let redis = RedisServer::start();
    let config = config(&redis, &format!("{RULES}\n[admin]\nlisten = \"127.0.0.1:0\"\n"));
    let gateway = Gateway::configured(&config.replace("timeout_ms = 500", "timeout_ms = 2000"));
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.status, 200);
    let usage = gateway.ask_admin("/api/v1/usage?user=alice", None).await.json();
    let rules = usage["usage"].as_array().unwrap();
    let used: Vec<_> = rules.iter().map(|rule| (&rule["rule"], &rule["used"])).collect();
    let expected =
        [("user", 1), ("budget", 0), ("here", 1)].map(|(rule, used)| (json!(rule), json!(used)));
    assert_eq!(used, expected.each_ref().map(|(rule, used)| (rule, used)), "{usage}");
    let alice = json!({"user": "alice"});
    for (path, body) in [
        ("/api/v1/top-up", json!({"rule": "user", "units": 1, "of": alice})),
        ("/api/v1/reset", json!({"rule": "user", "of": alice})),
    ] {
        let answer = gateway.ask_admin(path, Some(body)).await;
        assert_eq!(answer.status, 501, "{}", answer.text());
        assert!(answer.text().contains("`{tidegate:<namespace>}:<rule>:*`"), "{}", answer.text());
    }
    let answer = gateway.ask_admin("/api/v1/reset", Some(json!({"of": alice}))).await.json();
    assert_eq!(answer["reset"][0]["rule"], "here", "{answer}");
    assert_eq!(answer["not_reset"], json!(["user", "budget"]));
    assert_eq!(gateway.send(get_as("alices", "/v1/models")).await.remaining("user"), 4);
    redis.signal(Signal::SIGSTOP);
    let gone = gateway.ask_admin("/api/v1/usage?user=alice", None).await.json();
    redis.signal(Signal::SIGCONT);
    assert_eq!(gone["unavailable"], json!(["user", "budget"]));
}
