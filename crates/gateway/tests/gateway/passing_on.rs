//! Requests and answers on their way through.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

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

/// Sends raw bytes, and gives what comes back until the connection is closed. It says that nothing more
/// will come only once an answer is there: a client that says so before is one that has hung up.
fn raw(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; 1 << 16];
    let first = stream.read(&mut answer).unwrap();
    answer.truncate(first);
    // It may have closed the connection by then.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_that_two_servers_could_read_differently_reaches_no_upstream_twice() {
    let (gateway, upstream) = echo().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let shapes = [
        // Both framings: one request or a refusal, never a second request from its body.
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            smuggled.len() + 5
        ),
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\ncontent-length: 7\r\n\r\n{smuggled}"
        ),
        format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n{smuggled}"),
        format!("POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{smuggled}"),
        "GET / HTTP/1.1\r\nhost: x\r\n bad: fold\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)),
    ];
    for shape in shapes {
        let before = upstream.seen().len();
        let start: String = shape.chars().take(90).collect();
        let answer = tokio::task::block_in_place(|| raw(&gateway, shape.as_bytes()));
        let answers = answer.matches("HTTP/1.1 ").count() + answer.matches("HTTP/1.0 ").count();
        assert!(answers <= 1, "{start:?}: {answer}");
        assert!(upstream.seen().len() - before <= answers, "{start:?}");
        assert!(!upstream.seen().iter().any(|(parts, _)| parts.uri.path().contains("smuggled")));
    }
}
