//! LLM calls through the gateway: reserved, passed on, metered, settled.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;

use crate::process::{Answer, Gateway, Upstream, chat_as, client};

/// A budget in a sliding window, so that no test depends on the time of day.
fn config(upstream: &str) -> String {
    format!(
        r#"
        [upstream]
        url = "{upstream}"
        api_key_env = "TIDEGATE_TEST_KEY"

        [auth]
        required = ["/v1/*"]

        [[user]]
        name = "alice"
        key = "alice-key"

        [[rule]]
        name = "user"
        limit = "1_000 per minute"
        key = "user"
        match = {{ authenticated = true }}

        [[rule]]
        name = "budget"
        limit = "10_000 per hour"
        key = "user"
        cost = "llm-tokens"
        match = {{ authenticated = true, path = "/v1/*" }}
        "#
    )
}

async fn behind(
    respond: impl Fn(&http::request::Parts, &Bytes) -> Response + Send + Sync + 'static,
) -> (Gateway, Upstream) {
    let upstream = Upstream::start(respond).await;
    let gateway = Gateway::configured(&config(&format!("http://{}", upstream.address)));
    (gateway, upstream)
}

fn answer_of(kind: &str, body: impl Into<Body>) -> Response {
    Response::builder().header("content-type", kind).body(body.into()).unwrap()
}

const ASK: &str = r#"{"messages":[],"max_tokens":4000}"#;

async fn ask(gateway: &Gateway, body: &str) -> Answer {
    gateway.send(chat_as("alice-key", body)).await
}

/// What is left of the budget once nothing is in flight any more.
async fn budget_left(gateway: &Gateway) -> u64 {
    let request = chat_as("alice-key", r#"{"messages":[],"max_tokens":1000000}"#);
    gateway.send(request).await.remaining("budget")
}

#[tokio::test]
async fn usage_settles_the_reservation_and_the_answer_passes_byte_for_byte() {
    let body = r#"{ "choices" : [ ],"usage":{"total_tokens":  123 } }"#;
    let (gateway, upstream) = behind(move |_, _| answer_of("application/json", body)).await;
    let answer = ask(&gateway, ASK).await;
    assert_eq!((answer.status, answer.text()), (200, body));
    assert_eq!(answer.remaining("budget"), 10_000 - 4_000 - ASK.len() as u64, "while it is held");
    assert_eq!(budget_left(&gateway).await, 10_000 - 123);
    let (parts, asked) = &upstream.seen()[0];
    assert_eq!(asked, ASK, "byte for byte");
    assert_eq!(parts.headers["authorization"], "Bearer upstream-secret", "not the caller's key");
}

#[tokio::test]
async fn usage_above_the_reservation_is_debt() {
    let body = r#"{"usage":{"prompt_tokens":9000,"completion_tokens":6000}}"#;
    let (gateway, _) = behind(move |_, _| answer_of("application/json", body)).await;
    assert_eq!(ask(&gateway, r#"{"messages":[],"max_tokens":9000}"#).await.status, 200);
    assert_eq!(budget_left(&gateway).await, 0);
    assert_eq!(ask(&gateway, r#"{"messages":[],"max_tokens":1}"#).await.status, 429);
}

#[tokio::test]
async fn an_upstream_error_gives_the_reservation_back() {
    let (gateway, _) = behind(|_, _| {
        let mut response = answer_of("application/json", r#"{"error":{"message":"overloaded"}}"#);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    })
    .await;
    let answer = ask(&gateway, ASK).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["error"]["message"], "overloaded", "the upstream's own words");
    assert_eq!(budget_left(&gateway).await, 10_000);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_gives_the_reservation_back() {
    // Held, so that nobody else gets it, and nobody listens.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let gateway = Gateway::configured(&config(&format!("http://{address}")));
    let answer = ask(&gateway, ASK).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["error"]["message"], "The upstream cannot be reached.");
    assert_eq!(budget_left(&gateway).await, 10_000);
}

#[tokio::test]
async fn an_answer_that_tells_no_usage_keeps_the_estimate() {
    let (gateway, _) = behind(|_, _| answer_of("application/json", r#"{"choices":[]}"#)).await;
    assert_eq!(ask(&gateway, ASK).await.status, 200);
    assert_eq!(budget_left(&gateway).await, 6_000 - ASK.len() as u64);
}

fn event(json: &serde_json::Value) -> String {
    format!("data: {json}\n\n")
}

/// Three chunks and, where it was asked for, the usage.
fn stream_of(asked: &Bytes) -> Vec<String> {
    let asked: serde_json::Value = serde_json::from_slice(asked).unwrap();
    let chunk = |text: &str| event(&json!({ "choices": [{ "delta": { "content": text } }] }));
    let mut events = vec![chunk("one"), chunk(" two"), chunk(" three")];
    if asked["stream_options"]["include_usage"] == json!(true) {
        events.push(event(&json!({ "choices": [], "usage": { "total_tokens": 77 } })));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

#[tokio::test]
async fn the_usage_of_a_stream_is_asked_for_and_kept_from_a_client_who_did_not_ask() {
    let (gateway, _) = behind(|_, asked| {
        // In pieces that end anywhere.
        let bytes = stream_of(asked).concat().into_bytes();
        let pieces: Vec<_> =
            bytes.chunks(7).map(Bytes::copy_from_slice).map(Ok::<_, axum::Error>).collect();
        answer_of("text/event-stream", Body::from_stream(stream::iter(pieces)))
    })
    .await;
    let answer = ask(&gateway, r#"{"messages":[],"max_tokens":4000,"stream":true}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text().matches("data: ").count(), 4, "{}", answer.text());
    assert!(!answer.text().contains("usage"));
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(budget_left(&gateway).await, 10_000 - 77);

    let asked = r#"{"messages":[],"max_tokens":4000,"stream":true,"stream_options":{"include_usage":true}}"#;
    let answer = ask(&gateway, asked).await;
    assert_eq!(answer.text(), stream_of(&Bytes::from(asked)).concat(), "untouched");
    assert_eq!(budget_left(&gateway).await, 10_000 - 2 * 77);
}

#[tokio::test]
async fn a_stream_arrives_as_it_is_made_not_at_its_end() {
    let (gateway, _) = behind(|_, asked| {
        let events =
            stream_of(asked).into_iter().map(|text| Ok::<_, axum::Error>(Bytes::from(text)));
        // The first event, and then nothing more for ever.
        let endless = stream::iter(events).take(1).chain(stream::pending());
        answer_of("text/event-stream", Body::from_stream(endless))
    })
    .await;
    let request = gateway
        .absolute(chat_as("alice-key", r#"{"messages":[],"max_tokens":4000,"stream":true}"#));
    let mut body = client().request(request).await.unwrap().into_body();
    let frame =
        tokio::time::timeout(Duration::from_secs(20), body.frame()).await.expect("no first event");
    assert!(frame.unwrap().unwrap().into_data().unwrap().starts_with(b"data: "));
    drop(body);
    // The client has gone before the usage was told, so the estimate stays.
    assert_eq!(budget_left(&gateway).await, 6_000 - 47);
}

#[tokio::test]
async fn a_body_that_is_no_call_is_refused_and_counted_as_a_request_only() {
    let (gateway, upstream) = behind(|_, _| answer_of("application/json", "{}")).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let large = format!("{{\"messages\":[\"{}\"]}}", "x".repeat(5 << 20));
    let cases = [
        ("", 400, "The body is not JSON"),
        ("{", 400, "The body is not JSON"),
        ("[]", 400, "`messages` must be a list."),
        (r#"{"messages":[],"max_tokens":-5}"#, 400, "`max_tokens` must be a whole number, not -5."),
        (
            r#"{"messages":[],"max_tokens":1,"max_tokens":9000}"#,
            400,
            "\"max_tokens\" is there twice",
        ),
        (deep.as_str(), 400, "The body is not JSON"),
        (large.as_str(), 413, "The body is too large"),
    ];
    for (index, (body, status, message)) in cases.into_iter().enumerate() {
        let answer = ask(&gateway, body).await;
        assert_eq!(answer.status, status, "{message}");
        let told = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(told.starts_with(message), "{told}");
        assert_eq!(answer.remaining("user"), 999 - index as u64);
        assert_eq!(answer.remaining("budget"), 10_000);
    }
    assert!(upstream.seen().is_empty(), "nothing of it was passed on");
}

#[tokio::test]
async fn concurrent_calls_never_hold_more_than_the_budget() {
    let body = r#"{"usage":{"total_tokens":1000}}"#;
    let (gateway, upstream) = behind(move |_, _| answer_of("application/json", body)).await;
    let gateway = std::sync::Arc::new(gateway);
    // Each reserves 1,000 and uses 1,000: ten fit.
    let ask = format!(r#"{{"messages":[],"max_tokens":{}}}"#, 1_000 - 33);
    assert_eq!(ask.len(), 33 - 1, "the estimate is 999");
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let (gateway, request) = (gateway.clone(), chat_as("alice-key", &ask));
            tokio::spawn(async move { gateway.send(request).await.status })
        })
        .collect();
    let mut passed = 0;
    for call in calls {
        passed += u32::from(call.await.unwrap() == 200);
    }
    assert_eq!(passed, 10);
    assert_eq!(upstream.seen().len(), 10);
    assert_eq!(budget_left(&gateway).await, 0);
}
