//! Requests that two servers could read differently: refused, or read once.

use super::{Setup, USED, statuses};

/// What is to become of some bytes.
#[derive(Debug, PartialEq)]
enum Fate {
    /// Answered with this status, and passed on to nobody.
    Refused(u16),
    /// Passed on, so many times.
    Passed(usize),
}

use Fate::{Passed, Refused};

/// A request that must never be seen by itself.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";

/// The fields and the body of a POST, and what is to become of it. `{body}` is a body of its API, and `{n}` its
/// length.
fn bodies() -> Vec<(String, Fate)> {
    let smuggled = format!("0\r\n\r\n{SMUGGLED}");
    let chunked = "transfer-encoding: chunked\r\n";
    let length = |n: usize| format!("content-length: {n}\r\n");
    [
        // Well-formed, for comparison.
        (length(0).replace('0', "{n}") + "\r\n{body}", Passed(1)),
        (format!("{chunked}\r\n{{x}}\r\n{{body}}\r\n0\r\n\r\n"), Passed(1)),
        (format!("{chunked}\r\n{{x}};name=value\r\n{{body}}\r\n0\r\n\r\n"), Passed(1)),
        (format!("{chunked}\r\n{{x}}\r\n{{body}}\r\n0\r\ntrailer: x\r\n\r\n"), Passed(1)),
        // A trailer is no field: it frames nothing and says nothing.
        (
            format!(
                "{chunked}\r\n{{x}}\r\n{{body}}\r\n0\r\ncontent-length: 9\r\nauthorization: x\r\n\r\n"
            ),
            Passed(1),
        ),
        // Both framings: the chunks count, and the connection is not used again.
        (format!("{}{chunked}\r\n{{x}}\r\n{{body}}\r\n{smuggled}", length(4)), Passed(1)),
        (format!("{chunked}{}\r\n{{x}}\r\n{{body}}\r\n{smuggled}", length(4)), Passed(1)),
        // Lengths that are none, or two.
        (format!("{}{}\r\n{SMUGGLED}", length(6), length(7)), Refused(400)),
        ("content-length: {n}\r\ncontent-length: {n}\r\n\r\n{body}".to_owned(), Passed(1)),
        (format!("content-length: 6, 7\r\n\r\n{SMUGGLED}"), Refused(400)),
        (format!("content-length: +6\r\n\r\n{SMUGGLED}"), Refused(400)),
        (format!("content-length: -1\r\n\r\n{SMUGGLED}"), Refused(400)),
        (format!("content-length: 0x6\r\n\r\n{SMUGGLED}"), Refused(400)),
        (format!("content-length: 6 6\r\n\r\n{SMUGGLED}"), Refused(400)),
        (format!("content-length: \r\n\r\n{SMUGGLED}"), Refused(400)),
        (format!("content-length: 99999999999999999999\r\n\r\n{SMUGGLED}"), Refused(400)),
        (format!("content-length : 6\r\n\r\n{SMUGGLED}"), Refused(400)),
        // Codings that are not known, spelt oddly, or two.
        (format!("transfer-encoding: xchunked\r\n\r\n{smuggled}"), Refused(400)),
        (format!("transfer-encoding: chunked, identity\r\n\r\n{smuggled}"), Refused(400)),
        (format!("transfer-encoding: gzip, chunked\r\n\r\n{smuggled}"), Refused(501)),
        (format!("transfer-encoding: gzip\r\n{chunked}\r\n{smuggled}"), Refused(501)),
        (format!("{chunked}{chunked}\r\n{smuggled}"), Refused(501)),
        (format!("{chunked}transfer-encoding: identity\r\n\r\n{smuggled}"), Refused(400)),
        (format!("transfer-encoding: \u{b}chunked\r\n\r\n{smuggled}"), Refused(400)),
        (format!("transfer-encoding : chunked\r\n\r\n{smuggled}"), Refused(400)),
        (format!("transfer-encoding:\r\n chunked\r\n\r\n{smuggled}"), Refused(400)),
        (format!("transfer\u{0}-encoding: chunked\r\n\r\n{smuggled}"), Refused(400)),
        // Chunks that are none.
        (format!("{chunked}\r\n0x5\r\nhello\r\n{smuggled}"), Refused(400)),
        (format!("{chunked}\r\n-5\r\nhello\r\n{smuggled}"), Refused(400)),
        (format!("{chunked}\r\n\r\nhello\r\n{smuggled}"), Refused(400)),
        (format!("{chunked}\r\ng\r\nhello\r\n{smuggled}"), Refused(400)),
        (format!("{chunked}\r\nfffffffffffffffff\r\nhello\r\n{smuggled}"), Refused(400)),
        (format!("{chunked}\r\n5\r\nhelloworld\r\n{smuggled}"), Refused(400)),
        (format!("{chunked}\r\n5\nhello\r\n{smuggled}"), Refused(400)),
        (format!("{chunked}\r\n5;{}\r\nhello\r\n{smuggled}", "x".repeat(40_000)), Refused(400)),
        (format!("{chunked}\r\n5;a\nb\r\nhello\r\n{smuggled}"), Refused(400)),
    ]
    .into_iter()
    .collect()
}

/// With the body of an API in it.
fn filled(shape: &str, body: &str) -> String {
    let (n, x) = (body.len().to_string(), format!("{:x}", body.len()));
    shape.replace("{n}", &n).replace("{x}", &x).replace("{body}", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_framed_in_one_way_or_refused_and_whatever_passes_is_charged() {
    let setup = Setup::new("").await;
    let plain = ("/upload", "hello");
    let llm = ("/v1/chat/completions", r#"{"messages":[],"max_tokens":9}"#);
    let mut asked = 0;
    for (path, body) in [plain, llm] {
        for (shape, fate) in bodies() {
            let (reached, counted, charged) = setup.account(asked).await;
            asked += 1;
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{}", filled(&shape, body));
            let answer = tokio::task::block_in_place(|| setup.exchange(request.as_bytes()));
            let start: String = request.chars().take(160).collect();
            let after = setup.account(asked).await;
            asked += 1;
            let (reached, counted) = (after.0 - reached, after.1 - counted);
            let smuggled = |(parts, _): &(http::request::Parts, _)| parts.uri.path() != "/smuggled";
            assert!(setup.upstream.seen().iter().all(smuggled), "{start:?}");
            match fate {
                Refused(status) => {
                    assert_eq!(statuses(&answer), [status], "{start:?}: {answer}");
                    // A plain call's body is passed on as it comes, so its head may have been.
                    assert!(reached == 0, "{start:?}");
                }
                Passed(calls) => {
                    assert_eq!(
                        (statuses(&answer).first(), reached),
                        (Some(&200), calls as u64),
                        "{start:?}"
                    );
                    let used = if path == llm.0 { USED } else { 0 };
                    assert_eq!(after.2 - charged, used, "{start:?}");
                    let (parts, passed) = last_but_asking(&setup);
                    assert_eq!(passed, body, "{start:?}");
                    // What it is framed by is ours.
                    let framings = ["content-length", "transfer-encoding"];
                    let framed = framings.iter().filter(|name| parts.headers.contains_key(**name));
                    assert!(framed.count() == 1 && !parts.headers.contains_key("authorization"));
                }
            }
            assert!(counted >= reached, "{start:?}: nothing passes uncounted");
        }
    }
}

/// The last call that has reached the upstream, with its body.
fn last_but_asking(setup: &Setup) -> (http::request::Parts, bytes::Bytes) {
    let seen = setup.upstream.seen();
    let last = seen.into_iter().rfind(|(parts, _)| parts.uri.path() != "/v1/models");
    last.expect("a call that reached the upstream")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_read_in_one_way_or_refused() {
    let setup = Setup::new("").await;
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = "y".repeat(1 << 20);
    let heads = [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), Passed(1)),
        ("GET / HTTP/1.1\r\nhost: x\r\n bad: fold\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.1\r\nhost: x\r\nx: y\r\n\tfold\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.1\r\n: x\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.1\r\nhost: x\r\nx: a\rb\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.1\r\nhost: x\r\nx\u{e9}: y\r\n\r\n".to_owned(), Refused(400)),
        ("GET  / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), Refused(400)),
        ("GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/1.2\r\nhost: x\r\n\r\n".to_owned(), Refused(400)),
        ("GET / HTTP/2.0\r\nhost: x\r\n\r\n".to_owned(), Refused(400)),
        ("GET / http/1.1\r\nhost: x\r\n\r\n".to_owned(), Refused(400)),
        ("\0\0\0\0\r\n\r\n".to_owned(), Refused(400)),
        ("POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), Refused(400)),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), Refused(431)),
        (format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"), Refused(431)),
        (format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), Refused(431)),
        // One request with a body of nothing each, after the other.
        (
            "GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                .to_owned(),
            Passed(2),
        ),
        // Another protocol is not taken up: what follows is no tunnel.
        (
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(),
            Passed(1),
        ),
        (
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
                .to_owned(),
            Passed(1),
        ),
        ("GET http://other.example/ HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), Passed(1)),
    ];
    let mut asked = 0;
    for (head, fate) in heads {
        let (reached, counted, _) = setup.account(asked).await;
        asked += 1;
        let answer = tokio::task::block_in_place(|| setup.exchange(head.as_bytes()));
        let start: String = head.chars().take(90).collect();
        let after = setup.account(asked).await;
        asked += 1;
        let (reached, counted) = (after.0 - reached, after.1 - counted);
        match fate {
            Refused(status) => {
                assert_eq!((statuses(&answer), reached), (vec![status], 0), "{start:?}: {answer}");
            }
            Passed(calls) => {
                assert_eq!(
                    (statuses(&answer), reached),
                    (vec![200; calls], calls as u64),
                    "{start:?}"
                );
                let (parts, _) = last_but_asking(&setup);
                for name in ["connection", "upgrade", "http2-settings"] {
                    assert!(
                        !parts.headers.contains_key(name),
                        "{start:?}: {name} is for one connection"
                    );
                }
                let host = parts.headers["host"].to_str().unwrap();
                assert_eq!(host, setup.upstream.address.to_string(), "not who the client says");
            }
        }
        assert_eq!(counted, reached, "{start:?}");
    }
}
