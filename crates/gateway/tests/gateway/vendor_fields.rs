//! The fields of providers on rate limits, about the limits here.

use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::Full;

use crate::process::{Gateway, Upstream, chat_as};

const RULES: &str = r#"
[[user]]
name = "alice"
key = "alices"
[[rule]]
name = "wide"
limit = "1000 per minute"
key = "user"
missing_key = "skip"
[[rule]]
name = "narrow"
limit = "2 per day"
algorithm = "fixed-window"
key = "user"
missing_key = "skip"
[[rule]]
name = "budget"
limit = "5000 per day"
algorithm = "fixed-window"
key = "user"
cost = "llm-tokens"
missing_key = "skip"
[[rule]]
name = "at-a-time"
limit = "1 concurrent"
key = "user"
missing_key = "skip"
"#;

/// A provider that tells of its own limits.
async fn provider() -> Upstream {
    Upstream::start(|_, _| {
        Response::builder()
            .header("content-type", "application/json")
            .header("x-ratelimit-limit-requests", "30000")
            .header("x-ratelimit-remaining-project-tokens", "149984")
            .header("anthropic-ratelimit-requests-limit", "4000")
            .header("anthropic-ratelimit-input-tokens-remaining", "399000")
            .header("x-request-id", "theirs")
            .body(Body::from("{}"))
            .unwrap()
    })
    .await
}

fn message() -> Request<Full<bytes::Bytes>> {
    let body = r#"{"model":"claude","max_tokens":100,"messages":[{"role":"user","content":"Hi"}]}"#;
    let request = Request::post("/v1/messages").header("x-api-key", "alices");
    request.body(Full::from(body)).unwrap()
}

const CHAT: &str = r#"{"max_tokens":700,"messages":[{"role":"user","content":"Hello"}]}"#;

#[tokio::test]
async fn answers_of_openais_api_tell_of_the_scarcest_limits_here_in_place_of_the_providers() {
    let config = format!("upstream.url = \"http://{}\"\n{RULES}", provider().await.address);
    let gateway = Gateway::configured(&config);
    let answer = gateway.send(chat_as("alices", CHAT)).await;
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "2", "the scarcest");
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "1");
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), "5000");
    let left: u64 = answer.header("x-ratelimit-remaining-tokens").parse().unwrap();
    assert_eq!(left, answer.remaining("budget"));
    let reset = answer.header("x-ratelimit-reset-tokens");
    assert!(reset.ends_with(['s']) && reset.starts_with(|c: char| c.is_ascii_digit()), "{reset}");
    assert_eq!(answer.header("x-ratelimit-remaining-project-tokens"), "", "of the account behind");
    assert_eq!(answer.header("x-request-id"), "theirs");
    assert_eq!(answer.headers.get_all("x-ratelimit-limit-requests").iter().count(), 1);
    // A denial tells the same.
    gateway.send(chat_as("alices", CHAT)).await;
    let answer = gateway.send(chat_as("alices", CHAT)).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "0");
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), "5000");
}

#[tokio::test]
async fn answers_of_anthropics_api_tell_it_as_that_does() {
    let config = format!("upstream.url = \"http://{}\"\n{RULES}", provider().await.address);
    let gateway = Gateway::configured(&config);
    let before = jiff::Timestamp::now();
    let answer = gateway.send(message()).await;
    assert_eq!(answer.header("anthropic-ratelimit-requests-limit"), "2");
    assert_eq!(answer.header("anthropic-ratelimit-requests-remaining"), "1");
    assert_eq!(answer.header("anthropic-ratelimit-tokens-limit"), "5000");
    assert_eq!(answer.header("anthropic-ratelimit-input-tokens-remaining"), "");
    let reset: jiff::Timestamp =
        answer.header("anthropic-ratelimit-requests-reset").parse().unwrap();
    assert!(reset > before && reset <= before + jiff::SignedDuration::from_hours(25), "{reset}");
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "30000", "of another API");
}

#[tokio::test]
async fn where_no_rule_applies_the_providers_fields_stay() {
    let config = format!("upstream.url = \"http://{}\"\n{RULES}", provider().await.address);
    let gateway = Gateway::configured(&config);
    let answer = gateway.send(chat_as("nobodys", CHAT)).await;
    assert_eq!(answer.header("x-ratelimit-limit-requests"), "30000");
    assert_eq!(answer.header("x-ratelimit-remaining-project-tokens"), "149984");
}
