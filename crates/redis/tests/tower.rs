//! The tower layer, with a policy whose rules machines share.

mod servers;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use servers::RedisServer;
use tidegate_redis::policy_from_toml;
use tidegate_tower::{LlmReservation, RateLimitLayer, ResponseBody};
use tower::{Layer, Service, ServiceExt, service_fn};

const RULES: &str = r#"
    [[rule]]
    name = "user"
    limit = "3 per hour"
    key = "user"

    [[rule]]
    name = "budget"
    limit = "1_000 per day"
    algorithm = "fixed-window"
    key = "user"
    cost = "llm-tokens"
"#;

type Answer = Response<ResponseBody<Full<Bytes>>>;

/// A service that uses 50 LLM tokens, behind the layer, and how often it was called.
fn machine(
    redis: &str,
) -> (
    impl Service<Request<()>, Response = Answer, Error = Infallible> + Clone + use<>,
    Arc<AtomicU32>,
) {
    let text = format!("[redis]\nurl = \"{redis}\"\ntimeout_ms = 1000\n{RULES}");
    let layer = RateLimitLayer::new(policy_from_toml(&text).unwrap())
        .identified_by(|_| Some("alice".to_owned()))
        .counting_llm_tokens(|_| Some(400));
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let service = service_fn(move |request: Request<()>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let reservation = request.extensions().get::<LlmReservation>().unwrap();
            assert!(reservation.settle(50));
            Ok(Response::new(Full::new(Bytes::from("answer"))))
        }
    });
    (layer.layer(service), calls)
}

async fn send(
    service: &(impl Service<Request<()>, Response = Answer, Error = Infallible> + Clone),
) -> Answer {
    service.clone().oneshot(Request::new(())).await.unwrap()
}

#[tokio::test]
async fn services_of_machines_share_the_limits_of_one_policy() {
    let redis = RedisServer::start();
    let ((one, one_calls), (other, other_calls)) = (machine(&redis.url()), machine(&redis.url()));
    assert_eq!(send(&one).await.status(), 200);
    let answer = send(&other).await;
    assert_eq!(answer.status(), 200);
    let fields = answer.headers()["ratelimit"].to_str().unwrap().to_owned();
    assert!(fields.starts_with("\"user\";r=1;t="), "{fields}");
    assert_eq!(send(&other).await.status(), 200);
    let denied = send(&one).await;
    assert_eq!(denied.status(), 429);
    assert!(denied.headers()[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() > 3_000);
    let body = denied.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("The limit `user` of 3 per hour is spent"));
    assert_eq!(one_calls.load(Ordering::Relaxed), 1);
    assert_eq!(other_calls.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_service_whose_server_is_gone_says_so() {
    let mut redis = RedisServer::start();
    let (service, calls) = machine(&redis.url());
    redis.kill();
    let answer = send(&service).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()[RETRY_AFTER], "1");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body);
    assert!(body.contains("The server that counts the limit `user` does not answer"), "{body}");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}
