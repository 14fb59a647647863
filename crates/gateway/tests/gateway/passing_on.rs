//! Requests and answers on their way through.

use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::Full;

use crate::process::{Gateway, Upstream, get};

const RULE: &str = "[[rule]]\nname = \"ip\"\nlimit = \"50 per minute\"\nkey = \"ip\"\n";

async fn echo() -> (Gateway, Upstream) {
    let upstream = Upstream::start(|parts, body| {
        Response::builder()
            .header("x-method", parts.method.as_str())
            .header("ratelimit", "\"theirs\";r=7")
            .header("connection", "x-private")
            .header("x-private", "1")
            .body(Body::from(body.clone()))
            .unwrap()
    })
    .await;
    let config = format!("upstream.url = \"http://{}/base\"\n{RULE}", upstream.address);
    (Gateway::configured(&config), upstream)
}

#[tokio::test]
async fn requests_and_answers_pass_but_for_the_fields_of_one_connection() {
    let (gateway, upstream) = echo().await;
    let request = Request::put("/a/b?c=d%20e")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("te", "trailers")
        .header("x-forwarded-for", "6.6.6.6")
        .header("forwarded", "for=6.6.6.6")
        .header("cookie", "kept")
        .body(Full::from("body"))
        .unwrap();
    let answer = gateway.send(request).await;
    assert_eq!((answer.status, answer.text(), answer.header("x-method")), (200, "body", "PUT"));
    assert_eq!(answer.header("x-private"), "");
    let fields: Vec<_> = answer.headers.get_all("ratelimit").iter().collect();
    assert_eq!(fields.len(), 2, "the upstream's field is kept beside ours");

    let (parts, _) = &upstream.seen()[0];
    assert_eq!(parts.uri, "/base/a/b?c=d%20e");
    assert_eq!(parts.headers["host"], upstream.address.to_string().as_str());
    assert_eq!(parts.headers["cookie"], "kept");
    assert_eq!(parts.headers["x-forwarded-for"], "127.0.0.1", "not what the client claims");
    for gone in ["x-hop", "te", "forwarded"] {
        assert!(!parts.headers.contains_key(gone), "{gone}");
    }
}

#[tokio::test]
async fn answers_without_an_upstream_are_problems() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::configured(&format!("upstream.url = \"http://{closed}\"\n{RULE}"));
    let answer = gateway.send(get("/")).await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.json()["detail"], "The upstream cannot be reached.");
    assert_eq!(answer.remaining("ip"), 49, "it was a request all the same");
}
