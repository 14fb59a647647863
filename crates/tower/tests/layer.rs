//! The layer around an axum router, as attackers and clients meet it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tidegate::policy::{Call, Policy, Source, Verdict};
use tidegate::{FakeClock, Timestamp, TrustedProxies};
use tidegate_tower::{
    ConcurrentPlace, Fields, LlmReservation, PeerAddr, RateLimitLayer, ResponseBody,
};
use tower::{Layer, Service, ServiceExt};

struct Api {
    layer: RateLimitLayer,
    router: Router,
    clock: Arc<FakeClock>,
}

impl Api {
    fn new(rules: &str) -> Self {
        let clock = Arc::new(FakeClock::at(Timestamp::from_secs(1_700_000_000)));
        let policy = Policy::from_source(&Source::new("test", rules), clock.clone()).unwrap();
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/v1/chat", post(chat))
            .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }));
        Self { layer: RateLimitLayer::new(policy), router, clock }
    }

    fn with(self, change: impl FnOnce(RateLimitLayer) -> RateLimitLayer) -> Self {
        Self { layer: change(self.layer), ..self }
    }

    async fn send(&self, request: Request<Body>) -> Response<ResponseBody<Body>> {
        self.layer.layer(self.router.clone()).oneshot(request).await.unwrap()
    }

    async fn status(&self, request: Request<Body>) -> u16 {
        self.send(request).await.status().as_u16()
    }
}

/// Uses 30 tokens, unless the request says otherwise.
async fn chat(Extension(reservation): Extension<LlmReservation>, body: String) -> String {
    match body.as_str() {
        "forget" => {}
        "fail" => assert!(reservation.cancel()),
        used => assert!(reservation.clone().settle(used.parse().unwrap_or(30))),
    }
    assert!(body == "forget" || !reservation.settle(1_000_000), "it ends once");
    "answer".to_owned()
}

const ONE_PER_IP: &str = "[[rule]]\nname = \"ip\"\nlimit = \"1 per minute\"\nkey = \"ip\"\nalgorithm = \"sliding-window-log\"";

fn from(peer: &str, path: &str) -> Request<Body> {
    let peer: SocketAddr = format!("{peer}:4711").parse().unwrap();
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

fn forwarded(peer: &str, lines: &[&str]) -> Request<Body> {
    let mut request = from(peer, "/");
    for line in lines {
        request.headers_mut().append("x-forwarded-for", line.parse().unwrap());
    }
    request
}

async fn json(response: Response<ResponseBody<Body>>) -> serde_json::Value {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

fn header<'r>(response: &'r Response<ResponseBody<Body>>, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_denial_says_what_http_says_it_should() {
    let api = Api::new(ONE_PER_IP);
    let allowed = api.send(from("192.0.2.1", "/")).await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(header(&allowed, "ratelimit-policy"), r#""ip";q=1;w=60"#);
    assert_eq!(header(&allowed, "ratelimit"), r#""ip";r=0;t=60"#);
    assert_eq!(header(&allowed, "retry-after"), "", "only on denials");

    api.clock.advance(Duration::from_millis(59_001));
    let denied = api.send(from("192.0.2.1", "/")).await;
    assert_eq!(denied.status(), 429);
    assert_eq!(header(&denied, "retry-after"), "1", "999 ms, rounded up");
    assert_eq!(header(&denied, "ratelimit"), r#""ip";r=0;t=1"#);
    assert_eq!(header(&denied, "cache-control"), "no-store");
    assert_eq!(header(&denied, "content-type"), "application/problem+json");
    let problem = json(denied).await;
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"], serde_json::json!(["ip"]));
    assert_eq!(
        problem["detail"],
        "The limit `ip` of 1 per minute is spent: 0 left. Try again in 1 s."
    );

    api.clock.advance(Duration::from_millis(999));
    assert_eq!(api.status(from("192.0.2.1", "/")).await, 200, "as the retry-after said");
}

#[tokio::test]
async fn what_a_stranger_writes_into_x_forwarded_for_is_not_believed() {
    let api = Api::new(ONE_PER_IP);
    assert_eq!(api.status(forwarded("203.0.113.1", &["1.1.1.1"])).await, 200);
    for spoofed in ["2.2.2.2", "3.3.3.3, 4.4.4.4", "::1"] {
        assert_eq!(api.status(forwarded("203.0.113.1", &[spoofed])).await, 429, "{spoofed}");
    }

    let trusted = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
    let api = Api::new(ONE_PER_IP).with(|layer| layer.behind(trusted));
    assert_eq!(api.status(forwarded("10.0.0.1", &["203.0.113.1"])).await, 200);
    let spoofs: [&[&str]; 3] = [
        &["9.9.9.9, 203.0.113.1"],
        &["9.9.9.9", "203.0.113.1"],
        &["8.8.8.8", "9.9.9.9", "203.0.113.1, 10.0.0.2"],
    ];
    for lines in spoofs {
        assert_eq!(api.status(forwarded("10.0.0.1", lines)).await, 429, "{lines:?}");
    }
    assert_eq!(api.status(forwarded("10.0.0.1", &["203.0.113.2"])).await, 200, "another client");
}

#[tokio::test]
async fn a_whole_ipv6_network_is_one_client_and_mapped_ipv4_are_many() {
    let api = Api::new(ONE_PER_IP);
    assert_eq!(api.status(from("[2001:db8::1]", "/")).await, 200);
    for host in 2..1_000 {
        assert_eq!(api.status(from(&format!("[2001:db8::{host:x}:{host:x}]"), "/")).await, 429);
    }
    assert_eq!(api.status(from("[2001:db8:0:1::1]", "/")).await, 200, "another network");
    assert_eq!(api.status(from("192.0.2.1", "/")).await, 200);
    assert_eq!(api.status(from("[::ffff:192.0.2.1]", "/")).await, 429, "the same in IPv6 clothes");
    assert_eq!(api.status(from("[::ffff:192.0.2.2]", "/")).await, 200);
}

#[tokio::test]
async fn every_method_and_every_path_is_charged_also_those_that_lead_nowhere() {
    for method in ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "BREW"] {
        for path in ["/", "/nowhere", "/broken"] {
            let api = Api::new(ONE_PER_IP);
            for expect_denied in [false, true] {
                let mut request = from("192.0.2.1", path);
                *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
                let status = api.status(request).await;
                assert_eq!(status == 429, expect_denied, "{method} {path}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_request_without_an_address_falls_back_on_the_stated_rule() {
    let api = Api::new(ONE_PER_IP);
    let request = || Request::builder().uri("/").body(Body::empty()).unwrap();
    let denied = api.send(request()).await;
    assert_eq!(denied.status(), 403);
    let problem = json(denied).await;
    assert_eq!(
        problem["detail"],
        "The limit `ip` tells callers apart by ip, which this call does not have."
    );

    let api = Api::new(&format!("{ONE_PER_IP}\nmissing_key = \"share\""));
    assert_eq!(api.status(request()).await, 200);
    assert_eq!(api.status(request()).await, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_are_admitted_up_to_exactly_the_limit() {
    let api =
        Arc::new(Api::new("[[rule]]\nname = \"ip\"\nlimit = \"100 per minute\"\nkey = \"ip\""));
    let barrier = Arc::new(tokio::sync::Barrier::new(16));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (api, barrier) = (api.clone(), barrier.clone());
            tokio::spawn(async move {
                barrier.wait().await;
                let mut admitted = 0;
                for _ in 0..500 {
                    admitted += u32::from(api.status(from("192.0.2.1", "/")).await == 200);
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, 100);
}

/// The place among concurrent calls is taken until the answer has ended, whatever becomes of the request before.
#[tokio::test]
async fn a_concurrent_call_lasts_until_its_answer_has_ended() {
    let rule = "[[rule]]\nname = \"calls\"\nlimit = \"1 concurrent\"\nkey = \"global\"";
    let tokens = "[[rule]]\nname = \"tokens\"\nlimit = \"100 per day\"\nkey = \"global\"\ncost = \"llm-tokens\"";
    let policy = Policy::from_toml(&format!("{rule}\n{tokens}")).unwrap();
    let layer = RateLimitLayer::new(policy.clone()).counting_llm_tokens(|_| Some(40));
    let go_on = Arc::new(tokio::sync::Notify::new());
    let waited = go_on.clone();
    let settling = async move |Extension(reservation): Extension<LlmReservation>| {
        reservation.settle(7);
        waited.notified().await;
        "an answer"
    };
    let router = Router::new().route("/", get(settling)).layer(layer);
    let call = || router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap());

    let mut first = Box::pin(call());
    assert!(futures_poll(first.as_mut()).await.is_pending());
    let denied = call().await.unwrap();
    assert_eq!(denied.status(), 429, "the handler has settled, and is not done");
    go_on.notify_one();
    let first = first.await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(call().await.unwrap().status(), 429, "nobody has taken the answer yet");
    drop(first);
    let spent = Call::new("GET", "/").with_llm_tokens(0);
    let Verdict::Allow(grant) = policy.peek(&spent) else { panic!("the place is free") };
    let tokens = grant.standings().iter().find(|standing| standing.rule().name() == "tokens");
    assert_eq!(tokens.unwrap().decision().remaining(), 93);
}

/// What a WebSocket does: the answer ends with the handshake, the call does not.
#[tokio::test]
async fn a_handler_keeps_its_place_for_as_long_as_its_call_lasts() {
    let rule = "[[rule]]\nname = \"calls\"\nlimit = \"1 concurrent\"\nkey = \"global\"";
    let layer = RateLimitLayer::new(Policy::from_toml(rule).unwrap());
    let (hand_over, mut handed_over) = tokio::sync::mpsc::unbounded_channel();
    let upgrades = async move |Extension(place): Extension<ConcurrentPlace>| {
        hand_over.send(place).unwrap();
        http::StatusCode::SWITCHING_PROTOCOLS
    };
    let router = Router::new().route("/", get(upgrades)).layer(layer);
    let call = || router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap());

    assert_eq!(call().await.unwrap().status(), 101);
    let place = handed_over.recv().await.unwrap();
    assert_eq!(call().await.unwrap().status(), 429, "they are talking");
    drop(place);
    assert_eq!(call().await.unwrap().status(), 101);
}

/// One poll, and no more.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await
}

const BUDGET: &str = r#"
    [[rule]]
    name = "user"
    limit = "20 per minute"
    key = "user"
    match = { authenticated = true }

    [[rule]]
    name = "budget"
    limit = "100 per day"
    algorithm = "fixed-window"
    key = "user"
    cost = "llm-tokens"
    match = { path = "/v1/*", authenticated = true }
"#;

/// Believes a header, as no real service should: an outer layer would check credentials first.
fn ai_api() -> Api {
    Api::new(BUDGET).with(|layer| {
        let text = |parts: &http::request::Parts, name: &str| {
            parts.headers.get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()))
        };
        layer
            .identified_by(move |parts| text(parts, "x-user"))
            .counting_llm_tokens(move |parts| text(parts, "x-tokens")?.parse().ok())
    })
}

fn chat_request(user: &str, tokens: u32, body: &str) -> Request<Body> {
    Request::post("/v1/chat")
        .header("x-user", user)
        .header("x-tokens", tokens)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

#[tokio::test]
async fn handlers_settle_what_was_really_used() {
    let api = ai_api();
    let mut left = Vec::new();
    for (user, body) in
        [("alice", "30"), ("alice", "0"), ("alice", "fail"), ("alice", "forget"), ("bob", "95")]
    {
        let response = api.send(chat_request(user, 40, body)).await;
        assert_eq!(response.status(), 200, "{user} {body}");
        left.push(header(&response, "ratelimit").to_owned());
    }
    // What is left with the reservation held: 60, then 100 - 30 - 40 twice, then the same.
    let budget = |remaining| format!("\"budget\";r={remaining};t=6400");
    for (index, remaining) in [60, 30, 30, 30, 60].into_iter().enumerate() {
        assert!(left[index].ends_with(&budget(remaining)), "{index}: {}", left[index]);
    }
    // Alice forgot one reservation of 40: 30 + 40 are spent. Bob used 95 of his 40 reserved.
    assert_eq!(api.status(chat_request("alice", 31, "31")).await, 429);
    assert_eq!(api.status(chat_request("alice", 30, "30")).await, 200);
    assert_eq!(api.status(chat_request("bob", 6, "6")).await, 429);
    assert_eq!(api.status(chat_request("bob", 5, "5")).await, 200);
}

#[tokio::test]
async fn a_call_above_the_whole_budget_is_told_that_no_wait_helps() {
    let api = ai_api();
    let denied = api.send(chat_request("alice", 101, "101")).await;
    assert_eq!(denied.status(), 429);
    assert_eq!(header(&denied, "retry-after"), "");
    assert_eq!(
        header(&denied, "ratelimit-policy"),
        r#""user";q=20;w=60, "budget";q=100;w=86400;tidegate-unit="llm-tokens""#
    );
    let problem = json(denied).await;
    assert_eq!(
        problem["detail"],
        "This call needs more than the limit `budget` of 100 per day ever has: at most 100 at once."
    );
}

#[tokio::test]
async fn other_dialects_of_the_fields() {
    let api = ai_api().with(|layer| layer.with_fields(Fields::XRateLimit));
    let response = api.send(chat_request("alice", 99, "99")).await;
    assert_eq!(header(&response, "x-ratelimit-limit"), "100", "the rule with the least left");
    assert_eq!(header(&response, "x-ratelimit-remaining"), "1");
    assert_eq!(header(&response, "x-ratelimit-reset"), "6400");
    assert_eq!(header(&response, "ratelimit"), "");

    let api = ai_api().with(|layer| layer.with_fields(Fields::None));
    let response = api.send(chat_request("alice", 99, "99")).await;
    assert_eq!(header(&response, "ratelimit-policy"), "");
}

#[tokio::test]
async fn only_the_rules_that_apply_and_are_enforced_are_told() {
    let rule = |name: &str, also: &str| {
        let one = "limit = \"1 per hour\"\nkey = \"global\"\nalgorithm = \"fixed-window\"";
        format!("[[rule]]\nname = \"{name}\"\n{one}\n{also}\n")
    };
    let rules = [
        rule("all", ""),
        rule("trial", "dry_run = true"),
        rule("chat", "match = { path = \"/v1/*\" }"),
        rule("root", "match = { path = \"/\" }"),
    ];
    let policy = |path, rules: &[String]| {
        let api = Api::new(&rules.concat());
        async move {
            let response = api.send(from("192.0.2.1", path)).await;
            response.headers().get("ratelimit-policy").map(|told| told.to_str().unwrap().to_owned())
        }
    };
    let told = |value: &str| Some(value.to_owned());
    assert_eq!(policy("/", &rules).await, told(r#""all";q=1;w=3600, "root";q=1;w=3600"#));
    assert_eq!(policy("/v1/chat", &rules).await, told(r#""all";q=1;w=3600, "chat";q=1;w=3600"#));
    assert_eq!(
        policy("/v1/chat", &rules[..3]).await,
        told(r#""all";q=1;w=3600, "chat";q=1;w=3600"#)
    );
    assert_eq!(policy("/", &rules[..3]).await, told(r#""all";q=1;w=3600"#));
    assert_eq!(policy("/", &rules[1..2]).await, None, "a field of no items is not sent");
}

#[tokio::test]
async fn fields_of_a_service_behind_are_kept() {
    let policy = Policy::from_toml(&ONE_PER_IP.replace("\"ip\"", "\"global\"")).unwrap();
    let behind = tower::service_fn(|_: Request<Body>| async {
        let response =
            Response::builder().header("ratelimit", "\"theirs\";r=5").body(Body::empty());
        Ok::<_, std::convert::Infallible>(response.unwrap())
    });
    let mut service = RateLimitLayer::new(policy).layer(behind);
    let response = service.call(Request::new(Body::empty())).await.unwrap();
    let fields: Vec<_> = response.headers().get_all("ratelimit").iter().collect();
    assert_eq!(fields, ["\"theirs\";r=5", "\"global\";r=0;t=60"]);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axums_connect_info_is_an_address_too() {
    let api = Api::new(ONE_PER_IP);
    let request = || {
        let mut request = Request::builder().uri("/").body(Body::empty()).unwrap();
        let peer: SocketAddr = "192.0.2.1:1".parse().unwrap();
        request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
        request
    };
    assert_eq!(api.status(request()).await, 200);
    assert_eq!(api.status(request()).await, 429);
}

#[cfg(feature = "grpc")]
#[tokio::test]
async fn grpc_clients_are_told_resource_exhausted() {
    use tonic_types::StatusExt;

    let api = Api::new(ONE_PER_IP);
    let request = || {
        let mut request = from("192.0.2.1", "/");
        request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        request
    };
    assert_eq!(api.status(request()).await, 200);
    let denied = api.send(request()).await;
    assert_eq!(denied.status(), 200, "gRPC has its status in a header");
    let status = tonic::Status::from_header_map(denied.headers()).unwrap();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let retry = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(retry, Duration::from_secs(60));
    assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "ip");
}
