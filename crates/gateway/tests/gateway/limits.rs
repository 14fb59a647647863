//! The three layers, as the demo has them.

use std::sync::Arc;

use http::Request;
use http_body_util::Full;

use crate::process::{Gateway, chat_as, get, get_as, http2_client};

#[tokio::test]
async fn a_hundred_requests_of_an_address_pass_and_not_one_more() {
    let gateway = Gateway::demo(&[]);
    for index in 0..100 {
        // Every path counts: also unknown ones, and the log-in, which needs no key.
        let request = match index % 4 {
            0 => get("/"),
            1 => get("/health"),
            2 => get("/no/such/path"),
            _ => Request::post("/login")
                .header("content-type", "application/json")
                .body(Full::from("{\"user\":\"alice\"}"))
                .unwrap(),
        };
        assert_ne!(gateway.send(request).await.status, 429, "request {index}");
    }
    let denied = gateway.send(get("/health")).await;
    assert_eq!(denied.status, 429);
    let wait: u64 = denied.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(denied.header("content-type"), "application/problem+json");
    assert_eq!(denied.json()["violated-policies"], serde_json::json!(["ip"]));
}

#[tokio::test]
async fn twenty_requests_of_a_user_pass_and_another_user_is_not_touched() {
    let gateway = Gateway::demo(&[]);
    for _ in 0..20 {
        assert_eq!(gateway.send(get_as("demo-alice", "/v1/models")).await.status, 200);
    }
    let denied = gateway.send(get_as("demo-alice", "/v1/models")).await;
    assert_eq!(denied.status, 429);
    assert_eq!(denied.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(denied.remaining("ip"), 80, "a denied request is charged by no layer");
    assert_eq!(gateway.send(get_as("demo-bob", "/v1/models")).await.status, 200);
    // Under the same key, every path counts for the user.
    assert_eq!(gateway.send(get_as("demo-alice", "/health")).await.status, 429);
}

#[tokio::test]
async fn a_budget_is_spent_by_real_usage_and_never_passed() {
    let gateway = Gateway::demo(&[]);
    let body = |tokens: u32| {
        format!(
            "{{\"max_tokens\":{tokens},\"messages\":[{{\"role\":\"user\",\"content\":\"a b c\"}}]}}"
        )
    };
    let first = gateway.send(chat_as("demo-alice", &body(6_000))).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.json()["usage"]["total_tokens"], 6_003);
    let denied = gateway.send(chat_as("demo-alice", &body(6_000))).await;
    assert_eq!(denied.status, 429);
    assert_eq!(denied.json()["error"]["code"], "insufficient_quota");
    assert_eq!(denied.header("x-should-retry"), "false");
    assert_eq!(denied.remaining("budget"), 10_000 - 6_003, "what was used, not what was reserved");
    let spent = gateway.send(chat_as("demo-alice", &body(3_000))).await;
    assert_eq!(spent.status, 200);
    let bob = gateway.send(chat_as("demo-bob", &body(6_000))).await;
    assert_eq!(bob.status, 200, "another user's budget is whole");
}

#[tokio::test]
async fn a_key_that_is_not_known_is_refused_and_counted_for_its_address() {
    let gateway = Gateway::demo(&[]);
    for (index, request) in
        [get("/v1/models"), get_as("wrong", "/v1/models"), chat_as("wrong", "{}")]
            .into_iter()
            .enumerate()
    {
        let answer = gateway.send(request).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(answer.remaining("ip"), 99 - index as u64);
        assert!(!answer.header("ratelimit").contains("user"));
    }
    // No spelling of the path gets around it.
    for path in ["//v1/models", "/v1//models/", "/%76%31/models", "/V1/models", "/v1;x/models"] {
        assert_eq!(gateway.send(get(path)).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn an_address_is_believed_only_from_a_trusted_proxy() {
    let from = |client: &str| {
        Request::get("/health").header("x-forwarded-for", client).body(Full::default()).unwrap()
    };
    let gateway = Gateway::demo(&[]);
    for index in 0..5 {
        let answer = gateway.send(from(&format!("198.51.100.{index}"))).await;
        assert_eq!(answer.remaining("ip"), 99 - index, "one bucket, whatever they claim");
    }
    let gateway = Gateway::demo(&["--trusted-proxy", "127.0.0.0/8"]);
    for index in 0..5 {
        let answer = gateway.send(from(&format!("6.6.6.6, 198.51.100.{index}"))).await;
        assert_eq!(answer.remaining("ip"), 99, "a bucket for each client");
    }
}

#[tokio::test]
async fn concurrent_requests_of_many_http2_streams_pass_up_to_exactly_the_limit() {
    let gateway = Arc::new(Gateway::demo(&[]));
    let client = http2_client();
    // Warm, so that all streams share one connection.
    assert_eq!(gateway.send_by(&client, get_as("demo-bob", "/v1/models")).await.status, 200);
    let streams: Vec<_> = (0..90)
        .map(|_| {
            let (gateway, client) = (gateway.clone(), client.clone());
            tokio::spawn(async move {
                gateway.send_by(&client, get_as("demo-bob", "/v1/models")).await.status
            })
        })
        .collect();
    let mut passed = 0;
    for stream in streams {
        passed += u32::from(stream.await.unwrap() == 200);
    }
    assert_eq!(passed, 19);
}
